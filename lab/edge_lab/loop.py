"""The real loop: a daemon, an app that really computes, and a board that is heated by what it really burns.

Everything is a process of its own and runs in real time; only the board is made up (`edge_lab.heated`). The daemon
records what its policy was told and decided, and is killed in the middle. Afterwards it is found out whether the limit
of heat was held, whether replaying the record gives the same decisions, and whether what had been learned outlived the
kill.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge_daemon import eventlog
from edge_daemon.policies import registry
from edge_daemon.policy.state import dump
from edge_lab.errors import PartDiedError
from edge_lab.heated import Felt, HeatedBoard
from edge_lab.leashed import Leashed
from edge_sdk import bundle, physics, profile
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError
from edge_sdk.local import LocalClient, Status
from edge_sdk.machine import machine_name
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Origin
from edge_sdk.wire import decode, encode

if TYPE_CHECKING:
    from typing_extensions import Self

_DATA: Final = Path(__file__).parent / "data" / "digits"
_FILES: Final = ("large", "medium", "small")
_EDGE: Final = (sys.executable, "-c", "import sys; from edge_sdk.cli import main; sys.exit(main())")
_LARGE_MS: Final = 100.0  # of a call of the largest variant: a batch that takes this long
_RATE: Final = 5.0
_LIMIT_MS: Final = 400.0  # of a call: any variant is in time, so that only the heat speaks against the largest
AMBIENT_C: Final = 32.0
SWING_C: Final = 13.0
_START_S: Final = 30.0
_END_S: Final = 10.0
_POLL_S: Final = 0.05
_OVER_C: Final = 0.5
_ROUNDS: Final = 5
_TIMES: Final = 15
_MAX_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        limit_c, largest_c: What was to be kept, and where the largest variant alone would have settled.
        highest_c: Of the die; `hot_pct` the share of time more than half a degree above the limit.
        decisions: That the daemon made; `replayed` those that replaying the record gave again, which is to be all.
        forced: Decisions that the frame and not the policy made.
        kept: What the policy had learned at the last save outlived the kill, byte for byte.
        calls: By the variant that answered; `failed` had no answer, `behind` began late.
        switches: Decisions that changed the variant.
        slowest_ms: The longest of the replayed steps.
    """

    policy: str
    seconds: float
    limit_c: float
    largest_c: float
    highest_c: float
    mean_c: float
    hot_pct: float
    decisions: int
    replayed: int
    forced: int
    kept: bool
    calls: dict[str, int]
    failed: int
    behind: int
    switches: int
    events: int
    slowest_ms: float
    daemon_busy_pct: float


class RealLoop:
    """The loop, ready to run; a context manager that leaves no process.

    Args:
        work: A private, empty directory with a short path (a unix socket lies in it).
        policy: Its name.
        faster: So many times faster than a Raspberry Pi 4 the board heats; its profile says so, too.
        ambient_c: Of the air around the board, on average. The warmer, the less the limit of heat leaves room for.
        swing_c: It swings so far up and down.
        wait: Sleeps; may raise to end everything.
    """

    def __init__(
        self,
        work: Path,
        *,
        policy: str,
        faster: float = 1.0,
        ambient_c: float = AMBIENT_C,
        swing_c: float = SWING_C,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work, self._policy, self._wait = work, policy, wait
        self._profiles = work / "profiles"
        self._profiles.mkdir()
        (self._profiles / "loop.toml").write_text(_profile(faster), encoding="utf-8")
        self._model = physics.of(profile.read(self._profiles / "loop.toml"))
        self._batch, self.bundle, self._large_ms = digits_bundle(work / "digits-1.edge")
        self._socket = work / "s"
        (work / "daemon.toml").write_text(_config(policy), encoding="utf-8")
        self._ambient_c = ambient_c
        self._board = HeatedBoard(_made(work / "board"), self._model, ambient_c=ambient_c, swing_c=swing_c)
        self._processes: list[Leashed] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.stop(grace_s=_END_S)
        self._board.close()

    def run(self, seconds: float) -> Outcome:
        """Run it, with a kill of the daemon after half of the time.

        Raises:
            PartDiedError: A part of it ended by itself.
        """
        first, second = self._work / "first.jsonl", self._work / "second.jsonl"
        daemon = self._daemon(first)
        app = self._app()
        began_s = time.monotonic()
        self._go_on(seconds / 2, daemon, app)
        daemon.kill()
        daemon = self._daemon(second)
        self._go_on(max(0.0, began_s + seconds - time.monotonic()), daemon, app)
        busy_s, lived_s = _burned_s(daemon.pid), time.monotonic() - began_s - seconds / 2
        counted = self._counted(app)
        daemon.stop(grace_s=_END_S)
        felt = self._board.felt()
        return self._outcome(lived_s and 100 * busy_s / lived_s, felt, counted, (first, second))

    def _daemon(self, record: Path) -> Leashed:
        environment = os.environ | {"EDGE_PROFILES": str(self._profiles)}
        argv = (
            "daemon", "run", "--config", str(self._work / "daemon.toml"), "--socket", str(self._socket),
            "--record-events", str(record),
        )  # fmt: skip
        self._socket.unlink(missing_ok=True)
        daemon = self._start("daemon", (*_EDGE, *argv), environment)
        deadline_s = time.monotonic() + _START_S
        while _status(self._socket) is None:
            daemon.require()
            if time.monotonic() > deadline_s:
                raise PartDiedError("the daemon does not answer", hint=daemon.last_words())
            self._wait(_POLL_S)
        return daemon

    def _app(self) -> Leashed:
        argv = (
            sys.executable, "-m", "edge_lab.loop_app", "--model", "digits", "--socket", str(self._socket),
            "--rate", str(_RATE), "--batch", str(self._batch),
        )  # fmt: skip
        app = self._start("app", argv, dict(os.environ), piped=True)
        app.stdout.readline()  # it is ready, or has ended
        app.require()
        self._board.watch(app.pid)
        return app

    def _start(self, name: str, argv: tuple[str, ...], environment: dict[str, str], *, piped: bool = False) -> Leashed:
        process = Leashed(
            name, argv, log=self._work / f"{name}.log", env=environment, cwd=self._work / "board", piped=piped
        )
        self._processes.append(process)
        return process

    def _go_on(self, seconds: float, *needs: Leashed) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            for part in needs:
                part.require()
            self._wait(min(left_s, 1.0))

    def _counted(self, app: Leashed) -> dict[str, Any]:
        os.kill(app.pid, signal.SIGTERM)
        line = app.stdout.readline(_MAX_ANSWER_BYTES)
        app.stop(grace_s=_END_S)
        found: dict[str, Any] = msgspec.json.decode(line)
        return found

    def _outcome(
        self, busy_pct: float, felt: tuple[Felt, ...], counted: dict[str, Any], records: tuple[Path, Path]
    ) -> Outcome:
        model = self._model
        decisions = replayed = forced = switches = events = 0
        slowest_s, states = 0.0, set[bytes]()
        factory = registry.find(self._policy)
        for record in records:
            before: str | None = None
            began_s = time.perf_counter()
            for one in eventlog.replay(record, factory):
                slowest_s = max(slowest_s, time.perf_counter() - began_s)
                decisions += len(one.recorded)
                replayed += sum(new == old for new, old in zip(one.decided, one.recorded, strict=False))
                for decision in one.recorded:
                    forced += decision.because.code in {"throttle", "failure"}
                    switches += before is not None and decision.variant != before
                    before = decision.variant
                events += 1
                if record is records[0]:
                    states.add(learned(dump(one.state)))
                began_s = time.perf_counter()
        share = self._large_ms * self._batch * _RATE / 1000
        over = [each for each in felt if each.die_c > model.max_temp_c + _OVER_C]
        return Outcome(
            policy=self._policy,
            seconds=round(felt[-1].at_s, 1),
            limit_c=model.max_temp_c,
            largest_c=round(self._ambient_c + (model.idle_w + model.cpu_w * min(share, 1.0)) * sum(model.r_c_per_w), 1),
            highest_c=round(max(each.die_c for each in felt), 2),
            mean_c=round(sum(each.die_c for each in felt) / len(felt), 2),
            hot_pct=round(100 * len(over) / len(felt), 2),
            decisions=decisions,
            replayed=replayed,
            forced=forced,
            kept=learned(eventlog.began(records[1])) in states - {b""},
            calls=counted["calls"],
            failed=counted["failed"],
            behind=counted["behind"],
            switches=switches,
            events=events,
            slowest_ms=round(1000 * slowest_s, 2),
            daemon_busy_pct=round(busy_pct, 2),
        )


def learned(state: bytes) -> bytes:
    """What a dumped state holds of the policy's own."""
    found: bytes = msgspec.json.decode(state, type=_Learned).learned
    return found


class _Learned(msgspec.Struct):
    learned: bytes = b""


def _status(socket: Path) -> Status | None:
    try:
        with LocalClient(socket, timeout_s=1.0) as client:
            return client.call("GET", "/v1/status", Status)
    except EdgeError:
        return None


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _burned_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _profile(faster: float) -> str:
    """A Raspberry Pi 4 in a thinner housing: the same temperatures, so many times sooner."""
    heat = tuple(each / faster for each in (4.0, 35.0))
    return (
        'id = "loop"\nname = "the real loop\'s board"\nextends = "rpi4"\n\n[board]\n'
        f'c_j_per_c = {{ value = [{heat[0]}, {heat[1]}], basis = "estimated", source = "made up by edge_lab.loop" }}\n'
    )


def _config(policy: str) -> str:
    return (
        'state.directory = "state"\n\n[models.digits]\nbundle = "digits-1.edge"\n'
        f'preference = {{ mode = "accuracy", max_latency_ms = {_LIMIT_MS} }}\n'
        '\n[device]\nprofile = "loop"\n\n[sensors]\nroot = "board"\nplayed = true\n'
        f'\n[policy]\nuse = "{policy}"\nsnapshot_every_s = 1.0\n'
    )


def digits_bundle(path: Path) -> tuple[int, Bundle, float]:
    """The samples that make a call of the largest model long enough, the digit models as they are, and its time."""
    import numpy as np

    from edge_sdk.engine import Engine

    with np.load(_DATA / "digits_test.npz") as held_out:
        images, labels = held_out["x"], held_out["y"]
    engines = {name: Engine(_DATA / f"{name}.tflite") for name in _FILES}
    batch = max(1, round(_LARGE_MS / _calm_ms(engines[_FILES[0]], images[:1])))
    machine, latencies, variants, blobs = machine_name(), [], [], {}
    for name, engine in engines.items():
        file = _DATA / f"{name}.tflite"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        blobs[digest] = file
        right = 100 * float(np.mean(engine.run([images])[0].argmax(axis=1) == labels))
        median_ms = _calm_ms(engine, images[:1])  # an engine takes a batch sample by sample
        latencies.append(
            Latency(variant=name, origin=Origin.MEASURED, machine=machine, samples=_TIMES, median_ms=median_ms)
        )
        variants.append(_variant(name, digest, file.stat().st_size, right))
        engine.close()
    plain = {
        "format": 1, "name": "digits", "version": "1", "created": 1_700_000_000.0,
        "sources": [{"name": "digits", "framework": "tflite", "sha256": "0" * 64}],
        "inputs": [{"name": "x", "shape": [-1, 8, 8, 1], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [-1, 10], "dtype": "float32"}],
        "metric": "accuracy", "reference": _FILES[0], "variants": variants, "fronts": {},
    }  # fmt: skip
    manifest = decode(encode(plain), Manifest, where="the loop's bundle")
    evidence = EvidenceFile(format=1, latency=tuple(latencies))
    return batch, bundle.write(path, manifest, blobs, evidence=evidence, report="<html></html>"), latencies[0].median_ms


def _variant(name: str, digest: str, size_bytes: int, right_pct: float) -> dict[str, Any]:
    quality = {
        "metric": "accuracy", "value": right_pct, "drop": 0.0, "interval": 1.0, "agreement": right_pct, "samples": 540,
    }  # fmt: skip
    return {
        "id": name, "source": "digits", "blob": digest, "size_bytes": size_bytes, "transfer_bytes": size_bytes,
        "precision": "fp32", "target": {"delegate": "cpu"}, "quality": quality,
        "cost": {"macs": size_bytes, "parameters": 1},
    }  # fmt: skip


def _calm_ms(engine: Any, inputs: Any) -> float:
    """The least of some medians: what a neighbour's work added to the others is not the model's."""
    medians = []
    for _ in range(_ROUNDS):
        times = []
        for _ in range(_TIMES):
            began_s = time.perf_counter()
            engine.run([inputs])
            times.append(1000 * (time.perf_counter() - began_s))
        medians.append(sorted(times)[_TIMES // 2])
    return min(medians)
