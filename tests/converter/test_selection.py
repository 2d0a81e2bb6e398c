"""What is recommended for a board, what is left out of it and why, and whose latencies that rests on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_converter import graph
from edge_converter.graph import Graph
from edge_converter.selecting import evidence, fronts, selection
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle, check
from edge_sdk.errors import BundleFormatError
from edge_sdk.manifest import Delegate, EvidenceFile, Latency, Objective, Origin, Precision, Selection, Variant
from edge_sdk.wire import canonical

RPI4 = profiles.load("rpi4")
# Accuracy, bytes to transfer and milliseconds on the board, of a front on which nothing dominates anything.
LADDER = {
    "fp32": (98.0, 8000, 80.0),
    "fp16": (97.9, 4000, 70.0),
    "dynamic": (97.5, 2500, 40.0),
    "weight8": (97.0, 2000, 38.0),
    "int8": (95.0, 1900, 10.0),
    "clustered-int8": (94.0, 900, 9.9),
    "weight4": (80.0, 400, 9.0),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import numpy as np

    from edge_sdk.cli import main

    place = tmp_path_factory.mktemp("selection")
    x = np.random.default_rng(1).normal(0, 1, (60, 4)).astype(np.float32)
    np.savez(place / "points.npz", x=x, y=np.arange(60) % 3)
    source = Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_fp32.tflite"
    words = ["convert", source, "--data", place / "points.npz", "--max-drop", 100, "-o", place / "a.edge"]
    assert main([str(word) for word in words]) == 0
    return Bundle(place / "a.edge")


@pytest.fixture(scope="module")
def graphs(bundle: Bundle) -> dict[str, Graph]:
    """As if each had ten million activations, so that a prediction is some milliseconds."""
    read = {variant.id: graph.read(bundle.blob(variant)) for variant in bundle.manifest.variants}
    read |= {id_: read["fp32"] for id_ in LADDER if id_ not in read}
    return {id_: dataclasses.replace(found, activations=10**7) for id_, found in read.items()}


def of(bundle: Bundle, id_: str, value: float, transfer_bytes: int) -> Variant:
    """A variant of this name, whatever the recipe of the day makes."""
    variant = bundle.variant("fp32")
    precision = Precision(id_.rpartition("-")[2])
    variant = msgspec.structs.replace(variant, id=id_, precision=precision)
    quality = msgspec.structs.replace(variant.quality, value=value)
    return msgspec.structs.replace(variant, quality=quality, transfer_bytes=transfer_bytes, size_bytes=transfer_bytes)


def on_device(variant: str, median_ms: float, **words: Any) -> Latency:
    facts = {"machine": "a Pi 4", "profile": "rpi4", "threads": 4, "samples": 50, "origin": Origin.MEASURED} | words
    return Latency(variant=variant, median_ms=median_ms, **facts)


def ladder(bundle: Bundle) -> tuple[list[Variant], list[Latency]]:
    variants = [of(bundle, id_, value, size) for id_, (value, size, _) in LADDER.items()]
    return variants, [on_device(id_, ms) for id_, (_, _, ms) in LADDER.items()]


# ------------------------------------------------------------------------------------------------------ recommended


def test_few_are_recommended_the_ends_of_the_front_among_them(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants, measured = ladder(bundle)
    found = selection.select(RPI4, variants, graphs, evidence=measured)
    assert found.front.ids == tuple(LADDER)
    chosen = [one.id for one in found.selection.recommended]
    assert len(chosen) == selection.MOST
    assert {"fp32", "weight4", "int8"} <= set(chosen)
    assert chosen == [id_ for id_ in LADDER if id_ in chosen], "the most accurate first"
    assert found.selection.recommended[0].why.startswith("the most accurate: 98.00 accuracy, 8,000 bytes")
    assert "80 ms measured" in found.selection.recommended[0].why


def test_a_step_nobody_would_notice_is_not_worth_a_file(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    few = {"fp32": (98.0, 4000, 80.0), "fp16": (97.95, 3900, 79.0), "int8": (95.0, 1900, 10.0)}
    variants = [of(bundle, id_, value, size) for id_, (value, size, _) in few.items()]
    measured = [on_device(id_, ms) for id_, (_, _, ms) in few.items()]
    found = selection.select(RPI4, variants, graphs, evidence=measured)
    assert found.front.ids == ("fp32", "fp16", "int8")
    assert [one.id for one in found.selection.recommended] == ["fp32", "int8"]


@pytest.mark.parametrize(
    ("objective", "first"),
    [("accuracy", "fp32"), ("latency", "weight4"), ("size", "weight4"), ("transfer", "weight4"), ("energy", "weight4")],
)
def test_the_objective_orders_what_is_recommended(
    bundle: Bundle, graphs: dict[str, Graph], objective: str, first: str
) -> None:
    variants, measured = ladder(bundle)
    found = selection.select(RPI4, variants, graphs, evidence=measured, objective=Objective(objective)).selection
    assert found.recommended[0].id == first
    assert ("mJ at 6.4 W" in found.recommended[0].why) == (objective == "energy")


def test_an_accelerators_file_brings_the_one_it_falls_back_to(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    board = profiles.load("coral-usb")
    int8 = of(bundle, "int8", 95, 1900)
    target = msgspec.structs.replace(int8.target, delegate=Delegate.EDGETPU, fallback="int8")
    compiled = msgspec.structs.replace(int8, id="int8-edgetpu", target=target, transfer_bytes=1500)
    fast = on_device("int8-edgetpu", 2.0, profile="coral-usb")
    slow = on_device("int8", 30.0, profile="coral-usb")
    found = selection.select(board, [int8, compiled], graphs, evidence=[fast, slow])
    assert found.front.ids == ("int8-edgetpu",)
    why = {one.id: one.why for one in found.selection.recommended}
    assert "runs on every such CPU" in why["int8"]
    assert "what int8-edgetpu falls back to" in why["int8"]
    elsewhere = selection.select(RPI4, [int8, compiled], graphs)
    assert elsewhere.selection.excluded[0].reason == "rpi4 has no edgetpu to run it"


def test_a_front_too_short_to_choose_from_takes_what_only_predictions_dominate(
    bundle: Bundle, graphs: dict[str, Graph]
) -> None:
    variants = [of(bundle, "dynamic", 95, 1900), of(bundle, "fp32", 95, 8000)]
    found = selection.select(RPI4, variants, graphs)
    assert found.front.ids == ("dynamic",)
    assert "dominated only if the predictions hold" in found.selection.recommended[1].why
    sure = [on_device("dynamic", 1.0), on_device("fp32", 2.0)]
    assert len(selection.select(RPI4, variants, graphs, evidence=sure).selection.recommended) == 1


def test_every_dominated_variant_names_one_of_the_front(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    for board in profiles.load_all():
        found = selection.select(board, bundle.manifest.variants, graphs)
        named = {one.id for one in (*found.selection.dominated, *found.selection.excluded)}
        assert named | set(found.front.ids) == {v.id for v in bundle.manifest.variants}
        assert not named & set(found.front.ids)
        assert {one.by for one in found.selection.dominated} <= set(found.front.ids)


def test_what_dominates_is_told_in_numbers(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants = [of(bundle, "int8", 95, 1000), of(bundle, "fp32", 94.5, 4000)]
    measured = [on_device("int8", 10), on_device("fp32", 32)]
    (one,) = fronts.front(RPI4, variants, graphs, evidence=measured).dominated
    assert (one.id, one.by) == ("fp32", "int8")
    assert one.why == "int8 is 0.50 points more accurate, 3.2 times as fast (measured), 75 % less to transfer"


# ------------------------------------------------------------------------------------------------------ max latency


def test_what_surely_takes_too_long_is_out_and_what_may_is_kept_with_a_note(
    bundle: Bundle, graphs: dict[str, Graph]
) -> None:
    variants = [of(bundle, id_, value, size) for id_, (value, size, _) in LADDER.items()]
    predicted = {entry.variant: entry for entry in fronts.front(RPI4, variants, graphs).predicted}
    bound_ms = predicted["int8"].median_ms
    assert fronts.span(predicted["fp32"])[0] > bound_ms
    found = selection.select(RPI4, variants, graphs, max_latency_ms=bound_ms).selection
    assert "fp32" in {one.id for one in found.excluded}
    reason = next(one.reason for one in found.excluded if one.id == "fp32")
    assert "predicted" in reason
    assert f"at most {bound_ms:g} ms" in reason
    assert "int8" in {one.id for one in found.recommended}
    assert any(note.startswith("int8") and "may take longer" in note for note in found.notes)


def test_a_measurement_leaves_no_doubt(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants, measured = ladder(bundle)
    found = selection.select(RPI4, variants, graphs, evidence=measured, max_latency_ms=39.0)
    assert found.front.ids == ("weight8", "int8", "clustered-int8", "weight4")
    assert found.selection.notes == ()
    assert found.selection.max_latency_ms == 39


def test_where_nothing_is_fast_enough_the_nearest_is_named(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants, measured = ladder(bundle)
    found = selection.select(RPI4, variants, graphs, evidence=measured, max_latency_ms=0.001)
    assert found.front.ids == ()
    assert [one.id for one in found.selection.recommended] == ["weight4"]
    assert found.selection.notes[0] == ("no variant is within 0.001 ms on rpi4; the nearest is weight4: 9 ms measured")


def test_a_board_of_unknown_speed_keeps_everything_and_says_so(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    board = msgspec.structs.replace(RPI4, latency=None)
    found = selection.select(board, [of(bundle, "int8", 95, 1900)], graphs, max_latency_ms=1)
    assert found.front.ids == ("int8",)
    assert found.selection.notes == ("nothing is known of the latency of int8: --max-latency could not be tested",)


# --------------------------------------------------------------------------------------------------------- evidence


def test_a_device_of_its_kind_is_believed_before_a_prediction(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants = [of(bundle, "int8", 95, 1900), of(bundle, "fp32", 95.5, 8000)]
    slow_int8 = [on_device("int8", 90.0), on_device("fp32", 20.0)]
    assert fronts.front(RPI4, variants, graphs).latencies["int8"].origin is Origin.PREDICTED
    found = fronts.front(RPI4, variants, graphs, evidence=slow_int8)
    assert found.latencies["int8"].median_ms == 90
    assert (
        fronts.front(profiles.load("rpi5"), variants, graphs, evidence=slow_int8).latencies["int8"].origin
        is Origin.PREDICTED
    )


def test_latencies_of_two_machines_or_threads_are_never_set_against_each_other() -> None:
    entries = [
        on_device("fp32", 80, at=1), on_device("int8", 10, at=1),
        on_device("fp32", 20, machine="another Pi 4", at=9),
        on_device("fp32", 200, threads=1, at=5), on_device("int8", 30, threads=1, at=5),
        on_device("fp16", 60, origin=Origin.PUBLISHED, machine="a table"),
        on_device("fp16", 1, origin=Origin.PREDICTED), on_device("fp32", 2, origin=Origin.PREDICTED),
    ]  # fmt: skip
    found = evidence.deciding(RPI4, entries)
    assert {id_: entry.median_ms for id_, entry in found.items()} == {"fp32": 80, "int8": 10, "fp16": 60}
    assert evidence.deciding(profiles.load("rpi5"), entries) == {}


def test_of_two_origins_only_spans_that_lie_apart_decide(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    variants = [of(bundle, "int8", 96, 1000), of(bundle, "fp32", 95, 8000)]
    predicted = fronts.front(RPI4, variants, graphs).latencies["fp32"]
    low, high = fronts.span(predicted)
    near = selection.select(RPI4, variants, graphs, evidence=[on_device("int8", (low + high) / 2)])
    assert near.front.ids == ("int8", "fp32")
    assert "measured of int8; predicted of fp32" in near.selection.notes[0]
    clear = selection.select(RPI4, variants, graphs, evidence=[on_device("int8", low / 2)])
    assert clear.front.ids == ("int8",)


def test_evidence_is_believed_of_the_same_file_or_the_same_network_in_the_same_format(bundle: Bundle) -> None:
    variants = bundle.manifest.variants
    int8 = bundle.variant("int8")
    same_file = on_device("int8", 1, blob=int8.blob)
    same_network = on_device("int8", 2, blob="0" * 64, precision=int8.precision, macs=int8.cost.macs)
    other_network = on_device("int8", 3, blob="0" * 64, precision=int8.precision, macs=int8.cost.macs + 1)
    silent = on_device("int8", 4)
    unknown = on_device("huge-int8", 5, blob=int8.blob)
    elsewhere = on_device("int8", 6, blob=int8.blob, delegate="gpu")
    everything = [same_file, same_network, other_network, silent, unknown, elsewhere]
    kept, notes = evidence.believed(everything, variants)
    assert [entry.median_ms for entry in kept] == [1, 2]
    assert {entry.blob for entry in kept} == {int8.blob}
    assert notes == (
        "evidence left out: 1 entry of huge-int8, which this bundle does not hold",
        "evidence left out: 1 entry of int8 on gpu, which it is not for",
        "evidence left out: 2 entries of int8: it was measured on another file, or does not say on which",
    )
    assert {entry.delegate for entry in kept} == {"cpu"}


def test_a_conversion_takes_a_devices_word_and_repeats_to_the_byte(
    bundle: Bundle, tmp_path: Path, edge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    place = bundle.path.parent
    source = Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_fp32.tflite"
    told = [on_device(v.id, 5.0 + n, blob=v.blob) for n, v in enumerate(bundle.manifest.variants)]
    stale = on_device("fp32", 1.0, machine="something else")
    given = tmp_path / "evidence.json"
    given.write_bytes(canonical(EvidenceFile(format=1, latency=(*told, stale))))
    words = ["convert", source, "--data", place / "points.npz", "--max-drop", 100, "--profile", "rpi4", "--json"]
    words += ["--evidence", given, "--max-latency", 5.5, "--objective", "latency"]
    made = [edge(*words, "-o", tmp_path / f"{name}.edge", "--name", "a") for name in "ab"]
    assert [one.status for one in made] == [0, 0]
    assert len({json.loads(one.out)["manifest_sha256"] for one in made}) == 1
    result = Bundle(tmp_path / "a.edge")
    assert len(result.manifest.fronts["rpi4"]) == 1
    assert result.manifest.selection["rpi4"].objective is Objective.LATENCY
    kept = [entry for entry in result.evidence().latency if entry.machine == "a Pi 4"]
    assert len(kept) == len(told)
    assert any("evidence left out: 1 entry of fp32" in note for note in json.loads(made[0].out)["notes"])
    shown = edge("inspect", tmp_path / "a.edge").out
    assert "5 ms, measured" in shown
    assert "the most accurate, the fastest" in shown


@pytest.mark.parametrize("content", [None, b"{", b"{}", b'{"format":2}', b"x" * 10])
def test_a_file_that_is_no_evidence_is_one_line(
    tmp_path: Path, edge: Callable[..., Any], tiny: Path, points: Path, content: bytes | None
) -> None:
    given = tmp_path / "e.json"
    if content is not None:
        given.write_bytes(content)
    done = edge("convert", tiny, "--data", points, "--evidence", given, "-o", tmp_path / "a.edge")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert done.line.startswith(f"edge: {given}: ")
    assert done.line.endswith("[evidence]")


def test_a_selection_that_names_no_variant_is_refused(bundle: Bundle) -> None:
    for choice in (
        {"recommended": [{"id": "x", "why": ""}]},
        {"dominated": [{"id": "fp32", "by": "x", "why": ""}]},
        {"excluded": [{"id": "x", "reason": ""}]},
    ):
        wrong = msgspec.convert(choice, Selection)
        with pytest.raises(BundleFormatError, match="which is no variant"):
            check(msgspec.structs.replace(bundle.manifest, selection={"rpi4": wrong}), where="test")
    twice = msgspec.convert({"excluded": [{"id": "fp32", "reason": ""}] * 2}, Selection)
    with pytest.raises(BundleFormatError, match="twice"):
        check(msgspec.structs.replace(bundle.manifest, selection={"rpi4": twice}), where="test")
