"""How a model's accelerators fare, as its daemon is told: who computes, how busy and hot, how often one fell out."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from edge_sdk.delegates.contract import CPU
from edge_sdk.guard import DelegateEvent, GuardedEngine, Happening, tell
from edge_sdk.local import AppUsage
from edge_sdk.usage import AcceleratorWatch, Usage, watch


class Falls:
    """Counts how often accelerators fell out; apart from `Faring`, since each engine holds on to it."""

    def __init__(self) -> None:
        self.count = 0

    def happened(self, event: DelegateEvent) -> None:
        """An accelerator fell out or came back: log it, and count."""
        self.count += event.happening is Happening.FELL_BACK
        tell(event)


class Faring:
    """Looks at the engines on accelerators, with watches of its own: each look tells of the time since the one before.

    Args:
        accelerated: The engine last loaded of each variant for an accelerator; the model keeps it up to date.
        falls: Told by those engines.
    """

    def __init__(self, accelerated: Mapping[str, tuple[GuardedEngine, AcceleratorWatch]], falls: Falls) -> None:
        self._accelerated = accelerated
        self._falls = falls
        self._watches: dict[str, tuple[weakref.ref[GuardedEngine], AcceleratorWatch]] = {}

    def computes_on(self, active: str) -> str:
        """Who computes now."""
        found = self._accelerated.get(active)
        return CPU if found is None else found[0].computes_on

    def usage(self, active: str) -> AppUsage | None:
        """Of the accelerator that computes, else of the hottest; None where there is none.

        One that was left because it was hot goes on being told of, so that it is known when it has cooled.
        """
        looks = {id_: self._watch(id_, engine).look() for id_, (engine, _) in tuple(self._accelerated.items())}
        if not looks:
            return None
        hottest = max(looks, key=lambda id_: _excess(looks[id_]))
        look = looks.get(active, looks[hottest])
        return AppUsage(
            name=look.name[:200] or CPU,
            busy_pct=None if look.busy is None else 100 * look.busy,
            temp_c=look.temp_c,
            limit_c=look.limit_c,
            restarts=self._falls.count,
        )

    def _watch(self, id_: str, engine: GuardedEngine) -> AcceleratorWatch:
        known = self._watches.get(id_)
        if known is None or known[0]() is not engine:
            known = self._watches[id_] = weakref.ref(engine), watch(engine)
        return known[1]


def _excess(usage: Usage) -> float:
    if usage.temp_c is None or usage.limit_c is None:
        return float("-inf")
    return usage.temp_c - usage.limit_c
