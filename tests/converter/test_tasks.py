"""Every task from data to bundle, by the command a user types: what a variant is worth, and what is refused for it."""

from __future__ import annotations

import json
import textwrap
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
from small_graphs import Input, Output

from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Manifest

RANDOM = np.random.default_rng(21)
X = RANDOM.uniform(-1, 1, (80, 4)).astype(np.float32)
FEW = ("--precision", "int8", "--max-drop", 60)


def linear(path: Path, weights: np.ndarray, *, shape: tuple[int, ...] | None = None) -> Path:
    """A model of one dense layer, 4 numbers in."""
    return small_graphs.write(
        path, [Input(name="x", shape=(4,))], [Output(name="y", weights={"x": weights}, shape=shape)]
    )


def linear16(path: Path, weights: np.ndarray) -> Path:
    """The same, that listens to 16 values."""
    return small_graphs.write(path, [Input(name="x", shape=(16,))], [Output(name="y", weights={"x": weights})])


def record(path: Path, values: np.ndarray) -> None:
    """Write floats as 16 bits at 8 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(np.round(values * 32767).astype("<i2").tobytes())


@pytest.fixture
def converted(edge: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Manifest, Any]]:
    """Converts a model on arrays; the manifest, and what the program said."""

    def run(model: Path, *words: object, **arrays: np.ndarray) -> tuple[Manifest, Any]:
        np.savez(tmp_path / "d.npz", **arrays)
        done = edge("convert", model, "--data", tmp_path / "d.npz", *(words or FEW), "-o", tmp_path / "out.edge")
        assert done.status == 0, done.err
        return Bundle(tmp_path / "out.edge").manifest, done

    return run


def test_regression_is_judged_by_r2_and_a_drop_means_the_same_in_every_unit(
    converted: Callable[..., Any], tmp_path: Path
) -> None:
    weights = RANDOM.normal(0, 1, (2, 4))
    found = []
    for scale in (1.0, 1000.0):
        y = scale * (X @ weights.T + np.random.default_rng(1).normal(0, 0.1, (80, 2)))
        manifest, _ = converted(linear(tmp_path / "m.tflite", scale * weights), x=X, y=y)
        assert manifest.metric == "r2"
        assert 90 < manifest.variants[0].quality.value < 100
        found.append(manifest.variant("int8"))
    one, other = found
    assert 30 < one.quality.value < 100
    assert one.quality.drop == pytest.approx(other.quality.drop, abs=3)
    assert one.quality.interval > 0
    assert 0 < one.quality.agreement <= 100


def test_segmentation_is_judged_by_overlap(converted: Callable[..., Any], tmp_path: Path) -> None:
    weights = RANDOM.normal(0, 1, (3 * 2 * 2, 4))
    y = (X @ weights.T).reshape(80, 2, 2, 3).argmax(axis=3)
    manifest, done = converted(linear(tmp_path / "m.tflite", weights, shape=(2, 2, 3)), x=X, y=y)
    assert (manifest.metric, manifest.variants[0].quality.value) == ("miou", 100)
    assert manifest.variants[0].quality.drop == 0
    assert 60 < manifest.variant("int8").quality.agreement < 100
    assert "miou" in done.out


def test_embeddings_need_no_labels(converted: Callable[..., Any], tmp_path: Path) -> None:
    manifest, _ = converted(linear(tmp_path / "m.tflite", RANDOM.normal(0, 1, (16, 4))), x=X)
    assert (manifest.metric, manifest.variants[0].quality.value) == ("cosine", 100)
    assert 95 < manifest.variant("int8").quality.value < 100


def test_detectors_are_judged_by_mean_average_precision(converted: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    corners = np.zeros((8, 4))  # two boxes, each from one of the four inputs
    corners[[2, 3], 0] = corners[[6, 7], 1] = 1
    outputs = [
        Output(name="boxes", weights={"x": corners}, shape=(2, 4)),
        Output(name="classes", weights={"x": np.zeros((2, 4))}),
        Output(name="scores", weights={"x": np.array([[0, 0, 1, 0], [0, 0, 0, 1]])}),
        Output(name="count", weights={"x": np.array([[0, 0, 1, 1]])}, shape=()),
    ]
    model = small_graphs.write(tmp_path / "m.tflite", [Input(name="x", shape=(4,))], outputs)
    x = RANDOM.uniform(0.3, 1, (80, 4)).astype(np.float32)
    x[:, 2:] = 1.0
    boxes = np.zeros((80, 2, 5))
    boxes[:, 0, 2:4], boxes[:, 1, 2:4] = x[:, :1], x[:, 1:2]
    manifest, _ = converted(model, x=x, y=boxes)
    assert (manifest.metric, manifest.variants[0].quality.value) == ("map", 100)
    assert manifest.variants[0].quality.agreement == 100


def test_the_detections_of_tflites_own_operator_are_judged(converted: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    centres = np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.3, 0.4, 0.2], [0.5, 0.8, 0.2, 0.3]])
    model = small_graphs.detector(tmp_path / "m.tflite", centres, classes=2)
    scores = np.full((40, 3, 3), 0.02, np.float32)
    which = np.random.default_rng(0).integers(0, 3, 40)
    scores[np.arange(40), which, 1 + which % 2] = 0.9
    offsets = np.random.default_rng(1).normal(0, 0.01, (40, 3, 4)).astype(np.float32)
    low, high = centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2
    boxes = np.concatenate([low[which], high[which], (which % 2)[:, np.newaxis]], axis=1)[:, np.newaxis]
    manifest, _ = converted(model, *FEW, x0=offsets, x1=scores, y=boxes)
    assert manifest.metric == "map"
    assert [spec.shape for spec in manifest.outputs] == [(-1, 3, 4), (-1, 3), (-1, 3), (-1,)]
    assert 90 < manifest.variants[0].quality.value <= 100


def test_the_metric_that_is_named_is_taken(converted: Callable[..., Any], tmp_path: Path) -> None:
    weights = RANDOM.normal(0, 1, (8, 4))
    y = (X @ weights.T).argmax(axis=1)
    manifest, _ = converted(linear(tmp_path / "m.tflite", weights), *FEW, "--metric", "top5", x=X, y=y)
    assert {v.quality.metric for v in manifest.variants} == {"top5"}
    assert manifest.variant("int8").quality.value > 99


OWN = """
    import numpy as np

    def closeness(outputs, label):
        return -float(np.abs(outputs - label).mean())

    def raises(outputs, label):
        return outputs[5]

    def no_number(outputs, label):
        return "good"

    def nan(outputs, label):
        return float("nan")

    def bad_on_quantized(outputs, label):
        return 1.0 if float(np.abs(outputs - label).max()) < 1e-5 else float("inf")

    class Sign:
        name, unit, guess, classes, by_reference = "sign", "%", 50.0, None, False

        def __init__(self, judged):
            self._labels = np.concatenate([*judged.labels()])

        def keep(self, outputs, labels):
            return np.sign(outputs[0][:, 0])

        def tally(self, kept, reference):
            from edge_converter.metrics import Scores
            return Scores(scores=np.where(kept == np.sign(self._labels[:, 0]), 100.0, 0.0))

        def agreement(self, kept, reference):
            return 100.0 * float((kept == reference).mean())

    class Keeps(Sign):
        def keep(self, outputs, labels):
            raise KeyError("nothing")

    class KeepsOne(Sign):
        def keep(self, outputs, labels):
            return np.zeros(1)

    class Tallies(Sign):
        def tally(self, kept, reference):
            return None

    class Agrees(Sign):
        def agreement(self, kept, reference):
            return "mostly"

    class Property(Sign):
        @property
        def guess(self):
            raise ValueError("no idea")

    class UnspeakableError(Exception):
        def __str__(self):
            raise RuntimeError

    def unspeakable(outputs, label):
        raise UnspeakableError
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current directory."""
    name = f"judged_{abs(hash(str(tmp_path))) % 10**9}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def regression(path: Path) -> tuple[Path, np.ndarray]:
    """A model of two numbers, and labels that it answers rightly."""
    weights = np.random.default_rng(2).normal(0, 1, (2, 4)).astype(np.float32)
    return linear(path, weights), X @ weights.T


def test_a_metric_of_the_users_own(converted: Callable[..., Any], mine: str, tmp_path: Path) -> None:
    model, y = regression(tmp_path / "m.tflite")
    manifest, done = converted(model, *FEW, "--metric", f"{mine}:closeness", x=X, y=y)
    assert manifest.metric == "closeness"
    assert -0.001 < manifest.variants[0].quality.value <= 0
    quality = manifest.variant("int8").quality
    assert quality.drop == pytest.approx(-quality.value, abs=1e-3)
    assert 0 < quality.interval < quality.drop
    assert (
        "%" not in next(line for line in done.out.splitlines() if line.startswith("int8")).split("kB")[2].split("±")[0]
    )


def test_a_metric_of_the_users_own_may_fulfil_the_whole_contract(
    converted: Callable[..., Any], mine: str, tmp_path: Path
) -> None:
    model, y = regression(tmp_path / "m.tflite")
    manifest, _ = converted(model, *FEW, "--metric", f"{mine}:Sign", x=X, y=y)
    assert (manifest.metric, manifest.variants[0].quality.value) == ("sign", 100)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("raises", "judging a sample raised IndexError"),
        ("no_number", "gave str for a sample, where a number belongs"),
        ("nan", "gave nan for a sample, where a number belongs"),
        ("absent", "has no absent"),
        ("Keeps", "its keep raised KeyError: 'nothing'; raised at judged_"),
        ("KeepsOne", "its keep gave float64 [1] for "),
        ("Tallies", "its tally raised AttributeError"),
        ("Agrees", "its agreement raised ValueError"),
        ("Property", "making the metric raised ValueError: no idea"),
        ("unspeakable", "judging a sample raised UnspeakableError; raised at judged_"),
    ],
)
def test_a_metric_that_fails_is_one_line(
    edge: Callable[..., Any], mine: str, tmp_path: Path, metric: str, says: str
) -> None:
    model, y = regression(tmp_path / "m.tflite")
    np.savez(tmp_path / "d.npz", x=X, y=y)
    words = ("--data", tmp_path / "d.npz", "--metric", f"{mine}:{metric}", "-o", tmp_path / "o.edge")
    done = edge("convert", model, *words, *FEW)
    assert done.status == 2
    assert f"{mine}:{metric}: " in done.line
    assert says in done.line
    assert done.line.endswith("[metric]")
    assert "Traceback" not in done.err
    assert not (tmp_path / "o.edge").exists()


def test_a_metric_that_does_not_exist(edge: Callable[..., Any], tmp_path: Path) -> None:
    model, y = regression(tmp_path / "m.tflite")
    np.savez(tmp_path / "d.npz", x=X, y=y)
    done = edge("convert", model, "--data", tmp_path / "d.npz", "--metric", "f1", "-o", tmp_path / "o.edge")
    assert done.status == 2
    assert "there is no metric 'f1'; there are accuracy, top5, " in done.line


def test_a_metric_that_fails_on_one_variant_leaves_it_out_and_the_rest_is_made(
    converted: Callable[..., Any], mine: str, tmp_path: Path
) -> None:
    model, y = regression(tmp_path / "m.tflite")
    words = (*FEW, "--precision", "fp16", "--metric", f"{mine}:bad_on_quantized")
    manifest, _ = converted(model, *words, x=X, y=y)
    assert [v.id for v in manifest.variants] == ["fp32"]
    assert {one.id for one in manifest.refused} == {"fp16", "int8", "clustered-int8"}
    assert all("gave inf for a sample" in one.reason for one in manifest.refused)


# ------------------------------------------------------------------------------------------------------ the bound


def steep(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A classifier that int8 costs a few points, on 80 samples."""
    weights = np.random.default_rng(0).normal(0, 1, (3, 4))
    x = np.random.default_rng(4).normal(0, 1, (80, 4)).astype(np.float32)
    return linear(tmp_path / "m.tflite", weights), x, (x @ weights.T).argmax(axis=1)


def test_the_bound_tests_the_point_and_warns_or_the_upper_end_of_the_interval(
    converted: Callable[..., Any], tmp_path: Path
) -> None:
    model, x, y = steep(tmp_path)
    words: Sequence[object] = ("--precision", "fp16", "--max-drop", 2)
    manifest, done = converted(model, *words, x=x, y=y)
    quality = manifest.variant("fp16").quality
    assert quality.source_drop == 0
    assert quality.source_interval > 2
    assert "1 of the drops is known less well than --max-drop 2 asks, the widest 0.0 ± " in done.err
    assert " pt (n=60)" in done.out
    manifest, done = converted(model, *words, "--bound", "interval", x=x, y=y)
    (refused,) = manifest.refused
    assert "pt (n=60), up to " in refused.reason
    assert "below its float file, where at most 2 are allowed" in refused.reason
    assert "known less well" not in done.err


def test_what_calibrates_never_counts(
    converted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_converter import candidates, evaluate

    seen: dict[str, set[int]] = {"calibrate": set(), "count": set()}
    make, kept = candidates.make, evaluate.kept

    def made(planned: Any, room: Any, *more: Any, **named: Any) -> Any:
        seen["calibrate"] |= {int(row) for row in room.rows}  # all that passes can read
        return make(planned, room, *more, **named)

    def answered(path: Path, samples: Any, rows: Any, *more: Any, **named: Any) -> Any:
        seen["count"] |= {int(row) for row in rows}
        return kept(path, samples, rows, *more, **named)

    monkeypatch.setattr(candidates, "make", made)
    monkeypatch.setattr(evaluate, "kept", answered)
    model, x, y = steep(tmp_path)
    converted(model, *FEW, x=x, y=y)
    assert len(seen["calibrate"]) == 20
    assert len(seen["count"]) == 60
    assert not seen["calibrate"] & seen["count"]


def test_keywords_are_judged_by_the_recall_of_each_class_from_wav_files(
    edge: Callable[..., Any], tmp_path: Path
) -> None:
    weights = np.random.default_rng(3).normal(0, 1, (3, 16))
    model = linear16(tmp_path / "m.tflite", weights)
    counts = np.zeros(3, int)
    random = np.random.default_rng(8)
    for number in range(90):
        sound = random.uniform(-0.9, 0.9, 16)
        word = int((weights @ sound).argmax())
        counts[word] += 1
        record(tmp_path / "words" / ("no", "up", "yes")[word] / f"{number}.wav", sound)
    assert counts.min() > 8
    words = ("--metric", "recall", "--rate", 8000, "-o", tmp_path / "o.edge")
    done = edge("convert", model, "--data", tmp_path / "words", *FEW, *words, "--json")
    assert done.status == 0, done.err
    manifest = Bundle(tmp_path / "o.edge").manifest
    assert (manifest.metric, manifest.labels) == ("recall", ("no", "up", "yes"))
    assert manifest.preprocessing.rate_hz == 8000
    assert manifest.variants[0].quality.value == pytest.approx(100, abs=5)
    by_class = json.loads(done.out)["by_class"]
    assert set(by_class["int8"]) == {"0", "1", "2"}
    mean = float(np.mean(list(by_class["int8"].values())))
    assert manifest.variant("int8").quality.value == pytest.approx(mean, abs=1e-3)
    assert "By class" in (tmp_path / "o.edge" / "report.html").read_text()
    done = edge("convert", model, "--data", tmp_path / "words", "--rate", 16000, "-o", tmp_path / "p.edge")
    assert done.status == 2
    assert "is sampled at 8000 Hz, where 16000 are expected" in done.line


def test_calibration_samples_of_another_shape(edge: Callable[..., Any], tmp_path: Path) -> None:
    model, x, y = steep(tmp_path)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savez(tmp_path / "c.npz", x=x[:, :3], y=y)
    words = ("--data", tmp_path / "d.npz", "--calibration", tmp_path / "c.npz")
    done = edge("convert", model, *words, *FEW, "-o", tmp_path / "o.edge")
    assert done.status == 2
    assert "c.npz: its samples are [3], the model takes [4]" in done.line


def test_an_unreadable_image_in_the_middle_is_named(
    edge: Callable[..., Any], tmp_path: Path, convolutions: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    (folder).mkdir()
    for number in range(24):
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
    (folder / "17.png").write_bytes((folder / "17.png").read_bytes()[:40])
    table = "".join(f"{number}.png,{number % 10}\n" for number in range(24))
    (folder / "labels.csv").write_text("file,label\n" + table)
    done = edge("convert", convolutions, "--data", folder, *FEW, "-o", tmp_path / "o.edge")
    assert done.status == 2
    assert "17.png: is no readable image; remove it or repair it" in done.line
    assert not (tmp_path / "o.edge").exists()
