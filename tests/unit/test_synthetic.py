"""The generator: a pure function of seed and sizes, with every pattern of fraud in it."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import Rejected
from ml.dataset import read_trace, write_trace
from ml.default_model import hash_trace
from ml.synthetic import PATTERNS, TownRules, generate_workload


def test_the_same_seed_gives_the_same_workload_and_another_seed_another():
    assert hash_trace(generate_workload(7).trace) == hash_trace(generate_workload(7).trace)
    assert hash_trace(generate_workload(7).trace) != hash_trace(generate_workload(8).trace)


def test_a_workload_is_the_same_with_every_numpy():
    assert hash_trace(generate_workload(7).trace).hex() == (
        "02be3498e9eb897ff6247b177d65fe5a917e2c28ad8d5c427f4de9c68cd75d38"
    )


def test_a_workload_of_the_demos_size_is_what_the_demo_needs():
    trace = generate_workload(1, accounts=400, days=30, per_day=400).trace
    assert 12_000 <= len(trace) <= 12_500
    assert len(trace.names) == 400
    assert (np.diff(trace.time_ms) >= 0).all()
    assert trace.amount.min() > 0
    assert trace.amount.dtype == np.int64
    assert trace.fraud is not None
    assert 0.005 < trace.fraud.mean() < 0.06
    due = trace.time_ms[trace.fraud == 1] + 7 * 86_400_000 < trace.time_ms[-1]
    assert due.sum() > 50  # labels become due inside it


def test_a_larger_workload_holds_every_pattern():
    workload = generate_workload(3, accounts=2_000, days=20, per_day=2_000)
    assert len(np.unique(workload.pattern)) == len(PATTERNS)
    assert ((workload.pattern > 0) == (workload.trace.fraud == 1)).all()


def test_a_burst_lies_within_a_minute():
    workload = generate_workload(3)
    burst = np.flatnonzero(workload.pattern == PATTERNS.index("burst"))
    sender = workload.trace.sender[burst[0]]
    times = workload.trace.time_ms[burst][workload.trace.sender[burst] == sender]
    first = times[times < times[0] + 60_000]
    assert len(first) >= 8


def test_a_written_workload_is_read_back(tmp_path):
    trace = generate_workload(5, accounts=30, days=3, per_day=20).trace
    write_trace(tmp_path / "town.csv", trace)
    again = read_trace([tmp_path / "town.csv"])
    assert again.time_ms.tolist() == trace.time_ms.tolist()
    assert [again.names[i] for i in again.sender] == [trace.names[i] for i in trace.sender]


@pytest.mark.parametrize(
    ("sizes", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1, "accounts": 3}, "accounts"),
        ({"seed": 1, "days": 0}, "days"),
        ({"seed": 1, "per_day": 0}, "per_day"),
        ({"seed": 1, "days": 3_000, "per_day": 10_000_000}, "days"),
    ],
)
def test_sizes_that_make_no_workload_are_refused_by_name(sizes, field):
    with pytest.raises(Rejected, match=field):
        generate_workload(**sizes)


def test_other_rules_change_how_frauds_go_about_it_and_nothing_else():
    rules = TownRules(burst_ms=3_600_000, mule_people=(8, 9), mules_per_myriad=30)
    usual, other = (generate_workload(4, 400, 20, 300, r) for r in (TownRules(), rules))
    mule = PATTERNS.index("mule")
    assert (other.pattern == mule).sum() > 3 * (usual.pattern == mule).sum()
    clean = [w.trace.amount[w.pattern == 0] for w in (usual, other)]
    assert clean[0].mean() == pytest.approx(clean[1].mean(), rel=0.05)
    chain = np.flatnonzero(other.pattern == mule)[:7]
    assert (other.trace.receiver[chain[:-1]] == other.trace.sender[chain[1:]]).any()
