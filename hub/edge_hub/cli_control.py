"""`edge hub cancel`, `label`, `groups`, `alerts`, `rules`, `audit`, `token`, `remove`: what each does."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_hub.alerts.rules import Rule
from edge_hub.alerts.views import AlertPage, AlertView, RuleList, SilenceList, SilenceRequest
from edge_hub.api import LabelsRequest
from edge_hub.api_admin import TOKEN_S, AuditPage, GroupList, TokenList
from edge_hub.client import HubClient
from edge_hub.errors import AnswerError, CommandFailedError, UnknownCommandError
from edge_hub.named import device_named
from edge_sdk.cli.output import emit, table
from edge_sdk.errors import ConfigError, UsageError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import MAX_TOML_BYTES, decode, decode_toml

_MAX_LIMIT = 1000
_REMOVED_AT_ONCE = 400  # names in one request, which has 64 KiB
_NAMED = 20  # of those that are asked about
_ID = re.compile(r"\A[0-9a-f]{16,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The result of what only succeeds or fails."""

    done: str


def cancel(args: argparse.Namespace) -> int:
    """Give up on a command or a batch."""
    if _ID.fullmatch(args.id) is None:
        raise UsageError(
            f"{args.id[:80]!r} is no id of a command or a batch",
            hint="it has 32 letters and digits; 'edge hub send --no-wait --json' and 'edge hub show' name it",
        )
    with _client(args) as client:
        try:
            one = client.cancel(args.id)
        except AnswerError as error:
            if error.code != UnknownCommandError.code:
                raise
            batch = client.cancel_batch(args.id)
            emit(args, batch, lambda: ", ".join(f"{count} {state}" for state, count in sorted(batch.states.items())))
            return 0
    emit(args, one, lambda: f"{one.device}: {one.state}")
    if one.state != "cancelled":
        raise CommandFailedError(f"it was {one.state} already", where=one.device)
    return 0


def label(args: argparse.Namespace) -> int:
    """Show or change a device's labels."""
    device = device_named(args.device)
    changes = [_pair(text) for text in args.labels]
    with _client(args) as client:
        labels = client.device(device).labels | dict(changes)
        labels = {key: value for key, value in labels.items() if value}
        if changes:
            client.set_labels(device, labels)
    text = "\n".join(f"{key}={value}" for key, value in sorted(labels.items())) or "no labels"
    emit(args, LabelsRequest(labels=labels), lambda: text)
    return 0


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"{text[:80]!r} is not KEY=VALUE", hint="such as site=roof; site= takes it away")
    return key, value


def groups(args: argparse.Namespace) -> int:
    """Names for queries."""
    with _client(args) as client:
        if args.verb == "put":
            group = client.put_group(args.name, args.query)
            emit(args, group, lambda: f"{group.name}: {group.query} ({group.devices} devices now)")
        elif args.verb == "delete":
            client.delete_group(args.name)
            _done(args, f"{args.name} is no group any more")
        else:
            found = client.groups()
            rows = [(one.name, str(one.devices), one.query) for one in found]
            emit(args, GroupList(groups=found), lambda: _table(("group", "devices", "query"), rows, "no groups"))
    return 0


def alerts(args: argparse.Namespace) -> int:
    """What is wrong."""
    with _client(args) as client:
        if args.verb == "list":
            device = None if args.device is None else device_named(args.device)
            found = client.alerts(open_only=args.open, device=device, limit=_limit(args))
            emit(args, AlertPage(alerts=found), lambda: _alerts(found))
        elif args.verb == "acknowledge":
            one = client.acknowledge(args.number)
            emit(args, one, lambda: f"{one.id}: {one.rule} of {one.device}, acknowledged by {one.acknowledged}")
        elif args.verb == "silence":
            asked = _asked(SilenceRequest, query=args.query, rule=args.rule, for_s=args.for_s, why=args.why)
            made = client.silence(asked)
            emit(args, made, lambda: f"{made.name}: silent until {_when(made.until)}")
        elif args.verb == "unsilence":
            client.end_silence(args.name)
            _done(args, f"silence {args.name} is over")
        else:
            kept = client.silences()
            rows = [(s.name, s.rule or "all", s.query or "all", _when(s.until), s.by, s.why) for s in kept]
            header = ("silence", "rule", "devices", "until", "by", "why")
            emit(args, SilenceList(silences=kept), lambda: _table(header, rows, "nothing is silenced"))
    return 0


def _alerts(found: Sequence[AlertView]) -> str:
    rows = [
        (
            str(one.id),
            one.severity,
            one.device,
            one.rule,
            _when(one.began),
            "open" if one.ended is None else _when(one.ended),
            one.acknowledged or "-",
            one.text,
        )
        for one in found
    ]
    return _table(("id", "severity", "device", "rule", "began", "ended", "seen by", "what"), rows, "no alerts")


def rules(args: argparse.Namespace) -> int:
    """When something is wrong."""
    with _client(args) as client:
        if args.verb == "put":
            made = client.put_rule(args.name, _rule(Path(args.file)))
            emit(args, made, lambda: f"{made.name}: {made.rule.when}")
        elif args.verb == "delete":
            client.delete_rule(args.name)
            _done(args, f"rule {args.name} is removed, or again as it came")
        else:
            found = client.rules()
            rows = [
                (
                    one.name,
                    one.rule.severity if one.rule.enabled else "disabled",
                    "built in" if one.changed is None else _when(one.changed),
                    f"{one.rule.for_s:g} s",
                    one.rule.when,
                )
                for one in found
            ]
            header = ("rule", "severity", "changed", "for", "when")
            emit(args, RuleList(rules=found), lambda: _table(header, rows, "no rules"))
    return 0


def _rule(path: Path) -> Rule:
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    if path.suffix == ".json":
        return decode(content, Rule, where=str(path), max_bytes=MAX_TOML_BYTES, error=ConfigError)
    return decode_toml(content, Rule, where=str(path), error=ConfigError)


def audit(args: argparse.Namespace) -> int:
    """Who did what."""
    with _client(args) as client:
        found = client.audit(limit=_limit(args))
    rows = [(str(one.id), _when(one.at), one.who, one.role, one.what, one.target) for one in found]
    header = ("id", "when", "who", "role", "what", "to")
    emit(args, AuditPage(entries=found), lambda: _table(header, rows, "nobody has done anything yet"))
    return 0


def token(args: argparse.Namespace) -> int:
    """Who may use the API."""
    with _client(args) as client:
        if args.verb == "make":
            made = client.make_token(args.name, args.role, expires_s=_lasting_s(args.for_s))
            emit(args, made, lambda: made.token)
        elif args.verb == "withdraw":
            client.withdraw_token(args.name)
            _done(args, f"token {args.name} opens nothing any more")
        else:
            found = client.tokens()
            rows = [(one.name, one.role, _when(one.created), _when(one.expires), _when(one.last_used)) for one in found]
            header = ("token", "role", "made", "ends", "last used")
            emit(args, TokenList(tokens=found), lambda: _table(header, rows, "no tokens but the directory's"))
    return 0


def _lasting_s(asked_s: float | None) -> float | None:
    if asked_s is not None and not TOKEN_S[0] <= asked_s <= TOKEN_S[1]:
        raise UsageError(f"--for-s is from {TOKEN_S[0]} to {TOKEN_S[1]} seconds", hint="without it a token never ends")
    return asked_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The result of `edge hub remove --json`."""

    devices: tuple[str, ...]
    left: tuple[str, ...]


def remove(args: argparse.Namespace) -> int:
    """Take devices out of the fleet."""
    named = [device_named(name) for name in args.devices]
    if bool(named) == (args.query is not None):
        raise UsageError("devices are given by name or by --query", hint="give one of them")
    with _client(args) as client:
        if args.query is not None:
            named = [DeviceId.parse(row.device) for row in client.rows(args.query)]
        if not named:
            raise UsageError(
                "no device is meant by this query", where=args.query[:80], hint="try it with 'edge hub devices --query'"
            )
        devices = list(dict.fromkeys(named))
        if not args.yes and not _is_agreed(devices):
            raise UsageError("nothing is removed")
        left: dict[str, None] = {}
        for first in range(0, len(devices), _REMOVED_AT_ONCE):
            found = client.remove_all(devices[first : first + _REMOVED_AT_ONCE])
            left.update(dict.fromkeys(found.left))
    taken = Taken(devices=tuple(map(str, devices)), left=tuple(left))
    gone = f"{devices[0]} is" if len(devices) == 1 else f"{len(devices)} devices are"
    emit(args, taken, lambda: "\n".join((f"{gone} not in the fleet any more", *taken.left)))
    return 0


def _is_agreed(devices: Sequence[DeviceId]) -> bool:
    """Somebody at the terminal says that these are meant.

    Raises:
        UsageError: There is no terminal.
    """
    names = ", ".join(map(str, devices[:_NAMED]))
    rest = f" and {len(devices) - _NAMED} more" if len(devices) > _NAMED else ""
    what = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be removed for good: {names}{rest}", hint="say --yes where nobody can be asked")
    sys.stderr.write(f"{what}, with all that is kept of them, for good: {names}{rest}\nRemove? Type yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"


def _client(args: argparse.Namespace) -> HubClient:
    return HubClient.asked(url=args.hub, data=Path(args.data), ca=args.hub_ca)


def _done(args: argparse.Namespace, text: str) -> None:
    emit(args, Done(done=text), lambda: text)


def _limit(args: argparse.Namespace) -> int:
    if not 1 <= args.limit <= _MAX_LIMIT:
        raise UsageError(f"--limit is from 1 to {_MAX_LIMIT}")
    return int(args.limit)


def _asked(kind: type[SilenceRequest], **given: object) -> SilenceRequest:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as cause:
        raise UsageError(str(cause)) from cause


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], nothing: str) -> str:
    return table(header, rows) if rows else nothing


def _when(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
