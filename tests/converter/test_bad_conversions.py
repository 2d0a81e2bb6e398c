"""Bad input: one clear line, the documented exit status, and what stood before stands."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lab import digits
from edge_sdk.bundle import Bundle

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"


def contents(folder: Path) -> dict[str, str]:
    """The files below a folder by their content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def refused(edge: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a conversion that must fail, twice: beside nothing and onto a bundle; returns the line it says."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    def run(*words: object, status: int = 2) -> str:
        fresh, standing = tmp_path / "out" / "fresh.edge", tmp_path / "out" / "standing.edge"
        fresh.parent.mkdir(exist_ok=True)
        shutil.rmtree(standing, ignore_errors=True)
        shutil.copytree(_standing(edge, tmp_path), standing)
        before = contents(standing)
        lines = set()
        for out in (fresh, standing):
            done = edge("convert", *words, "-o", out)
            assert done.status == status, done.err
            assert done.out == ""
            assert "Traceback" not in done.err
            assert done.line.startswith("edge: ")
            lines.add(done.line.replace(str(out), "OUT"))
        assert not fresh.exists()
        assert contents(standing) == before
        assert sorted(p.name for p in fresh.parent.iterdir()) == ["standing.edge"]
        assert list(scratch.iterdir()) == []
        (line,) = lines
        return line

    return run


def _standing(edge: Callable[..., Any], tmp_path: Path) -> Path:
    """A bundle that stands before."""
    place = tmp_path / "kept" / "standing.edge"
    if not place.exists():
        x = np.random.default_rng(3).normal(0, 1, (20, 4)).astype(np.float32)
        data = tmp_path / "standing.npz"
        np.savez(data, x=x, y=np.zeros(20, np.int64))
        model = TINY / "dense_fp32.tflite"
        assert edge("convert", model, "--data", data, "--precision", "fp32", "-o", place).status == 0
    return place


# ------------------------------------------------------------------------------------------------------- models


def test_a_missing_model(refused: Callable[..., str], points: Path, tmp_path: Path) -> None:
    line = refused(tmp_path / "absent.tflite", "--data", points)
    assert "absent.tflite: cannot be read: No such file or directory" in line
    assert line.endswith("[source-model]")


@pytest.mark.parametrize("share", [0.3, 0.9], ids=["head", "tail"])
def test_a_truncated_tflite(refused: Callable[..., str], points: Path, tiny: Path, share: float) -> None:
    content = tiny.read_bytes()
    tiny.write_bytes(content[: int(share * len(content))])
    line = refused(tiny, "--data", points)
    assert str(tiny) in line
    assert line.endswith("[source-model]")


def test_a_tflite_of_noise(refused: Callable[..., str], points: Path, tiny: Path) -> None:
    noise = np.random.default_rng(0).bytes(4096)
    tiny.write_bytes(noise[:4] + b"TFL3" + noise[8:])
    line = refused(tiny, "--data", points)
    assert str(tiny) in line
    assert line.endswith("[source-model]")


@pytest.mark.parametrize("suffix", [".tflite", ".keras", ".h5", ".pt2", ".onnx"])
def test_a_file_that_does_not_begin_as_its_name_says(
    refused: Callable[..., str], points: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"<html>404 Not Found</html>")
    line = refused(path, "--data", points)
    assert f"{path}: is damaged: it does not begin as a {suffix} file does" in line


@pytest.mark.parametrize("name", ["model.pdf", "model"])
def test_a_file_of_another_kind(refused: Callable[..., str], points: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"something else")
    line = refused(path, "--data", points)
    assert "is no model this converter reads" in line
    assert "it reads .keras, .h5, .tflite, .pt2, .onnx, SavedModel directories and torch:MODULE:FUNCTION" in line


def test_a_directory_that_is_no_saved_model(refused: Callable[..., str], points: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a directory without saved_model.pb" in refused(tmp_path / "folder", "--data", points)


def test_an_operator_the_runtime_does_not_have(refused: Callable[..., str], points: Path) -> None:
    line = refused(TINY / "custom_op.tflite", "--data", points)
    assert "custom_op.tflite: " in line
    assert "ethos-u" in line


def test_data_for_another_number_or_kind_of_inputs(refused: Callable[..., str], points: Path) -> None:
    line = refused(TINY / "two_by_two.tflite", "--data", points)
    assert "needs the arrays x0 and x1 and y, and holds x, y" in line
    assert refused(TINY / "tokens.tflite", "--data", points).endswith("[data]")


def test_two_models_that_answer_different_questions(
    refused: Callable[..., str], points: Path, tiny: Path, convolutions: Path
) -> None:
    line = refused(tiny, convolutions, "--data", points)
    assert "small is [-1, 8, 8, 1] float32 -> [-1, 10] float32 and tiny is [-1, 4] float32 -> [-1, 3] float32" in line
    assert line.endswith("[signature-mismatch]")


def test_the_same_model_twice(refused: Callable[..., str], points: Path, tiny: Path) -> None:
    assert f"{tiny}: is given twice" in refused(tiny, tiny, "--data", points)


# --------------------------------------------------------------------------------------------------------- data


def arrays(tmp_path: Path, **named: object) -> Path:
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: np.asarray(value) for name, value in named.items()})
    return path


X = np.random.default_rng(5).normal(0, 1, (40, 4)).astype(np.float32)
Y = np.zeros(40, np.int64)
ONE_HOT = np.eye(3)[np.arange(40) % 3]
ODD = np.arange(40)[:, np.newaxis] == 7
WITH_NAN = np.where(np.arange(160).reshape(40, 4) == 42, np.nan, X)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"x": X[:0], "y": Y[:0]}, "holds no samples"),
        ({"x": X[:5], "y": Y[:5]}, "holds 5 samples; at least 10 are needed"),
        ({"x": np.ones((40, 4)), "y": Y}, "holds nothing but copies of a few samples"),
        ({"x": X, "y": Y + 3}, "label 3 of sample 0 is none of the model's 3 outputs; labels go from 0 to 2"),
        ({"x": X, "y": Y - 1}, "label -1 of sample 0 is none"),
        ({"x": X, "y": Y[:-1]}, "holds 40 samples and 39 labels"),
        ({"x": X[:, :3], "y": Y}, "its samples are [3], the model takes [4]"),
        ({"x": WITH_NAN, "y": Y}, "sample 10 holds NaN or infinity"),
        (
            {"x": X, "y": Y + 0.5},
            "labels of float64 one a sample do not say how to judge a model that gives [-1, 3]; --metric accuracy",
        ),
        ({"x": X, "y": Y.astype("U3")}, "y holds <U3, not numbers"),
        ({"x": X.astype("U9"), "y": Y}, "x holds <U9, not numbers"),
        ({"x": X, "y": np.ones((40, 3))}, "all labels are the same"),
        ({"x": X, "y": np.ones((40, 3), int)}, "labels of int64 [3] do not say how to judge"),
        ({"x": X, "y": ONE_HOT * ~ODD}, "its labels are one-hot rows, but that of sample 7 holds no ones; label by"),
        ({"x": X, "y": (ONE_HOT * ~ODD).astype(int)}, "one-hot rows, but that of sample 7 holds no ones"),
        ({"x": X, "y": np.maximum(ONE_HOT, ODD)}, "one-hot rows, but that of sample 7 holds 3 ones"),
        ({"x": X, "y": np.eye(5)[np.arange(40) % 3]}, "its one-hot labels have 5 columns, and the model has 3 outputs"),
        ({"x": X, "y": np.eye(2)[np.arange(40) % 2]}, "its one-hot labels have 2 columns, and the model has 3 outputs"),
        (
            {"x": X, "y": np.where(ODD[:, 0], np.uint64(2**64 - 1), np.uint64(1))},
            "label 18446744073709551615 of sample 7 is larger than any class number; label by class number",
        ),
        ({"x": X, "y": ONE_HOT * 1e300}, "its labels are too large to compute with; scale them"),
        ({"images": X, "labels": Y}, "needs the arrays x and y, and holds images, labels"),
        ({"x": X, "y": Y, "classes": ["cat", "dog"]}, "names 2 classes, and the model has 3 outputs"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_bad_arrays(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, named: dict[str, object], says: str
) -> None:
    path = arrays(tmp_path, **named)
    line = refused(tiny, "--data", path)
    assert says in line
    assert str(path) in line
    assert line.endswith("[data]")


def test_pickled_arrays_are_not_loaded(refused: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([{"a": 1}] * 20, dtype=object), y=Y[:20])
    assert "is no readable .npz file" in refused(tiny, "--data", path)


def test_a_truncated_archive(refused: Callable[..., str], tiny: Path, points: Path) -> None:
    points.write_bytes(points.read_bytes()[:-100])
    assert f"{points}: is no readable .npz file" in refused(tiny, "--data", points)


@pytest.mark.parametrize("option", ["--data", "--calibration", "--train"])
def test_missing_data(refused: Callable[..., str], tiny: Path, points: Path, tmp_path: Path, option: str) -> None:
    words = [] if option == "--data" else ["--data", points]
    assert "absent.npz: is not there" in refused(tiny, *words, option, tmp_path / "absent.npz")


def test_a_mean_for_each_of_the_wrong_number_of_channels(refused: Callable[..., str], tiny: Path, points: Path) -> None:
    assert "2 values of mean for 4 channels" in refused(tiny, "--data", points, "--mean", "1,2")
    assert "a std of 0 divides by zero" in refused(tiny, "--data", points, "--std", "0")


# ----------------------------------------------------------------------------------------------------- the rest


def test_an_unknown_board(refused: Callable[..., str], tiny: Path, points: Path) -> None:
    line = refused(tiny, "--data", points, "--profile", "rpi44")
    assert "no profile 'rpi44'; there are " in line
    assert "rpi4, " in line
    assert line.endswith("[unknown-profile]")


@pytest.mark.parametrize(
    "words",
    [
        ("--max-drop", "nan"),
        ("--max-drop", "-1"),
        ("--prune", "1"),
        ("--prune", "inf"),
        ("--slim", "1"),
        ("--slim", "nan"),
        ("--train-steps", "-1"),
        ("--threads", "0"),
        ("--threads", "1.5"),
        ("--seed", "-1"),
        ("--resize", "0x4"),
        ("--mean", "1,,2"),
        ("--precision", "int7"),
        ("--name", "../evil"),
        ("--version", "a/b"),
    ],
    ids="=".join,
)
def test_an_option_out_of_bounds(refused: Callable[..., str], tiny: Path, points: Path, words: tuple[str, str]) -> None:
    assert refused(tiny, "--data", points, *words).endswith("[usage]")


def test_an_output_that_is_a_file(edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    done = edge("convert", tiny, "--data", points, "-o", out)
    assert done.status == 2
    assert f"{out}: is a file; a bundle is a directory" in done.line
    assert out.read_text() == "mine"


def test_an_output_that_is_a_directory_of_something_else(
    edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path
) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "one.jpg").write_bytes(b"mine")
    done = edge("convert", tiny, "--data", points, "-o", out)
    assert done.status == 2
    assert "is a directory that holds no bundle" in done.line
    assert contents(out).keys() == {"one.jpg"}


def test_a_bundle_with_a_file_of_the_user_in_it_is_left_alone(
    edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.edge"
    assert edge("convert", tiny, "--data", points, "--precision", "fp32", "-o", out).status == 0
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    done = edge("convert", tiny, "--data", points, "--precision", "fp32", "-o", out)
    assert done.status in {1, 2}
    assert "no bundle" in done.line
    assert contents(out) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_samples_are_answered(
    few_digits: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["convert", str(digits.models()[2]), "--data", str(few_digits), "-o", str(tmp_path / "out.edge")]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as running:
        assert running.stderr is not None
        said = next(line for line in running.stderr if line.startswith("edge: evaluate"))
        running.send_signal(number)
        _, rest = running.communicate(timeout=60)
    assert running.returncode == status, said + rest
    assert "Traceback" not in rest
    assert not (tmp_path / "out.edge").exists()
    assert list(scratch.iterdir()) == []


def test_a_full_disk_while_the_bundle_is_written(tiny: Path, points: Path, tmp_path: Path) -> None:
    # Files may grow to 5 kB: the models fit, the report does not. Which error the kernel gives then (EFBIG for
    # ENOSPC) is the only difference to a full disk.
    out, scratch = tmp_path / "out" / "a.edge", tmp_path / "scratch"
    out.parent.mkdir()
    scratch.mkdir()
    base = ["convert", str(tiny), "--data", str(points), "--precision", "fp16", "-o", str(out)]
    whole = "import sys; from edge_sdk.cli import main; sys.exit(main(sys.argv[1:]))"
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000)); " + whole

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *base],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "TMPDIR": str(scratch)},
        )

    for stands in (False, True):
        before = contents(out.parent)
        done = run(limited)
        assert done.returncode == 1, done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith(f"edge: {out}: cannot be written: File too large; free some space")
        assert line.endswith("[storage]")
        assert contents(out.parent) == before
        assert list(scratch.iterdir()) == []
        if not stands:
            assert run(whole).returncode == 0
    Bundle(out)


def test_a_full_disk_where_temporary_files_lie(tiny: Path, points: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["convert", tiny, "--data", points, "--precision", "fp16", "-o", tmp_path / "a.edge"]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); from edge_sdk.cli import main; "
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code} sys.exit(main(sys.argv[1:]))", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"edge: {scratch}: no temporary files can be written here: File too large; free some space")
    assert line.endswith("or set TMPDIR to a folder on a larger disk [storage]")
    assert list(scratch.iterdir()) == []


# ------------------------------------------------------------------------------------------- found by attacking it


def test_a_users_code_that_exits_does_not_end_it_as_a_success(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text(
        "def samples():\n    raise SystemExit(0)\n\ndef ending():\n    raise GeneratorExit\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("samples", "ending"):
        line = refused(tiny, "--data", f"leaving:{name}")
        assert "; raised at leaving.py:" in line
        assert line.endswith("[data]")


def test_a_kill_while_a_users_code_runs_is_no_mistake_of_that_code(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import signal\n\ndef samples():\n    print('here', flush=True)\n    signal.pause()\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.cli", "convert", tiny, "--data", "slow:samples", "-o", "a.edge"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "here\n"
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert "raised" not in said
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("y", [np.int64(3), np.zeros((0,), np.int64)], ids=["scalar", "empty"])
def test_labels_that_are_no_row(refused: Callable[..., str], tiny: Path, tmp_path: Path, y: Any) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.zeros((20, 4), np.float32), y=y)
    assert refused(tiny, "--data", path).endswith("[data]")


def test_a_compressed_archive_with_a_flipped_byte(refused: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    random = np.random.default_rng(0)
    np.savez_compressed(path, x=random.integers(0, 9, (400, 4)).astype(np.float32), y=np.zeros(400, np.int64))
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    assert refused(tiny, "--data", path).endswith("[data]")


def test_numbers_that_are_infinite_once_prepared(refused: Callable[..., str], tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    x = np.random.default_rng(0).normal(0, 1, (40, 4))
    x[3, 0] = 1e300
    np.savez(path, x=x, y=np.zeros(40, np.int64))
    assert refused(tiny, "--data", path).endswith("[data]")
    assert "a std below 1e-12" in refused(tiny, "--data", path, "--std", "1e-45")


def test_labels_of_numbers_worse_than_any_guess_still_have_a_report(
    edge: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    several = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(float)
    for number, y in enumerate((several, several * 1e-20)):
        out = tmp_path / f"{number}.edge"
        done = edge("convert", tiny, "--data", arrays(tmp_path, x=X, y=y), "--precision", "fp32", "-o", out)
        assert done.status == 0, done.err
        assert Bundle(out).manifest.metric == "r2"


def test_a_label_that_a_users_function_gives_is_no_larger_than_a_class_number(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vast.py").write_text(
        "def samples():\n    return [([n, 1, 2, 3], 2**63 * (n == 12)) for n in range(20)]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "vast:samples: label 9223372036854775808 of sample 12 is larger" in refused(tiny, "--data", "vast:samples")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-latency", "5"), "--max-latency is for what is recommended for a board, and no board is named; add"),
        (("--objective", "accuracy"), "--objective is for what is recommended for a board, and no board is named"),
        (("--cache", "c", "--no-cache"), "--cache needs the results that --no-cache does not keep; leave one"),
        (("--cache", "/dev/null/c"), "/dev/null/c: no results can be kept here: Not a directory; name another --cache"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_options_that_would_do_nothing(
    refused: Callable[..., str], tiny: Path, points: Path, words: tuple[str, ...], says: str
) -> None:
    line = refused(tiny, "--data", points, *words)
    assert says in line
    assert line.endswith("[usage]")


def test_a_cache_that_nobody_named_and_cannot_be_written_costs_a_note(
    edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_CACHE", "/dev/null/c")
    done = edge("convert", tiny, "--data", points, "--precision", "fp16", "-o", tmp_path / "a.edge")
    assert done.status == 0
    assert "edge: note: results are not kept for another conversion: /dev/null/c: Not a directory" in done.err


def test_what_has_no_end_is_not_read(refused: Callable[..., str], tiny: Path, points: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tflite"
    os.mkfifo(pipe)
    assert f"{pipe}: is no file; it reads .keras" in refused(pipe, "--data", points)
    for endless in (Path("/dev/zero"), pipe):
        assert f"{endless}: is neither a file nor a folder" in refused(tiny, "--data", endless)


def test_a_path_that_is_empty_is_not_the_current_folder(
    edge: Callable[..., Any], refused: Callable[..., str], tiny: Path, points: Path
) -> None:
    for option in ("--data", "--calibration", "--train", "--cache", "--evidence"):
        line = refused(tiny, "--data", points, option, "")
        assert f"argument {option}: it is empty, and names nothing" in line
    for command in (["convert", "", "--data", points, "-o", "x"], ["coverage", ""], ["inspect", ""], ["bench", ""]):
        done = edge(*command)
        assert done.status == 2
        assert "it is empty, and names nothing" in done.line


@pytest.mark.parametrize("command", [["coverage"], ["split", "--list"]], ids=lambda words: words[0])
def test_models_of_other_commands_have_an_end(edge: Callable[..., Any], tmp_path: Path, command: list[str]) -> None:
    pipe, large = tmp_path / "pipe.tflite", tmp_path / "large.tflite"
    os.mkfifo(pipe)
    large.touch()
    os.truncate(large, 2**31 + 1)
    for path, says in ((pipe, "is no file"), (large, "has 2,147,483,649 bytes, and a .tflite file at most")):
        done = edge(*command, path)
        assert done.status == 2
        assert f"edge: {path}: {says}" in done.line


# As an ordinary user: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)), which let root read anything.
ORDINARY = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "edge_sdk.cli", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("unreadable", "words", "says"),
    [
        ("photos/cat", ["convert", "MODEL", "--data", "photos", "-o", "a.edge"], "photos/cat: cannot be read: Perm"),
        (
            "saved",
            ["convert", "saved", "--data", "POINTS", "-o", "a.edge"],
            "saved/saved_model.pb: cannot be read: Perm",
        ),
        ("out", ["convert", "MODEL", "--data", "POINTS", "-o", "out/a.edge"], "out/a.edge: cannot be written to: Perm"),
        ("out", ["coverage", "out"], "out: no bundle here: manifest.json cannot be read (Permission denied)"),
    ],
    ids=["data", "model", "output", "bundle"],
)
def test_folders_that_may_not_be_looked_into(
    tiny: Path, points: Path, tmp_path: Path, *, unreadable: str, words: list[str], says: str
) -> None:
    for folder in ("photos/cat", "saved", "out"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").touch()
    (tmp_path / "saved" / "saved_model.pb").touch()
    given = {"MODEL": digits.models()[0] if "photos" in words else tiny, "POINTS": points}
    (tmp_path / unreadable).chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", ORDINARY, *(str(given.get(word, word)) for word in words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
        )
    finally:
        (tmp_path / unreadable).chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert f"edge: {says}" in done.stderr.splitlines()[-1]


def test_calibration_needs_no_labels(edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.npz"
    np.savez(path, x=X)
    done = edge(
        "convert", tiny, "--data", points, "--calibration", path, "--precision", "fp16", "-o", tmp_path / "a.edge"
    )
    assert done.status == 0, done.err


def test_a_class_of_a_name_no_manifest_takes_is_found_out_first(
    refused: Callable[..., str], convolutions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.png").touch()
    rows = [f"{number}.png,{'n' * 1200}{number}" for number in range(10)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    assert "photos: names a class in more than 1000 characters" in refused(convolutions, "--data", folder)
    (folder / "labels.csv").write_text("file;label\n1.png;1\n")
    assert "its columns separated by commas" in refused(convolutions, "--data", folder)
