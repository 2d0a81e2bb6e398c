"""A `.tflite` file with every size fixed, where more than its batch was free.

The runtime itself says what comes out of each operator: the inputs are resized, one inference runs on zeros, and the
sizes it found are written into the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_converter import flatbuffer
from edge_converter.errors import UnsupportedModelError
from edge_sdk import runtime
from edge_sdk.errors import UsageError


def fix(content: bytes, wanted: Sequence[tuple[int, ...]], *, where: str) -> bytes:
    """The same model taking inputs of these shapes and no others; the same bytes where it does so already.

    Args:
        content: A `.tflite` file with one graph.
        wanted: A shape for each input, in their order.
        where: The file's name, for errors.

    Raises:
        UsageError: A shape does not fit an input.
        UnsupportedModelError: The model cannot compute with these.
        SourceError: It is no whole `.tflite` file.
    """
    model = flatbuffer.parse(content, where=where)
    graph = model.subgraphs[0]
    takes = [_sizes(graph.tensors[index]) for index in graph.inputs]
    if len(takes) != len(wanted):
        raise UsageError(f"has {len(takes)} inputs, and --input-shape is given {len(wanted)} times", where=where)
    for sizes, shape in zip(takes, wanted, strict=True):
        if len(sizes) != len(shape) or any(size not in {-1, want} for size, want in zip(sizes, shape, strict=True)):
            raise UsageError(f"takes {list(sizes)}, not {list(shape)}", where=where)
    if takes == [tuple(shape) for shape in wanted]:
        return content
    found = _computed(content, graph, wanted, where)
    for number, tensor in enumerate(graph.tensors):
        if number in found and not flatbuffer.is_constant(model, number):
            tensor.shape = np.array(found[number], np.int32)
            tensor.shapeSignature = None
    return flatbuffer.serialize(model)


def _sizes(tensor: Any) -> tuple[int, ...]:
    sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return tuple(int(size) for size in (sizes if sizes is not None else ()))


def _computed(content: bytes, graph: Any, wanted: Sequence[tuple[int, ...]], where: str) -> dict[int, tuple[int, ...]]:
    """The shape of every tensor, by its number, after one inference."""
    chosen = runtime.choose()
    plain = chosen.attribute("OpResolverType").BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {"experimental_op_resolver_type": plain, "experimental_preserve_all_tensors": True}
    try:
        interpreter = chosen.open(content, options=options)
        for index, shape in zip(graph.inputs, wanted, strict=True):
            interpreter.resize_tensor_input(int(index), list(shape), strict=True)
        interpreter.allocate_tensors()
        for entry in interpreter.get_input_details():
            interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
        interpreter.invoke()
        details = interpreter.get_tensor_details()
    except (RuntimeError, ValueError) as cause:
        reason = " ".join(str(cause).split())[:200]
        raise UnsupportedModelError(f"cannot compute with that --input-shape: {reason}", where=where) from cause
    return {
        int(entry["index"]): tuple(int(size) for size in entry["shape"])
        for entry in details
        if int(entry["index"]) < len(graph.tensors)
    }
