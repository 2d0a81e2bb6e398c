"""Where the operators of a `.tflite` file can be cut into pieces, what crosses each place, and the pieces themselves.

A piece is a run of operators in the order of the file. What it reads of earlier ones becomes its inputs, what later
ones or the app read of it its outputs, both as they are stored: integers stay integers. Constants go into every piece
that reads them, and so do the operators that unpack constants (fp16, 8 and 4 bit weights), so that no weight crosses
a cut. Where to cut is chosen by `edge_converter.cuts`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_converter import flatbuffer
from edge_converter.errors import UnsupportedModelError
from edge_sdk.manifest import TensorSpec

# Operators that make of a constant the constant that is computed with; the runtime runs them once, when it loads.
_UNPACKING = frozenset({"DEQUANTIZE", "DENSIFY"})
# What keeps something from one call to the next, or runs another subgraph.
_STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE", "CALL", "IF", "WHILE")
_EDGE_TPU = b"edgetpu-custom-op"
_CUSTOM = "CUSTOM"
# Bytes of one element of what can be handed from one segment to the next; text, resources and packed nibbles cannot.
_ITEM_BYTES = {
    "float16": 2, "float32": 4, "float64": 8, "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
_SIGNATURE = b"serving_default"
_MIN_RUNTIME = b"min_runtime_version"
_MIN_RUNTIME_BYTES = 16
_MAX_NAME_CHARS = 400

Span = tuple[int, int]  # the first operator and the one after the last, numbered from 0 as in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPoint:
    """A place between two operators.

    Attributes:
        at: The operator the later piece begins with, numbered from 0 as in the file.
        before: What that operator is, such as `CONV_2D`.
        tensors: Names of what crosses: made before and read after, inputs of the model included.
        size_bytes: Of these, at batch 1.
    """

    at: int
    before: str
    tensors: tuple[str, ...]
    size_bytes: int


class Cuttable:
    """A model whose operators can be cut apart.

    Args:
        model: From `flatbuffer.read`; left as it is.
        where: Its name, for errors.

    Raises:
        UnsupportedModelError: It keeps state, has control flow or sparse weights, or is one operator of a compiler.
    """

    def __init__(self, model: Any, *, where: str) -> None:
        _check(model, where)
        self.where = where
        self._model = model
        self._graph = model.subgraphs[0]
        self._operators: list[Any] = list(self._graph.operators)
        self.inputs = tuple(int(i) for i in self._graph.inputs)
        self.outputs = tuple(int(i) for i in self._graph.outputs)
        self._unpacked_by: dict[int, int] = {}
        self._made_by = dict.fromkeys(self.inputs, -1)
        self._last_read: dict[int, int] = {}
        self._computing: list[int] = []
        for number, operator in enumerate(self._operators):
            self._place(number, operator)
        if unmade := [i for i in self.outputs if self._made_by.get(i, -1) < 0]:
            raise UnsupportedModelError(
                f"gives {self._raw_name(unmade[0])!r}, which no operator computes", where=where, hint="leave it whole"
            )
        if len(set(self.outputs)) < len(self.outputs):
            raise UnsupportedModelError("gives the same tensor twice", where=where, hint="export it with one of them")
        self._names = self._unique_names()
        self.points = tuple(self._points())

    @property
    def end(self) -> int:
        """The number after the last operator."""
        return len(self._operators)

    def name(self, tensor: int) -> str:
        """What a tensor is called in every piece; no two have the same name."""
        return self._names[tensor]

    def stored(self, tensor: int) -> TensorSpec:
        """Name, shape and dtype of a tensor as it is stored; -1 is a free dimension."""
        entry = self._graph.tensors[tensor]
        shape = entry.shapeSignature if entry.shapeSignature is not None else entry.shape
        return TensorSpec(
            name=self.name(tensor),
            shape=tuple(int(size) for size in (shape if shape is not None else ())),
            dtype=flatbuffer.TYPE_NAMES[entry.type],
        )

    @property
    def atoms(self) -> tuple[Span, ...]:
        """The operators between two neighbouring places, from the first to the last."""
        places = (0, *(point.at for point in self.points), self.end)
        return tuple(itertools.pairwise(places))

    def borders(self, span: Span) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tensors that a span takes of others, and those it gives to others or the app."""
        computing = self._computing_in(span)
        inside = {int(i) for number in computing for i in self._operators[number].outputs}
        inputs = self._in_order(
            i for number in computing for i in self._reads(number) if i in self._made_by and i not in inside
        )
        crossing = self._in_order(i for i in inside if self._last_read.get(i, -1) >= span[1])
        return inputs, (*crossing, *(i for i in self.outputs if i in inside and i not in crossing))

    def content(self, span: Span) -> bytes:
        """The span as a `.tflite` file, with its borders as inputs and outputs, in that order."""
        inputs, outputs = self.borders(span)
        return _Writer(self._model, self._names).write(self._with_unpacking(self._computing_in(span)), inputs, outputs)

    def last_given(self, end: int) -> int:
        """The last operator before `end` that makes something which is read from there on, or by the app."""
        return max(
            (
                maker
                for tensor, maker in self._made_by.items()
                if maker < end and (self._last_read.get(tensor, -1) >= end or tensor in self.outputs)
            ),
            default=-1,
        )

    def _place(self, number: int, operator: Any) -> None:
        kind = flatbuffer.op_name(self._model, operator)
        reads, makes = self._reads(number), [int(i) for i in operator.outputs]
        if kind in _UNPACKING and not any(i in self._made_by for i in reads):
            self._unpacked_by |= dict.fromkeys(makes, number)
            return
        self._computing.append(number)
        self._made_by |= dict.fromkeys(makes, number)
        self._last_read |= dict.fromkeys(reads, number)

    def _computing_in(self, span: Span) -> list[int]:
        return [number for number in self._computing if span[0] <= number < span[1]]

    def _reads(self, number: int) -> list[int]:
        return [int(i) for i in self._operators[number].inputs if int(i) >= 0]

    def _in_order(self, tensors: Iterable[int]) -> tuple[int, ...]:
        """By when they are made, the model's inputs first."""
        return tuple(sorted(set(tensors), key=lambda i: (self._made_by[i], i)))

    def _points(self) -> Iterator[CutPoint]:
        for at in self._computing[1:]:
            crossing = self._in_order(
                i for i, maker in self._made_by.items() if maker < at <= self._last_read.get(i, -1)
            )
            sizes = [self._size_bytes(i) for i in crossing]
            if not crossing or not all(sizes):
                continue
            yield CutPoint(
                at=at,
                before=flatbuffer.op_name(self._model, self._operators[at]),
                tensors=tuple(self.name(i) for i in crossing),
                size_bytes=sum(sizes),
            )

    def _size_bytes(self, tensor: int) -> int:
        """0 for what cannot be handed on."""
        entry = self._graph.tensors[tensor]
        elements = math.prod(int(size) for size in (entry.shape if entry.shape is not None else ()))
        return elements * _ITEM_BYTES.get(flatbuffer.TYPE_NAMES[entry.type], 0)

    def _with_unpacking(self, computing: Sequence[int]) -> list[int]:
        """The operators, each after those that unpack the constants it reads."""
        ordered: dict[int, None] = {}

        def take(number: int) -> None:
            for tensor in self._reads(number):
                if tensor in self._unpacked_by:
                    take(self._unpacked_by[tensor])
            ordered.setdefault(number)

        for number in computing:
            take(number)
        return list(ordered)

    def _raw_name(self, tensor: int) -> str:
        text = bytes(self._graph.tensors[tensor].name or b"").decode("utf-8", "replace")
        return text[-_MAX_NAME_CHARS:] or f"tensor {tensor}"

    def _unique_names(self) -> dict[int, str]:
        """The signature's names for the model's own inputs and outputs, the tensors' for the rest."""
        names = {i: self._raw_name(i) for i in self._made_by}
        signatures = self._model.signatureDefs or []
        if len(signatures) == 1:
            for entry in (*signatures[0].inputs, *signatures[0].outputs):
                text = bytes(entry.name or b"").decode("utf-8", "replace")[:_MAX_NAME_CHARS]
                names[int(entry.tensorIndex)] = text or self._raw_name(int(entry.tensorIndex))
        unique: dict[int, str] = {}
        taken: set[str] = set()
        # The app knows the names of inputs and outputs, so these are not the ones to give way.
        for tensor in dict.fromkeys((*self.inputs, *self.outputs, *names)):
            name, again = names[tensor], 1
            while name in taken:
                again += 1
                name = f"{names[tensor]}#{again}"
            unique[tensor] = name
            taken.add(name)
        return unique


class _Writer:
    """Copies operators of a model into a new one: only what they need, numbered anew."""

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


def _check(model: Any, where: str) -> None:
    """Refuse what cannot be cut.

    Raises:
        UnsupportedModelError: Always with the reason.
    """
    whole = "leave it whole"
    if len(model.subgraphs) > 1:
        raise UnsupportedModelError(
            f"has {len(model.subgraphs)} subgraphs (loops, branches or several signatures)",
            where=where,
            hint="export one signature without control flow",
        )
    if any((code.customCode or b"") == _EDGE_TPU for code in model.operatorCodes):
        raise UnsupportedModelError(
            "is compiled for the Edge TPU: one operator",
            where=where,
            hint="split its int8 twin and compile each segment, or use edgetpu_compiler --num_segments",
        )
    graph = model.subgraphs[0]
    kinds = [flatbuffer.op_name(model, operator) for operator in graph.operators]
    kept = [kind for kind in kinds if kind in _STATE or kind.startswith("HASHTABLE")]
    if kept or any(tensor.isVariable for tensor in graph.tensors):
        raise UnsupportedModelError(
            f"keeps state from one call to the next ({kept[0] if kept else 'variable tensors'})",
            where=where,
            hint=whole,
        )
    if any(tensor.sparsity is not None for tensor in graph.tensors):
        raise UnsupportedModelError("holds sparse weights", where=where, hint="split its dense twin, or leave it whole")
    if model.externalBuffers or any(tensor.externalBuffer for tensor in graph.tensors):
        raise UnsupportedModelError("keeps its weights in another file", where=where, hint=whole)
