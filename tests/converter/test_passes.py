"""Every pass on a real network: what it promises holds, and what it found is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import candidates, flatbuffer, graph, pipeline, recipe
from edge_converter.cache import Cache
from edge_converter.candidates import Candidate, FloatFile
from edge_converter.labelled import data
from edge_converter.passes import Room, Work
from edge_converter.quantization import answers, quantize, rounding, transfer
from edge_converter.quantization.bench import open_bench
from edge_lab import digits
from edge_sdk.manifest import Pass, Precision, Preprocessing

SMALL, MEDIUM, _ = digits.models()
FORMATS = {
    "fp16": Precision.FP16,
    "dynamic": Precision.DYNAMIC,
    "int8": Precision.INT8,
    "int16x8": Precision.INT16X8,
    "weight8": Precision.WEIGHT8,
    "weight4": Precision.WEIGHT4,
    "clustered-int8": Precision.INT8,
}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    path = digits.directory() / "digits_train.npz"
    samples = data.open_samples(path, inputs=graph.read(SMALL).inputs, preprocessing=Preprocessing())
    return Room(samples=samples, rows=data.first_by_content(samples, 64), folder=tmp_path, where="medium")


def made(room: Room, source: Path, *variants: recipe.VariantRecipe) -> dict[str, Candidate]:
    """All variants, none refused."""
    found, refused = candidates.make(
        candidates.plan([FloatFile(source="s", path=source)], variants, room), room, Cache(None)
    )
    assert refused == []
    return {one.id: one for one in found}


def shipped(name: str, *ids: str) -> list[recipe.VariantRecipe]:
    return [one for one in recipe.load(name).variant if one.id in ids and one.of == "given"]


def own(*passes: dict[str, Any], precision: Precision = Precision.INT8) -> recipe.VariantRecipe:
    return recipe.VariantRecipe(id="own", precision=precision, passes=passes)


def refusal(room: Room, source: Path, variant: recipe.VariantRecipe) -> str:
    planned = candidates.plan([FloatFile(source="s", path=source)], [variant], room)
    _, (refused,) = candidates.make(planned, room, Cache(None))
    return refused.reason


def error(path: Path, source: Path) -> float:
    """On images nothing has seen."""
    images = [digits.held_out()[0]]
    wanted = answers.scores(flatbuffer.prepare(source.read_bytes(), where="x"), images)
    return answers.distance(path.read_bytes(), images, wanted)


def step(candidate: Candidate, name: str) -> Pass:
    return next(one for one in candidate.compression if one.name == name)


def plain(room: Room, source: Path, granularity: quantize.Granularity = quantize.Granularity.CHANNEL) -> Path:
    """The quantizer's own int8."""
    ranges = quantize.calibrate(source, room.samples, room.rows, threads=1)
    into = room.folder / "plain.tflite"
    return quantize.quantize(source, Precision.INT8, into, ranges=ranges, granularity=granularity).path


def test_every_format_is_made_and_says_what_was_found(room: Room) -> None:
    found = made(room, MEDIUM, *shipped("default", *FORMATS))
    assert {id_: one.graph.precision for id_, one in found.items()} == FORMATS
    assert step(found["int8"], "calibrate").evidence["method"] in {"min-max", "mse"}
    assert "channels" in step(found["int8"], "equalize").evidence
    for id_ in ("dynamic", "int8", "int16x8", "weight8", "weight4"):
        told = step(found[id_], "compensate").evidence
        assert told["kept"] is True
        assert told["layers"] == len(found[id_].graph.weighted)
        assert 0 < float(told["error_after"]) < float(told["error_before"])
    assert error(found["int8"].path, MEDIUM) < error(plain(room, MEDIUM), MEDIUM)


def test_one_scale_a_layer_is_what_the_file_has_and_costs_less_than_it_did(room: Room) -> None:
    (one,) = made(room, MEDIUM, *shipped("npu", "per-tensor-int8")).values()
    file = flatbuffer.read(one.path)
    for operator in file.subgraphs[0].operators:
        if flatbuffer.op_name(file, operator) in {*quantize.NARROW, "DEPTHWISE_CONV_2D"}:
            assert len(file.subgraphs[0].tensors[operator.inputs[1]].quantization.scale) == 1
    assert error(one.path, MEDIUM) < 0.7 * error(plain(room, MEDIUM, quantize.Granularity.TENSOR), MEDIUM)


def test_a_clustered_file_travels_in_as_few_bytes_as_asked(room: Room) -> None:
    (whole,) = made(room, MEDIUM, *shipped("default", "int8")).values()
    most = int(0.8 * transfer.transfer_bytes(whole.path.read_bytes()))
    begin = ({"name": name} for name in ("equalize", "calibrate", "quantize"))
    room = replace(room, folder=room.folder / "light")
    room.folder.mkdir()
    (light,) = made(room, MEDIUM, own(*begin, {"name": "cluster", "max_transfer": most})).values()
    assert 0.85 * most < transfer.transfer_bytes(light.path.read_bytes()) <= most
    assert float(step(light, "cluster").evidence["price"]) > 0


def test_few_levels_a_channel_are_left_in_large_layers(room: Room) -> None:
    begin = ({"name": name} for name in ("calibrate", "quantize"))
    (one,) = made(room, MEDIUM, own(*begin, {"name": "cluster", "levels": 15})).values()
    file = flatbuffer.read(one.path)
    for operator in file.subgraphs[0].operators:
        if flatbuffer.op_name(file, operator) in quantize.NARROW:
            stored = file.subgraphs[0].tensors[operator.inputs[1]]
            integers = np.frombuffer(bytes(file.buffers[stored.buffer].data), np.int8)
            assert np.abs(integers).max() <= 7
    told = step(one, "cluster").evidence
    assert float(told["transfer"]) < 0.8 * float(told["transfer_before"])


def test_an_even_number_of_levels_is_refused(room: Room) -> None:
    begin = ({"name": name} for name in ("calibrate", "quantize"))
    assert "an even number" in refusal(room, SMALL, own(*begin, {"name": "cluster", "levels": 16}))


def test_a_size_that_cannot_be_is_refused(room: Room) -> None:
    begin = ({"name": name} for name in ("calibrate", "quantize"))
    reason = refusal(room, SMALL, own(*begin, {"name": "cluster", "max_transfer": 1000}))
    assert "1,000 are allowed" in reason


def test_too_few_samples_leave_the_quantizers_integers_and_say_so(room: Room) -> None:
    few = replace(room, rows=room.rows[:8])
    (one,) = made(few, SMALL, *shipped("default", "int8")).values()
    for name in ("equalize", "calibrate", "compensate"):
        assert "8 samples are too few" in str(step(one, name).evidence["because"])
    few = replace(few, folder=room.folder / "light")
    few.folder.mkdir()
    assert "8 samples are too few" in refusal(few, SMALL, shipped("default", "clustered-int8")[0])


@pytest.mark.parametrize(
    ("method", "bound"), [("min-max", 0.02), ("percentile", 0.2), ("mse", 0.02), ("entropy", 0.25)]
)
def test_ranges_are_chosen_by_the_method_that_is_named(room: Room, method: str, bound: float) -> None:
    (one,) = made(room, SMALL, own({"name": "calibrate", "method": method}, {"name": "quantize"})).values()
    assert step(one, "calibrate").evidence["method"] == method
    assert error(one.path, SMALL) < bound


def test_biases_alone_are_mended_where_integers_stay(room: Room) -> None:
    begin = ({"name": "calibrate", "method": "min-max"}, {"name": "quantize"})
    first, second = (
        made(replace(room, folder=_folder(room, name)), MEDIUM, own(*begin, *more))["own"]
        for name, more in (("a", ()), ("b", ({"name": "biases"},)))
    )
    one, other = (flatbuffer.read(each.path) for each in (first, second))
    changed = {
        flatbuffer.TYPE_NAMES[mine.type]
        for mine, theirs in zip(one.subgraphs[0].tensors, other.subgraphs[0].tensors, strict=True)
        if not np.array_equal(one.buffers[mine.buffer].data, other.buffers[theirs.buffer].data)
    }
    assert changed <= {"int32"}
    assert step(second, "biases").evidence["kept"] is bool(changed)


def test_where_whole_int8_will_do_no_layer_stays_float_and_a_bound_nothing_meets_is_refused(room: Room) -> None:
    def spare(max_error: float) -> recipe.VariantRecipe:
        return own({"name": "calibrate"}, {"name": "spare", "max_error": max_error})

    (loose,) = made(room, SMALL, spare(1.0)).values()
    told = step(loose, "spare").evidence
    assert (told["layers_in_float"], told["tries"]) == (0, 1)
    assert loose.exceptions == ()
    tight = replace(room, folder=_folder(room, "tight"))
    assert "layers in float is still not good enough" in refusal(tight, SMALL, spare(1e-9))


@pytest.mark.parametrize("instead", ["float", "int16"])
def test_the_costliest_layers_are_computed_more_finely_and_no_more_of_them_than_the_bound_needs(
    room: Room, instead: str
) -> None:
    def spare(bound: float) -> recipe.VariantRecipe:
        finer = {"name": "spare", "max_error": bound, "most": 1.0, "instead": instead}
        return own({"name": "calibrate", "method": "min-max"}, finer)

    whole = step(made(room, SMALL, spare(1.0))["own"], "spare").evidence["error"]
    (one,) = made(replace(room, folder=_folder(room, "less")), SMALL, spare(float(whole) * 0.9)).values()
    told = step(one, "spare").evidence
    assert int(told[f"layers_in_{instead}"]) >= len(one.exceptions) > 0
    assert float(told["error"]) <= float(whole) * 0.9
    assert all(("int16 activations" if instead == "int16" else "float") in each for each in one.exceptions)


def test_no_more_answers_change_than_the_bound_on_the_drop_lets(room: Room) -> None:
    there = open_bench(flatbuffer.prepare(SMALL.read_bytes(), where="x"), room.samples, room.rows, where="x")
    assert there.changed(SMALL.read_bytes()) == 0
    assert there.changed(MEDIUM.read_bytes()) > 0  # another network, of the same classes
    begin = {"name": "calibrate", "method": "min-max"}
    finer = {"name": "spare", "max_error": 1.0, "max_drop": 0.0, "most": 1.0}
    (one,) = made(room, SMALL, own(begin, finer)).values()
    assert step(one, "spare").evidence["answers_changed"] == 0
    assert there.changed(one.path.read_bytes()) == 0


def test_the_same_samples_give_the_same_bytes(room: Room) -> None:
    contents = [
        made(replace(room, folder=_folder(room, name)), SMALL, *shipped("default", "int8", "clustered-int8"))
        for name in ("a", "b")
    ]
    first, second = ({id_: one.path.read_bytes() for id_, one in each.items()} for each in contents)
    assert first == second


def test_what_is_folded_is_gone_and_the_answers_stay(room: Room) -> None:
    content = flatbuffer.prepare(MEDIUM.read_bytes(), where="x")
    work = Work(floating=content, content=content, precision=Precision.INT8)
    steps = pipeline.steps(own({"name": "fold"}), "begin", max_size=None)
    after = pipeline.run(work, steps, room, Cache(None))
    assert after.is_float
    images = [digits.held_out()[0][:50]]
    assert answers.distance(after.content, images, answers.scores(content, images)) < 1e-8


def _folder(room: Room, name: str) -> Path:
    folder = room.folder / name
    folder.mkdir()
    return folder


def test_integers_that_are_paid_for_take_fewer_bits_for_the_same_error() -> None:
    random = np.random.default_rng(0)
    weights, inputs = random.laplace(size=(64, 32)), random.normal(size=(1024, 64))
    moments = inputs.T @ inputs / len(inputs)
    price = np.full(32, 1e-2)
    scales = rounding.steps_for(moments, price)

    def bits(codes: np.ndarray) -> float:
        share = np.unique(codes, return_counts=True)[1] / codes.size
        return float(-(share * np.log2(share)).sum())

    def lost(codes: np.ndarray, scales: np.ndarray) -> float:
        off = weights - codes * scales
        return float(np.einsum("ic,ij,jc->", off, moments, off))

    paid = rounding.compensated(weights, moments, scales, most=127, price=price)
    coarse = [
        (bits(codes), lost(codes, scales * factor))
        for factor in (1.0, 1.1, 1.2, 1.3, 1.5)
        for codes in [rounding.compensated(weights, moments, scales * factor, most=127)]
    ]
    alike = [off for entropy, off in coarse if entropy >= bits(paid)]
    assert bits(paid) < coarse[0][0]
    assert lost(paid, scales) < 1.1 * max(alike)
