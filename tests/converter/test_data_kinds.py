"""Data in every form it may come in: archives, sounds, masks, boxes, a user's own function."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_graphs
from PIL import Image

from edge_converter.errors import DataError
from edge_converter.labelled import arrays, data, iterated
from edge_converter.labelled.data import Samples
from edge_sdk.manifest import Fit, Preprocessing, TensorSpec

PLAIN = Preprocessing()


def takes(*shape: int, dtype: str = "float32") -> list[TensorSpec]:
    """The one input of a model for samples of this shape."""
    return [TensorSpec(name="x", shape=(1, *shape), dtype=dtype)]


# ------------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_is_read_the_same_however_it_is_stored(
    tmp_path: Path, save: Callable[..., None], order: str
) -> None:
    x = np.asarray(np.random.default_rng(0).normal(0, 1, (40, 3, 2)), ">f4", order=order)
    save(tmp_path / "d.npz", x=x, y=np.arange(40) % 3, classes=["a", "b", "c"])
    samples = data.open_samples(tmp_path / "d.npz", inputs=takes(3, 2), preprocessing=PLAIN)
    rows = np.array([7, 3, 39])
    (read,) = samples.read(rows)
    assert read.dtype == np.float32
    assert (read == x[rows]).all()
    assert (samples.labels[rows] == rows % 3).all()
    assert samples.classes == ("a", "b", "c")
    assert len(set(samples.digests())) == 40


def test_labels_may_be_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((20, 2)))
    assert np.asarray(data.open_samples(tmp_path / "d.npz", inputs=takes(2), preprocessing=PLAIN).labels).shape == (
        20,
        0,
    )


MEASURE = """
    import sys
    from pathlib import Path
    import numpy as np
    from edge_converter import evaluate
    from edge_converter.labelled import data
    from edge_converter.metrics import Judged, choose
    from edge_sdk.manifest import Preprocessing, TensorSpec

    def anonymous_kb():
        return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])

    model, source = Path(sys.argv[1]), sys.argv[2]
    x = TensorSpec(name="x", shape=(1, 20000), dtype="float32")
    y = TensorSpec(name="y", shape=(1, 20000), dtype="float32")
    most = [0]
    def watch(_):
        most[0] = max(most[0], anonymous_kb())
    samples = data.open_samples(Path(source), inputs=[x], preprocessing=Preprocessing(mean=(0.5,)))
    rows = data.split(samples, apart=False, steer=False).count
    watch(0)
    metric = choose("cosine", Judged(samples=samples, rows=rows, outputs=(y,)))
    kept = evaluate.kept(model, samples, rows, metric.keep, advance=watch)
    metric.tally(kept, kept).value(), metric.agreement(kept, kept)
    watch(0)
    print(most[0])
"""

GENERATOR = """
    import numpy as np

    def many(count):
        random = np.random.default_rng(0)
        for number in range(count):
            yield random.random(20000, np.float32), None

    def few_samples():
        return many(150)

    def many_samples():
        return many(800)
"""


@pytest.mark.parametrize("kind", ["plain", "compressed", "generated"])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, kind: str) -> None:
    # 12 MB against 64 MB of samples, and as much again of answers that are kept.
    model = small_graphs.echo(tmp_path / "echo.tflite", 20000)
    (tmp_path / "mine.py").write_text(textwrap.dedent(GENERATOR))
    peaks = []
    for name, count in (("few", 150), ("many", 800)):
        source = f"mine:{name}_samples"
        if kind != "generated":
            source = str(tmp_path / f"{name}.npz")
            save = np.savez if kind == "plain" else np.savez_compressed
            x = np.zeros((count, 20000), np.float32)
            x[:, 0] = np.arange(count)
            save(source, x=x)
        words = [sys.executable, "-c", textwrap.dedent(MEASURE), str(model), source]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path)
        peaks.append(int(done.stdout.strip().splitlines()[-1]))
    assert peaks[1] - peaks[0] < 20_000, peaks


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", 10_000)
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((20, 1000), np.float32), y=np.zeros(20))
    assert (tmp_path / "d.npz").stat().st_size < 2000
    with pytest.raises(DataError, match="x unpacks to 80,000 bytes, and at most 10,000 are taken"):
        data.open_samples(tmp_path / "d.npz", inputs=takes(1000), preprocessing=PLAIN)


def test_a_header_that_claims_more_than_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((20, 4), np.float32), y=np.zeros(20))
    content = (tmp_path / "d.npz").read_bytes()
    assert content.count(b"(20, 4)") == 1
    forged = tmp_path / "forged.npz"
    with zipfile.ZipFile(tmp_path / "d.npz") as old, zipfile.ZipFile(forged, "w") as new:
        new.writestr("y.npy", old.read("y.npy"))
        new.writestr("x.npy", old.read("x.npy").replace(b"(20, 4), }   ", b"(20, 4000), }"))
    with pytest.raises(DataError, match=r"is no readable \.npz file"):
        data.open_samples(forged, inputs=takes(4000), preprocessing=PLAIN)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((20, 4), np.float32), y=np.zeros(20))
    content = bytearray(path.read_bytes())
    content[content.index(b"(20, 4)") + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is no readable \.npz file \(BadZipFile\)"):
        data.open_samples(path, inputs=takes(4), preprocessing=PLAIN)


# --------------------------------------------------------------------------------------------------------- sounds


def record(path: Path, values: np.ndarray, *, bits: int = 16, rate: int = 16000) -> None:
    """Write floats from -1 to 1, `[frames]` or `[frames, channels]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.round(values * 2.0 ** (bits - 1)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int64)
    raw = {
        8: (whole + 128).astype(np.uint8).tobytes,
        16: whole.astype("<i2").tobytes,
        24: whole.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes,
        32: whole.astype("<i4").tobytes,
    }[bits]()
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1 if values.ndim == 1 else values.shape[1])
        sound.setsampwidth(bits // 8)
        sound.setframerate(rate)
        sound.writeframes(raw)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_sounds_of_every_width_become_floats(tmp_path: Path, bits: int) -> None:
    wanted = np.sin(np.linspace(0, 9, 200)) * 0.9
    record(tmp_path / "yes" / "1.wav", wanted, bits=bits)
    samples = data.open_samples(tmp_path, inputs=takes(200), preprocessing=PLAIN)
    (read,) = samples.read(np.array([0]))
    assert np.abs(read[0] - wanted).max() <= 2.0 ** (1 - bits) + 1e-6
    assert samples.preprocessing.rate_hz == 16000


def test_channels_are_mixed_and_lengths_are_brought_to_the_models(tmp_path: Path) -> None:
    record(tmp_path / "yes" / "long.wav", np.tile([[0.5, 0.25]], (300, 1)))
    record(tmp_path / "yes" / "short.wav", np.full(50, 0.5))
    samples = data.open_samples(tmp_path, inputs=takes(100, 1), preprocessing=PLAIN)
    (read,) = samples.read(np.array([0, 1]))
    assert read.shape == (2, 100, 1)
    assert (read[0] == 0.375).all()
    assert (read[1, :50] == 0.5).all()
    assert not read[1, 50:].any()


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (
            lambda p: record(p / "yes" / "2.wav", np.zeros(9), rate=8000),
            "is sampled at 8000 Hz, where 16000 are expected",
        ),
        (lambda p: record(p / "yes" / "2.wav", np.zeros(0)), "holds no sound"),
        (lambda p: (p / "no").mkdir(), "class folder 'no' holds no file"),
        (lambda p: (p / "yes" / "2.wav").write_bytes(b"RIFF\x10\0\0\0WAVE"), r"is no PCM \.wav file"),
        (lambda p: (p / "yes" / "2.png").write_bytes(b"x"), r"is no \.wav file, as others in the folder are"),
    ],
)
def test_sounds_that_cannot_be_used(tmp_path: Path, break_it: Callable[[Path], None], says: str) -> None:
    record(tmp_path / "yes" / "1.wav", np.zeros(9))
    break_it(tmp_path)
    with pytest.raises(DataError, match=says):
        data.open_samples(tmp_path, inputs=takes(9), preprocessing=PLAIN)


def test_the_rate_asked_for_is_checked_and_spectrograms_are_the_users_to_make(tmp_path: Path) -> None:
    record(tmp_path / "yes" / "1.wav", np.zeros(9))
    with pytest.raises(DataError, match="is sampled at 16000 Hz, where 44100 are expected"):
        data.open_samples(tmp_path, inputs=takes(9), preprocessing=PLAIN, rate_hz=44100)
    with pytest.raises(DataError, match=r"sounds do not fit a model that takes \[49, 40\] float32.*module:function"):
        data.open_samples(tmp_path, inputs=takes(49, 40), preprocessing=PLAIN)


# ------------------------------------------------------------------------------------------------ boxes and masks


def test_boxes_follow_the_picture_through_resizing_and_cropping(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    (tmp_path / "annotations.json").write_text(
        json.dumps(
            {
                "info": {"year": 2026},
                "images": [{"id": 7, "file_name": "wide.png", "width": 200}],
                "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
                "annotations": [
                    {"image_id": 7, "category_id": 3, "bbox": [50, 0, 100, 50], "area": 1},
                    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 100], "iscrowd": 1},
                    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 100]},
                ],
            }
        )
    )

    def labels(how: Preprocessing) -> list[list[float]]:
        samples = data.open_samples(tmp_path, inputs=takes(50, 50, 3), preprocessing=how)
        return np.asarray(samples.labels[np.array([0])])[0].round(4).tolist()

    stretched = labels(Preprocessing(fit=Fit.STRETCH))
    assert stretched == [[0, 0.25, 0.5, 0.75, 2, 0], [0, 0, 1, 0.5, 0, 1], [0, 0, 1, 0.25, 0, 0]]
    # The centre is kept: 100 of 200 pixels, so the last box is cut away and the second halved.
    covered = labels(PLAIN)
    assert covered[:2] == [[0, 0, 0.5, 1, 2, 0], [0, 0, 1, 0.5, 0, 1]]
    assert covered[2][4] == -1
    cropped = labels(Preprocessing(resize=(100, 200), fit=Fit.STRETCH, crop=(50, 50)))
    assert cropped[0] == [0, 0, 0.5, 1, 2, 0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not in COCO's format"),
        ('{"images": [], "annotations": [], "categories": []}', "holds no samples"),
        (
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}',
            "names 'a.png', which is not there",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0,0,1,1]}], "categories": []}',
            "annotation 0 is of an image or a category that is not listed",
        ),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(DataError, match=says):
        data.open_samples(tmp_path, inputs=takes(8, 8, 3), preprocessing=PLAIN)


def test_masks_are_named_by_the_table_and_follow_their_picture(tmp_path: Path) -> None:
    colours = np.zeros((40, 80), np.uint8)
    colours[:, 40:] = 3
    for number in range(2):
        Image.new("RGB", (80, 40)).save(tmp_path / f"{number}.jpg")
        mask = Image.fromarray(colours)
        mask.putpalette([0] * 768)
        mask.save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,label\n0.jpg,0.png\n1.jpg,1.png\n")
    samples = data.open_samples(tmp_path, inputs=takes(10, 10, 3), preprocessing=PLAIN)
    labels = samples.labels[np.array([1])]
    assert labels.shape == (1, 10, 10)
    assert (labels[0, :, :5] == 0).all()
    assert (labels[0, :, 5:] == 3).all()


# ----------------------------------------------------------------------------------------------- a user's function

OWN = """
    import numpy as np

    def sequence():
        return [(np.full(3, n), n % 2) for n in range(20)]

    def generator():
        for n in range(20):
            yield np.full(3, n, np.float32), float(n) / 3

    def unlabelled():
        return ((np.full(3, n), None) for n in range(20))

    class Lazy:
        labels, classes, where = np.arange(20) % 2, ("even", "odd"), "mine"
        from edge_sdk.manifest import Preprocessing
        preprocessing = Preprocessing()
        def digests(self):
            return [str(n).encode() for n in range(20)]
        def read(self, rows):
            return (np.repeat(rows[:, None], 3, axis=1).astype(np.float32),)

    def lazy():
        return Lazy()

    def raises():
        yield np.zeros(3), 0
        raise OSError("the disk\\nis gone")

    def endless():
        while True:
            yield np.zeros(3), 0

    number = 5
    def nothing(): return 5
    def no_pair(): return [np.zeros(3)]
    def other_shape(): return [(np.zeros(4), 0)]
    def ragged(): return [([[1, 2], [3]], 0)]
    def with_nan(): return [(np.zeros(3), 0), (np.full(3, np.nan), 0)]
    def other_label(): return [(np.zeros(3), 0), (np.zeros(3), [0, 1])]
    def text_label(): return [(np.zeros(3), "cat")]
    def needs(argument): return []

    class Short(Lazy):
        def read(self, rows):
            return (np.zeros((1, 3), np.float32),)
    def short(): return Short()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Samples]:
    """Opens what a function of a module in the current directory gives."""
    name = f"own_{abs(hash(str(tmp_path))) % 10**9}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda function: data.open_samples(Path(f"{name}:{function}"), inputs=takes(3), preprocessing=PLAIN)


@pytest.mark.parametrize("function", ["sequence", "generator", "unlabelled", "lazy"])
def test_a_function_gives_samples_in_any_of_the_usual_ways(own: Callable[[str], Samples], function: str) -> None:
    samples = own(function)
    for _ in range(2):  # a generator can be run but once
        (read,) = samples.read(np.array([4, 19]))
        assert read.dtype == np.float32
        assert read.tolist() == [[4, 4, 4], [19, 19, 19]]
    assert len(set(samples.digests())) == 20
    labels = np.asarray(samples.labels[np.array([3])])
    wanted = {"sequence": [1], "generator": [1.0], "unlabelled": [[]], "lazy": [1]}[function]
    assert labels.tolist() == wanted


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("raises", r"getting sample 1 raised OSError: the disk; raised at own_\d+\.py:\d+"),
        ("nothing", "returned int, which gives no samples"),
        ("number", "is int, which cannot be called"),
        ("absent", "has no absent"),
        ("needs", "calling it raised TypeError"),
        ("no_pair", r"sample 0 is ndarray of 3, where \(sample, label\) belongs"),
        ("other_shape", r"sample 0 is \[4\], the model takes \[3\]"),
        ("ragged", "turning sample 0 into an array raised ValueError"),
        ("with_nan", "sample 1 holds NaN or infinity"),
        ("other_label", r"the label of sample 1 is int64 \[2\], and that of the first int64 \[\]"),
        ("text_label", "the label of sample 0 is <U3, not a number"),
    ],
)
def test_what_is_wrong_with_a_function_is_one_line(own: Callable[[str], Samples], function: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        own(function)
    assert "\n" not in str(caught.value)


def test_a_generator_without_an_end_is_stopped(own: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterated, "MAX_SAMPLES", 1000)
    with pytest.raises(DataError, match="gives more than 1,000 samples"):
        own("endless")


def test_an_object_of_the_users_that_reads_wrong_is_named(own: Callable[[str], Samples]) -> None:
    samples = own("short")
    with pytest.raises(DataError, match=r"2 samples came as \[1, 3\]"):
        samples.read(np.array([0, 1]))


def test_a_module_that_is_not_there_or_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_module_of_mine.py").write_text("import nothing_of_this_name\n")
    for name in ("not_there_at_all:f", "broken_module_of_mine:f"):
        with pytest.raises(DataError, match="importing it raised ModuleNotFoundError"):
            data.open_samples(Path(name), inputs=takes(3), preprocessing=PLAIN)
