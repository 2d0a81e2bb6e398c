"""A board that is heated by what an app really burns: a tree of files that a thermal model writes in real time.

The processor time of a process, as the kernel counts it, becomes power; power heats a die and a board, two thermal
nodes in a row as in the profiles; the die's temperature stands in the file that the daemon's sensor reads. So the loop
of daemon, app and heat is closed: a smaller variant burns less, and the board cools.
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_lab.played import PlayedBoard, PlayedConditions
from edge_sdk.physics import BoardModel

STEP_S: Final = 0.1
SWING_S: Final = 100.0
_EULER_S: Final = 0.01  # well below the fastest node, 14 s over how many times faster it is
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """The board at one moment.

    Attributes:
        at_s: Since the board began.
        busy: Of one core, what the watched processes burned in the last step.
    """

    at_s: float
    die_c: float
    power_w: float
    busy: float


class HeatedBoard:
    """The files below `root`, written by a thread until `close`.

    Args:
        root: An empty directory of the caller's.
        model: How it heats; `cpu_w` is drawn while one core is busy.
        ambient_c: Of the air, which swings by `swing_c` up and down once in `SWING_S`: now the sun, now a cloud.
    """

    def __init__(self, root: Path, model: BoardModel, *, ambient_c: float, swing_c: float = 0.0) -> None:
        self._model, self._ambient_c, self._swing_c = model, ambient_c, swing_c
        self._die_c = self._board_c = ambient_c + model.idle_w * model.r_c_per_w[1]
        self._die_c += model.idle_w * model.r_c_per_w[0]
        self._played = PlayedBoard(root, self._conditions(), limit_c=model.max_temp_c)
        self._watched: dict[int, float] = {}
        self._lock = threading.Lock()
        self._felt: list[Felt] = []
        self._ended = threading.Event()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="edge-heat", daemon=True)
        self._thread.start()

    def watch(self, pid: int) -> None:
        """Let this process heat the board from now on."""
        with self._lock:
            self._watched[pid] = _burned_s(pid)

    def felt(self) -> tuple[Felt, ...]:
        """All moments so far."""
        with self._lock:
            return tuple(self._felt)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        before_s = time.monotonic()
        while not self._ended.wait(STEP_S):
            now_s = time.monotonic()
            self._step(now_s - before_s)
            before_s = now_s

    def _step(self, passed_s: float) -> None:
        with self._lock:
            burned_s = 0.0
            for pid, before_s in self._watched.items():
                self._watched[pid] = max(before_s, _burned_s(pid))  # one that is gone burns nothing more
                burned_s += self._watched[pid] - before_s
            busy = min(burned_s / passed_s, 1.0) if passed_s > 0 else 0.0
            power_w = self._model.idle_w + self._model.cpu_w * busy
            steps = max(1, round(passed_s / _EULER_S))
            for _ in range(steps):
                self._heat(power_w, passed_s / steps)
            self._played.show(self._conditions())
            at_s = time.monotonic() - self._began_s
            self._felt.append(Felt(at_s=at_s, die_c=self._die_c, power_w=power_w, busy=busy))

    def _heat(self, power_w: float, step_s: float) -> None:
        model = self._model
        flow_w = (self._die_c - self._board_c) / model.r_c_per_w[0]
        air_c = self._ambient_c + self._swing_c * math.sin(math.tau * (time.monotonic() - self._began_s) / SWING_S)
        out_w = (self._board_c - air_c) / model.r_c_per_w[1]
        self._die_c += step_s * (power_w - flow_w) / model.c_j_per_c[0]
        self._board_c += step_s * (flow_w - out_w) / model.c_j_per_c[1]

    def _conditions(self) -> PlayedConditions:
        return PlayedConditions(temp_c=self._die_c, battery_pct=100.0, charging=True, rtt_ms=0.0)


def _burned_s(pid: int) -> float:
    """Processor seconds so far; fields 14 and 15 of proc(5) stat, behind the name, which may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
