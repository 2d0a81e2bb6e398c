"""Taking a zlib stream apart without trusting it: whole, alone, and within bounds that are checked on the way."""

from __future__ import annotations

import zlib
from typing import Final

from edge_sdk.errors import WireError

# RFC 1950 CMF of a deflate stream with a 32 KiB window; JSON starts with `{` (0x7b).
ZLIB_FIRST_BYTE: Final = 0x78


def inflate(payload: bytes, *, where: str, max_bytes: int, max_inflated_bytes: int) -> bytes:
    """What was compressed.

    Raises:
        WireError: Too large, a decompression bomb, or no whole zlib stream.
    """
    if len(payload) > max_bytes:
        raise WireError(f"{len(payload)} bytes where at most {max_bytes} are taken", where=where)
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(payload, max_inflated_bytes)
    except zlib.error as cause:
        raise WireError(f"not a zlib stream: {cause}", where=where) from cause
    if inflater.unconsumed_tail or not inflater.eof:
        raise WireError(f"inflates to more than {max_inflated_bytes} bytes, or is cut short", where=where)
    if inflater.unused_data:
        raise WireError(f"{len(inflater.unused_data)} bytes follow the zlib stream", where=where)
    return plain
