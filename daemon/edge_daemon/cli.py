"""What the commands `edge daemon ...` do beside `run`: ask a daemon that runs and print its answer, or record."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.cli.output import emit, say, table
from edge_sdk.errors import UsageError
from edge_sdk.local import AppStatus, Done, Explanation, LocalClient, PinRequest, PreferRequest, Status, UnpinRequest
from edge_sdk.mqtt import Conditions, ModelState
from edge_sdk.preference import Preference
from edge_sdk.wire import encode

if TYPE_CHECKING:
    from edge_daemon.trace import Recording

_MIN_WATCH_S = 0.1
_MAX_RECORD_S = 31_536_000  # a year


def status(args: argparse.Namespace) -> int:
    """Print how the daemon and the board are."""
    with LocalClient(args.socket) as client:
        answer = client.call("GET", "/v1/status", Status)
    emit(args, answer, lambda: "\n".join(_status_lines(answer)))
    return 0


def explain(args: argparse.Namespace) -> int:
    """Print the last decisions, newest first."""
    query = "?" + urllib.parse.urlencode({"model": args.model}) if args.model else ""
    with LocalClient(args.socket) as client:
        answer = client.call("GET", f"/v1/explain{query}", Explanation)

    def text() -> str:
        rows = [(_when(d.at), d.model, d.variant, d.because.code, d.because.text) for d in answer.decisions]
        return table(("when", "model", "variant", "bound by", "because"), rows) if rows else "nothing is decided yet"

    emit(args, answer, text)
    return 0


def prefer(args: argparse.Namespace) -> int:
    """Say what is wanted."""
    asked = {name: getattr(args, name) for name in Preference.__struct_fields__}
    try:
        preference = msgspec.convert({name: value for name, value in asked.items() if value is not None}, Preference)
    except msgspec.ValidationError as cause:
        raise UsageError(str(cause), where="edge daemon prefer") from cause
    return _order(args, "/v1/prefer", PreferRequest(model=args.model, preference=preference))


def pin(args: argparse.Namespace) -> int:
    """Pin a variant, as the operator."""
    return _order(args, "/v1/pin", PinRequest(model=args.model, variant=args.variant))


def unpin(args: argparse.Namespace) -> int:
    """Take the operator's pin back."""
    return _order(args, "/v1/unpin", UnpinRequest(model=args.model))


def watch(args: argparse.Namespace) -> int:
    """Print a line each time, until interrupted."""
    if not args.every >= _MIN_WATCH_S:
        raise UsageError(f"--every {args.every} is too often", hint=f"give at least {_MIN_WATCH_S} seconds")
    with LocalClient(args.socket) as client:
        while True:
            answer = client.call("GET", "/v1/status", Status)
            if args.json:  # one object a line, for whoever reads along
                sys.stdout.write(encode(answer).decode() + "\n")
                sys.stdout.flush()
            else:
                emit(args, answer, lambda answer=answer: _watch_line(answer))  # type: ignore[misc]  # of this turn
            time.sleep(args.every)


def record(args: argparse.Namespace) -> int:
    """Record until interrupted or the time is over, and write the trace."""
    import signal
    import threading

    from edge_daemon import trace
    from edge_daemon.sensors.suite import SensorSuite
    from edge_sdk import profile

    if not _MIN_WATCH_S <= args.every <= _MAX_RECORD_S:
        raise UsageError(
            f"--every {args.every} is out of range", hint=f"give {_MIN_WATCH_S} to {_MAX_RECORD_S} seconds"
        )
    if args.for_s is not None and not 0 < args.for_s <= _MAX_RECORD_S:
        raise UsageError(f"--for {args.for_s} is out of range", hint=f"give up to {_MAX_RECORD_S} seconds")
    if not Path(args.root).is_dir():
        raise UsageError("there is no such directory", where=args.root)
    out = Path(args.out or time.strftime("edge-trace-%Y%m%d-%H%M%S.csv"))
    known = profile.recognise(args.root, args.profile).profile
    ended = threading.Event()
    before = {number: signal.signal(number, trace.until(ended)) for number in (signal.SIGINT, signal.SIGTERM)}
    say(f"edge: recording every {args.every:g} s into {out}" + ("" if args.for_s else "; Ctrl-C ends it"))
    if args.every > trace.HOLD_S:
        say(f"edge: between rows more than {trace.HOLD_S:g} s apart 'edge simulate' sees gaps, and in them no network")
    try:
        with SensorSuite(args.root, known) as suite:
            done = trace.record(
                out,
                suite,
                root=args.root,
                socket=args.socket,
                every_s=args.every,
                for_s=args.for_s,
                ended=ended,
            )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    emit(args, done, lambda: "\n".join(_recorded_lines(done)))
    return 0


def _recorded_lines(done: Recording) -> Iterator[str]:
    yield f"{done.file}: {done.rows} rows in {done.seconds:g} s"
    yield f"columns: {', '.join(done.columns)}"
    for name, why in done.missing.items():
        yield f"     no {name}: {why}"
    if not done.played:
        yield "nothing of it is played by 'edge simulate': that takes a daemon, for the network and its apps' requests"
    if done.full:
        yield "it ended here: no longer trace is played; record with a larger --every"


def _order(args: argparse.Namespace, path: str, body: PreferRequest | PinRequest | UnpinRequest) -> int:
    with LocalClient(args.socket) as client:
        answer = client.call("POST", path, Done, body)
    emit(args, answer, lambda: answer.text)
    return 0


def _status_lines(answer: Status) -> Iterator[str]:
    board = answer.board or "this machine"
    yield f"{answer.software} on {board}, profile {answer.profile or 'unknown'}, since {_when(answer.started)}"
    yield f"hub: {answer.hub}" + (f"; {answer.hub_text}" if answer.hub_text else "")
    yield f"     {answer.spooled} messages wait for it, {answer.dropped} were dropped"
    for trouble in answer.trouble:
        yield f"trouble: {trouble}"
    yield ""
    yield f"senses: {', '.join(_sensed(answer.conditions)) or 'nothing'}"
    for name, why in sorted(answer.conditions.missing.items()):
        yield f"        no {name}: {why}"
    yield ""
    if answer.models:
        header = ("model", "runs", "decided", "pinned by", "wanted", "apps", "because")
        yield table(header, [_model_row(name, model) for name, model in sorted(answer.models.items())])
    else:
        yield "no models: list bundles under [models] in the configuration"
    for name, why in sorted(answer.left_out.items()):
        yield f"left out: {name}: {why}"
    if answer.apps:
        yield ""
        rows = [
            (
                app.name or app.app[:8],
                str(app.pid),
                app.model,
                app.active or "-",
                _ms(app.p50_ms),
                _ms(app.p95_ms),
                str(app.calls),
                _on(app),
                "-" if app.most_per_s is None else f"{app.most_per_s:.3g}",
            )
            for app in answer.apps
        ]
        heads = ("app", "pid", "model", "runs", "p50 ms", "p95 ms", "calls", "on", "advised a second")
        yield table(heads, rows, right=frozenset({1, 4, 5, 6, 8}))


def _on(app: AppStatus) -> str:
    """What computes, how hot it is, and how often it fell out."""
    usage = app.usage
    shown = app.computes_on or "-"
    if usage is not None and usage.temp_c is not None:
        shown += f", {usage.temp_c:.0f} C"
    return shown + (f", fell out {usage.restarts} times" if usage is not None and usage.restarts else "")


def _model_row(name: str, model: ModelState) -> tuple[str, ...]:
    decision = model.decision
    return (
        name,
        model.active or "-",
        "-" if decision is None else decision.variant,
        (model.pinned_by or "-") + (", paused" if model.paused else ""),
        model.preference.mode.value + (f" ({model.wished_by})" if model.wished_by else ""),
        str(model.apps),
        "-" if decision is None else decision.because.text,
    )


def _sensed(conditions: Conditions) -> Iterator[str]:
    """What is known of the conditions, in words."""
    if conditions.played:
        yield "PLAYED values"
    if conditions.temp_c is not None:
        limit = "" if conditions.temp_limit_c is None else f" of {conditions.temp_limit_c:.0f}"
        yield f"{conditions.temp_c:.1f}{limit} C"
    if conditions.battery_pct is not None:
        left = "" if conditions.battery_wh is None else f", {conditions.battery_wh:.3g} Wh"
        yield f"battery {conditions.battery_pct:.0f} %{left}"
    if conditions.charging is not None:
        yield "on mains" if conditions.charging else "on battery"
    if conditions.power_w is not None:
        yield f"{conditions.power_w:.1f} W" + (" (processor)" if conditions.power_scope == "processor" else "")
    clock_pct = None if conditions.clock is None else 100 * conditions.clock
    for form, value in (
        ("load {:.0f} %", conditions.load_pct),
        ("GPU {:.0f} %", conditions.gpu_pct),
        ("NPU {:.0f} %", conditions.npu_pct),
        ("Edge TPU {:.0f} %", conditions.edgetpu_pct),
        ("clock {:.0f} %", clock_pct),
        ("{} MB free", conditions.memory_available_mb),
        ("round trip {:.1f} ms", conditions.rtt_ms),
        ("up {:.3g} Mbit/s", conditions.up_mbps),
        ("down {:.3g} Mbit/s", conditions.down_mbps),
    ):
        if value is not None:
            yield form.format(value)
    if conditions.metered:
        yield "metered"
    yield f"throttling: {conditions.throttle.value}"


def _watch_line(answer: Status) -> str:
    models = [f"{name}: {model.active or '-'}" for name, model in sorted(answer.models.items())]
    return "  ".join([_when(answer.at), ", ".join(_sensed(answer.conditions)), *models, f"hub {answer.hub}"])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
