"""The handwritten digits the demonstration runs on: where the data and the trained family lie in the package.

Real scans (scikit-learn's copy of the UCI set of handwritten digits), 8x8 pixels. `lab/edge_lab/data/digits/README.md`
says where they come from and how the models were trained.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FAMILY = ("small", "medium", "large")


def directory() -> Path:
    """The folder of package data that holds the digits and the models."""
    return Path(str(files("edge_lab"))) / "data" / "digits"


def models(suffix: str = ".tflite") -> tuple[Path, ...]:
    """The trained family, the smallest first: `.tflite` (fp32) or `.keras`."""
    return tuple(directory() / f"{name}{suffix}" for name in FAMILY)


def held_out() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The test set, never used in training: images float32 [n, 8, 8, 1] in 0..1, and labels int64 [n] in 0..9."""
    return _load("digits_test.npz")


def training() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """What the family was trained on, in the same form."""
    return _load("digits_train.npz")


def _load(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import numpy as np

    with np.load(directory() / name) as arrays:
        return arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)
