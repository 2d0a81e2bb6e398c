"""Where the operators of a `.tflite` file can be cut into pieces, what crosses each place, and the pieces themselves.

A piece is a run of operators in the order of the file. What it reads of earlier ones becomes its inputs, what later
ones or the app read of it its outputs, both as they are stored: integers stay integers. Constants go into every piece
that reads them, and so do the operators that unpack constants (fp16, 8 and 4 bit weights), so that no weight crosses
a cut. Where to cut is chosen by `edge_converter.splitting.cuts`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_converter import flatbuffer
from edge_converter.errors import SourceError, UnsupportedModelError
from edge_converter.splitting import cut_checks
from edge_converter.splitting.cut_checks import numbers
from edge_converter.splitting.segment_file import SegmentWriter
from edge_sdk.manifest import TensorSpec

# Operators that make of a constant the constant that is computed with; the runtime runs them once, when it loads.
_UNPACKING = frozenset({"DEQUANTIZE", "DENSIFY"})
# Bytes of one element of what can be handed from one segment to the next; text, resources and packed nibbles cannot.
_ITEM_BYTES = {
    "float16": 2, "float32": 4, "float64": 8, "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
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
        SourceError: Its parts name others that are not there.
        UnsupportedModelError: It keeps state, has control flow, or is one operator of a compiler.
    """

    def __init__(self, model: Any, *, where: str) -> None:
        cut_checks.check(model, where=where)
        self.where = where
        self._model = model
        self._graph = model.subgraphs[0]
        self._operators: list[Any] = list(self._graph.operators)
        self.inputs = numbers(self._graph.inputs)
        self.outputs = numbers(self._graph.outputs)
        self._unpacked_by: dict[int, int] = {}
        self._read_early: set[int] = set()  # constants, then
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
        inside = {i for number in computing for i in numbers(self._operators[number].outputs)}
        inputs = self._in_order(
            i for number in computing for i in self._reads(number) if i in self._made_by and i not in inside
        )
        crossing = self._in_order(i for i in inside if self._last_read.get(i, -1) >= span[1])
        return inputs, (*crossing, *(i for i in self.outputs if i in inside and i not in crossing))

    def content(self, span: Span) -> bytes:
        """The span as a `.tflite` file, with its borders as inputs and outputs, in that order."""
        inputs, outputs = self.borders(span)
        return SegmentWriter(self._model, self._names).write(
            self._with_unpacking(self._computing_in(span)), inputs, outputs
        )

    def settle(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Give up the places that a tensor crosses whose real shape is not the file's: its size is not known there.

        Args:
            shapes: By tensor, as they really are; a tensor that is left out has its file's.
        """
        other = {
            self.name(tensor)
            for tensor in self._made_by
            if tensor in shapes and shapes[tensor] != numbers(self._graph.tensors[tensor].shape)
        }
        self.points = tuple(point for point in self.points if not other & {*point.tensors})

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
        reads, makes = self._reads(number), numbers(operator.outputs)
        if self._made_by.keys() & makes or self._unpacked_by.keys() & makes or self._read_early & {*makes}:
            raise SourceError(
                f"operator {number} makes what was made or read before it", where=self.where, hint="export it again"
            )
        self._read_early |= {*reads} - self._made_by.keys() - self._unpacked_by.keys()
        if kind in _UNPACKING and not any(i in self._made_by for i in reads):
            self._unpacked_by |= dict.fromkeys(makes, number)
            return
        self._computing.append(number)
        self._made_by |= dict.fromkeys(makes, number)
        self._last_read |= dict.fromkeys(reads, number)

    def _computing_in(self, span: Span) -> list[int]:
        return [number for number in self._computing if span[0] <= number < span[1]]

    def _reads(self, number: int) -> list[int]:
        return [i for i in numbers(self._operators[number].inputs) if i >= 0]

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
            for entry in (*(signatures[0].inputs or ()), *(signatures[0].outputs or ())):
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
