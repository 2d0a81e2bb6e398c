"""The number formats that need no search, made of one float file together, so that what they share is found once.

For each base (`edge_converter.workbench`): channels at one scale, ranges, the quantizer's files, and one walk in which
the integers of all of them are chosen. What a format's integers chosen anew do not bring closer to the float file, on
samples that chose nothing, is left as the quantizer made it.

Where the layers cannot be looked at one by one (several inputs, few samples, an operator the runtime does not compute
alone) the quantizer's own ranges and integers are taken, and the evidence says why.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_converter import quantize, transfer, workbench
from edge_converter.compensate import compensate_all
from edge_converter.data import Integers, Samples
from edge_converter.errors import QuantizationError
from edge_converter.follower import Twin
from edge_converter.quantize import Granularity, Quantized
from edge_converter.ranges import Method
from edge_converter.workbench import Base, Workbench
from edge_sdk.manifest import Pass, Precision

_log = logging.getLogger(__name__)

METHODS = (Method.MIN_MAX, Method.MSE)
_COMPENSATED = (Precision.INT8, Precision.WEIGHT8, Precision.WEIGHT4)
_SHOWN = 500  # characters of a list of layers
Evidence = dict[str, bool | int | float | str]
_CANNOT = (ValueError, RuntimeError, np.linalg.LinAlgError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A file to make.

    Attributes:
        precision: Its number format; not `mixed`.
        into: The file to write.
        granularity: Of the weights' scales, in `int8`.
        price: What a bit costs, as a share of the mean square of a layer's output; 0: size is no object. `int8` only.
        levels: Distinct integers a channel of large layers, odd; 0 for as many as the format has. `int8` only.
        max_transfer: Bytes it may have when compressed; the price that comes to that is found. `int8` only.
    """

    precision: Precision
    into: Path
    granularity: Granularity = Granularity.CHANNEL
    price: float = 0.0
    levels: int = 0
    max_transfer: int | None = None

    @property
    def is_light(self) -> bool:
        """Its integers are chosen for what they take when compressed, too."""
        return self.price > 0 or self.levels > 0 or self.max_transfer is not None


def make(
    source: Path, samples: Samples, rows: Integers, wants: Sequence[Want], *, methods: tuple[Method, ...] = METHODS
) -> list[Quantized | QuantizationError]:
    """Write `source` in several number formats.

    Requires: a float `.tflite` file. Ensures: each file named that is no error is whole, its operators are the
    quantizer's, and on samples apart its scores are at least as close to the float file's as the quantizer's are,
    but for what is made light.

    Args:
        source: The float file.
        samples: Calibration data; labels are not looked at.
        rows: Of it.
        wants: What to make.
        methods: For the ranges of activations; the best by samples apart is taken.

    Returns:
        In the order of `wants`: the file with what was done as `compression`, or why it cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="edge-quantize-") as folder:
        try:
            bench = workbench.open_bench(source, samples, rows, Path(folder))
            done, why = _together(bench, wants, methods), ""
        except (*_CANNOT, QuantizationError) as cause:
            first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            done, why = {}, f"its layers are not looked at one by one: {first}"
            _log.info("%s: %s", source.name, why)
    found = []
    for number, want in enumerate(wants):
        try:
            found.append(done[number] if number in done else _plain(source, samples, rows, want, why))
        except QuantizationError as cause:  # noqa: PERF203 - one format's failure is not the others'
            found.append(cause)
    return found


def _plain(source: Path, samples: Samples, rows: Integers, want: Want, why: str) -> Quantized:
    """The quantizer's own file.

    Raises:
        QuantizationError: It cannot be made, or is to be light, for which layers must be looked at one by one.
    """
    if want.is_light:
        raise QuantizationError(why, where=str(source))
    static = quantize.needs_ranges(want.precision)
    ranges = quantize.calibrate(source, samples, rows, threads=1) if static else None
    made = quantize.quantize(source, want.precision, want.into, ranges=ranges, granularity=want.granularity)
    return _told(made, {"rounding": "nearest", "because": why[:120]}) if want.precision in _COMPENSATED else made


def _together(
    bench: Workbench, wants: Sequence[Want], methods: tuple[Method, ...]
) -> dict[int, Quantized | QuantizationError]:
    """All that can be made, by place in `wants`."""
    done: dict[int, Quantized | QuantizationError] = {}
    by_base: dict[Granularity, list[int]] = {}
    for number, want in enumerate(wants):
        if want.precision in _COMPENSATED or quantize.needs_ranges(want.precision):
            by_base.setdefault(want.granularity, []).append(number)
    for granularity, numbers in by_base.items():
        base = bench.base(granularity, methods)
        jobs: dict[int, tuple[Want, Quantized]] = {}
        for number in numbers:
            want = wants[number]
            try:
                made = _quantized(base, want)
                if want.max_transfer is not None:
                    done[number] = _light(bench, base, want.max_transfer, made)
                elif want.precision in _COMPENSATED:
                    jobs[number] = want, made
                else:
                    done[number] = _told(made, base.evidence)
            except QuantizationError as cause:
                done[number] = cause
        done |= _refined(bench, base, jobs)
    return done


def _quantized(base: Base, want: Want) -> Quantized:
    static = quantize.needs_ranges(want.precision)
    ranges = base.ranges if static else None
    return quantize.quantize(base.path, want.precision, want.into, ranges=ranges, granularity=want.granularity)


def _refined(bench: Workbench, base: Base, jobs: dict[int, tuple[Want, Quantized]]) -> dict[int, Quantized]:
    """The files with integers chosen anew, where that helps or is what was asked for; one walk for all of them."""
    if not jobs:
        return {}
    twins = [
        Twin(
            content=made.path.read_bytes(),
            most=want.levels // 2 or None,
            price=want.price,
            follows=want.precision is not Precision.WEIGHT8,
        )
        for want, made in jobs.values()
    ]
    walked = compensate_all(base.content, twins, bench.choosing, where=str(bench.source))
    done = {}
    for (number, (want, made)), one in zip(jobs.items(), walked, strict=True):
        error, before = bench.error(one.content), bench.error(made.path.read_bytes())
        told: Evidence = dict(base.evidence) if quantize.needs_ranges(want.precision) else {}
        if want.is_light or error < before:
            made.path.write_bytes(one.content)
            told |= {"rounding": "compensated", "samples": one.samples, "error": round(error, 6)}
        else:
            told |= {"rounding": "nearest", "error": round(before, 6)}
        told |= {"price": want.price} if want.price else {}
        told |= {"levels": want.levels} if want.levels else {}
        if one.skipped:
            told["left_as_they_were"] = "; ".join(one.skipped)[:_SHOWN]
        done[number] = _told(made, told)
    return done


def _light(bench: Workbench, base: Base, max_transfer: int, made: Quantized) -> Quantized:
    """The file as light as asked for.

    Raises:
        QuantizationError: It cannot be.
    """
    where = str(bench.source)
    found = transfer.fit(base.content, made.path.read_bytes(), bench.choosing, max_transfer, where=where)
    made.path.write_bytes(found.content)
    told: Evidence = {**base.evidence, "rounding": "compensated", "price": float(f"{found.price:.3g}")}
    return _told(made, {**told, "error": round(bench.error(found.content), 6), "max_transfer": max_transfer})


def _told(made: Quantized, evidence: Evidence) -> Quantized:
    parameters = {**made.compression.parameters, **evidence}
    return replace(made, compression=Pass(name=made.compression.name, parameters=parameters))
