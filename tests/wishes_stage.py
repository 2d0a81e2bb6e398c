"""A policy, and the wishes before it, on clocks that a test sets."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from climbing import Climber

from edge_daemon.policy.frame import Frame
from edge_daemon.policy.state import PolicyState, initial
from edge_daemon.policy.types import AppJoined, Event, ModelFacts, Preferred, Tick, VariantFacts
from edge_daemon.wishes.hear import hear
from edge_daemon.wishes.schedule import Position
from edge_daemon.wishes.state import AppWish, Site, Wishes
from edge_sdk.mqtt import Conditions
from edge_sdk.preference import Preference

UTC = ZoneInfo("UTC")
FRAME = Frame(use="climber", factory=Climber)
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()  # of a Friday


class Device:
    """A policy of two models, and the wishes before it."""

    def __init__(self, *models: str, site: Site = Site(zone=UTC)) -> None:  # noqa: B008
        facts = tuple(
            ModelFacts(
                name=name,
                variants=tuple(
                    VariantFacts(id=id_, quality=quality, latency_ms=ms, measured=True, size_bytes=1)
                    for id_, quality, ms in (("l", 99.0, 100.0), ("m", 97.0, 20.0), ("s", 90.0, 2.0))
                ),
            )
            for name in models or ("digits",)
        )
        self.state: PolicyState = initial(facts, at=NOON)
        self.wishes, self.site = Wishes(), site
        self.now_s, self.set_s = 0.0, 0.0
        self.position: Position | None = None
        self.tell(Tick(now_s=0.0, at=NOON, conditions=Conditions()))

    def tell(self, *events: Event | AppWish) -> None:
        for event in events:
            self.wishes, told = hear(
                self.wishes, event, self.state, self.site,
                now_s=self.now_s, at=NOON + self.now_s + self.set_s, position=self.position,
            )  # fmt: skip
            for one in told:
                self.state, _ = FRAME.step(self.state, one)

    def wait(self, seconds: float, set_s: float | None = None) -> None:
        self.set_s = self.set_s if set_s is None else set_s
        self.now_s += seconds
        self.tell(Tick(now_s=self.now_s, at=NOON + self.now_s + self.set_s, conditions=Conditions()))

    def joins(self, app: str, preference: Preference | None = None, model: str = "digits") -> None:
        self.tell(AppWish(app=app, model=model, name=app, preference=preference), AppJoined(app=app, model=model))

    def says(self, model: str | None = None, /, **fields: object) -> None:
        self.tell(Preferred(model=model, preference=Preference(**fields)))

    def wants(self, model: str = "digits") -> Preference:
        record = self.state.model(model)
        assert record is not None
        return record.preference

    def runs(self, model: str = "digits") -> str:
        record = self.state.model(model)
        assert record is not None
        assert record.decision is not None
        return record.decision.variant
