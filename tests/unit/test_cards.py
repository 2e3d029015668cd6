"""The card payments: a pure function of seed and rules, as the handbook describes its simulator."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import Rejected
from ml.cards import CARD_PATTERNS, LARGE_AMOUNT, SPELL, TERMINAL, CardRules, generate_cards
from ml.default_model import hash_trace, join_traces
from ml.synthetic import generate_workload
from ml.variants import SEED, VARIANTS

CARDS = generate_cards(3, customers=400, days=40)


def test_the_same_seed_gives_the_same_payments_with_every_numpy():
    assert hash_trace(generate_cards(7, 100, 5).trace).hex() == (
        "9a5ef992262fb9f4cd94b13a3fbaa0b9b42405fe7f39be684d65941d392b2946"
    )
    assert hash_trace(generate_cards(8, 100, 5).trace) != hash_trace(generate_cards(7, 100, 5).trace)


def test_rates_and_amounts_are_those_described():
    trace = CARDS.trace
    per_day = len(trace) / 40 / 400
    assert 1.8 < per_day < 2.2  # a customer's rate lies between 0 and 4
    clean = CARDS.pattern == 0
    assert 4_500 < trace.amount[clean].mean() < 6_500  # means between 5 and 100
    assert (np.diff(trace.time_ms) >= 0).all()
    assert trace.amount.min() > 0
    assert trace.sender.max() < 400 <= trace.receiver.min()


def test_each_kind_of_fraud_is_what_it_says():
    trace = CARDS.trace
    assert trace.fraud is not None
    assert 0.004 < trace.fraud.mean() < 0.015
    assert CARDS.patterns == CARD_PATTERNS
    assert (trace.amount[CARDS.pattern == LARGE_AMOUNT] > 22_000).all()
    day = trace.time_ms // 86_400_000
    for kind, column, days in ((TERMINAL, trace.receiver, 28), (SPELL, trace.sender, 14)):
        accounts, owner = np.unique(column[CARDS.pattern == kind], return_inverse=True)
        assert len(accounts) > 1
        lengths = [np.ptp(day[CARDS.pattern == kind][owner == i]) for i in range(len(accounts))]
        assert np.median(lengths) < days
    without = generate_cards(3, 400, 40, CardRules(large_cents=0))
    assert not (without.pattern == LARGE_AMOUNT).any()


@pytest.mark.parametrize("sizes", [(-1, 100, 10), (1, 19, 10), (1, 100, 0), (1, 10**6, 10)])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(Rejected):
        generate_cards(*sizes)


def test_joined_traces_keep_their_accounts_apart_and_their_time_in_order():
    traces = [CARDS.trace, generate_workload(5, 30, 3, 20).trace]
    joined = join_traces(traces)
    assert len(joined) == sum(map(len, traces))
    assert (np.diff(joined.time_ms) >= 0).all()
    for number, trace in enumerate(traces):
        own = np.array([name.startswith(f"{number}/") for name in joined.names])[joined.sender]
        assert [joined.names[i] for i in joined.sender[own][:50]] == [
            f"{number}/{trace.names[i]}" for i in trace.sender[:50]
        ]
        assert (joined.amount[own] == trace.amount).all()


def test_every_variant_names_a_base_and_none_has_a_seed_of_training():
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert {variant.base for variant in VARIANTS} <= set(names)
    from ml.default_model import SEED as TRAINED

    assert SEED not in range(TRAINED, TRAINED + 4)
