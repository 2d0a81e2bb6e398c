"""A bundle is what its manifest says, down to the last bit, or it is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_stage import CONTENTS, EVIDENCE, manifest_of, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import VALUES, places, replaced

from edge_sdk import bundle as bundles
from edge_sdk.bundle import Bundle
from edge_sdk.errors import (
    BlobMismatchError,
    BundleError,
    BundleFormatError,
    EdgeError,
    StorageError,
    UnknownVariantError,
)
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Origin
from edge_sdk.wire import canonical

pytestmark = pytest.mark.device

Make = Callable[..., Bundle]


def blob_path(bundle: Bundle, id_: str) -> Path:
    return bundle.path / bundles.BLOBS / bundle.variant(id_).blob


def edited(bundle: Bundle, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with its manifest changed by hand."""
    path = bundle.path / bundles.MANIFEST
    plain = json.loads(path.read_bytes())
    edit(plain)
    path.write_text(json.dumps(plain), encoding="utf-8")
    return bundle.path


def test_what_was_written_is_read_again(make_bundle: Make) -> None:
    written = make_bundle()
    read = Bundle(written.path)
    assert read.manifest == manifest_of(CONTENTS)
    assert read.evidence() == EVIDENCE
    assert {v.id: read.blob(v).read_bytes() for v in read.manifest.variants} == CONTENTS
    assert read.manifest_sha256 == hashlib.sha256((read.path / "manifest.json").read_bytes()).hexdigest()
    assert sorted(p.name for p in read.path.iterdir()) == ["blobs", "evidence.json", "manifest.json", "report.html"]


def test_variants_of_the_same_content_share_one_file(make_bundle: Make) -> None:
    bundle = make_bundle(contents={"one": b"same", "two": b"same"})
    assert len(list((bundle.path / bundles.BLOBS).iterdir())) == 1


def test_a_variant_that_is_not_there_is_named_beside_those_that_are(make_bundle: Make) -> None:
    with pytest.raises(UnknownVariantError, match=r"no variant 'int4'.*it has float, int8"):
        make_bundle().variant("int4")


# -------------------------------------------------------------------------------------------- blobs are checked


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("id_", CONTENTS)
def test_one_flipped_bit_in_any_blob_is_found(make_bundle: Make, id_: str, bit: int) -> None:
    bundle = make_bundle()
    path = blob_path(bundle, id_)
    content = bytearray(path.read_bytes())
    content[bit * len(content) // 8] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(BlobMismatchError, match="has another content") as caught:
        Bundle(bundle.path)
    assert f"({id_})" in caught.value.where
    assert caught.value.code == "bundle-blob-mismatch"


def test_a_blob_is_checked_when_it_is_asked_for_where_opening_did_not(make_bundle: Make) -> None:
    path = make_bundle().path
    blob_path(Bundle(path), "int8").write_bytes(b"x" * len(CONTENTS["int8"]))
    bundle = Bundle(path, verify=False)
    assert bundle.blob(bundle.variant("float")).exists()
    for _ in range(2):
        with pytest.raises(BlobMismatchError):
            bundle.blob(bundle.variant("int8"))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: os.truncate(path, 100), "has 100 bytes, not 280"),
        (lambda path: os.truncate(path, 0), "has 0 bytes, not 280"),
        (lambda path: os.truncate(path, 281), "has 281 bytes, not 280"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    ],
    ids=["truncated", "emptied", "longer", "missing", "a directory", "a named pipe"],
)
def test_a_blob_that_is_not_whole_is_refused(make_bundle: Make, damage: Callable[[Path], object], found: str) -> None:
    bundle = make_bundle()
    damage(blob_path(bundle, "int8"))
    with pytest.raises(BlobMismatchError, match=found):
        Bundle(bundle.path)


def test_a_blob_that_is_a_link_is_refused_even_to_the_right_content(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    path = blob_path(bundle, "int8")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlobMismatchError, match="cannot be read"):
        Bundle(bundle.path)


# ----------------------------------------------------------------------------------- the manifest and its bounds


MISSING = {"id": "int8-edgetpu", "delegate": "edgetpu", "profiles": ["coral-usb"], "reason": "no compiler"}


def _first(plain: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = plain["variants"][0]
    return first


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda m: m.update(format=2), "format"),
        (lambda m: m.update(format="1"), "format"),
        (lambda m: m.pop("format"), "format"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: _first(m).update(surprise=1), "surprise"),
        (lambda m: _first(m).update(blob="../../../etc/passwd"), "blob"),
        (lambda m: _first(m).update(blob=_first(m)["blob"].upper()), "blob"),
        (lambda m: _first(m).update(blob=_first(m)["blob"] + "\n"), "blob"),
        (lambda m: _first(m).update(id="../float"), "id"),
        (lambda m: _first(m).update(id="float\n"), "id"),
        (lambda m: _first(m).update(size_bytes=-1), "size_bytes"),
        (lambda m: _first(m).update(size_bytes=2**60), "size_bytes"),
        (lambda m: _first(m).update(precision="fp8"), "precision"),
        (lambda m: _first(m)["target"].update(delegate="abacus"), "delegate"),
        (lambda m: _first(m)["quality"].update(agreement=101), "agreement"),
        (lambda m: m.update(name="digits/1"), "name"),
        (lambda m: m.update(created=-1), "created"),
        (lambda m: m.update(variants=[]), "variants"),
        (lambda m: m.update(sources=[]), "sources"),
        (lambda m: m["variants"].append(_first(m)), "two variants have the same id"),
        (lambda m: m["sources"].append(m["sources"][0]), "two sources have the same name"),
        (lambda m: m.update(reference="int4"), "reference names 'int4'"),
        (lambda m: m.update(fronts={"rpi4": ["int4"]}), "fronts.rpi4 names 'int4'"),
        (lambda m: m.update(fronts={"rpi4": ["int8", "int8"]}), "fronts.rpi4 names a variant twice"),
        (lambda m: m.update(fronts={"../rpi4": ["int8"]}), "fronts"),
        (lambda m: m.update(accelerated={"rpi4": ["int4"]}), "accelerated.rpi4 names 'int4'"),
        (lambda m: m.update(accelerated={"rpi4": ["int8", "int8"]}), "accelerated.rpi4 names a variant twice"),
        (lambda m: m.update(missing=[MISSING | {"id": "int8"}]), "a variant that is missing has the id of another"),
        (lambda m: m.update(missing=[MISSING | {"twin": "int4"}]), "missing.int8-edgetpu.twin names 'int4'"),
        (lambda m: m.update(missing=[MISSING | {"delegate": "abacus"}]), "delegate"),
        (lambda m: _first(m).update(source="other"), "comes from 'other', which is no source"),
        (lambda m: _first(m)["target"].update(fallback="int4"), "fallback names 'int4'"),
        (lambda m: m["variants"][1].update(blob=_first(m)["blob"]), "one blob is given two sizes"),
        (
            lambda m: (
                m["variants"][1]["target"].update(delegate="edgetpu"),
                _first(m)["target"].update(fallback="int8"),
            ),
            "falls back to 'int8', which does not run on the CPU",
        ),
    ],
)
def test_a_manifest_that_breaks_a_bound_or_contradicts_itself_is_refused_by_name(
    make_bundle: Make, edit: Callable[[dict[str, Any]], None], named: str
) -> None:
    path = edited(make_bundle(), edit)
    with pytest.raises(BundleFormatError, match=named) as caught:
        Bundle(path)
    assert caught.value.where == str(path / "manifest.json")
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[" * 100_000, b"\xff\xfe", b"{}", b'{"format":1,"format":1}', b'{"created":NaN}'],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_a_manifest_that_is_none_is_refused(make_bundle: Make, content: bytes) -> None:
    bundle = make_bundle()
    (bundle.path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleFormatError):
        Bundle(bundle.path)


def test_a_manifest_of_another_format_says_so(make_bundle: Make) -> None:
    with pytest.raises(
        BundleFormatError, match=r"is of format 2; this version reads format 1.*update adaptive-edge-sdk"
    ):
        Bundle(edited(make_bundle(), lambda m: m.update(format=2, whatever={"is": "new"})))


def test_a_huge_manifest_is_refused_before_it_is_parsed(make_bundle: Make) -> None:
    bundle = make_bundle()
    os.truncate(bundle.path / "manifest.json", 1 << 40)  # sparse: a terabyte that costs nothing until it is read
    with pytest.raises(BundleFormatError, match=f"more than {bundles.MAX_MANIFEST_BYTES} bytes"):
        Bundle(bundle.path)


@pytest.mark.parametrize("path", ["nowhere.edge", "file.edge", "empty.edge", "a\0b.edge", "fifo"])
def test_where_no_bundle_is_the_error_says_what_to_name(tmp_path: Path, path: str) -> None:
    (tmp_path / "file.edge").write_text("text")
    (tmp_path / "empty.edge").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="no bundle here") as caught:
        Bundle(tmp_path / path)
    assert caught.value.hint


def test_a_manifest_that_is_a_link_is_refused(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    (bundle.path / "manifest.json").rename(tmp_path / "m.json")
    (bundle.path / "manifest.json").symlink_to(tmp_path / "m.json")
    with pytest.raises(BundleError, match="no bundle here"):
        Bundle(bundle.path)


def test_files_beside_those_a_bundle_has_are_never_read(make_bundle: Make) -> None:
    bundle = make_bundle()
    (bundle.path / bundles.BLOBS / ("f" * 64)).write_bytes(b"not what its name says, and nobody names it")
    (bundle.path / "notes.txt").write_text("hello")
    assert Bundle(bundle.path).manifest == bundle.manifest


PLAIN = json.loads(canonical(manifest_of(CONTENTS)))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(places(PLAIN)), VALUES)
def test_any_value_at_any_place_of_a_manifest_is_taken_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(replaced(PLAIN, place, value)), encoding="utf-8")
    assert _complaint_of(folder).isprintable()
    assert len(_complaint_of(folder)) < 1000


def _complaint_of(folder: Path) -> str:
    try:
        manifest = Bundle(folder, verify=False).manifest
    except EdgeError as error:
        return str(error)
    again = canonical(manifest)
    return "" if canonical(bundles.decode(again, Manifest, where="again")) == again else "\n"


# ------------------------------------------------------------------------------------------------------- writing


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_bundle(tmp_path, name).path for name in ("a.edge", "b.edge"))
    trees = [
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in (first, second)
    ]
    assert trees[0] == trees[1]
    assert (
        bundles.pack(Bundle(first), tmp_path / "a").read_bytes()
        == bundles.pack(Bundle(second), tmp_path / "b").read_bytes()
    )


def test_a_manifest_is_canonical_json(make_bundle: Make) -> None:
    raw = (make_bundle().path / "manifest.json").read_bytes()
    assert raw == json.dumps(json.loads(raw), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


@given(st.permutations(sorted(PLAIN)))
def test_the_order_of_a_manifests_keys_changes_nothing(keys: list[str]) -> None:
    shuffled = json.dumps({key: PLAIN[key] for key in keys}).encode()
    assert canonical(bundles.decode(shuffled, Manifest, where="here")) == canonical(manifest_of(CONTENTS))


def test_a_bundle_that_stands_there_is_replaced_and_nothing_is_left_beside_it(
    make_bundle: Make, tmp_path: Path
) -> None:
    make_bundle()
    make_bundle(contents={"only": b"new"}, version="2")
    assert Bundle(tmp_path / "digits-1.edge").manifest.version == "2"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert len(list((tmp_path / "digits-1.edge" / bundles.BLOBS).iterdir())) == 1


@pytest.mark.parametrize("content", ["file", "notes", "no manifest"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, content: str) -> None:
    place = tmp_path / "digits-1.edge"
    if content == "file":
        place.write_text("precious")
    else:
        place.mkdir()
        (place / ("notes.txt" if content == "notes" else "report.html")).write_text("precious")
    before = {p: p.read_bytes() for p in [place, *place.rglob("*")] if p.is_file()}
    with pytest.raises(StorageError, match="something that is no bundle stands here"):
        write_bundle(tmp_path)
    assert {p: p.read_bytes() for p in before} == before


def test_what_a_killed_writer_left_inside_a_bundle_does_not_keep_it_from_being_replaced(make_bundle: Make) -> None:
    (make_bundle().path / ".edge-tmp-evidence").write_text("half of it")
    assert make_bundle(version="2").manifest.version == "2"


@pytest.mark.parametrize("missing", [True, False])
def test_a_blob_that_is_not_what_the_manifest_says_is_not_written(
    make_bundle: Make, tmp_path: Path, missing: bool
) -> None:
    old = make_bundle()
    manifest = manifest_of({"float": b"the new model"}, version="2")
    (tmp_path / "other").write_bytes(b"another one!!")
    given_blobs = {} if missing else {manifest.variants[0].blob: tmp_path / "other"}
    with pytest.raises(BlobMismatchError) as caught:
        bundles.write(old.path, manifest, given_blobs, evidence=EVIDENCE, report="")
    assert ".edge-tmp" not in str(caught.value)
    assert Bundle(old.path).manifest == old.manifest
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


# ------------------------------------------------------------------------------------------------------ evidence


def latency(machine: str = "bench", median_ms: float = 1.0, **fields: Any) -> Latency:
    return Latency(variant="int8", origin=Origin.MEASURED, machine=machine, median_ms=median_ms, **fields)


def test_evidence_is_added_beside_the_manifest_and_a_new_measurement_replaces_the_old(make_bundle: Make) -> None:
    bundle = make_bundle()
    sha256 = bundle.manifest_sha256
    bundle.add_latencies((latency(), latency("other")))
    bundle.add_latencies((latency(median_ms=2.0),))
    found = {(x.variant, x.machine): x.median_ms for x in bundle.evidence().latency}
    assert found[("int8", "bench")] == 2.0
    assert found[("int8", "other")] == 1.0
    assert len(found) == len(EVIDENCE.latency) + 2
    assert Bundle(bundle.path).manifest_sha256 == sha256


def test_evidence_never_grows_beyond_what_is_read_again(make_bundle: Make) -> None:
    bundle = make_bundle()
    longest = "\U0001f600" * 1000
    for start in (0, 3000):
        bundle.add_latencies(tuple(latency(f"m{start + n}", source=longest) for n in range(3000)))
    kept = Bundle(bundle.path).evidence().latency
    assert len(kept) > 1000
    assert kept[-1].machine == "m5999"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format":2}', b'{"format":1,"latency":[{"variant":"int8"}]}'])
def test_malformed_evidence_is_refused_and_does_not_keep_the_bundle_from_opening(
    make_bundle: Make, content: bytes
) -> None:
    bundle = make_bundle()
    (bundle.path / "evidence.json").write_bytes(content)
    with pytest.raises(BundleFormatError, match=r"evidence\.json"):
        Bundle(bundle.path).evidence()


def test_a_bundle_without_evidence_has_none(make_bundle: Make) -> None:
    bundle = make_bundle()
    (bundle.path / "evidence.json").unlink()
    assert bundle.evidence() == EvidenceFile(format=1)
    bundle.add_latencies((latency(),))
    assert bundle.evidence().latency == (latency(),)


def test_a_copy_of_the_tree_is_the_same_bundle(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    shutil.copytree(bundle.path, tmp_path / "copy.edge")
    assert Bundle(tmp_path / "copy.edge").manifest_sha256 == bundle.manifest_sha256
