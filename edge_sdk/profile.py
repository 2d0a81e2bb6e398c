"""Facts and limits of a class of boards, read from `device_profiles/*.toml`.

The files are data: found in a wheel and in a checkout alike, overridden by a site's own directory
(`EDGE_PROFILES`), and matched to the board by its device tree. Every fact says on what it rests.
"""

from __future__ import annotations

import enum
import os
import platform
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from msgspec import Meta

from edge_sdk.errors import ProfileError, UnknownProfileError
from edge_sdk.manifest import Delegate, Precision
from edge_sdk.wire import Celsius, Count, Name, Text, Watts, Wire, decode_toml

PROFILES_VARIABLE = "EDGE_PROFILES"
F = TypeVar("F")


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
    """Processor. `isa` is what to expect; what a board has is read from its `/proc/cpuinfo`."""

    cpu: Text
    cores: Count
    mhz: Count
    isa: Fact[tuple[Name, ...]]
    accelerator: Text = ""
    tops_int8: Fact[float] | None = None


class Memory(Wire, frozen=True, kw_only=True):
    """Main memory."""

    ram_mb: tuple[Count, ...]
    bandwidth_gbs: Fact[float] | None = None


class Thermal(Wire, frozen=True, kw_only=True):
    """Heat.

    Attributes:
        zones: Types of the thermal zones that count, as `/sys/class/thermal/*/type` spells them.
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

    price_usd: Fact[float] | None = None


class Variants(Wire, frozen=True, kw_only=True):
    """What is worth converting for this board.

    Attributes:
        precisions: Those its CPU runs well.
        accuracy_only: Those it runs, but slowly: kept for quality, never for speed.
        delegates: What can compute here; those beyond the CPU are not yet run on hardware.
    """

    precisions: tuple[Precision, ...]
    accuracy_only: tuple[Precision, ...] = ()
    delegates: tuple[Delegate, ...] = (Delegate.CPU,)


class LatencyModel(Wire, frozen=True, kw_only=True):
    """Constants of `ms = scale * (rates . work)`, per billion MACs and million activation elements and weights.

    The rates were fitted on a Cortex-A53 (int8) and are carried to other cores by one factor per number format;
    `band` is the factor within which a prediction is expected.
    """

    scale_int8: Annotated[float, Meta(gt=0, le=1000)]
    scale_float: Annotated[float, Meta(gt=0, le=1000)]
    band: Annotated[float, Meta(ge=1, le=100)]
    source: Text


class Profile(Wire, frozen=True, kw_only=True):
    """One class of boards.

    Attributes:
        compatible: Device-tree `compatible` strings, the most telling first.
        machine: What `platform.machine()` says, for boards without a device tree.
        hardware_tested: This project was run on the real board.
        notes: What a reader should know, in sentences.
    """

    id: Name
    name: Text
    compatible: tuple[Text, ...] = ()
    machine: tuple[Name, ...] = ()
    hardware_tested: bool = False
    compute: Compute
    memory: Memory
    thermal: Thermal
    power: Power = Power()
    purchase: Purchase = Purchase()
    variants: Variants
    latency: LatencyModel | None = None
    notes: tuple[Text, ...] = ()


def directories() -> tuple[Path, ...]:
    """Where profiles are looked for, the first found wins: the site's own, the wheel's, the checkout's."""
    here = Path(__file__).resolve().parent
    places = [here / "_profiles", here.parent / "device_profiles"]
    if site := os.environ.get(PROFILES_VARIABLE):
        places.insert(0, Path(site))
    return tuple(place for place in places if place.is_dir())


def ids() -> tuple[str, ...]:
    """The ids of all profiles, sorted."""
    return tuple(sorted({path.stem for place in directories() for path in place.glob("*.toml")}))


def load(id: str) -> Profile:  # noqa: A002 - `id` is the field's name everywhere
    """The profile of this id.

    Raises:
        UnknownProfileError: There is none.
        ProfileError: Its file is malformed.
    """
    if id in ids():
        for place in directories():
            path = place / f"{id}.toml"
            if path.is_file():
                return read(path)
    raise UnknownProfileError(f"no profile {id[:80]!r}", hint=f"there are {', '.join(ids())}")


def read(path: str | os.PathLike[str]) -> Profile:
    """The profile in this file.

    Raises:
        ProfileError: The file cannot be read, has unknown keys or values out of bounds, or another id than its name.
    """
    source = Path(path)
    try:
        raw = source.read_bytes()
    except OSError as cause:
        raise ProfileError(f"cannot be read: {cause.strerror}", where=str(source)) from cause
    profile = decode_toml(raw, Profile, where=str(source), error=ProfileError)
    if profile.id != source.stem:
        raise ProfileError(f"id is {profile.id!r} but the file is named {source.stem!r}", where=str(source))
    return profile


def load_all() -> tuple[Profile, ...]:
    """All profiles, by id."""
    return tuple(load(id_) for id_ in ids())


def board_name(root: str | os.PathLike[str] = "/") -> str | None:
    """What the device tree calls the board."""
    return next(iter(_device_tree(Path(root), "model")), None)


def match(root: str | os.PathLike[str] = "/", machine: str | None = None) -> Profile | None:
    """The profile of the machine below `root`.

    The board's `compatible` strings are tried in their own order (a device tree lists the most telling first);
    without a device tree, the processor's architecture decides.
    """
    profiles = load_all()
    for compatible in _device_tree(Path(root), "compatible"):
        for profile in profiles:
            if compatible in profile.compatible:
                return profile
    machine = machine or platform.machine()
    return next((profile for profile in profiles if machine in profile.machine), None)


def _device_tree(root: Path, name: str) -> tuple[str, ...]:
    for folder in ("proc/device-tree", "sys/firmware/devicetree/base"):
        try:
            raw = (root / folder / name).read_bytes()
        except OSError:
            continue
        return tuple(part for part in raw[:4096].decode("utf-8", "replace").split("\0") if part)
    return ()
