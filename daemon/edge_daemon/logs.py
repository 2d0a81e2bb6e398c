"""The daemon's log: standard error, one line per change, priorities as journald reads them (sd-daemon(3))."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Final

_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Line(logging.Formatter):
    """A record as one line; under journald with its priority and without the time, which the journal has."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n    ")
        if self._journal:
            priority = _PRIORITY.get(record.levelno, 6)
            return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{moment} {record.levelname.lower():7} {text}"


def configure(level: str) -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(journal=_is_journal()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # asyncio's complaints are ours to fix, its chatter is not ours to print.
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class Seldom:
    """Lets one of many equal log lines through.

    Args:
        every_s: At most one line in this time.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: float | None = None
        self._held_back = 0

    def allows(self, now_s: float) -> int | None:
        """How many lines were held back since the last one, if it is time for a line; else None.

        Args:
            now_s: Monotonic clock.
        """
        if self._last is not None and now_s - self._last < self._every_s:
            self._held_back += 1
            return None
        held_back, self._held_back, self._last = self._held_back, 0, now_s
        return held_back

    def ending(self, now_s: float) -> str | None:
        """What a line ends with that tells of those held back, if it is time for a line; else None."""
        held_back = self.allows(now_s)
        if held_back is None:
            return None
        return f" ({held_back} more such lines held back)" if held_back else ""


def _is_journal() -> bool:
    """Whether standard error is the very stream that systemd connected to the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (ValueError, OSError):
        return False
