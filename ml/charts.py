"""Curves as SVG text: precision and recall, reliability, the distribution of scores.

No scripts, fonts or links: a chart looks the same offline and for ever. Colours are told apart by people who
do not tell red from green (Okabe and Ito 2008), and curves also by their dashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import SCORE_MAX
from ml.metrics import ReliabilityBin, count_at_thresholds

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: Final = ("", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "")
WIDTH: Final = 520
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 48
POINTS_MAX: Final = 400  # of one curve: finer than its pixels
SCORE_BINS: Final = 50

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line through points with coordinates of 0..1."""

    name: str
    points: Points
    dots: bool = False


def trace_precision_recall(name: str, fraud: NDArray[np.uint8], score: NDArray[np.int64]) -> Curve:
    """Recall and precision at every threshold, thinned to POINTS_MAX points."""
    _, true, false = count_at_thresholds(fraud, score)
    if not len(true) or true[-1] == 0:
        return Curve(name, [])
    keep = np.unique(np.linspace(0, len(true) - 1, POINTS_MAX).astype(int))
    recall, precision = true[keep] / true[-1], true[keep] / (true[keep] + false[keep])
    return Curve(name, list(zip(recall.tolist(), precision.tolist(), strict=True)))


def trace_reliability(name: str, bins: Sequence[ReliabilityBin]) -> Curve:
    """The stated risk and the frauds' share of each bin."""
    return Curve(name, [(b.stated, b.found) for b in bins], dots=True)


def draw_curves(curves: Sequence[Curve], across: str, up: str, diagonal: bool = False) -> str:
    """An SVG of curves in the unit square, with a legend below."""
    parts = [_draw_frame(across, up, [f"{n / 5:.1f}" for n in range(6)], [f"{n / 5:.1f}" for n in range(6)])]
    if diagonal:
        parts.append(f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" class="grid" stroke-dasharray="4 4"/>')
    for number, curve in enumerate(curves):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        path = "L".join(f"{_x(x)} {_y(y)}" for x, y in curve.points)
        if path:
            parts.append(
                f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
            )
        if curve.dots:
            parts += [f'<circle cx="{_x(x)}" cy="{_y(y)}" r="3.5" fill="{colour}"/>' for x, y in curve.points]
    return _close(parts, [curve.name for curve in curves])


def draw_scores(fraud: NDArray[np.uint8], score: NDArray[np.int64], marks: Sequence[tuple[str, int]]) -> str:
    """An SVG of how many clean rows and frauds have which score, on a logarithmic scale, with thresholds."""
    place = np.minimum(score * SCORE_BINS // (SCORE_MAX + 1), SCORE_BINS - 1)
    counts = [np.bincount(place[fraud == kind], minlength=SCORE_BINS) for kind in (0, 1)]
    decades = max(1, int(np.ceil(np.log10(max(int(counts[0].max()), int(counts[1].max()), 10)))))
    ticks = [f"{10**n:,}" for n in range(decades + 1)]
    parts = [_draw_frame("score", "rows", [f"{n * 2000}" for n in range(6)], ticks)]
    bar = (WIDTH - LEFT - RIGHT) / SCORE_BINS / 2
    for kind, count in enumerate(counts):
        for number, rows in enumerate(count.tolist()):
            if rows:
                height = max(np.log10(rows) / decades, 0.01)
                parts.append(
                    f'<rect x="{_x(number / SCORE_BINS) + kind * bar:.1f}" y="{_y(height)}" width="{bar:.1f}"'
                    f' height="{_y(0) - _y(height):.1f}" fill="{COLOURS[kind]}"/>'
                )
    for name, value in marks:
        if value <= SCORE_MAX:
            x = _x(value / SCORE_MAX)
            parts.append(f'<path d="M{x} {_y(0)}L{x} {_y(1)}" class="mark" stroke-dasharray="3 3"/>')
            parts.append(f'<text x="{x - 4}" y="{TOP + 12}" text-anchor="end">{escape(name)}</text>')
    return _close(parts, ["clean", "fraud"])


def _x(part: float) -> float:
    return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)


def _y(part: float) -> float:
    return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)


def _draw_frame(across: str, up: str, x_ticks: Sequence[str], y_ticks: Sequence[str]) -> str:
    parts = []
    for number, text in enumerate(x_ticks):
        x = _x(number / (len(x_ticks) - 1))
        parts.append(f'<path d="M{x} {_y(0)}L{x} {_y(1)}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{_y(0) + 16}" text-anchor="middle">{text}</text>')
    for number, text in enumerate(y_ticks):
        y = _y(number / (len(y_ticks) - 1))
        parts.append(f'<path d="M{_x(0)} {y}L{_x(1)} {y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    middle = _y(0.5)
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(up)}</text>'
    )
    return "".join(parts)


def _close(parts: list[str], names: Sequence[str]) -> str:
    legend = "".join(
        f'<span><i style="background:{COLOURS[n % len(COLOURS)]}"></i>{escape(name)}</span>'
        for n, name in enumerate(names)
    )
    label = escape(", ".join(names))
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
        f"<figcaption>{legend}</figcaption></figure>"
    )
