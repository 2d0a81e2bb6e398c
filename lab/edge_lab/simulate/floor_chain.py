"""What is known of a run but its future: the parameters, as a chain of contexts and what each action brings in each.

A context is a rate of requests, a state of contention and a state of the network. How one follows another is known from
the scenario; where a recording says what comes, its own statistics are taken, the most a device could have learned.
The network's part is in `floor_link`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_daemon.policies.contract import Action
from edge_lab.simulate import world as worlds
from edge_lab.simulate.scenario import Hidden
from edge_lab.simulate.world import Floats, World

_MADE: Final = 0.7  # of the seconds are as the scenario's arrivals say, or a recording says what comes
SEED: Final = 7_654_321  # of the imagined requests and networks: never a run's own
_REQUESTS: Final = 2000  # imagined for each rate
_ROOM: Final = 1.05  # over its usual time, what a request is given that has waited
_SLOWEST: Final = 3.2
_SLOW_POINTS: Final = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests per second, `[rates]`, and the probability of each a second after each, `[rates, rates]`."""

    per_s: Floats
    move: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """States of contention: none first, then bursts; `slow` and `watts` of each, and `move` as of `Rates`."""

    slow: Floats
    watts: Floats
    move: Floats


def rates_of(world: World) -> Rates:
    """The rates of requests and how they take turns."""
    arrivals, trace = world.scenario.arrivals, world.scenario.trace
    counts = np.diff(world.first).astype(np.float64)
    if trace is not None and np.mean((counts == arrivals.quiet_per_s) | (counts == arrivals.busy_per_s)) < _MADE:
        levels, state = _levels(counts, 4)
        return Rates(per_s=levels, move=moves(state, len(levels)))
    quiet, busy = 1 - math.exp(-1 / arrivals.quiet_s), 1 - math.exp(-1 / arrivals.busy_s)
    return Rates(
        per_s=np.array([arrivals.quiet_per_s, arrivals.busy_per_s]),
        move=np.array([[1 - quiet, quiet], [busy, 1 - busy]]),
    )


def contention_of(world: World) -> Contention:
    """The states of contention and how they follow each other."""
    hidden = world.scenario.hidden
    recorded = world.scenario.trace is not None and bool((world.slowdown > 1).any()) and hidden.burst_rate == 0
    if recorded:
        levels, state = _levels(world.slowdown[:: worlds.SUBSTEPS], 5)
        return Contention(slow=levels, watts=np.zeros(len(levels)), move=moves(state, len(levels)))
    if hidden.burst_rate == 0:
        return Contention(slow=np.ones(1), watts=np.zeros(1), move=np.ones((1, 1)))
    mean_s, (least, most), watts = worlds.BURST_MEAN_S, worlds.BURST_SLOWDOWN, worlds.BURST_W
    begins, ends = 1 - math.exp(-hidden.burst_rate / mean_s), 1 - math.exp(-1 / mean_s)
    factors = least + (most - least) * np.array([0.25, 0.75, 0.25, 0.75])
    move = np.diag([1 - begins, *[1 - ends] * 4])
    move[0, 1:], move[1:, 0] = begins / 4, ends
    return Contention(
        slow=np.array([1.0, *factors]), watts=np.array([0, *(watts * np.array([0.25, 0.25, 0.75, 0.75]))]), move=move
    )


# ----------------------------------------------------------------------------------------------- local actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What an action here brings per second, by how slow everything is.

    Attributes:
        slow: The points of slowness, `[points]`.
        quality, joules: `[rates, actions, points]`.
    """

    slow: Floats
    quality: Floats
    joules: Floats

    def at(self, rate: int, slow: float) -> tuple[Floats, Floats]:
        """Quality and joules of each action at this slowness."""
        last = len(self.slow) - 1
        place = min(max((slow - self.slow[0]) / (self.slow[1] - self.slow[0]), 0.0), float(last))
        low = min(int(place), last - 1)
        part = place - low
        quality, joules = self.quality[rate], self.joules[rate]
        return (
            quality[:, low] * (1 - part) + quality[:, low + 1] * part,
            joules[:, low] * (1 - part) + joules[:, low + 1] * part,
        )


def local_of(world: World, actions: list[Action], per_s: Floats, *, rescued: bool = True) -> Local:
    """Play imagined requests, the same to every action and slowness, through the queue of `board.App`.

    Args:
        world: The run.
        actions: All without a server.
        per_s: The rates.
        rescued: A request that has waited too long for its action is served by a faster one, as `floor_reply` does.
    """
    limit_s = world.setting.tasks[0].limit_ms / 1000
    slow = np.linspace(1.0, _SLOWEST, _SLOW_POINTS)
    own_s = np.array([world.truth.latency_ms[action.id] for action in actions])[:, None] / 1000 * slow
    watts = np.array([world.truth.power_w[action.id] for action in actions])
    worth = np.array([action.quality for action in actions])
    by_quality = np.argsort(worth).tolist()
    jitter = _jitter(world.scenario.hidden, _REQUESTS)
    number = np.arange(len(actions))[:, None]
    quality, joules = [], []
    for rate in per_s:
        free_s, gained, burned_j = np.zeros_like(own_s), np.zeros_like(own_s), np.zeros_like(own_s)
        for index, factor in enumerate(jitter):
            arrive_s = index / max(rate, 1e-9)
            begin_s = np.maximum(free_s, arrive_s)
            waits = begin_s > arrive_s
            slack_s = arrive_s + limit_s - begin_s
            taken = np.broadcast_to(number, own_s.shape)
            if rescued and waits.any():
                late = waits & (own_s * _ROOM > slack_s)
                for other in by_quality:
                    fits = late & (own_s[other] * _ROOM <= slack_s) & (own_s[other] < own_s)
                    taken = np.where(fits, other, taken)
            took_own_s = np.take_along_axis(own_s, taken, axis=0)
            served = ~waits | (took_own_s <= slack_s)
            took_s = took_own_s * factor
            gained += worth[taken] * (served & (took_s <= slack_s))
            burned_j += np.where(served, took_s * watts[taken], 0.0) + 2 * world.switch_j * (taken != number)
            free_s = np.where(served, begin_s + took_s, free_s)
        quality.append(gained / _REQUESTS * rate)
        joules.append(burned_j / _REQUESTS * rate)
    return Local(slow=slow, quality=np.array(quality), joules=np.array(joules))


def _jitter(hidden: Hidden, count: int) -> list[float]:
    """Jitter as the world draws it, but each part of its range as often as expected, in a random order."""
    source = np.random.default_rng(SEED)
    even = (np.arange(count) + 0.5) / count
    bulk = np.exp(hidden.jitter_sigma * np.sqrt(2) * _inverse_erf(2 * even - 1))
    source.shuffle(bulk)
    hits = round(hidden.spike_rate * count)
    spikes = np.ones(count)
    if hits:
        low, high = worlds.SPIKE
        spikes[source.choice(count, hits, replace=False)] = low + (high - low) * (np.arange(hits) + 0.5) / hits
    return [float(value) for value in bulk * spikes]


def _inverse_erf(value: Floats) -> Floats:
    """Winitzki's approximation, 0.2 % off."""
    a = 0.147
    logged = np.log(1 - value * value)
    first = 2 / (math.pi * a) + logged / 2
    inverse: Floats = np.sign(value) * np.sqrt(np.sqrt(first * first - logged / a) - first)
    return inverse


def _levels(values: Floats, most: int) -> tuple[Floats, NDArray[np.int64]]:
    """At most so many levels that stand for all values, and the level of each."""
    edges = np.unique(np.quantile(values, np.arange(1, most) / most))
    state = np.searchsorted(edges, values)
    _, state = np.unique(state, return_inverse=True)
    levels = np.array([values[state == index].mean() for index in range(int(state.max()) + 1)])
    return levels, state


def moves(state: NDArray[np.int64], states: int) -> Floats:
    """How often each state followed each."""
    counts = np.full((states, states), 1e-3)
    np.add.at(counts, (state[:-1], state[1:]), 1)
    move: Floats = counts / counts.sum(axis=1, keepdims=True)
    return move
