"""The part of a bundle's report that is about accelerators."""

from __future__ import annotations

import html
from collections.abc import Sequence

from edge_sdk.manifest import Latency, Manifest, Missing, Variant
from edge_sdk.profile import Profile

_MAX_WHY = 50


def section(manifest: Manifest, latencies: Sequence[Latency], boards: Sequence[Profile]) -> str:
    """HTML; empty where no board has an accelerator.

    Args:
        manifest: What the bundle holds.
        latencies: With those of the variants for accelerators.
        boards: The profiles that were asked for.
    """
    if not manifest.accelerated and not manifest.missing:
        return ""
    rows = []
    for board in boards:
        made = manifest.accelerated.get(board.id, ())
        lacking = [one for one in manifest.missing if board.id in one.profiles]
        if not made and not lacking:
            continue
        rows.append(f'<tr class="group"><td colspan="5">{_text(board.name)} ({_text(board.id)})</td></tr>')
        for variant in (v for v in manifest.variants if v.id in made):
            known = next((x for x in latencies if x.variant == variant.id and x.profile == board.id), None)
            rows.append(_made(variant, known))
        rows += [_missing(one) for one in lacking]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("variant", "operators it takes", "latency", "file"))
    return (
        "<h2>Accelerators</h2><p>Not yet run on hardware. A variant here is worth what its twin for the CPU is worth, "
        "where that was measured; the latencies are the compiler's or a fit's word, and are not compared with those "
        "above. Where a board's accelerator is absent, the twin runs.</p>"
        f'<div class="scroll"><table><thead><tr>{head}<th scope="col" class="text">what stays on the CPU</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _made(variant: Variant, known: Latency | None) -> str:
    covered = variant.coverage
    share = f"{covered.delegated} of {covered.total}" if covered else "-"
    how = f'{known.median_ms:.3g} ms <span class="chip predicted">{known.origin.value}</span>' if known else "-"
    source = f'<span class="sub">{_text(known.source)}</span>' if known and known.source else ""
    twin = f'<span class="sub">twin for the CPU: {_text(variant.target.fallback or "-")}</span>'
    kilobytes = f"{variant.size_bytes / 1e3:,.1f} kB"
    return (
        f"<tr><td>{_text(variant.id)}{twin}</td><td>{share}</td><td>{how}{source}</td><td>{kilobytes}</td>"
        f'<td class="text">{_why(covered.why if covered else ())}</td></tr>'
    )


def _missing(one: Missing) -> str:
    covered = one.coverage
    share = f"{covered.delegated} of {covered.total} expected" if covered else "-"
    then = f"<br>then: <code>{_text(one.command)}</code>" if one.command else ""
    return (
        f'<tr><td>{_text(one.id)}<span class="sub bad">missing</span></td><td>{share}</td><td>-</td><td>-</td>'
        f'<td class="text">{_text(one.reason)}{then}{_why(covered.why if covered else ())}</td></tr>'
    )


def _why(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines[:_MAX_WHY])
    return f"<details><summary>{len(lines)} reasons</summary><ul>{items}</ul></details>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
