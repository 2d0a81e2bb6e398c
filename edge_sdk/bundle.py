"""A bundle on disk: opened with every hash checked, written whole or not at all.

    NAME-VERSION.edge/
        manifest.json         what is in it (`edge_sdk.manifest`), canonical JSON
        evidence.json         what was measured where
        blobs/sha256/HEX      the model files, by content
        report.html           a page for people

A bundle may also travel as one file, `NAME-VERSION.edgebundle`: the same tree as an uncompressed tar.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from edge_sdk import _ustar, atomic, scratch
from edge_sdk.content import regular, sha256
from edge_sdk.errors import BlobMismatchError, BundleError, BundleFormatError, StorageError, UnknownVariantError
from edge_sdk.manifest import Delegate, EvidenceFile, Latency, Manifest, Selection, Variant
from edge_sdk.wire import canonical, decode

MANIFEST = "manifest.json"
EVIDENCE = "evidence.json"
REPORT = "report.html"
BLOBS = PurePosixPath("blobs/sha256")
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_EVIDENCE_BYTES = 16 * 1024 * 1024
MAX_LATENCIES = 10_000
_CHUNK = 1 << 20
_FORMAT = 1
_log = logging.getLogger(__name__)
_NAME = re.compile(rf"(?:{re.escape(MANIFEST)}|{re.escape(EVIDENCE)}|{re.escape(REPORT)}|{BLOBS}/[0-9a-f]{{64}})")


class Bundle:
    """A model's variants, verified.

    Args:
        path: The bundle's directory, or an `.edgebundle` file's unpacked tree.
        verify: Check the SHA-256 of every blob now; without it, each blob is checked when it is asked for.

    Raises:
        BundleError: There is no bundle at `path`.
        BundleFormatError: The manifest is malformed or contradicts itself.
        BlobMismatchError: A blob is absent or not what its name says.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = Path(path)
        raw = self._read(MANIFEST, MAX_MANIFEST_BYTES)
        self.manifest_sha256 = hashlib.sha256(raw).hexdigest()
        self.manifest = _manifest(raw, str(self.path / MANIFEST))
        check(self.manifest, where=str(self.path / MANIFEST))
        # By content: `check` has seen to it that a blob has one size.
        self._verified: set[str] = set()
        if verify:
            for variant in self.manifest.variants:
                self.blob(variant)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    def variant(self, id: str) -> Variant:  # noqa: A002 - `id` is the field's name everywhere
        """The variant of this id.

        Raises:
            UnknownVariantError: There is none.
        """
        found = self.manifest.variant(id)
        if found is None:
            have = ", ".join(v.id for v in self.manifest.variants)
            raise UnknownVariantError(f"no variant {id[:80]!r}", where=str(self.path), hint=f"it has {have}")
        return found

    def blob(self, variant: Variant) -> Path:
        """The variant's file, its content checked once per opened bundle.

        Raises:
            BlobMismatchError: The file is absent, a link or device, or its size or SHA-256 is not the manifest's.
        """
        path = self.path / BLOBS / variant.blob
        if variant.blob in self._verified:
            return path
        name, where = f"blob {variant.blob[:12]}", f"{self.path} ({variant.id})"
        hint = "the bundle was damaged or changed; copy or convert it again"
        try:
            with regular(path) as file:
                found_bytes = os.fstat(file.fileno()).st_size
                if found_bytes != variant.size_bytes:
                    text = f"{name} has {found_bytes} bytes, not {variant.size_bytes}"
                    raise BlobMismatchError(text, where=where, hint=hint)
                digest = sha256(file)
        except OSError as cause:
            raise BlobMismatchError(f"{name} cannot be read: {cause.strerror}", where=where, hint=hint) from cause
        if digest != variant.blob:
            raise BlobMismatchError(f"{name} has another content", where=where, hint=hint)
        self._verified.add(variant.blob)
        return path

    def evidence(self) -> EvidenceFile:
        """What was measured; empty where nothing was.

        Raises:
            BundleError: `evidence.json` cannot be read.
            BundleFormatError: It is malformed.
        """
        if not os.path.lexists(self.path / EVIDENCE):
            return EvidenceFile(format=1)
        where = str(self.path / EVIDENCE)
        try:
            raw = self._read(EVIDENCE, MAX_EVIDENCE_BYTES)
            return decode(raw, EvidenceFile, where=where, max_bytes=MAX_EVIDENCE_BYTES, error=BundleFormatError)
        except BundleError as error:
            error.hint = "the variants are whole; remove this file, and 'edge bench BUNDLE --write' measures anew"
            raise

    def latencies(self) -> tuple[Latency, ...]:
        """What is known of the variants, each on the delegate it is for: what decides.

        Empty, with a warning, where `evidence.json` is damaged: the variants run without it.
        """
        own = {variant.id: variant for variant in self.manifest.variants}
        try:
            return tuple(x for x in self.evidence().latency if x.variant not in own or x.is_of(own[x.variant]))
        except BundleError as error:
            _log.warning("evidence is left out: %s", str(error))
            return ()

    def add_latencies(self, latencies: tuple[Latency, ...]) -> None:
        """Append measurements to `evidence.json`.

        A new one of the same variant, machine, threads and delegate replaces the old.

        Raises:
            StorageError: It could not be written; the old evidence stands.
        """

        def key(latency: Latency) -> tuple[object, ...]:
            place = latency.variant, latency.origin, latency.machine, latency.runtime, latency.threads
            return *place, latency.delegate or own.get(latency.variant)

        own = {variant.id: variant.target.delegate.value for variant in self.manifest.variants}
        fresh = {key(latency) for latency in latencies}
        kept = tuple(old for old in self.evidence().latency if key(old) not in fresh)
        both = (*kept, *latencies)[-MAX_LATENCIES:]
        # What is written must be read again: the oldest go until it fits.
        while len(content := canonical(EvidenceFile(format=1, latency=both))) > MAX_EVIDENCE_BYTES:
            both = both[len(both) // 8 + 1 :]
        atomic.write_bytes(self.path / EVIDENCE, content)

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = self.path / name
        try:
            with regular(path) as file:
                content = file.read(max_bytes + 1)
        except (OSError, ValueError) as cause:  # ValueError: a path with a NUL in it
            is_none = "no bundle here: " if name == MANIFEST else ""
            raise BundleError(
                f"{is_none}{name} cannot be read ({getattr(cause, 'strerror', None) or cause})",
                where=str(self.path),
                hint="name the directory that holds manifest.json, such as digits-1.edge",
            ) from cause
        if len(content) > max_bytes:
            raise BundleFormatError(f"{name} has more than {max_bytes} bytes", where=str(self.path))
        return content


class _Versioned(msgspec.Struct):
    """What a manifest of any format has."""

    format: int


def _manifest(raw: bytes, where: str) -> Manifest:
    try:
        return decode(raw, Manifest, where=where, max_bytes=MAX_MANIFEST_BYTES, error=BundleFormatError)
    except BundleFormatError:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = msgspec.json.decode(raw, type=_Versioned).format
            if found != _FORMAT:
                raise BundleFormatError(
                    f"is of format {found}; this version reads format {_FORMAT}",
                    where=where,
                    hint="update adaptive-edge-sdk, or convert the model with this version",
                ) from None
        raise


def check(manifest: Manifest, *, where: str) -> None:
    """What the types alone can't say: ids are unique, every id that is named exists, and a blob has one size.

    Raises:
        BundleFormatError: The manifest contradicts itself.
    """
    ids = [variant.id for variant in manifest.variants]
    unique = {
        "two variants have the same id": ids,
        "two sources have the same name": [s.name for s in manifest.sources],
    }
    unique |= {f"fronts.{profile} names a variant twice": [*front] for profile, front in manifest.fronts.items()}
    unique |= _listed(manifest)
    unique |= {f"accelerated.{board} names a variant twice": [*made] for board, made in manifest.accelerated.items()}
    unique["a variant that is missing has the id of another"] = [*ids, *(one.id for one in manifest.missing)]
    for complaint, names in unique.items():
        if len(set(names)) != len(names):
            raise BundleFormatError(complaint, where=where)
    if len({(v.blob, v.size_bytes) for v in manifest.variants}) != len({v.blob for v in manifest.variants}):
        raise BundleFormatError("one blob is given two sizes", where=where)
    named = {manifest.reference: "reference"}
    named |= {id_: f"fronts.{profile}" for profile, front in manifest.fronts.items() for id_ in front}
    named |= {id_: f"selection.{profile}" for profile, choice in manifest.selection.items() for id_ in _named(choice)}
    named |= {id_: f"accelerated.{board}" for board, made in manifest.accelerated.items() for id_ in made}
    named |= {one.twin: f"missing.{one.id}.twin" for one in manifest.missing if one.twin}
    named |= {v.target.fallback: f"{v.id}.target.fallback" for v in manifest.variants if v.target.fallback}
    for id_, place in named.items():
        if id_ not in ids:
            raise BundleFormatError(f"{place} names {id_!r}, which is no variant of this bundle", where=where)
    sources = {source.name for source in manifest.sources}
    for variant in manifest.variants:
        if variant.source not in sources:
            raise BundleFormatError(f"{variant.id} comes from {variant.source!r}, which is no source", where=where)
        twin = manifest.variant(variant.target.fallback) if variant.target.fallback else None
        if twin is not None and twin.target.delegate is not Delegate.CPU:
            raise BundleFormatError(
                f"{variant.id} falls back to {twin.id!r}, which does not run on the CPU", where=where
            )


def _listed(manifest: Manifest) -> dict[str, list[str]]:
    """The ids in each list of a selection, by what is wrong where one stands twice."""
    found: dict[str, list[str]] = {}
    for profile, choice in manifest.selection.items():
        found[f"selection.{profile}.recommended names a variant twice"] = [one.id for one in choice.recommended]
        found[f"selection.{profile}.dominated names a variant twice"] = [one.id for one in choice.dominated]
        found[f"selection.{profile}.excluded names a variant twice"] = [one.id for one in choice.excluded]
    return found


def _named(choice: Selection) -> set[str]:
    """The variants that a selection speaks of."""
    found = {one.id for one in choice.recommended} | {one.id for one in choice.excluded}
    return found | {one.id for one in choice.dominated} | {one.by for one in choice.dominated}


def write(
    path: str | os.PathLike[str],
    manifest: Manifest,
    blobs: Mapping[str, Path],
    *,
    evidence: EvidenceFile,
    report: str,
) -> Bundle:
    """Write a bundle, whole or not at all.

    Args:
        path: The directory; a bundle that stands there is replaced, anything else is left alone.
        manifest: Must name only blobs given.
        blobs: Files by their SHA-256.
        evidence: Measurements.
        report: HTML.

    Raises:
        StorageError: It could not be written, or something that is no bundle stands there, and stands.
        BundleFormatError: The manifest contradicts itself.
        BlobMismatchError: A blob is not given, or not what the manifest says.
    """
    check(manifest, where=str(path))
    wanted = {variant.blob for variant in manifest.variants}
    if missing := wanted - blobs.keys():
        raise BlobMismatchError(f"blob {min(missing)[:12]} is not given", where=str(path))
    import shutil

    with _replacing(path) as folder:
        for digest in wanted:
            shutil.copyfile(blobs[digest], folder / BLOBS / digest)
        (folder / MANIFEST).write_bytes(canonical(manifest))
        (folder / EVIDENCE).write_bytes(canonical(evidence))
        (folder / REPORT).write_text(report, encoding="utf-8")
        Bundle(folder)
    return Bundle(path)


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory to fill that replaces a bundle, an empty directory or nothing: never what a user keeps elsewhere."""
    target = Path(path)
    ours = {MANIFEST, EVIDENCE, REPORT, BLOBS.parts[0]}
    with atomic.storage_errors(target):
        found = {entry.name for entry in target.iterdir()} if target.is_dir() else set()
        found = {name for name in found if not name.startswith(atomic.PREFIX)}  # a writer that was killed in it
    if (target.exists() and not target.is_dir()) or not found <= ours or (found and MANIFEST not in found):
        raise StorageError(
            "something that is no bundle stands here", where=str(target), hint="choose another place, or remove it"
        )
    with atomic.directory(target) as folder:
        (folder / BLOBS).mkdir(parents=True)
        try:
            yield folder
        except BundleError as error:
            # What is wrong would be found at a temporary name, which means nothing to a reader.
            error.where = error.where.replace(str(folder), str(target))
            raise


def pack(bundle: Bundle, path: str | os.PathLike[str]) -> Path:
    """Write the bundle as one file; the same bundle always gives the same bytes.

    Raises:
        StorageError: It could not be written.
        BlobMismatchError: A blob is not what the manifest says.
    """
    import tarfile

    target = Path(path)
    names = [MANIFEST, *(n for n in (EVIDENCE, REPORT) if os.path.lexists(bundle.path / n))]
    names += sorted({str(bundle.blob(v).relative_to(bundle.path)) for v in bundle.manifest.variants})
    with atomic.file(target) as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            with regular(bundle.path / name) as content:
                entry.size = os.fstat(content.fileno()).st_size
                tar.addfile(entry, content)
    return target


def unpack(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Bundle:
    """Unpack an `.edgebundle` file; only the names a bundle has are taken, so no entry can leave `into`.

    Raises:
        BundleError: The file cannot be read.
        BundleFormatError: It is no plain tar file, or holds what a bundle does not have.
        BlobMismatchError: A blob is not what its name says.
        StorageError: It could not be written, or something that is no bundle stands there.
    """
    where = str(path)
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - closed by the `with` below; only opening is reported as this
    except OSError as cause:
        raise BundleError(f"cannot be read: {cause.strerror}", where=where) from cause
    with stream, _replacing(into) as folder:
        blobs = set()
        try:
            for entry in _ustar.entries(stream):
                if not _NAME.fullmatch(entry.name):
                    raise BundleFormatError(f"holds {entry.name[:80]!r}, which no bundle has", where=where)
                stream.seek(entry.offset)
                with (folder / entry.name).open("xb") as file:
                    _copy(stream, file, entry.size_bytes)
                if entry.name.startswith(str(BLOBS)):
                    blobs.add(PurePosixPath(entry.name).name)
        except _ustar.NotUstarError as cause:
            raise BundleFormatError(
                f"not a packed bundle: {cause}", where=where, hint="'edge convert' makes a bundle of a model"
            ) from cause
        except FileExistsError as cause:
            raise BundleFormatError("holds the same file twice", where=where) from cause
        bundle = Bundle(folder)
        if spare := blobs - {variant.blob for variant in bundle.manifest.variants}:
            raise BundleFormatError(f"holds blob {min(spare)[:12]}, which its manifest does not name", where=where)
    return Bundle(into)


def _copy(source: BinaryIO, target: BinaryIO, size_bytes: int) -> None:
    left = size_bytes
    while left and (chunk := source.read(min(left, _CHUNK))):
        target.write(chunk)
        left -= len(chunk)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Bundle]:
    """The bundle at `path`, verified: a directory, or a packed file, unpacked to a place that ends with the block.

    Raises:
        BundleError: There is no bundle, it is malformed, or a blob is not what its name says.
        StorageError: There is no room to unpack it.
    """
    if not Path(path).is_file():
        yield Bundle(path)
        return
    with scratch.folder() as folder:
        place = folder / "bundle"
        try:
            bundle = unpack(path, place)
        except BundleError as error:
            # The place it was unpacked to means nothing to a reader.
            error.where = error.where.replace(str(place), str(path))
            raise
        except StorageError as error:
            raise StorageError(
                f"{path} cannot be unpacked: {error.what}", where=str(folder.parent), hint=scratch.HINT
            ) from error
        yield bundle
