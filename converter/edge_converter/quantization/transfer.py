"""int8 integers that take few bits when the file is compressed, as few as a size asks for.

What a bit costs is one price for the whole network, as a share of each layer's output (`rounding.compensated`): each
layer gets the step, and each weight the integer, at which a bit more would no longer pay. The price that comes to the
size asked for is found by trying: a price four times as high saves about one bit of every weight, so a few tries come
close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import zstandard

from edge_converter import flatbuffer
from edge_converter.errors import QuantizationError
from edge_converter.quantization.compensate import compensate_all
from edge_converter.quantization.follower import Twin
from edge_converter.quantization.quantize import NARROW
from edge_converter.quantization.values import Floats

_LEVEL = 19  # what bundles count transfers with
_FIRST = 1e-8  # EfficientNet-Lite0 takes 4 bits a weight at it, ResNet8 6
_LEAST, _LARGEST = 1e-14, 1e-2
_TRIES = 6
# As good as what is asked for.
_CLOSE = 0.97
_AIM = 0.987


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
    size = transfer_bytes(flatbuffer.shorten_names(quantized, where=where))
    if size <= max_transfer:
        whole = _made(source, quantized, inputs, 0.0, where=where)
        if whole.transfer_bytes <= max_transfer:
            return whole
    weights = _weights(quantized, where=where)
    price, best = _FIRST, None
    dearest, cheapest = _LARGEST, _LEAST
    for _ in range(_TRIES):
        tried = _made(source, quantized, inputs, price, where=where)
        fits = tried.transfer_bytes <= max_transfer
        if fits and (best is None or tried.price < best.price):
            best = tried
        if fits and tried.transfer_bytes >= _CLOSE * max_transfer:
            break
        # What a try has shown bounds the next ones.
        dearest, cheapest = (min(dearest, price), cheapest) if fits else (dearest, max(cheapest, price))
        bits = 8 * (tried.transfer_bytes - _AIM * max_transfer) / weights
        price = min(max(price * 4.0**bits, _LEAST), _LARGEST)
        if not cheapest < price < dearest:
            price = math.sqrt(cheapest * dearest)
    if best is None:
        raise QuantizationError(
            f"{tried.transfer_bytes:,} bytes is what it compresses to, and {max_transfer:,} are allowed", where=where
        )
    return best


def transfer_bytes(content: bytes) -> int:
    """What a file takes when compressed as bundles are."""
    return len(zstandard.ZstdCompressor(level=_LEVEL).compress(content))


def _weights(content: bytes, *, where: str) -> int:
    """Integers that are chosen at a price."""
    model = flatbuffer.parse(content, where=where)
    tensors = model.subgraphs[0].tensors
    kinds = [one for one in model.subgraphs[0].operators if flatbuffer.op_name(model, one) in NARROW]
    return max(1, sum(math.prod(int(size) for size in tensors[one.inputs[1]].shape) for one in kinds))


def _made(source: bytes, quantized: bytes, inputs: Mapping[int, Floats], price: float, *, where: str) -> Light:
    (one,) = compensate_all(source, [Twin(content=quantized, price=price)], inputs, where=where)
    content = flatbuffer.shorten_names(one.content, where=where)
    return Light(content=content, price=price, transfer_bytes=transfer_bytes(content))
