"""Raw images and arrays into what a model was judged on: resized, cropped and normalised the way its bundle records.

The converter prepares labelled images by this very code, so an app that uses it gives the model what the measured
accuracy was measured on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InputError, MissingExtraError
from edge_sdk.manifest import Fit, Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]
_COLOURS = 3


def prepare(image: Any, preprocessing: Preprocessing, *, channels: int | None = None) -> Floats:
    """One sample as a model takes it, without the batch dimension.

    Args:
        image: A Pillow image, or an array: `[height, width]` or `[height, width, channels]` where it is to be resized
            or cropped (uint8 to be resized), of any shape where it is only normalised.
        preprocessing: As the bundle's manifest records it.
        channels: What the model takes: 1 makes a Pillow image grey, 3 makes it RGB.

    Returns:
        float32, `[height, width, channels]` for images.

    Raises:
        InputError: It is no image that can be resized or cropped like that.
        MissingExtraError: It has to be resized and Pillow is not installed.
    """
    wanted = preprocessing.resize, preprocessing.crop
    if wanted == (None, None) and isinstance(image, np.ndarray):
        return normalised(image, preprocessing)
    pixels = _array(image, channels) if not isinstance(image, np.ndarray) else _with_channels(image)
    if preprocessing.resize is not None and pixels.shape[:2] != preprocessing.resize:
        pixels = _resized(pixels, preprocessing.resize, preprocessing.fit)
    if preprocessing.crop is not None:
        pixels = cropped(pixels, preprocessing.crop)
    return normalised(pixels, preprocessing)


def normalised(values: NDArray[Any], preprocessing: Preprocessing) -> Floats:
    """`(values - mean) / std` in float32, of arrays of any shape whose last axis is the channels."""
    mean, std = (np.array(each, np.float32) for each in (preprocessing.mean, preprocessing.std))
    floats: Floats = values.astype(np.float32)
    return floats if not mean.any() and (std == 1).all() else (floats - mean) / std


def cropped(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The centre of an image.

    Args:
        pixels: `[height, width, ...]`.
        size: Height and width.

    Raises:
        InputError: The image is smaller.
    """
    high, wide = pixels.shape[:2]
    if high < size[0] or wide < size[1]:
        raise InputError(f"an image of {high}x{wide} cannot be cropped to {size[0]}x{size[1]}", hint="resize it first")
    top, left = (high - size[0]) // 2, (wide - size[1]) // 2
    return pixels[top : top + size[0], left : left + size[1]]


def size_of(preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Height and width that come out, or None where the image keeps its own."""
    return preprocessing.crop or preprocessing.resize


def _array(image: Image, channels: int | None) -> NDArray[np.uint8]:
    mode = {1: "L", _COLOURS: "RGB"}.get(channels or 0)
    try:
        converted = image if mode is None or image.mode == mode else image.convert(mode)
        return _with_channels(np.asarray(converted, np.uint8))
    except (AttributeError, TypeError, ValueError) as cause:
        raise InputError(f"{type(image).__name__} is neither an array nor a Pillow image") from cause


def _with_channels(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim not in {2, 3}:
        raise InputError(f"an array of shape {list(pixels.shape)} is no image", hint="[height, width, channels]")
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels  # noqa: PLR2004 - grey images lack the channel


def _resized(pixels: NDArray[Any], size: tuple[int, int], fit: Fit) -> NDArray[Any]:
    """Bilinear with anti-aliasing, as Pillow does it."""
    try:
        from PIL import Image
    except ImportError as cause:
        raise MissingExtraError(
            "resizing images needs Pillow", hint="pip install 'adaptive-edge-sdk[images]', or resize before"
        ) from cause
    if pixels.dtype != np.uint8 or pixels.shape[2] not in {1, _COLOURS} or 0 in pixels.shape:
        raise InputError(
            f"an array of {pixels.dtype} {list(pixels.shape)} cannot be resized", hint="uint8 with 1 or 3 channels"
        )
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    box = covered(pixels.shape[:2], size) if fit is Fit.COVER else None
    return _with_channels(np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box), np.uint8))


def covered(have: tuple[int, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred part of an image with the wanted proportions: left, top, right, bottom."""
    high, wide = have
    scale = min(high / size[0], wide / size[1])
    tall, broad = size[0] * scale, size[1] * scale
    # Rounding may leave the image by a billionth of a pixel, which Pillow refuses.
    left, top = max((wide - broad) / 2, 0.0), max((high - tall) / 2, 0.0)
    return left, top, min((wide + broad) / 2, float(wide)), min((high + tall) / 2, float(high))
