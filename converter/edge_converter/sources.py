"""Which model files were given, what they are, and whether they can share a bundle."""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_converter import batches
from edge_converter.errors import SignatureMismatchError, SourceError, UnsupportedModelError
from edge_converter.graph import Graph
from edge_sdk.engine import Engine
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Source, TensorSpec

_MAX_NAME_CHARS = 40
_PROBE_S = 120.0
_CHUNK = 1 << 20
_TAKEN = ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")
_FUNCTION_PREFIX = "torch:"
_FUNCTION = re.compile(r"torch:([A-Za-z_][\w.]*):([A-Za-z_]\w*)\Z")
_READS = "it reads .keras, .h5, .tflite, .pt2, .onnx, SavedModel directories and torch:MODULE:FUNCTION"
_PICKLED = (".pt", ".pth", ".pkl", ".ckpt", ".bin")
_HDF5 = b"\x89HDF\r\n\x1a\n"


class Framework(enum.Enum):
    """Where a source comes from."""

    KERAS = "keras"
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"
    TORCH = "torch"
    ONNX = "onnx"


# By suffix: what it is, and how such a file begins (at which byte). ONNX is a protobuf: its first field is the version.
_KINDS: dict[str, tuple[Framework, int, bytes]] = {
    ".tflite": (Framework.TFLITE, 4, b"TFL3"),
    ".keras": (Framework.KERAS, 0, b"PK\x03\x04"),
    ".h5": (Framework.KERAS, 0, _HDF5),
    ".hdf5": (Framework.KERAS, 0, _HDF5),
    ".pt2": (Framework.TORCH, 0, b"PK\x03\x04"),
    ".onnx": (Framework.ONNX, 0, b"\x08"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A model as it was given."""

    path: Path
    framework: Framework
    record: Source

    @property
    def repeatable(self) -> bool:
        """Whether its digest covers all it is made of; a function of the user's may read what it likes."""
        return not str(self.path).startswith(_FUNCTION_PREFIX)

    @property
    def name(self) -> str:
        """The member of the family it is."""
        return self.record.name


def identify(paths: Sequence[Path]) -> tuple[SourceModel, ...]:
    """What each path holds, by its name and its first bytes.

    Raises:
        SourceError: One is missing or of no known kind.
        UsageError: The same file is given twice.
    """
    found: list[SourceModel] = []
    for path in paths:
        try:
            framework = _framework(path)
            digest = _sha256(path)
        except OSError as cause:
            raise SourceError(f"cannot be read: {cause.strerror}", where=str(cause.filename or path)) from cause
        if any(other.record.sha256 == digest for other in found):
            raise UsageError("is given twice", where=str(path))
        name = _free_name(path, {other.name for other in found})
        record = Source(name=name, framework=framework.value, sha256=digest)
        found.append(SourceModel(path=path, framework=framework, record=record))
    return tuple(found)


def probe(paths: Sequence[Path]) -> None:
    """Run each `.tflite` file once in a child process, so that a file that crashes the runtime crashes nothing else.

    Raises:
        SourceError: The runtime refuses one, or dies of it.
    """
    if not paths:
        return
    arguments = [sys.executable, "-m", "edge_converter._probe", *map(str, paths)]
    try:
        # What the child prints of its own is one line for each file it has done, then the error.
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_PROBE_S * len(paths), check=False)
    except subprocess.TimeoutExpired as cause:
        raise SourceError(f"one inference takes more than {_PROBE_S:g} s", where=str(paths[0])) from cause
    if done.returncode == 0:
        return
    *passed, last = ["", *done.stdout.splitlines()]
    if done.returncode < 0:
        at = len([line for line in (*passed, last) if line])
        raise SourceError("crashes the runtime", where=str(paths[at]), hint="copy or export it again")
    path, _, reason = last.partition("\t")
    raise SourceError(reason or "the runtime refuses it", where=path or str(paths[0]))


def check_family(graphs: Sequence[tuple[SourceModel, Graph]]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs all sources share, as an app sees them: the batch is free.

    Raises:
        SignatureMismatchError: Two differ.
        UnsupportedModelError: They cannot be judged.
    """
    first, graph = graphs[0]
    for other, its in graphs[1:]:
        mine, theirs = _signature(graph), _signature(its)
        if mine != theirs:
            raise SignatureMismatchError(
                f"{other.name} is {theirs} and {first.name} is {mine}",
                where=str(other.path),
                hint="models of one bundle answer the same question; convert it apart",
            )
    inputs, outputs = (tuple(_batch_free(spec) for spec in specs) for specs in (graph.inputs, graph.outputs))
    where = str(first.path)
    _check_inputs(inputs, where)
    at_once = batches.size(inputs)
    for spec in outputs if at_once > 1 else ():
        if spec.shape[:1] != (at_once,):
            raise UnsupportedModelError(
                f"takes {at_once} samples a call and gives {list(spec.shape)} as {spec.name!r}",
                where=where,
                hint="export it with batch 1 or free",
            )
    return inputs, outputs


def settled(path: Path, outputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The outputs with the shapes the runtime finds, where the file leaves them open, as detectors' files do.

    Args:
        path: A `.tflite` file.
        outputs: Of it.
    """
    if all(spec.shape for spec in outputs):
        return tuple(outputs)
    with Engine(path, threads=1) as engine:
        return tuple(
            spec if spec.shape else _batch_free(found) for spec, found in zip(outputs, engine.outputs, strict=True)
        )


def _check_inputs(inputs: Sequence[TensorSpec], where: str) -> None:
    shapes = [spec.shape for spec in inputs]
    if any(not shape or -1 in shape[1:] for shape in shapes):
        raise UnsupportedModelError(
            f"takes {', '.join(str(list(shape)) for shape in shapes)}",
            where=where,
            hint="--input-shape fixes free sizes; the batch may stay free",
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise UnsupportedModelError(
            f"takes {', '.join(str(list(shape)) for shape in shapes)}, batches of unequal sizes", where=where
        )
    for spec in inputs:
        if spec.dtype not in _TAKEN:
            raise UnsupportedModelError(
                f"takes {spec.dtype} as {spec.name!r}", where=where, hint=f"models that take {', '.join(_TAKEN)}"
            )


def _signature(graph: Graph) -> str:
    def words(specs: tuple[TensorSpec, ...]) -> str:
        return ", ".join(f"{list(_batch_free(spec).shape)} {spec.dtype}" for spec in specs)

    return f"{words(graph.inputs)} -> {words(graph.outputs)}"


def _batch_free(spec: TensorSpec) -> TensorSpec:
    shape = (-1, *spec.shape[1:]) if spec.shape[:1] in {(1,), (-1,)} else spec.shape
    return TensorSpec(name=spec.name, shape=shape, dtype=spec.dtype)


def _framework(path: Path) -> Framework:
    if str(path).startswith(_FUNCTION_PREFIX):
        _module(path)
        return Framework.TORCH
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return Framework.SAVED_MODEL
        raise SourceError("is a directory without saved_model.pb", where=str(path))
    if not stat.S_ISREG(path.stat().st_mode):
        raise SourceError("is no file", where=str(path), hint=_READS)
    with path.open("rb") as file:
        start = file.read(8)
    suffix = path.suffix.lower()
    if suffix in _PICKLED:
        raise SourceError(
            "is pickled: it lacks the network's class, and loading it can run any code",
            where=str(path),
            hint="torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2') writes one to convert; "
            "torch:MODULE:FUNCTION names a function that builds the model",
        )
    if suffix not in _KINDS:
        raise SourceError(
            f"is no model this converter reads ({path.suffix or 'no suffix'})", where=str(path), hint=_READS
        )
    framework, at, magic = _KINDS[suffix]
    if start[at : at + len(magic)] != magic:
        raise SourceError(f"is damaged: it does not begin as a {path.suffix} file does", where=str(path))
    return framework


def _module(path: Path) -> Path:
    """The file of the module that `torch:module:function` names, from the working directory or installed.

    Raises:
        SourceError: There is none.
    """
    found = _FUNCTION.match(str(path))
    if found is None:
        raise SourceError("is not torch:MODULE:FUNCTION", where=str(path)[:200])
    local = Path(*found[1].split("."))
    for place in (local.with_suffix(".py"), local / "__init__.py"):
        if place.is_file():
            return place
    try:
        spec = importlib.util.find_spec(found[1])
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise SourceError(f"there is no module {found[1]}", where=str(path), hint="run it where the module lies")
    return Path(spec.origin)


def _free_name(path: Path, taken: set[str]) -> str:
    given = str(path).rpartition(":")[2] if str(path).startswith(_FUNCTION_PREFIX) else path.resolve().stem
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-._")[:_MAX_NAME_CHARS] or "model"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    if str(path).startswith(_FUNCTION_PREFIX):
        digest.update(str(path).encode() + b"\0")
        path = _module(path)
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
