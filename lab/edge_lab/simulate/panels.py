"""One run as a column of small drawings over the same time: variant, heat, energy, requests, network.

Pure: numbers in, SVG text out. Colours are the classes of `edge_converter.reporting.chart.STYLE`.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_daemon.policies.explain import sentence
from edge_lab.simulate.play import Run
from edge_lab.simulate.world import Floats, World

_WIDTH, _LEFT, _RIGHT = 410.0, 104.0, 12.0
_TITLE, _GAP, _ROW = 18.0, 14.0, 15.0
_TALL, _LOW = 84.0, 46.0
_POINTS = 360  # of a line; more do not fit
_BINS = 60
_TICKS = 4
_LABEL_CHARS = 14
_MANY = 150  # changes: beyond, the lines from one to the other would hide the rest
_SHOWN_SHARE = 98.0  # of the round trips; the rest are drawn at the top


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What the columns of one scenario share, so that they can be compared by eye.

    Attributes:
        actions: Those that any policy took, the best answers first.
        temp_c, energy_wh, requests: Lowest and highest value drawn.
    """

    actions: tuple[str, ...]
    temp_c: tuple[float, float]
    energy_wh: tuple[float, float]
    requests: tuple[float, float]


def scales(world: World, runs: Sequence[Run]) -> Scales:
    """Wide enough for every run."""
    setting = world.setting
    taken = {action for run in runs for action in run.action}
    order = sorted(setting.tasks[0].actions, key=lambda a: (-a.quality, a.hedge is None, a.id))
    heat = [value for run in runs for value in run.temp_c] + ([] if setting.temp_c is None else [setting.temp_c])
    energy = max(run.energy_wh[-1] for run in runs)
    if setting.battery_j is not None:
        energy = max(energy, setting.battery_j / 3600)
    return Scales(
        actions=tuple(action.id for action in order if action.id in taken),
        temp_c=(math.floor(min(heat) / 5) * 5, math.ceil(max(heat) / 5) * 5),
        energy_wh=(0.0, energy * 1.05 or 1.0),
        requests=(0.0, max(1.0, *(max(_binned(run.requests)) for run in runs))),
    )


def column(world: World, run: Run, shared: Scales) -> str:
    """The drawing of one run."""
    parts: list[str] = []
    panels: list[tuple[float, Callable[[_Frame], Iterator[str]]]] = [
        (_ROW * max(len(shared.actions), 1), lambda frame: _variants(frame, world, run, shared.actions)),
        (_TALL, lambda frame: _heat(frame, world, run, shared.temp_c)),
        (_TALL, lambda frame: _energy(frame, world, run, shared.energy_wh)),
        (_TALL, lambda frame: _requests(frame, run, shared.requests)),
    ]
    if world.rtt_ms is not None and world.up_mbps is not None:
        rtt_ms, up_mbps = world.rtt_ms, world.up_mbps
        panels.append((_LOW, lambda frame: _network(frame, rtt_ms, "round trip, ms")))
        panels.append((_LOW, lambda frame: _network(frame, up_mbps, "uplink, Mbit/s")))
    top = 0.0
    for height, draw in panels:
        frame = _Frame(top + _TITLE, height, world.seconds)
        parts += frame.grid()
        parts += draw(frame)
        top += _TITLE + height + _GAP
    parts += _Frame(0.0, top - _GAP, world.seconds).clock()
    name = html.escape(run.policy)
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {top + 8:g}" role="img" aria-label="Timelines of {name}">'
        + "".join(parts)
        + "</svg>"
    )


class _Frame:
    """One panel: where seconds and values lie."""

    def __init__(self, top: float, height: float, seconds: int) -> None:
        self.top, self.height, self._seconds = top, height, seconds

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * second / self._seconds

    def y(self, value: float, ends: tuple[float, float]) -> float:
        low, high = ends
        share = (min(max(value, low), high) - low) / (high - low or 1.0)
        return self.bottom - self.height * share

    def grid(self) -> Iterator[str]:
        for second in _ticks(self._seconds):
            x = self.x(second)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top:.1f}" y2="{self.bottom:.1f}"/>'
        y = f"{self.bottom:.1f}"
        yield f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y}" y2="{y}"/>'

    def clock(self) -> Iterator[str]:
        for second in _ticks(self._seconds):
            label = f"{second / 60:g} min" if self._seconds >= 120 else f"{second:g} s"  # noqa: PLR2004 - two minutes
            anchor = "start" if second == 0 else "end" if second == self._seconds else "middle"
            x, y = f"{self.x(second):.1f}", f"{self.bottom + 14:.1f}"
            yield f'<text class="faint" x="{x}" y="{y}" text-anchor="{anchor}">{label}</text>'

    def title(self, text: str) -> str:
        return f'<text x="{_LEFT:g}" y="{self.top - 5:.1f}" font-weight="600">{html.escape(text)}</text>'

    def value(self, value: float, ends: tuple[float, float], text: str) -> str:
        return (
            f'<text class="faint" x="{_LEFT - 6:g}" y="{self.y(value, ends) + 4:.1f}" text-anchor="end">{text}</text>'
        )

    def line(self, values: Floats, ends: tuple[float, float], series: int, extra: str = "") -> str:
        """Not-a-number breaks it."""
        at = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).astype(int)
        path, is_drawn = [], False
        for index in at.tolist():
            value = float(values[index])
            if math.isnan(value):
                is_drawn = False
                continue
            path.append(f"{'L' if is_drawn else 'M'}{self.x(index + 1):.1f} {self.y(value, ends):.1f}")
            is_drawn = True
        return f'<path class="line" style="stroke:var(--s{series});{extra}" d="{"".join(path)}"/>'

    def level(self, value: float, ends: tuple[float, float], text: str) -> Iterator[str]:
        y = self.y(value, ends)
        yield f'<line class="limit" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="faint" x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _variants(frame: _Frame, world: World, run: Run, actions: Sequence[str]) -> Iterator[str]:
    yield frame.title("what runs")
    rows = {action: frame.top + _ROW * (row + 0.5) for row, action in enumerate(actions)}
    for action, y in rows.items():
        text = action if len(action) <= _LABEL_CHARS else action[: _LABEL_CHARS - 1] + "…"
        yield f'<text class="faint" x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{html.escape(text)}</text>'
    known = {action.id: action for action in world.setting.tasks[0].actions}
    end_s = float(len(run.action)) if run.dead_s is None else run.dead_s
    ends = [began for began, *_ in run.reasons[1:]] + [end_s]
    pale = ' style="opacity:.15"' if len(run.reasons) > _MANY else ""
    for (began, old, new, verdict), until in zip(run.reasons, ends, strict=True):
        x, y, width = frame.x(began), rows[new], max(frame.x(until) - frame.x(began), 0.6)
        if old:
            yield f'<line class="leader" x1="{x:.1f}" x2="{x:.1f}" y1="{rows[old]:.1f}" y2="{y:.1f}"{pale}/>'
        why = sentence(verdict.why, world.setting, known.get(old), known[new], metered=True)
        note = html.escape(f"{_at(began)}, {why}")
        yield (
            f'<rect class="s{actions.index(new) % 8}" style="stroke:none" x="{x:.1f}" y="{y - 4:.1f}" '
            f'width="{width:.1f}" height="8"><title>{note}</title></rect>'
        )
    if run.dead_s is not None:
        yield f'<text x="{frame.x(run.dead_s) + 3:.1f}" y="{frame.top + 10:.1f}">empty</text>'


def _heat(frame: _Frame, world: World, run: Run, ends: tuple[float, float]) -> Iterator[str]:
    yield frame.title("die, °C")
    limit_c = world.setting.temp_c
    values = np.asarray(run.temp_c)
    yield frame.value(ends[0], ends, f"{ends[0]:g}")
    if limit_c is None:
        yield frame.value(ends[1], ends, f"{ends[1]:g}")
    else:
        yield from frame.level(limit_c, ends, f"limit {limit_c:g}")
    yield frame.line(_highest(values), ends, 1)


def _energy(frame: _Frame, world: World, run: Run, ends: tuple[float, float]) -> Iterator[str]:
    yield frame.title("energy drawn, Wh")
    battery_j = world.setting.battery_j
    yield frame.value(0.0, ends, "0")
    if battery_j is None:
        yield frame.value(ends[1], ends, f"{ends[1]:.1f}" if ends[1] >= 1 else f"{ends[1]:.2g}")
    else:
        yield from frame.level(battery_j / 3600, ends, f"battery {battery_j / 3600:.2f}")
    yield frame.line(np.asarray(run.energy_wh), ends, 4)


def _requests(frame: _Frame, run: Run, ends: tuple[float, float]) -> Iterator[str]:
    yield frame.title("requests per second: in time, late or lost")
    yield frame.value(0.0, ends, "0")
    yield frame.value(ends[1], ends, f"{ends[1]:.3g}")
    total, good = _binned(run.requests), _binned(run.in_time)
    each = len(run.requests) / len(total)
    for index, (all_, fine) in enumerate(zip(total, good, strict=True)):
        x, width = frame.x(index * each), frame.x((index + 1) * each) - frame.x(index * each)
        middle, top = frame.y(fine, ends), frame.y(all_, ends)
        share = 100 * (all_ - fine) / all_ if all_ else 0.0
        note = f"{_at(index * each)}: {all_:.1f} per second, {share:.1f} % late or lost"
        yield f"<g><title>{note}</title>"
        yield _bar(2, x, middle, width, frame.bottom - middle)
        yield _bar(1, x, top, width, middle - top)
        yield "</g>"


def _bar(series: int, x: float, y: float, width: float, height: float) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect class="s{series}" style="stroke:none" x="{x + 0.3:.1f}" y="{y:.1f}" width="{width - 0.6:.1f}" '
        f'height="{height:.1f}"/>'
    )


def _network(frame: _Frame, values: Floats, title: str) -> Iterator[str]:
    """Where nothing goes through, the round trip has no line and the uplink is 0."""
    yield frame.title(title)
    finite = values[np.isfinite(values)]
    high = float(np.percentile(finite, _SHOWN_SHARE)) if len(finite) else 1.0
    ends = (0.0, high or 1.0)
    yield frame.value(0.0, ends, "0")
    yield frame.value(ends[1], ends, f"{ends[1]:.3g}")
    yield frame.line(np.where(np.isfinite(values), values, np.nan), ends, 0, "stroke-width:1")


def _highest(values: Floats) -> Floats:
    """Each value the highest of its neighbourhood, so that a peak is not lost between two points of the line."""
    width = max(1, len(values) // _POINTS)
    padded = np.concatenate([values, np.full((-len(values)) % width, values[-1])])
    return np.repeat(padded.reshape(-1, width).max(axis=1), width)[: len(values)]


def _binned(counts: Sequence[int]) -> list[float]:
    """Counts per second as means of about `_BINS` equal parts."""
    bins = min(_BINS, len(counts))
    edges = np.linspace(0, len(counts), bins + 1).astype(int)
    return [float(np.mean(counts[a:b])) for a, b in itertools.pairwise(edges)]


def _ticks(seconds: int) -> list[float]:
    return [seconds * index / _TICKS for index in range(_TICKS + 1)]


def _at(second: float) -> str:
    return f"{int(second) // 60}:{int(second) % 60:02d}"
