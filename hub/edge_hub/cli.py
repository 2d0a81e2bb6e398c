"""`edge hub ...`: what each verb does."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_hub import environment
from edge_hub.address import Endpoint
from edge_hub.alerts.views import AlertView
from edge_hub.api import Accepted, CommandRequest, CommandView, DeviceDetail, DeviceView, EventView
from edge_hub.client import HubClient
from edge_hub.datadir import refuse_database
from edge_hub.enrolment import check_writable, device_configuration, write_configuration
from edge_hub.errors import CommandFailedError, HubUnreachableError
from edge_hub.named import device_named
from edge_hub.rows import Row, RowList
from edge_sdk.address import Address
from edge_sdk.cli.output import emit, say, table
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import (
    Command,
    Configure,
    Explain,
    Measure,
    Pause,
    Pin,
    Prefer,
    Report,
    Resume,
    State,
    Unpin,
)
from edge_sdk.preference import Preference
from edge_sdk.wire import decode

_MAX_WORKERS = 64
_SECOND_SIGNAL = 128
_BYTES_PER_MB = 1_000_000
_MAX_REQUESTS_PER_S = 1e6
_RECONNECT_S = 2.0
_FIRST_POLL_S, _LAST_POLL_S = 0.05, 1.0
_STREAM = "the hub's stream"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400

# ------------------------------------------------------------------------------------------------------------- run


def run(args: argparse.Namespace) -> int:
    """Run a hub until SIGINT or SIGTERM."""
    from edge_hub.config import HubConfig, allow_files, encryption_of, https_of, share_memory
    from edge_hub.interop.exporters import Interop
    from edge_hub.store.records import Retention

    logging.basicConfig(
        level=args.log.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"
    )
    broker = environment.asked(args.broker, option="--broker", variable=environment.BROKER)
    if not (args.keep_days > 0 and args.keep_mb > 0 and args.keep_minutes_days > 0 and args.keep_hours_days > 0):
        raise UsageError("--keep-days, --keep-minutes-days, --keep-hours-days and --keep-mb must be more than 0")
    if not 0 <= args.workers <= _MAX_WORKERS:
        raise UsageError(f"--workers is from 0 to {_MAX_WORKERS}")
    if not 0 <= args.requests_per_s <= _MAX_REQUESTS_PER_S:
        raise UsageError(f"--requests-per-s is from 0 to {_MAX_REQUESTS_PER_S:.0f}")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = HubConfig(
        interop=Interop.asked(
            prefix=args.home_assistant, group=args.sparkplug, host=args.sparkplug_host, most=args.sparkplug_max
        ),
        data=Path(args.data),
        listen=Address.parse(args.listen),
        mqtt=Address.parse(args.mqtt or ("127.0.0.1:8883" if args.tls else "127.0.0.1:1883")),
        broker=None if broker is None else Endpoint.parse(broker, ca=args.broker_ca and Path(args.broker_ca)),
        encryption=encryption_of(args, has_broker=broker is not None),
        https=https_of(args),
        embedded=args.embedded,
        insecure_listen=args.insecure_listen,
        store=environment.asked(args.store, option="--store", variable=environment.STORE),
        workers=args.workers,
        log=args.log,
        requests_per_s=args.requests_per_s,
        retention=Retention(
            max_age_s=args.keep_days * _DAY_S,
            max_bytes=int(args.keep_mb * _BYTES_PER_MB),
            minutes_age_s=args.keep_minutes_days * _DAY_S,
            hours_age_s=args.keep_hours_days * _DAY_S,
            audit_age_s=args.keep_hours_days * _DAY_S,
            alerts_age_s=args.keep_hours_days * _DAY_S,
        ),
        alert_webhooks=environment.asked_webhooks(args.alert_webhooks),
    )
    share_memory()
    allow_files()
    return asyncio.run(_serve(config))


async def _serve(config: Any) -> int:
    from edge_hub.service import Hub

    hub = Hub(config)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        if len(heard) > 1:
            os._exit(_SECOND_SIGNAL + number)
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number)
    told = asyncio.ensure_future(ending.wait())
    starting = asyncio.ensure_future(hub.start())
    try:
        await asyncio.wait({told, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        starting.result()
        say(f"edge: the hub is at {hub.url}, devices connect to {hub.broker.for_devices} ({hub.broker.kind})")
        failing = asyncio.ensure_future(hub.failure())
        await asyncio.wait({told, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
        failing.cancel()
        await asyncio.wait({failing})
    finally:
        # Also where this task itself was cancelled, as by a signal before ours were heard: what still starts would open
        # again what is being closed.
        for task in (told, starting):
            task.cancel()
        await asyncio.gather(told, starting, return_exceptions=True)
        await hub.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return 0


# ---------------------------------------------------------------------------------------------------------- enroll


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The result of `edge hub enroll --json`; the password is in the file alone."""

    device: str
    file: str
    broker: str
    models: dict[str, str]


def enroll(args: argparse.Namespace) -> int:
    """Give a device credentials and write its configuration; the file is checked before the hub is asked."""
    device = device_named(args.device)
    models = dict(_model(text) for text in args.models)
    broker = None if args.mqtt is None else Address.parse(args.mqtt)
    path = Path(args.output)
    check_writable(path)
    refuse_database(Path(args.data), path)
    with _client(args) as client:
        credentials = client.enrol(device, again=args.again)
    if broker is not None:
        credentials = msgspec.structs.replace(credentials, host=broker.host, port=broker.port)
    write_configuration(path, device_configuration(credentials, models))
    result = Enrolled(
        device=str(device), file=str(path), broker=f"{credentials.host}:{credentials.port}", models=models
    )
    listing = "" if models else " list its models under [models],"
    emit(
        args,
        result,
        lambda: (
            f"{device} is enrolled. Copy {path} to the board,{listing} then there:\n"
            f"    edge daemon run --config {path.name}"
        ),
    )
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """The result of `edge hub revoke --json`."""

    device: str


def revoke(args: argparse.Namespace) -> int:
    """Let a device in no more."""
    device = device_named(args.device)
    with _client(args) as client:
        client.revoke(device)
    emit(args, Revoked(device=str(device)), lambda: f"{device} is let in no more; 'edge hub enroll --again' mends that")
    return 0


def _model(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (equals and name and path):
        raise UsageError(f"{text[:80]!r} is not NAME=BUNDLE", hint="such as digits=/opt/models/digits-1.edge")
    return name, path


# ------------------------------------------------------------------------------------------------------------ look


def devices(args: argparse.Namespace) -> int:
    """The fleet as a table."""
    with _client(args) as client:
        found = client.rows(args.query)
    # Encoded here: thousands of rows have every field already, and taking them apart first takes longer than asking.
    listed = msgspec.Raw(msgspec.json.encode(RowList(rows=found, at=time.time())))
    emit(args, listed, lambda: _fleet(found, asked=bool(args.query)))
    return 0


def show(args: argparse.Namespace) -> int:
    """One device."""
    with _client(args) as client:
        found = client.device(device_named(args.device))
    emit(args, found, lambda: _detail(found))
    return 0


def watch(args: argparse.Namespace) -> int:
    """Events, replies and alerts as they come; comes back by itself after a restart of the hub."""
    last = args.after
    is_json = bool(getattr(args, "json", False))
    with _client(args) as client:
        # A wrong token or address ends it at once; later troubles are waited out, and nothing is missed meanwhile.
        events = client.events(limit=1)
        if last is None:
            last = events[-1].id if events else 0
        while True:
            try:
                for topic, body in client.news(after=last):
                    last = _print_news(topic, body, last, is_json=is_json)
            except HubUnreachableError as error:
                say(f"edge: {error}; trying again")
            time.sleep(_RECONNECT_S)


def _print_news(topic: str, body: bytes, last: int | None, *, is_json: bool) -> int | None:
    """Print an event, a reply or an alert; returns the id of the last event."""
    if topic == "event":
        event = decode(body, EventView, where=_STREAM, max_bytes=len(body))
        last, line = event.id, _event_line(event)
    elif topic == "command":
        line = _command_line(decode(body, CommandView, where=_STREAM, max_bytes=len(body)))
    elif topic == "alert":
        line = _alert_line(decode(body, AlertView, where=_STREAM, max_bytes=len(body)))
    else:
        return last
    if is_json:
        line = msgspec.json.encode({"topic": topic, "body": msgspec.Raw(body)}).decode()
    sys.stdout.write("".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in line) + "\n")
    sys.stdout.flush()
    return last


# ------------------------------------------------------------------------------------------------------------ send


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The result of `edge hub send --json`."""

    commands: tuple[CommandView, ...]


def send(args: argparse.Namespace) -> int:
    """Send a command to devices, and wait for each one's reply."""
    named = [] if args.query else [str(device_named(name)) for name in args.devices.split(",") if name]
    if not named and not args.query:
        raise UsageError("no device is named")
    command = _command(args)
    timeout_s = args.timeout
    if not 1 <= timeout_s <= _DAY_S:
        raise UsageError("--timeout is from 1 to 86400 seconds")
    with _client(args) as client:
        request = CommandRequest(devices=tuple(named), query=args.query, command=command, expires_s=timeout_s)
        found = _replies(client, client.order(request), 0.0 if args.no_wait else timeout_s)
    emit(args, Sent(commands=found), lambda: "\n".join(_command_text(one) for one in found))
    if args.no_wait:
        return 0
    failed = [one for one in found if one.state != "done"]
    if failed:
        raise CommandFailedError(
            f"{len(failed)} of {len(found)} not done" if len(found) > 1 else f"{failed[0].state}{_why(failed[0])}",
            where="" if len(found) > 1 else failed[0].device,
            hint="no reply within the --timeout; only a device that has it already may still answer (edge hub show)"
            if any(one.state == "pending" for one in failed)
            else "",
        )
    return 0


def _replies(client: HubClient, accepted: Accepted, wait_s: float) -> tuple[CommandView, ...]:
    """What became of them, waited for at most so long."""
    deadline = time.monotonic() + wait_s
    if accepted.id is not None or accepted.batch is None:
        (id_,) = accepted.ids.values()
        view = client.command(id_)
        while view.state == "pending" and (left_s := deadline - time.monotonic()) > 0:
            view = client.command(id_, wait_s=min(left_s, 20.0))
        return (view,)
    pause_s = _FIRST_POLL_S
    found = client.batch(accepted.batch).commands
    while any(one.state == "pending" for one in found) and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_POLL_S)
        found = client.batch(accepted.batch).commands
    return found


def _command(args: argparse.Namespace) -> Command:
    try:
        return _ORDERS[args.order](args)
    except msgspec.ValidationError as cause:
        raise UsageError(f"{args.order}: {cause}") from cause


def _prefer(args: argparse.Namespace) -> Command:
    asked = {name: getattr(args, name) for name in Preference.__struct_fields__}
    wanted = {name: value for name, value in asked.items() if value is not None}
    return msgspec.convert({"model": args.model, "preference": wanted}, Prefer)


def _plain(kind: type[Any], *names: str) -> Callable[[argparse.Namespace], Command]:
    def make(args: argparse.Namespace) -> Command:
        command: Command = msgspec.convert({name: getattr(args, name) for name in names}, kind)
        return command

    return make


def _configure(args: argparse.Namespace) -> Command:
    if args.telemetry_every_s is None and args.sample_every_s is None:
        raise UsageError("configure: nothing is to be changed", hint="give --telemetry-every-s or --sample-every-s")
    return _plain(Configure, "telemetry_every_s", "sample_every_s")(args)


_ORDERS: dict[str, Callable[[argparse.Namespace], Command]] = {
    "prefer": _prefer,
    "pin": _plain(Pin, "model", "variant"),
    "unpin": _plain(Unpin, "model"),
    "pause": _plain(Pause),
    "resume": _plain(Resume),
    "measure": _plain(Measure, "model", "variant"),
    "report": _plain(Report),
    "explain": _plain(Explain, "model"),
    "configure": _configure,
}


# ------------------------------------------------------------------------------------------------------------ text


def _client(args: argparse.Namespace) -> HubClient:
    return HubClient.asked(url=args.hub, data=Path(args.data), ca=args.hub_ca)


def _fleet(found: Sequence[Row], *, asked: bool) -> str:
    if not found and asked:
        return "no device is meant by this query"
    if not found:
        return "no devices yet; 'edge hub enroll TENANT/DEVICE -o device.toml' makes one"
    header = ("device", "is", "seen", "profile", "runs", "because", "temp", "battery", "alerts")
    return table(header, [_row(one) for one in found], right=frozenset({6, 7, 8}))


def _row(one: Row) -> tuple[str, ...]:
    return (
        one.device,
        "online" if one.online else "offline",
        _ago(one.last_seen),
        one.profile or "-",
        ", ".join(f"{model.name}: {model.variant or '-'}" for model in one.models) or "-",
        ", ".join(dict.fromkeys(model.code for model in one.models if model.code)) or "-",
        "-" if one.temp_c is None else f"{one.temp_c:.0f} °C",
        "-" if one.battery_pct is None else f"{one.battery_pct:.0f} %",
        str(one.alerts) if one.alerts else "-",
    )


def _detail(found: DeviceDetail) -> str:
    one = found.device
    birth, state = one.birth, one.state
    parts = [
        f"{one.device}: {_presence(one)}, {one.messages} messages ({one.duplicates} came twice)",
    ]
    if birth is not None and birth.online:
        parts.append(f"{birth.board or 'unknown board'}, profile {birth.profile or 'none'}, {birth.software or ''}")
    if state is not None:
        parts.append(_conditions(state))
        parts += [_model_text(name, model) for name, model in state.models.items()]
    if found.events:
        parts.append("Events, the newest last:\n" + "\n".join(_event_line(event) for event in found.events[-10:]))
    if found.commands:
        lines = [_command_line(command, result=False) for command in reversed(found.commands[:10])]
        parts.append("Commands, the newest last:\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _conditions(state: State) -> str:
    seen = state.conditions
    told = [
        None if seen.temp_c is None else f"{seen.temp_c:.1f} °C",
        None if seen.battery_pct is None else f"battery {seen.battery_pct:.0f} %",
        None if seen.power_w is None else f"{seen.power_w:.1f} W",
        None if seen.load_pct is None else f"load {seen.load_pct:.0f} %",
        None if seen.clock is None else f"clock {100 * seen.clock:.0f} %",
        None if seen.rtt_ms is None else f"round trip {seen.rtt_ms:.0f} ms",
        None if seen.memory_available_mb is None else f"{seen.memory_available_mb} MB free",
        f"throttled: {seen.throttle.value}" if seen.throttle.value != "none" else None,
    ]
    text = ", ".join(part for part in told if part)
    return ("played conditions: " if seen.played else "conditions: ") + (text or "nothing is sensed")


def _model_text(name: str, model: Any) -> str:
    why = "" if model.decision is None else f", because {model.decision.because.text}"
    pin = f", pinned by the {model.pinned_by}" if model.pinned else ""
    by = f", by {model.wished_by}" if model.wished_by else ""
    return f"{name} runs {model.active or 'nothing'}{pin}{why} (wants {model.preference.mode.value}{by})"


def _event_line(event: EventView) -> str:
    body = event.event
    what = f"{body.old} -> {body.new}" if body.new is not None else ""
    why = f"({body.because.code}) {body.because.text}" if body.because is not None else body.text or ""
    return "  ".join(part for part in (_clock(body.at), event.device, body.kind, body.model or "", what, why) if part)


def _alert_line(alert: AlertView) -> str:
    at = alert.began if alert.ended is None else alert.ended
    what = alert.text if alert.ended is None else "it is over"
    return "  ".join((_clock(at), alert.device, alert.severity, alert.rule, what))


def _command_line(command: CommandView, *, result: bool = True) -> str:
    return f"{_clock(command.sent)}  {_command_text(command, result=result)}"


def _command_text(command: CommandView, *, result: bool = True) -> str:
    name = type(command.command).__struct_config__.tag
    took = "" if command.finished is None else f" after {max(0.0, command.finished - command.sent):.2f} s"
    body = ""
    if result and command.reply is not None and command.reply.result is not None:
        body = "\n" + msgspec.json.format(msgspec.json.encode(command.reply.result), indent=2).decode()
    return f"{command.device}  {name}: {command.state}{took}{_why(command)}{body}"


def _why(command: CommandView) -> str:
    if command.reply is None:
        return ""
    parts = [part for part in (command.reply.text, command.reply.code and f"[{command.reply.code}]") if part]
    return f", {' '.join(parts)}" if parts else ""


def _presence(one: DeviceView) -> str:
    return f"{'online' if one.online else 'offline'}, seen {_ago(one.last_seen)}"


def _ago(at: float | None) -> str:
    if at is None:
        return "never"
    past_s = max(0.0, time.time() - at)
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if past_s >= unit_s:
            return f"{past_s / unit_s:.0f} {unit} ago"
    return f"{past_s:.0f} s ago"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
