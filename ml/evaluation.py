"""Measuring a module on a labelled trace: the published protocol, or any days, under any reporting.

Rows before the measured days warm the state up; every row is observed and none refused, as in the
published protocol. Invariant: labels reach the module as reports only (ml/playback.py).
Source of the protocol: Fraud Detection Handbook (Le Borgne et al. 2022), chapter 3: on each test day,
senders with a fraud known by then (on the days from two weeks before the first test day to eight days
before the test day) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.ledger.scoring import ValidationModule
from ml.dataset import Trace
from ml.features import DAY_MS, LABEL_DELAY_DAYS
from ml.metrics import compute_at_fpr, compute_average_precision, compute_card_precision, compute_roc_auc
from ml.playback import Progress, ReportPlan, ignore_progress, play_scores, schedule_reports
from ml.training import find_rows

FPRS: Final = (0.0001, 0.0005, 0.001)
KNOWN_FROM_DAYS: Final = 14  # the handbook's training week begins two weeks before its test week

# Average precision, ROC AUC and card precision at 100 on days 129 to 135, trained on days 115 to 121
# (handbook, chapter 3.4, table of baseline performances).
PUBLISHED: Final = (
    ("logistic regression", 0.606, 0.871, 0.291),
    ("decision tree, depth 2", 0.496, 0.763, 0.241),
    ("decision tree", 0.309, 0.788, 0.243),
    ("random forest", 0.658, 0.867, 0.287),
    ("XGBoost", 0.639, 0.862, 0.273),
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of the measured rows; `at_fpr` holds (false-positive rate, recall, precision)."""

    rows: int
    positives: int
    average_precision: float
    roc_auc: float
    card_precision_at_100: float
    at_fpr: tuple[tuple[float, float, float], ...]
    microseconds_per_transaction: float


def evaluate_module(
    trace: Trace,
    module: ValidationModule,
    day_start: int,
    day_end: int,
    plan: ReportPlan,
    seed: int,
    handbook: bool = False,
    progress: Progress = ignore_progress,
) -> tuple[Evaluation, NDArray[np.int64]]:
    """Figures for the rows of days [day_start, day_end), and the score of each of those rows.

    With `handbook` the figures leave out what the published table leaves out; the scores do not.
    Raises Rejected if there are no labels or no such rows.
    """
    if trace.fraud is None:
        raise Rejected("has no labels", field="data", mend="add a column `label` or `fraud` of 0 and 1")
    first, end = find_rows(trace, day_start, day_end)
    played = play_scores(trace, schedule_reports(trace, plan, seed), module, end, progress)
    rows = np.arange(first, end)
    if handbook:
        rows = rows[select_handbook_rows(trace, day_start, day_end)[first:end]]
    fraud, score, sender = trace.fraud[rows], played.score[rows], trace.sender[rows]
    at_fpr = tuple((fpr, *compute_at_fpr(fraud, score, fpr)[:2]) for fpr in FPRS)
    figures = Evaluation(
        rows=len(rows),
        positives=int(fraud.sum()),
        average_precision=compute_average_precision(fraud, score),
        roc_auc=compute_roc_auc(fraud, score),
        card_precision_at_100=compute_card_precision(fraud, score, sender, trace.time_ms[rows] // DAY_MS),
        at_fpr=at_fpr,
        microseconds_per_transaction=played.seconds * 1e6 / end,
    )
    return figures, played.score[first:end]


def select_handbook_rows(trace: Trace, day_start: int, day_end: int) -> NDArray[np.bool_]:
    """bool[n]: the rows of days [day_start, day_end) whose senders the published protocol keeps."""
    assert trace.fraud is not None
    day = trace.time_ms // DAY_MS
    kept = np.zeros(len(trace), dtype=bool)
    for test_day in range(day_start, day_end):
        known = (day >= day_start - KNOWN_FROM_DAYS) & (day < test_day - LABEL_DELAY_DAYS)
        caught = np.unique(trace.sender[known & (trace.fraud == 1)])
        kept |= (day == test_day) & ~np.isin(trace.sender, caught)
    return kept
