"""What was found out about delegates on this machine, so that an app does not try again at every start what crashes.

One small file a finding, named by a digest of all it depends on. What works needs no second proof until something
changes; what does not is tried again after a day, and what may have passed by then (a device that was in use) at once.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from edge_sdk import atomic
from edge_sdk.errors import StorageError, WireError
from edge_sdk.wire import Text, Unix, Wire, decode, encode

VARIABLE = "EDGE_CACHE"
_MOST_FILES = 256
_MOST_BYTES = 16 * 1024
_AGAIN_S = 24 * 3600.0


class Finding(Wire, frozen=True, kw_only=True):
    """Whether a delegate computes a model here.

    Attributes:
        what: The model and the delegate, for people.
        reason: Why not.
        is_lasting: It will be so the next time: a crash, a hang, a wrong answer, and not a device in use.
        at: When it was found out.
    """

    works: bool
    what: Text = ""
    reason: Text = ""
    is_lasting: bool = True
    at: Unix = 0.0


class Findings:
    """The findings in one folder. Trouble with the folder is no trouble: then everything is tried again.

    Args:
        folder: None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def known(self, key: str) -> Finding | None:
        """What is known of this, if it still counts."""
        if self.folder is None:
            return None
        return _still(_read(self.folder / f"{key}.json"))

    def all(self) -> tuple[Finding, ...]:
        """All that still count, the newest first."""
        files = sorted(self.folder.glob("*.json"))[: 2 * _MOST_FILES] if self.folder is not None else []
        found = [finding for path in files if (finding := _still(_read(path))) is not None]
        return tuple(sorted(found, key=lambda finding: -finding.at))

    def forget(self) -> int:
        """Forget everything, so that it is all tried anew; returns how many there were."""
        gone = 0
        for path in self.folder.glob("*.json") if self.folder is not None else ():
            with suppress(OSError):
                path.unlink()
                gone += 1
        return gone

    def note(self, key: str, finding: Finding) -> None:
        """Keep it, unless it may have passed by the next time."""
        if self.folder is None:
            return
        path = self.folder / f"{key}.json"
        if not finding.works and not finding.is_lasting:
            with suppress(OSError):
                path.unlink()
            return
        now = max(0.0, round(time.time(), 3))
        dated = Finding(works=finding.works, what=finding.what, reason=finding.reason, at=now)
        with suppress(OSError, StorageError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room()
            atomic.write_bytes(path, encode(dated))

    def _make_room(self) -> None:
        files = sorted(self.folder.glob("*.json"), key=_age_s) if self.folder is not None else []
        for path in files[: max(0, len(files) + 1 - _MOST_FILES)]:
            with suppress(OSError):
                path.unlink()


def usual() -> Findings:
    """Those of this user: in `EDGE_CACHE` (empty keeps nothing), else in the user's cache directory."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Findings(Path(named) / "delegates" if named else None)
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        place = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return Findings(None)
    return Findings(place / "adaptive-edge-sdk" / "delegates")


def _read(path: Path) -> Finding | None:
    try:
        with path.open("rb") as file:
            return decode(file.read(_MOST_BYTES + 1), Finding, where=str(path), max_bytes=_MOST_BYTES)
    except (OSError, WireError):
        return None


def _still(finding: Finding | None) -> Finding | None:
    """The finding if it still counts: what does not work is tried again after a day."""
    if finding is None or finding.works:
        return finding
    return finding if 0 <= time.time() - finding.at < _AGAIN_S else None


def _age_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
