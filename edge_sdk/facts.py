"""What a device profile's file may say: facts of a class of boards, and on what each rests.

The schema and its bounds only. `edge_sdk.profile` finds the files, lets a site override them and matches a board;
`edge_sdk.physics` turns `[board]` into figures to calculate with and refuses what cannot be.
"""

from __future__ import annotations

import enum
from typing import Annotated, Generic, TypeVar

from msgspec import Meta

from edge_sdk.manifest import Delegate, Precision
from edge_sdk.wire import Celsius, Count, Name, Percent, Text, Watts, Wire

F = TypeVar("F")

# Bounded, so that TOML's `nan` and `inf` are refused.
Quantity = Annotated[float, Meta(gt=0, le=1e6)]
Factor = Annotated[float, Meta(gt=0, le=1000)]
Band = Annotated[float, Meta(ge=1, le=100)]
# Below these heat passes in a hundredth of a second: no board is such, and who computes it takes steps without end.
Resistance = Annotated[float, Meta(ge=0.05, le=1000)]  # C per W
Capacity = Annotated[float, Meta(ge=0.1, le=1e6)]  # J per C
Drawn = Annotated[float, Meta(gt=0, le=10_000)]  # W
Joules = Annotated[float, Meta(ge=0, le=1e6)]
Exponent = Annotated[float, Meta(ge=1, le=4)]
Clock = Annotated[float, Meta(gt=0, le=1)]
Volts = Annotated[float, Meta(gt=0, le=1000)]
Steps = Annotated[tuple[Celsius, ...], Meta(min_length=1, max_length=31)]


class Basis(enum.Enum):
    """What a fact rests on."""

    MEASURED = "measured"
    PUBLISHED = "published"
    ESTIMATED = "estimated"


class Fact(Wire, Generic[F], frozen=True, kw_only=True):
    """A value, what it rests on, and where it comes from."""

    value: F
    basis: Basis
    source: Text = ""


class Compute(Wire, frozen=True, kw_only=True):
    """Processor. `isa` is what to expect, in the words of `/proc/cpuinfo`, which says what a board really has.

    Attributes:
        mhz: The highest clock of the fastest cores.
        basis: What `cpu`, `cores`, `mhz` and `accelerator` rest on, and `source` where they come from.
    """

    cpu: Text
    cores: Annotated[int, Meta(ge=1, le=1024)]
    mhz: Count
    accelerator: Text = ""
    basis: Basis = Basis.ESTIMATED
    source: Text = ""
    isa: Fact[tuple[Name, ...]]
    tops_int8: Fact[Quantity] | None = None


class Memory(Wire, frozen=True, kw_only=True):
    """Main memory.

    Attributes:
        ram_mb: The sizes the board is sold with; `basis` and `source` are theirs.
    """

    ram_mb: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=16)]
    basis: Basis = Basis.ESTIMATED
    source: Text = ""
    bandwidth_gbs: Fact[Quantity] | None = None


class Thermal(Wire, frozen=True, kw_only=True):
    """Heat.

    Attributes:
        zones: Types of the thermal zones that count, as `/sys/class/thermal/*/type` spells them; none means all.
        max_temp_c: What the policy keeps the board below.
        throttle_c: Where firmware or kernel begin to throttle.
        critical_c: Where the board shuts down.
    """

    zones: tuple[Text, ...] = ()
    max_temp_c: Fact[Celsius]
    throttle_c: Fact[tuple[Celsius, ...]] | None = None
    critical_c: Fact[Celsius] | None = None


class Power(Wire, frozen=True, kw_only=True):
    """Electric power of the whole board."""

    idle_w: Fact[Watts] | None = None
    active_w: Fact[Watts] | None = None


class Purchase(Wire, frozen=True, kw_only=True):
    """What it costs; prices move, so each has its date in `source`."""

    price_usd: Fact[Quantity] | None = None


class Variants(Wire, frozen=True, kw_only=True):
    """What is worth converting for this board.

    Attributes:
        recipe: The converter's recipe for it.
        precisions: Those worth trying on its CPU.
        accuracy_only: Those it runs, but slowly: kept for quality, never for speed.
        delegates: What can compute here; those beyond the CPU are not yet run on hardware.
    """

    recipe: Name = "default"
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1)]
    accuracy_only: tuple[Precision, ...] = ()
    delegates: tuple[Delegate, ...] = (Delegate.CPU,)


class Scale(Wire, frozen=True, kw_only=True):
    """How long this CPU takes for what the reference core does in one millisecond.

    Attributes:
        factor: Below 1 is faster than the reference core.
        band: The truth is expected within `prediction / band .. prediction * band`.
    """

    factor: Factor
    band: Band
    basis: Basis
    source: Text


class LatencyModel(Wire, frozen=True, kw_only=True):
    """Carries the rates of `edge_sdk.predict`, fitted on one core, to this CPU: one factor per number format.

    Attributes:
        threads: What the factors are for.
    """

    threads: Annotated[int, Meta(ge=1, le=1024)]
    int8: Scale
    fp32: Scale


class SiteDelegate(Wire, frozen=True, kw_only=True):
    """An external delegate as it is installed on these boards.

    Attributes:
        library: The file of one that is not found where the loader looks, or of a delegate that only this site has.
        options: For the library, where an app gives none.
    """

    library: Annotated[str, Meta(max_length=4096)] = ""
    options: Annotated[dict[Name, Text], Meta(max_length=64)] = {}


class Throttle(Wire, frozen=True, kw_only=True):
    """How firmware or kernel slow the processor down when it is hot: one step at a time, each with a band of its own.

    Attributes:
        clocks: Shares of the highest clock, descending from 1.
        down_c: Above the first, from the first clock to the second, and so on: one fewer than clocks.
        up_c: Below the first, back from the second clock to the first, and so on.
        lowest_c: Above it the lowest clock at once.
        step_s: Between two steps.
        basis: What all of it rests on, and `source` where it comes from.
    """

    clocks: Annotated[tuple[Clock, ...], Meta(min_length=2, max_length=32)]
    down_c: Steps
    up_c: Steps
    lowest_c: Celsius | None = None
    step_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    basis: Basis
    source: Text = ""


class Battery(Wire, frozen=True, kw_only=True):
    """What the board lives on, where it usually has one or the site gave it one.

    Attributes:
        capacity_wh: From full to empty.
        gauge: Voltages and the charge in percent at each, both descending; between them is a straight line.
    """

    capacity_wh: Fact[Quantity]
    gauge: Fact[Annotated[tuple[tuple[Volts, Percent], ...], Meta(min_length=2, max_length=64)]] | None = None


class Board(Wire, frozen=True, kw_only=True):
    """The board as physics: two thermal nodes in a row (die, then board with its heat sink), and what draws power.

    Resistances, capacities, idle power and the CPU's belong together: all are given, or none.

    Attributes:
        idle_w: With nothing to do and nothing attached; else `power.idle_w`.
        r_c_per_w: Thermal resistance from die to board, and from board to the air around it.
        c_j_per_c: Heat capacity of die and board.
        cpu_w: Drawn above idle with all cores inferring at the highest clock.
        accelerator_w: Drawn above idle by each accelerator at full utilisation, by the delegate's name.
        clock_power: Of the drawn power over the clock: voltage falls with it.
        radio_w: Drawn above idle while sending.
        switch_j: Taken by loading another variant.
    """

    idle_w: Fact[Drawn] | None = None
    r_c_per_w: Fact[tuple[Resistance, Resistance]] | None = None
    c_j_per_c: Fact[tuple[Capacity, Capacity]] | None = None
    cpu_w: Fact[Drawn] | None = None
    accelerator_w: Annotated[dict[Name, Fact[Drawn]], Meta(max_length=16)] = {}
    clock_power: Fact[Exponent] | None = None
    radio_w: Fact[Watts] | None = None
    switch_j: Fact[Joules] | None = None
    throttle: Throttle | None = None
    battery: Battery | None = None


class Profile(Wire, frozen=True, kw_only=True):
    """One class of boards.

    Attributes:
        extends: The profile this one was made from; what its file does not say is that one's.
        board: None where nothing of it is known; `edge_sdk.physics.STANDARD` is then assumed.
        compatible: Device-tree `compatible` strings that mean this board; no two profiles share one.
        machine: What `platform.machine()` says, for boards without a device tree.
        hardware_tested: This project was run on the real board.
        storage: What the operating system and the bundles lie on.
        communication: How it reaches its network and what is plugged into it.
        delegates: How accelerators are reached here, by the name apps ask for; a new name is a new external delegate.
        notes: What a reader should know, in sentences.
    """

    id: Name
    name: Text
    compatible: tuple[Text, ...] = ()
    machine: tuple[Name, ...] = ()
    hardware_tested: bool = False
    extends: Name | None = None
    compute: Compute
    memory: Memory
    thermal: Thermal
    power: Power = Power()
    board: Board | None = None
    storage: Fact[tuple[Text, ...]] | None = None
    communication: Fact[tuple[Text, ...]] | None = None
    purchase: Purchase = Purchase()
    variants: Variants
    latency: LatencyModel | None = None
    delegates: Annotated[dict[Name, SiteDelegate], Meta(max_length=32)] = {}
    notes: tuple[Text, ...] = ()
