"""Variants for accelerators: made by the compilers that are here, listed as missing where they are not."""

from __future__ import annotations

import enum
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from drawn_graph import Drawn

from edge_converter import graph, recipe
from edge_converter.candidates import Candidate
from edge_converter.convert import convert
from edge_converter.errors import CompilerError
from edge_converter.labelled.data import open_samples
from edge_converter.quantization import quantize
from edge_converter.request import ConvertRequest
from edge_converter.sources import SourceModel
from edge_converter.targets import child, coverage, edgetpu, edgetpu_log, finish, onnx, operators, optable, plan, vela
from edge_daemon.catalogue import can_run
from edge_lab import digits
from edge_sdk import EdgeModel
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.errors import DelegateUnavailableError
from edge_sdk.manifest import Delegate, Origin, Precision, Preprocessing, Source
from edge_sdk.predict import OpWork

U65 = next(found for found in vela.configurations() if found.id == "ethos-u65")
U85 = next(found for found in vela.configurations() if found.id == "ethos-u85")
# In the form of the published logs of version 15; a model of three operators, of which one is left out.
LOG = """Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 93 ms.

Input model: model.tflite
On-chip memory used for caching model parameters: 7.50KiB
On-chip memory remaining for caching model parameters: 7.00MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 12
Operation log: model_edgetpu.log

Operator                       Count      Status

CONV_2D                        5          Mapped to Edge TPU
ADD                            1          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
SOFTMAX                        1          Mapped to Edge TPU
RESIZE_BILINEAR                1          Operation version not supported
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
DEQUANTIZE                     1          Operation is working on an unsupported data type
"""  # noqa: E501 - the compiler's lines are as long as they are


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The digit classifiers in int8, the smallest first."""
    folder = tmp_path_factory.mktemp("int8")
    images, labels = digits.held_out()
    np.savez(folder / "digits.npz", x=images, y=labels)
    samples = open_samples(
        folder / "digits.npz", inputs=graph.read(digits.models()[0]).inputs, preprocessing=Preprocessing()
    )

    def make(number: int) -> Path:
        into = folder / f"{number}.tflite"
        if not into.exists():
            source = digits.models()[number]
            ranges = quantize.calibrate(source, samples, np.arange(16), threads=1)
            quantize.quantize(source, Precision.INT8, into, ranges=ranges)
        return into

    return make


@pytest.fixture
def compiled_tpu(tmp_path: Path) -> Path:
    """A file such as the Edge TPU's compiler writes: one custom operator."""
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 1)
    out = drawn.op("edgetpu-custom-op", [image], [drawn.tensor(1, 10)])
    return drawn.write(tmp_path / "compiled.tflite", [image], [out])


@pytest.fixture
def stand_in(tmp_path: Path, compiled_tpu: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a program on the path that plays the Edge TPU's compiler: replays a log and copies a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(*, log: str = LOG, then: str = "", writes: bool = True) -> Path:
        (tmp_path / "replayed.log").write_text(log)
        copy = f"cp {compiled_tpu} model_edgetpu.tflite" if writes else ""
        program = folder / "edgetpu_compiler"
        program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\ncat {tmp_path}/replayed.log\n{copy}\n{then}\n")
        program.chmod(0o755)
        return program

    return put


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some held-out digits."""
    images, labels = digits.held_out()
    path = tmp_path_factory.mktemp("few") / "few.npz"
    np.savez(path, x=images[::6], y=labels[::6])
    return path


def converted(data: Path, output: Path) -> Bundle:
    """A bundle for boards with every kind of accelerator, made where only Vela is."""
    boards = ("rpi5", "coral-usb", "imx93", "imx8mp", "android", "jetson-orin-nano")
    wanted = (Precision.INT8, Precision.FP16)
    models = (digits.models()[0],)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        convert(
            ConvertRequest(models=models, data=data, output=output, profiles=boards, precisions=wanted, recipe="quick")
        )
    return Bundle(output)


@pytest.fixture(scope="module")
def made(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that nobody changes."""
    return converted(few, tmp_path_factory.mktemp("made") / "digits-1.edge")


def pid_is_gone(path: Path) -> bool:
    return not Path(f"/proc/{int(path.read_text())}").exists()


# ----------------------------------------------------------------------------------------------------------------- Vela


@pytest.mark.parametrize(("configuration", "number", "left"), [(U65, 0, 3), (U65, 1, 3), (U85, 0, 2)])
def test_vela_compiles_the_digit_classifiers(
    int8: Callable[[int], Path], tmp_path: Path, configuration: vela.Configuration, number: int, left: int
) -> None:
    made = vela.compile(int8(number), configuration, tmp_path / "out", deadline_s=120)
    assert [o.op for o in operators.read(made.path)].count("ethos-u") == 1
    assert made.coverage.total - made.coverage.delegated == left
    assert any(line == "DEQUANTIZE: not in its table" for line in made.coverage.why)
    assert made.evidence["cycles_total"] > made.evidence["cycles_sram"] > 0
    assert 0 < made.evidence["sram_bytes"] <= 384 * 1024
    assert made.latency_ms == pytest.approx(float(made.evidence["cycles_total"]) / 1e6, rel=0.01)  # its clock is 1 GHz
    assert "no error band" in made.source
    assert made.parameters["accelerator"] == configuration.accelerator


def test_vela_gives_the_same_bytes_twice_and_the_tables_agree_with_it(
    int8: Callable[[int], Path], tmp_path: Path
) -> None:
    one, two = (vela.compile(int8(0), U65, tmp_path / name, deadline_s=120) for name in ("one", "two"))
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.evidence == two.evidence
    assert one.coverage.delegated == coverage(int8(0), "ethos-u65").delegated


def test_a_vela_that_fails_says_why(int8: Callable[[int], Path], tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(U65, system="No_Such_System")
    with pytest.raises(CompilerError, match=r"ethosu.vela: ended with status 1: .*No_Such_System"):
        vela.compile(int8(0), wrong, tmp_path / "out", deadline_s=120)


def test_a_vela_that_takes_too_long_is_ended(int8: Callable[[int], Path], tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"not done within 0.05 s; raise --compiler-deadline"):
        vela.compile(int8(0), U65, tmp_path / "out", deadline_s=0.05)


def test_a_vela_that_is_not_installed_is_named(
    int8: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vela, "_PACKAGE", "no_such_package")
    with pytest.raises(CompilerError, match="vela: is not installed; pip install ethos-u-vela"):
        vela.compile(int8(0), U65, tmp_path / "out", deadline_s=120)


def test_no_summary_or_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="its summary cannot be read"):
        vela._read_summary(tmp_path, U65)
    path = tmp_path / f"model_summary_{U65.system}.csv"
    path.write_text("inference_time,cycles_total\nnan,1\n")
    with pytest.raises(CompilerError, match="its summary cannot be read"):
        vela._read_summary(tmp_path, U65)


# ------------------------------------------------------------------------------------------------------------- Edge TPU


def test_the_edge_tpu_compiler_is_run_and_its_log_read(
    int8: Callable[[int], Path], stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    stand_in()
    made = edgetpu.compile(int8(0), tmp_path / "out", deadline_s=30)
    assert (made.coverage.delegated, made.coverage.total) == (9, 12)
    assert made.coverage.why[0] == "RESIZE_BILINEAR: Operation version not supported"
    assert made.parameters == {"version": "15.0.340273435"}
    assert made.evidence == {"cached_bytes": 7680, "free_bytes": 7340032, "streamed_bytes": 0, "subgraphs": 1}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"then": "echo ERROR: no good >&2; exit 7"}, "ended with status 7: ERROR: no good"),
        ({"then": "kill -SEGV $$"}, "was killed by SIGSEGV"),
        ({"then": "sleep 60"}, "not done within 0.5 s; raise --compiler-deadline"),
        ({"writes": False}, "ended well and wrote no file"),
        ({"log": "Invalid model\n"}, "says nothing of the operators"),
        ({"log": LOG.replace("Mapped to Edge TPU", "Operation not supported")}, "mapped no operator"),
    ],
)
def test_an_edge_tpu_compiler_that_does_not_do_its_work_is_named_in_one_line(
    int8: Callable[[int], Path], stand_in: Callable[..., Path], tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    stand_in(**how)
    begun = time.monotonic()
    with pytest.raises(CompilerError, match=re.escape(reason)) as caught:
        edgetpu.compile(int8(0), tmp_path / "out", deadline_s=0.5)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert time.monotonic() - begun < 10
    assert pid_is_gone(tmp_path / "pid")


def test_what_a_compiler_leaves_running_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; echo done"
    assert child.run(["/bin/sh", "-c", f"{script} >/dev/null; exec >&-"], tmp_path, deadline_s=20) == ""
    for _ in range(100):
        if pid_is_gone(tmp_path / "pid"):
            break
        time.sleep(0.02)
    assert pid_is_gone(tmp_path / "pid")


def test_a_compiler_that_prints_without_end_fills_no_memory(tmp_path: Path) -> None:
    said = child.run(["/bin/sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x"], tmp_path, deadline_s=60)
    assert len(said) == 1 << 20


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="no-such-program: cannot be started"):
        child.run([str(tmp_path / "no-such-program")], tmp_path, deadline_s=5)


@pytest.mark.reference_data
def test_published_logs_are_read_to_the_totals_they_state(reference_data: Path) -> None:
    text = (reference_data / "edgetpu" / "compiler_samples.txt").read_text("utf-8")
    parts = [part.partition("\n")[2] for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:4]]
    whole, bad, logged = map(edgetpu_log.parse, parts)
    assert (whole.coverage.delegated, whole.coverage.total) == (214, 214)
    assert whole.memory["streamed_bytes"] == round(15.06 * 2**20)
    assert (bad.coverage.delegated, bad.coverage.total) == (1, 294)
    assert "STRIDED_SLICE x4: Only Strided-Slice with unitary strides supported" in bad.coverage.why
    assert (logged.version, logged.coverage.delegated, logged.coverage.total) == ("14.1.317412892", 19, 25)


@pytest.mark.reference_data
def test_a_published_log_is_replayed_through_the_child_process(
    int8: Callable[[int], Path], stand_in: Callable[..., Path], tmp_path: Path, reference_data: Path
) -> None:
    text = (reference_data / "edgetpu" / "compiler_samples.txt").read_text("utf-8")
    stand_in(log=re.split(r"^### .*$", text, flags=re.MULTILINE)[1])
    made = edgetpu.compile(int8(0), tmp_path / "out", deadline_s=30)
    assert made.coverage.delegated == made.coverage.total == 214


def test_the_fitted_latency_is_near_the_published_one_and_only_for_what_is_mapped_whole() -> None:
    table = optable.table("edgetpu")
    # MobileNet v1 1.0/224: 569 million multiply-accumulates, 4.2 million weights; 2.4 ms is published.
    work = OpWork(conv1x1_macs=552_000_000, depthwise_macs=17_000_000)
    whole = edgetpu_log.parse("CONV_2D   15   Mapped to Edge TPU\nDEQUANTIZE   1   Operation not supported\n").coverage
    ms, band, source = edgetpu.expected_ms(table, "coral-usb", work, 4_200_000, whole) or (0.0, 0.0, "")
    assert 2.4 / band < ms < 2.4 * band
    assert "coral.ai" in source
    part = edgetpu_log.parse("CONV_2D   15   Mapped to Edge TPU\nADD   1   Operation not supported\n").coverage
    assert edgetpu.expected_ms(table, "coral-usb", work, 4_200_000, part) is None
    assert edgetpu.expected_ms(table, "rpi5", work, 4_200_000, whole) is None


# ----------------------------------------------------------------------------------------------------------- the bundle


def test_each_accelerator_has_its_variant_or_says_what_it_lacks(made: Bundle) -> None:
    manifest = made.manifest
    assert manifest.accelerated == {
        "imx93": ("int8-ethos-u65", "int8-teflon-ethosu"),
        "imx8mp": ("int8-vx", "int8-teflon-etnaviv"),
        "android": ("fp16-gpu", "int8-nnapi"),
    }
    lacking = {one.id: one for one in manifest.missing}
    assert set(lacking) == {"int8-edgetpu", "fp32-onnx"}
    tpu = lacking["int8-edgetpu"]
    assert tpu.command == "edge compile digits-1.edge"
    assert (tpu.twin, tpu.profiles) == ("int8", ("coral-usb",))
    assert tpu.coverage is not None
    assert tpu.coverage.delegated == 9
    assert "ONNX Runtime" in lacking["fp32-onnx"].reason
    assert not any(id_ in front for front in manifest.fronts.values() for id_ in sum(manifest.accelerated.values(), ()))


def test_a_variant_with_its_twins_file_shares_the_blob(made: Bundle) -> None:
    twin, shared = made.variant("int8"), made.variant("int8-teflon-ethosu")
    assert shared.blob == twin.blob
    assert (shared.target.delegate, shared.target.fallback) == (Delegate.TEFLON, "int8")
    assert shared.quality == twin.quality
    assert shared.coverage is not None
    assert 0 < shared.coverage.delegated < shared.coverage.total


def test_a_compiled_variant_carries_the_compilers_evidence_and_its_twins_quality(made: Bundle) -> None:
    variant = made.variant("int8-ethos-u65")
    assert variant.compression[-1].name == "vela"
    assert variant.compression[-1].evidence["cycles_total"] > 0
    assert variant.quality == made.variant("int8").quality
    told = [x for x in made.evidence().latency if x.variant == variant.id]
    assert [(x.origin, x.profile, x.band) for x in told] == [(Origin.PREDICTED, "imx93", None)]
    assert "Vela" in str(told[0].source)


def test_no_place_of_this_machine_is_in_the_bundle(made: Bundle) -> None:
    for name in ("manifest.json", "evidence.json", "report.html"):
        assert "/tmp/" not in (made.path / name).read_text("utf-8")  # noqa: S108 - that is what is looked for


def test_the_page_shows_accelerators_apart(made: Bundle) -> None:
    page = (made.path / "report.html").read_text("utf-8")
    before, _, after = page.partition("<h2>Accelerators</h2>")
    assert "int8-ethos-u65" not in before
    assert "int8-ethos-u65" in after
    assert "edge compile digits-1.edge" in after


def test_sdk_and_daemon_run_the_twin_where_the_accelerator_is_not(
    made: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))
    assert {v.id for v in made.manifest.variants if can_run(v, None)} == {"fp32", "fp16", "int8"}
    with EdgeModel(made.path) as model:
        assert set(model.variants) == {"fp32", "fp16", "int8"}
        assert model(np.zeros((1, 8, 8, 1), np.float32)).shape == (1, 10)
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    with EdgeModel(made.path, variant="int8-ethos-u65") as model, EdgeModel(made.path, variant="int8") as twin:
        assert model.computes_on == "cpu"
        np.testing.assert_array_equal(model(image), twin(image))
    with pytest.raises(DelegateUnavailableError, match="take 'int8', its twin for the CPU"):
        EdgeModel(made.path, variant="int8-ethos-u65", delegate="cpu")


def test_the_same_request_gives_the_same_manifest(made: Bundle, few: Path, tmp_path: Path) -> None:
    again = converted(few, tmp_path / "digits-1.edge")
    assert again.manifest_sha256 == made.manifest_sha256


def test_a_target_no_variant_can_serve_is_named_and_the_rest_is_made(
    few: Path, tmp_path: Path, edge: Callable[..., Any]
) -> None:
    done = edge(
        *("convert", digits.models()[0], "--data", few, "-o", tmp_path / "x-1.edge", "--profile", "coral-dev"),
        *("--precision", "fp16", "--json"),
    )
    assert done.status == 0, done.err
    manifest = json.loads(done.out)["manifest"]
    assert [v["id"] for v in manifest["variants"]] == ["fp32", "fp16"]
    assert [(m["id"], m["reason"]) for m in manifest["missing"]] == [
        ("int8-edgetpu", "no variant in int8 was made and kept")
    ]


def test_boards_say_what_their_accelerators_need() -> None:
    assert plan.needs_per_tensor([profiles.load("imx8mp")])
    assert not plan.needs_per_tensor([profiles.load("imx93"), profiles.load("coral-usb")])
    assert not plan.wishes([profiles.load("rpi5")])


def test_a_driver_that_needs_one_scale_for_all_gets_the_variant_that_has_it(made: Bundle, tmp_path: Path) -> None:
    def candidate(id_: str, scales: int) -> Candidate:
        drawn = Drawn()
        image = drawn.tensor(1, 8, 8, 4)
        path = drawn.write(tmp_path / f"{id_}.tflite", [image], [drawn.convolution(image, 1, 8, 8, 4, scales=scales)])
        found = graph.read(path)
        return Candidate(
            id=id_, source="s", path=path, origin=path, graph=found, precision=Precision.INT8, compression=(),
            exceptions=(), given=False,
        )  # fmt: skip

    better = made.variant("fp32").quality
    worse = msgspec.structs.replace(better, value=better.value - 5)
    kept = [(candidate("int8", 4), better), (candidate("int8-per-tensor", 1), worse)]
    chosen = {wish.table.id: plan.twin(wish, "s", kept) for wish in plan.wishes(profiles.load_all())}
    ids = {table: found.candidate.id for table, found in chosen.items() if found is not None}
    assert ids["vx"] == ids["teflon-etnaviv"] == "int8-per-tensor"
    assert ids["ethos-u65"] == ids["edgetpu"] == "int8"


def test_ids_stay_names_however_long_the_models_name_is() -> None:
    wish = plan.wishes([profiles.load("imx93")])[0]
    assert wish.id("x" * 64) == "x" * 54 + "-ethos-u65"


# ------------------------------------------------------------------------------------------------------ finishing later


def test_a_bundle_is_finished_where_the_compiler_is(
    made: Bundle, stand_in: Callable[..., Path], tmp_path: Path, edge: Callable[..., Any], compiled_tpu: Path
) -> None:
    output = tmp_path / "finished-1.edge"
    assert edge("compile", made.path, "-o", output).status == 1  # not on the path yet
    assert not output.exists()
    stand_in()
    done = edge("compile", made.path, "-o", output)
    assert done.status == 0, done.err
    finished = Bundle(output)
    variant = finished.variant("int8-edgetpu")
    assert finished.blob(variant).read_bytes() == compiled_tpu.read_bytes()
    assert variant.target.fallback == "int8"
    assert finished.manifest.accelerated["coral-usb"] == ("int8-edgetpu",)
    assert [one.id for one in finished.manifest.missing] == ["fp32-onnx"]
    assert edge("compile", output).out.strip().endswith("nothing is missing that a compiler could make")


def test_a_compiler_that_fails_leaves_the_bundle_as_it_was(
    made: Bundle, stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    stand_in(then="exit 3")
    before = (made.path / "manifest.json").read_bytes()
    done = finish.finish(made.path, made.path, deadline_s=30)
    assert done.compiled == ()
    assert "ended with status 3" in done.failed["int8-edgetpu"]
    assert (made.path / "manifest.json").read_bytes() == before


# --------------------------------------------------------------------------------------------------------- ONNX sources


class Later(enum.Enum):
    """Of the converter's frameworks."""

    ONNX = "onnx"


def test_an_onnx_source_is_carried_along_for_a_jetson(made: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"an onnx file")
    record = Source(name="small", framework="onnx", sha256="0" * 64)
    model = SourceModel(path=path, framework=Later.ONNX, record=record)  # type: ignore[arg-type]
    cpu = {v.id: v for v in made.manifest.variants if v.target.delegate is Delegate.CPU}
    given = onnx.variants([profiles.load("jetson-nano"), profiles.load("rpi5")], [model], cpu)
    assert [board.id for board in given.boards] == ["jetson-nano"]
    (variant,) = given.variants
    assert (variant.id, variant.target.runtime, variant.target.fallback) == ("fp32-onnx", "onnxruntime", "fp32")
    assert given.files == {variant.blob: path}
    assert onnx.variants([profiles.load("rpi5")], [model], cpu) == onnx.Given()


# ------------------------------------------------------------------------------------------------------ `edge coverage`


def test_coverage_is_printed_for_a_model_and_for_a_bundle(made: Bundle, edge: Callable[..., Any]) -> None:
    told = edge("coverage", digits.models()[0], "--profile", "imx93")
    assert told.status == 0
    assert "ethos-u65: 0 of 10 operators" in told.out
    assert "CONV_2D x5: float32 where" in told.out
    assert "the CPU needs: nothing" in told.out
    whole = json.loads(edge("coverage", made.path, "--delegate", "edgetpu", "--json").out)
    assert {one["model"]: one["delegated"] for one in whole["coverage"]} == {"fp32": 0, "fp16": 0, "int8": 9}


def test_coverage_by_api_level_and_by_delegate(edge: Callable[..., Any]) -> None:
    told = edge("coverage", digits.models()[0], "--delegate", "nnapi", "--api", "27", "--json")
    (found,) = json.loads(told.out)["coverage"]
    assert found["level"] == 27
    assert "MEAN: taken from API level 28 on, this is 27" in found["why"]
    assert len(json.loads(edge("coverage", digits.models()[0], "--json").out)["coverage"]) == len(optable.tables())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--delegate", "abacus"), "usage"),
        (("--profile", "abacus"), "unknown-profile"),
        (("--api", "0"), "usage"),
        (("--api", "30", "--delegate", "edgetpu"), "usage"),
    ],
)
def test_bad_questions_about_coverage_are_refused_in_one_line(
    edge: Callable[..., Any], words: tuple[str, ...], code: str
) -> None:
    told = edge("coverage", digits.models()[0], *words)
    assert told.status == 2
    assert told.line.endswith(f"[{code}]")


def test_coverage_of_what_is_no_model_is_refused(edge: Callable[..., Any], tmp_path: Path) -> None:
    told = edge("coverage", tmp_path / "none.tflite")
    assert told.status == 2
    assert told.line.endswith("[source-model]")


@pytest.mark.parametrize("board", profiles.load_all(), ids=lambda board: board.id)
def test_a_board_that_needs_one_scale_a_layer_has_a_recipe_that_makes_it(board: profiles.Profile) -> None:
    steps = [step for one in recipe.load(board.variants.recipe).variant for step in one.steps]
    assert plan.needs_per_tensor([board]) == (("quantize", {"granularity": "tensor"}) in steps)
