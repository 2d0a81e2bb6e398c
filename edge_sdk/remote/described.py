"""What a server says of a model, and an answer held against it: nothing is believed that was not announced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.errors import RemoteAnswerError
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote.protocol import ModelMetadata
from edge_sdk.remote.tensors import Array, datatype, fits, metadata, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A model on a server.

    Attributes:
        inputs: In the order of the server's metadata.
        outputs: Likewise.
        is_binary: Tensors travel as bytes, else as JSON.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_binary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An output as it came."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the caller says of the model; it counts where the server says nothing."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


def described(told: ModelMetadata, declared: Declared, *, where: str, is_binary: bool) -> Described:
    """The metadata, checked.

    Raises:
        RemoteAnswerError: It names no inputs or outputs, one twice, or one of a datatype that cannot travel.
    """
    parts: list[tuple[TensorSpec, ...]] = []
    said = (
        ("inputs", told.inputs or tuple(metadata(each) for each in declared.inputs)),
        ("outputs", told.outputs or tuple(metadata(each) for each in declared.outputs)),
    )
    for what, tensors in said:
        if not tensors:
            raise RemoteAnswerError(
                f"the server does not say what {what} the model has",
                where=where,
                hint=f"declare them in its settings, or pass {what}=",
            )
        if len({each.name for each in tensors}) < len(tensors):
            raise RemoteAnswerError(f"two {what} of the model have one name", where=where)
        if not is_binary and any(each.datatype == "FP16" for each in tensors):
            raise RemoteAnswerError(
                f"{what} of FP16, which JSON cannot carry, and the server takes nothing else",
                where=where,
                hint="serve a model of FP32",
            )
        parts.append(tuple(spec(each, where=where) for each in tensors))
    return Described(inputs=parts[0], outputs=parts[1], is_binary=is_binary)


def arranged(found: Sequence[Given], known: Described, *, where: str) -> list[Array]:
    """The answer in the order of the model's outputs.

    Raises:
        RemoteAnswerError: There are others than announced, or of another shape or datatype.
    """
    by_name = {each.name: each for each in found}
    wanted = {each.name for each in known.outputs}
    if len(found) != len(wanted) or set(by_name) != wanted:
        names = ", ".join(repr(each.name[:40]) for each in found[:10]) or "nothing"
        raise RemoteAnswerError(f"outputs {names} instead of {', '.join(map(repr, sorted(wanted)))}", where=where)
    answer: list[Array] = []
    for each in known.outputs:
        given = by_name[each.name]
        if given.datatype != datatype(each.dtype) or not fits(given.array.shape, each.shape):
            raise RemoteAnswerError(
                f"output {each.name!r} is {given.datatype} of shape {list(given.array.shape)} instead of"
                f" {datatype(each.dtype)} of {list(each.shape)}",
                where=where,
            )
        answer.append(given.array)
    return answer


def check_samples(answer: Sequence[Array], samples: int, *, where: str) -> None:
    """Each output holds as many samples as were asked about.

    Raises:
        RemoteAnswerError: One does not.
    """
    for array in answer:
        if len(array) != samples:
            raise RemoteAnswerError(f"an answer of {len(array)} samples to {samples}", where=where)
