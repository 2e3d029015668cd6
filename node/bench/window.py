"""Arithmetic of a measurement: the rate in a window, whether a backlog grew, percentiles.

Finality comes in blocks, so a window begins and ends at moments when something became final: both edges
are exact, and no block is counted in half. Where nothing becomes final for longer than ever within the
window, the time until its edge counts as well. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from consensus.errors import Fault


@dataclass(frozen=True, slots=True)
class Window:
    """Between two moments of finality: seconds and transactions between them."""

    start_s: float
    end_s: float
    transactions: int

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / (self.end_s - self.start_s)


def cut_window(times_s: Sequence[float], totals: Sequence[int], start_s: float, end_s: float) -> Window:
    """The widest window inside [start_s, end_s] that hides no standstill at its edges.

    times_s rises; totals[i]: final at times_s[i]. Raises Fault when fewer than three blocks became final in it: a rate of that says nothing.
    """
    first = bisect_left(times_s, start_s)
    last = bisect_right(times_s, end_s) - 1
    if last - first < 2:
        raise Fault(
            f"only {max(0, last - first + 1)} blocks became final within {end_s - start_s:.1f} s",
            field="window",
        )
    moments = times_s[first : last + 1]
    usual_s = max(later - earlier for earlier, later in pairwise(moments))
    before = totals[first]
    if moments[0] - start_s > usual_s:
        before = get_total(times_s, totals, start_s)
    else:
        start_s = moments[0]
    if end_s - moments[-1] <= usual_s:
        end_s = moments[-1]
    return Window(start_s, end_s, totals[last] - before)


def get_total(times_s: Sequence[float], totals: Sequence[int], at_s: float) -> int:
    """The total at a moment: 0 before the first."""
    place = bisect_right(times_s, at_s) - 1
    return totals[place] if place >= 0 else 0


def compute_mean_backlog(
    submitted: tuple[Sequence[float], Sequence[int]],
    final: tuple[Sequence[float], Sequence[int]],
    start_s: float,
    end_s: float,
) -> float:
    """How many were submitted and not yet final, on average over every moment between two."""
    return compute_mean_total(*submitted, start_s, end_s) - compute_mean_total(*final, start_s, end_s)


def compute_mean_total(
    times_s: Sequence[float], totals: Sequence[int], start_s: float, end_s: float
) -> float:
    """The total on average between two moments: it steps to totals[i] at times_s[i]."""
    first, last = bisect_right(times_s, start_s), bisect_left(times_s, end_s)
    edges_s = [start_s, *times_s[first:last], end_s]
    values = [get_total(times_s, totals, start_s), *totals[first:last]]
    area = sum(value * (end - begin) for value, (begin, end) in zip(values, pairwise(edges_s), strict=True))
    return area / (end_s - start_s)


def compute_percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that so many percent do not exceed."""
    if not values:
        raise Fault("there is nothing to take it of", field="percentile")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def merge_counts(logs: Sequence[Sequence[tuple[float, int]]]) -> tuple[list[float], list[int]]:
    """Several processes' (moment, how many then) as one rising (moments, totals)."""
    times_s, totals, total = [], [], 0
    for at_s, count in sorted(entry for log in logs for entry in log):
        total += count
        times_s.append(at_s)
        totals.append(total)
    return times_s, totals
