"""What happens to a board in one run, whatever a policy does: everything random, drawn once.

Common random numbers: each source has a generator of its own, seeded by the seed and the source's name, and each
request its own jitter, so two policies (and the oracle) meet exactly the same second. What a policy does changes only
what it is answerable for.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_daemon.policies.contract import Action, Board, Setting, Task
from edge_lab.errors import ScenarioError
from edge_lab.simulate.scenario import Hidden, Network, Scenario, Spacing
from edge_lab.simulate.trace import Recorded
from edge_sdk.physics import STANDARD

Floats = NDArray[np.float64]

SUBSTEPS: Final = 4  # of a second; heat, contention and the clock of power have this resolution
BURST_MEAN_S: Final = 40.0
BURST_SLOWDOWN: Final = (1.4, 2.6)
BURST_W: Final = 0.8
SPIKE: Final = (1.5, 3.0)
_RTT_SPIKE: Final = (2.0, 5.0)
HEDGED: Final = "+hedge"
_SHORTEST_MS: Final = 1e-3  # of an inference: in a day's seconds less is lost to rounding

# The bare Raspberry Pi 4 of facts: sources in docs/explanation/simulator.md.
DEFAULT_STEPS: Final = (1.0, 0.667, 0.5, 0.4)
DEFAULT_THROTTLE_C: Final = (80.0, 85.0, 78.0)
DEFAULT_RADIO_W: Final = STANDARD.radio_w
DEFAULT_SWITCH_J: Final = STANDARD.switch_j


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is so, as against what the setting promises.

    Attributes:
        latency_ms: By action: of the inference here (of a hedged action that of its hedge), at full clock, alone.
        power_w: By action, while computing here.
        r_c_per_w, c_j_per_c: As of `Board`.
    """

    latency_ms: dict[str, float]
    power_w: dict[str, float]
    r_c_per_w: tuple[float, float]
    c_j_per_c: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One drawn run. Per second: shape `(seconds,)`; per substep: `(seconds * SUBSTEPS,)`; per request: `(requests,)`.

    Attributes:
        ambient_c: Per second.
        slowdown: Per substep, 1 and above: by how much everything here takes longer.
        extra_w: Per substep: what others draw.
        rtt_ms, up_mbps: Per second; `inf` and 0 where nothing goes through. None without a network.
        arrive_s: When each request comes, ascending; `first[t]` is the index of the first of second `t`.
        jitter: Per request, around 1, with the tail.
        remote_jitter: The same of its round trip.
        temp_noise_c, power_noise: Per second, what the sensors add and multiply.
        battery_w: Per second: what flows out besides the board's own.
    """

    scenario: Scenario
    seed: int
    seconds: int
    setting: Setting
    truth: Truth
    ambient_c: Floats
    slowdown: Floats
    extra_w: Floats
    rtt_ms: Floats | None
    up_mbps: Floats | None
    arrive_s: Floats
    first: NDArray[np.int64]
    jitter: Floats
    remote_jitter: Floats
    temp_noise_c: Floats
    power_noise: Floats
    battery_w: Floats
    steps: tuple[float, ...] = DEFAULT_STEPS
    throttle_c: tuple[float, float, float] = DEFAULT_THROTTLE_C
    radio_w: float = DEFAULT_RADIO_W
    switch_j: float = DEFAULT_SWITCH_J

    @property
    def slows_above_c(self) -> float:
        """Above it the firmware slows down; never on a board of one clock."""
        return self.throttle_c[0] if len(self.steps) > 1 else math.inf


def actions_of(scenario: Scenario) -> tuple[Action, ...]:
    """What a task can do: each variant, and each server with and without a hedge by the fastest variant.

    Raises:
        ScenarioError: The variants come from a bundle, and it was not read (`edge_lab.simulate.bundled`).
    """
    local = [
        Action(
            id=v.id,
            quality=v.accuracy,
            latency_ms=v.latency_ms or 1.0,
            power_w=v.power_w or 3.0,
            size_bytes=v.size_bytes,
        )
        for v in scenario.variant
        if not v.remote
    ]
    if not local:
        raise ScenarioError("no variant that runs on the board", where=scenario.name)
    hedge = min(local, key=lambda action: (action.latency_ms, action.id)).id
    radio_w = DEFAULT_RADIO_W if scenario.board.radio_w is None else scenario.board.radio_w
    remote = [
        Action(
            id=v.id + suffix,
            quality=v.accuracy,
            latency_ms=v.server_ms,
            power_w=radio_w,
            remote=True,
            payload_kb=v.payload_kb,
            hedge=hedge if suffix else None,
        )
        for v in scenario.variant
        if v.remote
        for suffix in ("", HEDGED)
    ]
    return (*local, *remote)


def setting_of(scenario: Scenario, board: Board) -> Setting:
    """What a policy is told."""
    limits = scenario.limits
    battery_j = None if limits.battery_wh is None else limits.battery_wh * 3600
    until_s = None
    if battery_j is not None:
        until_s = min(limits.battery_until_s or float(scenario.duration_s), float(scenario.duration_s))
    task = Task(
        name=scenario.name,
        actions=actions_of(scenario),
        limit_ms=limits.latency_ms,
        min_quality=limits.min_accuracy,
        switch_j=DEFAULT_SWITCH_J if scenario.board.switch_j is None else scenario.board.switch_j,
    )
    return Setting(
        board=board,
        tasks=(task,),
        temp_c=limits.temp_c,
        until_s=until_s,
        battery_j=battery_j,
        max_power_w=limits.max_power_w,
    )


def board_of(scenario: Scenario, base: Board) -> Board:
    """The board's physics: the scenario's own values before the profile's."""
    own = scenario.board
    return Board(
        idle_w=base.idle_w if own.idle_w is None else own.idle_w,
        r_c_per_w=own.r_c_per_w or base.r_c_per_w,
        c_j_per_c=own.c_j_per_c or base.c_j_per_c,
        clock_power=base.clock_power if own.clock_power is None else own.clock_power,
        estimated=base.estimated and own.r_c_per_w is None,
    )


def draw(scenario: Scenario, seed: int, *, base: Board | None = None, trace: Recorded | None = None) -> World:
    """The run of this seed."""
    seconds = scenario.duration_s
    hidden = scenario.hidden
    board = board_of(scenario, base or Board())
    setting = setting_of(scenario, board)
    start_s = 0.0
    if trace is not None and scenario.trace is not None:
        start_s = scenario.trace.start_s
        if scenario.trace.shuffle:
            start_s += float(_source(seed, "trace").uniform(0, trace.time_s[-1]))

    def played(name: str) -> Floats | None:
        return None if trace is None else trace.sampled(name, seconds, start_s)

    ambient = _ambient(scenario, seed)
    recorded = played("ambient_c")
    if recorded is not None:
        ambient = np.where(np.isnan(recorded), ambient, recorded)
    slowdown, extra_w = _bursts(hidden, seed, seconds)
    recorded = played("slowdown")
    if recorded is not None:
        slowdown = slowdown * np.repeat(np.nan_to_num(recorded, nan=1.0), SUBSTEPS)
    rtt_ms, up_mbps = network(scenario, seed, played("rtt_ms"), played("up_mbps"))
    if rtt_ms is None and any(action.remote for action in setting.tasks[0].actions):
        raise ScenarioError(
            "a remote variant, and neither a [network] nor a trace with rtt_ms or up_mbps", where=scenario.name
        )
    arrive_s, first = _requests(scenario, seed, played("requests_per_s"))
    jitter = np.exp(hidden.jitter_sigma * _source(seed, "jitter").standard_normal(len(arrive_s)))
    tail = _source(seed, "tail")
    hit = tail.random(len(arrive_s)) < hidden.spike_rate
    jitter = jitter * np.where(hit, tail.uniform(*SPIKE, len(arrive_s)), 1.0)
    drain = played("battery_w")
    return World(
        scenario=scenario,
        seed=seed,
        seconds=seconds,
        setting=setting,
        truth=_truth(setting, hidden, seed),
        ambient_c=ambient,
        slowdown=slowdown,
        extra_w=extra_w,
        rtt_ms=rtt_ms,
        up_mbps=up_mbps,
        arrive_s=arrive_s,
        first=first,
        jitter=jitter,
        remote_jitter=np.exp(hidden.remote_jitter_sigma * _source(seed, "remote").standard_normal(len(arrive_s))),
        temp_noise_c=hidden.temp_noise_c * _source(seed, "temp").standard_normal(seconds),
        power_noise=1 + hidden.power_noise * _source(seed, "power").standard_normal(seconds),
        battery_w=np.zeros(seconds) if drain is None else np.nan_to_num(drain),
        steps=scenario.board.steps or DEFAULT_STEPS,
        throttle_c=scenario.board.throttle_c or DEFAULT_THROTTLE_C,
        radio_w=DEFAULT_RADIO_W if scenario.board.radio_w is None else scenario.board.radio_w,
        switch_j=setting.tasks[0].switch_j,
    )


def _source(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _truth(setting: Setting, hidden: Hidden, seed: int) -> Truth:
    latency: dict[str, float] = {}
    power: dict[str, float] = {}
    actions = setting.tasks[0].actions
    for action in actions:
        if not action.remote:
            own = _source(seed, f"latency {action.id}").standard_normal()
            took_ms = action.latency_ms * hidden.latency_scale * math.exp(hidden.latency_sigma * own)
            latency[action.id] = max(took_ms, _SHORTEST_MS)
            own = _source(seed, f"power {action.id}").standard_normal()
            power[action.id] = action.power_w * math.exp(hidden.power_sigma * own)
    for action in actions:
        if action.remote:
            latency[action.id] = latency[action.hedge] if action.hedge else 0.0
            power[action.id] = power[action.hedge] if action.hedge else 0.0
    scale = math.exp(hidden.thermal_sigma * _source(seed, "thermal").standard_normal())
    r_one, r_two = setting.board.r_c_per_w
    return Truth(
        latency_ms=latency, power_w=power, r_c_per_w=(r_one * scale, r_two * scale), c_j_per_c=setting.board.c_j_per_c
    )


def _ambient(scenario: Scenario, seed: int) -> Floats:
    air, seconds = scenario.ambient, scenario.duration_s
    end_c = air.start_c if air.end_c is None else air.end_c
    drift = air.drift_c * _source(seed, "ambient").standard_normal(seconds).cumsum()
    return np.linspace(air.start_c, end_c, seconds) + drift


def _bursts(hidden: Hidden, seed: int, seconds: int) -> tuple[Floats, Floats]:
    """Contention, as an on-off process in substeps."""
    source = _source(seed, "bursts")
    steps = seconds * SUBSTEPS
    slowdown, extra_w = np.ones(steps), np.zeros(steps)
    if hidden.burst_rate <= 0:
        return slowdown, extra_w
    at = 0.0
    while True:
        at += source.exponential(BURST_MEAN_S / hidden.burst_rate)
        until = at + source.exponential(BURST_MEAN_S)
        factor, watts = source.uniform(*BURST_SLOWDOWN), source.uniform(0, BURST_W)
        begin, end = int(at * SUBSTEPS), max(int(until * SUBSTEPS), int(at * SUBSTEPS) + 1)
        if begin >= steps:
            return slowdown, extra_w
        slowdown[begin:end], extra_w[begin:end] = factor, watts
        at = until


def _requests(scenario: Scenario, seed: int, rates: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
    arrivals, seconds = scenario.arrivals, scenario.duration_s
    source = _source(seed, "arrivals")
    rate = np.empty(seconds)
    at, busy = 0.0, bool(source.random() < arrivals.busy_s / (arrivals.busy_s + arrivals.quiet_s))
    while at < seconds:
        until = at + source.exponential(arrivals.busy_s if busy else arrivals.quiet_s)
        rate[int(at) : int(until) + 1] = arrivals.busy_per_s if busy else arrivals.quiet_per_s
        at, busy = until, not busy
    if rates is not None:
        rate = np.where(np.isnan(rates), rate, rates)
    if arrivals.spacing is Spacing.POISSON:
        counts = source.poisson(rate)
        times = [np.sort(source.random(int(count))) + second for second, count in enumerate(counts)]
        arrive = np.concatenate(times) if times else np.empty(0)
    else:
        passed = np.concatenate([[0.0], np.cumsum(rate)])
        whole = np.arange(1, math.floor(passed[-1] + 1e-9) + 1) - 0.5  # in the middle of its share of the second
        arrive = np.interp(whole, passed, np.arange(seconds + 1, dtype=np.float64))
    first = np.searchsorted(arrive, np.arange(seconds + 1))
    return arrive, first.astype(np.int64)


def network(
    scenario: Scenario, seed: int, rtt: Floats | None, up: Floats | None
) -> tuple[Floats | None, Floats | None]:
    """Round trip and uplink of each second: recorded where given, else made; None where there is no network."""
    made = scenario.network
    if made is None and rtt is None and up is None:
        return None, None
    seconds = scenario.duration_s
    net = made or Network()
    source = _source(seed, "network")
    made_rtt = _walk(source, seconds, net.corr_s, net.rtt_ms[0], net.rtt_ms[1])
    made_rtt = made_rtt * np.where(
        source.random(seconds) < net.spike_rate, source.uniform(*_RTT_SPIKE, seconds), np.ones(seconds)
    )
    made_up = _walk(source, seconds, net.corr_s, net.up_mbps[1], net.up_mbps[1] ** 2 / net.up_mbps[0])
    out = np.zeros(seconds, dtype=bool)
    if net.outage_rate > 0:
        at = 0.0
        while True:
            at += source.exponential(1 / net.outage_rate)
            until = at + source.exponential(net.outage_s)
            if at >= seconds:
                break
            out[int(at) : int(until) + 1] = True
            at = until
    made_rtt, made_up = np.where(out, np.inf, made_rtt), np.where(out, 0.0, made_up)
    # A column's gap is an outage: nothing is known to have gone through.
    rtt = made_rtt if rtt is None else np.where(np.isnan(rtt), np.inf, rtt)
    up = made_up if up is None else np.where(np.isnan(up), 0.0, up)
    return rtt, up


def _walk(source: np.random.Generator, seconds: int, corr_s: float, median: float, p95: float) -> Floats:
    """A log-normal process with this median and 95th percentile that forgets within `corr_s`."""
    sigma = math.log(max(p95, median) / median) / 1.645
    keep = math.exp(-1 / corr_s)
    noise = source.standard_normal(seconds) * math.sqrt(1 - keep * keep)
    value = float(source.standard_normal())
    out = np.empty(seconds)
    for second in range(seconds):
        value = keep * value + noise[second]
        out[second] = value
    return median * np.exp(sigma * out)
