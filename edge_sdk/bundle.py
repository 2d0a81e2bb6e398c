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
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edge_sdk import atomic
from edge_sdk.errors import BlobMismatchError, BundleError, BundleFormatError, StorageError, UnknownVariantError
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Variant
from edge_sdk.wire import canonical, decode

MANIFEST = "manifest.json"
EVIDENCE = "evidence.json"
REPORT = "report.html"
BLOBS = PurePosixPath("blobs/sha256")
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_EVIDENCE_BYTES = 16 * 1024 * 1024
MAX_LATENCIES = 10_000
_CHUNK = 1 << 20


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
        self.manifest = decode(
            raw, Manifest, where=str(self.path / MANIFEST), max_bytes=MAX_MANIFEST_BYTES, error=BundleFormatError
        )
        check(self.manifest, where=str(self.path / MANIFEST))
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
        hint = "the bundle was damaged or changed; copy or convert it again"
        where = f"{self.path} ({variant.id})"
        digest = hashlib.sha256()
        try:
            # O_NOFOLLOW: a link could point anywhere, and to something else later.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size != variant.size_bytes:
                    raise BlobMismatchError(
                        f"blob {variant.blob[:12]} has {found.st_size} bytes, not {variant.size_bytes}",
                        where=where,
                        hint=hint,
                    )
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as cause:
            raise BlobMismatchError(
                f"blob {variant.blob[:12]} cannot be read: {cause.strerror}", where=where, hint=hint
            ) from cause
        if digest.hexdigest() != variant.blob:
            raise BlobMismatchError(f"blob {variant.blob[:12]} has another content", where=where, hint=hint)
        self._verified.add(variant.blob)
        return path

    def evidence(self) -> EvidenceFile:
        """What was measured; empty where nothing was.

        Raises:
            BundleFormatError: `evidence.json` is malformed.
        """
        if not (self.path / EVIDENCE).exists():
            return EvidenceFile(format=1)
        raw = self._read(EVIDENCE, MAX_EVIDENCE_BYTES)
        return decode(
            raw,
            EvidenceFile,
            where=str(self.path / EVIDENCE),
            max_bytes=MAX_EVIDENCE_BYTES,
            error=BundleFormatError,
        )

    def add_latencies(self, latencies: tuple[Latency, ...]) -> None:
        """Append measurements to `evidence.json`; a new one of the same variant, machine and threads replaces the old.

        Raises:
            StorageError: It could not be written; the old evidence stands.
        """

        def key(latency: Latency) -> tuple[object, ...]:
            return latency.variant, latency.origin, latency.machine, latency.runtime, latency.threads

        fresh = {key(latency) for latency in latencies}
        kept = tuple(old for old in self.evidence().latency if key(old) not in fresh)
        both = (*kept, *latencies)[-MAX_LATENCIES:]
        atomic.write_bytes(self.path / EVIDENCE, canonical(EvidenceFile(format=1, latency=both)))

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = self.path / name
        try:
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as cause:
            raise BundleError(
                f"no bundle here: {name} cannot be read ({cause.strerror})",
                where=str(self.path),
                hint="name the directory that holds manifest.json, such as digits-1.edge",
            ) from cause
        if len(content) > max_bytes:
            raise BundleFormatError(f"{name} has more than {max_bytes} bytes", where=str(self.path))
        return content


def check(manifest: Manifest, *, where: str) -> None:
    """What the types alone can't say: ids are unique, and every id that is named exists.

    Raises:
        BundleFormatError: The manifest contradicts itself.
    """
    ids = [variant.id for variant in manifest.variants]
    if len(set(ids)) != len(ids):
        raise BundleFormatError("two variants have the same id", where=where)
    named = {manifest.reference: "reference"}
    named |= {id_: f"fronts.{profile}" for profile, front in manifest.fronts.items() for id_ in front}
    named |= {v.target.fallback: f"{v.id}.target.fallback" for v in manifest.variants if v.target.fallback}
    for id_, place in named.items():
        if id_ not in ids:
            raise BundleFormatError(f"{place} names {id_!r}, which is no variant of this bundle", where=where)
    sources = {source.name for source in manifest.sources}
    for variant in manifest.variants:
        if variant.source not in sources:
            raise BundleFormatError(f"{variant.id} comes from {variant.source!r}, which is no source", where=where)


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
        path: The directory; one that stands there is replaced.
        manifest: Must name only blobs given.
        blobs: Files by their SHA-256.
        evidence: Measurements.
        report: HTML.

    Raises:
        StorageError: It could not be written; what stood there stands.
        BundleFormatError: The manifest contradicts itself.
        BlobMismatchError: A blob is not what the manifest says.
    """
    check(manifest, where=str(path))
    with atomic.directory(path) as folder:
        (folder / BLOBS).mkdir(parents=True)
        for digest in {variant.blob for variant in manifest.variants}:
            shutil.copyfile(blobs[digest], folder / BLOBS / digest)
        (folder / MANIFEST).write_bytes(canonical(manifest))
        (folder / EVIDENCE).write_bytes(canonical(evidence))
        (folder / REPORT).write_text(report, encoding="utf-8")
        Bundle(folder)
    return Bundle(path)


def pack(bundle: Bundle, path: str | os.PathLike[str]) -> Path:
    """Write the bundle as one file; the same bundle always gives the same bytes.

    Raises:
        StorageError: It could not be written.
    """
    target = Path(path)
    names = [MANIFEST, *(n for n in (EVIDENCE, REPORT) if (bundle.path / n).exists())]
    names += sorted({str(BLOBS / v.blob) for v in bundle.manifest.variants})
    with atomic.storage_errors(target):
        buffer = target.with_name(f".edge-tmp-{os.getpid()}-{target.name}")
        try:
            with tarfile.open(buffer, "w", format=tarfile.USTAR_FORMAT) as tar:
                for name in names:
                    entry = tarfile.TarInfo(name)
                    entry.size = (bundle.path / name).stat().st_size
                    with (bundle.path / name).open("rb") as file:
                        tar.addfile(entry, file)
            buffer.replace(target)
        finally:
            buffer.unlink(missing_ok=True)
    return target


def unpack(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Bundle:
    """Unpack an `.edgebundle` file; only the names a bundle has are taken, so no entry can leave `into`.

    Raises:
        BundleFormatError: It is no tar file, or holds an entry a bundle does not have.
        BlobMismatchError: A blob is not what its name says.
        StorageError: It could not be written.
    """
    try:
        with tarfile.open(path, "r:") as tar, atomic.directory(into) as folder:
            (folder / BLOBS).mkdir(parents=True)
            for entry in tar:
                name = PurePosixPath(entry.name)
                is_blob = name.parent == BLOBS and len(name.name) == len(hashlib.sha256().hexdigest())
                if not entry.isreg() or not (is_blob or entry.name in {MANIFEST, EVIDENCE, REPORT}):
                    raise BundleFormatError(f"holds {entry.name[:80]!r}, which no bundle has", where=str(path))
                source = tar.extractfile(entry) or io.BytesIO()
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            Bundle(folder)
    except (tarfile.TarError, EOFError, FileExistsError, FileNotFoundError) as cause:
        raise BundleFormatError(f"not a packed bundle: {cause}", where=str(path)) from cause
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise BundleFormatError("holds the same file twice", where=str(path)) from error
        raise
    return Bundle(into)


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
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        yield unpack(path, Path(folder) / "bundle")
