"""The segments of a model run one after the other, and held against the whole bit for bit.

Tensors are handed on as they are stored: between two segments nothing is turned into float and back, so an int8
boundary carries the very integers that the whole would have had there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter.errors import SplitMismatchError
from edge_sdk.port import Port, port
from edge_sdk.runtime import choose, load_error, run_error

Array = NDArray[Any]

# Unquantized integers may be indices into a table; these are in every table.
_SMALL_INTEGERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A model of the chain, and what it takes and gives by the names that hold for the whole chain.

    Attributes:
        content: A `.tflite` file.
        inputs: In the order it takes them.
        outputs: In the order it gives them.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Loaded:
    """A link, loaded by the runtime.

    Args:
        link: What to load.
        threads: Of the interpreter.
        where: Its name, for errors.

    Raises:
        ModelLoadError: The runtime refuses it.
    """

    def __init__(self, link: Link, *, threads: int, where: str) -> None:
        self.link = link
        self._where = where
        self._runtime = choose()
        self.runtime = f"{self._runtime.name} {self._runtime.version}"
        try:
            self._interpreter = self._runtime.open(link.content, threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as cause:
            raise load_error(cause, where=where, runtime=self._runtime) from cause
        self._inputs = self._interpreter.get_input_details()
        self._takes = [int(details["index"]) for details in self._inputs]
        self._gives = [int(details["index"]) for details in self._interpreter.get_output_details()]

    def run(self, values: Sequence[Array]) -> list[Array]:
        """Tensors in, tensors out, as they are stored.

        Raises:
            DelegateError: The runtime failed, or was given what the link does not take.
        """
        try:
            for index, value in zip(self._takes, values, strict=True):
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._gives]
        except (ValueError, RuntimeError) as cause:
            raise run_error(cause, where=self._where, runtime=self._runtime) from cause

    def step(self, known: dict[str, Array]) -> None:
        """Run on what is known by name, and add what it gives.

        Raises:
            SplitMismatchError: Something known has not the shape that this link takes.
            DelegateError: The runtime failed.
        """
        taken = [known[name] for name in self.link.inputs]
        for name, value, details in zip(self.link.inputs, taken, self._inputs, strict=True):
            should = tuple(int(size) for size in details["shape"])
            if value.shape != should:
                raise SplitMismatchError(
                    f"{name!r} is {list(value.shape)} when it is computed and {list(should)} in the file",
                    where=self._where,
                    hint="nothing was written; choose other places with --at",
                )
        known |= zip(self.link.outputs, self.run(taken), strict=True)

    def ports(self) -> tuple[Port, ...]:
        """How an app's arrays become its inputs."""
        return tuple(port(details, name=name) for details, name in zip(self._inputs, self.link.inputs, strict=True))

    def noise(self, random: np.random.Generator) -> list[Array]:
        """One random value for each input, of the whole range where it is quantized."""
        return [_noise(details, random) for details in self._inputs]


def shapes(content: bytes, sample: Sequence[Array]) -> dict[int, tuple[int, ...]]:
    """The shape that each tensor of a model really has when it computes a sample; a file may say another.

    Empty where the runtime cannot tell, as of a model that it computes with its delegate only.

    Args:
        content: Of the `.tflite` file.
        sample: Its inputs, as they are stored.
    """
    runtime = choose()
    plain = runtime.attribute("OpResolverType").BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": plain}
    try:
        interpreter = runtime.open(content, threads=1, options=options)
        interpreter.allocate_tensors()
        for details, value in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(int(details["index"]), value)
        interpreter.invoke()
    except (ValueError, RuntimeError):
        return {}
    return {
        int(details["index"]): tuple(int(size) for size in details["shape"])
        for details in interpreter.get_tensor_details()
    }


def compare(whole: Loaded, segments: Sequence[Loaded], samples: Iterator[Sequence[Array]]) -> int:
    """Run both on every sample; returns how many there were.

    Args:
        whole: The model, its inputs and outputs named as those of the segments.
        segments: In their order.
        samples: Inputs of the whole, as they are stored.

    Raises:
        SplitMismatchError: An output differs, if only in one bit.
    """
    count = 0
    for sample in samples:
        known: dict[str, Array] = dict(zip(whole.link.inputs, sample, strict=True))
        for segment in segments:
            segment.step(known)
        for name, should in zip(whole.link.outputs, whole.run(sample), strict=True):
            _check_same(name, should, known, count)
        count += 1
    return count


def _check_same(name: str, should: Array, known: Mapping[str, Array], number: int) -> None:
    there = known.get(name)
    if there is not None and there.dtype == should.dtype and there.shape == should.shape:
        same = np.frombuffer(there.tobytes(), np.uint8) == np.frombuffer(should.tobytes(), np.uint8)
        if same.all():
            return
        found = f"differs in {np.count_nonzero(~same.reshape(there.size, -1).all(axis=1))} of {there.size} values"
    else:
        found = "is missing" if there is None else f"is {there.dtype} {list(there.shape)}"
    raise SplitMismatchError(
        f"output {name!r} of the segments {found} on sample {number + 1}",
        hint="nothing was written; choose other places with --at",
    )


def _noise(details: Mapping[str, Any], random: np.random.Generator) -> Array:
    shape, dtype = [int(size) for size in details["shape"]], np.dtype(details["dtype"])
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if len(details["quantization_parameters"]["scales"]):
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
    return random.integers(0, _SMALL_INTEGERS, shape).astype(dtype)
