"""How well scores rank frauds: average precision, ROC AUC, recall at small error rates, card precision.

Invariant: equal scores are one threshold (nothing depends on the order of rows), as in scikit-learn,
with which the tests compare. Card precision follows the Fraud Detection Handbook (Le Borgne et al.
2022, chapter 4, "Precision top-k metrics"), so that figures stand beside its published table.
Leaves out: confidence intervals. Floats are fine here: nothing on the scoring path calls this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import SCORE_MAX

CARDS_PER_DAY: Final = 100  # what the published table lets investigators check a day

Labels = NDArray[np.uint8]
Int64s = NDArray[np.int64]


def count_at_thresholds(fraud: Labels, score: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Thresholds (the distinct scores, falling), true and false positives at or above each."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(score) else np.array([], int)
    positives = np.cumsum(fraud[order], dtype=np.int64)[last]
    return ordered[last], positives, last + 1 - positives


def compute_average_precision(fraud: Labels, score: Int64s) -> float:
    """Sum over thresholds of precision times the recall gained there; 0.0 without frauds."""
    _, true, false = count_at_thresholds(fraud, score)
    if not len(true) or true[-1] == 0:
        return 0.0
    gained = np.diff(true, prepend=0)
    return float(np.sum(gained / true[-1] * (true / (true + false))))


def compute_roc_auc(fraud: Labels, score: Int64s) -> float:
    """The chance that a fraud scores above a clean row (ties count half); 0.5 if either is missing."""
    _, true, false = count_at_thresholds(fraud, score)
    if not len(true) or true[-1] == 0 or false[-1] == 0:
        return 0.5
    below = true - np.diff(true, prepend=0) / 2  # frauds above a threshold's clean rows, half of the ties
    return float(np.sum(np.diff(false, prepend=0) * below) / (true[-1] * false[-1]))


def compute_at_fpr(fraud: Labels, score: Int64s, fpr_max: float) -> tuple[float, float, int]:
    """(recall, precision, threshold) at the lowest threshold whose false-positive rate is <= fpr_max.

    Without such a threshold: (0.0, 0.0, one above the highest score).
    """
    thresholds, true, false = count_at_thresholds(fraud, score)
    if not len(true):
        return 0.0, 0.0, 0
    usable = np.flatnonzero(false <= fpr_max * false[-1])
    if not len(usable):
        return 0.0, 0.0, int(thresholds[0]) + 1
    at = usable[-1]
    recall = float(true[at] / true[-1]) if true[-1] else 0.0
    return recall, float(true[at] / (true[at] + false[at])), int(thresholds[at])


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows with scores of [low, high): how many, the risk that the scores state, and the frauds' share."""

    low: int
    high: int
    rows: int
    stated: float
    found: float


RELIABILITY_EDGES: Final = (0, 50, 100, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000, 9_000, 9_500, 10_001)


def compute_reliability(fraud: Labels, score: Int64s) -> list[ReliabilityBin]:
    """What scores state beside what was found, in bins of RELIABILITY_EDGES that hold any row."""
    bins = []
    for low, high in pairwise(RELIABILITY_EDGES):
        rows = np.flatnonzero((score >= low) & (score < high))
        if len(rows):
            stated, found = float(score[rows].mean()) / SCORE_MAX, float(fraud[rows].mean())
            bins.append(ReliabilityBin(low, high, len(rows), stated, found))
    return bins


def compute_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: |stated - found| averaged over rows."""
    rows = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.stated - b.found) for b in bins) / rows if rows else 0.0


def compute_card_precision(
    fraud: Labels, score: Int64s, sender: Int64s, day: Int64s, cards: int = CARDS_PER_DAY
) -> float:
    """Mean over days of the share of frauds' senders among the `cards` senders of the highest scores.

    A sender counts with its highest score and any fraud of the day. One found on an earlier day is left
    out from then on, as the handbook does. Ties go to the lower sender number.
    """
    found: set[int] = set()
    precisions = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        rows = rows[~np.isin(sender[rows], np.array(sorted(found), dtype=np.int64))]
        senders, owner = np.unique(sender[rows], return_inverse=True)
        highest = np.full(len(senders), np.iinfo(np.int64).min)
        np.maximum.at(highest, owner, score[rows])
        any_fraud = np.zeros(len(senders), dtype=np.uint8)
        np.maximum.at(any_fraud, owner, fraud[rows])
        top = np.argsort(-highest, kind="stable")[:cards]
        caught = senders[top[any_fraud[top] == 1]]
        found.update(caught.tolist())
        precisions.append(len(caught) / cards)
    return float(np.mean(precisions)) if precisions else 0.0
