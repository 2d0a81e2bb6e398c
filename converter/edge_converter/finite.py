"""Weights that are no numbers, found before anything is made of them and named by their layer.

Every format made of such a file answers nonsense or nothing, and the quantizer's own errors name no layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter import flatbuffer
from edge_converter.errors import SourceError

_FLOATS: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
_MULTIPLIERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")
_NAME_CHARS = 120


def check(path: Path, *, where: str) -> None:
    """Pass if every weight of a `.tflite` file is a number.

    Infinity is refused where it would be multiplied; elsewhere it may be a mask.

    Args:
        path: The file.
        where: What it was made of, for errors.

    Raises:
        SourceError: A weight is NaN, or a layer's weight infinite; the line names the layer.
    """
    model = flatbuffer.read(path)
    graph = model.subgraphs[0]
    stored = flatbuffer.unpacked(model)
    for operator in graph.operators:
        op = flatbuffer.op_name(model, operator)
        for index in operator.inputs:
            values = _constant(model, graph.tensors[stored.get(int(index), int(index))]) if index >= 0 else None
            if values is None:
                continue
            wrong = ~np.isfinite(values) if op in _MULTIPLIERS else np.isnan(values)
            if wrong.any():
                layer = bytes(graph.tensors[operator.outputs[0]].name or b"?").decode("utf-8", "replace")
                raise SourceError(
                    f"has NaN or infinity in {wrong.sum()} of {wrong.size} weights of {op} {layer[:_NAME_CHARS]}",
                    where=where,
                    hint="its training diverged, or the file is damaged: take an earlier checkpoint",
                )


def _constant(model: Any, tensor: Any) -> NDArray[Any] | None:
    dtype = _FLOATS.get(flatbuffer.TYPE_NAMES[tensor.type])
    data = model.buffers[tensor.buffer].data
    if dtype is None or data is None or len(data) == 0:
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype)
