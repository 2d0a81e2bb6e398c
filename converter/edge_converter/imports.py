"""PyTorch and ONNX models as float `.tflite` files, each made in a process of its own and compared with its original.

What both importers do to a layout is where they go wrong most often, and they say nothing of it; so random inputs are
answered by the original and by the file, and a file that answers otherwise is refused.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_converter import _import_wire as wire
from edge_converter import finite
from edge_converter.child import AnsweringChild, Worker
from edge_converter.errors import ImportMismatchError, OnnxProcessError, TorchProcessError

# Of the largest answer. Float arithmetic in another order is 1e-7 to 1e-5 off, a layout gone wrong 0.1 to 1.
_BOUND = 1e-3
_PACKAGE = Path(__file__).resolve().parent
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
_OPTION = "--keras-deadline"

TORCH = Worker(
    name="PyTorch",
    module="_torch_worker",
    answers=wire.Answer,
    error=TorchProcessError,
    option=_OPTION,
    environment={**_QUIET, "JAX_PLATFORMS": "cpu"},
)


def onnx(python: Path, folder: Path) -> Worker:
    """The worker that runs onnx2tf, by an interpreter that has it.

    Args:
        python: The interpreter. It needs nothing of this product.
        folder: For a directory with a link to this package and nothing else, which goes on that interpreter's path.
    """
    path = folder / "path"
    path.mkdir(exist_ok=True)
    link = path / _PACKAGE.name
    if not link.is_symlink():
        link.symlink_to(_PACKAGE)
    programs = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"  # onnx2tf starts onnxsim by its name
    return Worker(
        name="onnx2tf",
        module="_onnx_worker",
        answers=wire.Answer,
        error=OnnxProcessError,
        option=_OPTION,
        environment={**_QUIET, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "PATH": programs},
        python=python,
    )


class ImportProcess(AnsweringChild):
    """A child process that imports models of one framework, for as long as the block lasts."""

    def convert(self, path: str, into: Path, *, shapes: Sequence[tuple[int, ...]] = ()) -> wire.Imported:
        """Write the model as a float `.tflite` file.

        Args:
            path: Of the model, or `torch:module:function`.
            into: The file to write.
            shapes: Of its inputs, in its own layout, where more than the batch is free.

        Returns:
            How far its answers are from those of the original.

        Raises:
            SourceError: The model cannot be read, or has weights that are no numbers.
            UnsupportedModelError: It has something that cannot be converted.
            ImportMismatchError: The file answers otherwise than the model.
            ChildProcessDiedError: The process died or took too long.
        """
        place = tempfile.mkdtemp(dir=self._folder)
        self._ask(wire.Import(path=path, into=str(into), folder=place, shapes=tuple(shapes)))
        imported = self._await("convert", path, lambda _: None, wire.Imported)
        finite.check(into, where=path)  # before their answers are blamed
        if not imported.difference <= _BOUND:
            into.unlink(missing_ok=True)
            raise ImportMismatchError(
                f"once converted it answers otherwise: {imported.difference:.2g} of its largest answer away, and "
                f"{_BOUND:g} is the bound",
                where=path,
                hint="export it with another opset or without the operators that turn layouts around",
            )
        return imported
