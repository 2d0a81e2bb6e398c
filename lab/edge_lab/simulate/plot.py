"""The page of a simulation: what each policy came to, and its timelines side by side, a column for each.

Complete in itself: no script, font or image comes from elsewhere. Columns stand below each other where the screen is
narrow.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from edge_converter.reporting import chart
from edge_lab.simulate import panels
from edge_lab.simulate.play import Run
from edge_lab.simulate.score import Result, regret_pct
from edge_lab.simulate.table import switched
from edge_lab.simulate.trial import Job, Played, world_of
from edge_sdk._version import __version__

_STYLE = (
    chart.STYLE
    + """
:root{color-scheme:light dark;--page:#f5f7fa;--line:#dde3ea}
@media (prefers-color-scheme:dark){:root{--page:#0e1319;--line:#2c3642}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1720px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px}h2{font-size:21px;margin:36px 0 4px}h3{font-size:17px;margin:0}
p{margin:0 0 10px;max-width:80ch}.sub{color:var(--faint);font-size:14px}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(340px,100%),1fr));gap:14px;margin:14px 0}
.columns>section,.scroll{background:var(--paper);border:1px solid var(--line);border-radius:10px}
.columns>section{padding:14px 14px 8px;max-width:620px}
.columns p{font-size:13px;color:var(--faint);margin:0 0 8px;min-height:3em}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--faint);font-size:13px}th:first-child,td:first-child{text-align:left}
tr:last-child td{border-bottom:0}tr.bound td{color:var(--faint);font-style:italic}
ul{padding-left:20px;margin:6px 0;color:var(--faint);font-size:14px}code{font-size:13px}
@media print{body{background:none}.columns>section{break-inside:avoid}}
"""
)
_HEADS = ("policy", "effective accuracy", "regret", "late", "hot", "alive", "energy", "switches", "decision, median")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One scenario on the page.

    Attributes:
        job: The seed that is drawn, and `played`: what came of it.
    """

    result: Result
    job: Job
    played: Played


def page(shown: Sequence[Shown]) -> str:
    """The page."""
    names = ", ".join(one.result.scenario for one in shown)
    about = (
        '<p class="sub">Effective accuracy is the quality of the answers in time over all requests. Regret is what is '
        "missing to a clairvoyant, of the clairvoyant's. A pointer on a stretch of the first drawing tells why the "
        "variant was taken. Where the line of the round trip breaks, nothing goes through. Made by "
        f"<code>edge simulate</code> {html.escape(__version__)}.</p>"
    )
    body = [f"<h1>Simulated: {html.escape(names)}</h1>", about, *(_scenario(one) for one in shown)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Simulated: {html.escape(names)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _scenario(shown: Shown) -> str:
    result, played, world = shown.result, shown.played, world_of(shown.job)
    runs = [*played.runs, *(bound.run for bound in (played.floor, played.oracle) if bound is not None)]
    shared = panels.scales(world, runs)
    oracle = None if played.oracle is None else played.oracle.run
    columns = "".join(
        f"<section><h3>{html.escape(run.policy)}</h3><p>{_words(run, oracle)}</p>"
        f"{panels.column(world, run, shared)}</section>"
        for run in runs
    )
    counted = len(result.seeds) - len(result.infeasible)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in result.notes)
    return (
        f'<h2>{html.escape(result.scenario)}</h2><p class="sub">{result.duration_s} s; the table has the means of '
        f"{counted or len(result.seeds)} of {len(result.seeds)} seeds, the drawings show seed {played.seed}.</p>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + _table(result)
        + f'<div class="columns">{columns}</div>'
    )


def _words(run: Run, oracle: Run | None) -> str:
    words = [f"effective accuracy {run.effective_accuracy:.2f}"]
    if oracle is not None and oracle is not run:
        words.append(f"regret {regret_pct(run, oracle):.2f} %")
    words += [f"late {run.late_pct:.2f} %", f"{run.switches} switch{'' if run.switches == 1 else 'es'}"]
    if run.toggles:
        words.append(f"{run.toggles} change{'' if run.toggles == 1 else 's'} between server and board")
    return ", ".join(words)


def _table(result: Result) -> str:
    rows = []
    for name, bound in (("clairvoyant", result.oracle), ("causal floor", result.floor)):
        if bound is not None:
            rest = "<td></td>" * (len(_HEADS) - 3)
            rows.append(
                f'<tr class="bound"><td>{name}</td><td>{bound.effective_accuracy:.2f}</td>'
                f"<td>{_pct(bound.regret_pct)}</td>{rest}</tr>"
            )
    for score in result.policies:
        cells = (
            html.escape(score.policy),
            f"{score.effective_accuracy:.2f}",
            _pct(score.regret_pct),
            _pct(score.late_pct),
            _pct(score.hot_pct),
            f"{score.alive_pct:.1f} %",
            f"{score.energy_wh:.2f} Wh",
            switched(score),
            f"{score.decision_us_p50:.0f} µs",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"  # noqa: RUF001 - a dash for what is not there
