"""The values of the HTTP API about alerts: alerts themselves, rules, silences."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_hub.alerts.rules import BUILT_IN, Rule
from edge_hub.store.records import AlertRecord
from edge_sdk.wire import Count, Name, Text, Unix, Wire


class AlertView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A rule holds for a device, from `began` until `ended`.

    Attributes:
        text: One sentence, with the number and its unit as they were at the beginning.
        acknowledged: Who has seen it.
    """

    id: Count
    rule: Name
    device: str
    severity: Name
    began: Unix
    ended: Unix | None = None
    text: str
    value: float | None = None
    acknowledged: Text | None = None
    acknowledged_at: Unix | None = None

    @classmethod
    def of(cls, record: AlertRecord) -> AlertView:
        """The view of a stored alert."""
        plain = {name: getattr(record, name) for name in cls.__struct_fields__ if name != "device"}
        return cls(device=str(record.device), **plain)


class AlertPage(Wire, frozen=True, kw_only=True):
    """Alerts, the newest first. Older ones: `before` the last one's id."""

    alerts: tuple[AlertView, ...]


class RuleView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A rule under its name.

    Attributes:
        built_in: It is there without anybody's doing.
        changed: When it was put; null for a built-in one as it came.
    """

    name: Name
    rule: Rule
    built_in: bool
    changed: Unix | None = None

    @classmethod
    def of(cls, name: str, rule: Rule, changed: float | None) -> RuleView:
        """The view of a rule."""
        return cls(name=name, rule=rule, built_in=name in BUILT_IN, changed=changed)


class RuleList(Wire, frozen=True, kw_only=True):
    """All rules in force, by name."""

    rules: tuple[RuleView, ...]


class SilenceRequest(Wire, frozen=True, kw_only=True):
    """Tell nobody of some alerts for a while; they are kept and shown all the same.

    Attributes:
        query: Of devices; all without one.
        rule: Of this rule alone.
        for_s: From now on.
        why: For people.
    """

    query: Annotated[str, Meta(max_length=2000)] = ""
    rule: Name | None = None
    for_s: Annotated[float, Meta(ge=1, le=366 * 86_400)]
    why: Text = ""


class Silence(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A silence in force, by whom and until when."""

    name: Name
    query: str = ""
    rule: Name | None = None
    until: Unix
    by: Text
    why: Text = ""


class SilenceList(Wire, frozen=True, kw_only=True):
    """All silences whose time is not over, by name."""

    silences: tuple[Silence, ...]
