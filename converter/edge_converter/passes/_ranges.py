"""`calibrate`: the ranges of all activations over the calibration samples."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

from edge_converter.errors import QuantizationError
from edge_converter.passes._contract import Evidence, Room, Work
from edge_converter.quantization import quantize, ranges
from edge_converter.quantization.bench import Bench, one_by_one, open_bench
from edge_converter.quantization.quantize import Granularity
from edge_converter.quantization.ranges import Method
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision
from edge_sdk.wire import Wire

_log = logging.getLogger(__name__)

# What is tried where the best is to be found: percentile and entropy clip what may decide.
_TRIED = (Method.MIN_MAX, Method.MSE)


class CalibrateOptions(Wire, frozen=True, kw_only=True):
    """How ranges are chosen.

    Attributes:
        method: `min-max`, `percentile`, `mse`, `entropy`; `best` tries min-max and mse on samples apart.
        granularity: Of the weights the ranges are tried with: `channel` or `tensor`.
    """

    method: Literal["best", "min-max", "percentile", "mse", "entropy"] = "best"
    granularity: Granularity = Granularity.CHANNEL


class Calibrate:
    """Finds the ranges that `quantize` needs for static formats."""

    name = "calibrate"
    version = 2
    options = CalibrateOptions
    serves_all_formats = True

    def requires(self, work: Work, options: CalibrateOptions, room: Room) -> str:
        """A float model, and samples."""
        del options
        if not work.is_float:
            return "the model is quantized already"
        return "" if len(room.rows) else "there are no calibration samples"

    def run(self, work: Work, options: CalibrateOptions, room: Room) -> Work:
        """Find the ranges; the quantizer's own where the layers cannot be looked at one by one.

        Raises:
            QuantizationError: The quantizer failed.
        """
        evidence: Evidence
        try:
            with one_by_one(room.where):
                there = open_bench(work.floating, room.samples, room.rows, where=room.where)
                seen = ranges.observe(work.floating, there.choosing, where=room.where)
            found, evidence = _found(work, options, room, there, seen)
        except QuantizationError as cause:
            if options.method not in {"best", "min-max"}:
                raise
            _log.info("%s: the quantizer's own ranges are taken: %s", room.where, cause.what)
            path = room.folder / "calibrated.tflite"
            path.write_bytes(work.floating)
            found = quantize.calibrate(path, room.samples, room.rows, threads=room.threads)
            evidence = {"method": Method.MIN_MAX.value, "because": cause.what[:200]}
        parameters: Evidence = {"method": options.method, "samples": len(room.rows)}
        record = Record(name=self.name, parameters=parameters, evidence={**evidence, "tensors": len(found)})
        return replace(work, ranges=found, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: CalibrateOptions) -> str:
        """Ranges, and an untouched model."""
        del options
        if after.content != before.content:
            return "calibration changed the model"
        return "" if after.ranges else "no ranges were found"


def _found(
    work: Work, options: CalibrateOptions, room: Room, there: Bench, seen: dict[str, ranges.Observed]
) -> tuple[dict[str, Any], Evidence]:
    """The ranges by the method asked for, or by that whose int8 model answers closest to the float model's."""
    if options.method != "best":
        method = Method(options.method)
        return ranges.chosen(seen, method), {"method": method.value}
    source, into = room.folder / "float.tflite", room.folder / "tried.tflite"
    source.write_bytes(work.floating)
    tried = {method: ranges.chosen(seen, method) for method in _TRIED}
    errors: dict[Method, float] = {}
    for method, found in tried.items():
        quantize.quantize(source, Precision.INT8, into, ranges=found, granularity=options.granularity)
        errors[method] = there.error(into.read_bytes())
    best = min(errors, key=lambda method: errors[method])
    evidence: Evidence = {"method": best.value}
    return tried[best], evidence | {f"error_{method.value}": round(error, 6) for method, error in errors.items()}
