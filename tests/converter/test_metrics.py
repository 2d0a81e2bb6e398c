"""What variants are judged by: each metric against figures computed by hand or by others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, jaccard_score, r2_score, top_k_accuracy_score

from edge_converter import metrics, paired
from edge_converter.errors import DataError
from edge_converter.metrics import METRICS, Judged, Scores
from edge_converter.metrics.contract import Metric
from edge_sdk.manifest import Preprocessing, TensorSpec
from edge_sdk.quality import PERCENT, drop_text

RANDOM = np.random.default_rng(11)


@dataclass
class Held:
    """Samples whose labels are in memory."""

    labels: np.ndarray
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    where: str = "held.npz"

    def digests(self) -> list[bytes]:
        return [str(n).encode() for n in range(len(self.labels))]

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.zeros((len(rows), 1), np.float32),)


def judged(labels: np.ndarray, *shapes: tuple[int, ...]) -> Judged:
    outputs = tuple(TensorSpec(name=f"o{n}", shape=shape, dtype="float32") for n, shape in enumerate(shapes))
    return Judged(samples=Held(labels), rows=np.arange(len(labels)), outputs=outputs)


def value(metric: Metric, labels: np.ndarray, *outputs: np.ndarray) -> float:
    kept = metric.keep(outputs, labels)
    return metric.tally(kept, kept).value()


def test_every_metric_is_registered_and_those_in_percent_are_shown_so() -> None:
    assert set(METRICS) == PERCENT


# -------------------------------------------------------------------------------------------------- classification


def test_classes_are_scored_as_scikit_learn_scores_them() -> None:
    labels, scores = RANDOM.integers(0, 8, 300), RANDOM.normal(0, 1, (300, 8))
    scores[np.arange(300), labels] += 0.8
    about = judged(labels, (-1, 8))
    assert value(METRICS["accuracy"](about), labels, scores) == pytest.approx(
        100 * (scores.argmax(axis=1) == labels).mean()
    )
    assert value(METRICS["top5"](about), labels, scores) == pytest.approx(
        100 * top_k_accuracy_score(labels, scores, k=5)
    )
    assert value(METRICS["recall"](about), labels, scores) == pytest.approx(
        100 * balanced_accuracy_score(labels, scores.argmax(axis=1))
    )


def test_the_most_negative_int8_score_is_ranked_last() -> None:
    # `argsort(-scores)` of raw int8 puts -128 first, because 128 does not fit: a top-5 of 87 % where 100 % is right.
    raw = np.tile(np.arange(10, dtype=np.int8) * 5, (4, 1))
    raw[:, 0] = -128
    labels = np.array([9, 8, 7, 5])
    assert (np.argsort(-raw, axis=1)[:, 0] == 0).all()
    for scores in (raw, (raw.astype(np.float32) + 128) * 0.1):
        assert value(METRICS["top5"](judged(labels, (-1, 10))), labels, scores) == 100
    assert value(METRICS["top5"](judged(labels * 0, (-1, 10))), labels * 0, raw) == 0


def test_scores_that_are_no_numbers_are_wrong_answers() -> None:
    labels, scores = np.array([0, 0]), np.array([[1.0, 0.0], [np.nan, 0.0]])
    for name in ("accuracy", "top5"):
        assert value(METRICS[name](judged(labels, (-1, 2))), labels, scores) == 50


def test_the_recall_of_each_class_is_told() -> None:
    labels, answers = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    metric = METRICS["recall"](judged(labels, (-1, 3)))
    tally = metric.tally(answers, answers)
    assert tally.by_class == {0: pytest.approx(200 / 3), 1: 100.0}
    assert tally.value() == pytest.approx((200 / 3 + 100) / 2)


# ------------------------------------------------------------------------------------------------------ regression


def test_r2_is_scikit_learns() -> None:
    labels = RANDOM.normal(5, 3, (200, 2))
    answers = labels + RANDOM.normal(0, 1, (200, 2))
    found = value(METRICS["r2"](judged(labels, (-1, 2))), labels, answers)
    assert found == pytest.approx(100 * r2_score(labels, answers, multioutput="variance_weighted"), abs=1e-9)


def test_always_answering_the_mean_is_worth_nothing_whatever_the_unit() -> None:
    for scale in (1e-3, 1.0, 1e4):
        labels = scale * RANDOM.normal(2, 1, 500)
        for name in ("r2", "mae-skill"):
            metric = METRICS[name](judged(labels, (-1, 1)))
            assert value(metric, labels, np.full((500, 1), labels.mean())) == pytest.approx(0, abs=1e-9)
            assert value(metric, labels, labels[:, np.newaxis]) == 100


def test_answers_agree_within_a_tenth_of_the_labels_deviation() -> None:
    labels = RANDOM.normal(0, 1, 1000)
    metric = METRICS["r2"](judged(labels, (-1, 1)))
    reference = metric.keep([labels[:, np.newaxis]], labels)
    for step, agreement in ((0.09 * labels.std(), 100), (0.11 * labels.std(), 0)):
        assert metric.agreement(metric.keep([labels[:, np.newaxis] + step], labels), reference) == agreement


# ---------------------------------------------------------------------------------------------------- segmentation


def test_miou_is_scikit_learns_and_void_pixels_do_not_count() -> None:
    labels = RANDOM.integers(0, 3, (20, 6, 5))
    labels[:, 0] = 255
    scores = RANDOM.normal(0, 1, (20, 6, 5, 3))
    found = value(METRICS["miou"](judged(labels, (-1, 6, 5, 3))), labels, scores)
    counts = labels != 255
    wanted = jaccard_score(labels[counts], scores.argmax(axis=3)[counts], average="macro")
    assert found == pytest.approx(100 * wanted)
    as_classes = value(METRICS["miou"](judged(labels, (-1, 6, 5))), labels, scores.argmax(axis=3))
    assert as_classes == pytest.approx(found)


def test_a_coarser_map_is_brought_to_the_labels_size() -> None:
    labels = np.repeat(np.repeat(RANDOM.integers(0, 2, (12, 3, 3)), 4, axis=1), 4, axis=2)
    scores = np.eye(2)[labels[:, ::4, ::4]]
    assert value(METRICS["miou"](judged(labels, (-1, 3, 3, 2))), labels, scores) == 100


# ------------------------------------------------------------------------------------------------------- embedding


def test_cosine_needs_no_labels_and_is_100_for_the_reference_itself() -> None:
    about = judged(np.zeros((30, 0)), (-1, 16))
    metric = metrics.choose(None, about)
    assert metric.name == "cosine"
    vectors = RANDOM.normal(0, 1, (30, 16))
    reference = metric.keep([vectors], np.zeros((30, 0)))
    tilted = metric.keep([vectors + RANDOM.normal(0, 0.5, (30, 16))], np.zeros((30, 0)))
    assert metric.tally(reference, reference).value() == pytest.approx(100)
    assert 80 < metric.tally(tilted, reference).value() < 95
    assert metric.agreement(3 * reference, reference) == 100
    assert metric.agreement(tilted, reference) < 20


def test_verification_tells_identities_apart() -> None:
    labels = np.repeat(np.arange(10), 6)
    centres = RANDOM.normal(0, 1, (10, 16))
    metric = METRICS["verification"](judged(labels, (-1, 16)))
    assert value(metric, labels, centres[labels] + RANDOM.normal(0, 0.1, (60, 16))) > 99
    assert 35 < value(metric, labels, RANDOM.normal(0, 1, (60, 16))) < 65


# ------------------------------------------------------------------------------------------------------- detection


def boxes(samples: int, *, most: int = 6, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels, and detections that are near them, beside them, or of another class."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.6, (samples, most, 2))
    labels = np.concatenate([corner, corner + random.uniform(0.1, 0.4, corner.shape)], axis=2)
    classes = random.integers(0, 3, (samples, most, 1)).astype(float)
    labels = np.concatenate([labels, np.where(random.random(classes.shape) < 0.3, -1, classes)], axis=2)
    found = np.clip(labels[:, :, :4] + random.normal(0, 0.02, (samples, most, 4)), 0, 1)
    guessed = np.where(random.random((samples, most)) < 0.2, 0, np.maximum(labels[:, :, 4], 0))
    outputs = [found, guessed, random.random((samples, most)), np.full((samples,), most, float)]
    return labels, outputs


SHAPES = ((1, 6, 4), (1, 6), (1, 6), (1,))


def test_mean_average_precision_is_what_pycocotools_says() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    labels, outputs = boxes(40)
    metric = metrics.choose(None, judged(labels, *SHAPES))
    assert metric.name == "map"
    found = value(metric, labels, *outputs)
    truth, answers = [], []
    for sample, (rows, located, classes, scores) in enumerate(zip(labels, *outputs[:3], strict=True)):
        for row in rows[rows[:, 4] >= 0]:
            box = [1000 * row[1], 1000 * row[0], 1000 * (row[3] - row[1]), 1000 * (row[2] - row[0])]
            one = {"image_id": sample, "category_id": int(row[4]), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            truth.append({**one, "id": len(truth) + 1})
        for row, number, score in zip(located, classes, scores, strict=True):
            box = [1000 * row[1], 1000 * row[0], 1000 * (row[3] - row[1]), 1000 * (row[2] - row[0])]
            answers.append({"image_id": sample, "category_id": int(number), "bbox": box, "score": float(score)})
    side = coco.COCO()
    side.dataset = {
        "images": [{"id": n} for n in range(40)],
        "annotations": truth,
        "categories": [{"id": n} for n in range(3)],
    }
    side.dataset["info"] = {}
    side.createIndex()
    judge = COCOeval(side, side.loadRes(answers), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert 5 < found < 95
    assert found == pytest.approx(100 * judge.stats[0], abs=0.01)


def test_counting_a_sample_twice_is_having_it_twice() -> None:
    pytest.importorskip("pycocotools")
    labels, outputs = boxes(12)
    weights = np.random.default_rng(2).integers(0, 4, 12)
    rows = np.repeat(np.arange(12), weights)
    metric = METRICS["map"](judged(labels, *SHAPES))
    kept = metric.keep(outputs, labels)
    weighted = metric.tally(kept, kept).value(weights.astype(float))
    repeated = METRICS["map"](judged(labels[rows], *SHAPES))
    assert weighted == pytest.approx(value(repeated, labels[rows], *(each[rows] for each in outputs)), abs=0.5)


def test_detections_come_in_either_order_of_outputs() -> None:
    pytest.importorskip("pycocotools")
    labels, (located, classes, scores, count) = boxes(20)
    first = METRICS["map"](judged(labels, *SHAPES))
    other = METRICS["map"](judged(labels, (1, 6), (1, 6, 4), (1,), (1, 6)))
    one = value(first, labels, located, classes, scores, count)
    assert one == value(other, labels, scores, located, count, classes)
    none = np.zeros_like(count)
    assert value(first, labels, located, classes, scores, none) == 0


def test_models_agree_on_the_boxes_that_both_show() -> None:
    pytest.importorskip("pycocotools")
    labels, outputs = boxes(20)
    metric = METRICS["map"](judged(labels, *SHAPES))
    kept = metric.keep(outputs, labels)
    assert metric.agreement(kept, kept) == 100
    unsure = metric.keep([*outputs[:2], outputs[2] * 0.29, outputs[3]], labels)
    assert metric.agreement(unsure, kept) < 20
    assert metric.agreement(unsure, unsure) == 100


# ------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize(("freedom", "t"), [(3, 3.1824), (9, 2.2622), (30, 2.0423), (120, 1.9799)])
def test_students_quantile_is_the_published_one(freedom: int, t: float) -> None:
    assert paired.student_t95(freedom) == pytest.approx(t, rel=2e-3)


def test_the_interval_of_scores_covers_the_true_drop_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        before = random.normal(50, 20, 40)
        found = paired.difference(Scores(scores=before), Scores(scores=before - random.normal(1, 3, 40)))
        hits += abs(found.drop - 1) <= found.interval
    assert 0.92 < hits / 400 < 0.98


def test_pairing_makes_it_surer_than_two_separate_means() -> None:
    random = np.random.default_rng(1)
    before = random.normal(50, 20, 200)
    found = paired.difference(Scores(scores=before), Scores(scores=before - random.normal(1, 1, 200)))
    assert found.interval < 0.2 < 1.96 * math.sqrt(2) * 20 / math.sqrt(200)


def test_the_bootstrap_is_the_same_each_time_and_agrees_with_students_interval_where_both_apply() -> None:
    labels = RANDOM.integers(0, 2, (200, 4, 4))
    scores = np.eye(2)[labels] + RANDOM.normal(0, 0.7, (200, 4, 4, 2))
    metric = METRICS["miou"](judged(labels, (-1, 4, 4, 2)))
    worse = scores + RANDOM.normal(0, 0.4, scores.shape)
    kept, other = metric.keep([scores], labels), metric.keep([worse], labels)
    one, again = (paired.difference(metric.tally(kept, kept), metric.tally(other, kept)) for _ in range(2))
    assert one == again
    assert 0 < one.interval < one.drop
    assert one.drop == pytest.approx(metric.tally(kept, kept).value() - metric.tally(other, kept).value())


def test_a_drop_is_told_with_the_digits_its_interval_warrants() -> None:
    assert drop_text(0.3, 0.4, 500) == "0.3 ± 0.4 pt (n=500)"
    assert drop_text(-1.26, 3.14, 60) == "-1.3 ± 3.1 pt (n=60)"
    assert drop_text(0.0123, 0.0457, 60) == "0.01 ± 0.05 pt (n=60)"
    assert drop_text(0.0, 0.0, 60) == "0.0 ± 0.0 pt (n=60)"


# ------------------------------------------------------------------------------------------------ guessed or refused


@pytest.mark.parametrize(
    ("labels", "shapes", "name"),
    [
        (np.arange(12) % 3, [(-1, 3)], "accuracy"),
        (np.arange(12) % 3, [(-1, 7, 7, 8), (-1, 3)], "accuracy"),
        (np.arange(12), [(-1, 1)], "r2"),
        (np.linspace(0, 1, 12), [(-1, 1)], "r2"),
        (np.ones((12, 4)) * np.arange(12)[:, None] / 5, [(-1, 4)], "r2"),
        (np.ones((12, 5, 5), np.int64), [(-1, 5, 5, 21)], "miou"),
        (np.zeros((12, 0)), [(-1, 128)], "cosine"),
    ],
)
def test_a_metric_is_guessed_where_there_is_no_doubt(
    labels: np.ndarray, shapes: list[tuple[int, ...]], name: str
) -> None:
    assert metrics.guess(judged(labels, *shapes)) == name


@pytest.mark.parametrize(
    ("name", "labels", "shapes", "says"),
    [
        (None, np.linspace(0, 1, 12), [(-1, 3)], "do not say how to judge a model that gives"),
        ("accuracy", np.arange(12), [(-1, 3)], "label 3 of sample 3 is none of the model's 3 outputs"),
        ("accuracy", np.zeros((12, 0)), [(-1, 3)], "has no labels, and accuracy needs them"),
        ("accuracy", np.arange(12), [(-1, 3, 3, 2)], "accuracy needs one score a class"),
        ("r2", np.ones(12), [(-1, 1)], "all labels are the same"),
        ("r2", np.full(12, np.nan), [(-1, 1)], "a label is NaN"),
        ("miou", np.full((12, 2, 2), 9), [(-1, 2, 2, 3)], "a pixel is labelled 9, and the model has 3 classes"),
        ("verification", np.arange(12), [(-1, 8)], "no identity occurs twice"),
        ("verification", np.zeros(12, int), [(-1, 8)], "all samples are of one identity"),
        ("map", np.zeros((12, 2, 5)), [(-1, 3)], "map needs boxes, classes, scores and a count"),
        ("map", np.full((12, 2, 5), 7.0), list(SHAPES), "a box is not ymin, xmin, ymax, xmax"),
        ("map", np.full((12, 2, 5), -1.0), list(SHAPES), "no sample that counts has a box"),
    ],
)
def test_labels_that_do_not_fit_a_metric(
    name: str | None, labels: np.ndarray, shapes: list[tuple[int, ...]], says: str
) -> None:
    if name == "map":
        pytest.importorskip("pycocotools")
    with pytest.raises(DataError, match=says):
        metrics.choose(name, judged(labels, *shapes))
