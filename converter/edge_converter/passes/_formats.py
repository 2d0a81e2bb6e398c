"""`quantize`: the model in another number format, rounded to the nearest."""

from __future__ import annotations

from dataclasses import replace

from edge_converter.passes._contract import Room, Work
from edge_converter.quantization import quantize
from edge_converter.quantization.quantize import Granularity
from edge_sdk.manifest import Precision
from edge_sdk.wire import Wire


class QuantizeOptions(Wire, frozen=True, kw_only=True):
    """How fine.

    Attributes:
        granularity: What has a scale of its own: each `channel` of a layer's weights, or only the layer (`tensor`),
            as some NPUs need it; of int8 alone.
    """

    granularity: Granularity = Granularity.CHANNEL


class Quantize:
    """Makes the variant's number format of the float model."""

    name = "quantize"
    version = 1
    options = QuantizeOptions
    serves_all_formats = False

    def requires(self, work: Work, options: QuantizeOptions, room: Room) -> str:
        """A float model, and for static formats ranges of the activations."""
        del room
        if not work.is_float:
            return "the model is quantized already"
        if work.precision not in quantize.DERIVED or work.precision is Precision.MIXED:
            return f"nothing is quantized to {work.precision.value}"
        if options.granularity is Granularity.TENSOR and work.precision is not Precision.INT8:
            return f"the weights of {work.precision.value} have one scale a channel"
        return (
            f"{work.precision.value} needs ranges: put calibrate before it"
            if quantize.needs_ranges(work.precision) and work.ranges is None
            else ""
        )

    def run(self, work: Work, options: QuantizeOptions, room: Room) -> Work:
        """Quantize.

        Raises:
            QuantizationError: The quantizer failed, or no layer is in the format asked for afterwards.
        """
        source, into = room.folder / "float.tflite", room.folder / "quantized.tflite"
        source.write_bytes(work.floating)
        ranges = dict(work.ranges) if work.ranges is not None and quantize.needs_ranges(work.precision) else None
        made = quantize.quantize(source, work.precision, into, ranges=ranges, granularity=options.granularity)
        return replace(work, content=into.read_bytes(), done=(*work.done, made.compression))

    def ensures(self, before: Work, after: Work, options: QuantizeOptions) -> str:
        """Another file."""
        del options
        return "the file is as it was" if after.content == before.content else ""
