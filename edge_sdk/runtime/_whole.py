"""Whether a `.tflite` file is whole, for runtimes that do not look.

tflite-runtime takes every offset in a file at its word: 50 of 60 files cut somewhere ended its process by a signal
(2.13.0 and 2.14.0, measured). LiteRT refuses them by itself. What is looked at here is that everything the file refers
to lies within it; that the numbers in it make sense is still the runtime's to find out.

Layout and fields: the FlatBuffers internals document, and TensorFlow's `schema.fbs`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

# As LiteRT says it, so that both are translated alike.
_NOT_WHOLE = "The model is not a valid Flatbuffer buffer"
_IDENTIFIER = b"TFL3"

# Of each table the fields that refer to something: a vector of items of so many bytes, a table, or a vector of tables.
# A table of options is looked at as a whole, not into.
_Field = int | tuple[str, str]
_ONE, _EACH = "one", "each"
_SCHEMA: Mapping[str, Mapping[int, _Field]] = MappingProxyType(
    {
        "Model": {
            1: (_EACH, "OperatorCode"),
            2: (_EACH, "SubGraph"),
            3: 1,
            4: (_EACH, "Buffer"),
            5: 4,
            6: (_EACH, "Metadata"),
            7: (_EACH, "SignatureDef"),
        },
        "OperatorCode": {1: 1},
        "SubGraph": {0: (_EACH, "Tensor"), 1: 4, 2: 4, 3: (_EACH, "Operator"), 4: 1},
        "Tensor": {0: 4, 3: 1, 4: (_ONE, "Quantization"), 6: (_ONE, "Options"), 7: 4, 9: (_EACH, "Options")},
        "Quantization": {0: 4, 1: 4, 2: 4, 3: 8, 5: (_ONE, "Options")},
        "Operator": {1: 4, 2: 4, 4: (_ONE, "Options"), 5: 1, 7: 1, 8: 4, 12: (_ONE, "Options")},
        "Buffer": {0: 1},
        "Metadata": {0: 1},
        "SignatureDef": {0: (_EACH, "TensorMap"), 1: (_EACH, "TensorMap"), 2: 1},
        "TensorMap": {0: 1},
        "Options": {},
    }
)


def check_whole(model: str | bytes) -> None:
    """Refuse a file of which a part is missing.

    Args:
        model: A file's path, or its bytes.

    Raises:
        ValueError: It is not whole, or no `.tflite`.
        OSError: It cannot be read.
    """
    if isinstance(model, bytes):
        _Walk(model).check()
        return
    with Path(model).open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as cause:  # it is empty
            raise ValueError(_NOT_WHOLE) from cause
    with mapped:
        _Walk(mapped).check()


class _Walk:
    """Goes from the root to all that is referred to."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        # Tables do not overlap and have four bytes at least: a file that refers to more goes in circles.
        self._left = self._size // 4

    def check(self) -> None:
        if self._size < 8 or self._data[4:8] != _IDENTIFIER:  # noqa: PLR2004 - the root's offset and the identifier
            raise ValueError(_NOT_WHOLE)
        self._table(self._number("<I", 0), "Model")

    def _table(self, at: int, kind: str) -> None:
        self._left -= 1
        vtable = at - self._number("<i", at)
        entries, size = self._number("<H", vtable), self._number("<H", vtable + 2)
        if self._left < 0 or vtable + entries > self._size or at + size > self._size:
            raise ValueError(_NOT_WHOLE)
        for field, what in _SCHEMA[kind].items():
            slot = 4 + 2 * field
            offset = self._number("<H", vtable + slot) if slot + 2 <= entries else 0
            if offset:
                target = at + offset + self._number("<I", at + offset)
                self._target(target, what)

    def _target(self, at: int, what: _Field) -> None:
        if isinstance(what, int):
            self._vector(at, what)
        elif what[0] == _ONE:
            self._table(at, what[1])
        else:
            for item in range(self._vector(at, 4)):
                place = at + 4 + 4 * item
                self._table(place + self._number("<I", place), what[1])

    def _vector(self, at: int, item_bytes: int) -> int:
        count = self._number("<I", at)
        if at + 4 + count * item_bytes > self._size:
            raise ValueError(_NOT_WHOLE)
        return count

    def _number(self, form: str, at: int) -> int:
        if at < 0 or at + struct.calcsize(form) > self._size:
            raise ValueError(_NOT_WHOLE)
        number: int = struct.unpack_from(form, self._data, at)[0]
        return number
