"""`edge bench`: every variant that runs here is timed, what does not is named, and a device's word is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerator_stage import compiled
from bundle_stage import manifest_of

from edge_sdk import bundle as bundles
from edge_sdk import deciding, footprint, rounds, threads
from edge_sdk.bench import bench
from edge_sdk.bench.cases import Case, Wanted, Way
from edge_sdk.bench.timing import groups_of
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.delegates.contract import DelegateRequest
from edge_sdk.engine import Engine
from edge_sdk.errors import ModelLoadError, UsageError
from edge_sdk.footprint import Footprint
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Manifest, Origin, TensorSpec
from edge_sdk.wire import canonical, decode

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
SHAPES: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
}
QUICK = ("--seconds", "0.01")


@pytest.fixture(scope="module")
def mock_delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("mock"))


@pytest.fixture
def dense(make_bundle: Callable[..., Bundle]) -> Callable[..., Bundle]:
    """Writes a bundle of two small classifiers, and of what is no model, if asked for."""

    def write(*, broken: bool = False, models: tuple[str, ...] = ("dense_fp32", "dense_int8")) -> Bundle:
        contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in models}
        return make_bundle(contents=contents | ({"broken": b"no model at all"} if broken else {}), **SHAPES)

    return write


def benched(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bench", *map(str, words), *QUICK, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_variant_is_timed_in_turns_with_memory_and_load_time(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = dense()
    told = benched(capsys, bundle.path, "--threads", 2)
    assert {entry["variant"] for entry in told["latency"]} == {"dense_fp32", "dense_int8"}
    assert told["machine"] == machine_name()
    assert told["groups"] == [["dense_fp32", "dense_int8"]]
    assert told["left"] == []
    assert told["written"] is None
    for entry in told["latency"]:
        variant = bundle.variant(entry["variant"])
        assert (entry["blob"], entry["precision"], entry["macs"]) == (
            variant.blob, variant.precision.value, variant.cost.macs,
        )  # fmt: skip
        assert entry["samples"] >= 20
        assert 0 < entry["median_ms"] <= entry["p95_ms"]
        assert entry["load_ms"] >= entry["first_ms"] > 0
        assert (entry["p99_ms"] is None) == (entry["samples"] < 100)
        assert entry["delegate"] == "cpu"
        assert entry["memory_bytes"] > 0
        assert entry["threads"] == 2
        assert entry["origin"] == "measured"
    assert [entry["median_ms"] for entry in told["latency"]] == sorted(e["median_ms"] for e in told["latency"])
    assert all(entry.machine != machine_name() for entry in bundle.evidence().latency), "nothing is written unasked"


def test_people_get_a_table_against_the_reference(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(dense().path), *QUICK, "--profile", "rpi4"]) == 0
    told = capsys.readouterr()
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[0] == "variant median p95 p99 samples speed over raw load first memory"
    assert any(line.startswith("dense_fp32 (reference) ") and " 1.00 x " in line for line in lines)
    assert any(line.startswith("raw ") for line in lines)
    assert f"on {machine_name()}, profile rpi4; " in told.out
    assert "edge: timing dense_fp32, dense_int8" in told.err


def test_what_is_written_replaces_what_the_same_machine_wrote_before(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = dense()
    before = bundle.manifest_sha256
    for words in ((), ("--threads", 2), ("--variant", "dense_int8")):
        told = benched(capsys, bundle.path, "--write", "--profile", "rpi4", *words)
        assert told["written"] == str(bundle.path / "evidence.json")
    mine = [entry for entry in Bundle(bundle.path).evidence().latency if entry.machine == machine_name()]
    found = sorted((entry.variant, entry.threads) for entry in mine)
    assert found == [("dense_fp32", 1), ("dense_fp32", 2), ("dense_int8", 1), ("dense_int8", 2)]
    assert {entry.profile for entry in mine} == {"rpi4"}
    others = [entry for entry in Bundle(bundle.path).evidence().latency if entry.machine != machine_name()]
    assert len(others) == 2, "what others found stays"
    assert Bundle(bundle.path).manifest_sha256 == before


def test_a_variant_that_cannot_run_is_named_and_the_others_are_timed(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = dense(broken=True)
    plain = json.loads((bundle.path / "manifest.json").read_bytes())
    by_id = {variant["id"]: variant for variant in plain["variants"]}
    by_id["dense_int8"]["target"] = {"isa": ["no-such-feature"]}
    twin = by_id["dense_fp32"] | {"id": "compiled", "target": {"delegate": "edgetpu", "fallback": "dense_fp32"}}
    plain["variants"].append(twin)
    (bundle.path / "manifest.json").write_bytes(canonical(plain))
    told = benched(capsys, bundle.path)
    assert [entry["variant"] for entry in told["latency"]] == ["dense_fp32"]
    left = {one["id"]: one["reason"] for one in told["left"]}
    assert left["dense_int8"] == "needs no-such-feature, which this CPU does not have"
    assert left["compiled"] == "libedgetpu.so.1 is not installed", "what the doctor says of it"
    assert left["broken"]
    assert main(["bench", str(bundle.path), *QUICK]) == 0
    assert "Not timed:" in capsys.readouterr().out


def test_where_nothing_runs_the_command_fails_in_one_line(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = dense(broken=True, models=())
    assert main(["bench", str(bundle.path), *QUICK]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "none of 1 variants runs here: broken: " in told.err
    assert told.err.rstrip().endswith("[delegate]")


def test_a_packed_bundle_is_timed_but_not_written_to(
    dense: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = bundles.pack(dense(), tmp_path / "digits-1.edgebundle")
    assert len(benched(capsys, packed)["latency"]) == 2
    assert main(["bench", str(packed), "--write"]) == 2
    assert "a packed bundle cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--variant", "none"),
        ("--profile", "none"),
        ("--seconds", "nan"),
        ("--threads", "0"),
        ("--threads", "1,x"),
        ("--delegate", "none"),
        ("--delegate", "edgetpu,fast"),
        ("--delegate", "gpu", "--delegate", "gpu"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(
    dense: Callable[..., Bundle],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))  # of a busy machine, which is no news here
    try:
        status = main(["bench", str(dense().path), *words])
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    assert status == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


def test_a_delegate_is_timed_beside_the_cpu_and_its_evidence_is_not_taken_for_the_cpus(
    dense: Callable[..., Bundle], mock_delegate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = dense(models=("dense_fp32",))
    told = benched(capsys, bundle.path, "--delegate", f"{mock_delegate},sleep_us=20000", "--write")
    by_delegate = {entry["delegate"]: entry for entry in told["latency"]}
    assert by_delegate.keys() == {"cpu", "libmock_delegate.so"}
    assert by_delegate["libmock_delegate.so"]["median_ms"] > 20
    assert by_delegate["libmock_delegate.so"]["load_ms"] >= by_delegate["libmock_delegate.so"]["first_ms"] > 0
    assert by_delegate["libmock_delegate.so"]["memory_bytes"] > 10**6
    (raw,) = told["raw"]
    assert raw["variant"] == "dense_fp32"
    assert raw["ratio"] > 0
    (isolation,) = told["isolation"]
    assert isolation["variant"] == "dense_fp32"
    known = Bundle(bundle.path).evidence().latency
    assert {entry.delegate for entry in known if entry.machine == machine_name()} == by_delegate.keys()
    expected = deciding.expected_ms(bundle.manifest.variants, known, machine_name())
    assert expected == {"dense_fp32": by_delegate["cpu"]["median_ms"]}
    assert {entry.delegate for entry in Bundle(bundle.path).latencies()} == {None, "cpu"}, "the others decide nothing"


def test_a_delegate_that_fails_is_named_and_the_cpu_is_timed(
    dense: Callable[..., Bundle], mock_delegate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dense(models=("dense_fp32",)).path
    ways = {
        "crash": ("crash-create", "crashed (segmentation fault)"),
        "wrong": ("wrong", "it computes wrong: "),
        "lost": ("invoke,after=20", "failed while it was timed: "),
    }
    words = ["--no-raw"]
    for name, (way, _) in ways.items():
        (tmp_path / f"{name}.so").symlink_to(mock_delegate)
        words += ["--delegate", f"{tmp_path / name}.so,fail={way}"]
    told = benched(capsys, path, *words)
    assert [entry["delegate"] for entry in told["latency"]] == ["cpu"]
    assert told["raw"] == []
    left = {one["delegate"]: one["reason"] for one in told["left"]}
    assert left.keys() == {"crash.so", "wrong.so", "lost.so"}
    for name, (_, said) in ways.items():
        assert said in left[f"{name}.so"]


def test_a_variant_for_an_accelerator_is_timed_where_that_is_found(
    dense: Callable[..., Bundle], mock_delegate: Path
) -> None:
    bundle = dense(models=("dense_fp32",))
    plain = json.loads((bundle.path / "manifest.json").read_bytes())
    made = plain["variants"][0] | {"id": "made", "target": {"delegate": "gpu", "fallback": "dense_fp32"}}
    plain["variants"].append(made)
    (bundle.path / "manifest.json").write_bytes(canonical(plain))
    gpu = DelegateRequest(name="gpu", library=str(mock_delegate))
    found = bench(
        Bundle(bundle.path), ["made"], Wanted(requests=[gpu]), seconds=0.01, profile=None, shown="x", write=False
    )
    (entry,) = found.latency
    assert (entry.variant, entry.delegate) == ("made", "gpu")
    assert entry.is_of(decode(canonical(plain), Manifest, where="test").variants[1])
    assert found.left == ()


def test_the_best_number_of_threads_is_named_for_each_variant(
    dense: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    path = dense(models=("dense_fp32",)).path
    told = benched(capsys, path, "--threads", "1,2,2")
    assert told["threads"] == [1, 2]
    assert sorted(entry["threads"] for entry in told["latency"]) == [1, 2]
    (best,) = told["best_threads"]
    assert best["variant"] == "dense_fp32"
    assert best["threads"] in {1, 2}
    assert main(["bench", str(path), *QUICK, "--threads", "sweep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Best number of threads") for line in lines) == (threads.cores() > 1)


def test_energy_is_told_where_a_sensor_is(dense: Callable[..., Bundle], tmp_path: Path) -> None:
    sensor = tmp_path / "root/sys/class/powercap/intel-rapl:0"
    sensor.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "1000")):
        (sensor / name).write_text(text)
    bundle = dense(models=("dense_fp32",))
    found = bench(
        bundle, ["dense_fp32"], Wanted(), seconds=0.01, profile=None, shown="x", write=False, root=tmp_path / "root"
    )
    assert (found.energy.sensor, found.energy.idle_w) == ("rapl (processor)", 0.0)
    assert [entry.energy_mj for entry in found.latency] == [0.0]


# ---------------------------------------------------------------------------------------------------- the parts of it


def test_models_are_timed_together_only_while_memory_holds_them() -> None:
    loaded = {name: Footprint(load_ms=1, memory_bytes=10**6, runtime="r") for name in "abcde"}
    variants = manifest_of({name: name.encode() for name in "abcde"}).variants
    cases = [Case(variant=v, path=Path("x"), way=Way.PLAIN, threads=1) for v in variants]

    def together(available: int | None) -> list[str]:
        return ["".join(case.variant.id for case in group) for group in groups_of(cases, loaded, available)]

    assert together(10**9) == ["abcde"]
    assert together(4 * 10**6) == ["ab", "cd", "e"]
    assert together(1000) == ["a", "b", "c", "d", "e"]
    assert together(None) == ["abcde"]
    twice = [Case(variant=v, path=Path("x"), way=Way.PLAIN, threads=n) for v in variants for n in (1, 2)]
    first = next(iter(groups_of(twice, loaded, 8 * 10**6)))
    assert [(case.variant.id, case.threads) for case in first] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_model_that_crashes_the_runtime_or_hangs_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does, said in (
        ("crash", "kill -SEGV $$", "ended the runtime with a crash"),
        ("hang", "exec sleep 60", "gave no answer within 0.5 s"),
        ("babble", "echo nonsense", "not as expected"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(ModelLoadError, match=said):
            footprint.of(TINY / "dense_fp32.tflite", threads=1, deadline_s=0.5 if name == "hang" else 30)


def test_loading_is_timed_until_the_first_answer() -> None:
    found = footprint.take(str(TINY / "dense_fp32.tflite"), threads=1)
    assert found.load_ms > 0
    assert found.runtime


def test_turns_end_when_enough_was_timed() -> None:
    with Engine(TINY / "dense_fp32.tflite") as one, Engine(TINY / "dense_int8.tflite") as other:
        engines = {"one": one, "other": other}
        samples = {name: rounds.noise(engine.inputs) for name, engine in engines.items()}
        advanced: list[int] = []
        few = rounds.timed_ms(engines, samples, rounds.Plan(rounds=3, turn=2), advance=advanced.append)
        assert {name: len(times) for name, times in few.items()} == {"one": 6, "other": 6}
        assert len(advanced) == 6
        plan = rounds.Plan(rounds=10_000, turn=5, enough_s=0.0, fewest=10)
        assert {len(times) for times in rounds.timed_ms(engines, samples, plan).values()} == {10}


def test_a_sample_fits_what_the_model_takes() -> None:
    spec = TensorSpec(name="x", shape=(-1, 2), dtype="float32")
    ids = TensorSpec(name="ids", shape=(1, 3), dtype="int32")
    one, other = rounds.noise([spec, ids])
    assert one.shape == (1, 2)
    assert one.dtype == np.float32
    assert one.all()
    assert other.dtype == np.int32


def test_evidence_of_other_fields_is_still_read() -> None:
    old = b'{"format":1,"latency":[{"variant":"a","origin":"measured","machine":"m","median_ms":1}]}'
    from edge_sdk.manifest import EvidenceFile

    (entry,) = decode(old, EvidenceFile, where="test").latency
    assert (entry.origin, entry.blob, entry.memory_bytes) == (Origin.MEASURED, None, None)


def test_evidence_that_cannot_be_added_to_is_named_before_anything_is_timed(
    make_bundle: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_bundle().path
    (place / "evidence.json").write_text("[]")
    assert main(["bench", str(place), "--write"]) == 2
    told = capsys.readouterr()
    assert "timing" not in told.err
    assert f"edge: {place}/evidence.json: not as expected: " in told.err
    assert "remove this file, and 'edge bench BUNDLE --write' measures anew [bundle-format]" in told.err


def test_the_fewest_threads_that_are_about_as_fast_are_best() -> None:
    assert threads.fastest({1: 10.0, 2: 5.1, 4: 5.0, 8: 7.0}) == 2
    assert threads.fastest({1: 10.0, 2: 9.9}) == 1
    assert threads.fastest({1: 10.0, 4: 2.5}) == 4
    assert [threads.sweep(most) for most in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_threads_are_chosen_by_timing_each_number() -> None:
    plan = rounds.Plan(rounds=3, turn=2)
    found = threads.best(TINY / "dense_fp32.tflite", counts=(2, 1, 2), plan=plan)
    assert [(each.threads, each.samples) for each in found.tried] == [(1, 6), (2, 6)]
    assert found.threads == threads.fastest({each.threads: each.median_ms for each in found.tried})
    with pytest.raises(UsageError):
        threads.best(TINY / "dense_fp32.tflite", counts=(0,))
