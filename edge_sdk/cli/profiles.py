"""`edge profiles`: the classes of boards, with each fact's basis beside it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_sdk import physics
from edge_sdk import profile as profiles
from edge_sdk.cli.output import emit, table
from edge_sdk.profile import Basis, Board, Fact, Profile

_ROOM_C = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One fact as people read it."""

    name: str
    text: str
    basis: Basis
    source: str


def lines(profile: Profile) -> Iterator[Line]:
    """All that a profile says, each with its basis; what it does not say is left out."""
    compute, memory, thermal, power = profile.compute, profile.memory, profile.thermal, profile.power

    clock = f"{compute.cores} x {compute.cpu}, {compute.mhz / 1000:.3g} GHz"
    yield Line(name="processor", text=clock, basis=compute.basis, source=compute.source)
    yield from _of("CPU features", compute.isa)
    if compute.accelerator:
        yield Line(name="accelerator", text=compute.accelerator, basis=compute.basis, source=compute.source)
    yield from _of("accelerator speed", compute.tops_int8, " TOPS")
    yield Line(name="memory", text=ram(profile), basis=memory.basis, source=memory.source)
    yield from _of("memory bandwidth", memory.bandwidth_gbs, " GB/s")
    yield from _of("storage", profile.storage)
    yield from _of("communication", profile.communication)
    yield from _of("kept below", thermal.max_temp_c, " C")
    yield from _of("throttles at", thermal.throttle_c, " C")
    yield from _of("shuts down at", thermal.critical_c, " C")
    yield from _of("power, idle", power.idle_w, " W")
    yield from _of("power, busy", power.active_w, " W")
    if profile.board is not None:
        yield from _physics(profile.board)
    yield from _of("price", profile.purchase.price_usd, " USD")
    if profile.latency is not None:
        for kind, scale in (("int8", profile.latency.int8), ("fp32", profile.latency.fp32)):
            name = f"{kind} time factor"
            text = f"{scale.factor:g}, within x/÷{scale.band:g}, {profile.latency.threads} threads"
            yield Line(name=name, text=text, basis=scale.basis, source=scale.source)


def _physics(board: Board) -> Iterator[Line]:
    """The board as the policy and the simulator calculate with it."""
    yield from _of("idle, bare", board.idle_w, " W")
    yield from _of("thermal resistance, die, board", board.r_c_per_w, " C/W")
    yield from _of("heat capacity, die, board", board.c_j_per_c, " J/C")
    yield from _of("CPU, above idle", board.cpu_w, " W")
    for name, fact in board.accelerator_w.items():
        yield from _of(f"{name}, above idle", fact, " W")
    yield from _of("power over clock, exponent", board.clock_power)
    yield from _of("radio, sending", board.radio_w, " W")
    yield from _of("switch of variants", board.switch_j, " J")
    throttle, battery = board.throttle, board.battery
    if throttle is not None:
        text = f"{_text(throttle.clocks)} above {_text(throttle.down_c)} C, back below {_text(throttle.up_c)} C"
        lowest = "" if throttle.lowest_c is None else f", the lowest above {throttle.lowest_c:g} C"
        yield Line(name="throttled clocks", text=text + lowest, basis=throttle.basis, source=throttle.source)
    if battery is not None:
        yield from _of("battery", battery.capacity_wh, " Wh")
        yield from _of("battery, V and %", battery.gauge)


def _of(name: str, fact: Fact[Any] | None, unit: str = "") -> Iterator[Line]:
    if fact is not None:
        yield Line(name=name, text=_text(fact.value) + unit, basis=fact.basis, source=fact.source)


def ram(profile: Profile) -> str:
    """The sizes of memory the board is sold with, such as `1, 2 or 4 GB`."""
    sizes = [f"{mb / 1024:g}" for mb in profile.memory.ram_mb]
    text = f"{', '.join(sizes[:-1])} or {sizes[-1]}" if len(sizes) > 1 else "".join(sizes)
    return f"{text} GB"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def list_all(args: argparse.Namespace) -> int:
    """Print all profiles, one a line."""
    found = profiles.load_all()

    def text() -> str:
        header = ("id", "board", "cores", "memory", "accelerator", "converts to", "run by us")
        rows = [
            (
                p.id,
                p.name,
                str(p.compute.cores),
                ram(p),
                p.compute.accelerator or "-",
                " ".join(precision.value for precision in p.variants.precisions),
                "yes" if p.hardware_tested else "no",
            )
            for p in found
        ]
        return table(header, rows, right=frozenset({2}))

    emit(args, {"profiles": found}, text)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print all that one profile says."""
    found = profiles.load(args.id)

    def text() -> str:
        rows = [(line.name, line.text, line.basis.value, line.source) for line in lines(found)]
        own = found.extends and f" It extends {found.extends} in {profiles.path_of(found.id)}."
        ran = "This project was run on it." if found.hardware_tested else "This project was not yet run on it."
        facts = table(("fact", "value", "basis", "source"), rows)
        notes = "\n".join(f"- {note}" for note in found.notes)
        parts = (f"{found.id}: {found.name}. {ran}{own or ''}", facts, _heat(found), _variants(found), notes)
        return "\n\n".join(part for part in parts if part)

    emit(args, found, text)
    return 0


def _heat(profile: Profile) -> str:
    """What follows from the figures of its heat, in a sentence; nothing where there are none."""
    if profile.board is None or profile.board.r_c_per_w is None:
        return ""
    model = physics.of(profile)
    share = min(1.0, model.sustained_w(_ROOM_C) / model.cpu_w)
    mark = " (estimated)" if model.estimated & {"idle_w", "r_c_per_w", "cpu_w"} else ""
    return (
        f"In air of {_ROOM_C:g} C it idles at {model.idle_c(_ROOM_C):.0f} C and can compute "
        f"{100 * share:.0f} % of the time for ever below {model.max_temp_c:g} C{mark}."
    )


def _variants(profile: Profile) -> str:
    wanted = profile.variants
    text = "worth converting: " + ", ".join(precision.value for precision in wanted.precisions)
    if wanted.accuracy_only:
        text += "; for accuracy only: " + ", ".join(precision.value for precision in wanted.accuracy_only)
    return text + "; computed by: " + ", ".join(delegate.value for delegate in wanted.delegates)
