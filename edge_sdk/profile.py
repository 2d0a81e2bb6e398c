"""The profiles of classes of boards: found, overridden by a site, and matched to the board at hand.

The files are data: found in a wheel and in a checkout alike, overridden by a site's own directory (`EDGE_PROFILES`)
whole or, with `extends`, in part, and matched to the board by its device tree. What they may say is in
`edge_sdk.facts`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_sdk import physics
from edge_sdk.errors import ImpossibleProfileError, ProfileError, UnknownProfileError
from edge_sdk.facts import (
    Basis,
    Battery,
    Board,
    Compute,
    Fact,
    LatencyModel,
    Memory,
    Power,
    Profile,
    Purchase,
    Scale,
    SiteDelegate,
    Thermal,
    Throttle,
    Variants,
)
from edge_sdk.wire import MAX_TOML_BYTES, read_toml, shaped

__all__ = [
    "PROFILES_VARIABLE",
    "Basis",
    "Battery",
    "Board",
    "Compute",
    "Fact",
    "LatencyModel",
    "Memory",
    "Power",
    "Profile",
    "Purchase",
    "Recognised",
    "Scale",
    "SiteDelegate",
    "Thermal",
    "Throttle",
    "Variants",
    "board_name",
    "directories",
    "ids",
    "load",
    "load_all",
    "match",
    "path_of",
    "read",
    "recognise",
]

PROFILES_VARIABLE = "EDGE_PROFILES"
_LONGEST_CHAIN: Final = 8  # of profiles that extend one another
_MOST_LEFT_OUT: Final = 8  # each is an event for the hub
_MAX_BOARD_CHARS = 200  # a birth that tells the board must be one the hub takes
# What names a profile and the boards it means: one made from it for another purpose takes none of it over.
_OWN: Final = ("compatible", "machine", "hardware_tested")
_RESTS_ON: Final = ("basis", "source")
_HINT: Final = "mend the key named first; docs/reference/profiles.md says what is possible"


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


def path_of(id: str) -> Path:  # noqa: A002 - as for `load`
    """The file that counts for this id.

    Raises:
        UnknownProfileError: There is none.
    """
    for path in _files():
        if path.stem == id:
            return path
    raise UnknownProfileError(f"no profile {id[:80]!r}", hint=f"there are {', '.join(ids())}")


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
    return read(path_of(id))


def read(path: str | os.PathLike[str]) -> Profile:
    """The profile in this file; what it does not say is that of the profile it extends, if it does.

    Raises:
        ProfileError: The file cannot be read, has unknown keys or values out of bounds, or another id than its name;
            what it extends is not there, or is made from it.
        ImpossibleProfileError: It says what cannot be.
    """
    source = Path(path)
    profile = shaped(_plain(source, ()), Profile, where=str(source), error=ProfileError)
    if profile.id != source.stem:
        raise ProfileError(
            f"id is {profile.id!r} but the file is named {source.stem!r}",
            where=str(source),
            hint=f"write id = {source.stem!r} into it, or name it {profile.id}.toml",
        )
    try:
        physics.of(profile)
    except ImpossibleProfileError as impossible:
        raise ImpossibleProfileError(impossible.what, where=str(source), hint=_HINT) from impossible
    return profile


def _plain(source: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """What this file says, over what the one says that it extends."""
    try:
        with open(source, "rb", opener=_without_waiting) as file:
            raw = file.read(MAX_TOML_BYTES + 1)
    except OSError as cause:
        raise ProfileError(f"cannot be read: {cause.strerror}", where=str(source)) from cause
    said = read_toml(raw, where=str(source), error=ProfileError)
    base = said.get("extends")
    if not isinstance(base, str):
        return said
    seen = (*seen, source.absolute())
    if len(seen) > _LONGEST_CHAIN:
        raise ProfileError(f"more than {_LONGEST_CHAIN} profiles extend one another", where=str(source))
    below = [path for path in _files() if path.stem == base]
    left = next((path for path in below if path.absolute() not in seen), None)
    if left is None:
        what = f"extends {base[:80]!r}, which extends it" if below else f"extends {base[:80]!r}, which is not there"
        raise ProfileError(what, where=str(source), hint=f"there are {', '.join(ids())}")
    under = _plain(left, seen)
    if said.get("id", base) != base:
        under = {key: value for key, value in under.items() if key not in _OWN}
    return _over(under, said)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that lies among the files holds up nobody: it is empty."""
    return os.open(path, flags | os.O_NONBLOCK)


def _over(under: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """`said` where it says something, so that no number is told to rest on what it does not rest on.

    A fact is replaced whole. A table that carries its own `basis` (as `[compute]` does) loses it, with the `source`,
    as soon as one of its plain values is changed.
    """
    if "value" in said:
        return said
    changed = any(not isinstance(value, dict) for value in said.values())
    kept = {key: value for key, value in under.items() if not (changed and "basis" in under and key in _RESTS_ON)}
    for key, value in said.items():
        was = kept.get(key)
        kept[key] = _over(was, value) if isinstance(was, dict) and isinstance(value, dict) else value
    return kept


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

    Raises:
        ProfileError: A file is malformed, whichever.
    """
    return _matching([load(id_) for id_ in _stems()], Path(root), machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """What a daemon, which has to run, knows of its board.

    Attributes:
        profile: None where none fits, or where all files of the one that was named are malformed.
        left_out: Why files were not taken, a line each.
    """

    profile: Profile | None
    left_out: tuple[str, ...] = ()


def recognise(
    root: str | os.PathLike[str] = "/", named: str | None = None, *, machine: str | None = None
) -> Recognised:
    """As `load` or `match`, but a malformed file is left out and told: the next one of that id counts, if there is one.

    Args:
        root: Of the board's files.
        named: The id that the configuration names; without one the board is matched.
        machine: What `platform.machine()` says, where it is another one's root.

    Raises:
        UnknownProfileError: No file has the id that is named.
        ProfileError: `EDGE_PROFILES` names no directory.
    """
    found: dict[str, Profile] = {}
    left_out: list[str] = []
    for path in _files():
        if path.stem in found or named not in {None, path.stem}:
            continue
        try:
            found[path.stem] = read(path)
        except ProfileError as error:
            left_out.append(str(error))
    if named is None:
        profile = _matching(list(found.values()), Path(root), machine)
    else:
        profile = found.get(named) if found or left_out else load(named)
    if len(left_out) > _MOST_LEFT_OUT:
        left_out[_MOST_LEFT_OUT:] = [f"and {len(left_out) - _MOST_LEFT_OUT} more"]
    return Recognised(profile=profile, left_out=tuple(left_out))


def _matching(profiles: Sequence[Profile], root: Path, machine: str | None = None) -> Profile | None:
    """The first that answers to a word of the board's."""
    for compatible in _device_tree(root, "compatible"):
        for profile in profiles:
            if compatible in profile.compatible:
                return profile
    machine = machine or platform.machine()
    return next((profile for profile in profiles if machine in profile.machine), None)


def _stems() -> tuple[str, ...]:
    """All ids, a site's own first: no two shipped ones answer to the same word, but a site's may take one over."""
    return tuple(dict.fromkeys(path.stem for path in _files()))


def _device_tree(root: Path, name: str) -> tuple[str, ...]:
    for folder in ("proc/device-tree", "sys/firmware/devicetree/base"):
        try:
            raw = (root / folder / name).read_bytes()
        except OSError:
            continue
        return tuple(part for part in raw[:4096].decode("utf-8", "replace").split("\0") if part)
    return ()
