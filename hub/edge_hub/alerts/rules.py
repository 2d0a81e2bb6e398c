"""Alert rules: what they are, and those that are built in.

A rule holds for a device when its query `when` has held for `for_s`; its alert ends when `clear` holds, which asks for
more than the opposite of `when`, so that a value at the edge does not ring twice. Values of a device that is offline
are of the past: it keeps the alerts it has, and only rules that ask for `online` or `age_s` look at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from msgspec import Meta

from edge_hub.errors import QueryError
from edge_hub.query import NUMBERS, parse
from edge_hub.store.records import RuleRecord
from edge_sdk.errors import UsageError, WireError
from edge_sdk.wire import Text, Wire, decode

MAX_RULES = 200
# Fields as alerts name them to people.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "temp_c": "temperature",
        "headroom_c": "room below the limit",
        "battery_pct": "charge",
        "power_w": "draw",
        "rtt_ms": "round trip",
        "late_pct": "late",
        "p95_ms": "p95",
        "age_s": "last heard of before",
        "clock_skew_s": "off by",
        "quality_drop": "below its best by",
        "switches_h": "switches",
    }
)
_DAY_S = 86_400.0
_PRESENCE = frozenset({"online", "age_s"})

Condition = Annotated[str, Meta(min_length=1, max_length=2000)]
Dwell = Annotated[float, Meta(ge=0, le=30 * _DAY_S)]


class Rule(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """One rule.

    Attributes:
        when: The query that has to hold.
        clear: The query that ends the alert; without one it ends when `when` no longer holds.
        for_s: How long `when` has to hold before anybody is told.
        text: What is wrong, for people.
        value: The number that the alert shows, a field of the query language.
        enabled: A rule that is not looks at nothing; its open alerts end.
    """

    when: Condition
    clear: Condition | None = None
    for_s: Dwell = 0.0
    severity: Literal["info", "warning", "critical"] = "warning"
    text: Text = ""
    value: Text | None = None
    enabled: bool = True

    def check(self, groups: Mapping[str, str]) -> None:
        """Refuse a rule that could not be evaluated.

        Raises:
            QueryError: One of its queries is none.
            UsageError: Its value is no number of the query language.
        """
        _check("when", self.when, groups)
        _check("clear", self.clear or "", groups)
        if self.value is not None and self.value not in NUMBERS:
            raise UsageError(f"value is {self.value[:40]!r}", hint=f"there are: {', '.join(NUMBERS)}")


def _check(key: str, text: str, groups: Mapping[str, str]) -> None:
    try:
        parse(text, groups)
    except QueryError as cause:
        where = f"{key}, column {cause.column}"
        raise QueryError(cause.what, column=cause.column, where=where, hint=cause.hint) from cause


# docs/how-to/alerts.md describes each of these; a test holds it to that.
BUILT_IN: Mapping[str, Rule] = MappingProxyType(
    {
        # Never heard of is not offline: its age is not known.
        "offline": Rule(
            when="not online and age_s > 60", clear="online", for_s=60.0, text="it is not connected", value="age_s"
        ),
        "hot": Rule(
            when="headroom_c < -2 or temp_c > 85",
            clear="not headroom_c < 1 and not temp_c > 80",
            for_s=60.0,
            text="it is hotter than its policy means to keep it",
            value="temp_c",
        ),
        "throttled": Rule(
            when="throttle in (thermal, power, critical)", for_s=30.0, text="the firmware slows it down", value="temp_c"
        ),
        "battery-low": Rule(
            when="battery_pct < 15 and not charging",
            clear="charging or not battery_pct < 20",
            severity="critical",
            text="its battery is nearly empty",
            value="battery_pct",
        ),
        "accuracy-drop": Rule(
            when="quality_drop > 3",
            clear="not quality_drop > 1",
            for_s=600.0,
            text="it has run a variant well below its best for long",
            value="quality_drop",
        ),
        # The policy `optimal` itself switches up to 380 times an hour where that pays: benchmarks/policy.py.
        "flapping": Rule(
            when="switches_h > 600", clear="switches_h < 400", text="it switches back and forth", value="switches_h"
        ),
        "late-answers": Rule(
            when="late_pct > 5", clear="not late_pct > 2", for_s=120.0, text="it answers late", value="late_pct"
        ),
        "version-skew": Rule(
            when="version_skew", for_s=3600.0, severity="info", text="its software or model is not what most have"
        ),
        "clock-skew": Rule(
            when="clock_skew_s > 5",
            clear="not clock_skew_s > 2",
            for_s=60.0,
            text="its clock is off",
            value="clock_skew_s",
        ),
    }
)


def looks_at_absent(fields: frozenset[str]) -> bool:
    """Whether a rule that asks of these has something to say about a device that is offline."""
    return not _PRESENCE.isdisjoint(fields)


def in_force(kept: tuple[RuleRecord, ...]) -> dict[str, Rule]:
    """The rules there are, by name: the built-in ones, and over them those that are kept.

    One that a newer version wrote and this cannot read does not count.
    """
    found: dict[str, Rule] = dict(BUILT_IN)
    for record in kept:
        if ":" not in record.name:
            try:
                found[record.name] = decode(record.body, Rule, where=record.name)
            except WireError:
                found.pop(record.name, None)
    return dict(sorted(found.items()))


def sentence(rule: Rule, value: float | None) -> str:
    """What an alert says."""
    text = rule.text or rule.when
    if rule.value is None or value is None:
        return text
    return f"{text}: {_WORDS.get(rule.value, rule.value)} {_told(rule.value, value)}"


def _told(name: str, value: float) -> str:
    unit: Any = {"c": " °C", "pct": " %", "w": " W", "ms": " ms", "s": " s", "h": " an hour", "drop": " points"}
    return f"{value:.4g}{unit.get(name.rpartition('_')[2], '')}"
