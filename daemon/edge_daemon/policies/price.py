"""What a joule is worth: the price at which the choices of the recent past would have kept the battery's pace.

The dual variable of the constraint that the battery lasts: with contexts of the past standing for the future, each
choosing what is worth most after paying for its energy, the mean power is a falling step function of the price. The
price is the lowest at which it keeps the pace. Saving where it costs little and spending where it pays is what a limit
of power per second cannot do.

The contexts are reduced to their upper hulls when they are kept. All their steps, sorted by price, are the mean power
as a function of the price; a price is one look-up in it.

What comes is not known: the price is the mean over what may come, as far as the contexts let it be guessed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from edge_daemon.policies.tuning import Tuning

_NEVER = -math.inf

# At which paces, in standard deviations of what is not known of the future, a price is found, and its weight: the
# price is the mean over what may come. (Three points of a normal distribution, Gauss-Hermite.)
PARTS = ((-1.732, 1 / 6), (0.0, 2 / 3), (1.732, 1 / 6))


class Context(msgspec.Struct, frozen=True):
    """One moment of the past, as a staircase.

    Attributes:
        prices: Ascending: beyond `prices[i]` the choice is step `i + 1`.
        watts: Of each step, falling; one more than prices.
        best: What the costliest step was worth a second.
    """

    prices: tuple[float, ...]
    watts: tuple[float, ...]
    best: float


class Price(msgspec.Struct, frozen=True):
    """The price, and what it is found from.

    Attributes:
        value: In points per joule.
        contexts: Of the past, oldest first.
        kept_s: When a context was last kept, and the price found anew.
        times: It was found so often.
        least_w: The mean power of the contexts at any price.
        steps: Price and saving of each step of all contexts, in order.
    """

    value: float = 0.0
    contexts: tuple[Context, ...] = ()
    kept_s: float = _NEVER
    times: int = 0
    least_w: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()


def staircase(worth: Sequence[float], watts: Sequence[float]) -> Context:
    """The upper hull of what can be chosen: points a second over watts."""
    order = sorted(range(len(worth)), key=lambda i: (-worth[i], watts[i]))
    at = order[0]
    steps = [watts[at]]
    prices: list[float] = []
    while True:
        least, to = math.inf, -1
        for i in order:
            saved = watts[at] - watts[i]
            if saved > 1e-12:  # noqa: PLR2004 - joules that differ
                rate = (worth[at] - worth[i]) / saved
                if rate < least:
                    least, to = rate, i
        if to < 0:
            return Context(tuple(prices), tuple(steps), worth[order[0]])
        prices.append(max(least, prices[-1] if prices else 0.0))
        steps.append(watts[to])
        at = to


def found(  # noqa: PLR0917 - by position, called in a loop that is timed
    tuning: Tuning, price: Price, now_s: float, context: Context, pace_w: float, base_w: float, left_s: float
) -> Price:
    """The price with one more context.

    Args:
        tuning: The numbers.
        price: The price so far.
        now_s: The clock.
        context: This moment. Of the older ones one makes room, at random, so that some of the far past stays.
        pace_w: What may be drawn above `base_w` until the end.
        base_w: What is drawn whatever runs.
        left_s: Until the battery may be empty.
    """
    contexts, steps = price.contexts, [*price.steps]
    if len(contexts) >= tuning.contexts:
        out = int(now_s * 7919) % len(contexts)
        for step in _steps(contexts[out]):
            del steps[bisect_left(steps, step)]
        contexts = contexts[:out] + contexts[out + 1 :]
    contexts = (*contexts, context)
    count = len(contexts)
    steps = sorted(steps + _steps(context))  # all but the last few are in order already, which sorts them fast
    saved = list(accumulate([drop for _, drop in steps]))
    free_w = sum([each.watts[0] for each in contexts])
    least_w = sum([each.watts[-1] for each in contexts])
    # Beyond the value of being alive no price helps: all a second gives, over all it costs.
    most = sum([each.best for each in contexts]) / max(count * base_w + least_w, 1e-9)
    # The last part of what can be saved is not asked for until the end is near, or the pace cannot be kept without: it
    # costs most, and may never be needed.
    hurry = left_s < tuning.last_s or count * pace_w < least_w
    floor_w = -math.inf if hurry else least_w + tuning.last_saving * (free_w - least_w)
    off_w = _uncertain_w(tuning, contexts, price.value, left_s)
    value = 0.0
    for sigmas, weight in PARTS:
        wanted = free_w - max(count * (pace_w + sigmas * off_w), floor_w)
        if wanted > 0:
            at = bisect_left(saved, wanted - 1e-9)
            value += weight * (min(steps[at][0], most) if at < len(steps) else most)
    times = price.times + 1
    share = max(tuning.smooth, 1 / times, tuning.hurry * tuning.context_s / max(left_s, 1.0))
    value = price.value + min(share, 1.0) * (value - price.value)
    return Price(value, contexts, now_s, times, least_w / count, tuple(steps))


def _steps(context: Context) -> list[tuple[float, float]]:
    """Price and saving of each step."""
    watts = context.watts
    return [(price, watts[at] - watts[at + 1]) for at, price in enumerate(context.prices)]


def _uncertain_w(tuning: Tuning, contexts: Sequence[Context], price: float, left_s: float) -> float:
    """How far the mean power of what comes may be off that of the contexts, at this price.

    Their own mean is as uncertain as they are few, that of what comes as little of it is left; requests and
    contention come in spells, so only one moment in a spell counts.
    """
    watts = [context.watts[bisect_left(context.prices, price)] for context in contexts]
    mean = sum(watts) / len(watts)
    spread = sum([(each - mean) ** 2 for each in watts]) / len(watts)
    known_s = len(watts) * tuning.context_s
    return math.sqrt(spread * tuning.spell_s * (1 / known_s + 1 / max(left_s, tuning.spell_s)))


def together(parts: Sequence[Context]) -> Context:
    """Several tasks as one staircase: at each price every one chooses for itself."""
    prices = sorted({price for part in parts for price in part.prices})
    ends = [*prices, math.inf]
    watts = tuple(sum(part.watts[bisect_left(part.prices, end)] for part in parts) for end in ends)
    return Context(tuple(prices), watts, sum(part.best for part in parts))
