"""A float `.tflite` graph computed operator by operator, so that one layer can be looked at between two others.

Each operator becomes a model of its own for the runtime, so what it computes is what a device computes; nothing is
imitated in Python.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import batches, flatbuffer
from edge_converter.quantization.values import Array, Values
from edge_sdk.runtime import RawInterpreter, choose

# All samples of the largest tensor in float, at the most: half a dozen like it are held at once.
_STREAM_BYTES = 640_000_000
_FEWEST = 8

_DTYPES: dict[int, type[np.generic]] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.BOOL: np.bool_,
}


class FloatGraph:
    """The one subgraph of a float file, in the order it is computed.

    Args:
        content: Of the file.
        where: Its name, for errors.

    Raises:
        SourceError: It is no whole `.tflite` file.
    """

    def __init__(self, content: bytes, *, where: str) -> None:
        self.model = flatbuffer.parse(content, where=where)
        self.graph = self.model.subgraphs[0]
        self.operators: list[Any] = list(self.graph.operators)
        self.inputs = [int(index) for index in self.graph.inputs]
        self.outputs = [int(index) for index in self.graph.outputs]
        # Where each tensor is read last: from there on it need not be kept.
        self.last_read: dict[int, int] = {}
        for number, operator in enumerate(self.operators):
            self.last_read.update({int(index): number for index in operator.inputs})

    def calls(self, arrays: Sequence[Array]) -> dict[int, Array]:
        """Samples, one array per input, as a stack of calls by input tensor: `[calls, *shape]`, batch included."""
        shapes = [self.graph.tensors[index].shape for index in self.inputs]
        at_once = max([1, *(int(shape[0]) for shape in shapes if shape is not None and len(shape))])
        return dict(zip(self.inputs, batches.calls(arrays, at_once), strict=True))

    def kind(self, operator: Any) -> str:
        """What an operator is, such as `CONV_2D`."""
        return flatbuffer.op_name(self.model, operator)

    def name(self, tensor: int) -> str:
        """Of a tensor."""
        return bytes(self.graph.tensors[tensor].name or b"").decode("utf-8", "replace")

    def constant(self, tensor: int) -> Array | None:
        """A tensor's value where the file holds it; None for what is computed, or of a dtype no weight has."""
        if tensor < 0:
            return None
        entry = self.graph.tensors[tensor]
        data = self.model.buffers[entry.buffer].data
        if data is None or not len(data) or entry.type not in _DTYPES:
            return None
        shape = tuple(int(size) for size in (entry.shape if entry.shape is not None else ()))
        return np.frombuffer(bytes(data), _DTYPES[entry.type]).reshape(shape)


class OneOperator:
    """One operator of a graph as a model.

    Args:
        graph: It belongs to.
        operator: Itself.
        instead: Other values for constants it reads, by tensor.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute it alone.
    """

    def __init__(self, graph: FloatGraph, operator: Any, instead: Mapping[int, Array] | None = None) -> None:
        self._interpreter, self.computed = _open(graph, operator, instead or {})
        self._inputs = [int(details["index"]) for details in self._interpreter.get_input_details()]
        self._outputs = [int(details["index"]) for details in self._interpreter.get_output_details()]

    def run(self, inputs: Sequence[Array]) -> Array:
        """Its first output for a stack of samples.

        Args:
            inputs: One array per computed input, `[samples, *shape]` with the tensor's whole shape, batch included.
        """
        found = Values(len(inputs[0]))
        self.stream([Values.of(array) for array in inputs], [found])
        return found.kept()

    def stream(self, inputs: Sequence[Values], outputs: Sequence[Values]) -> None:
        """Compute it for every sample.

        Args:
            inputs: One per computed input.
            outputs: One per output, from the first on; what comes out is put there.
        """
        interpreter = self._interpreter
        for sample in range(outputs[0].count):
            for index, values in zip(self._inputs, inputs, strict=True):
                interpreter.set_tensor(index, values.get(sample))
            interpreter.invoke()
            for index, values in zip(self._outputs, outputs, strict=False):
                values.put(sample, interpreter.get_tensor(index))


def computed(graph: FloatGraph, inputs: Mapping[int, Array]) -> Iterator[tuple[int, Values]]:
    """Every tensor the graph computes, for all samples, in the order it does; each is forgotten once it was read last.

    Args:
        graph: Of a float file.
        inputs: Samples by input tensor, `[samples, *shape]`, batch dimension included.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    known = {tensor: Values.of(samples) for tensor, samples in inputs.items()}
    yield from known.items()
    count = len(next(iter(inputs.values())))
    for number, operator in enumerate(graph.operators):
        one = OneOperator(graph, operator)
        if any(tensor not in known for tensor in one.computed):
            raise ValueError(f"{graph.kind(operator)} reads what was not computed")
        found = {int(index): Values(count) for index in operator.outputs}
        one.stream([known[tensor] for tensor in one.computed], list(found.values()))
        yield from found.items()
        known.update(found)
        for tensor in [tensor for tensor in known if graph.last_read.get(tensor, -1) <= number]:
            del known[tensor]


def samples_that_fit(graph: FloatGraph, wanted: int) -> int:
    """How many samples may be streamed at once, by the largest tensor of the graph."""
    largest = max(
        (
            math.prod(max(1, int(size)) for size in entry.shape)
            for entry in graph.graph.tensors
            if entry.shape is not None
        ),
        default=1,
    )
    return min(wanted, max(_FEWEST, _STREAM_BYTES // (4 * max(largest, 1))))


def _open(graph: FloatGraph, operator: Any, instead: Mapping[int, Array]) -> tuple[RawInterpreter, list[int]]:
    model, alone = schema.ModelT(), schema.SubGraphT()
    code = copy.copy(graph.model.operatorCodes[operator.opcodeIndex])
    model.version, model.operatorCodes, model.buffers = 3, [code], [schema.BufferT()]
    tensors: list[Any] = []
    places: dict[int, int] = {}
    computed: list[int] = []

    def place(tensor: int, *, is_output: bool = False) -> int:
        if tensor < 0 or tensor in places:
            return places.get(tensor, -1)
        entry, buffer = copy.copy(graph.graph.tensors[tensor]), schema.BufferT()
        value = instead.get(tensor)
        if value is None and not is_output:
            value = _stored(graph, tensor)
        if value is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        elif not is_output:
            computed.append(tensor)
        model.buffers.append(buffer)
        entry.buffer, entry.quantization = len(model.buffers) - 1, None
        tensors.append(entry)
        places[tensor] = len(tensors) - 1
        return places[tensor]

    one = copy.copy(operator)
    one.opcodeIndex = 0
    one.inputs = np.array([place(int(index)) for index in operator.inputs], np.int32)
    one.outputs = np.array([place(int(index), is_output=True) for index in operator.outputs], np.int32)
    alone.tensors, alone.operators, alone.outputs = tensors, [one], one.outputs
    alone.inputs = np.array([places[tensor] for tensor in computed], np.int32)
    model.subgraphs, model.metadata, model.signatureDefs = [alone], [], []
    interpreter = choose().open(flatbuffer.serialize(model), threads=1)
    interpreter.allocate_tensors()
    return interpreter, computed


def _stored(graph: FloatGraph, tensor: int) -> Array | None:
    """The bytes of a constant, whatever its dtype."""
    data = graph.model.buffers[graph.graph.tensors[tensor].buffer].data
    return None if data is None or not len(data) else np.frombuffer(bytes(data), np.uint8)
