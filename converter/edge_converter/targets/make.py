"""The variants for the accelerators of the boards, after those for the CPU are made and judged.

A variant whose file is its twin's shares the blob. A compiled file cannot run here, so its quality is its twin's, which
`target.fallback` names. What cannot be made is listed with the reason, and the rest of the bundle is made all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_converter import blob
from edge_converter.candidates import Candidate
from edge_converter.errors import CompilerError
from edge_converter.request import Progress
from edge_converter.sources import SourceModel
from edge_converter.targets import edgetpu, onnx, plan, vela
from edge_converter.targets.compiled import Compiled
from edge_converter.targets.plan import Twin, Wish
from edge_sdk.manifest import Coverage, Delegate, Latency, Missing, Origin, Pass, Quality, Target, Variant
from edge_sdk.predict import OpWork
from edge_sdk.profile import Profile

_COMPILED = frozenset({Delegate.EDGETPU, Delegate.ETHOS_U})
_MAX_TEXT = 1000
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of it.

    Attributes:
        variants: For accelerators, to stand after those for the CPU.
        files: Of the blobs that are not those of CPU variants.
        accelerated: Per profile, the ids.
        missing: What could not be made.
        latencies: What the compilers expect, and what was fitted to published figures.
    """

    variants: tuple[Variant, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    accelerated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
    latencies: tuple[Latency, ...] = ()


def make(
    boards: Sequence[Profile],
    models: Sequence[SourceModel],
    kept: Sequence[tuple[Candidate, Quality]],
    variants: Mapping[str, Variant],
    folder: Path,
    *,
    progress: Progress,
    command: str,
    deadline_s: float,
) -> Made:
    """Make what the accelerators of these boards can run.

    Args:
        boards: With their delegates.
        models: The sources, in order.
        kept: The variants for the CPU, as candidates with what they are worth.
        variants: The same as they stand in the manifest, by id.
        folder: For the files.
        progress: Told how far it is.
        command: What finishes the bundle where a compiler is that is missing here.
        deadline_s: Each compiler may take this long for each file.
    """
    wanted = plan.wishes(boards)
    collected = _Collected(variants, command)
    if wanted:
        progress.stage("compile", len(wanted) * len(models))
    for number, wish in enumerate(wanted):
        for model in models:
            found = plan.twin(wish, model.name, kept)
            if found is None:
                stem = model.name if len(models) > 1 else wish.precisions[0].value
                collected.lacks(wish, stem, f"no variant in {_formats(wish)} was made and kept")
            else:
                _one(wish, found, collected, folder / f"target-{number}-{model.name}", deadline_s)
            progress.advance(1)
    collected.add(onnx.variants(boards, models, variants))
    return collected.made(boards)


def _one(wish: Wish, twin: Twin, collected: _Collected, folder: Path, deadline_s: float) -> None:
    id_ = twin.candidate.id
    if not twin.coverage.delegated:
        collected.lacks(wish, id_, f"it takes none of the operators: {_first(twin.coverage)}", twin=twin)
        return
    if wish.delegate not in _COMPILED:
        collected.shares(wish, twin)
        return
    try:
        compiled = compile_for(wish, twin.candidate.path, folder, deadline_s=deadline_s)
    except CompilerError as error:
        collected.lacks(wish, id_, str(error), twin=twin, can_be_finished=True)
        return
    collected.compiled(wish, twin, compiled)


def compile_for(wish: Wish, path: Path, folder: Path, *, deadline_s: float) -> Compiled:
    """Run the accelerator's compiler.

    Raises:
        CompilerError: It is missing, fails or hangs.
    """
    if wish.delegate is Delegate.EDGETPU:
        return edgetpu.compile(path, folder, deadline_s=deadline_s)
    for configuration in vela.configurations():
        if configuration.id == wish.table.id:
            return vela.compile(path, configuration, folder, deadline_s=deadline_s)
    raise CompilerError(f"no configuration of Vela is called {wish.table.id!r}", where="vela.toml")


def compiled_variant(wish: Wish, twin: Variant, compiled: Compiled) -> Variant:
    """A compiled file as it stands in a manifest."""
    made = blob.of(compiled.path)
    return Variant(
        id=wish.id(twin.id),
        source=twin.source,
        blob=made.sha256,
        size_bytes=made.size_bytes,
        transfer_bytes=made.transfer_bytes,
        precision=twin.precision,
        compression=(
            *twin.compression,
            Pass(name=compiled.compiler, parameters=compiled.parameters, evidence=compiled.evidence),
        ),
        exceptions=twin.exceptions,
        target=Target(delegate=wish.delegate, fallback=twin.id),
        coverage=compiled.coverage,
        quality=twin.quality,
        cost=twin.cost,
    )


def expected(wish: Wish, variant: Variant, compiled: Compiled, work: OpWork | None) -> tuple[Latency, ...]:
    """What is known of a compiled file's latency on each of the boards, by another's word."""
    found = []
    for board in wish.boards:
        if compiled.latency_ms is not None:
            found.append(_latency(variant, board, compiled.latency_ms, None, compiled.source))
        elif work is not None:
            fitted = edgetpu.expected_ms(wish.table, board.id, work, variant.cost.parameters, compiled.coverage)
            if fitted is not None:
                found.append(_latency(variant, board, *fitted))
    return tuple(found)


def _latency(variant: Variant, board: Profile, ms: float, band: float | None, source: str) -> Latency:
    return Latency(
        variant=variant.id,
        origin=Origin.PREDICTED,
        machine=board.id,
        profile=board.id,
        median_ms=round(ms, _DIGITS),
        band=band,
        source=source,
    )


def _formats(wish: Wish) -> str:
    return " or ".join(precision.value for precision in wish.precisions)


def _first(coverage: Coverage) -> str:
    told = coverage.why[0] if coverage.why else "there are none"
    return told + (f", and {len(coverage.why) - 1} reasons more" if len(coverage.why) > 1 else "")


class _Collected:
    """Gathers what is made, and what is not, board by board."""

    def __init__(self, variants: Mapping[str, Variant], command: str) -> None:
        self._cpu = variants
        self._command = command
        self._variants: list[Variant] = []
        self._files: dict[str, Path] = {}
        self._boards: dict[str, list[str]] = {}
        self._latencies: list[Latency] = []
        self.missing: list[Missing] = []

    def lacks(
        self, wish: Wish, stem: str, reason: str, *, twin: Twin | None = None, can_be_finished: bool = False
    ) -> None:
        """Note what cannot be made."""
        self.missing.append(
            Missing(
                id=wish.id(stem),
                delegate=wish.delegate,
                profiles=tuple(board.id for board in wish.boards),
                reason=reason[:_MAX_TEXT],
                twin=twin.candidate.id if twin else None,
                command=self._command if can_be_finished else None,
                coverage=twin.coverage if twin else None,
            )
        )

    def shares(self, wish: Wish, twin: Twin) -> None:
        """Take the twin's file as it is."""
        given = self._cpu[twin.candidate.id]
        self._put(
            wish.boards,
            Variant(
                id=wish.id(given.id),
                source=given.source,
                blob=given.blob,
                size_bytes=given.size_bytes,
                transfer_bytes=given.transfer_bytes,
                precision=given.precision,
                compression=given.compression,
                exceptions=given.exceptions,
                target=Target(
                    delegate=wish.delegate,
                    min_runtime=given.target.min_runtime,
                    fallback=given.id,
                ),
                coverage=twin.coverage,
                quality=given.quality,
                cost=given.cost,
            ),
        )

    def compiled(self, wish: Wish, twin: Twin, compiled: Compiled) -> None:
        """Take what the compiler made."""
        variant = compiled_variant(wish, self._cpu[twin.candidate.id], compiled)
        self._files[variant.blob] = compiled.path
        self._put(wish.boards, variant)
        self._latencies += expected(wish, variant, compiled, twin.candidate.graph.work)

    def add(self, given: onnx.Given) -> None:
        """Take ONNX sources along."""
        self.missing += given.missing
        self._files |= given.files
        for variant in given.variants:
            self._put(given.boards, variant)

    def made(self, boards: Sequence[Profile]) -> Made:
        """All of it."""
        return Made(
            variants=tuple(self._variants),
            files=self._files,
            accelerated={board.id: tuple(self._boards[board.id]) for board in boards if board.id in self._boards},
            missing=tuple(self.missing),
            latencies=tuple(self._latencies),
        )

    def _put(self, boards: Sequence[Profile], variant: Variant) -> None:
        self._variants.append(variant)
        for board in boards:
            self._boards.setdefault(board.id, []).append(variant.id)
