"""Boxes around things in images, from `annotations.json` in COCO's format.

A class is the category's id less the smallest id, as TensorFlow numbers COCO's. Boxes are brought to shares of what the
model sees, after resizing and cropping; what was cut away is gone from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from edge_converter.errors import DataError
from edge_converter.labelled import pictures
from edge_converter.labelled.samples import Floats
from edge_sdk.manifest import Preprocessing

FILE = "annotations.json"
_MAX_BYTES = 1 << 30
_Id = Annotated[int, Meta(ge=0, le=2**53)]
_Pixels = Annotated[float, Meta(ge=-1e6, le=1e6)]


class _Image(msgspec.Struct, frozen=True):
    id: _Id
    file_name: Annotated[str, Meta(min_length=1, max_length=4096)]


class _Annotation(msgspec.Struct, frozen=True):
    image_id: _Id
    category_id: _Id
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    iscrowd: Annotated[int, Meta(ge=0, le=1)] = 0


class _Category(msgspec.Struct, frozen=True):
    id: _Id


class _Coco(msgspec.Struct, frozen=True):
    """COCO's format has more fields, which are none of our business."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read(file: Path, preprocessing: Preprocessing) -> tuple[list[Path], Floats]:
    """The images, and the boxes of each as `[n, most, 6]`: ymin, xmin, ymax, xmax, class (-1 fills up), crowd.

    Args:
        file: In the folder of the images.
        preprocessing: Of the images.

    Raises:
        DataError: It is no such file, or names an image that is not there.
    """
    found = _decoded(file)
    first = min((one.id for one in found.categories), default=0)
    known = {one.id for one in found.categories}
    of_image: dict[int, list[_Annotation]] = {one.id: [] for one in found.images}
    for number, one in enumerate(found.annotations):
        if one.image_id not in of_image or one.category_id not in known:
            raise DataError(f"annotation {number} is of an image or a category that is not listed", where=str(file))
        of_image[one.image_id].append(one)
    files = [file.parent / image.file_name for image in found.images]
    most = max((len(each) for each in of_image.values()), default=0)
    rows = np.zeros((len(files), max(1, most), 6), np.float32)
    rows[:, :, 4] = -1
    for number, (path, image) in enumerate(zip(files, found.images, strict=True)):
        if not path.is_file():
            raise DataError(f"names {image.file_name[:80]!r}, which is not there", where=str(file))
        with pictures.opened(path) as picture:
            wide, high = picture.size
        left, top, right, bottom = pictures.region((high, wide), preprocessing)
        place = 0
        for one in of_image[image.id]:
            x, y, broad, tall = one.bbox
            edges = np.array([(y - top), (x - left), (y + tall - top), (x + broad - left)])
            share = np.clip(edges / [bottom - top, right - left, bottom - top, right - left], 0, 1)
            if (share[2:] > share[:2]).all():
                rows[number, place] = (*share, one.category_id - first, one.iscrowd)
                place += 1
    return files, rows


def _decoded(file: Path) -> _Coco:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"is larger than {_MAX_BYTES:,} bytes", where=str(file))
        return msgspec.json.decode(file.read_bytes(), type=_Coco)
    except OSError as cause:
        raise DataError(f"cannot be read: {cause.strerror}", where=str(file)) from cause
    except msgspec.DecodeError as cause:
        raise DataError(f"is not in COCO's format: {cause}", where=str(file)) from cause
