"""Counterfactuals: what is promised is accepted by the code that judges, and nothing nearer is."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.ledger.scoring import ACCEPT, ModuleView, ReportColumns, Thresholds, TransferColumns
from ml.fraud import load, read_default_artifact

MODULE = load(read_default_artifact())
DAY = 86_400_000
NONE = np.zeros(0, dtype=np.int64)
NO_REPORTS = ReportColumns(NONE, NONE, NONE, NONE, NONE)
LIMITS = Thresholds(flag_score_min=2_000, refuse_score_min=6_000)


def columns(*rows: tuple[int, int, int, int]) -> TransferColumns:
    return TransferColumns(*np.array(rows, dtype=np.int64).T)


def live(days: int = 12) -> np.ndarray:
    """Rows of a person (0) that pays 10.00 a day to a shop (1), never to a third account (2)."""
    rows = np.zeros((3, MODULE.row_bytes), dtype=np.uint8)
    calm = columns(*[(0, 1, 1_000 + day % 3, 20_000 * DAY + day * DAY) for day in range(days)])
    return MODULE.evaluate(calm, NO_REPORTS, ModuleView(rows, LIMITS))[1]


def judge(block: TransferColumns, rows: np.ndarray, limits: Thresholds) -> int:
    return int(MODULE.evaluate(block, NO_REPORTS, ModuleView(rows, limits))[0].outcome[-1])


@pytest.mark.parametrize("amount", [40_000, 300_000, 2**53 - 1])
def test_the_amounts_it_names_are_accepted_and_no_nearer_breakpoint_is(amount):
    rows, time = live(), 20_013 * DAY
    block = columns((0, 2, amount, time))
    verdicts, _ = MODULE.evaluate(block, NO_REPORTS, ModuleView(rows, LIMITS))
    limits = Thresholds(int(verdicts.score[0]), int(verdicts.score[0]))  # so that it is just refused
    assert judge(block, rows, limits) != ACCEPT
    answers = MODULE.find_counterfactuals(block, ModuleView(rows, limits), 0)
    smaller = [a for a in answers if a.what == "amount" and a.value < amount]
    assert len(smaller) == 1
    assert judge(columns((0, 2, smaller[0].value, time)), rows, limits) == ACCEPT
    for nearer in np.linspace(smaller[0].value + 1, amount, 60).astype(np.int64).tolist():
        assert judge(columns((0, 2, nearer, time)), rows, limits) != ACCEPT
    assert f"{smaller[0].value:,} instead of {amount:,}" in smaller[0].words


def test_a_burst_would_be_accepted_later_and_the_time_it_names_is_true():
    rows, start = live(), 20_013 * DAY + 3_600_000
    block = columns(*[(0, 2, 2_000, start + second) for second in range(14)])
    verdicts, _ = MODULE.evaluate(block, NO_REPORTS, ModuleView(rows, LIMITS))
    limits = Thresholds(int(verdicts.score[-1]), int(verdicts.score[-1]))
    answers = MODULE.find_counterfactuals(block, ModuleView(rows, limits), 13)
    (later,) = [a for a in answers if a.what == "time_ms"]
    assert later.value > start
    moved = block.timestamp_ms.copy()
    moved[-1] = later.value
    again = TransferColumns(block.sender, block.receiver, block.amount, moved)
    assert judge(again, rows, limits) == ACCEPT
    assert "later, if nothing else happens" in later.words


def test_what_is_accepted_needs_no_change_and_what_never_can_be_has_none():
    rows, block = live(), columns((0, 1, 1_000, 20_013 * DAY))
    assert MODULE.find_counterfactuals(block, ModuleView(rows, Thresholds(10_001, 10_001)), 0) == ()
    assert MODULE.find_counterfactuals(block, ModuleView(rows, Thresholds(0, 0)), 0) == ()


def test_a_sender_of_whom_nothing_is_known_gets_an_answer_too():
    rows = np.zeros((2, MODULE.row_bytes), dtype=np.uint8)
    block = columns((0, 1, 2**40, 20_000 * DAY))
    verdicts, _ = MODULE.evaluate(block, NO_REPORTS, ModuleView(rows, LIMITS))
    limits = Thresholds(int(verdicts.score[0]), int(verdicts.score[0]))
    for answer in MODULE.find_counterfactuals(block, ModuleView(rows, limits), 0):
        if answer.what == "amount":
            assert judge(columns((0, 1, answer.value, 20_000 * DAY)), rows, limits) == ACCEPT
