"""An app's raw image becomes what the model was judged on."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_sdk import preprocess
from edge_sdk.errors import InputError, MissingExtraError
from edge_sdk.manifest import Fit, Preprocessing

image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def striped(high: int, wide: int, channels: int = 3) -> np.ndarray:
    """Columns that grow lighter from left to right."""
    row = np.linspace(0, 255, wide).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (high, wide, channels)).copy()


def test_values_are_normalised_channel_by_channel() -> None:
    pixels = np.full((2, 2, 3), 100, np.uint8)
    found = preprocess.prepare(pixels, Preprocessing(mean=(100.0, 90.0, 0.0), std=(1.0, 10.0, 50.0)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], [0, 1, 2])


def test_what_is_not_an_image_is_only_normalised() -> None:
    found = preprocess.prepare(np.arange(4.0), Preprocessing(mean=(1.0,), std=(2.0,)))
    np.testing.assert_allclose(found, [-0.5, 0, 0.5, 1])


def test_covering_keeps_proportions_and_the_centre() -> None:
    pixels = striped(10, 30)
    found = preprocess.prepare(pixels, Preprocessing(resize=(10, 10)))
    assert found.shape == (10, 10, 3)
    np.testing.assert_allclose(found, pixels[:, 10:20], atol=1)


def test_stretching_keeps_everything() -> None:
    found = preprocess.prepare(striped(10, 40), Preprocessing(resize=(10, 10), fit=Fit.STRETCH))
    assert found[0, 0, 0] < 15
    assert found[0, -1, 0] > 240


def test_the_centre_is_cut_after_resizing() -> None:
    found = preprocess.prepare(striped(16, 16), Preprocessing(resize=(8, 8), crop=(4, 6)))
    whole = preprocess.prepare(striped(16, 16), Preprocessing(resize=(8, 8)))
    np.testing.assert_array_equal(found, whole[2:6, 1:7])


def test_cutting_needs_no_resizing() -> None:
    pixels = striped(6, 9)
    found = preprocess.prepare(pixels, Preprocessing(crop=(2, 3)))
    np.testing.assert_array_equal(found, pixels[2:4, 3:6].astype(np.float32))


def test_an_image_and_its_array_become_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    how = Preprocessing(resize=(12, 12), crop=(10, 10), mean=(127.0,), std=(128.0,))
    np.testing.assert_array_equal(
        preprocess.prepare(pixels, how), preprocess.prepare(image.fromarray(pixels), how, channels=3)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_mode_get_the_models_channels(mode: str, channels: int) -> None:
    picture = image.new("RGB", (9, 7), (10, 20, 30)).convert(mode)
    assert preprocess.prepare(picture, Preprocessing(resize=(4, 4)), channels=channels).shape == (4, 4, channels)


def test_it_is_what_torchvision_calls_resize_and_centre_crop() -> None:
    """The shorter side to 32 and the centre of 28, of a wide image: both within a rounding of the sampling grid."""
    pixels = np.asarray(image.effect_noise((90, 60), 64).convert("RGB"), np.uint8)
    theirs = np.asarray(image.fromarray(pixels).resize((48, 32), image.Resampling.BILINEAR), np.float32)[2:30, 10:38]
    ours = preprocess.prepare(pixels, Preprocessing(resize=(32, 32), crop=(28, 28)))
    np.testing.assert_allclose(ours, theirs, atol=2)


@pytest.mark.parametrize(
    ("given", "how", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), Preprocessing(crop=(5, 4)), "an image of 4x4 cannot be cropped to 5x4"),
        (np.zeros((4, 4, 3), np.float32), Preprocessing(resize=(2, 2)), "array of float32 .* cannot be resized"),
        (np.zeros((4, 4, 2), np.uint8), Preprocessing(resize=(2, 2)), "cannot be resized"),
        (np.zeros((0, 4, 3), np.uint8), Preprocessing(resize=(2, 2)), "cannot be resized"),
        (np.zeros(4, np.uint8), Preprocessing(resize=(2, 2)), r"shape \[4\] is no image"),
        ("cat.jpg", Preprocessing(resize=(2, 2)), "str is neither an array nor a Pillow image"),
    ],
)
def test_what_is_no_image_is_refused(given: object, how: Preprocessing, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocess.prepare(given, how, channels=3)


def test_without_pillow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="needs Pillow"):
        preprocess.prepare(striped(8, 8), Preprocessing(resize=(4, 4)))


def test_what_is_kept_of_an_image_never_leaves_it_by_rounding() -> None:
    for high in range(1, 400, 7):
        for wide in range(1, 400, 3):
            left, top, right, bottom = preprocess.covered((high, wide), (224, 224))
            assert 0 <= left < right <= wide
            assert 0 <= top < bottom <= high
