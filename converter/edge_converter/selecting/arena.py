"""How much memory the values between layers need at once: a lower bound of a runtime's arena, from the graph alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_converter import flatbuffer

_BITS = {"float32": 32, "int32": 32, "uint32": 32, "float16": 16, "int16": 16, "float64": 64, "int64": 64, "int4": 4}


def peak_bytes(path: Path) -> int:
    """The most bytes of tensors that are alive at the same time, weights aside, with a batch of 1.

    Operators are taken in the order of the file, as the interpreter runs them; a tensor lives from the operator that
    makes it to the last that reads it, inputs and outputs of the model throughout.

    Raises:
        SourceError: It is no whole `.tflite` file.
    """
    model = flatbuffer.read(path)
    graph = model.subgraphs[0]
    count = len(graph.operators)
    held = {int(i) for i in (*graph.inputs, *graph.outputs)}
    begins = dict.fromkeys(held, 0)
    ends = dict.fromkeys(held, count)
    for number, operator in enumerate(graph.operators):
        for index in (int(i) for i in operator.outputs if i >= 0):
            begins.setdefault(index, number)
            ends.setdefault(index, number)
        for index in (int(i) for i in operator.inputs if i >= 0):
            if index in begins and index not in held:
                ends[index] = number
    change = np.zeros(count + 2, np.int64)
    for index, begin in begins.items():
        size = _bytes(graph.tensors[index])
        change[begin] += size
        change[ends[index] + 1] -= size
    return int(change.cumsum().max(initial=0))


def _bytes(tensor: Any) -> int:
    shape = tensor.shape if tensor.shape is not None else ()
    elements = int(np.prod([max(1, int(size)) for size in shape], dtype=np.int64))
    return (elements * _BITS.get(flatbuffer.TYPE_NAMES[tensor.type], 8) + 7) // 8
