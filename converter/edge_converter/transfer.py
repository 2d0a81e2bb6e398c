"""int8 integers that take few bits when the file is compressed, as few as a size asks for.

What a bit costs is one price for the whole network, as a share of each layer's output (`rounding.compensated`): each
layer gets the step, and each weight the integer, at which a bit more would no longer pay. The price that comes to the
size asked for is found by trying several in one walk, and once more between the two nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zstandard

from edge_converter import flatbuffer
from edge_converter.compensate import compensate_all
from edge_converter.errors import QuantizationError
from edge_converter.follower import Twin
from edge_converter.values import Floats

_LEVEL = 19  # what bundles count transfers with
# A hundredth of 8 bits' own noise, up to where networks no longer answer.
_PRICES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
_BETWEEN = 3
# The second round's prices are meant for these shares of what is asked for, so that one falls just below.
_SHARES = (0.995, 0.985, 0.96)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """A file and what it takes.

    Attributes:
        content: The file; names of inner tensors are cut as in every variant.
        price: Of a bit, as a share of the mean square of a layer's output.
        transfer_bytes: Of the file, compressed.
    """

    content: bytes
    price: float
    transfer_bytes: int


def fit(source: bytes, quantized: bytes, inputs: Mapping[int, Floats], max_transfer: int, *, where: str) -> Light:
    """The file with the least price whose compressed size is what is asked for, or less.

    Args:
        source: The float file.
        quantized: What the quantizer made of it in int8.
        inputs: Calibration samples by input tensor of the source.
        max_transfer: Bytes.
        where: The source's name, for errors.

    Raises:
        QuantizationError: No price comes to so few bytes.
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone.
    """
    tried = _tried(source, quantized, inputs, (0.0, *_PRICES), where=where)
    if tried[0].transfer_bytes <= max_transfer:
        return tried[0]
    small = next((one for one in tried if one.transfer_bytes <= max_transfer), None)
    if small is None:
        raise QuantizationError(
            f"{tried[-1].transfer_bytes:,} bytes is the least it compresses to, and {max_transfer:,} are allowed",
            where=where,
        )
    large = tried[tried.index(small) - 1]
    between = _tried(source, quantized, inputs, _prices(large, small, max_transfer), where=where)
    fits = [one for one in (*between, small) if one.transfer_bytes <= max_transfer]
    return min(fits, key=lambda one: one.price)


def transfer_bytes(content: bytes) -> int:
    """What a file takes when compressed as bundles are."""
    return len(zstandard.ZstdCompressor(level=_LEVEL).compress(content))


def _prices(large: Light, small: Light, max_transfer: int) -> Sequence[float]:
    """Prices between two, for sizes just below what is asked for: sizes go down with the price's logarithm."""
    low, high = math.log(large.price or _PRICES[0] / 10), math.log(small.price)
    slope = (high - low) / (small.transfer_bytes - large.transfer_bytes)
    return [math.exp(low + slope * (share * max_transfer - large.transfer_bytes)) for share in _SHARES]


def _tried(
    source: bytes, quantized: bytes, inputs: Mapping[int, Floats], prices: Sequence[float], *, where: str
) -> list[Light]:
    twins = [Twin(content=quantized, price=price) for price in prices]
    found = []
    for price, one in zip(prices, compensate_all(source, twins, inputs, where=where), strict=True):
        content = flatbuffer.shorten_names(one.content, where=where)
        found.append(Light(content=content, price=price, transfer_bytes=transfer_bytes(content)))
    return found
