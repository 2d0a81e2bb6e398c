"""What is served: a bundle's model, whatever variant runs in it, a bare file, or a segment of a split one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.anyengine import AnyEngine
from edge_sdk.delegates.contract import AUTO, CPU
from edge_sdk.errors import UsageError
from edge_sdk.manifest import TensorSpec
from edge_sdk.model import EdgeModel
from edge_sdk.opening import open_engine
from edge_sdk.segments import PLAN, Segments

PLATFORM = "tensorflow_lite"
_FIRST = "1"  # the version of what has none of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that is open.

    Attributes:
        name: In the address.
        version: Likewise; a bundle's own.
        run: The variant that computed, where there are several, and one answer per output.
        active: The variant that would compute now; None where there is one file only.
        close: Waits for calls under way.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Sequence[Any]], tuple[str | None, list[Any]]]
    active: Callable[[], str | None]
    close: Callable[[], None]


def opened(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    variant: str | None = None,
    segment: int | None = None,
    stored: bool = False,
    delegate: str | None = None,
    threads: int = 1,
) -> Served:
    """Open what is to be served.

    Args:
        source: A bundle or the name of a model that a daemon serves, a `.tflite` file, or what `edge split` wrote.
        name: For the address; None takes the model's own.
        variant: Of a bundle: this one and no other.
        segment: Of a split model, from 1.
        stored: Of a file: tensors go as the file stores them. Those of a segment always do.
        delegate: Who computes; None takes the accelerators found here for a bundle, the CPU for a file.
        threads: Of the interpreter.

    Raises:
        UsageError: Options that do not belong to what it is.
        EdgeError: It is missing, damaged, or does not run here.
    """
    path = Path(source)
    if (path / PLAN).is_file():
        _refuse("split model", variant=variant)
        file, number = _segment(path, segment)
        engine = open_engine(file, delegate=delegate or CPU, threads=threads, stored=True)
        return _engine(engine, name or f"{path.name}-{number}")
    _refuse("model that is not split", segment=segment)
    if path.suffix != ".tflite":
        _refuse("bundle, whose apps pass floats", stored=stored or None)
        return _bundle(source, variant, name, threads, delegate or AUTO)
    _refuse(".tflite file", variant=variant)
    engine = open_engine(path, delegate=delegate or CPU, threads=threads, stored=stored)
    return _engine(engine, name or path.stem)


def _bundle(
    source: str | os.PathLike[str], variant: str | None, name: str | None, threads: int, delegate: str
) -> Served:
    # It asks nobody: two that name each other would send a call to and fro.
    model = EdgeModel(
        source, variant=variant, threads=threads, delegate=delegate, name="edge serve", asks_servers=False
    )
    manifest = model.bundle.manifest
    return Served(
        name=name or manifest.name,
        version=manifest.version,
        inputs=model.inputs,
        outputs=model.outputs,
        run=model.answered,
        active=lambda: model.active,
        close=model.close,
    )


def _segment(path: Path, number: int | None) -> tuple[Path, int]:
    """The file of this one."""
    split = Segments(path, verify=False)
    count = len(split.plan.segments)
    if number is None or not 1 <= number <= count:
        raise UsageError(
            "one segment is served at a time" if number is None else f"there is no segment {number}",
            where=str(path),
            hint=f"name one with --segment, 1 to {count}",
        )
    return split.file(split.plan.segments[number - 1]), number


def _engine(engine: AnyEngine, name: str) -> Served:
    return Served(
        name=name,
        version=_FIRST,
        inputs=engine.inputs,
        outputs=engine.outputs,
        run=lambda arrays: (None, engine.run(arrays)),
        active=lambda: None,
        close=engine.close,
    )


def _refuse(what: str, **given: object) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"--{option} does not belong to a {what}", hint="leave it out")
