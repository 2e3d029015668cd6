"""From margins to scores that read as risks, and from a budget of false alarms to thresholds.

Scores are calibrated by Platt's sigmoid on margins out of fold. A threshold is the lowest score that, in every
population and under every way of living it was tried on, touches at most the budgeted share of the clean
transactions: by the data, not by taste. Floats are fine here: what comes out are integers.
Leaves out: what a chain makes of the suggestion (its parameters decide).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.ledger.scoring import SCORE_MAX, Thresholds
from ml.dataset import Trace
from ml.definitions import DAY_MS, Bytes, Int64s
from ml.forest import LEAF_SCALE_BITS
from ml.metrics import compute_at_fpr, compute_average_precision, compute_roc_auc
from ml.model import Calibration, Model, make_sigmoid
from ml.playback import ON_TIME, Progress, ignore_progress, play_features, schedule_reports


@dataclass(frozen=True, slots=True)
class Budget:
    """What shares of the clean transactions may be flagged, and refused."""

    flag_fpr: float = 0.005
    refuse_fpr: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.refuse_fpr <= self.flag_fpr < 1:
            raise Rejected(
                f"{self.refuse_fpr} refused and {self.flag_fpr} flagged",
                field="budget",
                mend="give 0 < refused <= flagged < 1",
            )


BUDGET: Final = Budget()


def choose_thresholds(seen: Sequence[tuple[Bytes, Int64s]], budget: Budget = BUDGET) -> Thresholds:
    """The lowest scores that keep to the budget in each of `seen`: pairs of 0/1 labels and scores."""
    flag, refuse = (
        max(compute_at_fpr(fraud, score, fpr)[2] for fraud, score in seen)
        for fpr in (budget.flag_fpr, budget.refuse_fpr)
    )
    return Thresholds(flag, max(flag, refuse))


def calibrate_model(
    model: Model,
    trace: Trace,
    day_start: int,
    day_end: int,
    seed: int,
    budget: Budget = BUDGET,
    progress: Progress = ignore_progress,
) -> Model:
    """`model` with calibration, thresholds and metrics from days [day_start, day_end) of a labelled trace, which
    should not be the days its trees were trained on. Raises Rejected if there is nothing to learn from."""
    if trace.fraud is None:
        raise Rejected("has no labels", field="data", mend="add a column `label` or `fraud` of 0 and 1")
    first, end = np.searchsorted(trace.time_ms, (day_start * DAY_MS, day_end * DAY_MS)).tolist()
    fraud = trace.fraud[first:end]
    if not 0 < int(fraud.sum()) < len(fraud):
        raise Rejected("holds no frauds, or no clean rows, on those days", field="data")
    schedule = schedule_reports(trace, ON_TIME, seed)
    features = play_features(trace, schedule, model.scale, end, progress, definitions=model.definitions)[
        first:
    ]
    margins = model.forest.compute_margins(features)
    calibration = fit_calibration(margins, fraud, np.ones(len(fraud)))
    scores = calibration.compute_scores(margins)
    card = replace(
        model.card,
        day_start=day_start,
        day_end=day_end,
        rows=len(fraud),
        positives=int(fraud.sum()),
        seed=seed,
        metrics=measure_scores(fraud, scores, budget),
    )
    thresholds = choose_thresholds([(fraud, scores)], budget)
    return replace(model, calibration=calibration, thresholds=thresholds, card=card)


def fit_calibration(margins: Int64s, fraud: Bytes, weight: NDArray[np.float64]) -> Calibration:
    """Platt's sigmoid (1999) through margins and labels, as integer knots: rising, so no new ties."""
    x = margins / 2**LEAF_SCALE_BITS
    slope, offset = 1.0, 0.0
    for _ in range(25):  # Newton's steps; converges in about six
        p = 1 / (1 + np.exp(-np.clip(slope * x + offset, -30, 30)))
        curve = weight * np.maximum(p * (1 - p), 1e-12)
        pull = weight * (fraud - p)
        xx, x1, one = float((curve * x * x).sum()), float((curve * x).sum()), float(curve.sum())
        det = xx * one - x1 * x1
        if det <= 1e-9:
            break  # all margins alike
        gx, g1 = float((pull * x).sum()), float(pull.sum())
        step = ((one * gx - x1 * g1) / det, (xx * g1 - x1 * gx) / det)
        slope, offset = slope + step[0], offset + step[1]
        if max(map(abs, step)) < 1e-9:
            break
    # scores must rise with margins, and not by leaps
    return make_sigmoid(min(max(slope, 0.25), 4.0), offset)


def measure_scores(fraud: Bytes, scores: Int64s, budget: Budget = BUDGET) -> tuple[tuple[str, int], ...]:
    """What a card says: figures by name in hundredths of a per cent."""
    flagged = compute_at_fpr(fraud, scores, budget.flag_fpr)
    refused = compute_at_fpr(fraud, scores, budget.refuse_fpr)
    figures = {
        "average_precision": compute_average_precision(fraud, scores),
        "roc_auc": compute_roc_auc(fraud, scores),
        "flag_recall": flagged[0],
        "flag_precision": flagged[1],
        "refuse_recall": refused[0],
        "refuse_precision": refused[1],
    }
    return tuple((name, round(value * SCORE_MAX)) for name, value in figures.items())
