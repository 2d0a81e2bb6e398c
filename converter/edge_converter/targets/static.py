"""A model for compilers that want every size known: the free batch made 1."""

from __future__ import annotations

from typing import Any

from edge_converter import flatbuffer
from edge_converter.errors import CompilerError


def with_batch_one(content: bytes, *, where: str) -> bytes:
    """The same model for one sample a call; the same bytes where no size is free.

    Raises:
        CompilerError: A size other than the batch is free.
        SourceError: It is no whole `.tflite` file.
    """
    model = flatbuffer.parse(content, where=where)
    free = [tensor for tensor in model.subgraphs[0].tensors if tensor.shapeSignature is not None]
    if not free:
        return content
    for tensor in free:
        _fix(tensor, where)
    return flatbuffer.serialize(model)


def _fix(tensor: Any, where: str) -> None:
    signature = [int(size) for size in tensor.shapeSignature]
    if -1 in signature[1:]:
        raise CompilerError(
            f"a tensor of shape {signature} has a size known only when it runs",
            where=where,
            hint="export the model with every size but the batch fixed",
        )
    if signature[:1] == [-1]:
        tensor.shape = [1, *signature[1:]]
    tensor.shapeSignature = None
