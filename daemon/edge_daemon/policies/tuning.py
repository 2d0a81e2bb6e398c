"""The numbers of the policy `optimal`, each with its unit and where it comes from.

*measured*: chosen on seeds 1 to 8 of the scenarios in `benchmarks/scenarios`; `docs/explanation/optimal.md` shows what
changing each of them costs. The benchmark judges on other seeds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """All of them.

    Attributes:
        slow_start: Log of the slowdown expected before anything was seen: promises are a tenth too good (measured).
        slow_gain: Of an ordinary surprise, the share that is taken for the moment's.
        jump: Log of latency over expectation beyond which it is no ordinary surprise: three and a half spreads.
        jump_scatters: Or so many mean absolute surprises, where latencies scatter more.
        bias_gain: Of a variant's own factor, over observations; never less than `bias_least`.
        bias_least: See `bias_gain`.
        first_share: Of a variant's first surprises, what is its own; the rest is nobody's, since others are known.
        very_first_share: The same where nothing is known of any variant; the rest is the board's.
        spread_start: Of the log of latencies around their median.
        spread_least: What the spread never falls below.
        spread_most: What one surprise counts at most.
        spread_gain: Of a new observation of the spread.
        scatter_start: Mean absolute surprise, spikes and all.
        scatter_gain: Of a new one.
        tail_start: Share of inferences that take much longer, as spikes and not as contention.
        tail_gain: Of a new one.
        tail_size: Log of how much longer they take.
        tail_size_gain: Of a new one.
        tail_spread: Of that log.
        suspect_seen: Prior of how many slow inferences were suspected of contention.
        suspect_true: And of how many of them rightly.
        onset_start: How often contention begins, per inference.
        onset_gain: Of a new one.
        onset_least: What that never falls below.
        streak_most: So many slow ones in a row are contention in any case.
        held: Of a dwell, what a false alarm is taken to cost.
        overload: Utilisation above which requests are lost.
        late_points: What a late answer costs beyond being worth nothing, in points: estimates are optimistic, and
            who set a limit cares (measured: fewer late at little cost).
        base_var: Variance of the power that is drawn whatever runs before it was measured, in square watts.
        base_walk: What that grows by in a second (measured).
        meter_var: Variance of a second's measured power around what is expected (measured).
        factor_var: Variance of a variant's own share of what it draws over what is promised.
        factor_walk: What that grows by in a second.
        scale_gain: Of how much all variants draw over what is promised.
        mean_gain: Of the long mean of the former; more in the first `mean_after_s`.
        mean_after_s: See `mean_gain`.
        margin_c: Kept below the limit: two spreads of the observer's error (measured).
        horizon_s: The power is capped so that the limit holds this long.
        far_s: The least that can run has to be borne this long together with the worst that was seen of late.
        far_room_w: Within so many watts of that the cap falls to the least that can run, by `far_steep` watts a watt.
        far_steep: See `far_room_w`.
        worst_gain: By which share the worst is forgotten, per second.
        over_points: Per watt above the cap and request: more than any variant is better, less than dropping it.
        context_s: How often a context is kept for the price, and the price found anew.
        contexts: How many are kept.
        spell_s: How long requests and contention stay as they are: contexts closer than that tell the same.
        last_saving: Of what can be saved, the share that is not asked for while there is time.
        last_s: How long before the end that ends.
        smooth: Share of a new price that is taken; more where few were found, or little time is left.
        hurry: Of the time left in contexts, the share that is taken at least.
        reserve: Of the battery, kept at the start and used up as the square root of the time left.
        reserve_least: And kept to the end: what the last burst may draw.
        last_reserve: Where the least that can run leaves less than this share of the battery, only that runs.
        burst_s: How long what is drawn now is drawn.
        link_prior: Chance that a server's answer is in time, by fifths of the limit that the last one was predicted
            to take; the last is of one that could not be in time.
        link_weight: Observations' worth of it.
        link_gain: The least weight of a new observation.
        link_jitter: The log spread of a round trip within a second.
        failed: What a chance is worth once hedges of the same second had to compute,
        failing: the share of its requests that have to, to count in full: one over this.
        dead_band: Points a voluntary change must gain.
        dwell_s: Between voluntary changes, and before a variant that was left comes back.
        toggle_s: Between changes to and from a server.
        toggled_s: How long a server, or what runs instead, is taken to stay once chosen.
        stays_s: The same of a variant.
        urgent_share: What runs is left at once if it gives less than this share of its quality,
        urgent_points: and another so much more.
        urgent_w: What is chosen for the heat must draw this much less.
        probe_s: Between probes.
        probe_first_s: So long one a second.
        probe_room_c: Below the limit of heat, or nothing is tried.
        probe_reach: Only what is expected within so many times the limit is tried.
    """

    slow_start: float = 0.0953
    slow_gain: float = 0.15
    jump: float = 0.25
    bias_gain: float = 0.3
    bias_least: float = 0.005
    spread_start: float = 0.10
    spread_least: float = 0.04
    spread_most: float = 1.0
    spread_gain: float = 0.02
    tail_start: float = 0.02
    tail_gain: float = 0.004
    tail_size: float = 0.7
    tail_size_gain: float = 0.1
    tail_spread: float = 0.25
    suspect_seen: float = 2.0
    suspect_true: float = 0.5
    overload: float = 0.97
    held: float = 0.5
    jump_scatters: float = 3.5
    first_share: float = 0.7
    very_first_share: float = 0.2
    scatter_start: float = 0.06
    scatter_gain: float = 0.01
    onset_start: float = 0.003
    onset_gain: float = 0.002
    onset_least: float = 0.00002
    streak_most: int = 6
    late_points: float = 25.0
    base_var: float = 0.04
    base_walk: float = 0.0003
    meter_var: float = 0.03
    factor_var: float = 0.03
    factor_walk: float = 1e-6
    scale_gain: float = 0.01
    mean_gain: float = 0.002
    mean_after_s: float = 60.0
    margin_c: float = 0.7
    horizon_s: float = 20.0
    far_s: float = 60.0
    far_room_w: float = 0.5
    far_steep: float = 2.0
    worst_gain: float = 0.002
    over_points: float = 60.0
    context_s: float = 10.0
    contexts: int = 64
    spell_s: float = 75.0
    last_saving: float = 0.4
    last_s: float = 600.0
    smooth: float = 0.08
    hurry: float = 6.0
    reserve: float = 0.02
    reserve_least: float = 0.009
    last_reserve: float = 0.006
    burst_s: float = 40.0
    link_prior: tuple[float, ...] = (0.98, 0.97, 0.95, 0.90, 0.60, 0.02)
    link_weight: float = 6.0
    link_gain: float = 0.01
    link_jitter: float = 0.16
    failed: float = 0.3
    failing: float = 3.0
    dead_band: float = 0.15
    dwell_s: float = 2.0
    toggle_s: float = 1.0
    toggled_s: float = 3.0
    stays_s: float = 10.0
    urgent_share: float = 0.9
    urgent_points: float = 2.0
    urgent_w: float = 0.1
    probe_s: float = 30.0
    probe_first_s: float = 12.0
    probe_room_c: float = 6.0
    probe_reach: float = 1.2
