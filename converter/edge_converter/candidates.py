"""Every file worth trying: each source in float, and what the recipe makes of it and of its twins.

Making a candidate says nothing of its worth; `edge_converter.judge` evaluates it and keeps or refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_converter import cache as caching
from edge_converter import flatbuffer, graph, pipeline, sequences
from edge_converter.cache import Cache
from edge_converter.errors import PassContractError, QuantizationError
from edge_converter.graph import Graph
from edge_converter.passes import Room
from edge_converter.pipeline import Step
from edge_converter.quantization import quantize
from edge_converter.recipe import VariantRecipe
from edge_sdk.manifest import Pass, Precision, Refused

GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFile:
    """A source as a `.tflite` file, to derive number formats from.

    Attributes:
        source: The member of the family it is.
        path: The file.
        kind: What it is to a recipe: `given`, or the kind of twin that training made, such as `pruned`.
        label: What was done to the source before, as it goes into ids: empty, or such as `pruned50`.
        compression: The same, with parameters.
    """

    source: str
    path: Path
    kind: str = GIVEN
    label: str = ""
    compression: tuple[Pass, ...] = ()

    @property
    def roundable(self) -> bool:
        """Its weights may be rounded either way: zeros of a pruned file must stay zeros, and integers what they are."""
        return not {step.name for step in self.compression} & {"prune", "qat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that may become a variant.

    Attributes:
        id: Of the variant.
        source: The member of the family it comes from.
        path: The file.
        graph: What it computes.
        precision: Its number format.
        compression: What was done to the source.
        exceptions: Layers in another format.
        given: It is a source as it was given, not something made of it.
        origin: The float file it was made of, or itself.
    """

    id: str
    source: str
    path: Path
    origin: Path
    graph: Graph
    precision: Precision
    compression: tuple[Pass, ...]
    exceptions: tuple[str, ...]
    given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A variant that is to be made.

    Attributes:
        id: Of the variant.
        file: What it is made of.
        recipe: How.
        begin: The key that the keys of its results are made of.
        steps: The recipe's passes with those keys.
        macs: Multiply-accumulates of one inference of the file.
    """

    id: str
    file: FloatFile
    recipe: VariantRecipe
    begin: str
    steps: tuple[Step, ...]
    macs: int


def plan(files: Sequence[FloatFile], variants: Sequence[VariantRecipe], room: Room) -> tuple[Planned, ...]:
    """What the recipe makes of each file; nothing of those that are quantized already.

    Args:
        files: The sources in float, and their twins.
        variants: The recipe.
        room: What passes may use.

    Raises:
        RecipeError: A pass or an option is not known.
    """
    alone = _alone(files)
    digest = _samples_key(room)
    found: list[Planned] = []
    for file in files:
        wanted = [variant for variant in variants if variant.of == file.kind]
        seen = graph.read(file.path)
        if not wanted or seen.precision is not Precision.FP32:
            continue
        begin = pipeline.root(file.path.read_bytes(), digest, room.seed)
        for variant in wanted:
            steps = pipeline.steps(variant, begin, max_size=room.max_size)
            found.append(
                Planned(
                    id=_id(file, variant.id, alone=alone),
                    file=file,
                    recipe=variant,
                    begin=begin,
                    steps=steps,
                    macs=seen.cost.macs,
                )
            )
    return tuple(found)


def make(
    planned: Sequence[Planned], room: Room, cache: Cache, *, reasons: Mapping[str, str] | None = None
) -> tuple[list[Candidate], list[Refused]]:
    """Make every variant of a plan; what cannot be made is refused with the reason.

    Args:
        planned: From `plan`.
        room: What passes may use; each variant gets a folder of its own in its folder.
        cache: Of earlier results.
        reasons: Why some cannot be made, by id, where that is known already.
    """
    made: list[Candidate] = []
    refused = [Refused(id=id_, reason=reason) for id_, reason in (reasons or {}).items()]
    planned = [one for one in planned if one.id not in (reasons or {})]
    plain = [one for one in planned if not one.recipe.searched]
    room.progress.stage("quantize", len(plain))
    # What is searched for says by itself how far it is, so it comes last.
    for number, one in enumerate((*plain, *(one for one in planned if one.recipe.searched))):
        own = replace(room, folder=room.folder / f"variant-{number}", where=str(one.file.path))
        own.folder.mkdir()
        try:
            made.append(_make(one, own, cache))
        except (QuantizationError, PassContractError) as error:
            refused.append(Refused(id=one.id, reason=error.what[:1000]))
        if not one.recipe.searched:
            room.progress.advance(1)
    return made, refused


def given(files: Sequence[FloatFile]) -> list[Candidate]:
    """The files themselves as candidates."""
    alone, found = _alone(files), []
    for file in files:
        seen = graph.read(file.path)
        found.append(
            Candidate(
                id=_id(file, seen.precision.value, alone=alone),
                source=file.source,
                path=file.path,
                origin=file.path,
                graph=seen,
                precision=seen.precision,
                compression=file.compression,
                exceptions=() if seen.precision is Precision.MIXED else seen.exceptions(seen.precision),
                given=file.kind == GIVEN,
            )
        )
    return found


def in_order(files: Sequence[FloatFile], made: Sequence[Candidate]) -> list[Candidate]:
    """The files themselves and all that was made of them, each behind the file it was made of."""
    places = [file.path for file in files]
    return sorted([*given(files), *made], key=lambda one: places.index(one.origin))


def _make(one: Planned, room: Room, cache: Cache) -> Candidate:
    """One variant.

    Raises:
        QuantizationError: It cannot be made, or not as small as it has to be, or the runtime does not compute it.
        PassContractError: A pass broke its promise.
    """
    sequences.refuse(one.file.path)
    begin = pipeline.begin(one.file.path.read_bytes(), one.recipe.precision, where=room.where)
    work = pipeline.run(begin, one.steps, room, cache)
    into = room.folder / "made.tflite"
    into.write_bytes(flatbuffer.shorten_names(work.content, where=room.where))
    size = into.stat().st_size
    if room.max_size is not None and size > room.max_size:
        raise QuantizationError(f"{size:,} bytes, where at most {room.max_size:,} are allowed", where=room.where)
    result = quantize.read_back(into, one.recipe.precision, work.done[-1], where=room.where)
    return Candidate(
        id=one.id,
        source=one.file.source,
        path=into,
        origin=one.file.path,
        graph=result.graph,
        precision=one.recipe.precision,
        compression=(*one.file.compression, *work.done),
        exceptions=result.exceptions,
        given=False,
    )


def _samples_key(room: Room) -> str:
    digests = room.samples.digests()
    return caching.key(
        "samples", [digests[row].hex() for row in room.rows], repr(room.samples.preprocessing), room.threads
    )


def _alone(files: Sequence[FloatFile]) -> bool:
    return len({file.source for file in files}) == 1


def _id(file: FloatFile, name: str, *, alone: bool) -> str:
    return "-".join(part for part in ("" if alone else file.source, file.label, name) if part)
