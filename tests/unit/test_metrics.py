"""Metrics against scikit-learn and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import Rejected
from ml.calibration import Budget, choose_thresholds
from ml.metrics import (
    compute_at_fpr,
    compute_average_precision,
    compute_calibration_error,
    compute_card_precision,
    compute_reliability,
    compute_roc_auc,
)

labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12)), min_size=2, max_size=60)


def columns(rows):
    fraud, score = np.array(rows).T
    return fraud.astype(np.uint8), score.astype(np.int64)


@given(labelled)
@settings(max_examples=100, deadline=None)
def test_average_precision_and_auc_agree_with_scikit_learn(rows):
    sklearn = pytest.importorskip("sklearn.metrics")
    fraud, score = columns([*rows, (0, 3), (1, 4)])
    assert compute_average_precision(fraud, score) == pytest.approx(
        sklearn.average_precision_score(fraud, score)
    )
    assert compute_roc_auc(fraud, score) == pytest.approx(sklearn.roc_auc_score(fraud, score))


@given(labelled, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = rows[:]
    random.shuffle(shuffled)
    a, b = columns(rows), columns(shuffled)
    assert compute_average_precision(*a) == compute_average_precision(*b)
    assert compute_roc_auc(*a) == compute_roc_auc(*b)
    assert compute_at_fpr(*a, 0.1) == compute_at_fpr(*b, 0.1)


def test_without_frauds_or_without_rows_nothing_breaks():
    none = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)
    clean = np.zeros(3, dtype=np.uint8), np.arange(3)
    for fraud, score in (none, clean):
        assert compute_average_precision(fraud, score) == 0
        assert compute_roc_auc(fraud, score) == 0.5
        assert compute_at_fpr(fraud, score, 0.001)[0] == 0


def test_recall_and_precision_are_taken_at_the_lowest_threshold_within_the_rate():
    fraud = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=np.uint8)
    score = np.array([9, 8, 7, 7, 5, 4, 4, 3, 2, 1, 1, 0])
    assert compute_at_fpr(fraud, score, 0.0) == (2 / 3, 1.0, 8)
    assert compute_at_fpr(fraud, score, 1 / 9) == (1.0, 3 / 4, 7)


def test_a_rate_that_no_threshold_keeps_gives_a_threshold_above_all():
    fraud, score = np.array([1, 0], dtype=np.uint8), np.array([5, 5])
    assert compute_at_fpr(fraud, score, 0.1) == (0.0, 0.0, 6)


def test_card_precision_counts_a_sender_once_and_never_again_after_it_was_found():
    day = np.array([0, 0, 0, 0, 1, 1, 1])
    sender = np.array([1, 1, 2, 3, 1, 2, 4])
    score = np.array([2, 9, 8, 1, 9, 7, 6])
    fraud = np.array([1, 0, 0, 1, 1, 0, 1], dtype=np.uint8)
    # day 0: senders 1 (fraud) and 2 are checked; day 1, without sender 1: 2 and 4 (fraud)
    assert compute_card_precision(fraud, score, sender, day, cards=2) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_card_precision_divides_by_the_cards_even_if_fewer_were_used():
    one = np.array([1], dtype=np.uint8), np.array([5]), np.array([0]), np.array([0])
    assert compute_card_precision(*one) == pytest.approx(0.01)


def test_reliability_states_what_was_found_bin_by_bin():
    score = np.repeat([100, 5_000, 9_999], 1_000)
    fraud = np.concatenate([np.arange(1_000) < n for n in (10, 500, 900)]).astype(np.uint8)
    bins = compute_reliability(fraud, score)
    assert [(b.low, b.high, b.rows) for b in bins] == [
        (100, 200, 1_000),
        (4_000, 6_000, 1_000),
        (9_500, 10_001, 1_000),
    ]
    assert [round(b.found, 3) for b in bins] == [0.01, 0.5, 0.9]
    assert compute_calibration_error(bins) == pytest.approx(0.0999 / 3, abs=1e-6)
    assert compute_calibration_error([]) == 0.0


def test_thresholds_are_the_lowest_scores_that_keep_to_the_budget_everywhere():
    score = np.arange(1_000, dtype=np.int64)
    fraud = np.zeros(1_000, dtype=np.uint8)
    shifted = score + 500
    limits = choose_thresholds([(fraud, score), (fraud, shifted)], Budget(0.05, 0.01))
    assert (limits.flag_score_min, limits.refuse_score_min) == (1_450, 1_490)
    with pytest.raises(Rejected, match="refused <= flagged"):
        Budget(0.001, 0.01)
