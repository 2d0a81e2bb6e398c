"""Drawings as SVG text: a scatter of labelled points, bars, and a timeline of tracks one below the other.

Pure: numbers in, a string out, nothing read and nothing loaded. Colours are classes; a page that shows a drawing puts
`STYLE` into its style sheet once, which follows the reader's light or dark scheme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

SERIES = 8
_LIGHT = ("#0b6bb5", "#c24a00", "#00805c", "#a4488a", "#9a6a00", "#2f93c8", "#5c5fc4", "#6b7280")
_DARK = ("#5fb4f5", "#ff935c", "#3ecfa3", "#e08bc6", "#e6b450", "#8fd0f2", "#a5a8ff", "#a3adba")


def _palette(colours: Sequence[str], ink: str, faint: str, paper: str) -> str:
    series = "".join(f"--s{number}:{colour};" for number, colour in enumerate(colours))
    return f"{series}--ink:{ink};--faint:{faint};--paper:{paper};"


STYLE = (
    f":root{{{_palette(_LIGHT, '#17202b', '#5b6774', '#ffffff')}--grid:#e3e8ee}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_palette(_DARK, '#e8edf3', '#9aa7b5', '#161c24')}--grid:#2c3642}}}}"
    ".chart{width:100%;height:auto;font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    ".chart text{fill:var(--ink)}.chart .faint{fill:var(--faint)}.chart .grid{stroke:var(--grid);stroke-width:1}"
    ".chart .axis{stroke:var(--faint);stroke-width:1}.chart .leader{stroke:var(--faint);stroke-width:.8;opacity:.7}"
    ".chart .limit{stroke:var(--faint);stroke-width:1.2;stroke-dasharray:5 4}.chart .line{fill:none;stroke-width:1.8}"
    ".chart .ring{fill:none;stroke:var(--ink);stroke-width:1.6}"
    ".chart .band{stroke-width:5;stroke-opacity:.28;fill:none}"
    ".chart .pale{opacity:.38}"
    ".chart .mark{fill-opacity:.72;stroke-width:1.2}.chart .hollow{fill:var(--paper);fill-opacity:.5;stroke-width:1.8;"
    "stroke-dasharray:3 2}.chart .span{fill-opacity:.28}.chart .label{font-size:11px;paint-order:stroke;"
    "stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}"
    + "".join(f".s{n}{{fill:var(--s{n});stroke:var(--s{n})}}" for n in range(SERIES))
)

_WIDTH = 920.0
_CHAR_PX = 6.6
_LINE_PX = 13.0
_BAND_PX = 3.0  # half the height of a span
_NAME_CHARS = 48  # of a bar's name; its end tells layers apart
_RADIUS, _LEAST_RADIUS, _MOST_RADIUS = 6.0, 4.0, 20.0
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One mark of a scatter.

    Attributes:
        x: On the horizontal axis.
        y: On the vertical axis; below its range it is drawn on its floor, and `label` should say so.
        weight: The mark's area stands for it.
        label: Beside the mark, where there is room.
        note: Shown while a pointer rests on the mark, and read out.
        series: The number of its colour.
        hollow: Drawn as an outline: made, but left out.
        pale: Drawn faintly: not worth having.
        ring: Drawn with a ring around it: recommended.
        span: Between which `x` the truth is expected, drawn as a line.
    """

    x: float
    y: float
    weight: float = 1.0
    label: str
    note: str = ""
    series: int = 0
    hollow: bool = False
    pale: bool = False
    ring: bool = False
    span: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One direction of a scatter.

    Attributes:
        title: What is counted, with its unit.
        low: Where it begins.
        high: Where it ends.
        logarithmic: Equal distances are equal factors; both ends are above 0.
    """

    title: str
    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis the value lies: 0 at its beginning, 1 at its end."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values on the axis, about six of them."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            found = [value for value in every if self.low <= value <= self.high]
            few = [value for value in found if f"{value:e}"[0] == "1"]
            if len(found) > 1:
                return few if len(found) > 10 and len(few) > 1 else found  # noqa: PLR2004 - what fits side by side
        step = _round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Sequence[float], *, title: str, logarithmic: bool = False, least: float = 0.0) -> Axis:
    """An axis that holds these values with some room on both sides.

    Args:
        values: At least one.
        title: What is counted, with its unit.
        logarithmic: As in `Axis`.
        least: The shortest range worth showing: smaller differences are not blown up.
    """
    low, high = min(values), max(values)
    if logarithmic:
        return Axis(title=title, low=low / 1.6, high=high * 1.9, logarithmic=True)
    room = max(0.12 * (high - low), 0.5 * (least - (high - low)), 1e-9 * max(1.0, abs(low), abs(high)))
    return Axis(title=title, low=low - room, high=high + room)


def scatter(
    points: Sequence[Point],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    legend: Sequence[str] = (),
    weight_note: str = "",
    out: str = "refused",
    limit: float | None = None,
) -> str:
    """Points as discs, each with its label where there is room for it.

    Args:
        points: What to draw.
        x: The horizontal axis.
        y: The vertical axis.
        title: For those who do not see it.
        description: Likewise, what there is to see.
        legend: The names of the series, in the order of their numbers.
        weight_note: What the area of a disc stands for; empty where all are alike.
        out: What a hollow mark is.
        limit: A value of `x` that is a bound, drawn dashed.
    """
    height, top, bottom, left, right = 480.0, 44.0, 426.0, 62.0, _WIDTH - 18
    plane = _Plane(x, y, (left, top, right, bottom))
    parts = [*_key(legend, _states(points, out), weight_note, right), *plane.frame()]
    if limit is not None:
        px = plane.across(limit)
        parts.append(f'<line class="limit" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
    most = max((point.weight for point in points), default=1.0)
    discs = [(point, *plane.at(point), _radius(point, most) if weight_note else _RADIUS) for point in points]
    for point, _, py, _ in discs:
        if point.span is not None:
            low, high = (plane.across(end) for end in point.span)
            colour = f"band s{point.series % SERIES}"
            parts.append(f'<line class="{colour}" x1="{low:.1f}" x2="{high:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
    for point, px, py, radius in sorted(discs, key=lambda disc: -disc[3]):
        if point.ring:
            parts.append(f'<circle class="ring" cx="{px:.1f}" cy="{py:.1f}" r="{radius + 3.5:.1f}"/>')
        kind = "hollow" if point.hollow else "mark pale" if point.pale else "mark"
        kind = f"{kind} s{point.series % SERIES}"
        style = ' style="fill:var(--paper)"' if point.hollow else ""
        note = f"<title>{_text(point.note or point.label)}</title>"
        parts.append(f'<circle class="{kind}"{style} cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">{note}</circle>')
    spans = [
        (plane.across(point.span[0]), py - _BAND_PX, plane.across(point.span[1]), py + _BAND_PX)
        for point, _, py, _ in discs
        if point.span is not None
    ]
    parts += _labels(discs, spans, (left, top, right, bottom))
    return _svg(parts, height, title, description)


def bars(values: Sequence[tuple[str, float]], *, title: str, description: str, unit: str) -> str:
    """One bar a value, from top to bottom, on a logarithmic scale; what is not above 0 has none.

    Args:
        values: Names, of which the end is shown where they are long, with their values.
        title: For those who do not see it.
        description: Likewise, what there is to see.
        unit: What is counted.
    """
    left, right, top, tall = 330.0, _WIDTH - 70, 8.0, 18.0
    positive = [value for _, value in values if value > 0]
    axis = around(positive or [1.0], title=unit, logarithmic=True)
    bottom = top + tall * len(values)
    parts: list[str] = []
    for tick in axis.ticks():
        px = left + axis.share(tick) * (right - left)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="faint" x="{px:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{tick:.3g}</text>')
    for number, (name, value) in enumerate(values):
        y = top + tall * number
        wide = axis.share(value) * (right - left) if value > 0 else 0.0
        short = name.partition(";")[0]  # a fused layer is called by all that went into it
        shown = short if len(short) <= _NAME_CHARS else f"…{short[1 - _NAME_CHARS :]}"
        parts.append(
            f'<text class="faint" x="{left - 8:.1f}" y="{y + 13:.1f}" text-anchor="end">{_text(shown)}'
            f"<title>{_text(name)}</title></text>"
            f'<rect class="mark s0" x="{left:.1f}" y="{y + 3:.1f}" width="{wide:.1f}" height="{tall - 6:.1f}">'
            f"<title>{_text(name)}: {value:.3g}</title></rect>"
            f'<text class="faint" x="{left + wide + 6:.1f}" y="{y + 13:.1f}">{value:.2g}</text>'
        )
    parts.append(f'<text x="{(left + right) / 2:.1f}" y="{bottom + 38:.1f}" text-anchor="middle">{_text(unit)}</text>')
    return _svg(parts, bottom + 48, title, description)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time in which something was so.

    Attributes:
        start_s: When it began.
        end_s: When it ended.
        label: What was so.
        series: The number of its colour.
    """

    start_s: float
    end_s: float
    label: str
    series: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One strip of a timeline: a line, or spans, or both.

    Attributes:
        label: What it shows, with its unit.
        points: (seconds, value), in order of time; a value that is not finite breaks the line.
        spans: Stretches of time, which do not overlap.
        limit: A value to compare the line with, drawn dashed.
        series: The number of the line's colour.
        stepped: A value holds until the next.
        logarithmic: Equal distances are equal factors; values at or below 0 break the line.
    """

    label: str
    points: Sequence[tuple[float, float]] = ()
    spans: Sequence[Span] = ()
    limit: float | None = None
    series: int = 0
    stepped: bool = False
    logarithmic: bool = False


def timeline(
    tracks: Sequence[Track], *, end_s: float, title: str, description: str, events: Sequence[tuple[float, str]] = ()
) -> str:
    """Tracks one below the other over the same seconds.

    Args:
        tracks: From top to bottom.
        end_s: Where the time axis ends; it begins at 0.
        title: For those who do not see it.
        description: Likewise, what there is to see.
        events: (seconds, what happened): a line through all tracks, numbered as a list beside the drawing would be.
    """
    left, right, gap, top = 180.0, _WIDTH - 18, 14.0, 26.0 if events else 8.0
    axis = Axis(title="seconds", low=0.0, high=max(end_s, 1e-3))

    def at(second: float) -> float:
        return left + axis.share(second) * (right - left)

    parts: list[str] = []
    y = top
    for track in tracks:
        tall = 66.0 if track.points else 30.0
        parts += _strip(track, at, (left, y, right, y + tall))
        y += tall + gap
    bottom = y - gap
    for tick in axis.ticks():
        px = at(tick)
        parts.insert(0, f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="faint" x="{px:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="faint" x="{left:.1f}" y="{bottom + 34:.1f}">seconds</text>')
    taken = -math.inf
    for number, (second, what) in enumerate(events, start=1):
        px = at(second)
        parts.append(
            f'<line class="leader" x1="{px:.1f}" x2="{px:.1f}" y1="{top - 6:.1f}" y2="{bottom:.1f}">'
            f"<title>{_text(what)}</title></line>"
        )
        if px - taken >= 2 * _CHAR_PX + 2:
            parts.append(f'<text class="label" x="{px:.1f}" y="{top - 10:.1f}" text-anchor="middle">{number}</text>')
            taken = px
    return _svg(parts, bottom + 44, title, description)


class _Plane:
    """Where values lie on the drawing."""

    def __init__(self, x: Axis, y: Axis, frame: Box) -> None:
        self._x, self._y = x, y
        self._left, self._top, self._right, self._bottom = frame

    def at(self, point: Point) -> tuple[float, float]:
        return self.across(point.x), self._up(point.y)

    def frame(self) -> Iterator[str]:
        left, right, top, bottom = self._left, self._right, self._top, self._bottom
        for tick in self._x.ticks():
            px = self.across(tick)
            yield f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{top}" y2="{bottom}"/>'
            yield f'<text class="faint" x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:,g}</text>'
        for tick in self._y.ticks():
            py = self._up(tick)
            yield f'<line class="grid" x1="{left}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>'
            yield f'<text class="faint" x="{left - 8}" y="{py + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        yield f'<path class="axis" fill="none" d="M{left} {top}V{bottom}H{right}"/>'
        middle = (left + right) / 2
        yield f'<text x="{middle:.1f}" y="{bottom + 40}" text-anchor="middle">{_text(self._x.title)}</text>'
        up = (top + bottom) / 2
        yield f'<text transform="rotate(-90 14 {up:.1f})" x="14" y="{up:.1f}" text-anchor="middle">'
        yield f"{_text(self._y.title)}</text>"

    def across(self, value: float) -> float:
        return self._left + self._x.share(value) * (self._right - self._left)

    def _up(self, value: float) -> float:
        return self._bottom - self._y.share(value) * (self._bottom - self._top)


def _states(points: Sequence[Point], out: str) -> list[tuple[str, str]]:
    """The ways in which marks are drawn, with what each says."""
    found = (
        ("ring", "recommended", any(point.ring for point in points)),
        ("mark pale s7", "dominated", any(point.pale for point in points)),
        ("hollow s7", out, any(point.hollow for point in points)),
    )
    return [(kind, name) for kind, name, there in found if there]


def _key(legend: Sequence[str], states: Sequence[tuple[str, str]], weight_note: str, right: float) -> Iterator[str]:
    """Names of the series above the drawing, and what area and outline stand for."""
    at = 62.0
    for number, name in enumerate(legend):
        yield f'<circle class="mark s{number % SERIES}" cx="{at + 5:.1f}" cy="16" r="5"/>'
        yield f'<text x="{at + 15:.1f}" y="20">{_text(name)}</text>'
        at += 32 + len(name) * _CHAR_PX * 1.08
    for kind, name in states:
        paper = ' style="fill:var(--paper)"' if kind.startswith("hollow") else ""
        yield f'<circle class="{kind}"{paper} cx="{at + 5:.1f}" cy="16" r="5"/>'
        yield f'<text x="{at + 15:.1f}" y="20">{_text(name)}</text>'
        at += 32 + len(name) * _CHAR_PX * 1.08
    if weight_note:
        yield f'<text class="faint" x="{right}" y="20" text-anchor="end">{_text(weight_note)}</text>'


def _radius(point: Point, most: float) -> float:
    return max(_LEAST_RADIUS, _MOST_RADIUS * math.sqrt(point.weight / most)) if most > 0 else _RADIUS


# Where a label may stand beside its mark: direction, and which end of the text touches.
_SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.7, -0.8), (0.7, 0.8), (-0.7, -0.8), (-0.7, 0.8))
_DISTANCES = (5.0, 16.0, 30.0, 46.0, 64.0, 86.0)


def _labels(discs: Sequence[tuple[Point, float, float, float]], others: Sequence[Box], frame: Box) -> Iterator[str]:
    """Each label at the nearest place where it covers neither a mark nor another label; else it is left to the note."""
    taken: list[Box] = [*others, *((px - r, py - r, px + r, py + r) for _, px, py, r in discs)]
    for point, px, py, radius in sorted(discs, key=lambda disc: (disc[2], disc[1])):
        place = _place(point.label, (px, py, radius), taken, frame)
        if place is None:
            continue
        taken.append(place)
        x0, y0, x1, y1 = place
        near_x, near_y = min(max(px, x0), x1), min(max(py, y0), y1)
        away = math.hypot(near_x - px, near_y - py)
        if away > radius + _DISTANCES[0] + 4:
            edge = radius / away
            sx, sy = px + (near_x - px) * edge, py + (near_y - py) * edge
            yield f'<line class="leader" x1="{sx:.1f}" y1="{sy:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"/>'
        yield f'<text class="label" x="{x0 + 1:.1f}" y="{y1 - 3:.1f}">{_text(point.label)}</text>'


def _place(label: str, disc: tuple[float, float, float], taken: Sequence[Box], frame: Box) -> Box | None:
    px, py, radius = disc
    wide = len(label) * _CHAR_PX + 2
    for distance in _DISTANCES:
        for dx, dy in _SIDES:
            cx, cy = px + dx * (radius + distance), py + dy * (radius + distance)
            x0 = cx if dx > 0 else cx - wide if dx < 0 else cx - wide / 2
            y0 = cy - _LINE_PX / 2 if dy == 0 else cy - _LINE_PX if dy < 0 else cy
            box = (x0, y0, x0 + wide, y0 + _LINE_PX)
            inside = frame[0] <= box[0] and box[2] <= frame[2] and frame[1] <= box[1] and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _strip(track: Track, at: Callable[[float], float], frame: Box) -> Iterator[str]:
    left, top, right, bottom = frame
    tall = bottom - top
    yield f'<text x="4" y="{top + tall / 2 + 4:.1f}">{_text(track.label)}</text>'
    for span in track.spans:
        x0, x1 = at(span.start_s), at(span.end_s)
        yield (
            f'<rect class="span s{span.series % SERIES}" x="{x0:.1f}" y="{top:.1f}" width="{max(1.0, x1 - x0):.1f}" '
            f'height="{tall:.1f}" rx="3"><title>{_text(span.label)}</title></rect>'
        )
        if len(span.label) * _CHAR_PX + 8 <= x1 - x0:
            yield f'<text class="label" x="{x0 + 5:.1f}" y="{top + 19:.1f}">{_text(span.label)}</text>'
    values = [value for _, value in track.points if math.isfinite(value) and (value > 0 or not track.logarithmic)]
    if values:
        yield from _line(track, values, at, frame)
    yield f'<path class="axis" fill="none" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>'


def _line(track: Track, values: Sequence[float], at: Callable[[float], float], frame: Box) -> Iterator[str]:
    left, top, right, bottom = frame
    shown = [*values, *([track.limit] if track.limit is not None else [])]
    axis = around(shown, title=track.label, logarithmic=track.logarithmic)

    def up(value: float) -> float:
        return bottom - axis.share(value) * (bottom - top)

    for value in sorted({min(values), max(values)}):
        yield f'<text class="faint" x="{left - 10:.1f}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    if track.limit is not None:
        y = up(track.limit)
        yield f'<line class="limit" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    words: list[str] = []
    broken = True
    for second, value in track.points:
        if not math.isfinite(value) or (track.logarithmic and value <= 0):
            broken = True
            continue
        px, py = at(second), up(value)
        words.append(
            f"M{px:.1f} {py:.1f}" if broken else f"H{px:.1f}V{py:.1f}" if track.stepped else f"L{px:.1f} {py:.1f}"
        )
        broken = False
    yield f'<path class="line s{track.series % SERIES}" style="fill:none" d="{"".join(words)}"/>'


def _svg(parts: Sequence[str], height: float, title: str, description: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{_text(title)}">'
        f"<title>{_text(title)}</title><desc>{_text(description)}</desc>{''.join(parts)}</svg>"
    )


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
