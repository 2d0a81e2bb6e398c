"""The cache: whole or not at all, checked when read, bounded, and never a reason to fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import cache, graph
from edge_converter.answered import Answered
from edge_converter.cache import Cache, key
from edge_converter.labelled import data
from edge_lab import digits
from edge_sdk.manifest import Preprocessing


def test_what_was_put_is_found(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "c")
    assert kept.get(key("a")) is None
    kept.put(key("a"), b"content")
    assert kept.get(key("a")) == b"content"
    assert (kept.found, kept.missed) == (1, 1)
    assert key("a") in kept


def test_any_flipped_bit_makes_an_entry_unknown_and_removes_it(tmp_path: Path) -> None:
    kept = Cache(tmp_path)
    for place in (0, 31, 32, 40):
        kept.put(key("a"), b"some content")
        (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert kept.get(key("a")) is None
        assert not path.exists()


def test_a_truncated_entry_is_unknown(tmp_path: Path) -> None:
    kept = Cache(tmp_path)
    kept.put(key("a"), b"some content")
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(path.read_bytes()[:20])
    assert kept.get(key("a")) is None


def test_a_place_that_no_file_system_takes_holds_nothing(tmp_path: Path) -> None:
    kept = Cache(tmp_path / ("x" * 300))
    kept.put(key("a"), b"content")
    assert key("a") not in kept
    assert kept.get(key("a")) is None
    assert kept.unkept == "cannot be written: File name too long"


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    kept = Cache(tmp_path, most_bytes=250)
    for number, name in enumerate("abc"):
        kept.put(key(name), bytes(68))  # and 32 of the digest
        (path,) = tmp_path.glob(f"??/{key(name)}")
        os.utime(path, (number, number))
    assert kept.get(key("a")) is not None  # used now
    assert kept.trim() == 1
    assert [name for name in "abc" if key(name) in kept] == ["a", "c"]


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = Cache(tmp_path / "file")
    kept.put(key("a"), b"content")
    assert kept.get(key("a")) is None
    assert kept.trim() == 0


def test_without_a_place_nothing_is_kept() -> None:
    kept = Cache(None)
    kept.put(key("a"), b"content")
    assert kept.get(key("a")) is None
    assert key("a") not in kept


def test_the_place_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    assert cache.folder() == tmp_path
    monkeypatch.setenv("EDGE_CACHE", "")
    assert cache.folder() is None
    monkeypatch.delenv("EDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "adaptive-edge-sdk" / "convert"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "adaptive-edge-sdk" / "convert"


def test_keys_tell_kinds_and_parts_apart() -> None:
    keys = {key("a"), key("b"), key("a", 1), key("a", "1"), key("a", b"1"), key("a", 1, 2), key("a", [1, 2])}
    assert len(keys) == 7


class Kept:
    """A metric that is called by the name of one of ours."""

    name = "accuracy"

    def keep(self, outputs: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
        return np.asarray(outputs[0].argmax(axis=1), np.int32)


def test_answers_are_known_again_for_the_same_file_and_samples_alone(tmp_path: Path) -> None:
    source, other = digits.models()[:2]
    samples = data.open_samples(
        digits.directory() / "digits_test.npz", inputs=graph.read(source).inputs, preprocessing=Preprocessing()
    )
    rows = np.arange(20)

    def found(path: Path, rows: np.ndarray, metric: Any = Kept()) -> tuple[list[int], int]:  # noqa: B008
        kept = Cache(tmp_path)
        done: list[int] = []
        answers = Answered(samples, rows, metric, kept).kept(path, advance=done.append)
        assert sum(done) == len(rows)
        return answers.tolist(), kept.found

    first = found(source, rows)
    assert first[1] == 0
    assert found(source, rows) == (first[0], 1)
    assert found(other, rows)[1] == 0
    assert found(source, rows[1:])[1] == 0

    class Own(Kept):
        name = "mine:metric"

    assert found(source, rows, Own()) == first
    assert found(source, rows, Own()) == first
