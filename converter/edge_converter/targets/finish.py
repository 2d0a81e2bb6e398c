"""A bundle finished where a compiler is that was missing where it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_converter import graph
from edge_converter.errors import CompilerError
from edge_converter.targets import make, optable
from edge_converter.targets.plan import Wish
from edge_sdk import bundle as bundles
from edge_sdk import profile as profiles
from edge_sdk import scratch
from edge_sdk.bundle import Bundle
from edge_sdk.errors import ProfileError
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Missing, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of it.

    Attributes:
        bundle: Where the bundle lies.
        manifest: What is in it now.
        compiled: Ids of the variants that were added.
        failed: What is missing still, by id, and why.
    """

    bundle: Path
    manifest: Manifest
    compiled: tuple[str, ...]
    failed: Mapping[str, str]


def finish(path: Path, output: Path, *, deadline_s: float) -> Finished:
    """Compile what the bundle's manifest lists as missing, of those that a compiler can make.

    Args:
        path: The bundle.
        output: Where to write it; may be `path`, which is replaced whole or not at all.
        deadline_s: Each compiler may take this long for each file.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        StorageError: It cannot be written.
    """
    bundle = Bundle(path)
    added: list[Variant] = []
    latencies: list[Latency] = []
    files = {variant.blob: bundle.blob(variant) for variant in bundle.manifest.variants}
    failed: dict[str, str] = {}
    with scratch.folder() as folder:
        for number, one in enumerate(bundle.manifest.missing):
            if one.command is None or one.twin is None:
                continue
            twin = bundle.variant(one.twin)
            try:
                wish = _wish(one)
                compiled = make.compile_for(wish, bundle.blob(twin), folder / f"{number}", deadline_s=deadline_s)
            except (CompilerError, ProfileError) as error:
                failed[one.id] = str(error)
                continue
            variant = msgspec.structs.replace(make.compiled_variant(wish, twin, compiled), id=one.id)
            added.append(variant)
            latencies += make.expected(wish, variant, compiled, graph.read(bundle.blob(twin)).work)
            files[variant.blob] = compiled.path
        manifest = _with(bundle.manifest, added)
        if added:
            bundles.write(
                output,
                manifest,
                files,
                evidence=EvidenceFile(format=1, latency=(*bundle.evidence().latency, *latencies)),
                report=_report(path),
            )
    done = tuple(variant.id for variant in added)
    return Finished(bundle=output if added else path, manifest=manifest, compiled=done, failed=failed)


def _wish(one: Missing) -> Wish:
    """What was wished for when the bundle was made.

    Raises:
        CompilerError: No table of this package is the one its id names.
        ProfileError: A board has no profile here.
    """
    table = next((found for found in optable.tables() if one.id.endswith(f"-{found.id}")), None)
    if table is None or table.delegate is not one.delegate:
        raise CompilerError(f"{one.id!r} is for an accelerator this version does not know", where=one.delegate.value)
    return Wish(table=table, boards=tuple(profiles.load(id_) for id_ in one.profiles))


def _with(manifest: Manifest, added: Sequence[Variant]) -> Manifest:
    by_id = {variant.id: variant for variant in added}
    accelerated = {board: list(made) for board, made in manifest.accelerated.items()}
    for one in manifest.missing:
        for board in one.profiles if one.id in by_id else ():
            accelerated.setdefault(board, []).append(one.id)
    return msgspec.structs.replace(
        manifest,
        variants=(*manifest.variants, *added),
        accelerated={board: tuple(made) for board, made in accelerated.items()},
        missing=tuple(one for one in manifest.missing if one.id not in by_id),
    )


def _report(path: Path) -> str:
    """The page as it was: what it says of the variants for the CPU still holds."""
    try:
        return (path / bundles.REPORT).read_text("utf-8")
    except OSError:
        return ""
