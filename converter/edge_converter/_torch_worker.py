"""Run as a child process: the only code of this product that imports PyTorch.

Reads one question a line on stdin and answers on stdout (`edge_converter._import_wire`); whatever PyTorch prints goes
to stderr.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_converter import _import_wire as wire
from edge_converter import _layout, _serve

_REASON_CHARS = 300
_FUNCTION_PREFIX = "torch:"
# Objects of any class, which only unpickling brings back.
_PICKLED = ("custom_obj_", "opaque_obj_")


class _RefusedError(Exception):
    def __init__(self, kind: Any, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.answer = wire.Failed(kind=kind, what=what, hint=hint)


def main() -> int:
    """Answer until stdin closes; returns the exit status."""
    answers = _serve.answers()
    missing = [name for name in ("torch", "litert_torch") if importlib.util.find_spec(name) is None]
    if missing:
        what = f"needs {' and '.join(missing)}, not installed here"
        _answer(answers, wire.Failed(kind="missing", what=what, hint="pip install 'adaptive-edge-sdk[torch]'"))
        return 0
    import litert_torch

    _answer(answers, wire.Ready(version=litert_torch.__version__))
    for line in _serve.questions():
        _answer(answers, _handle(msgspec.json.decode(line, type=wire.Import)))
    return 0


def _handle(question: wire.Import) -> wire.Imported | wire.Failed:
    try:
        return _import(question)
    except _RefusedError as error:
        return error.answer


def _import(question: wire.Import) -> wire.Imported:
    import litert_torch
    import torch

    if question.path.startswith(_FUNCTION_PREFIX):
        module, taken = _built(question.path.removeprefix(_FUNCTION_PREFIX))
    else:
        module, taken = _exported(question.path)
    try:
        named = {f"args_{at}": shape for at, (shape, _) in enumerate(taken)}
        shapes = list(_layout.fixed(named, question.shapes).values())
    except _layout.ShapeError as error:
        raise _RefusedError("unsupported", str(error), error.hint) from error
    images = [at for at, shape in enumerate(shapes) if _layout.is_turned(shape)]
    zeros = [torch.zeros(shape, dtype=dtype) for shape, (_, dtype) in zip(shapes, taken, strict=True)]
    try:
        with torch.no_grad():
            maps = [at for at, value in enumerate(_tensors(module(*zeros))) if _layout.is_turned(value.shape)]
        given = [zero.movedim(1, -1).contiguous() if at in images else zero for at, zero in enumerate(zeros)]
        wrapped = litert_torch.to_channel_last_io(module, args=images, outputs=maps) if images or maps else module
        litert_torch.convert(wrapped, tuple(given)).export(question.into)
    except _RefusedError:
        raise
    except Exception as error:  # the model's own code runs here, and the lowering's of every operator
        traceback.print_exc()
        raise _RefusedError("unsupported", f"cannot be converted: {_first_line(error)}") from error
    return wire.Imported(
        difference=_difference(module, zeros, question.into),
        samples=_layout.SAMPLES,
        turned=tuple(f"args_{at}" for at in images),
    )


def _built(where: str) -> tuple[Any, list[tuple[list[int], Any]]]:
    """What a function of the user's returns: a module, and what it takes, the batch free.

    Raises:
        _RefusedError: There is no such function, or it returns something else.
    """
    import torch

    name, _, function = where.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    hint = "torch:MODULE:FUNCTION names a function that returns (module, example inputs)"
    try:
        made = getattr(importlib.import_module(name), function)()
    except Exception as error:  # the user's own code runs here
        traceback.print_exc()
        raise _RefusedError("source", f"failed with {type(error).__name__}: {_first_line(error)}", hint) from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):  # noqa: PLR2004
        raise _RefusedError("source", f"returned {type(made).__name__}, not (module, example inputs)", hint)
    module, examples = made
    examples = examples if isinstance(examples, (tuple, list)) else (examples,)
    return module.eval(), [([-1, *shape[1:]], dtype) for shape, dtype in _taken(examples)]


def _exported(path: str) -> tuple[Any, list[tuple[list[int], Any]]]:
    """The program of a `.pt2` file, and what it takes; a free size is -1.

    Raises:
        _RefusedError: It is damaged, or holds pickled objects: PyTorch would run code that comes with them.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            pickled = [name for name in archive.namelist() if name.rpartition("/")[2].startswith(_PICKLED)]
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError) as error:
        raise _RefusedError("source", "is damaged or no .pt2 file", "export it again") from error
    if damaged is not None:
        raise _RefusedError("source", f"is damaged at {damaged}", "export it again")
    if pickled:
        what = f"holds a pickled object ({pickled[0]}), and loading that can run any code"
        raise _RefusedError("unsupported", what, "export the network without objects of other classes")
    try:
        program = torch.export.load(path)
        names = set(program.graph_signature.user_inputs)
        values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        module = program.module()
    except Exception as error:  # an archive, JSON, and the operators' own code are read here
        traceback.print_exc()
        raise _RefusedError("source", f"cannot be read: {_first_line(error)}", "export it again") from error
    if program.example_inputs is not None and program.example_inputs[1]:
        raise _RefusedError("unsupported", "takes keyword arguments", "export it with positional inputs alone")
    return module, _taken(values)


def _taken(values: Sequence[Any]) -> list[tuple[list[int], Any]]:
    import torch

    other = next((value for value in values if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        raise _RefusedError("unsupported", f"takes a {type(other).__name__}", "inputs have to be tensors")
    return [([size if isinstance(size, int) else -1 for size in value.shape], value.dtype) for value in values]


def _tensors(answer: Any) -> list[Any]:
    import torch

    values = list(answer) if isinstance(answer, (tuple, list)) else [answer]
    other = next((value for value in values if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        raise _RefusedError("unsupported", f"returns a {type(other).__name__}", "return a tensor, or a tuple of them")
    return values


def _difference(module: Any, zeros: Sequence[Any], made: str) -> float:
    import torch
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(made, num_threads=1)
    runner = interpreter.get_signature_runner()
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(_layout.SAMPLES):
        asked = [
            torch.randn(zero.shape, generator=generator).to(zero.dtype) if zero.is_floating_point() else zero
            for zero in zeros
        ]
        with torch.no_grad():
            expected = [value.numpy() for value in _tensors(module(*asked))]
        found = runner(**{f"args_{at}": _layout.turned(value.numpy()) for at, value in enumerate(asked)})
        worst = max(worst, _layout.distance(list(found.values()), expected))
    return worst


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_REASON_CHARS]


def _answer(answers: IO[bytes], answer: wire.Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    # Set before PyTorch is imported: `torch.load` then refuses what could run code, wherever it is called.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    sys.exit(main())
