"""Which models cannot be cut into segments, and why."""

from __future__ import annotations

from typing import Any

from edge_converter import flatbuffer
from edge_converter.errors import SourceError, UnsupportedModelError

# What keeps something from one call to the next.
_STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
_TABLE = "HASHTABLE"
_EDGE_TPU = b"edgetpu-custom-op"


def check(model: Any, *, where: str) -> None:
    """Refuse what cannot be cut, with the reason.

    Raises:
        SourceError: Its parts name others that are not there.
        UnsupportedModelError: It keeps state, has control flow, or is one operator of a compiler.
    """
    _check_whole(model, where)
    _check_kind(model, where)


def numbers(vector: Any) -> tuple[int, ...]:
    """A vector of the file, which leaves out empty ones."""
    return () if vector is None else tuple(int(i) for i in vector)


def _check_whole(model: Any, where: str) -> None:
    """Every number that names another part of the file names one that is there: a stranger may have written it.

    Raises:
        SourceError: One does not.
    """
    buffers, codes = range(len(model.buffers or ())), range(len(model.operatorCodes))
    tensors = [range(len(graph.tensors or ())) for graph in model.subgraphs]
    whole = all(
        0 <= signature.subgraphIndex < len(tensors)
        and all(
            entry.tensorIndex in tensors[signature.subgraphIndex]
            for entry in (*(signature.inputs or ()), *(signature.outputs or ()))
        )
        for signature in model.signatureDefs or ()
    )
    for graph, here in zip(model.subgraphs, tensors, strict=True):
        named = [*numbers(graph.inputs), *numbers(graph.outputs)]
        for operator in graph.operators or ():
            named += [i for i in (*numbers(operator.inputs), *numbers(operator.intermediates)) if i != -1]
            named += numbers(operator.outputs)
        whole = (
            whole
            and all(i in here for i in named)
            and all(operator.opcodeIndex in codes for operator in graph.operators or ())
            and all(t.buffer in buffers and t.type in flatbuffer.TYPE_NAMES for t in graph.tensors or ())
        )
    if not whole:
        raise SourceError("names parts that are not in it", where=where, hint="copy or export it again")


def _check_kind(model: Any, where: str) -> None:
    """Refuse what is whole and cannot be cut.

    Raises:
        UnsupportedModelError: It is such a model.
    """
    whole = "leave it whole"
    if any((code.customCode or b"") == _EDGE_TPU for code in model.operatorCodes):
        raise UnsupportedModelError(
            "is compiled for the Edge TPU: one operator",
            where=where,
            hint="split its int8 twin and compile each segment, or use edgetpu_compiler --num_segments",
        )
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors or ()]
    kinds = {flatbuffer.op_name(model, operator) for graph in model.subgraphs for operator in graph.operators or ()}
    kept = sorted(kind for kind in kinds if kind in _STATE or kind.startswith(_TABLE))
    if kept or any(tensor.isVariable for tensor in tensors):
        raise UnsupportedModelError(
            f"keeps state from one call to the next ({', '.join(kept) or 'variable tensors'})", where=where, hint=whole
        )
    if len(model.subgraphs) > 1:
        raise UnsupportedModelError(
            f"has {len(model.subgraphs)} subgraphs (loops, branches or several signatures)",
            where=where,
            hint="export one signature without control flow",
        )
    if model.externalBuffers or any(tensor.externalBuffer for tensor in tensors):
        raise UnsupportedModelError("keeps its weights in another file", where=where, hint=whole)
