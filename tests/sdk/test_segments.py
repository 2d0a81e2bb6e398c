"""A split model is what `split.json` says, down to the last bit, or it is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutation import VALUES, places, replaced

from edge_sdk import segments
from edge_sdk.errors import SegmentsError, StorageError
from edge_sdk.segments import PLAN, Segments, SplitPlan
from edge_sdk.wire import canonical, decode, encode

pytestmark = pytest.mark.device

FILES = {f"segment-{number}.tflite": b"the segment %d" % number * 9 for number in (1, 2, 3)}


def plain() -> dict[str, Any]:
    """Three segments; what the first makes is read by the third as well."""

    def tensor(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "shape": [-1, 4], "dtype": "int8", **more}

    def segment(number: int, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"segment-{number}.tflite"
        return {
            "number": number,
            "file": name,
            "sha256": hashlib.sha256(FILES[name]).hexdigest(),
            "size_bytes": len(FILES[name]),
            "first": 3 * number - 3,
            "end": 3 * number,
            "inputs": inputs,
            "outputs": outputs,
            "macs": 1000,
            "compute_ms": 1.5,
            "send_bytes": 4,
            "send_ms": 0.25,
        }

    return {
        "format": 1,
        "whole": {"sha256": "0" * 64, "size_bytes": 1000, "model": "digits-1", "variant": "int8"},
        "inputs": [{"name": "image", "shape": [-1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [-1, 4], "dtype": "float32", "source": 3}],
        "segments": [
            segment(1, [tensor("image")], [tensor("early")]),
            segment(2, [tensor("early", source=1)], [tensor("late")]),
            segment(3, [tensor("early", source=1), tensor("late", source=2)], [tensor("scores")]),
        ],
        "link_mb_s": 10.0,
        "timing": {"origin": "measured", "machine": "bench", "threads": 1, "samples": 31, "whole_ms": 4.5},
        "verified": 8,
        "verified_with": "ai-edge-litert 2.3.0",
    }


def plan_of(document: dict[str, Any]) -> SplitPlan:
    return decode(encode(document), SplitPlan, where="test")


@pytest.fixture
def written(tmp_path: Path) -> Segments:
    return segments.write(tmp_path / "split", plan_of(plain()), FILES)


def edited(written: Segments, edit: Callable[[dict[str, Any]], None]) -> Path:
    document = json.loads((written.path / PLAN).read_bytes())
    edit(document)
    (written.path / PLAN).write_text(json.dumps(document))
    return written.path


def test_what_was_written_is_read_again(written: Segments) -> None:
    read = Segments(written.path)
    assert read.plan == plan_of(plain())
    assert {segment.file: read.file(segment).read_bytes() for segment in read.plan.segments} == FILES
    assert sorted(path.name for path in read.path.iterdir()) == [*FILES, PLAN]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda d: d.update(format=2), "Invalid enum value 2"),
        (lambda d: d.update(more=1), "unknown field `more`"),
        (lambda d: d["segments"].reverse(), "segment 1 has the number 3"),
        (lambda d: d["segments"].pop(), r"no segment 3 gives the output 'scores'"),
        (lambda d: d.update(segments=d["segments"][:1]), "length >= 2"),
        (lambda d: d["segments"][1].update(first=2), "operators that are not its own"),
        (lambda d: d["segments"][1].update(end=3), "operators that are not its own"),
        (lambda d: d["segments"][1].update(file="segment-1.tflite"), "two segments have the same file"),
        (lambda d: d["segments"][1].update(file="../secret"), "matching regex"),
        (lambda d: d["segments"][1].update(file="segment-2.tflite\n"), "matching regex"),
        (lambda d: d["segments"][1]["inputs"][0].pop("source"), "the app does not give"),
        (lambda d: d["segments"][2]["inputs"][0].update(source=2), "segment 2 does not give before"),
        (lambda d: d["segments"][1]["inputs"][0].update(source=3), "segment 3 does not give before"),
        (lambda d: d["segments"][1]["inputs"][0].update(dtype="int16"), "another shape or dtype"),
        (lambda d: d["segments"][1]["inputs"][0].update(shape=[4]), "another shape or dtype"),
        (lambda d: d["segments"][1]["outputs"][0].update(name="image"), "'image' is given twice"),
        (lambda d: d["outputs"][0].update(source=2), "no segment 2 gives the output 'scores'"),
        (lambda d: d["outputs"][0].update(name="image", source=1), "no segment 1 gives the output 'image'"),
        (lambda d: d.update(link_mb_s=0), "> 0"),
        (lambda d: d.update(verified=0), ">= 1"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    edit: Callable[[dict[str, Any]], None], reason: str, written: Segments
) -> None:
    with pytest.raises(SegmentsError, match=reason) as refused:
        Segments(edited(written, edit))
    assert refused.value.code == "segments"
    assert str(written.path) in str(refused.value)


def test_a_segment_that_was_changed_is_refused(written: Segments) -> None:
    path = written.path / "segment-2.tflite"
    for content in (path.read_bytes()[:-1], path.read_bytes()[:-1] + b"x", b""):
        path.write_bytes(content)
        with pytest.raises(SegmentsError, match=r"is not what split\.json says"):
            Segments(written.path)


def test_a_segment_that_is_a_link_or_a_pipe_or_absent_is_refused(written: Segments) -> None:
    path = written.path / "segment-2.tflite"
    content = path.read_bytes()
    other = written.path.parent / "other"
    other.write_bytes(content)
    path.unlink()
    for make in (lambda: path.symlink_to(other), lambda: os.mkfifo(path), lambda: None):
        make()
        with pytest.raises(SegmentsError, match="cannot be read"):
            Segments(written.path)
        path.unlink(missing_ok=True)


def test_a_place_without_a_split_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", Path("a\0b")):
        with pytest.raises(SegmentsError, match="no split model here"):
            Segments(place)


def test_only_a_split_is_replaced(written: Segments, tmp_path: Path) -> None:
    again = plan_of(plain() | {"verified": 9})
    assert segments.write(written.path, again, FILES).plan.verified == 9
    (written.path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="no split model stands here"):
        segments.write(written.path, again, FILES)
    assert (written.path / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError):
        segments.write(tmp_path / "file", again, FILES)


def test_files_that_are_not_what_the_plan_says_are_not_written(tmp_path: Path) -> None:
    target = tmp_path / "split"
    for files in ({**FILES, "segment-3.tflite": b"another"}, {"segment-1.tflite": FILES["segment-1.tflite"]}):
        with pytest.raises(SegmentsError) as refused:
            segments.write(target, plan_of(plain()), files)
        assert str(target) in str(refused.value)
        assert ".edge-tmp" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@given(place=st.sampled_from(places(plain())), value=VALUES)
@settings(deadline=None)
def test_any_value_at_any_place_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    raw = json.dumps(replaced(plain(), place, value)).encode()
    try:
        plan = decode(raw, SplitPlan, where="test", error=SegmentsError)
        segments.check(plan, where="test")
    except SegmentsError:
        return
    assert decode(canonical(plan), SplitPlan, where="test") == plan


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from([PLAN, *FILES]))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_refused_or_changes_what_is_told_and_never_what_runs(
    where: float, bit: int, name: str, written: Segments
) -> None:
    path = written.path / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(where * len(content))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        read = Segments(written.path)
    except SegmentsError:
        pass
    else:
        assert name == PLAN
        assert {segment.file: read.file(segment).read_bytes() for segment in read.plan.segments} == FILES
        sources = [[tensor.source for tensor in segment.inputs] for segment in read.plan.segments]
        assert sources == [[None], [1], [1, 2]]
    finally:
        path.write_bytes(content)
