"""`edge coverage` and `edge compile`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_converter.signals import ended_in_order
from edge_converter.targets import finish, isa, optable, sparse
from edge_converter.targets import operators as reading
from edge_converter.targets.covering import predict
from edge_converter.targets.optable import Table
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.cli.inspect import accelerators
from edge_sdk.cli.output import emit
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Coverage, Delegate, Manifest

_RUNTIME = "tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """What one driver or compiler takes of one file.

    Attributes:
        model: The file, or the ids of the bundle's variants that have it.
        table: The table that was asked, and whose word it is.
        delegate: Who would compute.
        level: The API level, for tables that have levels.
        delegated: Operators it takes.
        total: Of how many.
        why: What stays on the CPU, and why.
        source: Where the table comes from.
    """

    model: str
    table: str
    delegate: Delegate
    level: int | None
    delegated: int
    total: int
    why: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCpu:
    """What a file asks of a CPU.

    Attributes:
        model: As in `Covered`.
        requires: Features without which it cannot run.
        faster_with: Features it uses where the core has them.
        sparse_zeros: Share of the weights of 1x1 convolutions that is zero.
        sparse_why_not: What keeps XNNPACK's sparse kernels out; empty where they engage.
    """

    model: str
    requires: tuple[str, ...]
    faster_with: tuple[str, ...]
    sparse_zeros: float
    sparse_why_not: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverages:
    """The result of `edge coverage --json`."""

    coverage: tuple[Covered, ...]
    cpu: tuple[OnCpu, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """The result of `edge compile --json`.

    Attributes:
        compiled: Ids of the variants that were added.
        failed: What is missing still, by id, and why.
    """

    bundle: str
    compiled: tuple[str, ...]
    failed: dict[str, str]
    manifest: Manifest


def run_coverage(args: argparse.Namespace) -> int:
    """Say what accelerators take of a model, or of the variants of a bundle."""
    if args.api is not None and args.delegates and Delegate.NNAPI.value not in args.delegates:
        raise UsageError("--api is Android's, for nnapi, and --delegate leaves that out", hint="add --delegate nnapi")
    files = _files(Path(args.model))
    chosen = _tables(args.delegates, args.profiles)
    found: list[Covered] = []
    cpu: list[OnCpu] = []
    for name, path in files:
        operators = reading.read(path)
        for table in chosen:
            level = (args.api or table.level) if table.level is not None else None
            found.append(_covered(name, table, level, predict(operators, table, level=level)))
        if any(table.delegate is Delegate.CPU for table in chosen):
            needs, zeros = isa.needs(path), sparse.of(path)
            cpu.append(
                OnCpu(
                    model=name,
                    requires=needs.required,
                    faster_with=needs.faster_with,
                    sparse_zeros=round(zeros.zeros, 4),
                    sparse_why_not=zeros.why_not,
                )
            )
    result = Coverages(coverage=tuple(found), cpu=tuple(cpu))
    emit(args, result, lambda: _text(result))
    return 0


def run_compile(args: argparse.Namespace) -> int:
    """Finish a bundle; fails where something that could be compiled was not."""
    path = Path(args.bundle)
    output = Path(args.output) if args.output else path
    with ended_in_order():
        done = finish.finish(path, output, deadline_s=args.compiler_deadline)
    result = Compilation(
        bundle=str(done.bundle), compiled=done.compiled, failed=dict(done.failed), manifest=done.manifest
    )
    emit(args, result, lambda: _compiled(done))
    return 1 if done.failed else 0


def _files(path: Path) -> list[tuple[str, Path]]:
    """The model's file; of a bundle, each file once that the CPU runs."""
    if not os.path.isdir(path):  # noqa: PTH112 - raises nothing where it may not be looked at
        return [(str(path), path)]
    bundle = Bundle(path)
    ids: dict[Path, list[str]] = {}
    for variant in bundle.manifest.variants:
        if variant.target.delegate is Delegate.CPU and variant.target.runtime == _RUNTIME:
            ids.setdefault(bundle.blob(variant), []).append(variant.id)
    return [(", ".join(names), file) for file, names in ids.items()]


def _tables(delegates: Sequence[str], boards: Sequence[str]) -> tuple[Table, ...]:
    """Those asked for, without one twice; all, where none is.

    Raises:
        UsageError: There is no such delegate, or a board has no accelerator to ask about.
        UnknownProfileError: A board has no profile.
    """
    chosen = [table for name in delegates for table in optable.named(name)]
    for board in map(profiles.load, boards):
        chosen += [table for delegate in board.variants.delegates for table in optable.of_board(board, delegate)]
    if not chosen and (delegates or boards):
        raise UsageError("nothing that computes is left to ask about", hint="leave --delegate and --profile out")
    return tuple(dict.fromkeys(chosen or optable.tables()))


def _covered(name: str, table: Table, level: int | None, found: Coverage) -> Covered:
    return Covered(
        model=name,
        table=table.id,
        delegate=table.delegate,
        level=level,
        delegated=found.delegated,
        total=found.total,
        why=found.why,
        source=table.source,
    )


def _text(result: Coverages) -> str:
    parts = []
    for model in dict.fromkeys(one.model for one in result.coverage):
        lines = [model]
        for one in (one for one in result.coverage if one.model == model):
            title = optable.table(one.table).title + (f", API level {one.level}" if one.level is not None else "")
            lines.append(f"  {one.table}: {one.delegated} of {one.total} operators on {title}")
            lines += [f"      {line}" for line in one.why]
        for told in (told for told in result.cpu if told.model == model):
            lines.append(f"  the CPU needs: {_features(told.requires) or 'nothing beyond what the runtime needs'}")
            if told.faster_with:
                lines.append(f"  faster with: {_features(told.faster_with)}")
            if told.sparse_zeros:
                engaged = "; ".join(told.sparse_why_not) or "engaged"
                lines.append(f"  sparse kernels ({100 * told.sparse_zeros:.0f} % zeros): {engaged}")
        parts.append("\n".join(lines))
    parts.append("Predicted from tables of operators; 'edge convert' asks the compiler itself where it is installed.")
    return "\n\n".join(parts)


def _features(names: Sequence[str]) -> str:
    return ", ".join(names)


def _compiled(done: finish.Finished) -> str:
    if not done.compiled and not done.failed:
        return f"{done.bundle}: nothing is missing that a compiler could make"
    parts = [f"{done.bundle}: {len(done.compiled)} compiled{''.join(f', {id_}' for id_ in done.compiled)}"]
    parts += [f"failed: {id_}: {why}" for id_, why in done.failed.items()]
    shown = accelerators(done.manifest, Bundle(done.bundle, verify=False).evidence())
    return "\n".join(parts) + (f"\n\n{shown}" if shown else "")
