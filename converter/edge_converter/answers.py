"""How close a file's answers are to the float file's, on samples without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_converter import batches, flatbuffer
from edge_converter.values import Array
from edge_sdk.engine import Engine

_NO_VARIANCE = 1e-12
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")


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
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    ends = {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if flatbuffer.op_name(model, operator) in _SHARES and int(operator.outputs[0]) not in read
    }
    if ends:
        graph.outputs = np.array([ends[i].inputs[0] if i in ends else i for i in map(int, graph.outputs)], np.int32)
        graph.operators = [operator for operator in graph.operators if int(operator.outputs[0]) not in ends]
        model.signatureDefs = []
        content = flatbuffer.serialize(model)
    with Engine(content, threads=1) as engine:
        return batches.run(engine, samples)
