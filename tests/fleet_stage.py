"""A played fleet as a process, for tests of the hub and of the fleet itself."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any

from daemon_stage import EDGE, clean_environment, until
from hub_stage import HubProcess

from edge_sdk.errors import EdgeError

_PATIENCE_S = 120.0  # it plays each kind of board once before it connects


class PlayedFleet:
    """`edge hub simulate`.

    Args:
        hub: It reports to.
        devices: How many.
        options: Further arguments.
    """

    def __init__(self, hub: HubProcess, devices: int, *options: str) -> None:
        self._hub = hub
        self._devices = devices
        self._process = subprocess.Popen(
            [
                *(*EDGE, "hub", "simulate", "--devices", str(devices), "--every", "1"),
                *("--data", str(hub.data), "--json", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(hub.directory),
        )
        self.said: list[str] = []
        self._hearing = threading.Thread(target=self._hear)
        self._hearing.start()

    def until_online(self, least: int | None = None) -> None:
        """Return once so many devices are there."""

        def online() -> bool:
            assert self._process.poll() is None, self.said
            try:
                with self._hub.client() as client:
                    return client.health().online >= (self._devices if least is None else least)
            except EdgeError:
                return False

        try:
            until(online, "the fleet", _PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.said}, its hub {self._hub.said[-1000:]}") from None

    def finish(self) -> dict[str, Any]:
        """Ask it to end, and return what it counted and whether it calls that a success (`status`)."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        status = self._process.wait(_PATIENCE_S)
        self._hearing.join()
        assert out, self.said
        return {**json.loads(out), "status": status}

    def close(self) -> None:
        """End it however it is."""
        self._process.kill()
        self._process.wait()
        self._hearing.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _hear(self) -> None:
        assert self._process.stderr is not None
        self.said += self._process.stderr
