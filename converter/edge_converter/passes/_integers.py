"""Passes that choose the integers of a quantized model, or what is quantized, by what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from edge_converter import graph
from edge_converter.errors import QuantizationError
from edge_converter.passes._contract import Evidence, Room, Work
from edge_converter.quantization import mixed, partial, transfer
from edge_converter.quantization.bench import one_by_one, open_bench
from edge_converter.quantization.compensate import compensate_all
from edge_converter.quantization.follower import Twin
from edge_converter.quantization.quantize import Granularity, Instead
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision
from edge_sdk.wire import Bytes, Wire

_INTEGERS = (
    *(Precision.INT8, Precision.INT16X8, Precision.DYNAMIC),
    *(Precision.WEIGHT8, Precision.WEIGHT4, Precision.MIXED),
)
# Where 8-bit weights are all whose rounding counts, each layer's own error is all there is to mend.
_WEIGHTS_ALONE = (Precision.WEIGHT8, Precision.DYNAMIC, Precision.INT16X8)
_SHOWN_NAME = 60
_SHOWN_CHARS = 500  # of a list of layers
# Names of inner tensors are cut when a variant is finished, and what that saves is counted in.
_SLACK = 1.05


class CompensateOptions(Wire, frozen=True, kw_only=True):
    """None: what helps is taken."""


class Compensate:
    """Chooses integers so that the answers stay, where that brings them closer to the float model's."""

    name = "compensate"
    version = 3
    options = CompensateOptions
    serves_all_formats = False

    def requires(self, work: Work, options: CompensateOptions, room: Room) -> str:
        """A model with 8- or 4-bit weights."""
        del options, room
        if work.is_float:
            return "the model is not quantized: put quantize before it"
        return "" if work.precision in _INTEGERS else f"the weights of {work.precision.value} are no integers"

    def run(self, work: Work, options: CompensateOptions, room: Room) -> Work:
        """Choose; where the layers cannot be looked at one by one, the quantizer's integers stay and it says why."""
        del options
        follows = work.precision not in _WEIGHTS_ALONE
        return _chosen(self.name, work, room, Twin(content=work.content, follows=follows))

    def ensures(self, before: Work, after: Work, options: CompensateOptions) -> str:
        """The same operators and formats."""
        del options
        return _same_form(before, after)


class BiasesOptions(Wire, frozen=True, kw_only=True):
    """None: what helps is taken."""


class Biases:
    """Mends the biases alone, where the integers are to stay: a pruned model's zeros, what training chose."""

    name = "biases"
    version = 1
    options = BiasesOptions
    serves_all_formats = False

    def requires(self, work: Work, options: BiasesOptions, room: Room) -> str:
        """A model with 8- or 4-bit weights."""
        del options
        return Compensate().requires(work, CompensateOptions(), room)

    def run(self, work: Work, options: BiasesOptions, room: Room) -> Work:
        """Mend; where the layers cannot be looked at one by one, they stay, and it says why."""
        del options
        return _chosen(self.name, work, room, Twin(content=work.content, rounds=False))

    def ensures(self, before: Work, after: Work, options: BiasesOptions) -> str:
        """The same operators and formats."""
        del options
        return _same_form(before, after)


class SpareOptions(Wire, frozen=True, kw_only=True):
    """How close is close enough.

    Attributes:
        max_error: Mean square of what the scores may differ by on samples apart, relative to their variance.
        max_drop: Points of accuracy that may be lost at the most: so many answers may change on samples apart, of which
            there are 32 at the most. 100 leaves it to `max_error`.
        most: Share of the layers that may be in the other format.
        granularity: Of the weights' scales.
        instead: The other format: `float`, or `int16` activations for NPUs that compute no floats.
    """

    max_error: Annotated[float, Meta(gt=0, le=1)] = 0.005
    max_drop: Annotated[float, Meta(ge=0, le=100)] = 100.0
    most: Annotated[float, Meta(gt=0, le=1)] = 0.5
    granularity: Granularity = Granularity.CHANNEL
    instead: Instead = Instead.FLOAT


class Spare:
    """Makes int8 in which the layers that cost most are in a finer format, as few as a bound on the error needs."""

    name = "spare"
    version = 3
    options = SpareOptions
    serves_all_formats = False

    def requires(self, work: Work, options: SpareOptions, room: Room) -> str:
        """A float model with ranges of its activations."""
        del options, room
        if work.precision is not Precision.INT8:
            return f"it makes int8 models, not {work.precision.value}"
        if not work.is_float:
            return "the model is quantized already: spare takes the place of quantize"
        return "" if work.ranges else "it needs ranges: put calibrate before it"

    def run(self, work: Work, options: SpareOptions, room: Room) -> Work:
        """Search.

        Raises:
            QuantizationError: As many layers in the other format as may be are not enough, or the layers cannot be
                computed one by one.
        """
        bounds_drop = options.max_drop < 100  # noqa: PLR2004 - percent
        with one_by_one(room.where):
            there = open_bench(work.floating, room.samples, room.rows, where=room.where)

            def accepts(content: bytes) -> bool:
                close = there.error(content) <= options.max_error
                return close and not (bounds_drop and there.changed(content) > options.max_drop)

            found = partial.make(
                work.floating,
                work.ranges or {},
                there,
                room.folder,
                accepts=accepts,
                where=room.where,
                granularity=options.granularity,
                most=options.most,
                instead=options.instead,
            )
            evidence: Evidence = {
                f"layers_in_{options.instead.value}": len(found.others),
                "error": round(there.error(found.content), 6),
                "tries": found.tries,
            }
            if bounds_drop:
                evidence["answers_changed"] = there.changed(found.content)
        evidence |= {f"layer:{layer.name[:_SHOWN_NAME]}": round(layer.error, 8) for layer in found.layers}
        parameters: Evidence = {"max_error": options.max_error, "max_drop": options.max_drop, "most": options.most}
        parameters["instead"] = options.instead.value
        record = Record(name=self.name, parameters=parameters, evidence=evidence)
        return replace(work, content=found.content, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: SpareOptions) -> str:
        """Another file."""
        del options
        return "the file is as it was" if after.content == before.content else ""


class ClusterOptions(Wire, frozen=True, kw_only=True):
    """How light; the last of these that is set decides.

    Attributes:
        levels: Distinct integers a channel, odd.
        price: Of a bit, as a share of the mean square of a layer's output; 0 goes by `levels`.
        max_transfer: Bytes the compressed file may have: the price that comes to that is found. 0 goes by `price`.
    """

    levels: Annotated[int, Meta(ge=3, le=253)] = 49
    price: Annotated[float, Meta(ge=0, le=1)] = 0.0
    max_transfer: Bytes = 0


class Cluster:
    """Leaves those integers that take few bits when the file is compressed; it runs as fast as before."""

    name = "cluster"
    version = 3
    options = ClusterOptions
    serves_all_formats = False

    def requires(self, work: Work, options: ClusterOptions, room: Room) -> str:
        """An int8 model."""
        del room
        if work.is_float or work.precision is not Precision.INT8:
            return "only int8 models are clustered: put quantize before it"
        return "" if options.levels % 2 else "the levels are an even number: one is zero, the others come in pairs"

    def run(self, work: Work, options: ClusterOptions, room: Room) -> Work:
        """Choose.

        Raises:
            QuantizationError: The layers cannot be computed one by one, there are too few samples, or it cannot be made
                as light as asked.
        """
        parameters: Evidence = {"samples": len(room.rows)}
        evidence: Evidence = {"transfer_before": transfer.transfer_bytes(work.content)}
        with one_by_one(room.where):
            there = open_bench(work.floating, room.samples, room.rows, where=room.where)
            if options.max_transfer:
                parameters["max_transfer"] = options.max_transfer
                found = transfer.fit(
                    work.floating, work.content, there.choosing, options.max_transfer, where=room.where
                )
                content = found.content
                evidence["price"] = float(f"{found.price:.3g}")
            else:
                by: Evidence = {"price": options.price} if options.price else {"levels": options.levels}
                parameters |= by
                most = None if options.price else options.levels // 2
                twin = Twin(content=work.content, price=options.price, most=most)
                (one,) = compensate_all(work.floating, [twin], there.choosing, where=room.where, seed=room.seed)
                if not one.layers:
                    raise QuantizationError("no layer's integers could be matched with the float file's")
                content = one.content
            before, after = there.error(work.content), there.error(content)
        evidence |= {"error_before": round(before, 6), "error_after": round(after, 6)}
        evidence["transfer"] = transfer.transfer_bytes(content)
        record = Record(name=self.name, parameters=parameters, evidence=evidence)
        return replace(work, content=content, done=(*work.done, record))

    def ensures(self, before: Work, after: Work, options: ClusterOptions) -> str:
        """The same operators and formats, and no more bytes than asked for."""
        if options.max_transfer and transfer.transfer_bytes(after.content) > options.max_transfer * _SLACK:
            return f"{transfer.transfer_bytes(after.content):,} bytes when compressed"
        return _same_form(before, after)


class AllocateOptions(Wire, frozen=True, kw_only=True):
    """None: the size is the request's."""


class Allocate:
    """Stores weights in 8 bits, and in 4 where that costs least."""

    name = "allocate"
    version = 3
    options = AllocateOptions
    serves_all_formats = False

    def requires(self, work: Work, options: AllocateOptions, room: Room) -> str:
        """A float model."""
        del options, room
        if work.precision is not Precision.MIXED:
            return f"it makes mixed models, not {work.precision.value}"
        return "" if work.is_float else "the model is quantized already"

    def run(self, work: Work, options: AllocateOptions, room: Room) -> Work:
        """Search.

        Raises:
            QuantizationError: No layer bears 4 bits, or the file cannot be made as small as asked.
        """
        del options
        source, into = room.folder / "float.tflite", room.folder / "mixed.tflite"
        source.write_bytes(work.floating)
        with one_by_one(room.where):
            made = mixed.make(source, room.samples, room.rows, into, max_size=room.max_size, progress=room.progress)
        return replace(work, content=into.read_bytes(), done=(*work.done, made.compression))

    def ensures(self, before: Work, after: Work, options: AllocateOptions) -> str:
        """Another file."""
        del options
        return "the file is as it was" if after.content == before.content else ""


def _chosen(name: str, work: Work, room: Room, twin: Twin) -> Work:
    """The model with constants chosen anew where that brings its answers closer; it says what was found either way."""
    content, evidence = work.content, Evidence(kept=False)
    try:
        with one_by_one(room.where):
            there = open_bench(work.floating, room.samples, room.rows, where=room.where)
            (one,) = compensate_all(work.floating, [twin], there.choosing, where=room.where, seed=room.seed)
            before, after = there.error(work.content), there.error(one.content)
        evidence |= {"error_before": round(before, 6), "error_after": round(after, 6), "layers": one.layers}
        evidence |= {"samples": one.samples}
        if one.skipped:
            evidence["left_as_they_were"] = "; ".join(one.skipped)[:_SHOWN_CHARS]
        if after < before:
            content = one.content
            evidence["kept"] = True
    except QuantizationError as cause:
        evidence["because"] = cause.what[:200]
    return replace(work, content=content, done=(*work.done, Record(name=name, parameters={}, evidence=evidence)))


def _same_form(before: Work, after: Work) -> str:
    one, other = (graph.parsed(work.content, where="a file of ours") for work in (before, after))
    if one.operators != other.operators:
        return "the operators are others"
    formats = [[op.precision for op in found.weighted] for found in (one, other)]
    return "" if formats[0] == formats[1] else "the number formats are others"
