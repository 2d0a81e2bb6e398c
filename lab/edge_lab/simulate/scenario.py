"""A scenario: one TOML file that says what a board meets, as it arrives.

Everything drawn at random is drawn per seed by `edge_lab.simulate.world`; nothing here is random.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, structs

from edge_lab.errors import ScenarioError
from edge_sdk.wire import MAX_TOML_BYTES, Celsius, Millis, Name, Percent, Text, Watts, Wire, decode_toml

Positive = Annotated[float, Meta(gt=0, le=1_000_000_000)]
Amount = Annotated[float, Meta(ge=0, le=1_000_000_000)]
Resistance = Annotated[float, Meta(ge=0.05, le=1_000_000)]  # below it heat passes in less than is played
Capacity = Annotated[float, Meta(ge=0.1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sigma = Annotated[float, Meta(ge=0, le=1)]
MAX_DURATION_S = 86_400


class Limits(Wire, frozen=True, kw_only=True):
    """What must hold; a limit left out does not bind.

    Attributes:
        latency_ms: From a request until its answer.
        battery_wh: In the battery at the start; it is to last until `battery_until_s`, or to the end.
    """

    latency_ms: Annotated[float, Meta(gt=0, le=3_600_000)] = 250.0
    temp_c: Annotated[float, Meta(gt=-40, le=200)] | None = None
    battery_wh: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    battery_until_s: Positive | None = None
    min_accuracy: Percent | None = None
    max_power_w: Annotated[float, Meta(gt=0, le=10_000)] | None = None


class Ambient(Wire, frozen=True, kw_only=True):
    """The air: from `start_c` to `end_c` in a line, and a random walk of `drift_c` per square root of a second."""

    start_c: Celsius = 25.0
    end_c: Celsius | None = None
    drift_c: Annotated[float, Meta(ge=0, le=1)] = 0.02


class Spacing(enum.Enum):
    """When the requests of a second come."""

    FRAMES = "frames"  # evenly, as from a camera
    POISSON = "poisson"


class Arrivals(Wire, frozen=True, kw_only=True):
    """Requests: two rates that take turns, each for a time of exponential length."""

    quiet_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 2.0
    busy_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 6.0
    quiet_s: Positive = 90.0
    busy_s: Positive = 60.0
    spacing: Spacing = Spacing.FRAMES


class Network(Wire, frozen=True, kw_only=True):
    """A made network, where no trace gives one: both values go up and down as autoregressive log-normals.

    Attributes:
        rtt_ms: Median and 95th percentile of the round trip.
        up_mbps: 5th percentile and median of what can be sent.
        corr_s: Time after which either has forgotten a third of... its past (1/e).
        spike_rate: Per second: a round trip two to five times as long, for a second.
        outage_rate: Per second: nothing goes through, for `outage_s` on average.
    """

    rtt_ms: tuple[Positive, Positive] = (69.0, 89.0)
    up_mbps: tuple[Positive, Positive] = (1.15, 5.65)
    corr_s: Positive = 10.0
    spike_rate: Share = 0.01
    outage_rate: Share = 0.0
    outage_s: Positive = 2.0


class Trace(Wire, frozen=True, kw_only=True):
    """A file of what happened somewhere: CSV with `time_s` and any of the columns `edge_lab.simulate.trace` names.

    Attributes:
        file: Relative to the scenario's folder.
        start_s: Where in it the scenario begins; past its end it begins again.
        shuffle: Begin somewhere else for each seed.
    """

    file: Annotated[str, Meta(min_length=1, max_length=1000)]
    start_s: Amount = 0.0
    shuffle: bool = False


class BoardSection(Wire, frozen=True, kw_only=True):
    """The physics, where it is not the profile's.

    Attributes:
        steps: Clock ratios of the firmware's throttle, the fastest first.
        throttle_c: Above the first one step slower each second, above the second the slowest, below the third one
            step faster each second.
    """

    idle_w: Annotated[float, Meta(ge=0, le=1000)] | None = None
    r_c_per_w: tuple[Resistance, Resistance] | None = None
    c_j_per_c: tuple[Capacity, Capacity] | None = None
    steps: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(min_length=1, max_length=16)] | None = None
    throttle_c: tuple[Celsius, Celsius, Celsius] | None = None
    clock_power: Annotated[float, Meta(ge=0, le=4)] | None = None
    radio_w: Watts | None = None
    switch_j: Annotated[float, Meta(ge=0, le=1000)] | None = None


class Hidden(Wire, frozen=True, kw_only=True):
    """What is drawn per seed and unknown to every policy.

    Attributes:
        latency_scale: True over promised latency, of all variants; `latency_sigma` spreads each variant's own factor.
        thermal_sigma: Of both thermal resistances.
        jitter_sigma: Of each request's time; `spike_rate` of the requests take 1.5 to 3 times as long.
        burst_rate: Of contention: starts with this / 40 per second, lasts 40 s on average, slows 1.4 to 2.6 times and
            draws up to 0.8 W.
        temp_noise_c, power_noise: Of the sensors, degrees and a share.
        gauge_pct: Steps in which the battery's gauge tells.
    """

    latency_scale: Annotated[float, Meta(gt=0, le=100)] = 1.1
    latency_sigma: Sigma = 0.1
    power_sigma: Sigma = 0.1
    thermal_sigma: Sigma = 0.06
    jitter_sigma: Sigma = 0.07
    spike_rate: Share = 0.02
    burst_rate: Annotated[float, Meta(ge=0, le=40)] = 0.0
    remote_jitter_sigma: Sigma = 0.15
    temp_noise_c: Annotated[float, Meta(ge=0, le=10)] = 0.3
    power_noise: Sigma = 0.03
    gauge_pct: Annotated[float, Meta(ge=0, le=10)] = 0.1


class VariantSection(Wire, frozen=True, kw_only=True):
    """One variant, or with `remote` a server that computes.

    Attributes:
        latency_ms: Promised: the median at full clock.
        power_w: Above idle, while it computes all the time.
        payload_kb, server_ms: Of a remote one: what a request sends, and how long the server takes.
    """

    id: Name
    accuracy: Percent
    latency_ms: Annotated[float, Meta(gt=0, le=3_600_000)] | None = None
    power_w: Watts | None = None
    remote: bool = False
    payload_kb: Amount = 0.0
    server_ms: Millis = 0.0
    size_bytes: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Scenario(Wire, frozen=True, kw_only=True):
    """What the file says.

    Attributes:
        seed: The first; a run of several takes those that follow.
        variant: Inline variants; else `bundle` names one, relative to the scenario's folder.
    """

    name: Name
    duration_s: Annotated[int, Meta(ge=10, le=MAX_DURATION_S)] = 3600
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 1
    profile: Name | None = None
    notes: Text = ""
    limits: Limits = Limits()
    ambient: Ambient = Ambient()
    arrivals: Arrivals = Arrivals()
    network: Network | None = None
    trace: Trace | None = None
    board: BoardSection = BoardSection()
    hidden: Hidden = Hidden()
    variant: Annotated[tuple[VariantSection, ...], Meta(max_length=64)] = ()
    bundle: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None


def read(path: Path, *, trace: Path | None = None) -> Scenario:
    """The scenario in this file.

    Args:
        path: Of the file.
        trace: To be played in place of its own.

    Raises:
        ScenarioError: It cannot be read, or says what cannot be.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOML_BYTES + 1)
    except OSError as cause:
        raise ScenarioError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    scenario = decode_toml(raw, Scenario, where=str(path), error=ScenarioError)
    if trace is not None:
        scenario = structs.replace(scenario, trace=Trace(file=str(trace.absolute())))
    check(scenario, str(path))
    return scenario


def check(scenario: Scenario, where: str) -> None:
    """Raise if it cannot be played.

    Raises:
        ScenarioError: It says what cannot be.
    """

    def refuse(text: str, hint: str = "") -> None:
        raise ScenarioError(text, where=where, hint=hint)

    if bool(scenario.variant) == (scenario.bundle is not None):
        refuse("needs either [[variant]] entries or a bundle", "give one of the two")
    ids = [variant.id for variant in scenario.variant]
    doubled = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if doubled:
        refuse(f"two variants are called {doubled[0]!r}")
    local = [variant for variant in scenario.variant if not variant.remote]
    if scenario.variant and not local:
        refuse("all variants are remote", "one that runs on the board is needed")
    for variant in local:
        if variant.latency_ms is None:
            refuse(f"variant {variant.id!r} has no latency_ms")
    if any(v.remote for v in scenario.variant) and scenario.network is None and scenario.trace is None:
        refuse("a remote variant needs a [network] or a trace with rtt_ms and up_mbps")
    for text in _out_of_order(scenario):
        refuse(text)
    if scenario.limits.battery_until_s is not None and scenario.limits.battery_wh is None:
        refuse("limits.battery_until_s without limits.battery_wh")


def _out_of_order(scenario: Scenario) -> Iterator[str]:
    """Numbers whose order has a meaning, and which are in another."""
    steps, hot, net = scenario.board.steps, scenario.board.throttle_c, scenario.network
    if steps is not None and (list(steps) != sorted(steps, reverse=True) or steps[0] != 1):
        yield f"board.steps must start at 1 and fall, not {list(steps)}"
    if hot is not None and not hot[2] <= hot[0] <= hot[1]:
        yield f"board.throttle_c: the first must be from the third to the second, not {list(hot)}"
    if net is not None and net.rtt_ms[1] < net.rtt_ms[0]:
        yield f"network.rtt_ms: a 95th percentile is not below the median, as in {list(net.rtt_ms)}"
    if net is not None and net.up_mbps[1] < net.up_mbps[0]:
        yield f"network.up_mbps: a median is not below the 5th percentile, as in {list(net.up_mbps)}"
