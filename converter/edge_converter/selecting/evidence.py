"""Latencies that were measured elsewhere (`edge convert --evidence`), and which of all there are decides on a board.

A device writes what it measured into its bundle's `evidence.json` (`edge bench --write`). Given to a later conversion,
an entry is believed of a variant of the same id if it ran the very same file, or a file of the same number format with
the same multiply-accumulates: then only the weights differ, which XNNPACK's dense kernels do not look at. Whatever
says neither, or says otherwise, was measured on another model and is left out with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from edge_converter.errors import EvidenceError
from edge_sdk.bundle import EVIDENCE, MAX_EVIDENCE_BYTES
from edge_sdk.manifest import EvidenceFile, Latency, Origin, Variant
from edge_sdk.profile import Profile
from edge_sdk.wire import decode

_HINT = "give the evidence.json of a bundle, or the bundle, after 'edge bench BUNDLE --write' on a device"


def read(paths: Iterable[Path]) -> tuple[Latency, ...]:
    """All that these files say was measured or published; their predictions are made anew, so they are left.

    Args:
        paths: `evidence.json` files, or bundles that hold one.

    Raises:
        EvidenceError: A file cannot be read, is too large, or is none.
    """
    found: list[Latency] = []
    for given in paths:
        path = given / EVIDENCE if given.is_dir() else given
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_EVIDENCE_BYTES + 1)
        except OSError as cause:
            raise EvidenceError(f"cannot be read: {cause.strerror}", where=str(path), hint=_HINT) from cause
        content = decode(raw, EvidenceFile, where=str(path), max_bytes=MAX_EVIDENCE_BYTES, error=EvidenceError)
        found += [entry for entry in content.latency if entry.origin is not Origin.PREDICTED]
    return tuple(found)


def believed(entries: Sequence[Latency], variants: Sequence[Variant]) -> tuple[tuple[Latency, ...], tuple[str, ...]]:
    """The entries that are of these variants, marked with their files; and, in sentences, what was left out.

    What a variant took on another delegate than its own is not its latency, and decides nothing.
    """
    by_id = {variant.id: variant for variant in variants}
    kept: list[Latency] = []
    left: Counter[str] = Counter()
    for entry in entries:
        variant = by_id.get(entry.variant)
        if variant is None:
            left[f"of {entry.variant}, which this bundle does not hold"] += 1
        elif not entry.is_of(variant):
            left[f"of {entry.variant} on {entry.delegate}, which it is not for"] += 1
        elif not _of(entry, variant):
            left[f"of {entry.variant}: it was measured on another file, or does not say on which"] += 1
        else:
            kept.append(_stamped(entry, variant))
    notes = tuple(f"evidence left out: {_entries(number)} {what}" for what, number in sorted(left.items()))
    return tuple(kept), notes


def stamped(entries: Iterable[Latency], variants: Sequence[Variant]) -> tuple[Latency, ...]:
    """What was measured of these variants just now, marked with their files; entries of others stay as they are."""
    by_id = {variant.id: variant for variant in variants}
    return tuple(_stamped(entry, by_id[entry.variant]) if entry.variant in by_id else entry for entry in entries)


def merged(older: Sequence[Latency], newer: Sequence[Latency]) -> tuple[Latency, ...]:
    """Both, where a newer one replaces the older of the same variant, machine, runtime, threads and delegate."""
    fresh = {_key(entry) for entry in newer}
    return (*(entry for entry in older if _key(entry) not in fresh), *newer)


def deciding(profile: Profile, entries: Sequence[Latency]) -> dict[str, Latency]:
    """By variant, the one entry that counts on this board: measured there, else published, else predicted.

    What is measured or published is taken from one place alone, the one that knows most variants: latencies of two
    machines, runtimes or numbers of threads are never set against each other. Of two places that know as many, the one
    with the threads of the profile's latency model counts, then the newer.

    Args:
        profile: The board.
        entries: Of any board; those of others are passed over.
    """
    found: dict[str, Latency] = {}
    for origin in Origin:
        places: dict[tuple[str, str, int], dict[str, Latency]] = {}
        for entry in entries:
            if entry.origin is origin and entry.profile == profile.id:
                place = places.setdefault((entry.machine, entry.runtime or "", entry.threads), {})
                if entry.variant not in place or (entry.at or 0) >= (place[entry.variant].at or 0):
                    place[entry.variant] = entry
        if origin is Origin.PREDICTED:
            wanted = {id_: entry for place in places.values() for id_, entry in place.items()}
        else:
            wanted = _best(profile, places)
        found = wanted | found  # what is found already is better known
    return found


def _best(profile: Profile, places: Mapping[tuple[str, str, int], dict[str, Latency]]) -> dict[str, Latency]:
    threads = profile.latency.threads if profile.latency else 1

    def rank(place: tuple[str, str, int]) -> tuple[object, ...]:
        known = places[place]
        return len(known), place[2] == threads, max(entry.at or 0.0 for entry in known.values()), place

    return places[max(places, key=rank)] if places else {}


def _of(entry: Latency, variant: Variant) -> bool:
    if entry.blob == variant.blob:
        return True
    return entry.macs is not None and (entry.precision, entry.macs) == (variant.precision, variant.cost.macs)


def _stamped(entry: Latency, variant: Variant) -> Latency:
    own = {"blob": variant.blob, "precision": variant.precision, "macs": variant.cost.macs}
    return replace(entry, delegate=variant.target.delegate.value, **own)


def _key(entry: Latency) -> tuple[object, ...]:
    # What a device said of its profile stands beside what a conversion measured in passing on the same machine.
    return entry.variant, entry.origin, entry.machine, entry.profile, entry.runtime, entry.threads, entry.delegate


def _entries(number: int) -> str:
    return f"{number} entr{'y' if number == 1 else 'ies'}"
