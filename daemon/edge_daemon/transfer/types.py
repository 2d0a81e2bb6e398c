"""What a transfer plan is made from, and what it says: all values."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from edge_daemon.transfer.throughput import Throughput


class Kind(enum.Enum):
    """How a file is written down for the way."""

    FULL = "full"
    ZSTD = "zstd"
    TENSOR_DELTA = "tensor-delta"
    PATCH = "patch"  # zstd with the old file as a dictionary
    BSDIFF = "bsdiff"
    CHUNKS = "chunks"  # what the device does not have of fixed pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One way to send a file.

    Attributes:
        id: For explanations and for whoever fetches it.
        size_bytes: What travels.
        base: SHA-256 of the file that must be here to apply it; None needs none.
        apply_s: Processor time to make the file of it, on this device.
        apply_mb: Memory that takes.
    """

    id: str
    kind: Kind
    size_bytes: int
    base: str | None = None
    apply_s: float = 0.0
    apply_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A variant's file, and the ways to get it."""

    variant: str
    size_bytes: int
    encodings: tuple[Encoding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to come here.

    Attributes:
        wanted: The file.
        first: A smaller variant of the same model, to be active until the wanted one is here; None without.
        serves: The model runs here already, in some version that may stay until then.
        deadline_s: From now; None is no hurry.
        waited_s: Since it was ordered.
    """

    wanted: File
    first: File | None = None
    serves: bool = True
    deadline_s: float | None = None
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The way here.

    Attributes:
        up: There is a connection now.
        now: What it carries at present.
        usual: What it carries on the whole; None where that is not known yet.
        rtt_ms: Round trip.
        between_drops_s: Mean time between two losses of the connection.
        metered: Bytes are paid for, at `price_s_per_mb`.
        price_s_per_mb: Seconds of waiting that are worth one megabyte (10**6 bytes) less; 0 is for nothing.
    """

    up: bool = True
    now: Throughput = Throughput()  # noqa: RUF009 - a frozen value
    usual: Throughput | None = None
    rtt_ms: float = 50.0
    between_drops_s: float = math.inf
    metered: bool = False
    price_s_per_mb: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """This board now.

    Attributes:
        id: Its identity: devices of a fleet wait different times.
        has: SHA-256 of the files that are here.
        free_bytes: Of the disk.
        free_mb: Of memory.
        charging: Mains is there, or nothing tells.
        battery_pct: None where nothing tells.
        spare_j: Energy that may go before the battery's target is in danger; None without a target.
        price_s_per_j: Seconds of waiting that are worth one joule; the policy's price of a joule. 0 on mains.
        headroom_c: Degrees up to the limit; None where nothing tells.
        radio_w: Above idle, while it receives.
        cpu_w: Above idle, while it applies.
    """

    id: str
    has: frozenset[str] = frozenset()
    free_bytes: float = math.inf
    free_mb: float = math.inf
    charging: bool = True
    battery_pct: float | None = None
    spare_j: float | None = None
    price_s_per_j: float = 0.0
    headroom_c: float | None = None
    radio_w: float = 1.1  # facts of the simulator, an estimate
    cpu_w: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the owner of the fleet allows.

    Attributes:
        windows: When transfers may run, as (begin, end) in seconds from now, in order; none named is always.
        unmetered_within_s: So long after the order another link than a metered one may be waited for. It is waited for
            as long as the bytes are worth, and no longer than this.
    """

    windows: tuple[tuple[float, float], ...] = ()
    unmetered_within_s: float = 0.0


class Bound(enum.Enum):
    """What decided."""

    COST = "cost"
    ONLY = "only"
    METERED = "metered"
    DEADLINE = "deadline"
    DOWN = "down"
    DISK = "disk"
    MEMORY = "memory"
    BASE = "base"
    HOT = "hot"
    BATTERY = "battery"
    WINDOW = "window"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """An encoding and what it is expected to cost.

    Attributes:
        time_s: Until the file is here and applied; `late_s` is kept by 19 of 20.
        joules: Of receiving and applying.
        cost_s: Everything, in seconds of waiting.
        chunk_bytes: Pieces to ask for and check one by one; a lost connection costs half of one.
    """

    variant: str
    encoding: Encoding
    time_s: float
    late_s: float
    joules: float
    cost_s: float
    chunk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The reason of a plan.

    Attributes:
        bound: What decided.
        text: One sentence for people.
        runner_up: The best of the other encodings that could have been taken, and `margin_s`: what it costs more.
            Where something else than the cost decided, the margin may be negative.
    """

    bound: Bound
    text: str
    runner_up: str | None = None
    margin_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now.

    Attributes:
        steps: What to fetch, in this order; empty where nothing is fetched now.
        again_s: When to look again at the latest, from now; sooner when link, charger or order change. None when the
            steps bring what was ordered.
    """

    steps: tuple[Priced, ...]
    why: Why
    again_s: float | None = None
