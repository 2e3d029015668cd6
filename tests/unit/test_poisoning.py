"""Lying reporters, played: what is told is what the ledger tells, and lies do what the tables say they do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import poisoning
from ml.cards import generate_cards
from ml.dataset import Trace
from ml.fraud import FraudModule, read_default_artifact
from ml.playback import ON_TIME, play_scores, schedule_reports
from ml.poisoning import ATTACK_DAY, choose_targets, file_falsely, file_honestly, measure_refused
from ml.reporting import Filing, Telling, add_payments, count_filings, play_tellings
from tests.report_chain import ANN, BEN, CLERK, FRIEND, SHOP, VICTIM, ReportChain

REPORTERS = (ANN, BEN, CLERK)


@pytest.fixture(scope="module")
def module() -> FraudModule:
    return FraudModule(read_default_artifact())


@pytest.fixture(scope="module")
def trace() -> Trace:
    return generate_cards(3, 150, 55).trace


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=14),
    st.integers(1, 3),
    st.booleans(),
)
def test_what_is_told_is_what_the_ledger_tells(
    steps: list[tuple[int, int, bool]], reports_min: int, is_paired: bool
) -> None:
    pair_ms = poisoning.PAIR_MS if is_paired else 0
    chain = ReportChain(reports_min=reports_min, report_pair_ms=pair_ms)
    chain.grow(chain.register(CLERK))
    transfers = [chain.transfer_of(index) for index in range(3)]
    people = (VICTIM.address, FRIEND.address, SHOP.address)
    trace = Trace(
        np.array([tx.timestamp_ms for tx in transfers]),
        np.array([people.index(tx.sender) for tx in transfers]),
        np.array([people.index(tx.receiver) for tx in transfers]),
        np.array([tx.amount for tx in transfers]),
        None,
        ("victim", "friend", "shop"),
    )
    filings: list[Filing] = []
    for place, (index, who, is_withdrawal) in enumerate(steps):
        make = chain.take_back if is_withdrawal else chain.file
        built = chain.build(make(REPORTERS[who], index))
        chain.add(built.block)
        if built.block.transactions:
            filings.append(Filing(place, index, who, is_withdrawal))
    counted: dict[int, bool] = {}
    for telling in count_filings(trace, filings, reports_min, pair_ms):
        counted[telling.row] = not telling.is_withdrawn and not telling.is_repeated
    assert chain.count() == sum(counted.values())


def test_reports_alone_play_as_in_playback(trace: Trace, module: FraudModule) -> None:
    told = [Telling(f.time_ms, f.row) for f in sorted(file_honestly(trace))]
    schedule = schedule_reports(trace, ON_TIME, 1)
    assert [entry.row for entry in told] == schedule.row.tolist()
    expected = play_scores(trace, schedule, module).score
    assert np.array_equal(play_tellings(trace, told, module), expected)


def test_lies_that_are_taken_back_before_anybody_looks_leave_no_trace(
    trace: Trace, module: FraudModule
) -> None:
    targets = choose_targets(trace, 1)
    lies = file_falsely(trace, targets, 5, liars=1, withdrawn_after_days=1)
    honest = file_honestly(trace)
    last_ms = max(lie.time_ms for lie in lies)
    after = trace.time_ms > last_ms + 6 * poisoning.DAY_MS  # a block has a thousand rows: some days
    assert after.any()
    clean = play_tellings(trace, count_filings(trace, honest), module)
    lied = play_tellings(trace, count_filings(trace, [*honest, *lies]), module)
    assert not np.array_equal(clean, lied)
    assert np.array_equal(clean[after], lied[after])


def test_fewer_liars_than_must_agree_change_nothing(trace: Trace, module: FraudModule) -> None:
    targets = choose_targets(trace, 1)
    lies = file_falsely(trace, targets, 10, liars=1)
    alone = measure_refused(trace, module, targets, lies, reports_min=2)
    assert alone == measure_refused(trace, module, targets, [], reports_min=2)
    assert measure_refused(trace, module, targets, lies)[1] > alone[1]


def test_lies_come_a_day_apart_from_the_day_of_the_attack(trace: Trace) -> None:
    targets = choose_targets(trace, 1)[:1]
    lies = file_falsely(trace, targets, 4, liars=2)
    start = int(trace.time_ms[0]) // poisoning.DAY_MS + ATTACK_DAY
    days = sorted({int(trace.time_ms[lie.row]) // poisoning.DAY_MS for lie in lies})
    assert len(days) == 4
    assert min(lie.time_ms for lie in lies) >= start * poisoning.DAY_MS
    assert len(lies) == 8


def test_payments_are_added_in_order_of_time(trace: Trace) -> None:
    joined, is_own = add_payments(
        trace, trace.time_ms[10:13] + 1, trace.receiver[10:13], np.array([5, 6, 7]), payers=2
    )
    assert (np.diff(joined.time_ms) >= 0).all()
    assert is_own.sum() == 3
    assert joined.sender[is_own].tolist() == [len(trace.names), len(trace.names) + 1, len(trace.names)]
    assert joined.fraud is not None
    assert not joined.fraud[is_own].any()


def test_the_command_prints_its_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(poisoning, "CUSTOMERS", 300)
    assert poisoning.main(["--seeds", "1"]) == 0
    text = capsys.readouterr().out
    assert text.count("lies") > 5
    assert "5 of 10 banks silent" in text
