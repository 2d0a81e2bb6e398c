"""Segments compute what the whole does, bit for bit, or there are none."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_model
import numpy as np
import pytest
from bundle_stage import write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_converter import flatbuffer, graph
from edge_converter.errors import DataError, NoCutError, SourceError, SplitMismatchError, UnsupportedModelError
from edge_converter.labelled import data
from edge_converter.labelled.data import Samples
from edge_converter.quantization import quantize
from edge_converter.splitting import chain, cut_search, stage_times
from edge_converter.splitting.chain import Link, Loaded
from edge_converter.splitting.cutting import Cuttable
from edge_converter.splitting.split import SplitRequest, split, survey
from edge_sdk import bundle as bundles
from edge_sdk.engine import Engine
from edge_sdk.errors import StorageError, UnknownVariantError, UsageError
from edge_sdk.manifest import Origin, Precision, Preprocessing, TensorSpec
from edge_sdk.runtime import choose
from edge_sdk.segments import PLAN, Segments

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "segments.md"
RESIDUAL = made_model.residual()
FORMATS = (Precision.FP16, Precision.DYNAMIC, Precision.INT8, Precision.INT16X8, Precision.WEIGHT8, Precision.WEIGHT4)


@pytest.fixture(scope="module")
def samples(few_digits: Path) -> Samples:
    inputs = (TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32"),)
    return data.open_samples(few_digits, inputs=inputs, preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def formats(convolutions: Path, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """The digit classifier in every number format."""
    folder = tmp_path_factory.mktemp("formats")
    ranges = quantize.calibrate(convolutions, samples, data.first_by_content(samples, 32), threads=1)
    made = {
        precision: quantize.quantize(convolutions, precision, folder / f"{precision.value}.tflite", ranges=ranges).path
        for precision in FORMATS
    }
    return {Precision.FP32: convolutions, **made}


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    path = tmp_path / "residual.tflite"
    path.write_bytes(RESIDUAL)
    return path


def cuttable(path: Path) -> Cuttable:
    return Cuttable(flatbuffer.read(path), where=path.name)


def whole(model: Cuttable, path: Path) -> Loaded:
    names = [tuple(map(model.name, tensors)) for tensors in (model.inputs, model.outputs)]
    return Loaded(Link(content=path.read_bytes(), inputs=names[0], outputs=names[1]), threads=1, where=path.name)


def chained(model: Cuttable, *at: int) -> list[Loaded]:
    places = (0, *at, model.end)
    spans = itertools.pairwise(places)
    return [Loaded(stage_times.link(model, span), threads=1, where="segment") for span in spans]


def noise(loaded: Loaded, count: int) -> Iterator[list[np.ndarray[Any, Any]]]:
    random = np.random.default_rng(3)
    return (loaded.noise(random) for _ in range(count))


# ------------------------------------------------------------------------------------------------ bit identity


@pytest.mark.parametrize("precision", [Precision.FP32, *FORMATS], ids=lambda precision: precision.value)
def test_every_cut_of_every_number_format_is_bit_identical(
    precision: Precision, formats: dict[Precision, Path], samples: Samples
) -> None:
    path = formats[precision]
    model = cuttable(path)
    loaded = whole(model, path)
    real = [list(samples.read(data.as_rows([row]))) for row in range(4)]
    assert len(model.points) > 4
    for point in model.points:
        assert chain.compare(loaded, chained(model, point.at), iter([*noise(loaded, 2), *real])) == 6


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.WEIGHT4])
def test_one_segment_an_operator_is_bit_identical(precision: Precision, formats: dict[Precision, Path]) -> None:
    model = cuttable(formats[precision])
    loaded = whole(model, formats[precision])
    everywhere = [point.at for point in model.points]
    assert chain.compare(loaded, chained(model, *everywhere), noise(loaded, 4)) == 4


def test_every_pair_of_cuts_of_a_residual_graph_is_bit_identical(residual: Path) -> None:
    model = cuttable(residual)
    loaded = whole(model, residual)
    places = [point.at for point in model.points]
    assert places == [1, 2, 3, 4, 5, 6, 7]
    for first in places:
        for second in (at for at in places if at > first and model.last_given(at) >= first):
            assert chain.compare(loaded, chained(model, first, second), noise(loaded, 2)) == 2


def test_one_wrong_bit_is_found(convolutions: Path, tmp_path: Path) -> None:
    changed = flatbuffer.read(convolutions)
    bias = next(
        t for t in changed.subgraphs[0].tensors if len(t.shape or ()) == 1 and t.buffer and len(t.shape) and t.type == 0
    )
    values = np.frombuffer(bytes(changed.buffers[bias.buffer].data), np.float32).copy()
    values[0] = np.nextafter(values[0], np.float32(np.inf)) + np.float32(1e-3)
    flatbuffer.put(changed, bias, values)
    (tmp_path / "other.tflite").write_bytes(flatbuffer.serialize(changed))
    model = cuttable(convolutions)
    loaded = whole(model, convolutions)
    with pytest.raises(SplitMismatchError, match=r"differs in \d+ of 10 values on sample 1") as refused:
        chain.compare(loaded, [whole(model, tmp_path / "other.tflite")], noise(loaded, 1))
    assert refused.value.code == "split-mismatch"


def test_nan_is_the_same_as_nan() -> None:
    made = made_model.Made()
    x = made.tensor("x")
    content = made.content([x], [made.op("LOG", made.op("NEG", x, name="n"), name="out")])
    model = Cuttable(flatbuffer.parse(content, where="made"), where="made")
    loaded = Loaded(Link(content=content, inputs=("x",), outputs=("out",)), threads=1, where="made")
    assert np.isnan(loaded.run([np.ones((1, 4), np.float32)])[0]).all()
    assert chain.compare(loaded, chained(model, 1), iter([[np.ones((1, 4), np.float32)]])) == 1


@st.composite
def graphs(draw: st.DrawFn) -> tuple[bytes, tuple[int, ...]]:
    """Any graph of additions and tanh, with whatever crosses whatever, and places to cut it."""
    made = made_model.Made()
    tensors = [made.tensor("x"), made.tensor("y"), made.constant("c", np.array([[0.5, -0.5, 0.25, 2]], np.float32))]
    computed: list[int] = []
    for number in range(draw(st.integers(3, 9))):
        if draw(st.booleans()):
            computed.append(made.op("ADD", draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors)), name="add"))
        else:
            computed.append(made.op("TANH", draw(st.sampled_from(tensors)), name=f"tanh{number}"))
        tensors.append(computed[-1])
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    content = made.content([0, 1], list(dict.fromkeys([*outputs, computed[-1]])))
    places = [point.at for point in Cuttable(flatbuffer.parse(content, where="made"), where="made").points]
    at = draw(st.sets(st.sampled_from(places), max_size=3)) if places else set()
    return content, tuple(sorted(at))


@given(graphs())
@settings(deadline=None, max_examples=60)
def test_any_graph_cut_anywhere_is_bit_identical(drawn: tuple[bytes, tuple[int, ...]]) -> None:
    content, at = drawn
    model = Cuttable(flatbuffer.parse(content, where="made"), where="made")
    assert {*at} <= {point.at for point in model.points}
    try:
        spans = cut_search.given(model, at)
    except NoCutError:
        return
    inputs, outputs = (tuple(map(model.name, tensors)) for tensors in (model.inputs, model.outputs))
    loaded = Loaded(Link(content=content, inputs=inputs, outputs=outputs), threads=1, where="made")
    segments = [Loaded(stage_times.link(model, span), threads=1, where="segment") for span in spans]
    assert chain.compare(loaded, segments, noise(loaded, 2)) == 2


# ------------------------------------------------------------------------------------------------ what is in a segment


def test_weights_travel_once_and_unpacking_goes_with_who_reads_them(formats: dict[Precision, Path]) -> None:
    for precision in (Precision.FP16, Precision.WEIGHT8, Precision.WEIGHT4):
        path = formats[precision]
        model = cuttable(path)
        middle = model.points[len(model.points) // 2].at
        sizes = [len(model.content(span)) for span in ((0, middle), (middle, model.end))]
        assert sum(sizes) < 1.25 * path.stat().st_size, precision
        for point in model.points:
            assert not any("weight" in name.lower() or "kernel" in name.lower() for name in point.tensors)


def test_a_constant_that_both_sides_unpack_is_in_both_and_crosses_nowhere() -> None:
    content = made_model.halves()
    model = Cuttable(flatbuffer.parse(content, where="made"), where="made")
    loaded = Loaded(Link(content=content, inputs=("x",), outputs=("out",)), threads=1, where="made")
    # Six operators unpack; of the thirteen that compute, twelve have one before them.
    assert [point.at for point in model.points] == list(range(7, 19))
    assert {len(point.tensors) for point in model.points} == {1}
    for point in model.points:
        assert chain.compare(loaded, chained(model, point.at), noise(loaded, 2)) == 2
    last = flatbuffer.parse(model.content((18, model.end)), where="last")
    assert [flatbuffer.op_name(last, operator) for operator in last.subgraphs[0].operators] == ["DEQUANTIZE", "ADD"]
    assert len(last.operatorCodes) == 2
    assert sum(buffer.data is not None and len(buffer.data) > 0 for buffer in last.buffers) <= 2


def test_sparse_weights_stay_sparse() -> None:
    content = made_model.sparse()
    model = Cuttable(flatbuffer.parse(content, where="made"), where="made")
    loaded = Loaded(Link(content=content, inputs=("x",), outputs=("out",)), threads=1, where="made")
    zeros = loaded.run([np.zeros((1, 4), np.float32)])[0]
    assert (zeros != 0).tolist() == [[False, True, False, True]]
    assert [point.at for point in model.points] == [2, 3]
    for point in model.points:
        assert chain.compare(loaded, chained(model, point.at), noise(loaded, 2)) == 2
        for span in ((0, point.at), (point.at, model.end)):
            part = flatbuffer.parse(model.content(span), where="part")
            stored = [tensor for tensor in part.subgraphs[0].tensors if tensor.sparsity is not None]
            assert [len(part.buffers[tensor.buffer].data) for tensor in stored] == [8]


def test_an_int8_boundary_stays_int8_with_its_scale(formats: dict[Precision, Path], tmp_path: Path) -> None:
    path = formats[Precision.INT8]
    at = next(point.at for point in cuttable(path).points if point.at > 3 and len(point.tensors) == 1)
    plan = split(SplitRequest(model=path, at=(at,)), tmp_path / "out")
    (given,) = plan.segments[0].outputs
    (taken,) = plan.segments[1].inputs
    assert (given.name, given.dtype) == (taken.name, taken.dtype)
    assert given.dtype == "int8"
    elements = np.prod([abs(size) for size in given.shape])
    assert plan.segments[0].send_bytes == elements
    before = next(t for t in flatbuffer.read(path).subgraphs[0].tensors if _name(t) == given.name)
    for segment, side in zip(plan.segments, ("outputs", "inputs"), strict=True):
        part = flatbuffer.read(tmp_path / "out" / segment.file).subgraphs[0]
        after = part.tensors[getattr(part, side)[0]]
        assert list(after.quantization.scale) == list(before.quantization.scale)
        assert list(after.quantization.zeroPoint) == list(before.quantization.zeroPoint)


def _name(tensor: Any) -> str:
    return bytes(tensor.name or b"").decode()


def test_a_segment_is_a_file_any_engine_runs(convolutions: Path, tmp_path: Path) -> None:
    at = next(point.at for point in cuttable(convolutions).points if point.at > 3 and len(point.tensors) == 1)
    plan = split(SplitRequest(model=convolutions, at=(at,)), tmp_path / "out")
    read = Segments(tmp_path / "out")
    with Engine(convolutions) as one:
        image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
        should = one.run([image])[0]
        value = image
        for segment in plan.segments:
            with Engine(read.file(segment)) as engine:
                assert [spec.name for spec in engine.inputs] == [tensor.name for tensor in segment.inputs]
                assert [spec.name for spec in engine.outputs] == [tensor.name for tensor in segment.outputs]
                value = engine.run([value])[0]
        assert value.tobytes() == should.tobytes()
        assert [spec.name for spec in one.outputs] == [output.name for output in plan.outputs]


def test_the_example_of_how_to_run_segments_runs(
    convolutions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split(SplitRequest(model=convolutions, at=(2,)), tmp_path / "digits-in-2")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102 - our own page
    with Engine(convolutions) as engine:
        (should,) = engine.run([np.zeros((1, 8, 8, 1), np.float32)])
    assert capsys.readouterr().out.strip() == str([should])


def test_a_free_batch_is_free_in_every_segment(convolutions: Path) -> None:
    model = cuttable(convolutions)
    batch = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)

    def run(content: bytes, values: list[Any]) -> list[Any]:
        interpreter = choose().open(content, threads=1)
        for details, value in zip(interpreter.get_input_details(), values, strict=True):
            interpreter.resize_tensor_input(int(details["index"]), value.shape, strict=True)
        interpreter.allocate_tensors()
        for details, value in zip(interpreter.get_input_details(), values, strict=True):
            interpreter.set_tensor(int(details["index"]), value)
        interpreter.invoke()
        return [interpreter.get_tensor(int(details["index"])) for details in interpreter.get_output_details()]

    (should,) = run(convolutions.read_bytes(), [batch])
    assert should.shape == (3, 10)
    for point in model.points:
        known = {"image": batch}
        for span in ((0, point.at), (point.at, model.end)):
            part = stage_times.link(model, span)
            known |= zip(part.outputs, run(part.content, [known[name] for name in part.inputs]), strict=True)
        assert known[model.name(model.outputs[0])].tobytes() == should.tobytes(), point


def test_a_residual_tensor_comes_straight_from_who_makes_it(residual: Path, tmp_path: Path) -> None:
    plan = split(SplitRequest(model=residual, at=(2, 5)), tmp_path / "out")
    first, second, third = plan.segments
    assert [(i.name, i.source) for i in first.inputs] == [("x", None)]
    assert [o.name for o in first.outputs] == ["early", "sum1"]
    # `early` is for the third, so the second neither takes nor gives it.
    assert [(i.name, i.source) for i in second.inputs] == [("y", None), ("sum1", 1)]
    assert {(i.name, i.source) for i in third.inputs} == {("early", 1), ("one", 2), ("two", 2)}
    assert {(o.name, o.source) for o in plan.outputs} == {("out", 3), ("side", 3)}
    # What crosses the second cut is counted there, wherever it comes from.
    assert second.send_bytes == 3 * 16
    assert sum(segment.macs for segment in plan.segments) == 0


def test_an_output_that_is_made_early_comes_from_there(residual: Path, tmp_path: Path) -> None:
    plan = split(SplitRequest(model=residual, at=(6,)), tmp_path / "out")
    assert {(o.name, o.source) for o in plan.outputs} == {("out", 1), ("side", 2)}
    assert plan.segments[0].send_bytes == 16


def test_tensors_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    made = made_model.Made()
    x = made.tensor("same")
    one = made.op("TANH", x, name="same")
    out = made.op("ABS", made.op("TANH", one, name="same"), name="")
    (tmp_path / "same.tflite").write_bytes(made.content([x], [out]))
    plan = split(SplitRequest(model=tmp_path / "same.tflite", at=(1, 2)), tmp_path / "out")
    names = [spec.name for segment in plan.segments for spec in segment.outputs]
    assert len({*names, "same"}) == 4
    assert plan.inputs[0].name == "same"


# ------------------------------------------------------------------------------------------------ choosing


def test_the_work_is_shared_out(formats: dict[Precision, Path], tmp_path: Path) -> None:
    path = formats[Precision.FP32]
    plan = split(SplitRequest(model=path, parts=2), tmp_path / "out")
    assert plan.timing.origin is Origin.MEASURED
    assert plan.timing.samples >= 5
    assert plan.verified >= 8
    assert sum(segment.macs for segment in plan.segments) == graph.read(path).cost.macs
    assert all(segment.compute_ms > 0 for segment in plan.segments)
    assert (plan.segments[0].first, plan.segments[-1].end) == (0, cuttable(path).end)
    assert plan.segments[0].end == plan.segments[1].first


def test_by_predicted_times_the_same_cut_is_chosen_every_time(convolutions: Path, tmp_path: Path) -> None:
    request = SplitRequest(model=convolutions, parts=3, profile="rpi4")
    plans = [split(request, tmp_path / name) for name in ("one", "two")]
    assert plans[0] == plans[1]
    assert (tmp_path / "one" / PLAN).read_bytes() == (tmp_path / "two" / PLAN).read_bytes()
    timing = plans[0].timing
    assert (timing.origin, timing.machine) == (Origin.PREDICTED, "rpi4")
    assert timing.band is not None
    assert sum(s.compute_ms for s in plans[0].segments) == pytest.approx(timing.whole_ms, rel=1e-3)


def test_a_slow_link_cuts_where_little_crosses(convolutions: Path) -> None:
    free, slow = (
        survey(SplitRequest(model=convolutions, parts=2, profile="rpi4", link_mb_s=link)) for link in (None, 0.01)
    )
    crossing = {point.at: point.size_bytes for point in free.points}
    assert crossing[slow.chosen[1][0]] == min(crossing.values())
    assert crossing[free.chosen[1][0]] > crossing[slow.chosen[1][0]]


def test_a_pipeline_that_gains_nothing_is_said(edge: Callable[..., Any], convolutions: Path, tmp_path: Path) -> None:
    words = ("--parts", 2, "--link", 0.001, "--profile", "rpi4", "-o", tmp_path / "out")
    done = edge("split", convolutions, *words)
    assert done.status == 0, done.err
    (note,) = Segments(tmp_path / "out").plan.notes
    assert re.match(r"a pipeline of these gains nothing: stage 1 takes 40\.3 ms, most of it handing on, and", note)
    assert f"Note: {note}" in done.out


def test_no_segment_is_made_for_nobody() -> None:
    made = made_model.Made()
    x = made.tensor("x")
    kept = made.op("TANH", x, name="kept")
    made.op("ABS", kept, name="unread")
    out = made.op("TANH", kept, name="out")
    model = Cuttable(flatbuffer.parse(made.content([x], [out]), where="made"), where="made")
    assert [point.at for point in model.points] == [1, 2]
    assert model.last_given(2) == 0
    with pytest.raises(NoCutError, match="operators 1 to 1 compute nothing"):
        cut_search.given(model, (1, 2))


# ------------------------------------------------------------------------------------------------ what is refused


def variable(model: Any) -> None:
    model.subgraphs[0].tensors[1].isVariable = True


def twice(model: Any) -> None:
    model.subgraphs = [model.subgraphs[0], model.subgraphs[0]]


def compiled(model: Any) -> None:
    model.operatorCodes[0].customCode = b"edgetpu-custom-op"


def repeated(model: Any) -> None:
    model.subgraphs[0].outputs = [int(model.subgraphs[0].outputs[0])] * 2


def passed_on(model: Any) -> None:
    model.subgraphs[0].outputs = [int(model.subgraphs[0].inputs[0])]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (variable, "keeps state from one call to the next"),
        (twice, "2 subgraphs"),
        (compiled, "compiled for the Edge TPU"),
        (repeated, "gives the same tensor twice"),
        (passed_on, "which no operator computes"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(
    change: Callable[[Any], None], reason: str, tmp_path: Path
) -> None:
    model = flatbuffer.parse(RESIDUAL, where="made")
    change(model)
    path = tmp_path / "changed.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    with pytest.raises(UnsupportedModelError, match=reason) as refused:
        split(SplitRequest(model=path, parts=2), tmp_path / "out")
    assert refused.value.hint
    assert not (tmp_path / "out").exists()


def test_more_parts_than_places_are_refused(residual: Path, tmp_path: Path) -> None:
    with pytest.raises(NoCutError, match="it has 7 places to cut at; ask for at most 8 parts"):
        split(SplitRequest(model=residual, parts=9), tmp_path / "out")


def test_what_has_to_be_converted_first_is_said(edge: Callable[..., Any], tmp_path: Path) -> None:
    done = edge("split", tmp_path / "model.keras", "--parts", 2, "-o", tmp_path / "out")
    assert done.status == 2
    assert "is a .keras file; `edge convert` makes a bundle of it first [source-model]" in done.line


def test_one_operator_cannot_be_cut(edge: Callable[..., Any], tmp_path: Path) -> None:
    made = made_model.Made()
    x = made.tensor("x")
    path = tmp_path / "one.tflite"
    path.write_bytes(made.content([x], [made.op("TANH", x, name="out")]))
    with pytest.raises(NoCutError, match="it has no places to cut at; leave it whole"):
        split(SplitRequest(model=path, parts=2), tmp_path / "out")
    assert edge("split", path, "--list").out.strip() == "No place to cut: leave it whole"


def test_a_place_that_is_none_is_refused(residual: Path, tmp_path: Path) -> None:
    for at in (0, 8, 99):
        with pytest.raises(NoCutError, match=f"before operator {at}; `edge split --list`"):
            split(SplitRequest(model=residual, at=(at,)), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "neither --parts nor --at"),
        ({"parts": 2, "at": (1,)}, "both --parts and --at"),
        ({"parts": 1}, "1 parts"),
        ({"parts": 65}, "65 parts"),
        ({"at": tuple(range(64))}, "64 places"),
        ({"parts": 2, "variant": "int8"}, "a bare file has no variants"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    changes: dict[str, Any], reason: str, residual: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason):
        split(SplitRequest(model=residual, **changes), tmp_path / "out")


def test_a_bundle_needs_a_variant_that_it_has(convolutions: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, contents={"fp32": convolutions.read_bytes()})
    with pytest.raises(UsageError, match="--variant is not given; the bundle has fp32"):
        split(SplitRequest(model=bundle.path, parts=2), tmp_path / "out")
    with pytest.raises(UnknownVariantError):
        split(SplitRequest(model=bundle.path, parts=2, variant="int8"), tmp_path / "out")


def test_samples_that_do_not_fit_are_refused(residual: Path, convolutions: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.zeros((3, 4), np.float32), y=np.zeros(3, np.int64))
    for model, reason in ((convolutions, r"its samples are \[4\]"), (residual, r"the model takes \[4\]")):
        with pytest.raises(DataError, match=reason):
            split(SplitRequest(model=model, at=(1,), data=tmp_path / "wrong.npz"), tmp_path / "out")
    with pytest.raises(DataError, match="is not there"):
        split(SplitRequest(model=convolutions, at=(1,), data=tmp_path / "none.npz"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_cut_anywhere_is_refused_and_never_crashes(tmp_path: Path) -> None:
    content = RESIDUAL
    path = tmp_path / "cut.tflite"
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises((SourceError, UnsupportedModelError, NoCutError)):
            split(SplitRequest(model=path, parts=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
@settings(deadline=None, max_examples=150)
def test_a_file_with_any_bytes_changed_is_cut_or_refused_and_never_crashes(flips: list[tuple[float, int]]) -> None:
    content = bytearray(RESIDUAL)
    for where, byte in flips:
        content[8 + int(where * (len(content) - 8))] = byte
    try:
        model = Cuttable(flatbuffer.parse(bytes(content), where="changed"), where="changed")
        pieces = [model.content(span) for span in model.atoms]
    except (SourceError, UnsupportedModelError):
        return
    assert all(flatbuffer.parse(piece, where="piece").subgraphs for piece in pieces)


def untrue() -> bytes:
    """A chain in which the file says [1, 4] of a tensor that is [4]."""
    made = made_model.Made()
    x = made.tensor("x")
    flat = made.op("TANH", made.constant("c", np.ones(4, np.float32)), name="flat")
    return made.content([x], [made.op("TANH", made.op("ADD", x, flat, name="sum"), name="out")])


def test_where_the_file_is_wrong_about_a_shape_nothing_is_cut(edge: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "untrue.tflite"
    path.write_bytes(untrue())
    assert [point.at for point in cuttable(path).points] == [1, 2]
    told = edge("split", path, "--list", "--json")
    assert [place["at"] for place in json.loads(told.out)["places"]] == [2]
    with pytest.raises(NoCutError, match="cannot be cut before operator 1"):
        split(SplitRequest(model=path, at=(1,)), tmp_path / "out")
    model = cuttable(path)
    with pytest.raises(SplitMismatchError, match=r"'flat' is \[4\] when it is computed and \[1, 4\] in the file"):
        chain.compare(whole(model, path), chained(model, 1), noise(whole(model, path), 1))


def test_operators_out_of_order_are_refused(tmp_path: Path) -> None:
    model = flatbuffer.parse(RESIDUAL, where="made")
    model.subgraphs[0].operators.reverse()
    with pytest.raises(SourceError, match="makes what was made or read before it"):
        Cuttable(model, where="made")


def test_what_stands_there_and_is_no_split_stays(residual: Path, tmp_path: Path) -> None:
    kept = tmp_path / "mine" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years")
    with pytest.raises(StorageError, match="no split model"):
        split(SplitRequest(model=residual, parts=2), kept.parent)
    assert kept.read_text() == "years"


def test_a_split_that_stands_there_is_replaced_whole_or_stays(residual: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split(SplitRequest(model=residual, at=(1, 2)), out)
    split(SplitRequest(model=residual, at=(3,)), out)
    assert sorted(path.name for path in out.iterdir()) == ["segment-1.tflite", "segment-2.tflite", PLAN]
    with pytest.raises(NoCutError):
        split(SplitRequest(model=residual, at=(99,)), out)
    assert [segment.first for segment in Segments(out).plan.segments] == [0, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "residual.tflite"]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_splits_a_variant(
    edge: Callable[..., Any], formats: dict[Precision, Path], few_digits: Path, tmp_path: Path
) -> None:
    content = formats[Precision.INT8].read_bytes()
    bundle = write_bundle(tmp_path, contents={"fp32": b"another", "int8": content})
    out = tmp_path / "out"
    words = ("--variant", "int8", "--parts", 2, "--data", few_digits, "--link", 100, "-o", out)
    done = edge("split", bundle.path, *words)
    assert done.status == 0, done.err
    assert "Bit-identical to the whole on 40 samples" in done.out
    assert "segment-2.tflite" in done.out
    plan = Segments(out).plan
    assert (plan.whole.model, plan.whole.variant) == ("digits-1", "int8")
    assert plan.whole.size_bytes == len(content)
    assert plan.link_mb_s == 100
    assert plan.segments[0].send_ms == pytest.approx(plan.segments[0].send_bytes / 1e5, abs=1e-4)
    assert plan.inputs[0].dtype == "float32"


def test_a_packed_bundle_is_split_and_its_preprocessing_applied(convolutions: Path, tmp_path: Path) -> None:
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (20, 20), np.uint8, endpoint=True)
        (tmp_path / "images" / "1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / "1" / f"{number}.png")
    bundle = write_bundle(
        tmp_path, contents={"fp32": convolutions.read_bytes()}, preprocessing={"std": [16.0], "resize": [8, 8]}
    )
    packed = bundles.pack(bundle, tmp_path / "digits-1.edgebundle")
    request = SplitRequest(model=packed, variant="fp32", at=(2,), data=tmp_path / "images")
    assert split(request, tmp_path / "out").verified == 8 + 3


def test_the_command_prints_what_it_wrote_as_json(edge: Callable[..., Any], residual: Path, tmp_path: Path) -> None:
    done = edge("split", residual, "--at", "2,5", "-o", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["directory"] == str(tmp_path / "out")
    assert [segment["file"] for segment in told["split"]["segments"]] == [f"segment-{i}.tflite" for i in (1, 2, 3)]
    assert told["split"]["segments"][0]["inputs"][0]["source"] is None


def test_the_list_shows_every_place_and_writes_nothing(
    edge: Callable[..., Any], residual: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    done = edge("split", residual, "--list", "--link", 1, "--parts", 2)
    assert done.status == 0, done.err
    assert "7 places to cut" in done.out
    assert "at 1 MB/s" in done.out
    assert sum(line.startswith("*") for line in done.out.splitlines()) == 1
    told = json.loads(edge("split", residual, "--dry-run", "--json").out)
    assert [place["at"] for place in told["places"]] == [1, 2, 3, 4, 5, 6, 7]
    assert told["places"][1]["tensors"] == ["y", "early", "sum1"]
    assert told["places"][1]["size_bytes"] == 48
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--parts", 1), "'1' is no number from 2 to 64"),
        (("--parts", "two"), "no number from 2 to 64"),
        (("--at", "3,x"), "no number"),
        (("--link", 0, "--parts", 2), "no number"),
        (("--link", "nan", "--parts", 2), "no number"),
        (("--parts", 2), "-o is not given"),
        (("--parts", 2, "-o", "out", "--profile", "pdp11"), "no profile 'pdp11'"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    words: tuple[Any, ...], line: str, edge: Callable[..., Any], residual: Path
) -> None:
    done = edge("split", residual, *words)
    assert done.status == 2
    assert line in done.line
