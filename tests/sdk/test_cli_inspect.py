"""`edge inspect`: what a bundle holds, for people and for scripts, whatever a stranger wrote into it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_stage import EVIDENCE, write_bundle
from msgspec import to_builtins

from edge_sdk import bundle as bundles
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.manifest import EvidenceFile, Latency, Manifest, Origin
from edge_sdk.wire import canonical, decode

pytestmark = pytest.mark.device

Make = Callable[..., Bundle]
HOSTILE = "\x1b[2J\x9b1m\u202egnp.exe\nfloat (reference)  fp32\r\x07"


def test_people_get_a_table_of_variants_fronts_and_refusals(
    make_bundle: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(make_bundle().path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[0] == "digits version 1, made 2023-11-14 22:13 UTC from digits (keras)"
    assert "2 variants, every hash checked" in lines[1]
    assert (
        "float (reference) fp32 cpu 0.6 kB 0.6 kB 98.00 % 0.0 ± 0.5 pt (n=360) 100.0 % 3.25 ms "
        "measured on bench, 1 thread" in lines
    )
    assert "int8 int8 cpu 0.3 kB 0.3 kB 97.00 % 1.0 ± 0.5 pt (n=360) 99.0 % - not measured" in lines
    assert "rpi4 int8 1.5 ms x/÷1.25, predicted" in lines
    assert "pruned - - drop of 12.50 points is more than --max-drop 2.00" in lines


def test_scripts_get_one_object_with_every_field(make_bundle: Make, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle()
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"bundle", "manifest_sha256", "manifest", "evidence", "unfit"}
    assert told["unfit"] == {}
    assert told["manifest_sha256"] == bundle.manifest_sha256
    assert decode(json.dumps(told["manifest"]).encode(), Manifest, where="output") == bundle.manifest
    assert decode(json.dumps(told["evidence"]).encode(), EvidenceFile, where="output") == EVIDENCE
    assert told["manifest"]["variants"][0]["target"]["isa"] == []  # a default is printed, too


def test_a_packed_bundle_is_inspected_like_a_directory(
    make_bundle: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = bundles.pack(make_bundle(), tmp_path / "digits-1.edgebundle")
    assert main(["inspect", str(packed)]) == 0
    assert "digits version 1" in capsys.readouterr().out


def test_a_damaged_packed_bundle_is_named_as_the_user_named_it(
    make_bundle: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = bundles.pack(make_bundle(), tmp_path / "digits-1.edgebundle")
    packed.write_bytes(packed.read_bytes().replace(b"the int8 model", b"the int9 model"))
    assert main(["inspect", str(packed)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"edge: {packed} (int8): blob ")
    assert told.err.endswith("[bundle-blob-mismatch]\n")
    assert told.out == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_strangers_text_cannot_steer_the_terminal_nor_forge_a_line(
    make_bundle: Make, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    bundle = make_bundle(labels=[HOSTILE], refused=[{"id": "x", "reason": HOSTILE}])
    assert main(["inspect", str(bundle.path), *["--json"] * as_json]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    if as_json:
        assert json.loads(out)["manifest"]["labels"] == [HOSTILE]
    else:
        assert not any(line.startswith("float (reference)  fp32 ") and "±" not in line for line in out.split("\n"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_survives_every_encoding_of_the_terminal(tmp_path: Path, encoding: str) -> None:
    labels = ["Überraschung", "数字", "\U0001f600"]
    bundle = write_bundle(tmp_path, labels=labels)
    args = [sys.executable, "-m", "edge_sdk.cli", "inspect", str(bundle.path)]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([*args, "--json"], env=env, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout.decode(encoding))["manifest"]["labels"] == labels
    done = subprocess.run(args, env=env, capture_output=True, check=True, timeout=60)
    assert "digits version 1" in done.stdout.decode(encoding)


def test_a_path_that_is_no_text_is_no_mistake_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / os.fsdecode(b"\xff")
    place.mkdir()
    bundle = write_bundle(place)
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"].endswith(r"\udcff/digits-1.edge")
    assert main(["inspect", str(place / "none.edge")]) == 2
    assert r"\udcff" in capsys.readouterr().err


def test_numbers_larger_than_any_machines_are_shown_as_they_are(
    make_bundle: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    path = bundle.path / "manifest.json"
    plain = json.loads(path.read_bytes())
    plain["variants"][0]["compression"] = [{"name": "prune", "parameters": {"seed": 10**30, "half": 1e308}}]
    path.write_text(json.dumps(plain))
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["manifest"]["variants"][0]["compression"][0]["parameters"]
    assert shown == {"seed": 10**30, "half": 1e308}
    assert canonical(Bundle(bundle.path).manifest)


@pytest.mark.parametrize("as_json", [True, False])
def test_damaged_evidence_is_named_after_the_rest_of_the_bundle(
    make_bundle: Make, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    place = make_bundle().path
    (place / "evidence.json").write_text("{")
    assert main(["inspect", str(place), *["--json"] * as_json]) == 2
    told = capsys.readouterr()
    assert "int8" in told.out
    assert not as_json or json.loads(told.out)["evidence"] == {"format": 1, "latency": []}
    (line,) = told.err.splitlines()
    assert line.startswith(f"edge: {place}/evidence.json: not as expected: ")
    assert "; the variants are whole; " in line
    assert line.endswith(" [bundle-format]")


def test_rows_show_the_times_of_one_number_of_threads(make_bundle: Make, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle()

    def timed(variant: str, threads: int, at: float) -> Latency:
        return Latency(
            variant=variant, origin=Origin.MEASURED, machine="other", threads=threads, median_ms=float(threads), at=at
        )

    bundle.add_latencies((timed("float", 2, 1.0), timed("int8", 2, 2.0), timed("int8", 4, 9.0)))
    assert main(["inspect", str(bundle.path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("2 ms  measured on other, 2 threads") == 2


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda place: (place / "manifest.json").unlink(), "bundle"),
        (lambda place: (place / "manifest.json").write_text("{"), "bundle-format"),
        (lambda place: next((place / "blobs" / "sha256").iterdir()).write_bytes(b"x"), "bundle-blob-mismatch"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_bundle_that_is_none_is_one_line_and_2(
    make_bundle: Make, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], code: str, as_json: bool
) -> None:
    place = make_bundle().path
    damage(place)
    assert main(["inspect", str(place), *["--json"] * as_json]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"edge: {place}")
    assert told.err.endswith(f"[{code}]\n")


def test_a_pipe_is_no_bundle_and_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["inspect", str(tmp_path / "pipe")]) == 2
    assert "no bundle here" in capsys.readouterr().err


def test_output_goes_where_stdout_points_at_that_moment(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = io.StringIO()
    monkeypatch.setattr(sys, "stdout", elsewhere)
    assert main(["inspect", str(make_bundle().path)]) == 0
    assert "digits version 1" in elsewhere.getvalue()


def test_what_cannot_run_on_this_machine_says_why(make_bundle: Make, capsys: pytest.CaptureFixture[str]) -> None:
    variants = to_builtins(make_bundle("plain.edge").manifest.variants)
    variants[1]["target"]["min_runtime"] = "99.0.0"
    bundle = make_bundle(variants=variants)
    assert main(["inspect", str(bundle.path)]) == 0
    told = capsys.readouterr().out
    assert "Cannot run on this machine:\n  int8: its operators need TensorFlow Lite 99.0.0, and" in told
