"""What a CPU must have to run a file, and what it is only faster with.

XNNPACK chooses its kernels when a model is loaded, by what the core has, and has one for every core: an 8-bit file
runs on a Cortex-A53 without dot products as on one with them, only slower (int8 took 0.31 to 0.40 of the float time
on a Raspberry Pi 3 and 4, neither of which has them: google/XNNPACK README @75db3c0). So no file made here needs a
feature. It is a demand of the runtime, not of a file, that does: XNNPACK's FORCE_FP16 fails on a core without 16-bit
arithmetic, where the file's own mark `reduced_precision_support` only allows it (google-ai-edge/LiteRT
tflite/delegates/xnnpack/README.md @f674577).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_converter import flatbuffer, graph
from edge_sdk.manifest import Precision

# As `/proc/cpuinfo` of a 64-bit ARM core spells them.
DOT_PRODUCTS = ("asimddp",)
MATRIX_PRODUCTS = ("i8mm",)
HALF_PRECISION = ("fphp", "asimdhp")
_ALLOWS_HALF = b"reduced_precision_support"
_INTEGER = frozenset({Precision.INT8, Precision.DYNAMIC})


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """CPU features, as `/proc/cpuinfo` spells them.

    Attributes:
        required: Without them the file cannot run; what goes into `target.isa`.
        faster_with: With them it runs faster, and without them all the same.
        why: What they are for, one line each.
    """

    required: tuple[str, ...] = ()
    faster_with: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


def needs(path: Path, *, forces_half: bool = False) -> Needs:
    """Of a `.tflite` file on the CPU.

    Args:
        path: The file.
        forces_half: It will be run with XNNPACK's FORCE_FP16.

    Raises:
        SourceError: It is no whole `.tflite` file.
        UnsupportedModelError: It has several subgraphs.
    """
    if forces_half:
        return Needs(required=HALF_PRECISION, why=("FORCE_FP16 fails on a core without 16-bit float arithmetic",))
    precision = graph.read(path).precision
    allows_half = any(entry.name == _ALLOWS_HALF for entry in flatbuffer.read(path).metadata or ())
    if precision in _INTEGER:
        return Needs(faster_with=(*DOT_PRODUCTS, *MATRIX_PRODUCTS), why=("8-bit dot and matrix products",))
    if allows_half and precision in {Precision.FP16, Precision.FP32}:
        return Needs(faster_with=HALF_PRECISION, why=("the file allows 16-bit float arithmetic where the core has it",))
    return Needs()
