"""How close a file's answers are to the float file's, on samples without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_converter import flatbuffer
from edge_converter.values import Array
from edge_sdk.engine import Engine

_NO_VARIANCE = 1e-12
_SHARES = ("SOFTMAX", "LOG_SOFTMAX")


def distance(content: bytes, samples: Array, wanted: Sequence[Array]) -> float:
    """Mean square between a file's scores and those wanted, relative to each output's own variance (NMSE)."""
    return sum(
        float(np.mean((one - other) ** 2)) / max(float(np.var(other)), _NO_VARIANCE)
        for one, other in zip(scores(content, samples), wanted, strict=True)
    )


def scores(content: bytes, samples: Array) -> list[Array]:
    """What a file answers before it turns scores into shares, in which 8 bits would hide every difference."""
    model = flatbuffer.parse(content, where="a calibrated file")
    graph = model.subgraphs[0]
    for number, operator in enumerate(graph.operators):
        if flatbuffer.op_name(model, operator) in _SHARES:
            graph.outputs = np.array([operator.inputs[0]], np.int32)
            graph.operators = graph.operators[:number]
            model.signatureDefs = []
            content = flatbuffer.serialize(model)
            break
    with Engine(content, threads=1) as engine:
        found: list[Array] = engine.run([samples])
        return found
