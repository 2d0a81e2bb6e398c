"""What a joule is worth: the price at which the choices of the recent past would have kept the battery's pace.

The dual variable of the constraint that the battery lasts: with contexts of the past standing for the future, each
choosing what is worth most after paying for its energy, the mean power is a falling step function of the price. The
price is the lowest at which it keeps the pace. Saving where it costs little and spending where it pays is what a limit
of power per second cannot do.

The contexts are reduced to their upper hulls when they are kept, so a bisection step is a look-up in each; two of these
are made a second, so no single decision pays for the whole.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

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
    """The price, and the search for the next.

    Attributes:
        value: In points per joule.
        contexts: Of the past, oldest first.
        kept_s, solved_s: When a context was last kept, the price last solved.
        low, high: The bracket of the search for `goal_w`; `left` steps of it remain.
        part: For which of the paces of `PARTS` it searches, -1 for none; `off_w` is a standard deviation of the pace,
            `found` the weighed sum of the prices found so far.
        times: It was solved so often.
    """

    value: float = 0.0
    contexts: tuple[Context, ...] = ()
    kept_s: float = _NEVER
    solved_s: float = _NEVER
    low: float = 0.0
    high: float = 0.0
    left: int = 0
    goal_w: float = 0.0
    part: int = -1
    off_w: float = 0.0
    found: float = 0.0
    times: int = 0


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


def keep(tuning: Tuning, price: Price, now_s: float, context: Context) -> Price:
    """Keep a context; of the older half one makes room, so that the recent past and some of the far stay."""
    kept = price.contexts
    if len(kept) >= tuning.contexts:
        out = int(now_s * 7919) % int(len(kept) - tuning.recent)
        kept = kept[:out] + kept[out + 1 :]
    return msgspec.structs.replace(price, contexts=(*kept, context), kept_s=now_s)


def power_w(contexts: Sequence[Context], price: float) -> float:
    """The mean power of the contexts at a price."""
    total = 0.0
    for context in contexts:
        total += context.watts[bisect_left(context.prices, price)]
    return total / len(contexts)


def solve(  # noqa: PLR0917 - by position, called each second
    tuning: Tuning, price: Price, now_s: float, pace_w: float, base_w: float, left_s: float
) -> Price:
    """Go on searching the price at which the mean power keeps the pace.

    Args:
        tuning: The numbers.
        price: The price so far.
        now_s: The clock.
        pace_w: What may be drawn above `base_w` until the end.
        base_w: What is drawn whatever runs.
        left_s: Until the battery may be empty.
    """
    contexts = price.contexts
    if not contexts:
        return price
    hurry = left_s < tuning.last_s or pace_w < _least_w(contexts)
    part, low, high, left, goal_w = price.part, price.low, price.high, price.left, price.goal_w
    off_w, found = price.off_w, price.found
    if part < 0:
        if now_s - price.solved_s < tuning.solve_s:
            return price
        part, found, off_w = 0, 0.0, _uncertain_w(tuning, price, left_s)
        low, high, left, goal_w = _bracket(tuning, contexts, pace_w + PARTS[0][0] * off_w, base_w, hurry=hurry)
    for _ in range(min(tuning.solve_each, left)):
        left -= 1
        middle = 0.5 * (low + high)
        if power_w(contexts, middle) > goal_w:
            low = middle
        else:
            high = middle
    if left == 0:
        found += PARTS[part][1] * high
        part += 1
        if part == len(PARTS):
            times = price.times + 1
            share = max(tuning.smooth, 1 / times, tuning.hurry * tuning.solve_s / max(left_s, 1.0))
            value = price.value + min(share, 1.0) * (found - price.value)
            return Price(value, contexts, price.kept_s, now_s, times=times)
        low, high, left, goal_w = _bracket(tuning, contexts, pace_w + PARTS[part][0] * off_w, base_w, hurry=hurry)
    return Price(
        price.value, contexts, price.kept_s, price.solved_s, low, high, left, goal_w, part, off_w, found, price.times
    )


def _least_w(contexts: Sequence[Context]) -> float:
    """The mean power of the contexts at any price."""
    return sum([context.watts[-1] for context in contexts]) / len(contexts)


def _bracket(
    tuning: Tuning, contexts: Sequence[Context], pace_w: float, base_w: float, *, hurry: bool
) -> tuple[float, float, int, float]:
    """Where to search, in how many steps (none where an end of it is the price), and for which power.

    The last part of what can be saved is not asked for until the end is near, or the pace cannot be kept without: it
    costs most, and may never be needed.
    """
    free_w = power_w(contexts, 0.0)
    if free_w <= pace_w:
        return 0.0, 0.0, 0, pace_w
    if not hurry:
        least_w = _least_w(contexts)
        pace_w = max(pace_w, least_w + tuning.last_saving * (free_w - least_w))
    # Beyond the value of being alive no price helps: all a second gives, over all it costs.
    alive = sum([context.best for context in contexts])
    spent = sum([base_w + context.watts[-1] for context in contexts])
    high = max(alive / max(spent, 1e-9), 1e-9)
    if power_w(contexts, high) > pace_w:
        return high, high, 0, pace_w
    return 0.0, high, tuning.solve_steps, pace_w


def _uncertain_w(tuning: Tuning, price: Price, left_s: float) -> float:
    """How far the mean power of what comes may be off that of the contexts, at the present price.

    Their own mean is as uncertain as they are few, that of what comes as little of it is left; requests and
    contention come in spells, so only one moment in a spell counts.
    """
    watts = [context.watts[bisect_left(context.prices, price.value)] for context in price.contexts]
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
