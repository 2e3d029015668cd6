"""Figures by band: whom a model finds, and whom it troubles, by amount, by age of accounts, by pattern.

Bias is looked for: for each band the share of its frauds that a threshold catches, the share of its clean
transactions that the same threshold stops, and what its scores state beside what was found.
Invariant: one threshold for all bands (a chain has one). Bands are fixed numbers or quantiles of the rows
that are measured. Leaves out: people's attributes; a chain knows none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import SCORE_MAX
from ml.dataset import Trace
from ml.definitions import DAY_MS
from ml.metrics import compute_average_precision

AGE_EDGES_DAYS: Final = (0, 1, 7, 30, 90, 10**9)
AMOUNT_QUANTILES: Final = (0.25, 0.5, 0.75, 0.9, 0.99)

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Band:
    """Some of the measured rows. recall, false_positive_rate: at the threshold; stated: mean score / 10000."""

    kind: str
    name: str
    rows: int
    positives: int
    average_precision: float
    recall: float
    false_positive_rate: float
    stated: float


def compute_bands(trace: Trace, score: Int64s, rows: Int64s, threshold: int) -> list[Band]:
    """The bands of `rows` of a labelled trace, `score` int64[n] of all its rows."""
    assert trace.fraud is not None
    fraud, seen = trace.fraud[rows], score[rows]
    bands = []
    for kind, name, inside in _iterate_bands(trace, rows):
        own_fraud, own_score = fraud[inside], seen[inside]
        if not len(own_fraud):
            continue
        stopped = own_score >= threshold
        bands.append(
            Band(
                kind,
                name,
                rows=len(own_fraud),
                positives=int(own_fraud.sum()),
                average_precision=compute_average_precision(own_fraud, own_score),
                recall=_share(stopped[own_fraud == 1]),
                false_positive_rate=_share(stopped[own_fraud == 0]),
                stated=float(own_score.mean()) / SCORE_MAX,
            )
        )
    return bands


def _share(stopped: NDArray[np.bool_]) -> float:
    return float(stopped.mean()) if len(stopped) else 0.0


def _iterate_bands(trace: Trace, rows: Int64s) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    if trace.pattern is not None:
        pattern = trace.pattern[rows]
        for number, name in enumerate(trace.patterns):
            yield "pattern", name, pattern == number
    amount = trace.amount[rows]
    edges = np.unique(np.quantile(amount, AMOUNT_QUANTILES, method="lower")).tolist()
    for low, high in pairwise([0, *(edge + 1 for edge in edges), 2**53]):
        name = f"from {low:,}" if high == 2**53 else f"{low:,} to {high - 1:,}"
        yield "amount", name, (amount >= low) & (amount < high)
    for side, accounts in (("sender", trace.sender), ("receiver", trace.receiver)):
        age = _compute_ages(trace.time_ms, accounts, len(trace.names))[rows]
        for low, high in pairwise(AGE_EDGES_DAYS):
            name = f"{low} or more days" if high == AGE_EDGES_DAYS[-1] else f"{low} to {high - 1} days"
            yield f"{side}'s age", "first day" if high == 1 else name, (age >= low) & (age < high)


def _compute_ages(time_ms: Int64s, account: Int64s, accounts: int) -> Int64s:
    """int64[n]: days since each row's account was first seen on that side."""
    first = np.full(accounts, np.iinfo(np.int64).max)
    np.minimum.at(first, account, time_ms)
    age: Int64s = (time_ms - first[account]) // DAY_MS
    return age
