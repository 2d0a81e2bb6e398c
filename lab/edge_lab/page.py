"""The page of a play, for people: what was played, what ran, why it changed, and what it was worth.

Complete in itself: no script, font or image comes from elsewhere.
"""

from __future__ import annotations

import html
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from edge_converter.reporting import chart
from edge_lab.story import Moment, Story
from edge_lab.view import outcome
from edge_sdk._version import __version__
from edge_sdk.mqtt import Conditions

if TYPE_CHECKING:
    from edge_lab.outcome import Outcome

_STYLE = (
    chart.STYLE
    + """
:root{color-scheme:light dark;--page:#f5f7fa;--line:#dde3ea;--good:#00704f;--bad:#b3261e;--warm:#8a5a00}
@media (prefers-color-scheme:dark){:root{--page:#0e1319;--line:#2c3642;--good:#4fd3a5;--bad:#ff8a80;--warm:#ffc266}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px}h2{font-size:20px;margin:40px 0 10px}
p{margin:0 0 10px;max-width:75ch}.lead{color:var(--faint);font-size:16px;margin-bottom:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:14px;margin:18px 0}
.cards>div,figure,.scroll{background:var(--paper);border:1px solid var(--line);border-radius:10px}
.cards>div{padding:12px 16px}.cards .what{color:var(--faint);font-size:13px}.cards .big{font-size:24px;font-weight:600}
.cards .note{font-size:13px;color:var(--faint)}
figure{margin:14px 0;padding:14px 14px 6px}figcaption{font-size:14px;color:var(--faint);padding:0 4px 8px}
figcaption b{color:var(--ink)}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--faint);font-size:13px}tr:last-child td{border-bottom:0}
th.n,td.n{text-align:right;white-space:nowrap}td.v{white-space:nowrap}
.chip{display:inline-block;padding:0 8px;border-radius:99px;font-size:12px;border:1px solid currentColor;
white-space:nowrap}
.played{color:var(--warm)}.done{color:var(--good)}.bad{color:var(--bad)}.sub{color:var(--faint);font-size:13px}
code{font-size:13px}.key{font-size:13px;padding:0 4px;max-width:none}.key span{margin-right:14px;white-space:nowrap}
i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px;opacity:.6}a{color:var(--s0)}.scroll+.sub{margin-top:8px}
@media print{body{background:none}figure,.scroll{break-inside:avoid}}
"""
)
# Answers that one point of the latency line stands for, and that the accuracy is taken over.
_BIN_S = 0.5
_OVER = 100
# Two actions of a switch are close enough to be told as one stretch.
_SHORT_S = 0.2


def render(result: Outcome) -> str:
    """The page."""
    story = result.story
    body = [
        _header(result),
        _cards(result),
        _figure(story),
        _switches(story),
        _commands(story),
        _variants(result),
        _beside(story),
        _facts(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>A played day of one board</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _header(result: Outcome) -> str:
    story = result.story
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(story.began))
    return (
        "<h1>A played day of one board</h1>"
        f'<p class="lead">{story.length_s:.0f} seconds from {at}. An app classifies handwritten digits it has never '
        "seen; the daemon senses, decides and switches the variant under it; the hub is told over MQTT and gives "
        'orders. Battery, temperature and the slow network are <span class="chip played">played</span>; the app, its '
        "latencies, processor, memory, every message and every decision are real.</p>"
    )


def _cards(result: Outcome) -> str:
    story, work = result.story, result.story.work()
    reasons = len({switch.code for switch in story.switches})
    replied = sum(command.status is not None for command in story.commands)
    cards = (
        ("digits classified", f"{work.answers:,}", f"{work.failed} calls failed"),
        ("right", f"{work.accuracy or 0:.1f} %", "over all variants that ran"),
        ("switches", str(len(story.switches)), f"for {reasons} reasons"),
        ("commands replied", f"{replied} of {len(story.commands)}", "each once, over MQTT"),
        ("messages at the hub", str(story.hub_messages), f"by {result.broker}"),
    )
    return (
        '<div class="cards">'
        + "".join(
            f'<div><div class="what">{_text(what)}</div><div class="big">{_text(big)}</div>'
            f'<div class="note">{_text(note)}</div></div>'
            for what, big, note in cards
        )
        + "</div>"
    )


# --------------------------------------------------------------------------------------------------- the timeline


def _figure(story: Story) -> str:
    colours = {name: number for number, name in enumerate(story.by_variant())}
    end_s = max([story.length_s, *(answer.at - story.began for answer in story.answers[-1:])])
    drawn = chart.timeline(
        [*_tracks(story, colours, end_s)],
        end_s=end_s,
        title="Conditions, the active variant, latency and accuracy over the play",
        description="What was played is on top; what the app ran, how long a call took and how many were right, below.",
        events=[(switch.at_s, f"{switch.code}: {switch.text}") for switch in story.switches],
    )
    acts = "; ".join(f"<b>{_text(short)}</b> {_text(_lower(title))}" for _, short, title in story.acts)
    return (
        f'<figure>{drawn}<p class="key">{_key(colours)}</p><figcaption>'
        f"A line with a number is a switch, as in the table below; the dashed level in the "
        f"temperature is the limit. Latency: the median of each half second. Right: of the last {_OVER} answers. "
        f"The acts: {acts}.</figcaption></figure>"
    )


def _key(colours: dict[str, int]) -> str:
    """The variants by their colours: a short stretch has no room for its name."""
    return " ".join(f"<span>{_swatch(number)}{_text(name)}</span>" for name, number in colours.items())


def _swatch(number: int) -> str:
    return f'<i style="background:var(--s{number % chart.SERIES})"></i>'


def _tracks(story: Story, colours: dict[str, int], end_s: float) -> Iterable[chart.Track]:
    moments = story.moments
    acts = [*((at_s, short) for at_s, short, _ in story.acts), (end_s, "")]
    yield chart.Track(
        label="act (played)",
        spans=[
            chart.Span(start_s=at_s, end_s=until_s, label=short, series=7)
            for (at_s, short), (until_s, _) in itertools.pairwise(acts)
        ],
    )
    limits = [moment.sensed.temp_limit_c for moment in moments if moment.sensed.temp_limit_c is not None]
    yield chart.Track(
        label="battery %, played", points=_sensed(moments, lambda sensed: sensed.battery_pct), series=2, stepped=True
    )
    yield chart.Track(
        label="°C, played",
        points=_sensed(moments, lambda sensed: sensed.temp_c),
        limit=limits[-1] if limits else None,
        series=1,
        stepped=True,
    )
    yield chart.Track(
        label="round trip ms", points=_sensed(moments, lambda sensed: sensed.rtt_ms), series=4, stepped=True
    )
    yield chart.Track(label="variant that runs", spans=[*_runs(story, colours)])
    yield chart.Track(label="latency ms", points=[*_latencies(story)], series=0, logarithmic=True)
    yield chart.Track(label="right %", points=[*_right(story)], series=5)


def _sensed(moments: Sequence[Moment], of: Callable[[Conditions], float | None]) -> list[tuple[float, float]]:
    told = ((moment.at_s, of(moment.sensed)) for moment in moments)
    return [(at_s, math.nan if value is None else value) for at_s, value in told]


def _runs(story: Story, colours: dict[str, int]) -> Iterable[chart.Span]:
    """The stretches in which one variant gave all answers."""
    start: float | None = None
    last = 0.0
    name = ""
    for answer in story.answers:
        at_s = max(0.0, answer.at - story.began)
        if answer.variant is None:
            continue
        if answer.variant != name:
            if start is not None and last - start >= _SHORT_S:
                yield chart.Span(start_s=start, end_s=at_s, label=name, series=colours[name])
            start, name = at_s, answer.variant
        last = at_s
    if start is not None:
        yield chart.Span(start_s=start, end_s=last, label=name, series=colours[name])


def _latencies(story: Story) -> Iterable[tuple[float, float]]:
    bins: dict[int, list[float]] = {}
    for answer in story.answers:
        if answer.ms is not None:
            bins.setdefault(int((answer.at - story.began) / _BIN_S), []).append(answer.ms)
    for number in sorted(bins):
        yield max(0.0, (number + 0.5) * _BIN_S), statistics.median(bins[number])


def _right(story: Story) -> Iterable[tuple[float, float]]:
    given = [answer for answer in story.answers if answer.ms is not None]
    for end in range(_OVER, len(given), max(1, _OVER // 20)):
        window = given[end - _OVER : end]
        yield window[-1].at - story.began, 100 * sum(answer.right for answer in window) / _OVER


# ------------------------------------------------------------------------------------------------------- tables


def _switches(story: Story) -> str:
    rows = [
        (
            str(number),
            f"{switch.at_s:.1f} s",
            f"{_text(switch.old or 'nothing')} → <b>{_text(switch.new or 'nothing')}</b>",
            f'<span class="chip">{_text(switch.code)}</span>',
            f"{_text(switch.text)}",
            f"{switch.took_ms:.1f} ms" if switch.took_ms is not None else "-",
        )
        for number, switch in enumerate(story.switches, start=1)
    ]
    heads = ("#.n", "at.n", "switch.v", "bound by", "because", "took.n")
    return (
        "<h2>Why it switched</h2><p>As the hub has stored it. No call waits for a load: the next "
        "variant is loaded and warmed beside the one that answers.</p>" + _table(heads, rows)
    )


def _commands(story: Story) -> str:
    rows = [
        (
            f"{command.at_s:.1f} s",
            f"<code>{_text(command.words)}</code>",
            f'<span class="{"done" if command.status == "done" else "bad"}">{_text(outcome(command))}</span>',
        )
        for command in story.commands
    ]
    return "<h2>What the hub asked for</h2>" + _table(("sent at.n", "command.v", "reply"), rows)


def _variants(result: Outcome) -> str:
    rows = []
    for number, (name, work) in enumerate(result.story.by_variant().items()):
        variant = result.manifest.variant(name)
        rows.append(
            (
                f"{_swatch(number)}<b>{_text(name)}</b>",
                f"{work.answers:,}",
                f"{work.p50_ms:.3g} ms" if work.p50_ms is not None else "-",
                f"{work.p95_ms:.3g} ms" if work.p95_ms is not None else "-",
                f"{work.accuracy:.1f} %" if work.accuracy is not None else "-",
                f"{variant.quality.value:.2f} %" if variant else "-",
                f"{variant.size_bytes / 1e3:,.1f} kB" if variant else "-",
            )
        )
    heads = ("variant.v", "answers.n", "median.n", "p95.n", "right.n", "on all held-out digits.n", "size.n")
    others = len(result.manifest.variants) - len(rows)
    return (
        "<h2>What ran</h2>"
        + _table(heads, rows)
        + f'<p class="sub">The bundle holds {others} more variants, none of which was the choice at any moment '
        f'of this play. <a href="{_text(result.bundle.name)}/report.html">Their page</a> compares them all.</p>'
    )


def _beside(story: Story) -> str:
    """The played sensors and the machine's own, side by side."""

    def told(of: Callable[[Conditions], float | None], unit: str, missing: str) -> tuple[str, str]:
        sensed = _range([of(moment.sensed) for moment in story.moments], unit, "no sensor")
        real = _range([of(moment.real) for moment in story.moments], unit, missing)
        return sensed, real

    why = story.moments[-1].real.missing if story.moments else {}
    rows = []
    for name, played, (sensed, real) in (
        ("temperature", True, told(lambda c: c.temp_c, " °C", why.get("temp_c", "no sensor"))),
        ("battery", True, told(lambda c: c.battery_pct, " %", why.get("battery_pct", "no sensor"))),
        ("processor busy", False, told(lambda c: c.load_pct, " %", why.get("load_pct", "no sensor"))),
        ("memory free", False, told(lambda c: _number(c.memory_available_mb), " MB", "no sensor")),
        ("round trip to the broker", True, told(lambda c: c.rtt_ms, " ms", "only measured by the daemon")),
    ):
        chip = ' <span class="chip played">played</span>' if played else ""
        rows.append((_text(name), f"{_text(sensed)}{chip}", _text(real)))
    return (
        "<h2>Beside it: the real machine</h2><p>The daemon read its sensors from a played board. The same code "
        "read this machine's own sensors at the same time. The round trip is measured on a connection that really "
        "was slowed.</p>" + _table(("", "what the daemon sensed", "what this machine's sensors said"), rows)
    )


def _facts(result: Outcome) -> str:
    measured = next(iter(result.measured().values()), None)
    machine = measured.machine if measured else "this machine"
    return (
        f'<p class="sub">Made by <code>edge demo</code> {_text(__version__)} on {_text(machine)}, in '
        f"{result.seconds:.0f} s with the conversion for {_text(', '.join(result.profiles))}. Latencies are this "
        "machine's; on a board the daemon learns the board's own.</p>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML cells; a head's ending `.n` or `.v` is the class of its column."""
    parts = [head.partition(".") for head in heads]
    classes = [f' class="{kind}"' if kind else "" for _, _, kind in parts]
    head = "".join(f'<th scope="col"{c}>{_text(name)}</th>' for (name, _, _), c in zip(parts, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _range(values: Sequence[float | None], unit: str, missing: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return missing
    low, high = (f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}" for value in (min(known), max(known)))  # noqa: PLR2004
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _text(text: str) -> str:
    return html.escape(text, quote=True)
