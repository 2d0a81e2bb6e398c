"""Writes down what a board meets, as a trace that `edge simulate` plays.

One row each time, on the monotonic clock: setting the wall clock tears no hole. Rows wait in a file without a name;
the trace itself appears whole when the recording ends, with the columns that ever had a value. Where a daemon runs, it
is asked for what only it sees: its round trips, the transfers, the requests of apps and how slow they are answered.

`slowdown` is the median latency of the busiest app, at full clock, over what the same variant took in its fastest
seconds of this recording: so it is known only at the end. The heat that slows a board is left out of it by the clock,
because the simulator has heat of its own. A throughput holds until the next transfer shows another, and before the
first: to the simulator a gap in it is an outage, which here the round trip tells, missing while nothing answers.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from edge_daemon.sensors.battery import outflow_w
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.suite import SensorSuite
from edge_sdk import atomic
from edge_sdk.errors import EdgeError
from edge_sdk.local import LocalClient, Status
from edge_sdk.mqtt import Conditions

# What `edge_lab.simulate.trace` reads, in its words; the others are for people.
PLAYED: Final = ("ambient_c", "rtt_ms", "up_mbps", "down_mbps", "requests_per_s", "slowdown", "battery_w")
_ORDER: Final = (
    "time_s", *PLAYED, "temp_c", "throttle", "power_w", "load_pct", "clock", "memory_available_mb", "battery_pct",
    "battery_wh", "charging", "gpu_pct", "npu_pct", "edgetpu_pct", "metered", "unix_s",
)  # fmt: skip
_SENSED: Final = tuple(name for name in _ORDER if name in Conditions.__struct_fields__)
HOLD_S: Final = 10.0  # for so long the simulator takes a value to hold; what is older is a gap
MOST_ROWS: Final = 600_000  # a week, once a second; the simulator takes a million, and 64 MiB
MOST_BYTES: Final = 60_000_000
_SLOWDOWN_BYTES: Final = 8  # of a cell that is known only at the end
_STATUS_TIMEOUT_S: Final = 0.5
_DAEMON_REST_S: Final = 10.0  # after none answered
_FASTEST_SHARE: Final = 0.05
_MOST_LATENCIES: Final = 20_000  # of a variant that are kept to know its fastest; beyond, the first ones say it
_HELD: Final = ("up_mbps", "down_mbps")
# Where nothing was recorded that is played, its name alone makes the file one that is: a gap in it means 1.
_NEUTRAL: Final = "slowdown"
_SLOWEST: Final = 1000.0  # bounds of the simulator's column
_FASTEST: Final = 0.01

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What was recorded.

    Attributes:
        columns: That had a value at least once, in the file's order.
        played: Those of them that `edge simulate` plays.
        missing: Why others had none, as it was said last.
        full: It ended because nothing plays a longer one.
    """

    file: str
    rows: int
    seconds: float
    columns: tuple[str, ...]
    played: tuple[str, ...]
    missing: dict[str, str]
    full: bool


@dataclass(slots=True)
class _Daemon:
    """Asks the local API of a daemon, if one runs; one that does not answer is left alone for a while."""

    socket: str | None
    _client: LocalClient | None = None
    _rest_until_s: float = 0.0
    _calls: dict[str, int] = field(default_factory=dict)
    _at_s: float | None = None

    def ask(self) -> Status | None:
        if time.monotonic() < self._rest_until_s:
            return None
        try:
            if self._client is None:
                self._client = LocalClient(self.socket, timeout_s=_STATUS_TIMEOUT_S)
            return self._client.call("GET", "/v1/status", Status)
        except EdgeError:
            self._rest_until_s = time.monotonic() + _DAEMON_REST_S
            self._calls, self._at_s = {}, None
            return None

    def work(self, status: Status) -> Row:
        """Requests a second since the last time, and the latency of the busiest app with its variant."""
        now_s = time.monotonic()
        before_s, self._at_s = self._at_s, now_s
        calls = {app.app: app.calls for app in status.apps}
        done = {
            app: count - self._calls.get(app, 0) for app, count in calls.items() if count >= self._calls.get(app, 0)
        }
        self._calls = calls
        if before_s is None:  # what apps did before is of another time
            return {}
        row: Row = {"requests_per_s": sum(done.values()) / max(1e-3, now_s - before_s)}
        busy = [app for app in status.apps if done.get(app.app) and app.p50_ms and app.active]
        if busy:
            app = max(busy, key=lambda one: done[one.app])
            row["_latency_ms"], row["_variant"] = app.p50_ms, f"{app.model}/{app.active}"
        return row

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def record(
    out: Path,
    suite: SensorSuite,
    *,
    root: str,
    socket: str | None,
    every_s: float,
    for_s: float | None,
    ended: threading.Event,
) -> Recording:
    """Record until `ended` is set or the time is over, then write the trace.

    Args:
        out: Replaced whole, at the end.
        suite: Reads the board.
        root: Of the board's files.
        socket: Of the daemon's local API; None is the usual place.
        every_s: Seconds between two rows.
        for_s: How long; None is until `ended`.
        ended: Set by whoever wants it to end.

    Raises:
        StorageError: The trace cannot be written; what was at `out` still is.
    """
    atomic.check(out)  # before a day is recorded, not after
    daemon, files = _Daemon(socket), Files(root)
    missing: dict[str, str] = {}
    latencies: dict[str, list[float]] = {}
    seen: set[str] = set()
    held: Row = {}
    rows, size_bytes, full, time_s = 0, 0, False, 0.0
    try:
        with atomic.storage_errors(out), tempfile.TemporaryFile("w+", encoding="utf-8", dir=out.parent) as waiting:
            for time_s in _times(every_s, for_s, ended):
                row, missing = _row(suite, daemon, files)
                row["time_s"] = round(time_s, 3)
                if variant := row.get("_variant"):
                    known = latencies.setdefault(variant, [])
                    if len(known) < _MOST_LATENCIES:
                        known.append(_at_full_clock(row))
                row = {name: value for name, value in row.items() if value is not None}
                seen.update(row)
                held = {name: row[name] for name in _HELD if name in row} | held  # the first ones
                waiting.write(json.dumps(row, separators=(",", ":")) + "\n")
                rows += 1
                size_bytes += sum(len(_cell(row.get(name))) + 1 for name in _ORDER) + _SLOWDOWN_BYTES
                if rows >= MOST_ROWS or size_bytes >= MOST_BYTES:
                    full = True
                    break
            fastest = {variant: _fastest(known) for variant, known in latencies.items()}
            if fastest:
                seen.add("slowdown")
            columns = tuple(name for name in _ORDER if name in seen)
            played = tuple(name for name in columns if name in PLAYED)
            waiting.seek(0)
            with atomic.file(out) as file:
                _write(file, waiting, columns if played else (*columns, _NEUTRAL), fastest, held)
    finally:
        daemon.close()
    return Recording(
        file=str(out),
        rows=rows,
        seconds=round(time_s, 3),
        columns=columns,
        played=played,
        missing={name: why for name, why in sorted(missing.items()) if name not in seen},
        full=full,
    )


def _times(every_s: float, for_s: float | None, ended: threading.Event) -> Iterator[float]:
    """Seconds since the beginning, when a row is due; a row that is late is not made up for, nor followed at once."""
    began_s = time.monotonic()
    due_s = 0.0
    while True:
        now_s = time.monotonic() - began_s
        yield now_s
        due_s = max(due_s + every_s, now_s + every_s / 2)  # the simulator takes no two rows of one millisecond
        if for_s is not None and due_s > for_s:
            return
        if ended.wait(max(0.0, due_s - (time.monotonic() - began_s))):
            return


def _row(suite: SensorSuite, daemon: _Daemon, files: Files) -> tuple[Row, dict[str, str]]:
    here = suite.read()
    row = _sensed(here)
    row["unix_s"] = round(time.time(), 3)
    missing = dict(here.missing)
    out_w = outflow_w(files)
    if out_w is not None and here.power_w is not None and here.charging is not False and here.power_scope == "board":
        row["battery_w"] = out_w - here.power_w  # besides the board's own, as the simulator wants it
    status = daemon.ask()
    if status is not None:
        row.update(daemon.work(status))
        if not status.conditions.played:  # what is invented is nothing of this board's
            # A gauge that only its configuration knows, the connection that only it has.
            row |= {name: value for name, value in _sensed(status.conditions).items() if row[name] is None}
    return row, missing


def _sensed(conditions: Conditions) -> Row:
    row: Row = {name: getattr(conditions, name) for name in _SENSED}
    row["throttle"] = None if "throttle" in conditions.missing else conditions.throttle.value
    return row


def _at_full_clock(row: Mapping[str, Any]) -> float:
    return float(row["_latency_ms"]) * (row.get("clock") or 1.0)


def _fastest(latencies: list[float]) -> float:
    return sorted(latencies)[int(_FASTEST_SHARE * (len(latencies) - 1))]


def _write(
    file: IO[bytes], waiting: IO[str], columns: tuple[str, ...], fastest: Mapping[str, float], held: Row
) -> None:
    text = io.TextIOWrapper(file, encoding="ascii", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for line in waiting:
            row: Row = json.loads(line)
            for name in held:
                held[name] = row[name] = held[name] if row.get(name) is None else row[name]
            if variant := row.get("_variant"):
                slower = _at_full_clock(row) / max(1e-6, fastest[variant])
                row["slowdown"] = min(_SLOWEST, max(_FASTEST, slower))
            writer.writerow([_cell(row.get(name)) for name in columns])
    finally:
        text.detach()  # the file is its owner's to close


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{round(value, 4):.15g}"
    return str(value)


def until(ended: threading.Event) -> Callable[[int, object], None]:
    """A handler of signals that lets a recording end in order."""

    def hear(_number: int, _frame: object) -> None:
        ended.set()

    return hear
