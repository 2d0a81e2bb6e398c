"""The Edge TPU through `edgetpu_compiler`, where it is on the path: Google's compiler, closed, for x86-64 Linux alone.

Not yet run on hardware, and not with the real compiler: written from its published logs and files.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_converter.errors import CompilerError
from edge_converter.targets import child, edgetpu_log, static
from edge_converter.targets.compiled import Compiled
from edge_converter.targets.optable import Table
from edge_sdk.manifest import Coverage
from edge_sdk.predict import OpWork

COMPILER = "edgetpu_compiler"
CUSTOM_OP = b"edgetpu-custom-op"
_INPUT = "model.tflite"
_OUTPUT = "model_edgetpu.tflite"
_LOG = "model_edgetpu.log"
_MAX_LOG_BYTES = 1 << 20
# Between the app's floats and the integers inside; a few microseconds on the CPU.
_AT_THE_BORDER = ("QUANTIZE", "DEQUANTIZE")


def is_installed() -> bool:
    """Whether the compiler is on the path."""
    return shutil.which(COMPILER) is not None


def compile(model: Path, folder: Path, *, deadline_s: float) -> Compiled:  # noqa: A001 - what it does
    """Compile an int8 model.

    Args:
        model: A `.tflite` file; a free batch is made 1.
        folder: An empty one, for all that is written.
        deadline_s: It may take this long.

    Raises:
        CompilerError: The compiler is not installed, fails, hangs, or maps nothing.
        SourceError: `model` is no whole `.tflite` file.
    """
    program = shutil.which(COMPILER)
    if program is None:
        raise CompilerError("is not on the path", where=COMPILER, hint="coral.ai/docs/edgetpu/compiler")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INPUT).write_bytes(static.with_batch_one(model.read_bytes(), where=_INPUT))
    printed = child.run([program, "--show_operations", "--out_dir", str(folder), _INPUT], folder, deadline_s=deadline_s)
    made = folder / _OUTPUT
    if not made.is_file():
        raise CompilerError("ended well and wrote no file", where=COMPILER)
    log = edgetpu_log.parse(_said(printed, folder / _LOG))
    if not log.coverage.delegated or CUSTOM_OP not in made.read_bytes():
        raise CompilerError("mapped no operator to the Edge TPU", where=COMPILER)
    evidence: dict[str, bool | int | float | str] = dict(log.memory)
    if log.subgraphs is not None:
        evidence["subgraphs"] = log.subgraphs
    return Compiled(
        path=made,
        compiler=COMPILER,
        parameters={"version": log.version},
        evidence=evidence,
        coverage=log.coverage,
    )


def _said(printed: str, log: Path) -> str:
    """What it printed, with the operators from its log where they were not printed."""
    if edgetpu_log.MAPPED in printed:
        return printed
    try:
        with log.open("rb") as file:
            return printed + "\n" + file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return printed


def expected_ms(
    table: Table, board: str, work: OpWork, weight_bytes: int, found: Coverage
) -> tuple[float, float, str] | None:
    """The latency fitted for this board, its band and its source.

    Returns:
        None where nothing was fitted for the board, or operators stay on the CPU: what was fitted was mapped whole.
    """
    speed = next((speed for speed in table.speeds if board in speed.profiles), None)
    if speed is None or any(not line.startswith(_AT_THE_BORDER) for line in found.why):
        return None
    macs = work.conv_macs + work.conv1x1_macs + work.depthwise_macs + work.dense_macs
    streamed_mb = max(0.0, weight_bytes / 1e6 - speed.cache_mb)
    return speed.t0_ms + speed.ms_per_gmac * macs / 1e9 + speed.ms_per_mb * streamed_mb, speed.band, speed.source
