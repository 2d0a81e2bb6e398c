"""One image file, opened by Pillow; whatever is wrong with it is told in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_converter.errors import DataError
from edge_sdk import preprocess
from edge_sdk.errors import InputError
from edge_sdk.manifest import Fit, Preprocessing

Region = tuple[float, float, float, float]


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A Pillow image for as long as the block lasts.

    Raises:
        DataError: It is no readable image, or cannot be prepared as it should be.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            yield image
    except InputError as cause:
        raise DataError(cause.what, where=str(file), hint=cause.hint) from cause
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as cause:
        raise DataError("is no readable image", where=str(file), hint=f"remove it or repair it ({cause})") from cause


def region(size: tuple[int, int], preprocessing: Preprocessing) -> Region:
    """The part of an image that reaches the model: left, top, right and bottom in its own pixels.

    Args:
        size: Height and width of the image.
        preprocessing: As it is prepared by; its size is set.
    """
    whole = (0.0, 0.0, float(size[1]), float(size[0]))
    resize, crop = preprocessing.resize, preprocessing.crop
    kept = preprocess.covered(size, resize) if resize is not None and preprocessing.fit is Fit.COVER else whole
    if crop is None:
        return kept
    high, wide = resize or size
    top, left = (high - crop[0]) // 2, (wide - crop[1]) // 2
    tall, broad = (kept[3] - kept[1]) / high, (kept[2] - kept[0]) / wide
    return (
        kept[0] + left * broad,
        kept[1] + top * tall,
        kept[0] + (left + crop[1]) * broad,
        kept[1] + (top + crop[0]) * tall,
    )


def mask(file: Path, preprocessing: Preprocessing, wanted: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The class of each pixel of a mask, `[height, width]`: its palette's index or its grey, by the nearest pixel.

    Args:
        file: A grey or palette image of 8 bits.
        preprocessing: Of the image it belongs to.
        wanted: Height and width.

    Raises:
        DataError: It is no such image.
    """
    from PIL import Image

    with opened(file) as image:
        if image.mode not in {"L", "P"}:
            raise DataError(
                f"is a mask of mode {image.mode}", where=str(file), hint="one class a pixel: grey or palette, 8 bits"
            )
        plain = Image.frombytes("L", image.size, image.tobytes())
        box = region((image.size[1], image.size[0]), preprocessing)
        return np.asarray(plain.resize((wanted[1], wanted[0]), Image.Resampling.NEAREST, box=box), np.uint8)
