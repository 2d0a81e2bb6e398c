"""A model taken from pass to pass, each contract checked, and no step repeated whose result is known.

The key of a step's result is made of the key of the step before it and of the pass, its version and its options; the
first is made of the model's bytes, the calibration samples, the seed and what computes. So two variants that begin with
the same passes share their results, and what is known of a plan can be told before anything is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import msgspec
import numpy as np

from edge_converter import cache as caching
from edge_converter import flatbuffer, graph, passes
from edge_converter.cache import Cache
from edge_converter.errors import PassContractError, QuantizationError
from edge_converter.passes import Pass, Room, Work
from edge_converter.recipe import VariantRecipe
from edge_sdk.engine import Engine
from edge_sdk.errors import DelegateError
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision, TensorSpec
from edge_sdk.wire import Wire

_ARRAY = 1  # msgpack extension: an array, as NumPy writes one


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A pass with its options, ready to run.

    Attributes:
        do: The pass.
        options: Of its own type, bounds checked.
        key: Of its result.
    """

    do: Pass
    options: Any
    key: str


class _Kept(Wire, frozen=True, kw_only=True):
    """A `Work` as the cache holds it."""

    floating: bytes
    content: bytes
    ranges: Any = None
    done: tuple[Record, ...] = ()


def root(floating: bytes, samples: str, seed: int) -> str:
    """The key that all of one model's results begin with.

    Args:
        floating: The float file.
        samples: A digest of the calibration samples and of how they are prepared.
        seed: Of the request.
    """
    return caching.key("model", floating, samples, seed, caching.computers())


def begin(content: bytes, precision: Precision, *, where: str) -> Work:
    """A float file at the beginning of its way to a variant, in the form that the passes understand.

    Raises:
        SourceError: It is no whole `.tflite` file.
    """
    prepared = flatbuffer.prepare(content, where=where)
    return Work(floating=prepared, content=prepared, precision=precision)


def steps(recipe: VariantRecipe, first: str, *, max_size: int | None) -> tuple[Step, ...]:
    """The passes of a variant with the keys of their results.

    Args:
        recipe: Of the variant.
        first: From `root`.
        max_size: Of the request; it decides what searches find.

    Raises:
        RecipeError: A pass or an option is not known.
    """
    found = []
    at = caching.key("variant", first, max_size if recipe.searched else None)
    for name, given in recipe.steps:
        do = passes.find(name)
        options = passes.options_of(do, given, where=recipe.id)
        told = None if do.serves_all_formats else recipe.precision.value
        set_to = {option: getattr(options, option) for option in do.options.__struct_fields__}
        at = caching.key("pass", at, do.name, do.version, msgspec.to_builtins(set_to), told)
        found.append(Step(do=do, options=options, key=at))
    return tuple(found)


def run(work: Work, plan: tuple[Step, ...], room: Room, cache: Cache) -> Work:
    """Take a model through its passes, from the last step whose result is known.

    Raises:
        QuantizationError: A pass's requirement does not hold, or it cannot be done to this model.
        PassContractError: A pass broke its promise.
    """
    precision, left = work.precision, list(plan)
    for number in reversed(range(len(plan))):
        known = cache.get(plan[number].key)
        if known is not None:
            work, left = _unpacked(known, precision), list(plan[number + 1 :])
            break
    for step in left:
        work = _one(work, step, room)
        cache.put(step.key, _packed(work))
    return work


def done_before(plan: tuple[Step, ...], cache: Cache) -> int:
    """How many of the steps need not be run."""
    return next((number + 1 for number in reversed(range(len(plan))) if plan[number].key in cache), 0)


def _packed(work: Work) -> bytes:
    kept = _Kept(
        floating=work.floating,
        content=b"" if work.is_float else work.content,
        ranges=work.ranges,
        done=work.done,
    )
    return msgspec.msgpack.encode(kept, enc_hook=_as_extension)


def _unpacked(content: bytes, precision: Precision) -> Work:
    kept = msgspec.msgpack.decode(content, type=_Kept, ext_hook=_from_extension)
    return Work(
        floating=kept.floating,
        content=kept.content or kept.floating,
        precision=precision,
        ranges=kept.ranges,
        done=kept.done,
    )


def _as_extension(value: Any) -> msgspec.msgpack.Ext:
    if not isinstance(value, np.ndarray | np.generic):
        raise NotImplementedError(f"a pass left a {type(value).__name__} in its ranges")
    stream = BytesIO()
    np.save(stream, np.asarray(value), allow_pickle=False)
    return msgspec.msgpack.Ext(_ARRAY, stream.getvalue())


def _from_extension(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is none of ours")
    return np.load(BytesIO(data), allow_pickle=False)


def _one(before: Work, step: Step, room: Room) -> Work:
    reason = step.do.requires(before, step.options, room)
    if reason:
        raise QuantizationError(f"{step.do.name}: {reason}", where=room.where)
    try:
        after = step.do.run(before, step.options, room)
        if after.content != before.content:
            Engine(after.content).close()
    except DelegateError as cause:  # what the pass made, or tried on its way, the runtime does not compute
        raise QuantizationError(f"{step.do.name}: {cause.what}", where=room.where) from cause
    broken = _changed_border(before, after) or step.do.ensures(before, after, step.options)
    if not broken and (len(after.done) != len(before.done) + 1 or after.done[:-1] != before.done):
        broken = "it did not say what it did"
    if broken:
        raise PassContractError(f"the pass {step.do.name} broke its promise: {broken}", where=room.where)
    return after


def _changed_border(before: Work, after: Work) -> str:
    """Whether inputs and outputs are others, as an app sees them."""
    if after.content == before.content:
        return ""
    one, other = (graph.parsed(work.content, where="a pass's result") for work in (before, after))
    for what, mine, theirs in (("inputs", one.inputs, other.inputs), ("outputs", one.outputs, other.outputs)):
        had, has = ([(_sample(spec), spec.dtype) for spec in specs] for specs in (mine, theirs))
        if had != has:
            return f"{what} were {had} and are {has}"
    return ""


def _sample(spec: TensorSpec) -> tuple[int, ...]:
    """The shape without a batch of one or of any size, between which tools do not tell."""
    return spec.shape[1:] if spec.shape[:1] in {(1,), (-1,)} else spec.shape
