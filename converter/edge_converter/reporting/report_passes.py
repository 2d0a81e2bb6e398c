"""The part of a bundle's report about what was done: what each step bought, where it hurts, what it mixes up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge_converter.reporting import chart, page
from edge_converter.reporting.confusion import Changes, named
from edge_converter.reporting.page import Column, text
from edge_sdk.manifest import Latency, Manifest, Pass, Variant

# A pass tells what a layer costs as evidence under this key and the layer's name; see `quantization.mixed`.
LAYER = "layer:"
_MOST_LAYERS = 40
_BOUGHT = (
    Column(name="variant"),
    Column(name="compared with"),
    Column(name="file"),
    Column(name="transfer"),
    Column(name="time here"),
    Column(name="quality"),
    Column(name="what was done", words=True),
)
_CONFUSED = (
    Column(name="variant"),
    Column(name="lost"),
    Column(name="gained"),
    Column(name="wrong otherwise"),
    Column(name="most often", words=True),
)


def bought(manifest: Manifest, times: Mapping[str, Latency]) -> str:
    """What the passes of each variant made of what it is compared with; empty where nothing was done to any.

    Args:
        manifest: What the bundle holds.
        times: Measured while converting, by variant.
    """
    rows = [_row(variant, _other(variant, manifest), times) for variant in manifest.variants if variant.compression]
    if not rows:
        return ""
    return (
        "<h2>What each pass bought</h2><p>Each variant beside the one it differs from by the fewest steps: the float "
        "file of its model, or a twin of the same number format.</p>" + page.table(_BOUGHT, rows)
    )


def _other(variant: Variant, manifest: Manifest) -> Variant:
    """What the variant is compared with: the twin it shares most steps with, else the float file of its model."""
    mine = [step.name for step in variant.compression]
    kin = [v for v in manifest.variants if v.source == variant.source and v.id != variant.id]
    twins = [v for v in kin if v.precision is variant.precision and len(v.compression) <= len(mine)]
    before = [v for v in twins if manifest.variants.index(v) < manifest.variants.index(variant)]
    if before:
        return max(before, key=lambda v: sum(step.name in mine for step in v.compression))
    floats = [v for v in kin if not v.compression]
    return floats[0] if floats else variant


def _row(variant: Variant, other: Variant, times: Mapping[str, Latency]) -> str:
    mine, its = times.get(variant.id), times.get(other.id)
    time = f"{mine.median_ms / its.median_ms:.2f} x" if mine and its and its.median_ms else "-"
    alone = other is variant
    cells = (
        text(variant.id),
        "-" if alone else text(other.id),
        "-" if alone else _share(variant.size_bytes, other.size_bytes),
        "-" if alone else _share(variant.transfer_bytes, other.transfer_bytes),
        "-" if alone else time,
        "-" if alone else f"{variant.quality.value - other.quality.value:+.2f}",
        "".join(_step(step) for step in variant.compression),
    )
    return page.row(_BOUGHT, cells)


def _share(mine: int, its: int) -> str:
    return f"{mine / its:.2f} x" if its else "-"


def _step(step: Pass) -> str:
    options = ", ".join(f"{name} {_value(value)}" for name, value in sorted(step.parameters.items()))
    found = ", ".join(f"{n} {_value(v)}" for n, v in sorted(step.evidence.items()) if not n.startswith(LAYER))
    told = f": {text(options)}" if options else ""
    evidence = f'<span class="way">found: {text(found)}</span>' if found else ""
    return f"<div><b>{text(step.name)}</b>{told}{evidence}</div>"


def _value(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def sensitivity(manifest: Manifest) -> str:
    """The layers that bear compression worst, for each variant whose passes measured them; empty where none did."""
    parts = []
    for variant in manifest.variants:
        found = {
            name[len(LAYER) :]: float(value)
            for step in variant.compression
            for name, value in step.evidence.items()
            if name.startswith(LAYER) and isinstance(value, (int, float))
        }
        worst = sorted(found.items(), key=lambda layer: (-layer[1], layer[0]))[:_MOST_LAYERS]
        if not worst:
            continue
        drawn = chart.bars(
            worst,
            title=f"sensitivity of the layers of {variant.id}",
            description="Each bar is a layer: the longer, the more the network's scores change when it alone is "
            "compressed.",
            unit="mean square of the change of the scores, relative to their variance (logarithmic)",
        )
        more = f", the worst {len(worst)} of {len(found)}" if len(found) > len(worst) else ""
        parts.append(
            f"<figure><figcaption><b>{text(variant.id)}</b>: what each layer costs when it alone is compressed{more}."
            f"</figcaption>{drawn}</figure>"
        )
    return f"<h2>Sensitivity, layer by layer</h2>{''.join(parts)}" if parts else ""


def confused(manifest: Manifest, changes: Mapping[str, Changes]) -> str:
    """What variants answer otherwise than the reference; empty where all answer the same, or it was not recorded."""
    shown = [(id_, found) for id_, found in changes.items() if found.lost or found.gained or found.other]
    if not shown:
        return ""
    return (
        f"<h2>What is answered otherwise</h2><p>On the same samples as {text(manifest.reference)}: <i>lost</i> had "
        "been right, <i>gained</i> had been wrong.</p>"
        + page.table(_CONFUSED, (_confused(id_, found, manifest.labels) for id_, found in shown))
    )


def _confused(id_: str, found: Changes, labels: Sequence[str]) -> str:
    def told() -> Iterator[str]:
        for one in found.most:
            right = named(one.label, labels)
            was, now = named(one.reference, labels), named(one.variant, labels)
            yield f"{right}: {was} → {now} ({one.samples})"

    cells = (text(id_), str(found.lost), str(found.gained), str(found.other), text("; ".join(told())))
    return page.row(_CONFUSED, cells)
