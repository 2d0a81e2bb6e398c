"""Passes in a row: contracts are checked, and no step is run whose result is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import candidates, graph, pipeline, recipe
from edge_converter.cache import Cache, key
from edge_converter.candidates import FloatFile
from edge_converter.errors import PassContractError, QuantizationError
from edge_converter.labelled import data
from edge_converter.labelled.data import Samples
from edge_converter.passes import Room, Work
from edge_converter.pipeline import Step
from edge_lab import digits
from edge_sdk.manifest import Pass as Record
from edge_sdk.manifest import Precision, Preprocessing
from edge_sdk.wire import Wire

SMALL = digits.models()[0]


@pytest.fixture(scope="module")
def samples() -> Samples:
    inputs = graph.read(SMALL).inputs
    return data.open_samples(digits.directory() / "digits_train.npz", inputs=inputs, preprocessing=Preprocessing())


@pytest.fixture
def room(samples: Samples, tmp_path: Path) -> Room:
    return Room(samples=samples, rows=data.first_by_content(samples, 32), folder=tmp_path, where="small")


def plan(room: Room, *ids: str) -> tuple[candidates.Planned, ...]:
    variants = [one for one in recipe.load("default").variant if one.id in ids and one.of == "given"]
    return candidates.plan([FloatFile(source="small", path=SMALL)], variants, room)


class Plain(Wire, frozen=True, kw_only=True):
    """No options."""


class Odd:
    """A pass that does what a test wants."""

    name = "odd"
    version = 1
    options = Plain
    serves_all_formats = False

    def __init__(self, change: Any = None, *, requires: str = "", ensures: str = "") -> None:
        self._change = change or (lambda work: replace(work, done=(*work.done, Record(name="odd"))))
        self._requires, self._ensures = requires, ensures
        self.runs = 0

    def requires(self, work: Work, options: Any, room: Room) -> str:
        return self._requires

    def run(self, work: Work, options: Any, room: Room) -> Work:
        self.runs += 1
        return self._change(work)

    def ensures(self, before: Work, after: Work, options: Any) -> str:
        return self._ensures


def run(one: Odd, room: Room, cache: Cache | None = None) -> Work:
    content = SMALL.read_bytes()
    begin = Work(floating=content, content=content, precision=Precision.INT8)
    return pipeline.run(begin, (Step(do=one, options=Plain(), key=key("odd")),), room, cache or Cache(None))


def test_a_requirement_that_does_not_hold_refuses_the_variant_before_anything_runs(room: Room) -> None:
    odd = Odd(requires="the moon is full")
    with pytest.raises(QuantizationError, match="odd: the moon is full"):
        run(odd, room)
    assert odd.runs == 0


def test_a_promise_that_is_broken_is_named(room: Room) -> None:
    with pytest.raises(PassContractError, match="the pass odd broke its promise: nothing got smaller"):
        run(Odd(ensures="nothing got smaller"), room)


def test_a_pass_must_say_what_it_did(room: Room) -> None:
    with pytest.raises(PassContractError, match="it did not say what it did"):
        run(Odd(lambda work: work), room)


def test_a_pass_must_not_change_what_an_app_sees(room: Room) -> None:
    other = (Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_fp32.tflite").read_bytes()
    change = Odd(lambda work: replace(work, content=other, done=(Record(name="odd"),)))
    with pytest.raises(PassContractError, match=r"inputs were \[\(\(8, 8, 1\), 'float32'\)\]"):
        run(change, room)


def test_quantize_asks_for_ranges_and_compensate_for_integers(room: Room, tmp_path: Path) -> None:
    for names, line in ((("quantize",), "int8 needs ranges"), (("compensate",), "the model is not quantized")):
        bad = recipe.VariantRecipe(id="x", precision=Precision.INT8, passes=tuple({"name": name} for name in names))
        (planned,) = candidates.plan([FloatFile(source="small", path=SMALL)], [bad], room)
        own = replace(room, folder=tmp_path / names[0])
        own.folder.mkdir()
        _, (refused,) = candidates.make([planned], own, Cache(None))
        assert line in refused.reason


def test_a_known_result_is_not_computed_again(room: Room, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    odd = Odd()
    first, second = run(odd, room, cache), run(odd, room, cache)
    assert odd.runs == 1
    assert first == second


def test_variants_that_begin_alike_share_their_results(room: Room, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    both = plan(room, "int8", "int16x8")
    same = [one.key == other.key for one, other in zip(both[0].steps, both[1].steps, strict=False)]
    assert same == [True, True, False, False, False]  # fold, equalize, calibrate, quantize, compensate
    made, refused = candidates.make(both, room, cache)
    assert [one.precision for one in made] == [Precision.INT8, Precision.INT16X8]
    assert refused == []


def test_from_the_cache_comes_what_would_be_made_anew(room: Room, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("alone", "first", "again")]
    for folder in folders:
        folder.mkdir()
    planned = plan(room, "int8", "weight8", "clustered-int8")
    caches = [Cache(None), Cache(tmp_path / "cache"), Cache(tmp_path / "cache")]
    made = [
        candidates.make(planned, replace(room, folder=folder), cache)[0]
        for folder, cache in zip(folders, caches, strict=True)
    ]
    assert caches[2].found == 3
    assert caches[2].missed == 0
    contents = [[(one.id, one.path.read_bytes(), one.compression) for one in each] for each in made]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("what", ["samples", "seed", "option", "model"])
def test_what_a_result_depends_on_is_in_its_key(room: Room, what: str) -> None:
    def last(room: Room, price: float = 1e-7, path: Path = SMALL) -> str:
        passes = ({"name": "calibrate"}, {"name": "quantize"}, {"name": "cluster", "price": price})
        one = recipe.VariantRecipe(id="x", precision=Precision.INT8, passes=passes)
        (planned,) = candidates.plan([FloatFile(source="s", path=path)], [one], room)
        return planned.steps[-1].key

    other = {
        "samples": lambda: last(replace(room, rows=room.rows[1:])),
        "seed": lambda: last(replace(room, seed=1)),
        "option": lambda: last(room, price=1e-8),
        "model": lambda: last(room, path=digits.models()[1]),
    }[what]()
    assert other != last(room)
    assert last(room) == last(room)


def test_ranges_survive_the_cache(room: Room) -> None:
    ranges = {"a": {"min": np.float32(-1.5), "max": np.array([[1.0, 2.0]], np.float32), "sizes": [1, 2]}}
    work = Work(floating=b"f", content=b"q", precision=Precision.INT8, ranges=ranges)
    back = pipeline._unpacked(pipeline._packed(work), Precision.INT8)
    assert back.ranges is not None
    np.testing.assert_array_equal(back.ranges["a"]["max"], ranges["a"]["max"])
    assert back.ranges["a"]["min"].dtype == np.float32
    assert (back.floating, back.content) == (b"f", b"q")
