"""What training makes of a Keras model: faster, for int8, pruned; and what is said where it cannot be done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_converter import _keras_wire as wire
from edge_converter import evaluate, graph, paired, slim
from edge_converter.candidates import FloatFile
from edge_converter.errors import UnsupportedModelError
from edge_converter.keras_process import KerasProcess
from edge_converter.labelled import data
from edge_converter.quantization import quantize
from edge_converter.request import Silent
from edge_converter.slim import SpeedUp
from edge_converter.sources import identify
from edge_converter.trained import Trained, Training, train
from edge_lab import digits
from edge_sdk.manifest import Precision, Preprocessing

SMALL = digits.models(".keras")[0]
START_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """A Keras process, the float file of `small`, and the samples it learns from and is judged on."""

    process: KerasProcess
    folder: Path
    original: FloatFile
    lessons: data.Samples
    held_out: data.Samples

    def make(self, wanted: Training) -> Trained:
        """What comes of it."""
        return train(self.process, [(identify([SMALL])[0], self.original)], wanted, self.folder, Silent())

    def accuracy(self, path: Path) -> float:
        """In percent, of the held-out samples."""
        rows = data.as_rows(range(len(self.held_out.labels)))
        answers = evaluate.answers(path, self.held_out, rows, advance=lambda _: None)
        return paired.accuracy(answers, self.held_out.labels)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("school")
    with KerasProcess(folder, deadline_s=START_S) as process:
        (model,) = identify([SMALL])
        original = FloatFile(source=model.name, path=folder / "small.tflite")
        process.convert(model.path, model.framework, original.path)
        inputs = graph.read(original.path).inputs
        lessons, held_out = (
            data.open_samples(digits.directory() / f"digits_{part}.npz", inputs=inputs, preprocessing=Preprocessing())
            for part in ("train", "test")
        )
        yield School(process=process, folder=folder, original=original, lessons=lessons, held_out=held_out)


@pytest.mark.keras
@pytest.mark.timeout(900)
def test_a_slimmed_model_has_fewer_channels_is_faster_and_answers_as_well(school: School) -> None:
    rows = data.as_rows(range(len(school.lessons.labels)))
    made = school.make(Training(samples=school.lessons, rows=rows, slim=1.2, int8=False, steps=700))
    (file,) = made.files
    assert made.refused == ()
    assert file.label == "slim1.2"
    (step,) = file.compression
    assert step.name == "slim"
    assert step.parameters["steps"] == 700
    assert step.parameters["taught"] == 0  # it was trained on these samples
    assert float(step.evidence["macs"]) < float(step.evidence["macs_before"])
    assert graph.read(file.path).cost.macs < graph.read(school.original.path).cost.macs
    assert float(step.evidence["removed"]) > 0
    assert school.accuracy(file.path) > school.accuracy(school.original.path) - 3


@pytest.mark.keras
@pytest.mark.timeout(900)
def test_weights_trained_for_int8_are_those_that_int8_has(school: School) -> None:
    rows = data.as_rows(range(256))
    (file,) = school.make(Training(samples=school.lessons, rows=rows, qat=True)).files
    assert file.label == "qat"
    assert not file.roundable
    into = school.folder / "qat-int8.tflite"
    ranges = quantize.calibrate(file.path, school.lessons, rows[:64], threads=1)
    quantize.quantize(file.path, Precision.INT8, into, ranges=ranges)
    assert school.accuracy(into) > school.accuracy(file.path) - 1
    assert school.accuracy(into) > school.accuracy(school.original.path) - 2


@pytest.mark.keras
@pytest.mark.timeout(900)
def test_without_labels_a_model_learns_to_answer_as_before(school: School) -> None:
    rows = data.as_rows(range(256))
    wanted = Training(samples=school.lessons, rows=rows, labelled=False, prune=0.5)
    (file,) = school.make(wanted).files
    assert file.compression[0].parameters["labels"] is False
    assert school.accuracy(file.path) > school.accuracy(school.original.path) - 5


@pytest.mark.keras
@pytest.mark.timeout(900)
def test_a_speed_that_no_narrower_model_has_is_refused_and_the_rest_is_made(school: School) -> None:
    rows = data.as_rows(range(64))
    made = school.make(Training(samples=school.lessons, rows=rows, slim=16.0, int8=False, prune=0.5))
    assert [file.label for file in made.files] == ["pruned50"]
    (refused,) = made.refused
    assert refused.id == "slim16-fp32"
    assert "cannot be made so much smaller" in refused.reason or "times as fast with fewer channels" in refused.reason


class Killing(Silent):
    """Kills the TensorFlow process when it is about to prune, as a kernel out of memory would."""

    def __init__(self, process: KerasProcess) -> None:
        self.process = process

    def stage(self, what: str, total: int) -> None:
        if what.startswith("prune"):
            os.kill(self.process.pid, signal.SIGKILL)


@pytest.mark.keras
@pytest.mark.timeout(900)
def test_a_training_that_takes_its_process_down_costs_that_variant_alone(school: School, tmp_path: Path) -> None:
    rows = data.as_rows(range(64))
    wanted = Training(samples=school.lessons, rows=rows, prune=0.5, qat=True)
    model = identify([SMALL])[0]
    # A process of its own: the one that takes its place has to be gone, too, when the test is over.
    with KerasProcess(tmp_path, deadline_s=START_S) as process:
        made = train(process, [(model, school.original)], wanted, tmp_path, Killing(process))
    assert [file.label for file in made.files] == ["qat"]
    (refused,) = made.refused
    assert refused.id == "pruned50-fp32"
    assert "SIGKILL" in refused.reason


# ------------------------------------------------------------------------ the search alone, with a clock that is told


class Told:
    """A clock for models that take this share of their time whatever their channels."""

    def __init__(self, rest: float, *, of_int8: float | None = None) -> None:
        self.rest = {"fp32": rest, "int8": rest if of_int8 is None else of_int8}
        self.asked: list[int] = []

    def time(self, path: Path) -> dict[str, SpeedUp]:
        rung = int(path.name)
        self.asked.append(rung)
        ratios = {name: 1 / (rest + (1 - rest) * wire.RUNG**rung) for name, rest in self.rest.items()}
        return {name: SpeedUp(by_minima=ratio, by_medians=ratio) for name, ratio in ratios.items()}


@pytest.mark.parametrize(("rest", "rung"), [(0.0, 14), (0.1, 16), (0.3, 23)])
def test_the_search_goes_as_far_as_it_must_and_learns_what_does_not_shrink(rest: float, rung: int) -> None:
    clock = Told(rest)
    found = slim.find(1.6, lambda rung: Path(str(rung)), clock)
    assert found.rung == rung
    assert len(clock.asked) <= 3
    assert min(each.by_minima for each in found.measured.values()) >= 1.6


def test_one_number_format_decides_and_of_the_other_it_is_known_what_it_reached() -> None:
    found = slim.find(1.6, lambda rung: Path(str(rung)), Told(0.0, of_int8=0.3))
    assert found.rung == 14
    assert 1 < found.measured["int8"].by_minima < 1.6
    found = slim.find(1.6, lambda rung: Path(str(rung)), Told(0.0, of_int8=0.3), by="int8")
    assert found.rung == 23
    assert found.measured["int8"].by_minima >= 1.6


def test_the_search_comes_back_from_where_it_went_too_far() -> None:
    class Disturbed(Told):
        def time(self, path: Path) -> dict[str, SpeedUp]:
            measured = super().time(path)
            return measured if len(self.asked) > 1 else {"fp32": SpeedUp(by_minima=1.01, by_medians=1.01)}

    def make(rung: int) -> Path:
        if rung > 28:
            raise UnsupportedModelError("cannot be made so much smaller")
        return Path(str(rung))

    assert slim.find(1.6, make, Disturbed(0.0)).rung == 15


def test_the_search_says_how_fast_it_gets_at_most() -> None:
    with pytest.raises(UnsupportedModelError, match=r"is at most 1\.\d+ times as fast .* where 4 times is wanted"):
        slim.find(4.0, lambda rung: Path(str(rung)), Told(0.5))


def test_the_search_says_how_fast_it_got_where_no_more_channels_can_go() -> None:
    def make(rung: int) -> Path:
        if rung > 16:
            raise UnsupportedModelError("cannot be made so much smaller")
        return Path(str(rung))

    with pytest.raises(UnsupportedModelError, match=r"is at most 1\.\d+ times as fast"):
        slim.find(1.6, make, Told(0.4))
