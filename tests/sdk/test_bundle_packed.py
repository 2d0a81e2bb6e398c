"""A packed bundle unpacks to the same bundle; any other tar file is refused and leaves nothing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_stage import CONTENTS
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk import _ustar
from edge_sdk import bundle as bundles
from edge_sdk.bundle import Bundle
from edge_sdk.errors import BlobMismatchError, BundleError, BundleFormatError, EdgeError, StorageError

pytestmark = pytest.mark.device

Make = Callable[..., Bundle]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def packed(make_bundle: Make, tmp_path: Path) -> Path:
    return bundles.pack(make_bundle(), tmp_path / "digits-1.edgebundle")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "unpacked.edge"


def test_there_and_back_gives_the_same_files(packed: Path, into: Path, tmp_path: Path) -> None:
    bundle = bundles.unpack(packed, into)
    assert bundle.path == into
    assert files(into) == files(tmp_path / "digits-1.edge")
    assert bundles.pack(bundle, tmp_path / "again").read_bytes() == packed.read_bytes()


def test_any_tar_program_reads_it_and_it_names_nobody(packed: Path) -> None:
    with tarfile.open(packed) as tar:
        members = tar.getmembers()
    assert members[0].name == "manifest.json"
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members} == {(0, 0, "", "", 0, 0o644)}


def test_a_tar_of_gnu_tar_in_ustar_format_is_read(make_bundle: Make, tmp_path: Path, into: Path) -> None:
    source = make_bundle().path
    with tarfile.open(tmp_path / "t.edgebundle", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files(source), reverse=True):
            tar.add(source / name, arcname=name)
    assert bundles.unpack(tmp_path / "t.edgebundle", into).manifest == Bundle(source).manifest


def test_a_packed_bundle_is_opened_like_a_directory_and_its_place_ends_with_the_block(packed: Path) -> None:
    with bundles.opened(packed) as bundle:
        place = bundle.path
        assert bundle.blob(bundle.variant("int8")).read_bytes() == CONTENTS["int8"]
    assert not place.exists()
    with bundles.opened(packed.with_name("digits-1.edge")) as bundle:
        assert bundle.path.name == "digits-1.edge"


def test_an_error_names_the_packed_file_and_not_where_it_was_unpacked(packed: Path) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content.replace(CONTENTS["int8"], CONTENTS["int8"].swapcase()))
    with pytest.raises(BlobMismatchError) as caught, bundles.opened(packed):
        pass
    assert caught.value.where == f"{packed} (int8)"


def test_a_report_that_is_a_link_is_not_packed(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    (tmp_path / "secret").write_text("not yours")
    (bundle.path / "report.html").unlink()
    (bundle.path / "report.html").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError):
        bundles.pack(bundle, tmp_path / "p.edgebundle")
    assert not (tmp_path / "p.edgebundle").exists()


def test_a_bundle_that_changed_since_it_was_opened_is_not_packed(make_bundle: Make, tmp_path: Path) -> None:
    bundle = Bundle(make_bundle().path, verify=False)
    (bundle.path / bundles.BLOBS / bundle.variant("int8").blob).write_bytes(b"other")
    with pytest.raises(BlobMismatchError):
        bundles.pack(bundle, tmp_path / "p.edgebundle")


def test_unpacking_replaces_a_bundle_and_nothing_else(packed: Path, into: Path, tmp_path: Path) -> None:
    bundles.unpack(packed, into)
    bundles.unpack(packed, into)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "photo.jpg").write_bytes(b"photo")
    with pytest.raises(StorageError, match="no bundle stands here"):
        bundles.unpack(packed, tmp_path / "precious")
    assert files(tmp_path / "precious") == {"photo.jpg": b"photo"}


# ------------------------------------------------------------------------------------------------- hostile files

BLOB = "blobs/sha256/"


def with_entry(
    packed: Path, entry: tarfile.TarInfo, content: bytes = b"", *, tar_format: int = tarfile.USTAR_FORMAT
) -> None:
    """The packed file with one more entry at its front."""
    rest = packed.read_bytes()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tar_format) as tar:
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
        length = tar.offset
    packed.write_bytes(made.getvalue()[:length] + rest)


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "/escaped",
        "blobs/sha256/../../../escaped",
        BLOB + "f" * 63,
        BLOB + "F" * 64,
        BLOB + "f" * 64 + "\n",
        "./manifest.json",
        "manifest.json/",
        "blobs",
        "notes.txt",
        "",
        "manifest\udce9.json",
    ],
)
def test_a_name_that_no_bundle_has_is_refused_and_nothing_is_left(packed: Path, into: Path, name: str) -> None:
    with_entry(packed, tarfile.TarInfo(name), b"hostile")
    before = sorted(into.parent.iterdir())
    with pytest.raises(BundleFormatError) as caught:
        bundles.unpack(packed, into)
    assert str(caught.value).isprintable()
    assert sorted(into.parent.iterdir()) == before


KINDS = {
    "hard link": tarfile.LNKTYPE,
    "symbolic link": tarfile.SYMTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "directory": tarfile.DIRTYPE,
    "named pipe": tarfile.FIFOTYPE,
    "contiguous": tarfile.CONTTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "extended header": tarfile.XHDTYPE,
    "long name": tarfile.GNUTYPE_LONGNAME,
    "old": tarfile.AREGTYPE,
}


@pytest.mark.parametrize("kind", KINDS)
def test_anything_but_a_plain_file_is_refused(packed: Path, into: Path, kind: str) -> None:
    entry = tarfile.TarInfo("report.html")
    entry.type, entry.linkname = KINDS[kind], "/etc/passwd"
    with_entry(packed, entry)
    with pytest.raises(BundleFormatError, match="no plain file"):
        bundles.unpack(packed, into)
    assert not into.exists()


def test_a_file_that_is_there_twice_is_refused(packed: Path, into: Path) -> None:
    with_entry(packed, tarfile.TarInfo("manifest.json"), b"{}")
    with pytest.raises(BundleFormatError, match="the same file twice"):
        bundles.unpack(packed, into)


def test_a_blob_that_the_manifest_does_not_name_is_refused(packed: Path, into: Path) -> None:
    with_entry(packed, tarfile.TarInfo(BLOB + "f" * 64), b"stowaway")
    with pytest.raises(BundleFormatError, match="blob ffffffffffff, which its manifest does not name"):
        bundles.unpack(packed, into)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_tar_formats_are_refused(packed: Path, into: Path, tar_format: int) -> None:
    with_entry(packed, tarfile.TarInfo("report.html" + "x" * 200), b"", tar_format=tar_format)
    with pytest.raises(BundleFormatError, match="not a packed bundle"):
        bundles.unpack(packed, into)


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80\0\0\0\0\0\0\1\0\0\0\0", b"-1\0         ", b"0o17        ", b"\0" * 12]
)
def test_a_size_that_is_none_or_goes_beyond_the_file_is_refused(packed: Path, into: Path, size: bytes) -> None:
    content = bytearray(packed.read_bytes())
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    packed.write_bytes(content)
    with pytest.raises(BundleFormatError):
        bundles.unpack(packed, into)


def test_a_file_cut_short_anywhere_is_refused(packed: Path, into: Path) -> None:
    content = packed.read_bytes()
    with packed.open("rb") as stream:
        last = list(_ustar.entries(stream))[-1]
    end = last.offset + -(-last.size_bytes // 512) * 512  # of what must be there; two empty blocks and padding follow
    for length in (0, 1, 511, 512, *range(600, end, 997), end - 1, end, end + 511):
        packed.write_bytes(content[:length])
        with pytest.raises(BundleError):
            bundles.unpack(packed, into)
    assert not into.exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x1f\x8b\x08", b"\0" * 1024, b"\0" * 512, b"\x5a" * 4096])
def test_what_is_no_tar_file_is_refused(tmp_path: Path, into: Path, content: bytes) -> None:
    (tmp_path / "x.edgebundle").write_bytes(content)
    with pytest.raises(BundleError):
        bundles.unpack(tmp_path / "x.edgebundle", into)
    assert not into.exists()


def test_a_packed_bundle_that_is_not_there_is_named(tmp_path: Path, into: Path) -> None:
    with pytest.raises(BundleError, match=r"no\.edgebundle: cannot be read"):
        bundles.unpack(tmp_path / "no.edgebundle", into)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_changed_byte_is_found_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    from bundle_stage import write_bundle

    place = tmp_path_factory.getbasetemp() / "changed"
    packed = place / "digits-1.edgebundle"
    if not place.exists():
        place.mkdir()
        bundles.pack(write_bundle(place), packed)
    original = packed.read_bytes()
    offset = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[offset] = data.draw(st.integers(0, 255))
    (place / "changed.edgebundle").write_bytes(changed)
    try:
        with bundles.opened(place / "changed.edgebundle") as bundle:
            same = {v.id: bundle.blob(v).read_bytes() for v in bundle.manifest.variants} == CONTENTS
    except EdgeError as error:
        same = str(error).isprintable()
    assert same


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=2000))
def test_no_bytes_at_all_bring_another_exception_than_the_readers(content: bytes) -> None:
    try:
        found = list(_ustar.entries(io.BytesIO(content)))
    except _ustar.NotUstarError:
        found = []
    assert all(entry.offset + entry.size_bytes <= len(content) for entry in found)
