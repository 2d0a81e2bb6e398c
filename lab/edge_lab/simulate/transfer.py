"""A transfer plan played over a trace of the link: bytes arrive, connections are lost, pieces are asked for again.

The plan is `edge_daemon.transfer.plan.plan`, the product's own; whoever else is to be compared takes the same
arguments. Time goes in whole seconds. What a device knows of its link is what it saw: ten minutes before the order, and
then what arrives. Simplified: the link is the device's alone, a plan is not made anew while it is carried out, and
applying a delta takes the time it was said to take.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge_daemon.transfer.plan import plan
from edge_daemon.transfer.pricing import SETUP_TRIPS, after_loss, priced, round_trips, unfit
from edge_daemon.transfer.throughput import Throughput, seen
from edge_daemon.transfer.types import Bound, Device, Encoding, Link, Order, Plan, Priced, Terms, Why

Picker = Callable[[Order, Device, Link, Terms], Plan]

LOST_S: Final = 3  # so many seconds without a byte and the connection is given up
_LATELY_S: Final = 60
_PROBED_EVERY_S: Final = 5  # before the order the device sees a second of the link this often
_MEAN_DROP_S: Final = 600.0
_OUTAGE_MIN: Final = 0.001
_BITS: Final = 125_000.0  # bytes a second in a megabit a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a link carries, second by second; over its end it begins again.

    Attributes:
        bytes_per_s: One value a second.
        rtt_ms: Round trip, all the time.
        seen_s: Seconds before the order, at the beginning.
    """

    name: str
    bytes_per_s: tuple[float, ...]
    rtt_ms: float = 50.0
    seen_s: int = 600

    def at(self, second: int) -> float:
        """What arrives in a second after the order."""
        return self.bytes_per_s[(self.seen_s + second) % len(self.bytes_per_s)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An order, and all that does not change while it is carried out.

    Attributes:
        metered_until_s: The link is metered until then, and for nothing afterwards.
        most_s: It is given up after this.
    """

    order: Order
    device: Device
    trace: Trace
    terms: Terms = Terms()  # noqa: RUF009 - a frozen value
    metered_until_s: float = 0.0
    price_s_per_mb: float = 60.0
    most_s: int = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it went.

    Attributes:
        done_s: When the wanted file was here and applied; None if it was given up.
        first_s: When the first variant was.
        received: Bytes, with those that came twice; `paid` of them while the link was metered.
        lost: Connections given up.
        looks: How often the plan was made.
        cost_s: Time, money and energy as the plan prices them; of what was given up, at `most_s`.
    """

    done_s: float | None
    first_s: float | None
    received: float
    paid: float
    joules: float
    lost: int
    looks: int
    cost_s: float


def picker(order: Order, device: Device, link: Link, terms: Terms) -> Plan:
    """The product's."""
    return plan(order, device, link, terms)


def always_full(order: Order, device: Device, link: Link, terms: Terms) -> Plan:
    """The whole file as it is, at once: what a plain download does."""
    del terms
    return _at_once(order, device, link, lambda one: (one.encoding.base is not None, -one.encoding.size_bytes))


def always_smallest(order: Order, device: Device, link: Link, terms: Terms) -> Plan:
    """Whatever has the fewest bytes, at once: what a delta updater does."""
    del terms
    return _at_once(order, device, link, lambda one: one.encoding.size_bytes)


def only(encoding: Encoding, wait_s: int) -> Picker:
    """This encoding, after so many seconds: what `best` tries."""

    def pick(order: Order, device: Device, link: Link, terms: Terms) -> Plan:
        del terms
        why = Why(bound=Bound.ONLY, text=encoding.id)
        if order.waited_s < wait_s:
            return Plan(steps=(), why=why, again_s=wait_s - order.waited_s)
        return Plan(steps=(priced(order.wanted, encoding, device, link),), why=why)

    return pick


def played(case: Case, pick: Picker) -> Outcome:
    """What comes of a picker over a trace."""
    trace, device = case.trace, case.device
    known, usual = _before(trace)
    now, looks, received, paid, joules, lost = 0.0, 0, 0.0, 0.0, 0.0, 0
    done_s = first_s = None
    while now < case.most_s and done_s is None:
        deadline_s = None if case.order.deadline_s is None else case.order.deadline_s - now
        order = replace(case.order, deadline_s=deadline_s, waited_s=now)
        terms = replace(case.terms, windows=tuple((begin - now, end - now) for begin, end in case.terms.windows))
        found = pick(order, device, _link(case, now, known, usual), terms)
        looks += 1
        if found.again_s is not None:
            later = now + max(1.0, found.again_s)
            now = min(later, case.metered_until_s) if now < case.metered_until_s else later  # another link is noticed
            continue
        for step in found.steps:
            way = _Way(case, known, now)
            way.carry(step)
            known, now = way.known, way.now + step.encoding.apply_s
            received, paid, lost = received + way.received, paid + way.paid, lost + way.lost
            joules += device.radio_w * way.on_air_s + device.cpu_w * step.encoding.apply_s
            if not way.arrived:
                break
            if step.variant == order.wanted.variant:
                done_s = now
            else:
                first_s = now
    spent = 0.0 if device.charging else joules * device.price_s_per_j
    return Outcome(
        done_s=done_s,
        first_s=first_s,
        received=received,
        paid=paid,
        joules=joules,
        lost=lost,
        looks=looks,
        cost_s=(case.most_s if done_s is None else done_s) + paid / 1e6 * case.price_s_per_mb + spent,
    )


def best(case: Case, waits_s: Sequence[int] = (0, 30, 60, 120, 300, 600, 1200, 2400)) -> Outcome:
    """The cheapest in hindsight: every encoding that can be used, begun at each of these moments."""
    file = case.order.wanted
    usable = [encoding for encoding in file.encodings if unfit(file, encoding, case.device) is None]
    outcomes = [played(case, only(encoding, wait_s)) for encoding in usable for wait_s in waits_s]
    return min(outcomes, key=lambda outcome: outcome.cost_s)


def made(
    name: str,
    mbit: float,
    *,
    sd: float,
    seed: int,
    rtt_ms: float = 50.0,
    outage: float = 0.0,
    outage_s: float = 5.0,
    corr_s: float = 10.0,
    seconds: int = 7200,
) -> Trace:
    """A made link: a log-normal rate that forgets its past, and outages.

    Args:
        name: Of the trace.
        mbit: Median, in Mbit/s.
        sd: Of the rate's logarithm.
        seed: The same gives the same.
        rtt_ms: Round trip.
        outage: Share of seconds in which nothing comes.
        outage_s: How long an outage lasts on average.
        corr_s: After this the rate has forgotten 63 % of what it was.
        seconds: Length.
    """
    draw = random.Random(f"{name}/{seed}")  # noqa: S311 - a simulation
    keep = math.exp(-1 / corr_s)
    level, away = draw.gauss(0, 1), False
    rates = []
    for _ in range(seconds):
        level = keep * level + math.sqrt(1 - keep**2) * draw.gauss(0, 1)
        enter = outage / (outage_s * (1 - outage)) if outage else 0.0
        away = draw.random() >= 1 / outage_s if away else draw.random() < enter
        rates.append(0.0 if away else mbit * _BITS * math.exp(sd * level))
    return Trace(name=name, bytes_per_s=tuple(rates), rtt_ms=rtt_ms)


def joined(one: Trace, other: Trace, at_s: int) -> Trace:
    """The one link until `at_s` after the order, then the other."""
    rates = one.bytes_per_s[: one.seen_s + at_s] + other.bytes_per_s[other.seen_s :]
    return replace(one, name=f"{one.name}, then {other.name}", bytes_per_s=rates)


def from_lines(name: str, text: str, rtt_ms: float = 80.0) -> Trace:
    """A recorded link: lines of a time in seconds and a rate in Mbit/s, held until the next line.

    Raises:
        ValueError: A line is no pair of numbers, or there are no two.
    """
    pairs = [(float(time_s), float(mbit)) for time_s, mbit in (line.split()[:2] for line in text.splitlines() if line)]
    if len(pairs) < 2 or not pairs[-1][0] > pairs[0][0]:  # noqa: PLR2004 - a beginning and an end
        raise ValueError("a trace needs two lines at least, the later one later")
    rates, place = [], 0
    for second in range(int(pairs[-1][0] - pairs[0][0])):
        while place + 1 < len(pairs) and pairs[place + 1][0] - pairs[0][0] <= second:
            place += 1
        rates.append(max(0.0, pairs[place][1]) * _BITS)
    return Trace(name=name, bytes_per_s=tuple(rates) or (0.0,), rtt_ms=rtt_ms, seen_s=min(600, len(rates) // 4))


class _Way:
    """One encoding on its way, from `now` on."""

    def __init__(self, case: Case, known: Throughput, now: float) -> None:
        self._case, self.known, self.now = case, known, now
        self.received, self.paid, self.on_air_s, self.lost, self.arrived = 0.0, 0.0, 0.0, 0, False

    def carry(self, step: Priced) -> None:
        """Receive it, piece by piece, until it is here or the case is given up."""
        trace, size, here, silent = self._case.trace, float(step.encoding.size_bytes), 0.0, 0
        chunk = step.chunk_bytes
        self._wait(round_trips(step.encoding.size_bytes) * trace.rtt_ms / 1000)
        while here < size and self.now < self._case.most_s:
            rate = trace.at(int(self.now))
            if rate and silent >= LOST_S:
                self._wait(SETUP_TRIPS * trace.rtt_ms / 1000)
            silent = 0 if rate else silent + 1
            if silent == LOST_S:
                self.lost += 1
                here -= here % chunk  # what was checked stays
                chunk = after_loss(chunk)
            part_s = min(1.0, (size - here) / rate) if rate else 1.0
            here, self.received = here + rate * part_s, self.received + rate * part_s
            self.paid += rate * part_s if self.now < self._case.metered_until_s else 0.0
            self.known = seen(self.known, rate * part_s, part_s)
            self._wait(part_s)
        self.arrived = here >= size

    def _wait(self, seconds: float) -> None:
        self.now += seconds
        self.on_air_s += seconds


def _before(trace: Trace) -> tuple[Throughput, Throughput]:
    """What the device knows when the order comes: of the last seconds, and on the whole."""
    known = usual = Throughput()
    for second in range(-trace.seen_s, 0, _PROBED_EVERY_S):
        usual = seen(usual, trace.at(second), 1.0)
        if second >= -_LATELY_S:
            known = seen(known, trace.at(second), 1.0)
    return known, usual


def _link(case: Case, now: float, known: Throughput, usual: Throughput) -> Link:
    return Link(
        now=known,
        usual=usual,
        rtt_ms=case.trace.rtt_ms,
        between_drops_s=_MEAN_DROP_S if known.outage > _OUTAGE_MIN else math.inf,
        metered=now < case.metered_until_s,
        price_s_per_mb=case.price_s_per_mb,
    )


def _at_once(order: Order, device: Device, link: Link, key: Callable[[Priced], object]) -> Plan:
    file = order.wanted
    usable = [priced(file, each, device, link) for each in file.encodings if unfit(file, each, device) is None]
    chosen = min(usable, key=key)  # type: ignore[arg-type]  # each key's values compare with each other
    return Plan(steps=(chosen,), why=Why(bound=Bound.ONLY, text=chosen.encoding.id))
