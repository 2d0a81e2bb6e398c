"""The page for people: what to ship, what each pass bought, what is answered otherwise, how to make it again."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_converter.reporting import chart, confusion, report, reproduce
from edge_converter.reporting.chart import Point
from edge_converter.reporting.confusion import Change, Changes
from edge_converter.request import ConvertRequest
from edge_sdk import profile as profiles
from edge_sdk.bundle import Bundle
from edge_sdk.cli.main import build_parser
from edge_sdk.manifest import Fit, Manifest, Objective, Pass, Precision, Preprocessing, Refused

EVIL = '<script>alert("x")</script>&\'"'


class Page(HTMLParser):
    """Tags, and the text of every heading and cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self._heading = False
        self.feed(text)
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._heading = tag in {"h2", "summary"}

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._heading:
            self.headings.append(data)
            self._heading = False


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from edge_sdk.cli import main

    place = tmp_path_factory.mktemp("report")
    x = np.random.default_rng(1).normal(0, 1, (60, 4)).astype(np.float32)
    np.savez(place / "points.npz", x=x, y=np.arange(60) % 3, classes=np.array(["cat", "dog", "cow"]))
    source = Path(__file__).resolve().parents[1] / "data" / "tiny" / "dense_fp32.tflite"
    words = ["convert", source, "--data", place / "points.npz", "--max-drop", 100, "--precision", "int8", "--no-cache"]
    words += ["--precision", "fp16", "--profile", "rpi4", "--profile", "rpi5", "--profile", "rpi3", "-o"]
    assert main([str(word) for word in [*words, place / "a-1.edge"]]) == 0
    return Bundle(place / "a-1.edge")


def rendered(bundle: Bundle, manifest: Manifest | None = None, **words: Any) -> Page:
    manifest = manifest or bundle.manifest
    facts: dict[str, Any] = {
        "refused": (),
        "boards": [profiles.load(id_) for id_ in manifest.fronts],
        "notes": (),
        "request": ConvertRequest(models=(Path("m.tflite"),), data=Path("d.npz"), output=bundle.path),
    }
    return Page(report.render(manifest, bundle.evidence().latency, **(facts | words)))


def test_every_board_says_what_to_ship_and_what_dominates_the_rest(bundle: Bundle) -> None:
    page = Page((bundle.path / "report.html").read_text("utf-8"))
    assert [name for name in page.headings if "Raspberry" in name] == [
        "Raspberry Pi 4 Model B (rpi4)", "Raspberry Pi 5 (rpi5)", "Raspberry Pi 3 Model B+ (rpi3)",
    ]  # fmt: skip
    for choice in bundle.manifest.selection.values():
        shipped = ", ".join(one.id for one in choice.recommended)
        assert f"To ship: {shipped} ; ordered by accuracy" in page.text
        for one in choice.dominated:
            assert one.why in page.text or one.id in shipped
    assert "script" not in page.tags


def test_each_pass_is_told_with_what_it_bought(bundle: Bundle) -> None:
    steps = (
        Pass(name="calibrate", parameters={"method": "best"}, evidence={"samples": 15, "kept": True}),
        Pass(name="quantize", parameters={"share": 0.123456}),
    )
    variants = tuple(
        msgspec.structs.replace(v, compression=steps) if v.id == "int8" else v for v in bundle.manifest.variants
    )
    page = rendered(bundle, msgspec.structs.replace(bundle.manifest, variants=variants))
    assert "What each pass bought" in page.headings
    assert "int8 fp32 " in page.text
    assert "calibrate : method best found: kept yes, samples 15 quantize : share 0.1235" in page.text


def test_layers_are_shown_by_what_they_cost_where_a_pass_measured_it(bundle: Bundle) -> None:
    assert "Sensitivity, layer by layer" not in rendered(bundle).headings
    evidence: dict[str, Any] = {f"layer:block_{n}/conv;fused_{n}": 10.0**-n for n in range(60)}
    step = Pass(name="allocate", evidence=evidence | {"tensors": 3, "layer:none": 0.0})
    variants = tuple(
        msgspec.structs.replace(v, compression=(step,)) if v.id == "int8" else v for v in bundle.manifest.variants
    )
    page = rendered(bundle, msgspec.structs.replace(bundle.manifest, variants=variants))
    assert "Sensitivity, layer by layer" in page.headings
    assert "the worst 40 of 61" in page.text
    assert "block_0/conv " in page.text
    assert "found: tensors 3" in page.text


def test_what_is_answered_otherwise_is_told_by_the_names_of_the_classes(bundle: Bundle) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    reference = np.array([0, 0, 0, 1, 1, 0])
    variant = np.array([0, 1, 1, 2, 2, 1])
    found = confusion.changes(reference, variant, labels)
    assert (found.lost, found.gained, found.other) == (3, 1, 1)
    assert found.most[0] == Change(label=0, reference=0, variant=1, samples=2)
    page = rendered(bundle, changes={"int8": found, "fp16": Changes(lost=0, gained=0, other=0, most=())})
    assert "What is answered otherwise" in page.headings
    assert "int8 3 1 1 cat: cat → dog (2)" in page.text
    assert confusion.named(-1, ()) == "no answer"
    assert confusion.named(7, ("cat",)) == "7"
    assert "What is answered otherwise" not in rendered(bundle, changes={}).headings


def test_the_commands_to_make_it_again_are_those_that_were_given(bundle: Bundle) -> None:
    asked = ConvertRequest(
        models=(Path("/secret/my model.tflite"), Path("/secret/b.tflite")),
        data=Path("/secret/data.npz"),
        output=Path("/secret/a-1.edge"),
        profiles=("rpi4", "rpi5"),
        name="a",
        max_drop=1.5,
        max_size=3_400_000,
        max_latency_ms=20.0,
        objective=Objective.ENERGY,
        evidence=(Path("/x/evidence.json"),),
        calibration=Path("/secret/cal.npz"),
        prune=0.0,
        settings=("int8.compensate.samples=32",),
        precisions=(Precision.INT8,),
        preprocessing=Preprocessing(resize=(224, 200), fit=Fit.STRETCH, mean=(-1.5, 2.0), std=(3.0,)),
        seed=7,
        slim=1.5,
        qat=True,
        signature="serve",
        input_shapes=((1, 8), (1, 4, 4)),
    )
    first, *others = reproduce.commands(asked, bundle.manifest)
    assert "secret" not in first
    words = shlex.split(first)
    assert words[0] == f"SOURCE_DATE_EPOCH={bundle.manifest.created:.0f}"
    args = build_parser().parse_args(words[2:])
    assert args.models == ["my model.tflite", "b.tflite"]
    assert (args.profiles, args.max_drop, args.max_size, args.max_latency) == (["rpi4", "rpi5"], 1.5, 3_400_000, 20.0)
    assert (args.objective, args.evidence, args.prune, args.seed) == ("energy", ["evidence.json"], 0.0, 7)
    assert (args.resize, args.fit, args.mean, args.std) == ((224, 200), "stretch", (-1.5, 2.0), (3.0,))
    assert (args.slim, args.qat, args.signature, args.input_shapes) == (1.5, True, "serve", [(1, 8), (1, 4, 4)])
    assert (args.settings, args.precisions) == (["int8.compensate.samples=32"], ["int8"])
    for command in others:
        build_parser().parse_args(shlex.split(command)[1:])
    shortest = ConvertRequest(models=(Path("m.tflite"),), data=Path("d.npz"), output=Path("a.edge"))
    assert reproduce.commands(shortest, bundle.manifest)[0].endswith("edge convert m.tflite --data d.npz -o a.edge")
    assert "edge convert m.tflite --data d.npz -o a-1.edge" in rendered(bundle).text


def test_names_from_elsewhere_cannot_break_out(bundle: Bundle) -> None:
    manifest = bundle.manifest
    step = Pass(name="x", parameters={EVIL: EVIL}, evidence={EVIL: EVIL, f"layer:{EVIL}": 0.5})
    variants = tuple(msgspec.structs.replace(v, compression=(step,), exceptions=(EVIL,)) for v in manifest.variants)
    choice = manifest.selection["rpi4"]
    evil = msgspec.structs.replace(
        choice, notes=(EVIL,), recommended=(msgspec.structs.replace(choice.recommended[0], why=EVIL),)
    )
    changed = msgspec.structs.replace(
        manifest,
        variants=variants,
        labels=(EVIL, EVIL, EVIL),
        metric="accuracy",
        selection=manifest.selection | {"rpi4": evil},
        refused=(Refused(id="r", reason=EVIL),),
    )
    asked = ConvertRequest(models=(Path(EVIL.replace("/", "")),), data=Path("d"), output=Path("o"))
    mixed_up = Changes(lost=1, gained=0, other=0, most=(Change(label=0, reference=1, variant=2, samples=1),))
    page = rendered(bundle, changed, notes=(EVIL,), request=asked, changes={"int8": mixed_up})
    assert "script" not in page.tags
    assert page.text.count("alert") >= 8, "told, and harmless"


def test_without_boards_there_is_no_part_about_them(bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, fronts={}, selection={})
    assert "Board by board" not in rendered(bundle, manifest, boards=()).headings


def test_a_board_of_unknown_speed_says_so(bundle: Bundle) -> None:
    page = Page(report.render(
        bundle.manifest, (), refused=(), boards=[profiles.load("rpi4")], notes=(),
        request=ConvertRequest(models=(Path("m"),), data=Path("d"), output=Path("o")),
    ))  # fmt: skip
    assert "Nothing is known of the latency of this model on Raspberry Pi 4 Model B." in page.text


# --------------------------------------------------------------------------------------------------------- drawings


def svg(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - it is our own


def test_recommended_dominated_and_bounds_are_drawn_and_explained() -> None:
    points = [
        Point(x=1, y=90, label="a", ring=True, span=(0.5, 2)), Point(x=2, y=80, label="b", pale=True),
        Point(x=9, y=95, label="c", hollow=True),
    ]  # fmt: skip
    x = chart.around([0.5, 9], title="ms", logarithmic=True)
    y = chart.around([80, 95], title="%")
    drawn = svg(chart.scatter(points, x=x, y=y, title="t", description="d", out="excluded", limit=5.0))
    kinds = [element.get("class") or "" for element in drawn.iter()]
    assert kinds.count("ring") == 2, "one mark, and its explanation"
    assert kinds.count("band s0") == 1
    assert kinds.count("limit") == 1
    assert {"recommended", "dominated", "excluded"} <= {text.text for text in drawn.iter("text")}


def test_bars_are_as_long_as_their_logarithms_and_what_is_nothing_has_none() -> None:
    values = [("one;fused", 0.1), ("two", 0.01), (f"{'x' * 200}end", 0.001), ("zero", 0.0)]
    drawn = svg(chart.bars(values, title="t", description="d", unit="u"))
    wide = [float(rect.get("width", "")) for rect in drawn.iter("rect")]
    assert wide[0] > wide[1] > wide[2] > wide[3] == 0
    assert wide[0] - wide[1] == pytest.approx(wide[1] - wide[2], abs=0.2)
    shown = [text.text or "" for text in drawn.iter("text")]
    assert "one" in shown
    assert any(text.startswith("…") and text.endswith("end") for text in shown)
    svg(chart.bars([], title="t", description="d", unit="u"))
