"""Measuring a module on a labelled trace: the published protocol, or any days, under any reporting.

Rows before the measured days warm the state up; every row is observed and none refused, as in the
published protocol. Invariant: labels reach the module as reports only (ml/playback.py).
Source of the protocol: Fraud Detection Handbook (Le Borgne et al. 2022), chapter 3: on each test day,
senders with a fraud known by then (on the days from two weeks before the first test day to eight days
before the test day) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.ledger.scoring import ValidationModule
from ml.dataset import Trace
from ml.definitions import DAY_MS
from ml.metrics import compute_at_fpr, compute_average_precision, compute_card_precision, compute_roc_auc
from ml.playback import (
    LABEL_DELAY_DAYS,
    ON_TIME,
    Progress,
    ReportPlan,
    ignore_progress,
    play_scores,
    schedule_reports,
)
from ml.training import find_rows

# The ways in which labels may arrive that a model must bear; the first is what its training calls on time.
REGIMES: Final[Mapping[str, ReportPlan]] = {
    "on time": ON_TIME,
    "late 7..21": ReportPlan(delay_days=(7, 21)),
    "70 % come": ReportPlan(share=0.7),
    "1 % false": ReportPlan(false=0.01),
    "all at once": ReportPlan(delay_days=(7, 21), share=0.7, false=0.01),
}
WEEK_DAYS: Final = 7
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


@dataclass(frozen=True, slots=True)
class Run:
    """A module's scores of a trace under one way of reporting: int64[end], and what each cost."""

    trace: Trace
    score: NDArray[np.int64]
    microseconds_per_transaction: float


def play_run(
    trace: Trace,
    module: ValidationModule,
    end: int,
    plan: ReportPlan,
    seed: int,
    progress: Progress = ignore_progress,
) -> Run:
    """The scores of a labelled trace's first `end` rows. Raises Rejected if there are no labels."""
    if trace.fraud is None:
        raise Rejected("has no labels", field="data", mend="add a column `label` or `fraud` of 0 and 1")
    played = play_scores(trace, schedule_reports(trace, plan, seed), module, end, progress)
    return Run(trace, played.score, played.seconds * 1e6 / end)


def select_rows(trace: Trace, day_start: int, day_end: int, handbook: bool) -> NDArray[np.int64]:
    """The rows that are measured: of days [day_start, day_end), with `handbook` what its protocol keeps."""
    first, end = find_rows(trace, day_start, day_end)
    rows = np.arange(first, end)
    return rows[select_handbook_rows(trace, day_start, day_end)[first:end]] if handbook else rows


def measure_run(run: Run, rows: NDArray[np.int64]) -> Evaluation:
    """Figures of those rows."""
    assert run.trace.fraud is not None
    fraud, score = run.trace.fraud[rows], run.score[rows]
    sender, day = run.trace.sender[rows], run.trace.time_ms[rows] // DAY_MS
    return Evaluation(
        rows=len(rows),
        positives=int(fraud.sum()),
        average_precision=compute_average_precision(fraud, score),
        roc_auc=compute_roc_auc(fraud, score),
        card_precision_at_100=compute_card_precision(fraud, score, sender, day),
        at_fpr=tuple((fpr, *compute_at_fpr(fraud, score, fpr)[:2]) for fpr in FPRS),
        microseconds_per_transaction=run.microseconds_per_transaction,
    )


def measure_weeks(run: Run, day_start: int, day_end: int, handbook: bool) -> list[tuple[int, Evaluation]]:
    """The first day and the figures of each whole week of days [day_start, day_end); the state goes on."""
    starts = range(day_start, day_end - WEEK_DAYS + 1, WEEK_DAYS)
    return [(day, measure_run(run, select_rows(run.trace, day, day + WEEK_DAYS, handbook))) for day in starts]


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
    first, end = find_rows(trace, day_start, day_end)
    run = play_run(trace, module, end, plan, seed, progress)
    return measure_run(run, select_rows(trace, day_start, day_end, handbook)), run.score[first:end]


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
