"""Ethos-U through Vela, Arm's compiler, which is on PyPI and runs on any host: `ethos-u-vela`, in a child process.

What it prints and writes is read at one border: the summary (cycles, memory, expected time), and why operators stay
on the CPU. How many stay there is read from the file it makes. Its cycles are an estimate of the accelerator alone;
what the CPU computes beside it is not in them.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import io
import re
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_converter.errors import CompilerError
from edge_converter.targets import child, operators, static
from edge_converter.targets.compiled import Compiled
from edge_converter.targets.covering import summary as counted
from edge_converter.targets.operators import Operator
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Coverage
from edge_sdk.profile import Profile
from edge_sdk.wire import Name, Text, Wire, decode_toml

CUSTOM_OP = "ethos-u"
_PACKAGE, _DISTRIBUTION = "ethosu", "ethos-u-vela"
_CONFIGURATIONS = "vela.toml"
_INPUT = "model.tflite"
_OUTPUT = "model_vela.tflite"
_MAX_SUMMARY_BYTES = 1 << 20
_KIB = 1024
_DIGITS = 6
_REFUSED = re.compile(
    r"^Warning \(supported operators\) operator: (?P<op>\w+), ofm: '(?P<name>.*)'\nReason: (?P<why>.*)$", re.MULTILINE
)
_UNSAID = "left on the CPU by Vela, which gives no reason"
_NO_ROW = "not in its table"
_UNSUPPORTED = "Unsupported opType"

_Amount = Annotated[float, Meta(ge=0, le=1e15)]


class Configuration(Wire, frozen=True, kw_only=True):
    """An accelerator in a system.

    Attributes:
        id: As it goes into variants' ids, and the id of the operator table.
        accelerator: Vela's `--accelerator-config`.
        system: Vela's `--system-config`: clock and bandwidths of the system around it.
        memory: Vela's `--memory-mode`.
        profiles: Boards that have it.
        source: Why these.
    """

    id: Name
    accelerator: Name
    system: Name
    memory: Name
    profiles: tuple[Name, ...] = ()
    source: Text


class _Configurations(Wire, frozen=True, kw_only=True):
    configurations: Annotated[tuple[Configuration, ...], Meta(min_length=1, max_length=64)]


class _Summary(Wire, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The columns of Vela's summary that we take; memory in KiB, time in seconds."""

    inference_time: Annotated[float, Meta(ge=0, le=86_400)]
    sram_memory_used: _Amount
    dram_memory_used: _Amount
    off_chip_flash_memory_used: _Amount
    nn_macs: _Amount
    cycles_npu: _Amount
    cycles_sram_access: _Amount
    cycles_dram_access: _Amount
    cycles_total: _Amount


@cache
def configurations() -> tuple[Configuration, ...]:
    """The accelerators there are configurations for."""
    entry = files(__package__) / _CONFIGURATIONS
    return decode_toml(entry.read_bytes(), _Configurations, where=entry.name, error=UsageError).configurations


def of_board(board: Profile) -> Configuration | None:
    """The accelerator of this board, or None where nobody has said which it has."""
    return next((found for found in configurations() if board.id in found.profiles), None)


def is_installed() -> bool:
    """Whether Vela can be started here."""
    return importlib.util.find_spec(_PACKAGE) is not None


def compile(model: Path, into: Configuration, folder: Path, *, deadline_s: float) -> Compiled:  # noqa: A001 - what it does
    """Compile an int8 model.

    Args:
        model: A `.tflite` file; a free batch is made 1.
        into: For which accelerator.
        folder: An empty one, for all that is written.
        deadline_s: It may take this long.

    Raises:
        CompilerError: Vela is not installed, fails, hangs, or gives what cannot be read.
        SourceError: `model` is no whole `.tflite` file.
    """
    if not is_installed():
        raise CompilerError("is not installed", where="vela", hint=f"pip install {_DISTRIBUTION}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INPUT).write_bytes(static.with_batch_one(model.read_bytes(), where=_INPUT))
    said = child.run(
        [
            *(sys.executable, "-m", "ethosu.vela", "--output-dir", str(folder)),
            *("--accelerator-config", into.accelerator, "--config", "Arm/vela.ini"),
            *("--system-config", into.system, "--memory-mode", into.memory),
            *("--show-cpu-operations", _INPUT),
        ],
        folder,
        deadline_s=deadline_s,
    )
    made = folder / _OUTPUT
    if not made.is_file():
        raise CompilerError("ended well and wrote no file", where="vela")
    before, after = operators.read(folder / _INPUT), operators.read(made)
    found = _read_summary(folder, into)
    version = importlib.metadata.version(_DISTRIBUTION)
    return Compiled(
        path=made,
        compiler="vela",
        parameters={
            "version": version,
            "accelerator": into.accelerator,
            "system": into.system,
            "memory": into.memory,
        },
        evidence={
            "cycles_total": round(found.cycles_total),
            "cycles_npu": round(found.cycles_npu),
            "cycles_sram": round(found.cycles_sram_access),
            "cycles_dram": round(found.cycles_dram_access),
            "sram_bytes": round(found.sram_memory_used * _KIB),
            "dram_bytes": round(found.dram_memory_used * _KIB),
            "flash_bytes": round(found.off_chip_flash_memory_used * _KIB),
            "macs": round(found.nn_macs),
            "inference_ms": round(found.inference_time * 1e3, _DIGITS),
        },
        coverage=_coverage(before, after, said),
        latency_ms=round(found.inference_time * 1e3, _DIGITS),
        source=f"Vela {version}'s estimate for {into.accelerator} in {into.system}; "
        "what the CPU computes beside it is not in it, and no error band is published",
    )


def _read_summary(folder: Path, into: Configuration) -> _Summary:
    path = folder / f"{Path(_INPUT).stem}_summary_{into.system}.csv"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SUMMARY_BYTES).decode("utf-8", "replace")
        rows = list(csv.DictReader(io.StringIO(text)))
        return msgspec.convert(rows[0], _Summary, strict=False)
    except (OSError, IndexError, csv.Error, msgspec.ValidationError) as cause:
        raise CompilerError(f"its summary cannot be read: {cause}", where="vela") from cause


def _coverage(before: tuple[Operator, ...], after: tuple[Operator, ...], said: str) -> Coverage:
    """Of the operators that went in, those that came out again, with Vela's reasons."""
    reasons = {(found["op"], found["name"].partition(";")[0]): _why(found["why"]) for found in _REFUSED.finditer(said)}
    staying = [operator.name for operator in after if operator.op != CUSTOM_OP]
    marked: list[str | None] = []
    for operator in before:
        if operator.name in staying:
            staying.remove(operator.name)
            marked.append(reasons.get((operator.op, operator.name), _UNSAID))
        else:
            marked.append(None)
    return counted(before, marked)


def _why(told: str) -> str:
    return _NO_ROW if told.strip() == _UNSUPPORTED else told.strip()
