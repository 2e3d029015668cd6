"""Accounts and times of a workload: deterministic, moved by whole days, refused as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.codec import MONEY_MAX
from consensus.errors import Rejected
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS, Parameters
from ml.dataset import Trace
from node.replay.schedule import build_facts, build_schedule, derive_key, shift_times

LIFETIME_MS = 62 * DAY_MS
FACTS = build_facts("c", Parameters(clock=CLOCK_WORKLOAD, lifetime_ms_max=LIFETIME_MS))


def make_trace(amounts: list[int]) -> Trace:
    n = len(amounts)
    index = np.arange(n, dtype=np.int64)
    return Trace(index, index * 0, index * 0 + 1, np.array(amounts, dtype=np.int64), None, ("a", "b"))


def test_a_key_depends_on_seed_and_name_alone() -> None:
    assert derive_key(1, "alice") == derive_key(1, "alice")
    keys = {derive_key(seed, name).secret for seed in (0, 1) for name in ("alice", "bob", "1")}
    assert len(keys) == 6


def test_a_sender_needs_what_its_rows_move_and_cost() -> None:
    schedule = build_schedule(make_trace([5, 0, 7]), FACTS, 0)
    assert schedule.needs == {0: 5 + 7 + 3 * FACTS.fee}
    assert list(schedule.keys) == [0]


def test_more_money_than_there_can_be_is_refused() -> None:
    with pytest.raises(Rejected, match="more than there can be"):
        build_schedule(make_trace([MONEY_MAX - 10, MONEY_MAX - 10]), FACTS, 0)
    with pytest.raises(Rejected, match="no room for the fee"):
        build_schedule(make_trace([MONEY_MAX]), FACTS, 0)


def test_a_surcharge_for_new_accounts_is_offered_by_every_row() -> None:
    dear = build_facts("c", Parameters(account_byte_fee_units=2))
    assert dear.fee > FACTS.fee
    assert dear.report_fee == FACTS.report_fee


@given(
    steps=st.lists(st.integers(0, 100 * DAY_MS), min_size=1, max_size=20),
    clock_ms=st.integers(0, 2_000 * DAY_MS),
)
def test_times_move_by_whole_days_and_the_chain_can_follow(steps: list[int], clock_ms: int) -> None:
    times = np.cumsum(np.array(steps, dtype=np.int64))
    shifted = shift_times(times, FACTS, clock_ms)
    assert set(((shifted - times) % DAY_MS).tolist()) == {0}
    assert shifted[0] >= clock_ms or clock_ms - shifted[0] < 0
    pauses = np.diff(shifted, prepend=clock_ms)
    assert pauses.min() >= 0
    assert pauses.max() <= FACTS.jump_ms_max
    kept = np.diff(times) <= FACTS.jump_ms_max
    assert (np.diff(shifted)[kept] == np.diff(times)[kept]).all()
