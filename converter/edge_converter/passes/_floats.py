"""`fold` and `equalize`: a float model that computes less or has its channels at one scale, and answers as before."""

from __future__ import annotations

import logging
from dataclasses import replace

from edge_converter import graph
from edge_converter.errors import QuantizationError
from edge_converter.passes._contract import Evidence, Room, Work
from edge_converter.quantization import equalize, folding, ranges
from edge_converter.quantization.bench import one_by_one, open_bench
from edge_converter.quantization.equalize import Aim
from edge_sdk.manifest import Pass as Record
from edge_sdk.wire import Wire

_log = logging.getLogger(__name__)

# What channels are equalized by: only the largest magnitudes count.
_SAMPLES = 32
# Relative to the variance of the scores: what float32 makes of the same network computed with other factors is a
# millionth of a millionth.
_SAME = 1e-8


class FoldOptions(Wire, frozen=True, kw_only=True):
    """None: what can be folded exactly is."""


class Fold:
    """Folds what is left of batch normalization behind convolutions into their weights."""

    name = "fold"
    version = 1
    options = FoldOptions
    serves_all_formats = True

    def requires(self, work: Work, options: FoldOptions, room: Room) -> str:
        """A float model."""
        del options, room
        return "" if work.is_float else "the model is quantized already: put fold before quantize"

    def run(self, work: Work, options: FoldOptions, room: Room) -> Work:
        """Fold; the evidence names what a fold would remove and cannot."""
        del options
        made = folding.fold(work.floating, where=room.where)
        evidence: Evidence = {"operators": len(made.folded)}
        if made.left:
            evidence["left"] = "; ".join(made.left)[:500]
        record = Record(name=self.name, parameters={}, evidence=evidence)
        return replace(work, floating=made.content, content=made.content, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: FoldOptions) -> str:
        """A float model with no more operators than before."""
        del options
        count = [sum(graph.parsed(each.content, where="fold").operators.values()) for each in (before, after)]
        return "" if after.is_float and count[1] <= count[0] else f"{count[0]} operators became {count[1]}"


class EqualizeOptions(Wire, frozen=True, kw_only=True):
    """What is balanced.

    Attributes:
        aim: `activations`, `weights`, or `both`, as one scale a layer needs it.
    """

    aim: Aim = Aim.ACTIVATIONS


class Equalize:
    """Scales channels where they are computed and back where they are read, so that one grid fits all of them."""

    name = "equalize"
    version = 1
    options = EqualizeOptions
    serves_all_formats = True

    def requires(self, work: Work, options: EqualizeOptions, room: Room) -> str:
        """A float model, and samples."""
        del options
        if not work.is_float:
            return "the model is quantized already: put equalize before quantize"
        return "" if len(room.rows) else "there are no calibration samples"

    def run(self, work: Work, options: EqualizeOptions, room: Room) -> Work:
        """Scale what can be scaled; where nothing can, the model is left as it is, and the evidence says why."""
        evidence: Evidence = {"channels": 0}
        content = work.floating
        try:
            with one_by_one(room.where):
                there = open_bench(work.floating, room.samples, room.rows, where=room.where)
                some = {tensor: each[:_SAMPLES] for tensor, each in there.choosing.items()}
                seen = ranges.observe(content, some, where=room.where)
                largest = {name: one.channels for name, one in seen.items()}
                made = equalize.equalize(content, largest, options.aim, where=room.where)
                error = there.error(made.content) if made.groups else 0.0
            if error <= _SAME:
                content = made.content
                evidence = {"channels": made.channels, "held_by_relu6": made.held, "error": float(f"{error:.3g}")}
            else:
                evidence["because"] = f"the answers would change by {error:.2g} of their variance"
        except QuantizationError as cause:
            evidence["because"] = cause.what[:200]
            _log.info("%s: channels are left at their scales: %s", room.where, cause.what)
        record = Record(name=self.name, parameters={"aim": options.aim.value}, evidence=evidence)
        return replace(work, floating=content, content=content, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: EqualizeOptions) -> str:
        """A float model still."""
        del before, options
        return "" if after.is_float else "the model is no longer float"
