"""Which alerts begin and end, from the rules, the devices, and what was before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_hub.alerts.rules import Rule, looks_at_absent, sentence
from edge_hub.errors import QueryError
from edge_hub.query import Query, parse
from edge_hub.rows import Facts
from edge_hub.store.records import AlertRecord
from edge_sdk.mqtt import DeviceId

# Since when each rule's condition holds for a device without an alert yet: rule, device, seconds since 1970.
Pending = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A rule that can be asked."""

    name: str
    rule: Rule
    when: Query
    clear: Query | None
    sees_absent: bool
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an evaluation found.

    Attributes:
        begin: Alerts that are new, without a number yet.
        end: Those that are over.
        pending: For the next evaluation.
    """

    begin: tuple[AlertRecord, ...] = ()
    end: tuple[AlertRecord, ...] = ()
    pending: Pending = field(default_factory=dict)


def compiled(
    rules: Mapping[str, Rule], groups: Mapping[str, str]
) -> tuple[tuple[Compiled, ...], dict[str, QueryError]]:
    """The enabled rules, and those that cannot be asked (a group was deleted) with the reason."""
    found: list[Compiled] = []
    broken: dict[str, QueryError] = {}
    for name, rule in rules.items():
        if rule.enabled:
            try:
                found.append(_compile(name, rule, groups))
            except QueryError as error:
                broken[name] = error
    return tuple(found), broken


def _compile(name: str, rule: Rule, groups: Mapping[str, str]) -> Compiled:
    when = parse(rule.when, groups)
    clear = None if rule.clear is None else parse(rule.clear, groups)
    fields = when.fields | (frozenset() if clear is None else clear.fields)
    return Compiled(name=name, rule=rule, when=when, clear=clear, sees_absent=looks_at_absent(fields), fields=fields)


def evaluate(
    rules: Iterable[Compiled],
    facts: Iterable[Facts],
    *,
    opened: Mapping[tuple[str, DeviceId], AlertRecord],
    pending: Pending,
    kept: frozenset[str] = frozenset(),
    now: float,
) -> Outcome:
    """One look at every device with every rule.

    Args:
        rules: Those that are asked.
        facts: All devices.
        opened: Open alerts, by rule and device.
        pending: What the last evaluation left.
        kept: Rules that cannot be asked now: their alerts stay as they are.
        now: By the hub's clock.
    """
    begin: list[AlertRecord] = []
    end: list[AlertRecord] = []
    waiting: dict[str, dict[str, float]] = {}
    asked = tuple(rules)
    names = {rule.name for rule in asked} | kept
    end += [alert for (name, _), alert in opened.items() if name not in names]
    for one in facts:
        device = one.record.device
        for rule in asked:
            if not (one.row.online or rule.sees_absent):
                continue
            alert = opened.get((rule.name, device))
            if alert is not None:
                over = rule.clear(one) if rule.clear is not None else not rule.when(one)
                end += [alert] if over else []
                continue
            if not rule.when(one) or (rule.clear is not None and rule.clear(one)):
                continue
            since = min(pending.get(rule.name, {}).get(str(device), now), now)
            if now - since >= rule.rule.for_s:
                begin.append(_begun(rule, one, since))
            else:
                waiting.setdefault(rule.name, {})[str(device)] = since
    return Outcome(begin=tuple(begin), end=tuple(end), pending=waiting)


def _begun(rule: Compiled, facts: Facts, since: float) -> AlertRecord:
    values = () if rule.rule.value is None else facts.numbers.get(rule.rule.value, ())
    value = max(values, default=None)
    return AlertRecord(
        rule=rule.name,
        device=facts.record.device,
        severity=rule.rule.severity,
        began=since,
        text=sentence(rule.rule, value),
        value=value,
    )
