"""What a board can do for ever: frames a second that keep it below its temperature limit, and energy for a day.

From the physics of its profile (`edge_sdk.physics`), for a die that has settled; nearly all of that is estimated, and
so is what comes of it. A board whose heat nobody knows has none of these figures: the standard board would be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk import physics
from edge_sdk.profile import Profile

_HEAT = frozenset({"idle_w", "r_c_per_w", "cpu_w"})
_HOURS = 24
_LEAST_MS = 1e-4  # latencies are rounded to that, those of toy networks to 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endurance:
    """One variant on one board at one temperature of the air.

    Attributes:
        frames_per_s: That the board sustains, with the die settling at most at its limit; all that it computes where
            heat is no limit, 0 where even the idle board is too hot.
        share: Of the time that it then computes; 1 where heat is no limit.
        rate: That the day's energy is for: the one wanted, else `frames_per_s`.
        wh_per_day: Of the whole board, at `rate` or at what it can compute of it.
        estimated: One of the figures it is made of is estimated.
    """

    frames_per_s: float
    share: float
    rate: float
    wh_per_day: float
    estimated: bool


def of(
    profile: Profile, *, ms: float, delegate: str, ambient_c: float, wanted_rate: float | None = None
) -> Endurance | None:
    """The endurance of a variant that takes `ms` on this delegate; None where the board's heat is not known."""
    if profile.board is None or profile.board.r_c_per_w is None:
        return None
    ms = max(ms, _LEAST_MS)
    model = physics.of(profile)
    busy_w = model.busy_w(delegate)
    share = min(1.0, model.sustained_w(ambient_c) / busy_w)
    sustained = share * 1000 / ms
    rate = sustained if wanted_rate is None else wanted_rate
    computing = min(1.0, rate * ms / 1000)
    return Endurance(
        frames_per_s=sustained,
        share=share,
        rate=rate,
        wh_per_day=_HOURS * (model.idle_w + computing * busy_w),
        estimated=bool(_HEAT & model.estimated),
    )
