"""The part of a bundle's report about boards: for each its front in a plot, what to ship, and why not the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge_converter.reporting import chart, page
from edge_converter.reporting.page import Column, text
from edge_converter.selecting.evidence import deciding
from edge_converter.selecting.fronts import span
from edge_sdk.manifest import Latency, Manifest, Origin, Selection, Variant
from edge_sdk.profile import Profile
from edge_sdk.quality import value_text

_COLUMNS = (
    Column(name="variant"),
    Column(name="quality"),
    Column(name="transfer"),
    Column(name="latency"),
    Column(name="why", words=True),
)
# As many boards are shown at once; the others unfold.
_OPEN = 2
_CLOSE = 1.0  # points: smaller differences are not blown up
STYLE = (
    ".board{margin:18px 0 26px}.board>summary{font-weight:600;padding:6px 0}"
    "table .way{color:var(--faint);font-size:12px;display:block}"
)


def section(manifest: Manifest, latencies: Sequence[Latency], boards: Sequence[Profile]) -> str:
    """HTML; empty where no board was asked for.

    Args:
        manifest: What the bundle holds.
        latencies: Measured on devices, and predicted, for these boards.
        boards: The profiles of `manifest.fronts`.
    """
    parts = [
        _board(manifest, board, deciding(board, latencies), opened=number < _OPEN)
        for number, board in enumerate(boards)
        if board.id in manifest.selection
    ]
    if not parts:
        return ""
    return (
        "<h2>Board by board</h2><p>A variant is dominated where another is at least as accurate, as fast and as light "
        "to transfer, and better in one. Of those that are not, a few are recommended: enough for the daemon to move "
        "between. A prediction comes from the operations in the file and what is published about the processor, and "
        "holds within the line drawn through it; <code>edge bench</code> on the board replaces it.</p>" + "".join(parts)
    )


def _board(manifest: Manifest, board: Profile, known: Mapping[str, Latency], *, opened: bool) -> str:
    choice = manifest.selection[board.id]
    shipped = ", ".join(one.id for one in choice.recommended) or "nothing"
    bound = f"; at most {choice.max_latency_ms:g} ms" if choice.max_latency_ms is not None else ""
    notes = page.listed(choice.notes) if choice.notes else ""
    table = page.table(_COLUMNS, _rows(manifest, choice, board, known))
    return (
        f'<details class="board"{" open" if opened else ""}><summary>{text(board.name)} ({text(board.id)})</summary>'
        f"<p>To ship: <b>{text(shipped)}</b>; ordered by {choice.objective.value}{bound}.</p>"
        f"{_plot(manifest, choice, board, known)}{notes}{table}</details>"
    )


def _plot(manifest: Manifest, choice: Selection, board: Profile, known: Mapping[str, Latency]) -> str:
    shown = [v for v in manifest.variants if v.id in known and known[v.id].median_ms > 0]
    if not shown:
        return f"<p>Nothing is known of the latency of this model on {text(board.name)}.</p>"
    recommended = {one.id for one in choice.recommended}
    out = {one.id for one in choice.excluded}
    beaten = {one.id for one in choice.dominated}
    origins = [origin for origin in Origin if any(known[v.id].origin is origin for v in shown)]
    ends = [end for v in shown if v.id in recommended for end in span(known[v.id])]

    def point(v: Variant) -> chart.Point:
        latency = known[v.id]
        low, high = span(latency)
        state = "recommended" if v.id in recommended else "dominated" if v.id in beaten else "in the front"
        return chart.Point(
            x=latency.median_ms,
            y=v.quality.value,
            label=v.id,
            note=f"{v.id}: {value_text(v.quality)}, {page.ms(latency.median_ms)} {latency.origin.value}, "
            f"{page.size(v.transfer_bytes)} to transfer, {'excluded' if v.id in out else state}",
            series=origins.index(latency.origin),
            hollow=v.id in out,
            pale=v.id in beaten,
            ring=v.id in recommended,
            span=(low, high) if v.id in recommended and high > low else None,
        )

    times = [known[v.id].median_ms for v in shown]
    bound = [choice.max_latency_ms] if choice.max_latency_ms is not None else []
    threads = known[shown[0].id].threads
    drawn = chart.scatter(
        [point(v) for v in shown],
        x=chart.around(
            [*times, *ends, *bound],
            title=f"latency of one inference on {board.name}, ms ({page.count(threads, 'thread')}; logarithmic)",
            logarithmic=True,
        ),
        y=chart.around([v.quality.value for v in shown], title=manifest.metric, least=_CLOSE),
        title=f"{manifest.metric} against latency on {board.name}",
        description="Each disc is a variant: further left is faster, further up more accurate. Those with a ring are "
        "recommended, pale ones dominated; a line is the span in which a prediction expects the truth.",
        legend=[origin.value for origin in origins],
        out="excluded",
        limit=choice.max_latency_ms,
    )
    return f"<figure>{drawn}</figure>"


def _rows(manifest: Manifest, choice: Selection, board: Profile, known: Mapping[str, Latency]) -> Iterator[str]:
    recommended = {one.id for one in choice.recommended}
    front = [id_ for id_ in manifest.fronts.get(board.id, ()) if id_ not in recommended]
    groups = (
        ("recommended", [(one.id, one.why.partition(": ")[0]) for one in choice.recommended]),
        ("not dominated either", [(id_, "too little gained over those recommended") for id_ in front]),
        ("dominated", [(one.id, one.why) for one in choice.dominated if one.id not in recommended]),
        ("excluded", [(one.id, one.reason) for one in choice.excluded if one.id not in recommended]),
    )
    for title, lines in groups:
        if lines:
            yield page.group(_COLUMNS, title)
        for id_, why in lines:
            variant = manifest.variant(id_)
            if variant is not None:
                yield _row(variant, known.get(id_), why)


def _row(variant: Variant, latency: Latency | None, why: str) -> str:
    how = "-"
    if latency is not None:
        low, high = span(latency)
        within = f'<span class="way">{page.ms(low)} to {page.ms(high)}</span>' if high > low else ""
        how = f"{page.ms(latency.median_ms)} {page.chip(latency.origin.value)}{within}"
    cells = (text(variant.id), text(value_text(variant.quality)), page.size(variant.transfer_bytes), how, text(why))
    return page.row(_COLUMNS, cells)
