"""One signature of a `.tflite` file that has several, as a file with that one alone.

Everything after works on a file's first graph, and so do old runtimes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_converter import flatbuffer
from edge_converter.errors import UnsupportedModelError
from edge_sdk.errors import UsageError

DEFAULT = "serving_default"
_SHOWN = 20
# What the schema calls the fields that number another graph: `bodySubgraphIndex`, `subgraph`.
_REFERENCE = re.compile(r"[a-zA-Z]*[sS]ubgraph(?:Index)?\Z")


def names(model: Any) -> tuple[str, ...]:
    """The keys of the file's signatures."""
    return tuple(bytes(one.signatureKey or b"").decode("utf-8", "replace") for one in model.signatureDefs or ())


def alone(content: bytes, wanted: str | None, *, where: str) -> bytes:
    """The model with one of its signatures, and the graphs that one needs; the same bytes where it has no other.

    Args:
        content: A `.tflite` file.
        wanted: The signature's name; None for `serving_default`, or the only one.
        where: The file's name, for errors.

    Raises:
        UsageError: It has no signature of that name.
        UnsupportedModelError: It has several, and none was named.
        SourceError: It is no whole `.tflite` file.
    """
    model = flatbuffer.parse(content, where=where)
    found = names(model)
    if wanted is None and len(found) < 2:  # noqa: PLR2004 - there is nothing to choose
        return content
    chosen = _choose(found, wanted, where)
    if len(found) == 1:
        return content
    (kept,) = [one for one, name in zip(model.signatureDefs, found, strict=True) if name == chosen]
    graphs = _reachable(model, int(kept.subgraphIndex or 0))
    numbers = {old: new for new, old in enumerate(graphs)}
    model.subgraphs = [model.subgraphs[old] for old in graphs]
    for holder, field in _references(model.subgraphs):
        setattr(holder, field, numbers[int(getattr(holder, field))])
    kept.subgraphIndex = 0
    model.signatureDefs = [kept]
    used = {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors}
    used |= {int(entry.buffer) for entry in model.metadata or ()}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = np.zeros(0, np.uint8) if buffer.data is not None else None
    return flatbuffer.serialize(model)


def _choose(found: tuple[str, ...], wanted: str | None, where: str) -> str:
    shown = ", ".join(found[:_SHOWN]) or "none"
    if wanted is not None:
        if found.count(wanted) != 1:
            raise UsageError(f"has no signature {wanted[:80]!r}", where=where, hint=f"it has {shown}")
        return wanted
    if found.count(DEFAULT) != 1:
        raise UnsupportedModelError(f"has the signatures {shown}", where=where, hint="choose one with --signature")
    return DEFAULT


def _reachable(model: Any, first: int) -> list[int]:
    """That graph, and those it calls, in the order they are found."""
    found = [first]
    for number in found:
        for holder, field in _references([model.subgraphs[number]]):
            other = int(getattr(holder, field))
            if other not in found:
                found.append(other)
    return found


def _references(graphs: list[Any]) -> Iterator[tuple[Any, str]]:
    """Every number of another graph in these, as its holder and the name of its field."""
    for graph in graphs:
        for operator in graph.operators or ():
            for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None)):
                if options is not None:
                    yield from ((options, name) for name in vars(options) if _REFERENCE.match(name))
