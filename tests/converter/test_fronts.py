"""Which variants are worth having on a board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_converter import graph
from edge_converter.graph import Graph
from edge_converter.selecting import fronts
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Origin, Precision, Variant

RPI4 = profiles.load("rpi4")


@pytest.fixture
def bundle(edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path) -> Bundle:
    out = tmp_path / "a.edge"
    assert edge("convert", tiny, "--data", points, "--max-drop", 50, "-o", out).status == 0  # type: ignore[attr-defined]
    return Bundle(out)


@pytest.fixture
def graphs(bundle: Bundle) -> dict[str, Graph]:
    return {variant.id: graph.read(bundle.blob(variant)) for variant in bundle.manifest.variants}


def worth(variant: Variant, *, value: float, transfer_bytes: int = 1000) -> Variant:
    """The variant with another accuracy and size."""
    quality = msgspec.structs.replace(variant.quality, value=value)
    return msgspec.structs.replace(variant, quality=quality, transfer_bytes=transfer_bytes)


def chosen(bundle: Bundle, graphs: dict[str, Graph], **values: tuple[float, int]) -> tuple[str, ...]:
    variants = [worth(bundle.variant(id_), value=v, transfer_bytes=b) for id_, (v, b) in values.items()]
    return fronts.front(RPI4, variants, graphs).ids


def test_what_is_worse_in_everything_is_left_out(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    assert chosen(bundle, graphs, int8=(95, 500), fp32=(94, 1000)) == ("int8",)


def test_what_is_better_in_one_thing_stays_the_most_accurate_first(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    assert chosen(bundle, graphs, int8=(95, 500), fp32=(96, 1000)) == ("fp32", "int8")


def test_equals_both_stay(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    assert chosen(bundle, graphs, fp16=(95, 500), fp32=(95, 500)) == ("fp16", "fp32")


def test_a_slow_format_stays_only_where_it_is_the_most_accurate(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    assert Precision.INT16X8 in RPI4.variants.accuracy_only
    assert "int16x8" not in chosen(bundle, graphs, int16x8=(96, 100), fp32=(96, 1000))
    assert chosen(bundle, graphs, int16x8=(96.1, 100), fp32=(96, 1000))[0] == "int16x8"


def test_the_choice_rests_on_predictions_that_say_so(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    found = fronts.front(RPI4, bundle.manifest.variants, graphs)
    assert {entry.variant for entry in found.predicted} == {v.id for v in bundle.manifest.variants}
    for entry in found.predicted:
        assert (entry.origin, entry.profile, entry.machine) == (Origin.PREDICTED, "rpi4", "rpi4")
        assert entry.band is not None
        assert entry.band > 1
        assert entry.source


def test_without_a_latency_model_accuracy_and_size_decide(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    board = msgspec.structs.replace(RPI4, latency=None)
    variants = [
        worth(bundle.variant("int8"), value=94, transfer_bytes=500),
        worth(bundle.variant("fp32"), value=95, transfer_bytes=1000),
        worth(bundle.variant("fp16"), value=94, transfer_bytes=700),
    ]
    found = fronts.front(board, variants, graphs)
    assert found.ids == ("fp32", "int8")
    assert found.predicted == ()


@pytest.mark.parametrize("id_", profiles.ids())
def test_every_board_has_something_worth_having(id_: str, bundle: Bundle, graphs: dict[str, Graph]) -> None:
    assert fronts.front(profiles.load(id_), bundle.manifest.variants, graphs).ids
