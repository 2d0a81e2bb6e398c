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
from edge_sdk.wire import MAX_TOML_BYTES, Celsius, Count, Name, Text, Watts, Wire, decode_toml

PROFILES_VARIABLE = "EDGE_PROFILES"
F = TypeVar("F")
_MAX_BOARD_CHARS = 200  # a birth that tells the board must be one the hub takes

# Bounded, so that TOML's `nan` and `inf` are refused.
Quantity = Annotated[float, Meta(gt=0, le=1e6)]
Factor = Annotated[float, Meta(gt=0, le=1000)]
Band = Annotated[float, Meta(ge=1, le=100)]


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


class Profile(Wire, frozen=True, kw_only=True):
    """One class of boards.

    Attributes:
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
    compute: Compute
    memory: Memory
    thermal: Thermal
    power: Power = Power()
    storage: Fact[tuple[Text, ...]] | None = None
    communication: Fact[tuple[Text, ...]] | None = None
    purchase: Purchase = Purchase()
    variants: Variants
    latency: LatencyModel | None = None
    delegates: Annotated[dict[Name, SiteDelegate], Meta(max_length=32)] = {}
    notes: tuple[Text, ...] = ()


def directories() -> tuple[Path, ...]:
    """Where profiles are looked for, the first found wins: the site's own, then the wheel's or the checkout's.

    Raises:
        ProfileError: `EDGE_PROFILES` names no directory; ignoring a typo would silently use other limits.
    """
    here = Path(__file__).resolve().parent
    shipped = here / "_profiles"
    if not shipped.is_dir():
        shipped = here.parent / "device_profiles"
    named = os.environ.get(PROFILES_VARIABLE)
    if not named:
        return (shipped,)
    site = Path(named)
    if not site.is_dir():
        raise ProfileError("no such directory", where=named, hint=f"set or unset {PROFILES_VARIABLE}")
    return site, shipped


def ids() -> tuple[str, ...]:
    """The ids of all profiles, sorted."""
    return tuple(sorted({path.stem for path in _files()}))


def _files() -> tuple[Path, ...]:
    """All profile files, those that win first; an id is only ever compared with their names, never made a path."""
    found = (path for place in directories() for path in sorted(place.glob("*.toml")))
    return tuple(path for path in found if not path.name.startswith("."))  # editors leave such things


def load(id: str) -> Profile:  # noqa: A002 - `id` is the field's name everywhere
    """The profile of this id.

    Raises:
        UnknownProfileError: There is none.
        ProfileError: Its file is malformed.
    """
    for path in _files():
        if path.stem == id:
            return read(path)
    raise UnknownProfileError(f"no profile {id[:80]!r}", hint=f"there are {', '.join(ids())}")


def read(path: str | os.PathLike[str]) -> Profile:
    """The profile in this file.

    Raises:
        ProfileError: The file cannot be read, has unknown keys or values out of bounds, or another id than its name.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            raw = file.read(MAX_TOML_BYTES + 1)
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
    found = next(iter(_device_tree(Path(root), "model")), None)
    return found and found[:_MAX_BOARD_CHARS]


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
