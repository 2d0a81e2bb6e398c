"""How close a file's answers are to the float file's, on samples without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_converter import batches, flatbuffer
from edge_converter.quantization.values import Array
from edge_sdk.engine import Engine

_NO_VARIANCE = 1e-12
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")
_BEHIND = ("DEQUANTIZE", "QUANTIZE", "RESHAPE")


def distance(content: bytes, samples: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Mean square between a file's scores and those wanted, relative to each output's own variance (NMSE)."""
    return sum(
        float(np.mean((one.astype(np.float64) - other) ** 2)) / max(float(np.var(other)), _NO_VARIANCE)
        for one, other in zip(scores(content, samples), wanted, strict=True)
    )


def scores(content: bytes, samples: Sequence[Array]) -> tuple[Array, ...]:
    """What a file answers before it turns scores into shares, in which 8 bits would hide every difference.

    Args:
        content: Of the file.
        samples: One array per input, `[samples, *shape]`.

    Returns:
        One array per output.
    """
    model = flatbuffer.parse(content, where="a calibrated file")
    graph = model.subgraphs[0]
    outputs = [int(index) for index in graph.outputs]
    made_by = {int(operator.outputs[0]): operator for operator in graph.operators}
    before = [_before_shares(model, made_by, output) for output in outputs]
    if before != outputs:
        graph.outputs = np.array(before, np.int32)
        graph.operators = _needed(graph, before)
        model.signatureDefs = []
        content = flatbuffer.serialize(model)
    with Engine(content, threads=1) as engine:
        return batches.run(engine, samples)


def _before_shares(model: Any, made_by: Mapping[int, Any], output: int) -> int:
    """The tensor that shares are made of, behind which a quantized file may turn them into float; or the output."""
    tensor = output
    while (operator := made_by.get(tensor)) is not None:
        kind = flatbuffer.op_name(model, operator)
        if kind in _SHARES:
            return int(operator.inputs[0])
        if kind not in _BEHIND:
            break
        tensor = int(operator.inputs[0])
    return output


def _needed(graph: Any, outputs: Sequence[int]) -> list[Any]:
    """The operators that these tensors are computed by, in order."""
    wanted, kept = set(outputs), []
    for operator in reversed(graph.operators):
        if wanted & {int(index) for index in operator.outputs}:
            wanted |= {int(index) for index in operator.inputs}
            kept.append(operator)
    return kept[::-1]
