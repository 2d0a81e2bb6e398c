"""Variants made by child processes: what they leave in the cache is what is made here, and one that dies costs one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edge_converter import candidates, crew, graph, recipe
from edge_converter.cache import Cache
from edge_converter.candidates import FloatFile, Planned
from edge_converter.labelled import data
from edge_converter.passes import Room
from edge_lab import digits
from edge_sdk.manifest import Precision, Preprocessing

SMALL = digits.models()[0]
LIMIT_S = 60.0


class Counted:
    """Progress that is counted."""

    def __init__(self) -> None:
        self.steps = 0

    def stage(self, what: str, total: int) -> None:
        self.total = total

    def advance(self, steps: int) -> None:
        self.steps += steps

    def note(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    inputs = graph.read(SMALL).inputs
    samples = data.open_samples(digits.directory() / "digits_train.npz", inputs=inputs, preprocessing=Preprocessing())
    return Room(
        samples=samples, rows=data.first_by_content(samples, 32), folder=tmp_path, where="small", progress=Counted()
    )


def plan(room: Room, *variants: recipe.VariantRecipe) -> tuple[Planned, ...]:
    return candidates.plan([FloatFile(source="small", path=SMALL)], variants, room)


def shipped(*ids: str) -> tuple[recipe.VariantRecipe, ...]:
    return tuple(one for one in recipe.load("default").variant if one.id in ids and one.of == "given")


def odd(*names: str) -> recipe.VariantRecipe:
    return recipe.VariantRecipe(id="odd", precision=Precision.INT8, passes=tuple({"name": name} for name in names))


def test_what_a_crew_leaves_is_found_and_is_a_variant(room: Room, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    planned = plan(room, *shipped("int8", "clustered-int8", "weight8"), odd("compensate"))
    reasons = crew.fill(planned, room, cache, deadline_s=LIMIT_S)
    assert reasons == {"odd": "compensate: the model is not quantized: put quantize before it"}
    assert isinstance(room.progress, Counted)
    assert (room.progress.steps, room.progress.total) == (4, 4)
    made, refused = candidates.make(planned, room, cache, reasons=reasons)
    assert [one.id for one in made] == ["int8", "weight8", "clustered-int8"]
    assert [one.id for one in refused] == ["odd"]
    assert (cache.found, cache.missed) == (3, 0)
    assert made[0].graph.precision is Precision.INT8
    assert psutil.Process().children() == []


def test_what_is_known_is_not_asked_for_again(room: Room, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    planned = plan(room, *shipped("fp16"))
    candidates.make(planned, room, cache)
    assert crew.fill(planned, room, cache, deadline_s=0.0) == {}


def test_one_that_takes_too_long_costs_its_variant(room: Room, tmp_path: Path) -> None:
    reasons = crew.fill(plan(room, *shipped("fp16")), room, Cache(tmp_path / "cache"), deadline_s=0.01)
    assert reasons == {"fp16": "did not import quantization within 0.01 s"}
    assert psutil.Process().children() == []


def test_one_that_is_killed_costs_its_variant_and_another_makes_the_rest(room: Room, tmp_path: Path) -> None:
    def kill_the_first() -> None:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            for child in psutil.Process().children():
                child.kill()
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    planned = plan(room, *shipped("fp16", "dynamic", "weight8"))
    reasons = crew.fill(planned, room, Cache(tmp_path / "cache"), deadline_s=LIMIT_S)
    killer.join()
    assert len(reasons) == 1
    assert "was killed by SIGKILL" in next(iter(reasons.values()))


def test_an_interrupted_crew_ends_at_once(room: Room, tmp_path: Path) -> None:
    class Interrupting(Counted):
        def advance(self, steps: int) -> None:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        crew.fill(
            plan(room, *shipped("fp16", "int16x8", "weight4")),
            replace(room, progress=Interrupting()),
            Cache(tmp_path / "cache"),
            deadline_s=LIMIT_S,
        )
    assert time.monotonic() - begun < LIMIT_S
    assert psutil.Process().children() == []


def test_no_step_is_made_by_two_at_once(room: Room, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    jobs = crew._Jobs(plan(room, *shipped("int8", "int16x8", "weight8")), cache)

    def taken() -> Iterator[str]:
        while jobs.left:
            one = jobs.take()
            assert one is not None
            yield one.id

    some = taken()
    # int16x8 begins with what int8 is busy with, so weight8 comes before it.
    assert [next(some), next(some)] == ["int8", "weight8"]
    waiting = threading.Thread(target=lambda: found.append(next(some)))
    found: list[str] = []
    waiting.start()
    waiting.join(0.2)
    assert found == []
    jobs.done(next(one for one in plan(room, *shipped("int8"))))
    waiting.join(LIMIT_S)
    assert found == ["int16x8"]


def test_a_small_model_is_not_worth_a_process(room: Room) -> None:
    assert not crew.is_worth_it(plan(room, *shipped("int8")), room)
    large = [replace(one, macs=10**9) for one in plan(room, *shipped("int8"))]
    assert crew.is_worth_it(large, room)
    assert crew.workers(large) == 1
