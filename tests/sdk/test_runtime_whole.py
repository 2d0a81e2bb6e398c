"""A damaged `.tflite` is refused, by the runtime or before it; an app is not taken down by it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from edge_sdk.engine import Engine
from edge_sdk.errors import ModelLoadError
from edge_sdk.runtime._whole import check_whole

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
FILES = sorted(TINY.glob("*.tflite"))
PADDING = 16  # a file may end with as many bytes that mean nothing


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_whole_file_passes(path: Path) -> None:
    check_whole(str(path))
    check_whole(path.read_bytes())


@pytest.mark.parametrize("name", ["dense_fp32", "dense_int8", "deep", "two_by_two", "custom_op"])
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    content = (TINY / f"{name}.tflite").read_bytes()
    step = max(1, (len(content) - PADDING) // 300)
    for length in range(0, len(content) - PADDING, step):
        with pytest.raises(ValueError, match="not a valid Flatbuffer"):
            check_whole(content[:length])


def test_a_file_that_goes_in_circles_ends() -> None:
    content = bytearray((TINY / "two_by_two.tflite").read_bytes())
    for at in range(0, len(content) - 4, 4):
        turned = content.copy()
        turned[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
        with contextlib.suppress(ValueError):  # no other error, and no end that does not come
            check_whole(bytes(turned))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"TFL3", b"\x1c\0\0\0TFL3", b"\0" * 64, b"\xff" * 64):
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Flatbuffer"):
            check_whole(str(path))


def test_a_truncated_model_is_one_error_under_every_runtime(tmp_path: Path) -> None:
    content = (TINY / "deep.tflite").read_bytes()
    for share in (0.2, 0.5, 0.9):
        path = tmp_path / "cut.tflite"
        path.write_bytes(content[: int(share * len(content))])
        for model in (path, path.read_bytes()):
            with pytest.raises(ModelLoadError, match="not a TFLite model, or a damaged one"):
                Engine(model)
