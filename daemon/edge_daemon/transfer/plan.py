"""How a model travels to this device: which encoding now, in which order, or when to look again.

1. **What cannot be used is left out**: a delta whose base is not here, what memory or the disk does not hold.
2. **The deadline**: only encodings that keep it with 95 % count; where none does, the fastest.
3. **Metered**: of these the smallest, unless bytes cost nothing.
4. **The least expected cost**, see `edge_daemon.transfer.pricing`.
5. **Now or later**: a board that is hot, short of charge, on a metered link, on battery and an unusually slow one, or
   outside the windows waits, unless the deadline does not allow it. Each device waits a little differently, by its
   identity, so that a fleet does not come back as one.
6. **A small variant first**, where the wanted one takes long and the small one is here in a quarter of the time.

Of several reasons to wait the one that lasts longest is told, because nothing happens before it ends.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Final

from edge_daemon.transfer.pricing import paid_s, priced, unfit
from edge_daemon.transfer.types import Bound, Device, File, Link, Order, Plan, Priced, Terms, Why

HOT_C: Final = 4.0  # headroom of the policy's band `hot`
LOW_PCT: Final = 20.0  # the policy's band `low`
SLOW: Final = 4.0  # so many times the usual time is worth waiting for better
_SLOW_LEAST_S: Final = 60.0  # what is over sooner is not put off for slowness
_FIRST_SHARE: Final = 0.25
_FIRST_GAIN_S: Final = 30.0
_SOONEST_S: Final = 10.0  # a shorter wait is none: who must begin sooner than this begins now

# When to look again, and over how long a fleet is spread after that. A board's case cools with a time constant of
# minutes (245 s in the simulator), charge comes by the hour, links change by the minute.
_AGAIN_S: Final = {
    Bound.DOWN: (30.0, 15.0),
    Bound.HOT: (120.0, 60.0),
    Bound.BATTERY: (900.0, 300.0),
    Bound.METERED: (600.0, 300.0),
    Bound.SLOW: (300.0, 120.0),
    Bound.DISK: (3600.0, 600.0),
    Bound.MEMORY: (600.0, 120.0),
    Bound.BASE: (3600.0, 600.0),
}
_TEXT: Final = {
    Bound.DOWN: "there is no connection",
    Bound.HOT: "the board is {headroom:.3g} °C below its limit",
    Bound.BATTERY: "the battery has too little to spare",
    Bound.METERED: "the link is metered and another may come",
    Bound.SLOW: "the link carries {slower:.3g} times less than usual",
    Bound.WINDOW: "it is not the time for transfers",
    Bound.DISK: "the disk has no room",
    Bound.MEMORY: "memory has no room to apply it",
    Bound.BASE: "only deltas are offered, and their base is not here",
}
_DECIDED: Final = {
    Bound.COST: "the least expected cost",
    Bound.ONLY: "the only one that can be used here",
    Bound.METERED: "the smallest on a metered link",
    Bound.DEADLINE: "because of the deadline",
}


def plan(order: Order, device: Device, link: Link, terms: Terms = Terms()) -> Plan:  # noqa: B008 - a frozen value
    """What to do now.

    Args:
        order: What is to come.
        device: This board.
        link: The way.
        terms: What the owner allows.
    """
    usable, lacking = _usable(order.wanted, device, link)
    if not usable:
        text = f"nothing can be sent here, {_TEXT[lacking]}"
        return _later(order, lacking, text, _spread(device, order, lacking))
    best, bound = _best(usable, order.deadline_s, link)
    waits = tuple(_reasons(order, device, link, terms, best))
    if waits:
        reason, again_s = max(waits, key=lambda wait: (wait[0] is Bound.DOWN, wait[1]))
        slack_s = math.inf if order.deadline_s is None else order.deadline_s - best.late_s
        if reason is Bound.DOWN or slack_s >= _SOONEST_S:
            told = _TEXT[reason].format(headroom=device.headroom_c, slower=_slower(link))
            text = f"not now, {told} ({_described(best)} would be taken)"
            return _later(order, reason, text, min(again_s, max(slack_s, _SOONEST_S)))
        bound = Bound.DEADLINE
    return _now(best, bound, usable, _small_first(order, device, link, best))


def jitter(device: str, what: str) -> float:
    """From 0 to 1, the same for the same device and thing, spread evenly over a fleet."""
    digest = hashlib.sha256(f"{device}\n{what}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


# -------------------------------------------------------------------------------------------------- which encoding


def _usable(file: File, device: Device, link: Link) -> tuple[list[Priced], Bound]:
    """What could be used, the cheapest first, and what kept the rest from it."""
    usable, lacking = [], Bound.BASE
    for encoding in file.encodings:
        reason = unfit(file, encoding, device)
        if reason is None:
            usable.append(priced(file, encoding, device, link))
        elif reason is not Bound.BASE:
            lacking = reason
    return sorted(usable, key=lambda one: (one.cost_s, one.encoding.size_bytes, one.encoding.id)), lacking


def _best(usable: Sequence[Priced], deadline_s: float | None, link: Link) -> tuple[Priced, Bound]:
    """The encoding to take of those that can be used, and what decided."""
    if len(usable) == 1:
        return usable[0], Bound.ONLY
    kept = [one for one in usable if deadline_s is None or one.late_s <= deadline_s]
    if not kept:
        return min(usable, key=lambda one: (one.late_s, one.cost_s, one.encoding.id)), Bound.DEADLINE
    best, bound = kept[0], Bound.COST
    if link.metered and link.price_s_per_mb > 0:
        best, bound = min(kept, key=lambda one: (one.encoding.size_bytes, one.cost_s, one.encoding.id)), Bound.METERED
    return best, Bound.DEADLINE if len(kept) < len(usable) and usable[0] not in kept else bound


# ------------------------------------------------------------------------------------------------------ now or later


def _reasons(order: Order, device: Device, link: Link, terms: Terms, best: Priced) -> Iterator[tuple[Bound, float]]:
    """Why to wait, and until when."""
    if not link.up:
        yield Bound.DOWN, _spread(device, order, Bound.DOWN)
    if device.headroom_c is not None and device.headroom_c <= HOT_C:
        yield Bound.HOT, _spread(device, order, Bound.HOT)
    if not device.charging and _is_short(device, best):
        yield Bound.BATTERY, _spread(device, order, Bound.BATTERY)
    # When another link comes is not known, so this waits as long as paying costs and no longer: at most twice what
    # somebody who knew would have spent (renting or buying skis; Karlin, Manasse, Rudolph and Sleator 1988).
    left_s = min(terms.unmetered_within_s, paid_s(best.encoding, link)) - order.waited_s
    if left_s > _SOONEST_S:
        yield Bound.METERED, min(_spread(device, order, Bound.METERED), left_s)
    # What arrives slowly arrives all the same, and is not lost when the link is better: only the radio's energy is.
    if not device.charging and best.time_s > _SLOW_LEAST_S and _slower(link) > SLOW:
        yield Bound.SLOW, _spread(device, order, Bound.SLOW)
    if terms.windows and not any(begin_s <= 0 < end_s for begin_s, end_s in terms.windows):
        coming = next(((begin_s, end_s) for begin_s, end_s in terms.windows if 0 < begin_s < end_s), None)
        if coming is None:
            yield Bound.WINDOW, 3600.0 + 600.0 * jitter(device.id, order.wanted.variant)
        else:
            room_s = max(0.0, coming[1] - coming[0] - best.late_s)
            yield Bound.WINDOW, coming[0] + room_s * jitter(device.id, order.wanted.variant)


def _is_short(device: Device, best: Priced) -> bool:
    low = device.battery_pct is not None and device.battery_pct < LOW_PCT
    return low or (device.spare_j is not None and best.joules > device.spare_j)


def _slower(link: Link) -> float:
    """How many times longer than usual a byte takes now."""
    return 1.0 if link.usual is None else link.now.seconds(1.0) / link.usual.seconds(1.0)


def _spread(device: Device, order: Order, reason: Bound) -> float:
    again_s, over_s = _AGAIN_S[reason]
    return again_s + over_s * jitter(device.id, order.wanted.variant)


# ------------------------------------------------------------------------------------------------------- the plan


def _later(order: Order, reason: Bound, text: str, again_s: float) -> Plan:
    told = f"{order.wanted.variant}: {text}; looked at again in {_time(again_s)}"
    return Plan(steps=(), why=Why(bound=reason, text=told), again_s=again_s)


def _now(best: Priced, bound: Bound, usable: Sequence[Priced], first: Priced | None) -> Plan:
    others = [one for one in usable if one is not best]
    second = min(others, key=lambda one: (one.cost_s, one.encoding.id)) if others else None
    margin_s = None if second is None else second.cost_s - best.cost_s
    text = f"{best.variant}: {_described(best)}, {_DECIDED[bound]}"
    if first is not None:
        text = f"{first.variant} first, {_described(first)}, then {text}"
    if second is not None and margin_s is not None:
        text += f"; {second.encoding.id} would cost {_time(abs(margin_s))} {'more' if margin_s >= 0 else 'less'}"
    why = Why(bound=bound, text=text, runner_up=None if second is None else second.encoding.id, margin_s=margin_s)
    return Plan(steps=(best,) if first is None else (first, best), why=why)


def _small_first(order: Order, device: Device, link: Link, best: Priced) -> Priced | None:
    """The small variant that is worth the bytes it adds; on a metered link only where nothing runs yet."""
    if order.first is None or (link.metered and link.price_s_per_mb > 0 and order.serves):
        return None
    usable, _ = _usable(order.first, device, link)
    if not usable:
        return None
    first, _ = _best(usable, None, link)
    is_soon = first.time_s <= _FIRST_SHARE * best.time_s and best.time_s - first.time_s >= _FIRST_GAIN_S
    keeps = order.deadline_s is None or first.late_s + best.late_s <= order.deadline_s or not order.serves
    return first if is_soon and keeps else None


def _described(one: Priced) -> str:
    size = one.encoding.size_bytes / 1e6
    return f"{one.encoding.id} of {size:.3g} MB in {_time(one.time_s)} (19 of 20 within {_time(one.late_s)})"


def _time(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
