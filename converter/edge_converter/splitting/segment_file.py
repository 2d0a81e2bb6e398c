"""A run of a model's operators written as a `.tflite` file of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer

_SIGNATURE = b"serving_default"
_MIN_RUNTIME = b"min_runtime_version"
_MIN_RUNTIME_BYTES = 16


class SegmentWriter:
    """Copies operators of a model into a new one: only what they need, numbered anew.

    Args:
        model: To copy from; left as it is.
        names: Of its tensors, for the signature.
    """

    def __init__(self, model: Any, names: dict[int, str]) -> None:
        self._from = model
        self._names = names
        self._tensors: list[Any] = []
        self._places: dict[int, int] = {}
        self._buffers: list[Any] = [schema.BufferT()]
        self._buffer_places: dict[int, int] = {}
        self._codes: list[Any] = []
        self._code_places: dict[int, int] = {}

    def write(self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file of these operators, with these tensors of the whole as inputs and outputs; once for each writer."""
        whole = self._from.subgraphs[0]
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.name = whole.name
        graph.inputs = [self._tensor(i) for i in inputs]
        graph.operators = [self._operator(whole.operators[number]) for number in operators]
        graph.outputs = [self._tensor(i) for i in outputs]
        graph.tensors = self._tensors
        model.version, model.description = self._from.version, self._from.description
        model.subgraphs, model.operatorCodes, model.buffers = [graph], self._codes, self._buffers
        model.signatureDefs = [self._signature(inputs, outputs)]
        model.metadata = self._metadata(model)
        return flatbuffer.serialize(model)

    def _operator(self, operator: Any) -> Any:
        one = copy.copy(operator)
        code = int(operator.opcodeIndex)
        if code not in self._code_places:
            self._code_places[code] = len(self._codes)
            self._codes.append(copy.copy(self._from.operatorCodes[code]))
        one.opcodeIndex = self._code_places[code]
        for field in ("inputs", "outputs", "intermediates"):
            numbers = getattr(operator, field)
            if numbers is not None:
                setattr(one, field, [self._tensor(int(i)) for i in numbers])
        return one

    def _tensor(self, index: int) -> int:
        if index < 0:  # an optional input that is not given
            return index
        if index not in self._places:
            entry = copy.copy(self._from.subgraphs[0].tensors[index])
            entry.buffer = self._buffer(int(entry.buffer))
            self._places[index] = len(self._tensors)
            self._tensors.append(entry)
        return self._places[index]

    def _buffer(self, index: int) -> int:
        given = self._from.buffers[index]
        if given.data is None or not len(given.data):
            return 0
        if index not in self._buffer_places:
            self._buffer_places[index] = len(self._buffers)
            buffer = schema.BufferT()
            buffer.data = given.data
            self._buffers.append(buffer)
        return self._buffer_places[index]

    def _signature(self, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        def entries(tensors: Sequence[int]) -> list[Any]:
            made = []
            for tensor in tensors:
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = self._names[tensor].encode(), self._places[tensor]
                made.append(entry)
            return made

        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
        signature.inputs, signature.outputs = entries(inputs), entries(outputs)
        return signature

    def _metadata(self, model: Any) -> list[Any]:
        """The lowest runtime that knows the operators of the piece, where it is known."""
        runtime = flatbuffer.min_runtime(model)
        if runtime is None:
            return []
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(runtime.encode().ljust(_MIN_RUNTIME_BYTES, b"\0"), np.uint8)
        entry.name, entry.buffer = _MIN_RUNTIME, len(self._buffers)
        self._buffers.append(buffer)
        return [entry]
