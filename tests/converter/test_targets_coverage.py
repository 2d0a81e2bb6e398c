"""What of a model an accelerator takes, and why the rest stays on the CPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_graph import Drawn

from edge_converter import flatbuffer, graph
from edge_converter.errors import CompilerError, SourceError
from edge_converter.labelled.data import open_samples
from edge_converter.quantization import quantize
from edge_converter.targets import coverage, named, of_board, table, tables
from edge_converter.targets import operators as reading
from edge_converter.targets.covering import stays
from edge_converter.targets.partition import AFTER, SMALLER, parted
from edge_converter.targets.sparse import of as sparsity
from edge_converter.targets.static import with_batch_one
from edge_lab import digits
from edge_sdk import profile as profiles
from edge_sdk.errors import UsageError
from edge_sdk.manifest import Delegate, Precision, Preprocessing

OPERATORS = set(flatbuffer.OP_NAMES.values())
# google-coral/test_data @104342d: operators of the file that went into the compiler, and of those that came out again.
DEEPLAB = (
    (
        "CONV_2D 38, DEPTHWISE_CONV_2D 17, ADD 10, AVERAGE_POOL_2D 1, RESIZE_BILINEAR 3, QUANTIZE 1, CONCATENATION 1, "
        "ARG_MAX 1"
    ),
    "RESIZE_BILINEAR 3, CONV_2D 2, QUANTIZE 1, CONCATENATION 1, ARG_MAX 1",
)
MOVENET = (
    (
        "CONV_2D 50, DEPTHWISE_CONV_2D 24, ADD 19, RESHAPE 12, QUANTIZE 8, MUL 7, SUB 6, CAST 5, DEQUANTIZE 4, "
        "GATHER_ND 4, RESIZE_BILINEAR 3, PACK 3, LOGISTIC 2, ARG_MAX 2, FLOOR_DIV 2, UNPACK 2, CONCATENATION 2, "
        "SQRT 1, DIV 1"
    ),
    (
        "RESHAPE 11, QUANTIZE 7, ADD 6, CAST 5, MUL 5, SUB 4, DEQUANTIZE 4, GATHER_ND 4, PACK 3, ARG_MAX 2, "
        "FLOOR_DIV 2, UNPACK 2, CONCATENATION 2, SQRT 1, DIV 1"
    ),
)
GROUND_TRUTH = (
    ("CONV_2D 15, DEPTHWISE_CONV_2D 13, AVERAGE_POOL_2D 1, RESHAPE 1, SOFTMAX 1", ""),
    ("QUANTIZE 2, UNIDIRECTIONAL_SEQUENCE_LSTM 1, RESHAPE 1, FULLY_CONNECTED 1, SOFTMAX 1", ""),
    ("CONCATENATION 2, SPLIT 1", ""),
    DEEPLAB,
    MOVENET,
    ("CONV_2D 21, DEPTHWISE_CONV_2D 13, QUANTIZE 7, PAD 1, CONCATENATION 1", ""),
    ("RESIZE_BILINEAR 2, TILE 1, ARG_MAX 1", "RESIZE_BILINEAR 1, ARG_MAX 1"),
)


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    """The smallest digit classifier in int8, with a free batch and one scale a channel."""
    images, labels = digits.held_out()
    data = tmp_path / "digits.npz"
    np.savez(data, x=images, y=labels)
    source = digits.models()[0]
    samples = open_samples(data, inputs=graph.read(source).inputs, preprocessing=Preprocessing())
    ranges = quantize.calibrate(source, samples, np.arange(16), threads=1)
    return quantize.quantize(source, Precision.INT8, tmp_path / "int8.tflite", ranges=ranges).path


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., Path]:
    """Writes image -> convolution -> the operator given -> convolution."""

    def write(add: Callable[[Drawn, int], int], *, kind: str = "int8", scales: int = 1) -> Path:
        drawn = Drawn()
        image = drawn.tensor(1, 8, 8, 4, kind=kind)
        first = drawn.convolution(image, 1, 8, 8, 4, kind=kind, scales=scales)
        last = drawn.convolution(add(drawn, first), 1, 8, 8, 4, kind=kind, scales=scales)
        return drawn.write(tmp_path / "chain.tflite", [image], [last])

    return write


def counts(text: str) -> Counter[str]:
    return Counter({op: int(number) for op, number in re.findall(r"([A-Z][A-Z0-9_]*) (\d+)", text)})


# ----------------------------------------------------------------------------------------------------------- the tables


def test_every_table_says_where_it_comes_from_and_names_operators_that_exist() -> None:
    assert {found.id for found in tables()} >= {"edgetpu", "ethos-u65", "ethos-u85", "nnapi", "gpu", "vx", "xnnpack"}
    for found in tables():
        assert found.source
        ops = [op for row in found.rows for op in row.ops]
        assert len(set(ops)) == len(ops), found.id
        assert set(ops) <= OPERATORS, found.id
        for row in found.rows:
            assert row.source or row.basis is None, row.ops  # another basis than the table's says why


def test_every_accelerator_of_every_profile_has_a_table() -> None:
    for board in profiles.load_all():
        for delegate in board.variants.delegates:
            assert of_board(board, delegate), (board.id, delegate)


def test_a_board_gets_the_table_of_its_own_driver() -> None:
    assert [t.id for t in of_board(profiles.load("imx8mp"), Delegate.TEFLON)] == ["teflon-etnaviv"]
    assert [t.id for t in of_board(profiles.load("imx93"), Delegate.TEFLON)] == ["teflon-ethosu"]
    assert [t.id for t in of_board(profiles.load("imx93"), Delegate.ETHOS_U)] == ["ethos-u65"]


def test_an_unknown_table_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no operator table 'abacus'.*edgetpu"):
        named("abacus")
    assert [t.id for t in named("teflon")] == ["teflon-ethosu", "teflon-etnaviv", "teflon-rocket"]


def test_nnapi_takes_more_with_each_level(chain: Callable[..., Path]) -> None:
    path = chain(lambda drawn, x: drawn.op("ELU", [x], [drawn.tensor(1, 8, 8, 4, kind="float32")]), kind="float32")
    assert coverage(path, "nnapi", level=30).delegated == 3
    told = coverage(path, "nnapi", level=29)
    assert told.delegated == 2
    assert told.why == ("ELU: taken from API level 30 on, this is 29",)


# ------------------------------------------------------------------------------------------------- why one stays behind


def test_float_operators_stay_behind_on_an_integer_accelerator(chain: Callable[..., Path]) -> None:
    path = chain(lambda _, x: x, kind="float32")
    told = coverage(path, "edgetpu")
    assert (told.delegated, told.total) == (0, 2)
    assert told.why == ("CONV_2D x2: float32 where int8 or uint8 is computed",)
    assert coverage(path, "gpu").delegated == 2


def test_integer_operators_stay_behind_on_a_float_accelerator(chain: Callable[..., Path]) -> None:
    assert coverage(chain(lambda _, x: x), "gpu").delegated == 0


def test_one_scale_a_channel_stays_behind_where_one_for_all_is_needed(chain: Callable[..., Path]) -> None:
    for name in ("vx", "teflon-etnaviv", "teflon-rocket"):
        told = coverage(chain(lambda _, x: x, scales=4), name)
        assert told.delegated == 0
        assert "per tensor" in told.why[0]
        assert coverage(chain(lambda _, x: x), name).delegated == 2


def test_an_operator_of_a_newer_version_stays_behind(chain: Callable[..., Path]) -> None:
    def logistic(drawn: Drawn, x: int) -> int:
        return drawn.op("LOGISTIC", [x], [drawn.tensor(1, 8, 8, 4)], version=9)

    told = coverage(chain(logistic), "nnapi")
    assert told.why == ("LOGISTIC: operator version 9, at most 2 is taken",)


def test_a_batch_of_several_stays_behind(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(4, 8, 8, 4)
    path = drawn.write(tmp_path / "batch.tflite", [image], [drawn.convolution(image, 4, 8, 8, 4)])
    assert coverage(path, "edgetpu").why == ("CONV_2D: batch 4, at most 1 is taken",)


def test_a_size_known_only_at_run_time_stays_behind(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4, signature=(1, -1, -1, 4))
    path = drawn.write(tmp_path / "free.tflite", [image], [drawn.convolution(image, 1, 8, 8, 4)])
    assert "dynamic shape" in coverage(path, "edgetpu").why[0]
    with pytest.raises(CompilerError, match="known only when it runs"):
        with_batch_one(path.read_bytes(), where="free.tflite")


def test_a_free_batch_is_taken_as_one(int8: Path) -> None:
    before = flatbuffer.read(int8)
    assert before.subgraphs[0].tensors[before.subgraphs[0].inputs[0]].shapeSignature[0] == -1
    fixed = flatbuffer.parse(with_batch_one(int8.read_bytes(), where="x"), where="x")
    assert all(tensor.shapeSignature is None for tensor in fixed.subgraphs[0].tensors)
    assert coverage(int8, "edgetpu").delegated > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dilationHFactor": 2, "dilationWFactor": 1}, "another dilation in height than in width"),
        ({"fusedActivationFunction": 4}, None),
    ],
)
def test_the_edge_tpu_wants_the_same_dilation_both_ways(
    tmp_path: Path, options: dict[str, int], reason: str | None
) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4)
    path = drawn.write(tmp_path / "one.tflite", [image], [drawn.convolution(image, 1, 8, 8, 4, **options)])
    told = coverage(path, "edgetpu")
    assert told.why == ((f"CONV_2D: {reason}",) if reason else ())


def test_a_pooling_with_an_activation_in_it_stays_behind_on_the_edge_tpu(chain: Callable[..., Path]) -> None:
    def pooled(fused: int) -> Callable[[Drawn, int], int]:
        return lambda drawn, x: drawn.op(
            "MAX_POOL_2D", [x], [drawn.tensor(1, 8, 8, 4)], filterHeight=1, filterWidth=1, fusedActivationFunction=fused
        )

    assert coverage(chain(pooled(0)), "edgetpu").delegated == 3
    assert coverage(chain(pooled(1)), "edgetpu").why[0] == "MAX_POOL_2D: RELU fused into it"


def test_slices_that_skip_stay_behind_on_the_edge_tpu(chain: Callable[..., Path]) -> None:
    def sliced(stride: int) -> Callable[[Drawn, int], int]:
        def add(drawn: Drawn, x: int) -> int:
            begin, end, strides = ([0] * 4, [1, 8, 8, 4], [1, stride, 1, 1])
            places = [drawn.tensor(4, kind="int32", values=each) for each in (begin, end, strides)]
            return drawn.op("STRIDED_SLICE", [x, *places], [drawn.tensor(1, 8, 8, 4)])

        return add

    assert coverage(chain(sliced(1)), "edgetpu").delegated == 3
    assert coverage(chain(sliced(2)), "edgetpu").why[0].startswith("STRIDED_SLICE: it skips elements")


@pytest.mark.parametrize(("side", "delegated"), [(8, 1), (16, 1), (32, 0), (12, 0)])
def test_resizing_is_predicted_by_how_much_it_enlarges(tmp_path: Path, side: int, delegated: int) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4)
    size = drawn.tensor(2, kind="int32", values=[side, side])
    out = drawn.op("RESIZE_BILINEAR", [image, size], [drawn.tensor(1, side, side, 4)])
    assert coverage(drawn.write(tmp_path / "r.tflite", [image], [out]), "edgetpu").delegated == delegated


def test_reductions_along_the_batch_stay_behind(tmp_path: Path) -> None:
    def mean(axes: list[int]) -> Path:
        drawn = Drawn()
        image = drawn.tensor(1, 8, 8, 4)
        at = drawn.tensor(len(axes), kind="int32", values=axes)
        return drawn.write(tmp_path / "m.tflite", [image], [drawn.op("MEAN", [image, at], [drawn.tensor(1, 4)])])

    assert coverage(mean([1, 2]), "edgetpu").delegated == 1
    assert coverage(mean([0, 1]), "edgetpu").why == ("MEAN: it works along the batch",)
    assert coverage(mean([-4]), "edgetpu").delegated == 0
    assert coverage(mean([3]), "xnnpack").why == ("MEAN: it works along other axes than height and width",)


# ----------------------------------------------------------------------------------------------------- parts of a graph


def test_nothing_after_an_operator_left_out_is_compiled_for_the_edge_tpu(chain: Callable[..., Path]) -> None:
    told = coverage(chain(lambda drawn, x: drawn.op("FLOOR_MOD", [x, x], [drawn.tensor(1, 8, 8, 4)])), "edgetpu")
    assert (told.delegated, told.total) == (1, 3)
    assert told.why == ("FLOOR_MOD: not in its table", f"CONV_2D: {AFTER}")


def test_what_stands_before_the_first_compiled_operator_stops_nothing(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4, kind="float32")
    inside = drawn.op("QUANTIZE", [image], [drawn.tensor(1, 8, 8, 4)])
    outside = drawn.op(
        "DEQUANTIZE", [drawn.convolution(inside, 1, 8, 8, 4)], [drawn.tensor(1, 8, 8, 4, kind="float32")]
    )
    told = coverage(drawn.write(tmp_path / "float_io.tflite", [image], [outside]), "edgetpu")
    assert (told.delegated, told.total) == (1, 3)
    assert [line.partition(":")[0] for line in told.why] == ["QUANTIZE", "DEQUANTIZE"]


def test_a_branch_that_needs_nothing_left_out_is_compiled(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4)
    stem = drawn.convolution(image, 1, 8, 8, 4)
    bad = drawn.op("FLOOR_MOD", [stem, stem], [drawn.tensor(1, 8, 8, 4)])
    good = drawn.convolution(stem, 1, 8, 8, 4)
    joined = drawn.op("ADD", [bad, good], [drawn.tensor(1, 8, 8, 4)])
    told = coverage(drawn.write(tmp_path / "branches.tflite", [image], [joined]), "edgetpu")
    assert told.delegated == 2
    assert told.why == ("FLOOR_MOD: not in its table", f"ADD: {AFTER}")


def test_the_gpu_gets_the_largest_part_only(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 8, 8, 4, kind="float32")
    x = drawn.convolution(image, 1, 8, 8, 4, kind="float32")
    x = drawn.op("FLOOR_MOD", [x, x], [drawn.tensor(1, 8, 8, 4, kind="float32")])
    for _ in range(2):
        x = drawn.convolution(x, 1, 8, 8, 4, kind="float32")
    path = drawn.write(tmp_path / "parts.tflite", [image], [x])
    told = coverage(path, "gpu")
    assert told.delegated == 2
    assert f"CONV_2D: {SMALLER}" in told.why
    assert parted(reading.read(path), [True, False, True, True]) == (0, 1, 2, 2)
    assert coverage(path, "xnnpack").delegated == 3


def test_weights_unpacked_at_load_are_no_operators_of_their_own(tmp_path: Path) -> None:
    half = quantize.quantize(digits.models()[0], Precision.FP16, tmp_path / "fp16.tflite").path
    whole = coverage(digits.models()[0], "gpu")
    assert coverage(half, "gpu") == whole
    assert whole.delegated == whole.total


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"is not a \.tflite file"):
        coverage(tmp_path / "x.tflite", "edgetpu")


# ------------------------------------------------------------------------------------- against what the compilers did


def test_operators_the_edge_tpu_was_seen_to_take_are_in_its_table_and_no_other() -> None:
    before, left = Counter[str](), Counter[str]()
    for whole, rest in GROUND_TRUTH:
        before += counts(whole)
        left += counts(rest)
    taken = {op for op in before if before[op] > left[op]}
    never = set(before) - taken - {"PACK", "CONCATENATION"}  # these came after an operator that was left out
    mine = {op for row in table("edgetpu").rows for op in row.ops}
    assert taken <= mine
    assert not never & mine


@pytest.mark.reference_data
def test_the_edge_tpu_prediction_agrees_with_a_compiled_pair(reference_data: Path) -> None:
    before = reading.read(reference_data / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite")
    after = reading.read(reference_data / "edgetpu" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    predicted = Counter(o.op for o, why in zip(before, stays(before, table("edgetpu")), strict=True) if why)
    assert predicted == Counter(o.op for o in after if o.op != "edgetpu-custom-op")


# ----------------------------------------------------------------------------------------------------- sparse inference


def test_a_dense_model_says_what_keeps_the_sparse_kernels_out() -> None:
    found = sparsity(digits.models()[0])
    assert "it has no 1x1 convolution" in found.why_not
    assert any("DENSIFY" in line for line in found.why_not)


def test_zeros_alone_do_not_engage_the_sparse_kernels(tmp_path: Path) -> None:
    drawn = Drawn()
    image = drawn.tensor(1, 9, 9, 3, kind="float32")
    kernel, bias = drawn.constant(4, 3, 3, 3, kind="float32"), drawn.constant(4, kind="float32")
    strides = {"strideH": 2, "strideW": 2, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0}
    x = drawn.op("CONV_2D", [image, kernel, bias], [drawn.tensor(1, 5, 5, 4, kind="float32")], **strides)
    zeros = drawn.tensor(8, 1, 1, 4, kind="float32", values=np.eye(8, 4).reshape(8, 1, 1, 4))
    out = drawn.tensor(1, 5, 5, 8, kind="float32")
    x = drawn.op("CONV_2D", [x, zeros, drawn.constant(8, kind="float32")], [out], strideH=1, strideW=1)
    axes = drawn.tensor(2, kind="int32", values=[1, 2])
    x = drawn.op("MEAN", [x, axes], [drawn.tensor(1, 8, kind="float32")])
    found = sparsity(drawn.write(tmp_path / "zeros.tflite", [image], [x]))
    assert found.zeros == pytest.approx(1 - 4 / 32)
    assert found.why_not == ("its weights are not stored as sparse tensors (DENSIFY)",)
