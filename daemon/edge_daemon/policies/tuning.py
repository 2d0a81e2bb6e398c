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
        slow_gain: Of an ordinary surprise, the share that is taken for the moment's and not the variant's.
        jump: Log of latency over expectation beyond which it is no ordinary surprise: three and a half spreads.
        bias_gain, bias_least: Of a variant's own factor: gain over observations, and what it never falls below.
        spread_start, spread_least, spread_most, spread_gain: Of the log of latencies around their median.
        tail_start, tail_gain: Share of inferences that take much longer, as spikes and not as contention.
        tail_size, tail_size_gain: Log of how much longer; `tail_spread` around that.
        suspect_seen, suspect_true: Prior of how often a slow inference is followed by another one.
        overload: Utilisation above which requests are lost.
        late_points: What a late answer costs beyond being worth nothing, in points: estimates are optimistic, and
            who set a limit cares (measured: more accuracy and fewer late).
        base_gain: Of the power that is drawn whatever runs, per second; `scale_gain` of how much a variant draws.
        margin_c: Kept below the limit: two spreads of the observer's error (measured).
        horizon_s: The power is capped so that the limit holds this long.
        over_points: Per watt above the cap and request: more than any variant is better, less than dropping it.
        context_s, contexts: How often a context is kept for the price, and how many.
            smooth: Share of the new price that is taken; all of it in the last `last_s`.
        reserve: Of the battery, kept at the start and used up as the square root of the time left.
        link_prior: Chance that a server's answer is in time, by fifths of the limit that the last one was predicted
            to take; the last is of one that could not be in time. `link_weight` observations' worth of it.
        link_gain: The least weight of a new observation; `link_jitter` the log spread of a round trip within a second.
        failed: What a chance is worth once a request of the same second was too late.
        dead_band: Points a voluntary change must gain.
        dwell_s: Between voluntary changes, and before a variant that was left urgently comes back; `toggle_s` between
            changes to and from a server.
        urgent_share, urgent_points: What runs gives less than this share of its quality, and another this much more.
        urgent_w: What is chosen for the heat must draw this much less.
        probe_s: Between probes; one a second in the first `probe_first_s`. `probe_room_c` below the limit only, of what
            is promised within `probe_reach` times the limit.
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
    base_gain: float = 0.05
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
    reserve: float = 0.01
    reserve_least: float = 0.004
    burst_s: float = 40.0
    link_prior: tuple[float, ...] = (0.98, 0.97, 0.95, 0.90, 0.60, 0.02)
    link_weight: float = 6.0
    link_gain: float = 0.01
    link_jitter: float = 0.16
    failed: float = 0.3
    dead_band: float = 0.15
    dwell_s: float = 2.0
    toggle_s: float = 1.0
    urgent_share: float = 0.9
    urgent_points: float = 2.0
    urgent_w: float = 0.1
    probe_s: float = 30.0
    probe_first_s: float = 12.0
    probe_room_c: float = 6.0
    probe_reach: float = 1.2
