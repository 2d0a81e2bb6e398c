"""What asking a server can be expected to bring, by what the last two probes of the network have said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from edge_daemon.policies.contract import Action
from edge_lab.simulate import world as worlds
from edge_lab.simulate.board import App
from edge_lab.simulate.floor_chain import SEED, moves
from edge_lab.simulate.world import Floats, World

_NETWORK_S: Final = 12_000  # imagined at most, and so many for each second of the run:
_NETWORK_RATIO: Final = 20
_NETWORK_STATES: Final = 5
_ALIKE: Final = 60  # seconds whose mean is expected
_APART_S: Final = 5
_BLOCK: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What asking the server brings in each second, by what its last two probes have said.

    Attributes:
        replied: Expected share of requests answered in time, `[rates, seconds]`.
        hedged: Share of requests for which the hedge computes, the same shape.
        sent_j: Joules of the radio per request, the same shape.
        failing: Share answered in time of the requests that follow, in a second, one for which the hedge computed.
        state: Of the chain, `[seconds]`; `move` as of `Rates`.
        of_state: `replied`, `hedged` and `sent_j` of each state, `[3, rates, states]`.
    """

    replied: Floats
    hedged: Floats
    sent_j: Floats
    failing: Floats
    state: NDArray[np.int64]
    move: Floats
    of_state: Floats


def expected_ms(action: Action, rtt_ms: Floats, up_mbps: Floats) -> Floats:
    """How long a reply would take by these probes."""
    with np.errstate(divide="ignore"):
        took: Floats = rtt_ms + action.payload_kb * 8 / up_mbps + action.latency_ms
    return took


def link_of(world: World, action: Action, per_s: Floats) -> Link:
    """Ask the server through an imagined network of the scenario's kind, or the recorded one, in `board.App`.

    What a second is expected to bring is the mean of what followed the most alike pairs of probes.
    """
    assert world.rtt_ms is not None  # noqa: S101 - a scenario with a server has a network
    assert world.up_mbps is not None  # noqa: S101
    own = world.scenario.trace is not None
    rtt_ms, up_mbps = world.rtt_ms, world.up_mbps
    if not own:
        imagined_s = min(_NETWORK_S, _NETWORK_RATIO * world.seconds)
        rtt, up = worlds.network(structs.replace(world.scenario, duration_s=imagined_s), SEED, None, None)
        rtt_ms, up_mbps = (rtt_ms, up_mbps) if rtt is None or up is None else (rtt, up)
    limit_ms = world.setting.tasks[0].limit_ms
    edges_ms = _network_edges(expected_ms(action, rtt_ms, up_mbps), limit_ms)
    imagined = np.searchsorted(edges_ms, expected_ms(action, rtt_ms, up_mbps))
    states = len(edges_ms) + 1
    last = np.r_[imagined[0], imagined[:-1]]
    tables = np.array([_asked(world, action, rtt_ms, up_mbps, float(rate)) for rate in per_s])  # [rates, 4, seconds]
    of_state = np.zeros((3, len(per_s), states))
    for index in range(states):
        if (last == index).any():
            of_state[:, :, index] = tables[:, :3, last == index].mean(axis=2).T
    near = _alike(_probes(world.rtt_ms, world.up_mbps), _probes(rtt_ms, up_mbps), apart=own)
    expected = tables[:, :3, near].mean(axis=-1)
    after = tables[:, 3, near]
    known = ~np.isnan(after)
    failing = (np.where(known, after, 0).sum(axis=-1) + 0.2) / (known.sum(axis=-1) + 2)
    seen = np.searchsorted(edges_ms, expected_ms(action, world.rtt_ms, world.up_mbps))
    return Link(
        replied=expected[:, 0],
        hedged=expected[:, 1],
        sent_j=expected[:, 2],
        failing=failing,
        state=np.r_[seen[0], seen[:-1]],
        move=moves(imagined, states),
        of_state=of_state,
    )


def _network_edges(took_ms: Floats, limit_ms: float) -> Floats:
    finite = np.minimum(took_ms, 100 * limit_ms)
    edges: Floats = np.unique(np.quantile(finite, np.arange(1, _NETWORK_STATES) / _NETWORK_STATES))
    return edges


def _probes(rtt_ms: Floats, up_mbps: Floats) -> Floats:
    """What is known before each second, `[seconds, 4]`: both values of the last and of the second before."""
    values = np.log(np.stack([np.minimum(rtt_ms, 3000), np.maximum(up_mbps, 0.02)], axis=1))
    last = np.r_[values[:1], values[:-1]]
    before = np.r_[last[:1], last[:-1]]
    probes: Floats = np.c_[last, before]
    return probes


def _alike(asked: Floats, known: Floats, *, apart: bool) -> NDArray[np.int64]:
    """The seconds of `known` most like each of `asked`, `[seconds, alike]`; `apart`: not its own neighbours."""
    scale = known.std(axis=0) + 1e-9
    weight = np.array([1.0, 1.0, 0.5, 0.5]) / scale
    asked, known = (asked * weight).astype(np.float32), (known * weight).astype(np.float32)
    square = (known * known).sum(axis=1)
    near = np.empty((len(asked), min(_ALIKE, len(known))), dtype=np.int64)
    for begin in range(0, len(asked), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        far = square - 2 * asked[rows] @ known.T
        if apart:
            gap = np.abs(np.arange(len(asked))[rows, None] - np.arange(len(known)))
            far[gap < _APART_S] = np.inf
        near[rows] = np.argpartition(far, near.shape[1] - 1, axis=1)[:, : near.shape[1]]
    return near


def _asked(world: World, action: Action, rtt_ms: Floats, up_mbps: Floats, rate: float) -> Floats:
    """Per second: shares replied and hedged, joules sent per request, and the share replied after a hedged one."""
    seconds, count = len(rtt_ms), max(int(rate * len(rtt_ms)), 1)
    arrive_s = (np.arange(count) + 0.5) / np.float64(max(rate, 1e-9))
    jitter = np.exp(world.scenario.hidden.remote_jitter_sigma * np.random.default_rng(SEED).standard_normal(count))
    app = App(
        replace(
            world,
            seconds=seconds,
            arrive_s=arrive_s,
            jitter=np.ones(count),
            remote_jitter=jitter,
            slowdown=np.ones(seconds * worlds.SUBSTEPS),
            rtt_ms=rtt_ms,
            up_mbps=up_mbps,
        )
    )
    table = np.zeros((5, seconds))
    after: list[list[bool]] = [[] for _ in range(seconds)]
    failed_s, watts = -1, world.truth.power_w[action.id]
    for index, arrived_s in enumerate(arrive_s.tolist()):
        second = int(arrived_s)
        if second >= seconds:
            break
        served = app.serve(index, action, 1.0)
        if failed_s == second:
            after[second].append(bool(served.replied))
        table[0, second] += bool(served.replied)
        if served.ended_s is not None:
            table[1, second] += 1
            table[2, second] -= watts * served.latency_ms / 1000
            failed_s = second
        table[4, second] += 1
    burned = np.array(app.joules[: seconds * worlds.SUBSTEPS]).reshape(seconds, -1).sum(axis=1)
    table[2] += burned
    table[:3] /= np.maximum(table[4], 1)
    table[3] = [np.mean(ones) if ones else np.nan for ones in after]
    out: Floats = table[:4]
    return out
