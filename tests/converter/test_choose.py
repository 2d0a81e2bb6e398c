"""`edge profiles choose`: boards ranked for a model; what rules one out is named, and what is not known is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_converter.selecting import accelerated, arena, choose
from edge_converter.selecting.choose import Board, By, Model, Verdict, Wanted
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Delegate, Latency, Origin, Precision
from edge_sdk.predict import OpWork, predicted_ms
from edge_sdk.profile import Profile

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"
# Multiply-accumulates of convolutions, 1x1 convolutions, depthwise convolutions and dense layers, elements that are
# read and written, and weights: counted from the Keras graphs of the networks.
WORK = {
    "mobilenet_v1_224": (10838016, 540516352, 17385984, 0, 10297256, 4253864),
    "mobilenet_v2_224": (10838016, 267939840, 20716416, 1280000, 14224984, 3538984),
    "mobilenet_v3_large_224": (5419008, 192778112, 18392640, 0, 12452672, 5507432),
    "inception_v1_224": (1128207360, 369144832, 0, 1025024, 14706185, 6640489),
    "inception_v4_299": (9084694624, 3167744000, 0, 1537536, 71971124, 42744521),
    "resnet50_v1_299": (3670813440, 3539013632, 0, 2048000, 70243787, 25636712),
    "vgg16_224": (15346630656, 0, 0, 123633664, 30323688, 138357544),
    "densenet121_224": (1360773120, 1472364544, 0, 1024000, 44182484, 8062504),
    "squeezenet_224": (586882080, 190412800, 0, 0, 15171529, 1260868),
}
# Milliseconds as published: coral.ai/docs/edgetpu/benchmarks (Dev Board CPU, Edge TPU on USB 3, Edge TPU of the Dev
# Board) and google/XNNPACK README @75db3c0 (Raspberry Pi 3B+ and 4, 4 threads).
PUBLISHED_CPU = [
    ("coral-dev", "int8", "mobilenet_v1_224", 164), ("coral-dev", "int8", "mobilenet_v2_224", 122),
    ("coral-dev", "int8", "inception_v1_224", 392), ("coral-dev", "int8", "inception_v4_299", 3157),
    ("coral-dev", "int8", "resnet50_v1_299", 1763), ("coral-dev", "int8", "vgg16_224", 4595),
    ("coral-dev", "int8", "squeezenet_224", 232),
    ("rpi3", "fp32", "mobilenet_v1_224", 114), ("rpi3", "fp32", "mobilenet_v2_224", 79),
    ("rpi3", "fp32", "mobilenet_v3_large_224", 67), ("rpi3", "int8", "mobilenet_v1_224", 46),
    ("rpi3", "int8", "mobilenet_v2_224", 30),
    ("rpi4", "fp32", "mobilenet_v1_224", 77), ("rpi4", "fp32", "mobilenet_v2_224", 46),
    ("rpi4", "fp32", "mobilenet_v3_large_224", 40), ("rpi4", "int8", "mobilenet_v1_224", 24),
    ("rpi4", "int8", "mobilenet_v2_224", 17),
]  # fmt: skip
PUBLISHED_EDGETPU = {
    "mobilenet_v1_224": (2.4, 2.4), "mobilenet_v2_224": (2.6, 2.6), "inception_v1_224": (3.4, 4.1),
    "inception_v4_299": (85, 102), "resnet50_v1_299": (49, 56), "vgg16_224": (296, 343), "squeezenet_224": (2.1, 2.0),
    "densenet121_224": (20, 25),
}  # fmt: skip
# ultralytics docs/en/guides/nvidia-jetson.md @0100750: YOLO11 n to x at 640, 1e9 operations and ms by TensorRT INT8.
PUBLISHED_TENSORRT = [(6.5, 3.91), (21.5, 5.25), (68.0, 9.58), (86.9, 12.37), (194.9, 20.72)]


def work(name: str) -> OpWork:
    conv, pointwise, depthwise, dense, elements, weights = WORK[name]
    return OpWork(
        conv_macs=conv, conv1x1_macs=pointwise, depthwise_macs=depthwise, dense_macs=dense,
        activation_elements=elements, weights=weights,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- against the published


@pytest.mark.parametrize(("board", "precision", "network", "published_ms"), PUBLISHED_CPU)
def test_what_was_published_of_a_cpu_lies_within_the_band(
    board: str, precision: str, network: str, published_ms: float
) -> None:
    found = predicted_ms(profiles.load(board), work(network), Precision(precision))
    assert found is not None
    ms, band = found
    assert ms / band <= published_ms <= ms * band


@pytest.mark.parametrize("network", PUBLISHED_EDGETPU)
def test_what_was_published_of_an_edge_tpu_lies_within_the_band(network: str) -> None:
    for board, published_ms in zip(("coral-usb", "coral-dev"), PUBLISHED_EDGETPU[network], strict=True):
        rates = accelerated.rates(board)
        assert rates is not None
        ms = accelerated.predicted_ms(rates, work(network))
        assert ms / rates.band <= published_ms <= ms * rates.band, board


@pytest.mark.parametrize(("giga_operations", "published_ms"), PUBLISHED_TENSORRT)
def test_what_was_published_of_tensorrt_lies_within_the_band(giga_operations: float, published_ms: float) -> None:
    rates = accelerated.rates("jetson-orin-nano")
    assert rates is not None
    ms = accelerated.predicted_ms(rates, OpWork(conv_macs=int(giga_operations * 1e9 / 2)))
    assert ms / rates.band <= published_ms <= ms * rates.band


def test_only_boards_with_an_accelerator_have_one_predicted() -> None:
    found = {id_ for id_ in profiles.ids() if accelerated.rates(id_) is not None}
    assert found == {"coral-usb", "coral-dev", "jetson-orin-nano"}
    assert all(profiles.load(id_).compute.accelerator for id_ in found)


# ------------------------------------------------------------------------------------------------------- the ranking


@pytest.fixture(scope="module")
def model() -> Model:
    """EfficientNet-sized: MobileNet v2's work in float and in 8 bits."""
    from dataclasses import replace

    from edge_converter import graph
    from edge_converter.selecting import choose_cli

    class Heavy(graph.Graph):
        __slots__ = ()

        @property
        def work(self) -> OpWork:
            return work("mobilenet_v2_224")

    found = graph.read(TINY / "dense_fp32.tflite")
    heavy = Heavy(**{name: getattr(found, name) for name in found.__dataclass_fields__})
    bare = choose_cli._bare(TINY / "dense_fp32.tflite")
    sized = {"as-given": 14_000_000, "int8": 3_600_000}
    variants = tuple(
        msgspec.structs.replace(v, size_bytes=sized[v.id], transfer_bytes=sized[v.id] * 9 // 10) for v in bare.variants
    )
    return replace(bare, variants=variants, graphs=dict.fromkeys(sized, heavy), peak_bytes=dict.fromkeys(sized, 10**7))


def ranked(model: Model, *boards: str, by: By = By.PRICE, **wanted: Any) -> dict[str, Board]:
    found = choose.rank(model, [profiles.load(id_) for id_ in boards or profiles.ids()], Wanted(**wanted), by=by)
    return {board.profile: board for board in found}


def broken(board: Board) -> set[str]:
    return {check.limit for check in board.checks if check.verdict is Verdict.BROKEN}


def test_without_limits_every_board_is_left_the_cheapest_first(model: Model) -> None:
    found = ranked(model)
    assert set(found) == set(profiles.ids())
    assert all(board.verdict is not Verdict.BROKEN for board in found.values())
    sure = [board for board in found.values() if board.verdict is Verdict.MET]
    prices = [board.price_usd.value for board in sure if board.price_usd]
    assert prices == sorted(prices)
    assert [board.price_usd for board in sure[len(prices) :]] == [None] * (len(sure) - len(prices))


def test_a_limit_that_is_surely_broken_rules_a_board_out_and_is_named(model: Model) -> None:
    found = ranked(model, max_latency_ms=50.0, max_power_w=10, budget_usd=100)
    assert broken(found["coral-dev"]) == {"price"}
    assert broken(found["jetson-xavier-nx"]) >= {"price", "power"}
    assert found["rpi4"].verdict is Verdict.MET
    assert found["imx93"].verdict is Verdict.UNSURE, "neither its price nor its power is known"
    verdicts = [board.verdict for board in found.values()]
    assert verdicts == sorted(verdicts, key=[Verdict.MET, Verdict.UNSURE, Verdict.BROKEN].index)
    (price,) = [check for check in found["coral-dev"].checks if check.limit == "price"]
    assert price.text == "130 USD (estimated), where at most 100 are allowed"


def test_a_band_that_reaches_to_both_sides_of_a_bound_rules_nothing_out(model: Model) -> None:
    best = ranked(model, "rpi3")["rpi3"].best
    assert best is not None
    for bound_ms, verdict in (
        (best.high_ms * 1.01, Verdict.MET), (best.ms, Verdict.UNSURE), (best.low_ms * 0.99, Verdict.BROKEN),
    ):  # fmt: skip
        board = ranked(model, "rpi3", max_latency_ms=bound_ms)["rpi3"]
        assert next(check.verdict for check in board.checks if check.limit == "latency") is verdict


def test_an_accelerator_counts_only_if_it_maps(model: Model) -> None:
    board = ranked(model, "coral-dev", max_latency_ms=10.0)["coral-dev"]
    assert board.best is not None
    assert (board.best.runs_on, board.best.if_mapped) == ("Edge TPU", True)
    assert board.verdict is Verdict.UNSURE
    assert broken(ranked(model, "rpi-zero2w", max_latency_ms=10.0)["rpi-zero2w"]) == {"latency"}


def test_what_was_compiled_for_an_accelerator_counts_as_its_compiler_says(model: Model) -> None:
    from dataclasses import replace

    (int8,) = [variant for variant in model.variants if variant.id == "int8"]
    target = msgspec.structs.replace(int8.target, delegate=Delegate.ETHOS_U, fallback="int8")
    compiled = msgspec.structs.replace(int8, id="int8-ethos", target=target)
    told = Latency(
        variant="int8-ethos", origin=Origin.PREDICTED, machine="imx93", profile="imx93", median_ms=3.0, band=2.0
    )
    richer = replace(model, compiled=(compiled,), accelerated=(told,))
    board = ranked(richer, "imx93", max_latency_ms=7.0)["imx93"]
    assert board.best is not None
    assert (board.best.variant, board.best.runs_on, board.best.high_ms) == ("int8-ethos", "ethos-u", 6.0)
    assert board.verdict is Verdict.MET
    other = ranked(richer, "rpi4")["rpi4"]
    assert {option.runs_on for option in other.options} == {"cpu"}


def test_memory_and_what_is_left_for_others_are_tested_against_what_is_sold(model: Model) -> None:
    board = ranked(model, "rpi-zero2w")["rpi-zero2w"]
    assert 65e6 < board.memory_bytes < 120e6
    assert board.verdict is Verdict.MET
    assert broken(ranked(model, "rpi-zero2w", min_memory_mb=450)["rpi-zero2w"]) == {"memory"}
    some = ranked(model, "rpi4", min_memory_mb=2000)["rpi4"]
    (check,) = [check for check in some.checks if check.limit == "memory"]
    assert check.verdict is Verdict.UNSURE
    assert check.text.endswith("take one with 4,096 MB or more")


def test_the_link_says_how_long_shipping_takes(model: Model) -> None:
    board = ranked(model, "rpi3", link_mbps=1.0, max_transfer_s=1.0)["rpi3"]
    assert board.transfer_s == pytest.approx(8 * board.transfer_bytes / 1e6)
    assert broken(board) == {"transfer"}
    assert ranked(model, "rpi3", link_mbps=1.0, max_transfer_s=1.0, offline=True)["rpi3"].verdict is Verdict.MET


def test_off_the_net_variants_must_be_carried(model: Model) -> None:
    board = profiles.load("coral-dev")
    soldered = msgspec.structs.replace(board, storage=msgspec.structs.replace(board.storage, value=("8 GB eMMC",)))  # type: ignore[type-var]
    (found,) = choose.rank(model, [soldered], Wanted(offline=True))
    assert broken(found) == {"storage"}
    assert choose.rank(model, [board], Wanted(offline=True))[0].verdict is Verdict.MET


def test_files_larger_than_what_is_soldered_on_rule_a_board_out(model: Model) -> None:
    board = profiles.load("coral-dev")
    tiny = msgspec.structs.replace(board, storage=msgspec.structs.replace(board.storage, value=("0.001 GB eMMC",)))  # type: ignore[type-var]
    (found,) = choose.rank(model, [tiny], Wanted())
    assert broken(found) == {"storage"}


@pytest.mark.parametrize("by", By)
def test_the_order_is_the_one_asked_for(model: Model, by: By) -> None:
    found = [b for b in ranked(model, by=by).values() if b.verdict is Verdict.MET]
    values = {
        By.PRICE: [b.price_usd.value for b in found if b.price_usd],
        By.POWER: [b.power_w.value for b in found if b.power_w],
        By.LATENCY: [b.best.ms for b in found if b.best],
        By.ENERGY: [b.energy_mj for b in found if b.energy_mj is not None],
    }[by]
    assert values == sorted(values)


def test_a_board_nobody_knows_the_speed_of_is_not_ruled_out(model: Model) -> None:
    board: Profile = msgspec.structs.replace(profiles.load("rpi4"), latency=None)
    (found,) = choose.rank(model, [board], Wanted(max_latency_ms=1.0))
    assert found.best is None
    assert found.energy_mj is None
    assert found.verdict is Verdict.UNSURE


def test_a_board_sustains_what_its_heat_allows_and_less_in_warmer_air(model: Model) -> None:
    found = {c: ranked(model, "rpi4", ambient_c=c)["rpi4"] for c in (0.0, 25.0, 40.0, 60.0)}
    rates = [board.endurance.frames_per_s for board in found.values() if board.endurance]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 4
    best, lasting = found[25.0].best, found[25.0].endurance
    assert best is not None
    assert lasting is not None
    # 10.5 C/W, 2.7 W idle and 3.3 W above it: 75 C in air of 25 C leave 2.06 W.
    assert lasting.share == pytest.approx((50 / 10.5 - 2.7) / 3.3)
    assert lasting.frames_per_s == pytest.approx(lasting.share * 1000 / best.ms)
    assert lasting.wh_per_day == pytest.approx(24 * 50 / 10.5)
    assert lasting.estimated
    assert rates[-1] == 0, "at 60 C the idle board is above its limit"


def test_a_day_costs_what_the_wanted_rate_takes(model: Model) -> None:
    board = ranked(model, "rpi4", rate=1.0)["rpi4"]
    assert board.best is not None
    assert board.endurance is not None
    assert board.endurance.wh_per_day == pytest.approx(24 * (2.7 + 3.3 * board.best.ms / 1000))
    assert {check.limit: check.verdict for check in board.checks if check.limit in {"rate", "heat"}} == {
        "rate": Verdict.MET,
        "heat": Verdict.MET,
    }


def test_an_estimate_of_heat_rules_no_board_out_but_too_slow_a_one_is(model: Model) -> None:
    cool = ranked(model, "rpi4")["rpi4"].endurance
    assert cool is not None
    hot = ranked(model, "rpi4", rate=cool.frames_per_s * 1.1)["rpi4"]
    assert [check.verdict for check in hot.checks if check.limit == "heat"] == [Verdict.UNSURE]
    assert "rate" in broken(ranked(model, "rpi4", rate=1000.0)["rpi4"])


def test_measured_heat_rules_a_board_out(model: Model) -> None:
    profile = profiles.load("rpi4")
    board = profile.board
    assert board is not None
    sure = {
        name: msgspec.structs.replace(fact, basis=profiles.Basis.MEASURED)
        for name in ("idle_w", "r_c_per_w", "cpu_w")
        if (fact := getattr(board, name)) is not None
    }
    measured = msgspec.structs.replace(profile, board=msgspec.structs.replace(board, **sure))
    (found,) = choose.rank(model, [measured], Wanted(rate=30.0, ambient_c=45.0))
    assert "heat" in broken(found)


def test_a_board_of_unknown_heat_has_no_figures_of_it_and_stays(model: Model) -> None:
    board = ranked(model, "x86-64", rate=1.0)["x86-64"]
    assert board.endurance is None
    assert [check.verdict for check in board.checks if check.limit == "heat"] == [Verdict.UNSURE]


# ------------------------------------------------------------------------------------------------------- the command


def test_a_bare_model_is_ranked_with_its_doubts(edge: Callable[..., Any], tiny: Path) -> None:
    done = edge("profiles", "choose", tiny, "--max-latency", 10, "--budget", 40, "--link", 5, "--min-memory", 100)
    assert done.status == 0
    assert "The model was not converted" in done.out
    assert "Ruled out by:" in done.out
    assert "~35 USD" in done.out, "an estimate is marked"
    assert "2.55 W" in done.out
    assert "~2.55 W" not in done.out, "what was published is not"
    lines = [line for line in done.out.splitlines() if "meets all limits" in line]
    assert "rpi-zero2w" in lines[0]


def test_a_bundle_is_ranked_by_what_its_devices_measured(
    edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.edge"
    assert edge("convert", tiny, "--data", points, "--max-drop", 100, "--precision", "int8", "-o", out).status == 0
    assert edge("bench", out, "--write", "--profile", "rpi4", "--seconds", 0.01).status == 0
    done = edge("profiles", "choose", out, "--profile", "rpi4", "--profile", "rpi5", "--json")
    told = json.loads(done.out)
    known = {board["profile"]: {option["known"] for option in board["options"]} for board in told["boards"]}
    assert known == {"rpi4": {"measured"}, "rpi5": {"predicted"}}
    assert told["judged"]
    assert told["boards"][0]["best"]["quality"] is not None
    (out / "evidence.json").unlink()
    assert edge("profiles", "choose", out, "--profile", "rpi4").status == 0
    assert "No board meets these limits" in edge("profiles", "choose", out, "--budget", 1, "--profile", "rpi4").out
    assert Bundle(out).manifest.variants


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--max-latency", "0"), "usage"), (("--budget", "nan"), "usage"), (("--max-transfer", "1"), "usage"),
        (("--offline", "--link", "5"), "usage"),
        (("--rate", "0"), "usage"), (("--ambient", "nan"), "usage"), (("--ambient", "101"), "usage"),
        (("--profile", "none"), "unknown-profile"), (("--min-memory", "-1"), "usage"),
    ],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_one_line(
    edge: Callable[..., Any], tiny: Path, words: tuple[str, str], code: str
) -> None:
    done = edge("profiles", "choose", tiny, *words)
    assert done.status == 2
    assert done.line.endswith(f"[{code}]")


def test_what_is_no_model_is_one_line(edge: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"no model")
    for name, code in (("a.tflite", "source-model"), ("none.tflite", "bundle"), ("none.edge", "bundle")):
        done = edge("profiles", "choose", tmp_path / name)
        assert done.status == 2
        assert done.err.count("\n") == 1
        assert done.line.endswith(f"[{code}]")


def test_what_lives_at_the_same_time_is_counted() -> None:
    # x of 4 and scores of 3 floats, the logits between them as well.
    assert arena.peak_bytes(TINY / "dense_fp32.tflite") == 4 * (4 + 3 + 3)
