"""The page a bundle carries for people: what its variants are worth, in plots, tables and plain words.

Complete in itself: no script, font or image comes from elsewhere, and it names no path of the machine that made it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from edge_converter.reporting import by_class, chart, page, report_boards, report_passes, reproduce
from edge_converter.reporting.by_class import ByClass
from edge_converter.reporting.confusion import Changes
from edge_converter.request import ConvertRequest
from edge_converter.targets import page as accelerators
from edge_sdk._version import __version__
from edge_sdk.manifest import Delegate, Latency, Manifest, Origin, Precision, Variant
from edge_sdk.profile import Profile
from edge_sdk.quality import drop_text, value_text

# Variants this close to the reference are offered as its faster or smaller stand-ins, in points.
_CLOSE = 1.0
_PRECISIONS = tuple(Precision)
_MEANING = {
    Precision.FP32: "32-bit floats",
    Precision.FP16: "weights stored as 16-bit floats",
    Precision.DYNAMIC: "8-bit weights, activations quantized while it runs",
    Precision.INT8: "8-bit weights and activations",
    Precision.INT16X8: "8-bit weights, 16-bit activations",
    Precision.WEIGHT8: "8-bit weights, float arithmetic",
    Precision.WEIGHT4: "4-bit weights",
    Precision.MIXED: "several number formats",
}

_STYLE = (
    chart.STYLE
    + report_boards.STYLE
    + """
:root{color-scheme:light dark;--page:#f5f7fa;--line:#dde3ea;--good:#00704f;--bad:#b3261e;--tint:#eef4fb}
@media (prefers-color-scheme:dark){:root{--page:#0e1319;--line:#2c3642;--good:#4fd3a5;--bad:#ff8a80;--tint:#1b2633}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px}h1 small{font-weight:400;color:var(--faint);font-size:20px}
h2{font-size:20px;margin:40px 0 10px}h3{font-size:15px;margin:0 0 2px}
p{margin:0 0 10px;max-width:75ch}.lead{color:var(--faint);font-size:16px;margin-bottom:20px}
section.card,.cards>div,figure{background:var(--paper);border:1px solid var(--line);border-radius:10px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:14px;margin:18px 0}
.cards>div{padding:14px 16px}.cards .what{color:var(--faint);font-size:13px}
.cards .big{font-size:20px;font-weight:600;overflow-wrap:anywhere}.cards p{margin:4px 0 0;font-size:14px}
figure{margin:14px 0;padding:14px 14px 6px;overflow-x:auto}figure .chart{min-width:640px}
figcaption{font-size:14px;color:var(--faint);padding:0 4px 8px;max-width:90ch}
figcaption b{color:var(--ink)}
.scroll{overflow-x:auto;background:var(--paper);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:7px 9px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--faint);font-size:13px}tr:last-child td{border-bottom:0}
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{white-space:normal;min-width:22ch}
td .sub{display:block;white-space:normal;min-width:24ch;color:var(--faint);font-size:12px}
tr.group td{background:var(--tint);font-weight:600;text-align:left}
.chip{display:inline-block;padding:0 8px;border-radius:99px;font-size:12px;border:1px solid currentColor}
.chip.measured{color:var(--good)}.chip.predicted{color:var(--s4)}.bad{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;padding:14px 16px;font-size:14px}
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}ul{padding-left:20px;max-width:85ch}code{font-size:13px}
pre{margin:0;padding:12px 16px;font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere}th.text{width:55%}
details{margin-top:8px}summary{cursor:pointer}
@media print{body{background:none}figure,section,.scroll{break-inside:avoid}}
"""
)


def render(
    manifest: Manifest,
    latencies: Sequence[Latency],
    *,
    refused: Sequence[Variant],
    boards: Sequence[Profile],
    notes: Sequence[str],
    request: ConvertRequest,
    classes: ByClass | None = None,
    elsewhere: Sequence[Latency] = (),
    changes: Mapping[str, Changes] | None = None,
) -> str:
    """The page.

    Args:
        manifest: What the bundle holds.
        latencies: Of its variants and of the refused ones.
        refused: Variants that were made and measured, and are not in the bundle.
        boards: The profiles of `manifest.fronts`.
        notes: Sentences a reader should know.
        request: What was asked for.
        classes: The metric's value of each class, by variant and class number.
        elsewhere: Latencies that devices measured.
        changes: What variants answer otherwise than the reference, where answers are classes.
    """
    times = {entry.variant: entry for entry in latencies if entry.origin is Origin.MEASURED}
    whole = manifest
    # What accelerators run stands in a section of its own: nothing of it was measured here.
    cpu = tuple(variant for variant in whole.variants if variant.target.delegate is Delegate.CPU)
    manifest = msgspec.structs.replace(whole, variants=cpu)
    body = [
        _header(manifest, times),
        _highlights(manifest, times),
        _plots(manifest, times, refused, request),
        "<h2>Variants</h2>",
        _variants(manifest, times),
        report_boards.section(manifest, [*elsewhere, *(x for x in latencies if x.profile)], boards),
        accelerators.section(whole, latencies, boards),
        report_passes.bought(manifest, times),
        report_passes.sensitivity(manifest),
        report_passes.confused(manifest, changes or {}),
        by_class.section(manifest, classes or {}),
        _refusals(manifest, request),
        _notes(notes),
        _again(manifest, request),
        _facts(manifest, times, request),
        _reading(manifest),
    ]
    title = page.text(f"{manifest.name} {manifest.version}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}: variants</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in body if part)}\n</main></body></html>\n"
    )


def _header(manifest: Manifest, times: Mapping[str, Latency]) -> str:
    samples = manifest.variants[0].quality.samples
    where = next(iter(times.values())).machine if times else "no machine"
    sources = ", ".join(source.name for source in manifest.sources)
    return (
        f"<h1>{page.text(manifest.name)} <small>version {page.text(manifest.version)}</small></h1>"
        f'<p class="lead">{page.count(len(manifest.variants), "variant")} of {page.text(sources)}, each judged on '
        f"the same {samples:,} labelled samples and timed on {page.text(where)}.</p>"
    )


def _highlights(manifest: Manifest, times: Mapping[str, Latency]) -> str:
    """The three variants most readers look for."""
    by_id = {variant.id: variant for variant in manifest.variants}
    reference = by_id[manifest.reference]
    close = [v for v in manifest.variants if v.quality.drop <= _CLOSE and v.id in times] or [reference]
    fastest = min(close, key=lambda v: (times[v.id].median_ms if v.id in times else 0, v.id))
    smallest = min(close, key=lambda v: (v.transfer_bytes, v.id))
    base_ms = times[reference.id].median_ms if reference.id in times else None
    faster = (
        f", {page.factor(base_ms / times[fastest.id].median_ms)} the reference's speed"
        if base_ms and fastest is not reference
        else ""
    )
    share = f", {100 * smallest.transfer_bytes / max(1, reference.transfer_bytes):.0f} % of the reference"
    cards = [
        (
            "Reference: the most accurate float model",
            reference,
            f"{page.ms(base_ms)}, {page.size(reference.transfer_bytes)}",
        ),
        (
            f"Fastest within {_CLOSE:g} point of it, here",
            fastest,
            f"{page.ms(times[fastest.id].median_ms) if fastest.id in times else '-'}{faster}",
        ),
        (
            f"Smallest within {_CLOSE:g} point of it",
            smallest,
            f"{page.size(smallest.transfer_bytes)} to transfer{share}",
        ),
    ]
    parts = [
        f'<div><div class="what">{page.text(what)}</div><div class="big">{page.text(v.id)}</div>'
        f"<p>{value_text(v.quality)} {page.text(manifest.metric)}; {page.text(words)}</p></div>"
        for what, v, words in cards
    ]
    return f'<div class="cards">{"".join(parts)}</div>'


def _plots(
    manifest: Manifest, times: Mapping[str, Latency], refused: Sequence[Variant], request: ConvertRequest
) -> str:
    shown = [variant for variant in (*manifest.variants, *refused) if variant.id in times]
    if not shown:
        return ""
    several = len(manifest.sources) > 1
    legend = (
        [source.name for source in manifest.sources]
        if several
        else [p.value for p in _PRECISIONS if any(v.precision is p for v in shown)]
    )
    out = {variant.id for variant in refused}
    kept = [variant.quality.value for variant in shown if variant.id not in out]
    # A refused variant far below must not flatten all others.
    floor = min(kept) - max(request.max_drop, max(kept) - min(kept))
    y = chart.around(
        [*kept, *(v.quality.value for v in refused if v.quality.value >= floor)],
        title=f"{manifest.metric}, %",
        least=_CLOSE,
    )
    # Only a metric that goes below 0 has room there, such as an r2 that is worse than knowing nothing.
    low = y.low if min(kept) < 0 else max(y.low, -1.0)
    y = chart.Axis(title=y.title, low=low, high=min(y.high, 100 + 0.12 * (y.high - y.low)))

    def point(variant: Variant, x: float, weight: float) -> chart.Point:
        below = variant.quality.value < y.low
        note = (
            f"{variant.id}: {value_text(variant.quality)}, {page.ms(times[variant.id].median_ms)}, "
            f"{page.size(variant.transfer_bytes)} to transfer{', refused' if variant.id in out else ''}"
        )
        return chart.Point(
            x=x,
            y=variant.quality.value,
            weight=weight,
            label=f"{variant.id} {value_text(variant.quality)} ↓" if below else variant.id,
            note=note,
            series=legend.index(variant.source if several else variant.precision.value),
            hollow=variant.id in out,
        )

    threads = request.threads
    by_time = chart.scatter(
        [point(v, times[v.id].median_ms, float(v.transfer_bytes)) for v in shown],
        x=chart.around(
            [times[v.id].median_ms for v in shown],
            title=f"median latency of one inference here, ms ({page.count(threads, 'thread')}; logarithmic)",
            logarithmic=True,
        ),
        y=y,
        title=f"{manifest.metric} against latency",
        description="Each disc is a variant: further left is faster, further up more accurate, smaller is less to "
        "transfer. The table below holds the same numbers.",
        legend=legend,
        weight_note="area: bytes to transfer",
    )
    by_size = chart.scatter(
        [point(v, v.transfer_bytes / 1e3, 1.0) for v in shown],
        x=chart.around(
            [v.transfer_bytes / 1e3 for v in shown], title="size to transfer, kB (zstd; logarithmic)", logarithmic=True
        ),
        y=y,
        title=f"{manifest.metric} against size",
        description="Each disc is a variant: further left is less to transfer, further up more accurate.",
        legend=legend,
    )
    warning = (
        "<b>Accuracy against latency, measured on this machine.</b> Up and to the left is better. The order of the "
        "latencies is another on other processors: for boards, see the plots below."
    )
    return (
        f"<figure><figcaption>{warning}</figcaption>{by_time}</figure>"
        f"<figure><figcaption><b>Accuracy against the bytes a device downloads.</b></figcaption>{by_size}</figure>"
    )


def _variants(manifest: Manifest, times: Mapping[str, Latency]) -> str:
    header = (
        "variant", manifest.metric, "drop", "agrees", "lost to compression", "size", "transfer", "median", "p95",
        "runs on TFLite",
    )  # fmt: skip
    rows = []
    for source in manifest.sources:
        members = [variant for variant in manifest.variants if variant.source == source.name]
        if len(manifest.sources) > 1 and members:
            cost = members[0].cost
            words = (
                f"{source.name}: {cost.macs / 1e6:,.2f} million multiply-accumulates, {cost.parameters:,} parameters"
            )
            rows.append(f'<tr class="group"><td colspan="{len(header)}">{page.text(words)}</td></tr>')
        rows += [_row(variant, manifest, times.get(variant.id)) for variant in members]
    head = "".join(f'<th scope="col">{page.text(name)}</th>' for name in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(variant: Variant, manifest: Manifest, latency: Latency | None) -> str:
    quality = variant.quality
    sub = _MEANING[variant.precision] + (" (reference)" if variant.id == manifest.reference else "")
    pruned = next((step for step in variant.compression if step.name == "prune"), None)
    if pruned is not None:
        sub += f", {100 * float(pruned.parameters.get('sparsity', 0)):.0f} % of the large kernels' weights are zero"
    if variant.exceptions:
        sub += f"; {page.count(len(variant.exceptions), 'layer')} in another format"
    lost = "-"
    if quality.source_drop is not None:
        lost = drop_text(quality.source_drop, quality.source_interval or 0.0, quality.samples)
    cells = (
        value_text(quality),
        drop_text(quality.drop, quality.interval, quality.samples),
        f"{quality.agreement:.1f} %",
        lost,
        page.size(variant.size_bytes),
        page.size(variant.transfer_bytes),
        page.ms(latency.median_ms if latency else None),
        page.ms(latency.p95_ms if latency else None),
        f"{variant.target.min_runtime} on" if variant.target.min_runtime else "LiteRT",
    )
    exceptions = ""
    if variant.exceptions:
        items = "".join(f"<li>{page.text(line)}</li>" for line in variant.exceptions[:50])
        exceptions = f"<details><summary>layers in another format</summary><ul>{items}</ul></details>"
    name = f'{page.text(variant.id)}<span class="sub">{page.text(sub)}</span>{exceptions}'
    return f"<tr><td>{name}</td>{''.join(f'<td>{page.text(cell)}</td>' for cell in cells)}</tr>"


def _refusals(manifest: Manifest, request: ConvertRequest) -> str:
    if not manifest.refused:
        return ""
    rows = "".join(
        f'<tr><td>{page.text(one.id)}</td><td class="bad">{value_text(one.quality) if one.quality else "-"}</td>'
        f'<td class="text">{page.text(one.reason)}</td></tr>'
        for one in manifest.refused
    )
    return (
        f"<h2>Refused</h2><p>Made, and left out of the bundle. The bound was {request.max_drop:g} points lost to "
        "compression.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">variant</th>'
        f'<th scope="col">{page.text(manifest.metric)}</th><th scope="col" class="text">why</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{page.text(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if items else ""


def _again(manifest: Manifest, request: ConvertRequest) -> str:
    lines = "\n".join(reproduce.commands(request, manifest))
    return (
        "<h2>To make it again</h2><p>The same files, data and kind of machine give the same manifest and variants, "
        "byte for byte; then what looks at the bundle, and what measures it on a board.</p>"
        f'<div class="scroll"><pre>{page.text(lines)}</pre></div>'
    )


def _facts(manifest: Manifest, times: Mapping[str, Latency], request: ConvertRequest) -> str:
    any_time = next(iter(times.values()), None)
    prepared = manifest.preprocessing
    pairs = [
        ("made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.created)) + f" by edge {__version__}"),
        *((f"source {s.name}", f"{s.framework}, SHA-256 {s.sha256}") for s in manifest.sources),
        ("takes", "; ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in manifest.inputs)),
        ("gives", "; ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in manifest.outputs)),
        (
            "prepared by",
            f"(value - {_numbers(prepared.mean)}) / {_numbers(prepared.std)}"
            + (f" after resizing to {_by(prepared.resize)} ({prepared.fit.value})" if prepared.resize else "")
            + (f" and cutting the centre to {_by(prepared.crop)}" if prepared.crop else ""),
        ),
        ("judged on", f"{manifest.variants[0].quality.samples:,} samples that neither calibrated nor trained anything"),
        ("timed on", f"{any_time.machine}; {any_time.runtime}; {any_time.threads} threads" if any_time else "nothing"),
        ("seed", str(request.seed)),
    ]
    items = "".join(f"<dt>{page.text(name)}</dt><dd>{page.text(value)}</dd>" for name, value in pairs)
    return f'<h2>How it was made</h2><section class="card"><dl>{items}</dl></section>'


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


def _reading(manifest: Manifest) -> str:
    words = {
        "drop": f"how many points of {manifest.metric} the variant is below {manifest.reference}, on the same samples; "
        "± is half the 95 % interval. Where the interval includes 0, these samples cannot tell the two apart.",
        "agrees": "on how many samples variant and reference give the same answer, right or wrong: the sharper test.",
        "lost to compression": "the same drop, against the float file of the variant's own model.",
        "transfer": "what a device downloads, compressed with zstd; size: what it stores and maps into memory.",
        "median, p95": "half and 95 % of the inferences took no longer. The variants took turns while timed.",
        "runs on TFLite": "the first version of TensorFlow Lite that knows all operators in the file.",
    }
    items = "".join(f"<li><b>{page.text(word)}</b>: {page.text(meaning)}</li>" for word, meaning in words.items())
    return f"<h2>How to read it</h2><ul>{items}</ul>"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
