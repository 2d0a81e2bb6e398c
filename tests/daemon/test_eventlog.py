"""What a daemon notes of its decisions is decided anew the same way."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest
from climbing import Climber

from edge_daemon.eventlog import EventLog, replay
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.setting import Site
from edge_daemon.policy.state import initial
from edge_daemon.policy.types import (
    ActivationFailed,
    AppCanRun,
    AppJoined,
    AppPinned,
    AppReported,
    Event,
    Measured,
    ModelFacts,
    Paused,
    Pinned,
    PinnedBy,
    Preferred,
    Tick,
    Tried,
    Unpinned,
    VariantFacts,
)
from edge_sdk.errors import StorageError, WireError
from edge_sdk.mqtt import Conditions
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

FACTS = (
    ModelFacts(
        name="digits",
        variants=tuple(
            VariantFacts(id=name, quality=quality, latency_ms=ms, measured=False, size_bytes=1)
            for name, quality, ms in (("large", 99.0, 40.0), ("small", 95.0, 10.0))
        ),
    ),
)
EVENTS: tuple[Event, ...] = (
    Preferred(model=None, preference=Preference(mode=Mode.ACCURACY, max_latency_ms=50.0)),
    AppJoined(app="a", model="digits", runs=("large", "small")),
    *(Tick(now_s=float(s), at=1e9 + s, conditions=Conditions(temp_c=50.0, temp_limit_c=75.0)) for s in range(3)),
    AppReported(
        app="a", variant="large", calls=3, late=1, p50_ms=90.0, p95_ms=95.0, latencies_ms=(90.0,), slow_ms=95.0,
        now_s=2.5,
    ),
    Tick(now_s=3.0, at=1e9 + 3, conditions=Conditions(temp_c=80.0, temp_limit_c=75.0), until_s=500.0),
    ActivationFailed(app="a", variant="small", reason="no room"),
    AppPinned(app="a", variant="small"),
    AppPinned(app="a", variant=None),
    AppCanRun(app="a", hot=True),
    Pinned(model="digits", variant="large", by=PinnedBy.HUB),
    Unpinned(model=None, by=PinnedBy.HUB),
    Measured(model="digits", variant="large", median_ms=20.0),
    Tried(model="digits", variant="small", latency_ms=12.0),
    Paused(paused=True),
)  # fmt: skip


def recorded(path: Path) -> Path:
    frame, state = Frame(use="climber", factory=Climber, site=Site(capacity_wh=12.0)), initial(FACTS, at=1e9)
    log = EventLog(path)
    log.begin(frame, state)
    for event in EVENTS:
        state, instructions = frame.step(state, event)
        log.heard([(event, instructions)])
    log.close()
    return path


def test_every_decision_comes_out_again(tmp_path: Path) -> None:
    found = list(replay(recorded(tmp_path / "log"), Climber))
    assert [one.event for one in found] == list(EVENTS)
    assert [one.decided for one in found] == [one.recorded for one in found]
    assert sum(len(one.decided) for one in found) >= 5


def test_a_line_that_the_disk_took_in_part_is_the_last(tmp_path: Path) -> None:
    path, frame, state = tmp_path / "log", Frame(use="climber", factory=Climber), initial(FACTS, at=1e9)
    log = EventLog(path)
    log.begin(frame, state)
    log.heard([(EVENTS[0], ())])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        log.heard([(EVENTS[1], ())])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.heard([(event, ()) for event in EVENTS[2:]])  # there is room again
    log.close()
    assert [one.event for one in replay(path, Climber)] == [EVENTS[0]]


def test_another_policy_decides_otherwise_on_the_same_day(tmp_path: Path) -> None:
    class Patient(Climber):
        def __init__(self, setting: object) -> None:
            super().__init__(setting)  # type: ignore[arg-type]
            self.setting = type(self.setting)(board=self.setting.board, tasks=self.setting.tasks)  # no limit of heat

    found = list(replay(recorded(tmp_path / "log"), Patient))
    assert any(one.decided != one.recorded for one in found)


def test_a_line_that_a_crash_cut_short_ends_it_and_nonsense_is_refused(tmp_path: Path) -> None:
    log = recorded(tmp_path / "log")
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    assert len(list(replay(log, Climber))) == len(EVENTS) - 1
    for nonsense in (b"", b"{}\n", whole.split(b"\n")[0] + b'\n{"kind":"Ghost","event":{}}\n'):
        log.write_bytes(nonsense)
        with pytest.raises(WireError):
            list(replay(log, Climber))


def test_a_log_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be recorded"):
        EventLog(tmp_path / "missing" / "log")


def test_nothing_that_is_no_number_is_noted(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    log.begin(Frame(use="climber", factory=Climber), initial(FACTS))
    log.heard([(Measured(model="digits", variant="large", median_ms=math.inf), ())])
    log.close()
    with pytest.raises(WireError, match="no event"):
        list(replay(tmp_path / "log", Climber))
