"""Curves as an SVG picture, by a few lines of our own: both axes logarithmic, every point labelled.

A straight line of slope one is what grows as fast as what it is plotted over; a level one does not grow.
Invariant: the file is well-formed XML and asks nothing of the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 440
LEFT, RIGHT, TOP, BOTTOM = 90, 190, 50, 60
COLORS: Final = ("#1f6feb", "#d1570b", "#1a7f37", "#8250df", "#bf3989")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by rising x; both coordinates above zero."""

    name: str
    points: tuple[Point, ...]


class _Axis:
    """A logarithmic scale over decades that hold all values."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.first = math.floor(math.log10(min(values)))
        self.last = max(self.first + 1, math.ceil(math.log10(max(values))))
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return round(self._start + share * (self._end - self._start), 1)

    @property
    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.first, self.last + 1)]


def draw_curves(title: str, x_name: str, y_name: str, curves: Sequence[Curve]) -> str:
    """The picture."""
    points = [point for curve in curves for point in curve.points]
    x = _Axis([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = _Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    pieces = [*_draw_frame(title, x_name, y_name, x, y)]
    for number, curve in enumerate(curves):
        pieces += _draw_curve(curve, COLORS[number % len(COLORS)], TOP + 20 * number, x, y)
    body = "\n".join(pieces)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def format_number(value: float) -> str:
    """Short enough for a label: 12k, 3.5, 0.02, 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _draw_frame(title: str, x_name: str, y_name: str, x: _Axis, y: _Axis) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>'
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in x.decades:
        at = x.place(value)
        yield f'<line x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}" stroke="#ddd"/>'
        yield f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{format_number(value)}</text>'
    for value in y.decades:
        at = y.place(value)
        yield f'<line x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{format_number(value)}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_name)}</text>'
    middle = (TOP + bottom) / 2
    yield (
        f'<text x="20" y="{middle}" text-anchor="middle" transform="rotate(-90 20 {middle})">'
        f"{escape(y_name)}</text>"
    )


def _draw_curve(curve: Curve, color: str, legend_y: int, x: _Axis, y: _Axis) -> Iterator[str]:
    places = [(x.place(at), y.place(value)) for at, value in curve.points]
    line = " ".join(f"{at},{height}" for at, height in places)
    yield f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>'
    for (at, height), (where, value) in zip(places, curve.points, strict=True):
        words = f"{escape(curve.name)}: {value:,.4g} at {where:,.4g}"
        yield f'<circle cx="{at}" cy="{height}" r="3.5" fill="{color}"><title>{words}</title></circle>'
        yield f'<text x="{at + 5}" y="{height - 6}" font-size="10">{format_number(value)}</text>'
    legend_x = WIDTH - RIGHT + 16
    yield f'<rect x="{legend_x}" y="{legend_y}" width="12" height="12" fill="{color}"/>'
    yield f'<text x="{legend_x + 18}" y="{legend_y + 10}">{escape(curve.name)}</text>'
