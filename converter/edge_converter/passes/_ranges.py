"""`calibrate`: the ranges of all activations over the calibration samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_converter import quantize
from edge_converter.passes._contract import Evidence, Room, Work
from edge_sdk.manifest import Pass as Record
from edge_sdk.wire import Wire


class CalibrateOptions(Wire, frozen=True, kw_only=True):
    """None yet: the smallest and the largest value seen."""


class Calibrate:
    """Finds the ranges that `quantize` needs for static formats."""

    name = "calibrate"
    version = 1
    serves_all_formats = True
    options = CalibrateOptions

    def requires(self, work: Work, options: CalibrateOptions, room: Room) -> str:
        """A float model, and samples."""
        del options
        if not work.is_float:
            return "the model is quantized already"
        return "" if len(room.rows) else "there are no calibration samples"

    def run(self, work: Work, options: CalibrateOptions, room: Room) -> Work:
        """Find the ranges.

        Raises:
            QuantizationError: The quantizer failed.
        """
        del options
        path = room.folder / "calibrated.tflite"
        path.write_bytes(work.floating)
        ranges: dict[str, Any] = quantize.calibrate(path, room.samples, room.rows, threads=room.threads)
        evidence: Evidence = {"tensors": len(ranges), "samples": len(room.rows)}
        record = Record(name=self.name, parameters={"method": "min_max"}, evidence=evidence)
        return replace(work, ranges=ranges, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: CalibrateOptions) -> str:
        """Ranges, and an untouched model."""
        del options
        if after.content != before.content:
            return "calibration changed the model"
        return "" if after.ranges else "no ranges were found"
