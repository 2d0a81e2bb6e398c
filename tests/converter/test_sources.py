"""What is taken as a source: its kind, one of its signatures, its sizes, its state, and weights that are numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_stage
import numpy as np
import pytest

from edge_converter import evaluate, finite, flatbuffer, graph, sequences, shapes, signature, sources
from edge_converter.errors import SourceError, UnsupportedModelError
from edge_converter.imports import TORCH, ImportProcess
from edge_converter.labelled.data import as_rows, open_samples
from edge_converter.quantization import quantize
from edge_converter.sources import Framework
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine
from edge_sdk.errors import MissingExtraError, UsageError
from edge_sdk.manifest import Precision, Preprocessing


def normal(*shape: int) -> Any:
    """The same numbers for the same shape, whatever other tests ran before."""
    return np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)


def labelled(path: Path, x: Any, y: Any) -> Path:
    np.savez(path, x=np.asarray(x, np.float32), y=y)
    return path


# -------------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    ("name", "begins", "framework"),
    [("a.pt2", b"PK\x03\x04", Framework.TORCH), ("a.onnx", b"\x08\x09\x12\x04", Framework.ONNX)],
)
def test_a_file_is_known_by_its_name_and_its_first_bytes(
    tmp_path: Path, name: str, begins: bytes, framework: Framework
) -> None:
    path = tmp_path / name
    path.write_bytes(begins + b"0" * 20)
    (found,) = sources.identify([path])
    assert (found.framework, found.name, found.repeatable) == (framework, "a", True)
    assert found.record.framework == framework.value


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_a_pickled_model_is_refused_with_what_to_do(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"PK\x03\x04" + b"0" * 20)
    with pytest.raises(SourceError, match="is pickled: it lacks the network's class, and loading it can run any code"):
        sources.identify([path])
    with pytest.raises(SourceError, match=r"torch\.export\.save.* torch:MODULE:FUNCTION"):
        sources.identify([path])


def test_a_function_is_known_by_its_spelling_and_changes_with_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text("def small(): ...\n")
    (first,) = sources.identify([Path("torch:nets:small")])
    assert (first.framework, first.name, first.repeatable) == (Framework.TORCH, "small", False)
    (tmp_path / "nets.py").write_text("def small(): return 1\n")
    (second,) = sources.identify([Path("torch:nets:small")])
    assert first.record.sha256 != second.record.sha256


@pytest.mark.parametrize(
    ("spelled", "says"),
    [
        ("torch:nets", "is not torch:MODULE:FUNCTION"),
        ("torch:nets:small:more", "is not torch:MODULE:FUNCTION"),
        ("torch:../nets:small", "is not torch:MODULE:FUNCTION"),
        ("torch:absent_module_of_nobody:small", "there is no module absent_module_of_nobody"),
        ("torch:absent_package.of_nobody:small", "there is no module absent_package.of_nobody"),
    ],
)
def test_a_function_that_cannot_be_found(spelled: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        sources.identify([Path(spelled)])


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is not None, reason="PyTorch is here")
def test_where_pytorch_is_not_installed_the_extra_is_named(tmp_path: Path) -> None:
    running = ImportProcess(TORCH, tmp_path, deadline_s=60)
    with pytest.raises(MissingExtraError, match=r"pip install 'adaptive-edge-sdk\[torch\]'"), running:
        pytest.fail("PyTorch is here, and this test is not for that")


def test_a_model_that_is_quantized_already_goes_into_the_bundle_byte_for_byte(
    edge: Callable[..., Any], points: Path, tmp_path: Path
) -> None:
    given = Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_int8.tflite"
    out = tmp_path / "a.edge"
    done = edge("convert", given, "--data", points, "-o", out)
    assert done.status == 0, done.err
    bundle = Bundle(out)
    (variant,) = bundle.manifest.variants
    assert bundle.blob(variant).read_bytes() == given.read_bytes()
    assert (variant.precision, variant.compression) == (Precision.INT8, ())


# --------------------------------------------------------------------------------------------------- signatures


def test_one_of_several_signatures_is_taken_alone(tmp_path: Path) -> None:
    content = model_stage.several(tmp_path / "two.tflite").read_bytes()
    x = normal(1, 4)
    for name, factor in ((None, 1), ("serving_default", 1), ("other", 2)):
        made = signature.alone(content, name, where="two")
        assert signature.names(flatbuffer.parse(made, where="two")) == ((name or "serving_default"),)
        with Engine(made) as engine:
            np.testing.assert_allclose(engine.run([x])[0], x @ model_stage.WEIGHTS.T * factor, rtol=1e-5)
        assert len(made) < 0.8 * len(content)


def test_a_file_with_one_signature_keeps_its_bytes(tiny: Path) -> None:
    content = tiny.read_bytes()
    assert signature.alone(content, None, where="tiny") == content
    assert signature.alone(content, "serving_default", where="tiny") == content


def test_an_unknown_signature_lists_those_there_are(tmp_path: Path) -> None:
    content = model_stage.several(tmp_path / "two.tflite", ("encode", "decode")).read_bytes()
    with pytest.raises(UsageError, match="has no signature 'serve'; it has encode, decode"):
        signature.alone(content, "serve", where="two")
    with pytest.raises(UnsupportedModelError, match="has the signatures encode, decode; choose one with --signature"):
        signature.alone(content, None, where="two")


def test_a_signature_is_chosen_on_the_command_line(
    edge: Callable[..., Any], answered: Callable[..., Path], tmp_path: Path, tiny: Path
) -> None:
    model, data, out = model_stage.several(tmp_path / "two.tflite", ("a", "b")), answered(tiny), tmp_path / "a.edge"
    base = ("--data", data, "--precision", "fp32", "--max-drop", "100", "-o", out)
    assert "has the signatures a, b; choose one with --signature" in edge("convert", model, *base).line
    assert edge("convert", model, "--signature", "b", *base).status == 0
    assert "has no signature 'c'; it has a, b" in edge("convert", model, "--signature", "c", *base).line


def test_a_graph_with_state_keeps_the_graph_that_sets_it_up(tmp_path: Path) -> None:
    stage = model_stage.Stage()
    stage.model = flatbuffer.read(model_stage.stateful(tmp_path / "state.tflite"))
    extra = stage.graph("extra")
    x = stage.tensor(extra, "x", [1, 4])
    extra.inputs, extra.outputs = [x], [stage.dense(extra, x)]
    stage.signature("extra", 2)
    content = stage.write(tmp_path / "both.tflite").read_bytes()
    made = signature.alone(content, "serving_default", where="both")
    assert len(flatbuffer.parse(made, where="both").subgraphs) == 2
    with Engine(made, warm=False) as engine:
        assert np.isfinite(engine.run([np.ones((1, 4), np.float32)])[0]).all()


# -------------------------------------------------------------------------------------------------------- sizes


def test_free_sizes_are_fixed_in_the_file(tmp_path: Path) -> None:
    content = model_stage.free_sizes(tmp_path / "free.tflite").read_bytes()
    made = shapes.fix(content, [(1, 6, 5, 4)], where="free")
    (tmp_path / "fixed.tflite").write_bytes(made)
    found = graph.read(tmp_path / "fixed.tflite")
    assert [spec.shape for spec in (*found.inputs, *found.outputs)] == [(1, 6, 5, 4), (1, 3)]
    x = normal(1, 6, 5, 4)
    with Engine(made) as engine:
        np.testing.assert_allclose(engine.run([x])[0], x.mean(axis=(1, 2)) @ model_stage.WEIGHTS.T, rtol=1e-4)
    assert shapes.fix(made, [(1, 6, 5, 4)], where="fixed") == made


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ([(1, 6, 5, 3)], r"takes \[-1, -1, -1, 4\], not \[1, 6, 5, 3\]"),
        ([(6, 5, 4)], r"takes \[-1, -1, -1, 4\], not \[6, 5, 4\]"),
        ([(1, 6, 5, 4)] * 2, "has 1 inputs, and --input-shape is given 2 times"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path, wanted: list[tuple[int, ...]], says: str) -> None:
    content = model_stage.free_sizes(tmp_path / "free.tflite").read_bytes()
    with pytest.raises(UsageError, match=says):
        shapes.fix(content, wanted, where="free")


def test_free_sizes_are_refused_unless_they_are_fixed(edge: Callable[..., Any], tmp_path: Path) -> None:
    model = model_stage.free_sizes(tmp_path / "free.tflite")
    x = normal(40, 6, 5, 4)
    data = labelled(tmp_path / "images.npz", x, (x.mean(axis=(1, 2)) @ model_stage.WEIGHTS.T).argmax(axis=1))
    base = ("convert", model, "--data", data, "-o", tmp_path / "a.edge")
    assert "takes [-1, -1, -1, 4]; --input-shape fixes free sizes" in edge(*base).line
    done = edge(*base, "--input-shape", "1,6,5,4", "--precision", "int8", "--max-drop", "50")
    assert done.status == 0, done.err
    manifest = Bundle(tmp_path / "a.edge").manifest
    assert manifest.inputs[0].shape == (-1, 6, 5, 4)
    assert {variant.id for variant in manifest.variants} == {"fp32", "int8"}


# -------------------------------------------------------------------------------------------------------- state


@pytest.fixture
def adding(tmp_path: Path) -> Path:
    """A model that scores the sum of all it was given so far."""
    return model_stage.stateful(tmp_path / "adding.tflite")


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    """Sequences of five steps, labelled by the score of their sum."""
    x = normal(40, 5, 4)
    return labelled(tmp_path / "walks.npz", x, (x.sum(axis=1) @ model_stage.WEIGHTS.T).argmax(axis=1))


def test_state_is_seen_in_the_file(adding: Path, tiny: Path) -> None:
    assert (graph.read(adding).stateful, graph.read(adding).variables) == (True, 1)
    assert not graph.read(tiny).stateful


def test_resetting_the_runtime_does_not_forget_and_a_fresh_start_does(adding: Path) -> None:
    one = np.ones((1, 4), np.float32)
    with Engine(adding, warm=False) as engine:
        first = engine.run([one])[0]
        assert engine._interpreter is not None
        engine._interpreter.reset_all_variables()
        assert not np.allclose(engine.run([one])[0], first), "the workaround in sequences.py is needed no more"
    fresh = sequences.SequenceEngine(adding)
    for _ in range(2):
        np.testing.assert_array_equal(fresh.run([one])[0], first)


def test_answers_do_not_depend_on_the_order_of_the_samples(adding: Path, walks: Path) -> None:
    samples = open_samples(
        walks, inputs=sequences.samples_of(walks, graph.read(adding).inputs), preprocessing=Preprocessing()
    )
    rows = as_rows(range(40))
    forth = evaluate.answers(adding, samples, rows, advance=lambda _: None)
    back = evaluate.answers(adding, samples, rows[::-1], advance=lambda _: None)
    np.testing.assert_array_equal(forth, back[::-1])
    np.testing.assert_array_equal(forth, samples.labels)


def test_a_model_with_state_is_judged_on_sequences_and_not_quantized(
    edge: Callable[..., Any], adding: Path, walks: Path, tmp_path: Path
) -> None:
    done = edge("convert", adding, "--data", walks, "-o", tmp_path / "a.edge")
    assert done.status == 0, done.err
    manifest = Bundle(tmp_path / "a.edge").manifest
    assert [(variant.id, variant.quality.value) for variant in manifest.variants] == [("fp32", 100.0)]
    reasons = {one.id: one.reason for one in manifest.refused}
    assert {"int8", "weight8", "dynamic"} <= set(reasons)
    assert all("keeps state between calls (1 variables)" in reason for reason in reasons.values())


def test_a_model_with_state_shares_no_bundle_with_one_without(
    edge: Callable[..., Any], adding: Path, walks: Path, tmp_path: Path
) -> None:
    stage = model_stage.Stage()
    main = stage.graph("main")
    x = stage.tensor(main, "x", [1, 4])
    main.inputs, main.outputs = [x], [stage.dense(main, x)]
    stage.signature("serving_default", 0)
    done = edge("convert", adding, stage.write(tmp_path / "plain.tflite"), "--data", walks, "-o", tmp_path / "a.edge")
    assert "one of plain and adding keeps state between calls and the other does not" in done.line


@pytest.mark.reference_data
def test_a_wake_word_network_is_understood(reference_data: Path) -> None:
    found = graph.read(reference_data / "models_and_labels" / "wakeword" / "alexa.tflite")
    assert (found.variables, found.precision, found.inputs[0].shape) == (6, Precision.INT8, (1, 3, 40))


def test_control_flow_is_named(tmp_path: Path) -> None:
    stage = model_stage.Stage()
    main, inner = stage.graph("main"), stage.graph("inner")
    x = stage.tensor(main, "x", [1, 4])
    y = stage.tensor(main, "y", [1, 4])
    stage.op(main, "WHILE", [x], [y], condSubgraphIndex=1, bodySubgraphIndex=1)
    main.inputs, main.outputs = [x], [y]
    inner.inputs = inner.outputs = [stage.tensor(inner, "z", [1, 4])]
    path = stage.write(tmp_path / "loop.tflite")
    with pytest.raises(UnsupportedModelError, match=r"has control flow \(WHILE\)"):
        graph.read(path)


# ------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named_by_their_layer(dense: Callable[..., Path], value: float) -> None:
    weights = np.ones((3, 4))
    weights[1, 2] = value
    path = dense("bad", weights)
    with pytest.raises(SourceError, match="has NaN or infinity in 1 of 12 weights of FULLY_CONNECTED logits"):
        finite.check(path, where=str(path))


def test_a_model_with_such_weights_makes_no_bundle(
    edge: Callable[..., Any], dense: Callable[..., Path], points: Path, tmp_path: Path
) -> None:
    done = edge("convert", dense("bad", np.full((3, 4), np.nan)), "--data", points, "-o", tmp_path / "a.edge")
    assert (done.status, (tmp_path / "a.edge").exists()) == (2, False)
    assert "bad.tflite: has NaN or infinity in 12 of 12 weights of FULLY_CONNECTED logits" in done.line


def test_an_infinite_mask_is_no_weight(tmp_path: Path) -> None:
    stage = model_stage.Stage()
    main = stage.graph("main")
    x, y = stage.tensor(main, "x", [1, 4]), stage.tensor(main, "y", [1, 4])
    mask = stage.tensor(main, "mask", [1, 4], data=np.array([[0, -np.inf, 0, 0]], np.float32))
    stage.op(main, "ADD", [x, mask], [y])
    main.inputs, main.outputs = [x], [y]
    finite.check(stage.write(tmp_path / "mask.tflite"), where="mask")


# ------------------------------------------------------------------------------- layers the quantizer does not know


def test_recurrent_layers_count_as_layers_and_keep_state(tmp_path: Path) -> None:
    found = graph.read(model_stage.recurrent(tmp_path / "recurrent.tflite"))
    assert [op.op for op in found.weighted] == ["UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED"]
    assert found.weighted[0].macs == 5 * 4 * 6 * (4 + 6)
    assert found.exceptions(Precision.INT8)[0].startswith("UNIDIRECTIONAL_SEQUENCE_LSTM sequence: float32 activations")
    assert found.variables == 2


def test_a_recurrent_layer_starts_fresh_with_every_sample(tmp_path: Path) -> None:
    path = model_stage.recurrent(tmp_path / "recurrent.tflite")
    x = normal(4, 5, 4)
    fresh = sequences.SequenceEngine(path)
    forth, back = fresh.run([x])[0], fresh.run([x[::-1]])[0]
    np.testing.assert_array_equal(forth, back[::-1])
    with Engine(path, warm=False) as engine:
        assert not np.allclose(engine.run([x])[0], forth)


@pytest.mark.parametrize(
    ("precision", "left"),
    [(Precision.INT8, []), (Precision.WEIGHT8, []), (Precision.FP16, ["BATCH_MATMUL"])],
)
def test_transposed_convolutions_and_matrix_products_are_quantized_or_listed(
    tmp_path: Path, precision: Precision, left: list[str]
) -> None:
    path = model_stage.transposed(tmp_path / "transposed.tflite")
    x = normal(20, 4, 4, 2)
    samples = open_samples(
        labelled(tmp_path / "x.npz", x, np.arange(20) % 3),
        inputs=graph.read(path).inputs,
        preprocessing=Preprocessing(),
    )
    ranges = quantize.calibrate(path, samples, as_rows(range(20)), threads=1)
    wide = {name: {end: 3 * value for end, value in both.items()} for name, both in ranges.items()}
    made = quantize.quantize(path, precision, tmp_path / "made.tflite", ranges=wide)
    assert [line.partition(" ")[0] for line in made.exceptions] == left
    with Engine(path) as engine, Engine(made.path) as other:
        expected, found = engine.run([x])[0], other.run([x])[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95
