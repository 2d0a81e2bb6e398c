"""Where a play takes place: hub, slow link, played board, daemon and app, put up in this order, taken down in reverse.

Also the tool box of fault injection: each of the processes can be killed without a word and started again, on the
same ports and the same files, as on a real board.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lab.errors import LabError, PartDiedError
from edge_lab.leashed import Leashed, wait_for
from edge_lab.played import PlayedBoard, PlayedConditions
from edge_lab.slow_link import SlowLink
from edge_sdk.errors import EdgeError
from edge_sdk.local import LocalClient, Status

if TYPE_CHECKING:
    from typing_extensions import Self

DEVICE = "demo/board-1"
MODEL = "digits"
_UP_S = 30.0
_ENROLL_S = 20.0
_APP_S = 60.0
_LOOK_S = 2.0
_GRACE_S = {"app": 3.0, "daemon": 6.0, "hub": 12.0}
_PORT_TRIES = 3
# What this user's own installation may have set must not lead ours astray.
_FOREIGN = ("EDGE_", "STATE_DIRECTORY", "PYTHONPATH", "PYTHONHOME")


class Stage:
    """The processes of a play; a context manager that leaves none of them.

    Args:
        work: A private, empty directory with a short path (a unix socket lies in it).
        bundle: What the device serves as `digits`.
        data: The held-out digits, an `.npz` file.
        wait: Sleeps; may raise to end everything.
        patient: Turns false when the user wants out at once.
    """

    def __init__(
        self,
        work: Path,
        *,
        bundle: Path,
        data: Path,
        wait: Callable[[float], None],
        patient: Callable[[], bool] = lambda: True,
    ) -> None:
        self.work = work
        self.socket = work / "api.sock"
        self.hub_data = work / "hub"
        self.state = work / "state"
        self.logs = work / "logs"
        self._bundle = bundle
        self._data = data
        self._wait = wait
        self._patient = patient
        self._taking_down = ExitStack()
        self._processes: dict[str, Leashed] = {}
        self._listen = self._mqtt = ("127.0.0.1", 0)
        self.link: SlowLink | None = None
        self.board: PlayedBoard | None = None
        for folder in (self.logs, self.state, work / "tmp", work / "board"):
            folder.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down; may be called twice."""
        for name in ("app", "daemon", "hub"):
            self.stop(name)
        if self.link is not None:
            self.link.close()

    # ------------------------------------------------------------------------------------------- putting up

    def start_hub(self) -> None:
        """Start the hub and its broker, on the ports it had before or on free ones.

        Raises:
            PartDiedError: It does not come up.
        """
        for attempt in range(_PORT_TRIES):
            if self._listen[1] == 0:
                self._listen, self._mqtt = free_addresses(2)
            hub = self._start(
                "hub", "hub", "run", "--data", str(self.hub_data),
                "--listen", _text(self._listen), "--mqtt", _text(self._mqtt),
            )  # fmt: skip
            try:
                wait_for(self._hub_answers, what="the hub", limit_s=_UP_S, needs=[hub], wait=self._wait)
            except PartDiedError as error:
                self.stop("hub")
                # Between looking for a free port and the hub's taking it, somebody else may have had it.
                if "taken" not in str(error) or attempt == _PORT_TRIES - 1:
                    raise
                self._listen = self._mqtt = ("127.0.0.1", 0)
            else:
                return

    def enroll(self) -> None:
        """Make the device known to the hub and write its configuration.

        Raises:
            LabError: The hub does not enroll it.
        """
        written = self.work / "enrolled.toml"
        enrolling = self._start(
            "enroll", "hub", "enroll", DEVICE, "-o", str(written), "--data", str(self.hub_data)
        )
        wait_for(lambda: enrolling.status is not None, what="the enrolment", limit_s=_ENROLL_S, needs=[], wait=self._wait)
        status = enrolling.status
        self.stop("enroll")
        if status != 0:
            raise LabError("the device could not be enrolled", hint=enrolling.last_words())
        self.link = SlowLink(self._mqtt)
        enrolled = written.read_text("utf-8").partition("[models]")[0]
        through_link = re.sub(r"(?m)^port = \d+$", f"port = {self.link.address[1]}", enrolled)
        own = f"""
[models]
{MODEL} = "{self._bundle.absolute()}"
"""
        (self.work / "device.toml").write_text(through_link + own, encoding="utf-8")

    def _hub_answers(self) -> bool:
        try:
            with socket.create_connection(self._listen, timeout=_LOOK_S):
                return True
        except OSError:
            return False
