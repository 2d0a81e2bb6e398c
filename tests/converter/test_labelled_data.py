"""Labelled data: how it is read and divided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_converter.errors import DataError
from edge_converter.labelled import data
from edge_converter.labelled.data import Samples
from edge_sdk.manifest import Fit, Preprocessing, TensorSpec

PLAIN = Preprocessing()


def takes(*shape: int) -> list[TensorSpec]:
    """The one input of a model for samples of this shape."""
    return [TensorSpec(name="x", shape=(-1, *shape), dtype="float32")]


def saved(path: Path, x: np.ndarray, y: np.ndarray, **more: object) -> Path:
    np.savez(path, x=x, y=y, **{name: np.asarray(value) for name, value in more.items()})
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Samples]:
    """Writes numbered samples and opens them."""

    def write(x: np.ndarray, preprocessing: Preprocessing = PLAIN) -> Samples:
        path = saved(tmp_path / "x.npz", x.astype(np.float32)[:, np.newaxis], np.arange(len(x)))
        return data.open_samples(path, inputs=takes(1), preprocessing=preprocessing)

    return write


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(min_value=0, max_value=60), min_size=10, max_size=300), st.booleans(), st.randoms())
def test_a_sample_is_on_one_side_only_whatever_the_order(
    opened: Callable[..., Samples], numbers: list[int], steer: bool, shuffler: object
) -> None:
    first = np.array(numbers)
    order = list(range(len(first)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    sides = []
    for x in (first, first[order]):
        try:
            parts = data.split(opened(x), apart=False, steer=steer)
        except DataError:
            assert len(set(numbers)) < 10
            return
        rows = np.concatenate([parts.calibrate, parts.steer, parts.count])
        assert sorted(rows) == list(range(len(x)))
        found = [set(x[part]) for part in (parts.calibrate, parts.steer, parts.count)]
        assert sum(len(side) for side in found) == len(set(x))
        assert len(parts.steer) == 0 or steer
        sides.append(found)
    assert sides[0] == sides[1]


def test_at_most_128_calibrate_and_at_least_half_counts(opened: Callable[..., Samples]) -> None:
    parts = data.split(opened(np.arange(2000)), apart=False, steer=True)
    assert (len(parts.calibrate), len(parts.steer), len(parts.count)) == (128, 500, 1372)


def test_a_sample_added_later_changes_no_side_of_a_large_set_by_more_than_itself(
    opened: Callable[..., Samples],
) -> None:
    before = data.split(opened(np.arange(2000)), apart=False, steer=False)
    after = data.split(opened(np.arange(2001)), apart=False, steer=False)
    assert len(set(before.calibrate) - set(after.calibrate)) <= 1


def test_the_model_gets_value_minus_mean_over_std(opened: Callable[..., Samples]) -> None:
    samples = opened(np.arange(20), Preprocessing(mean=(10.0,), std=(2.0,)))
    assert samples.read(np.array([4, 12]))[0].tolist() == [[-3.0], [1.0]]


@pytest.mark.parametrize("kind", ["uint8", "int64", "float64", "float16", "bool"])
def test_numbers_of_every_kind_become_float32(tmp_path: Path, kind: str) -> None:
    x = (np.arange(40).reshape(20, 2) % 2).astype(kind)
    path = saved(tmp_path / "x.npz", x, np.zeros(20))
    (read,) = data.open_samples(path, inputs=takes(2), preprocessing=PLAIN).read(np.arange(20))
    assert read.dtype == np.float32
    assert (read == x).all()


def test_one_hot_rows_are_classes(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", np.zeros((3, 1)), np.eye(4)[[2, 0, 3]])
    assert np.asarray(data.open_samples(path, inputs=takes(1), preprocessing=PLAIN).labels).tolist() == [2, 0, 3]


# ------------------------------------------------------------------------------------------------------- images


def picture(path: Path, grey: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)


def test_images_are_labelled_by_a_table(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / "img" / f"{number}.png", 20 * number)
    rows = "".join(f"img/{number}.png,{number % 3}\n" for number in range(12))
    (tmp_path / "labels.csv").write_text("﻿file,label\n" + rows, encoding="utf-8")
    samples = data.open_samples(tmp_path, inputs=takes(8, 8, 1), preprocessing=PLAIN)
    assert samples.labels.tolist() == [number % 3 for number in range(12)]
    assert samples.classes == ()
    (read,) = samples.read(np.array([3, 11]))
    assert read.shape == (2, 8, 8, 1)
    assert (read[0].min(), read[1].max()) == (60, 220)
    assert samples.preprocessing.resize == (8, 8)


def test_images_are_labelled_by_their_folder(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        for number in range(6):
            picture(tmp_path / name / f"{number}.jpg", 40 * number)
    samples = data.open_samples(tmp_path, inputs=takes(4, 4, 3), preprocessing=PLAIN)
    assert samples.classes == ("cat", "dog")
    assert samples.labels.tolist() == [0] * 6 + [1] * 6
    assert samples.read(np.array([0]))[0].shape == (1, 4, 4, 3)


def test_names_that_are_fewer_than_the_outputs_are_refused(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        picture(tmp_path / name / "1.png", 7)
    samples = data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=PLAIN)
    with pytest.raises(DataError, match="names 2 classes, and the model has 10 outputs"):
        data.check_labels(samples, 10)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "does not begin with the header file,label"),
        ("name,class\na.png,1\n", "does not begin with the header file,label"),
        ("file,label\na.png\n", "line 2 is not file,label"),
        ("file,label\na.png,\n", "line 2 is not file,label"),
        ("file,label\n\nb.png,1\n", "line 3 names 'b.png', which is not there"),
        ("file,label\n", "holds no samples"),
        ("file,label\na.png,0\n", None),
    ],
)
def test_tables(tmp_path: Path, table: str, says: str | None) -> None:
    picture(tmp_path / "a.png", 7)
    (tmp_path / "labels.csv").write_text(table)
    if says is None:
        assert len(data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=PLAIN).labels) == 1
        return
    with pytest.raises(DataError, match=says) as caught:
        data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=PLAIN)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", 7)
    path = tmp_path / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:50])
    samples = data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=PLAIN)
    with pytest.raises(DataError, match="is no readable image") as caught:
        samples.read(np.array([0]))
    assert caught.value.where == str(path)


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither labels\.csv nor a sub-folder"):
        data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=PLAIN)


def test_images_do_not_fit_a_model_of_vectors(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", 7)
    with pytest.raises(DataError, match="images do not fit"):
        data.open_samples(tmp_path, inputs=takes(4), preprocessing=PLAIN)
    with pytest.raises(DataError, match="--resize 5x5 does not fit"):
        data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=Preprocessing(resize=(5, 5)))


@pytest.mark.parametrize(
    ("how", "says", "hint"),
    [
        (Preprocessing(resize=(6, 6)), "--resize 6x6 does not fit a model that takes 4x4", "add --crop 4x4"),
        (Preprocessing(resize=(2, 6)), "--resize 2x6 does not fit", "give the size it takes"),
        (Preprocessing(resize=(6, 6), crop=(5, 5)), "--crop 5x5 does not fit a model that takes 4x4", None),
    ],
)
def test_sizes_that_do_not_come_out_are_refused(
    how: Preprocessing, says: str, hint: str | None, tmp_path: Path
) -> None:
    picture(tmp_path / "cat" / "1.png", 7)
    with pytest.raises(DataError, match=says) as caught:
        data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=how)
    assert hint is None or hint in (caught.value.hint or "")


def test_an_image_too_small_to_crop_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png", 7, size=(3, 9))
    samples = data.open_samples(tmp_path, inputs=takes(4, 4, 1), preprocessing=Preprocessing(crop=(4, 4)))
    with pytest.raises(DataError, match="an image of 9x3 cannot be cropped to 4x4") as caught:
        samples.read(np.array([0]))
    assert caught.value.where == str(tmp_path / "cat" / "1.png")


def test_proportions_are_kept_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.tile(np.linspace(0, 255, 30).astype(np.uint8), (10, 1))).save(tmp_path / "cat" / "wide.png")

    def spread(how: Preprocessing) -> float:
        samples = data.open_samples(tmp_path, inputs=takes(10, 10, 1), preprocessing=how)
        return float(np.ptp(samples.read(np.array([0]))[0]))

    assert spread(PLAIN) < 120
    assert spread(Preprocessing(fit=Fit.STRETCH)) > 200
