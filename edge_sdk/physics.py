"""A board as figures to calculate with: how it heats, throttles and draws power; and what of that cannot be.

Heat flows from the die over a resistance to the board (with its heat sink), and from there over another to the air;
each of the two has a heat capacity. Power is that of the idle board and what is drawn above it, which falls with the
clock. The figures are a profile's `[board]`, or `STANDARD` where nothing is known; which are estimates is said.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_sdk._impossible import (
    ROOM_C,
    refuse_any,
    wrong_gauge,
    wrong_idle,
    wrong_ladder,
    wrong_limits,
    wrong_numbers,
    wrong_profile,
)
from edge_sdk.facts import Basis, Battery, Board, Fact, Profile, Throttle
from edge_sdk.manifest import Delegate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The clocks that firmware or kernel step through when it is hot; see `edge_sdk.facts.Throttle`.

    Raises:
        ImpossibleProfileError: It does not fall from 1, or a step has no band between down and up.
    """

    clocks: tuple[float, ...]
    down_c: tuple[float, ...]
    up_c: tuple[float, ...]
    lowest_c: float | None = None
    step_s: float = 1.0

    def __post_init__(self) -> None:
        refuse_any(wrong_numbers({"throttle.step_s": self.step_s}))
        refuse_any(wrong_ladder(self.clocks, self.down_c, self.up_c, self.lowest_c))

    def after(self, step: int, die_c: float) -> int:
        """The step that follows `step`, an index into `clocks`, after `step_s` with the die at this temperature."""
        last = len(self.clocks) - 1
        if self.lowest_c is not None and die_c > self.lowest_c:
            return last
        if step < last and die_c > self.down_c[step]:
            return step + 1
        return step - 1 if step > 0 and die_c < self.up_c[step - 1] else step


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A battery.

    Attributes:
        gauge: Volts and percent, both descending; none where no curve is known.

    Raises:
        ImpossibleProfileError: The curve does not fall.
    """

    capacity_wh: float
    gauge: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        refuse_any(wrong_numbers({"battery.capacity_wh": self.capacity_wh}))
        refuse_any(wrong_gauge(self.gauge))

    def percent(self, volts: float) -> float | None:
        """The charge at this voltage, 0..100; None without a curve. Under load it is lower than at rest."""
        if not self.gauge:
            return None
        rising = self.gauge[::-1]
        above = bisect([point for point, _ in rising], volts)
        if above in {0, len(rising)}:
            return rising[min(above, len(rising) - 1)][1]
        (low_v, low), (high_v, high) = rising[above - 1], rising[above]
        return low + (high - low) * (volts - low_v) / (high_v - low_v)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardModel:
    """One class of boards in plain numbers; the units are in the names.

    Attributes:
        r_c_per_w: From die to board, from board to air.
        c_j_per_c: Of die and board.
        cpu_w: Above idle, all cores inferring at the highest clock.
        accelerator_w: Above idle at full utilisation, by the delegate's name.
        max_temp_c: The profile's own limit of the die; a preference can only lower it.
        critical_c: Where the board shuts down; None where that is not known.
        estimated: The names of the fields that nobody measured or published, for whoever shows a figure made of them.

    Raises:
        ImpossibleProfileError: A figure is not finite or not positive, or the limit lies above the shutdown.
    """

    idle_w: float
    r_c_per_w: tuple[float, float]
    c_j_per_c: tuple[float, float]
    cpu_w: float
    accelerator_w: Mapping[str, float] = field(default_factory=dict, hash=False)
    clock_power: float = 2.2
    radio_w: float = 1.1
    switch_j: float = 0.6
    throttle: Ladder | None = None
    battery: Cell | None = None
    max_temp_c: float
    critical_c: float | None = None
    estimated: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        figures = {name: getattr(self, name) for name in _POSITIVE}
        figures |= {f"accelerator_w.{name}": watts for name, watts in self.accelerator_w.items()}
        refuse_any(wrong_numbers(figures, zero=frozenset({"radio_w", "switch_j"})))
        refuse_any(wrong_limits(self.max_temp_c, self.critical_c))

    @property
    def resistance_c_per_w(self) -> float:
        """From die to air."""
        return sum(self.r_c_per_w)

    def idle_c(self, ambient_c: float) -> float:
        """Where the die of the idle board settles."""
        return ambient_c + self.idle_w * self.resistance_c_per_w

    def sustained_w(self, ambient_c: float, limit_c: float | None = None) -> float:
        """What may be drawn above idle for ever with the die settling at the limit; 0 where idling is too much."""
        limit_c = self.max_temp_c if limit_c is None else limit_c
        return max(0.0, (limit_c - ambient_c) / self.resistance_c_per_w - self.idle_w)

    def busy_w(self, delegate: str = Delegate.CPU.value) -> float:
        """Drawn above idle at full utilisation; of an accelerator nothing is known of, as much as of the CPU."""
        return self.cpu_w if delegate == Delegate.CPU.value else self.accelerator_w.get(delegate, self.cpu_w)


_POSITIVE: Final = ("idle_w", "r_c_per_w", "c_j_per_c", "cpu_w", "clock_power", "radio_w", "switch_j")

# A board of which nothing is known is taken for a bare Raspberry Pi 4 that is kept 5 C cooler: it heats by 67 C at
# full load, so it errs towards smaller variants wherever there is a heat sink, and the thermometer then corrects the
# policy's belief of the air around it. Its figures have their sources in device_profiles/rpi4.toml.
STANDARD: Final = BoardModel(
    idle_w=2.7,
    r_c_per_w=(3.5, 7.0),
    c_j_per_c=(4.0, 35.0),
    cpu_w=3.7,
    max_temp_c=70.0,
    estimated=frozenset(
        {
            "idle_w", "r_c_per_w", "c_j_per_c", "cpu_w", "accelerator_w", "clock_power", "radio_w", "switch_j",
            "max_temp_c",
        }
    ),
)  # fmt: skip


def of(profile: Profile | None) -> BoardModel:
    """The figures of a class of boards; what its profile does not say is `STANDARD`'s.

    Raises:
        ImpossibleProfileError: The profile says what cannot be. The message begins with the key.
    """
    if profile is None:
        return STANDARD
    refuse_any(wrong_profile(profile))
    critical = profile.thermal.critical_c
    limits = replace(
        STANDARD,
        max_temp_c=profile.thermal.max_temp_c.value,
        critical_c=None if critical is None else critical.value,
        estimated=STANDARD.estimated - _known({"max_temp_c": profile.thermal.max_temp_c}),
    )
    if profile.board is None:
        return limits
    model = _with_board(limits, profile, profile.board)
    if profile.board.r_c_per_w is not None:
        refuse_any(wrong_idle(model.max_temp_c, model.idle_c(ROOM_C)))
    return model


def _with_board(limits: BoardModel, profile: Profile, board: Board) -> BoardModel:
    facts: dict[str, Fact[Any] | None] = {
        "idle_w": None if board.cpu_w is None else board.idle_w or profile.power.idle_w, "r_c_per_w": board.r_c_per_w,
        "c_j_per_c": board.c_j_per_c, "cpu_w": board.cpu_w,
        "clock_power": board.clock_power, "radio_w": board.radio_w, "switch_j": board.switch_j,
    }  # fmt: skip
    given = {name: fact for name, fact in facts.items() if fact is not None}
    guessed = limits.estimated - _known(given)
    if board.accelerator_w and all(fact.basis is not Basis.ESTIMATED for fact in board.accelerator_w.values()):
        guessed -= {"accelerator_w"}
    if board.throttle is not None and board.throttle.basis is Basis.ESTIMATED:
        guessed |= {"throttle"}
    if board.battery is not None and board.battery.capacity_wh.basis is Basis.ESTIMATED:
        guessed |= {"battery"}
    return replace(
        limits,
        **{name: fact.value for name, fact in given.items()},
        accelerator_w={name: fact.value for name, fact in board.accelerator_w.items()},
        throttle=_ladder(board.throttle),
        battery=_cell(board.battery),
        estimated=guessed,
    )


def _known(facts: Mapping[str, Fact[Any]]) -> frozenset[str]:
    return frozenset(name for name, fact in facts.items() if fact.basis is not Basis.ESTIMATED)


def _ladder(told: Throttle | None) -> Ladder | None:
    if told is None:
        return None
    return Ladder(clocks=told.clocks, down_c=told.down_c, up_c=told.up_c, lowest_c=told.lowest_c, step_s=told.step_s)


def _cell(told: Battery | None) -> Cell | None:
    if told is None:
        return None
    return Cell(capacity_wh=told.capacity_wh.value, gauge=told.gauge.value if told.gauge else ())
