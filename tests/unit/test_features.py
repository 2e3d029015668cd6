"""Features against a slow oracle that plays one transaction at a time, and the laws they must keep."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.ledger.scoring import MODULE_ROW_BYTES_MAX, ReportColumns, TransferColumns
from ml import features as f
from ml.definitions import (
    DECAY_DAYS,
    DEFAULT_DEFINITIONS,
    KINDS,
    LATELY_CHOICES_MS,
    RULE_BOUNDS,
    SENDER_KINDS,
    Definitions,
    Feature,
    FeatureScale,
    RowRules,
    check_definitions,
)
from ml.rings import AMOUNT_MAX

SCALE = FeatureScale(amount_edges=(1, 100, 1_000, 10_000, 100_000), large_amount=500_000)
ACCOUNTS = 5
RULES = DEFAULT_DEFINITIONS.rules
ROW_BYTES = DEFAULT_DEFINITIONS.row_bytes


@dataclass
class Account:
    """What the rows hold, in plain Python."""

    total: int = 0
    count: int = 0
    sent_day: int | None = None
    limit: int = 0
    evidence: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    span: int = 0
    in_span: int = 0
    received_day: int | None = None
    unreported: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    unexplained: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class Oracle:
    """The feature definitions, transaction by transaction, with dictionaries instead of rings."""

    def __init__(self, definitions: Definitions = DEFAULT_DEFINITIONS) -> None:
        self.accounts = [Account() for _ in range(ACCOUNTS)]
        self.definitions = definitions

    def observe(self, sender: int, receiver: int, amount: int, time: int) -> list[int]:
        sent = self._send(self.accounts[sender], min(amount, AMOUNT_MAX), time)
        received = self._receive(self.accounts[receiver], time // f.DAY_MS)
        sent["amount"] = sum(amount >= edge for edge in SCALE.amount_edges)
        values = []
        for feature in self.definitions.features:
            value = {**sent, **received}[feature.kind]
            values.append(min(value(*feature.arguments) if callable(value) else value, 255))
        return values

    def _send(self, a: Account, amount: int, time: int) -> dict[str, object]:
        rules = self.definitions.rules
        own_day = time // f.DAY_MS
        day = own_day if a.sent_day is None else max(own_day, a.sent_day)
        elapsed = 0 if a.sent_day is None else day - a.sent_day
        if elapsed or a.sent_day is None:
            keep = int(rules.decay[min(elapsed, DECAY_DAYS)])
            a.total, a.count = (a.total * keep + 2**15) >> 16, (a.count * keep + 2**15) >> 16
            if elapsed and a.count > f.COUNT_DAWN_MAX:
                a.total, a.count = a.total >> 1, a.count >> 1
            most = rules.winsor_means * (a.total // a.count) if a.count else AMOUNT_MAX
            a.limit, a.sent_day = min(most, AMOUNT_MAX), day
        mean_16 = (a.total * 16 // a.count if a.total < 2**58 else a.total // a.count * 16) if a.count else 0
        ratio = min(amount * 1024 // max(mean_16, 1), f.RATIO_MAX) if a.count else 64
        evidence = {d: v for d, v in a.evidence.items() if day - d < rules.evidence_days}
        span = max(time // rules.lately_ms + 1, a.span)
        before = a.in_span if span == a.span else 0
        a.span, a.in_span = span, before + 1
        seen = {
            "amount_over_mean": sum(ratio >= e for e in f.RATIO_EDGES.tolist()),
            "evidence": lambda days: (
                sum(min(v, f.COUNTER_MAX) for d, v in evidence.items() if day - d < days) >> 2
            ),
            "sent_count": a.count // f.COUNT_ONE,
            "sent_lately": before,
        }
        if day - own_day < rules.evidence_days:
            a.evidence[own_day] += min(max(ratio - rules.evidence_ratio_64 >> 2, 0), f.EVIDENCE_ONE_MAX)
        if a.count < f.COUNT_MAX:
            a.total += min(amount, a.limit) * f.COUNT_ONE
            a.count += f.COUNT_ONE
        return seen

    def _receive(self, a: Account, own_day: int) -> dict[str, object]:
        rules = self.definitions.rules
        day = a.received_day = own_day if a.received_day is None else max(own_day, a.received_day)
        ages = range(rules.ring_days)
        clean = {age: a.unreported[day - age] if age >= rules.mature_days else 0 for age in ages}
        stain = {age: a.unexplained[day - age] for age in ages}
        clean_age = min((age for age in ages if clean[age]), default=rules.ring_days)
        stained = [age for age in ages if stain[age]]
        run = [age for age in stained if age < clean_age]
        newest, oldest = (stained[0], stained[-1]) if stained else (rules.ring_days, rules.ring_days)
        if day - own_day < rules.mature_days:
            a.unreported[own_day] += 1
        return {
            "run_reports": sum(stain[age] for age in run),
            "run_age_days": run[-1] if run else 255,
            "clean_age_days": clean_age if clean_age < rules.ring_days else 255,
            "reports": lambda first, end: sum(stain[age] for age in range(first, end)),
            "newest_report_age_days": newest if stained else 255,
            "oldest_report_age_days": oldest if stained else 255,
            "clean": lambda first, end: sum(clean[age] for age in range(first, end)),
            "clean_since": sum(clean[age] for age in ages if age < newest),
            "clean_between": sum(clean[age] for age in ages if newest <= age < oldest) if stained else 0,
        }

    def report(self, sender: int, receiver: int, amount: int, time: int) -> None:
        payer, paid = self.accounts[sender], self.accounts[receiver]
        day = time // f.DAY_MS
        if paid.received_day is None or not 0 <= paid.received_day - day < self.definitions.rules.ring_days:
            return
        mean = payer.total // max(payer.count, 1)
        explained = amount >= SCALE.large_amount or (payer.count and 2 * min(amount, AMOUNT_MAX) > 5 * mean)
        paid.unreported[day] = max(paid.unreported[day] - 1, 0)
        paid.unexplained[day] += not explained


def transfers(rows: list[tuple[int, int, int, int]]) -> TransferColumns:
    return TransferColumns(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def reports(rows: list[tuple[int, int, int, int]]) -> ReportColumns:
    return ReportColumns(
        *np.array(rows, dtype=np.int64).reshape(-1, 4).T, np.zeros(len(rows), dtype=np.int64)
    )


def empty_rows(count: int = ACCOUNTS, definitions: Definitions = DEFAULT_DEFINITIONS) -> np.ndarray:
    return np.zeros((count, definitions.row_bytes), dtype=np.uint8)


def play(rows: np.ndarray, *block: tuple[int, int, int, int]) -> f.Observation:
    return f.observe(transfers(list(block)), reports([]), rows, SCALE)


amounts = st.one_of(
    st.integers(0, 3_000), st.sampled_from([0, 1, 499_999, 500_000, 2**40 - 1, 2**40, 2**53 - 1])
)
times = st.one_of(
    st.integers(0, 60 * f.DAY_MS), st.integers(0, 200).map(lambda m: 30 * f.DAY_MS + m * 60_000)
)
rows_of = st.tuples(st.integers(0, ACCOUNTS - 1), st.integers(0, ACCOUNTS - 1), amounts, times)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[tuple[int, int, int, int]], list[int]]]:
    """Blocks of transfers with, for each, the earlier transactions it reports (by number)."""
    blocks, played = [], 0
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.lists(rows_of, min_size=1, max_size=12))
        if draw(st.booleans()):  # mostly in order, as life is
            block.sort(key=lambda row: row[3])
        played += len(block)
        blocks.append((block, draw(st.lists(st.integers(0, played - 1), max_size=4))))
    return blocks


@st.composite
def any_definitions(draw: st.DrawFn) -> Definitions:
    """Any rules and features that the vocabulary allows."""
    numbers = {name: draw(st.integers(low, high)) for name, (low, high) in RULE_BOUNDS.items()}
    numbers["lately_ms"] = draw(st.sampled_from(LATELY_CHOICES_MS))
    numbers["label_delay_days"] = draw(st.integers(0, 12))
    numbers["ring_days"] = draw(st.integers(numbers["label_delay_days"] + 2, 39))  # a row of 256 bytes
    rules = RowRules(**numbers)
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=16))
    features = []
    for number, kind in enumerate(sorted(kinds, key=lambda kind: kind not in SENDER_KINDS)):
        arguments = ()
        if kind == "evidence":
            arguments = (draw(st.integers(1, rules.evidence_days)),)
        elif KINDS[kind]:
            end = draw(st.integers(1, rules.ring_days))
            arguments = (draw(st.integers(0, end - 1)), end)
        features.append(Feature(f"f{number}", kind, arguments))
    return check_definitions(Definitions(rules, tuple(features)).to_fields())


@given(histories(), st.one_of(st.just(DEFAULT_DEFINITIONS), any_definitions()))
@settings(max_examples=250, deadline=None)
def test_features_equal_those_of_the_oracle_whatever_the_definitions(history, definitions):
    oracle, rows, played = Oracle(definitions), empty_rows(definitions=definitions), []
    for block, reported in history:
        played += block
        of = [played[i] for i in reported]
        seen = f.observe(transfers(block), reports(of), rows, SCALE, definitions)
        rows = seen.rows
        assert seen.features.tolist() == [oracle.observe(*row) for row in block]
        for row in of:
            oracle.report(*row)


@given(st.lists(rows_of, min_size=2, max_size=25), st.data(), any_definitions())
@settings(max_examples=150, deadline=None)
def test_a_block_cut_in_two_gives_the_same_features_and_rows(block, data, definitions):
    cut = data.draw(st.integers(1, len(block) - 1))
    reported = data.draw(st.lists(st.sampled_from(block), max_size=4))
    rows = empty_rows(definitions=definitions)
    whole = f.observe(transfers(block), reports(reported), rows, SCALE, definitions)
    first = f.observe(transfers(block[:cut]), reports([]), rows, SCALE, definitions)
    second = f.observe(transfers(block[cut:]), reports(reported), first.rows, SCALE, definitions)
    assert whole.features.tolist() == [*first.features.tolist(), *second.features.tolist()]
    assert (whole.rows == second.rows).all()


@given(st.lists(rows_of, min_size=1, max_size=12), st.lists(rows_of, min_size=1, max_size=12), st.randoms())
@settings(max_examples=50, deadline=None)
def test_transactions_of_unrelated_accounts_change_nothing(ours, theirs, random):
    theirs = [(s + ACCOUNTS, r + ACCOUNTS, a, t) for s, r, a, t in theirs]
    mixed = [(row, True) for row in ours]
    for row in theirs:
        mixed.insert(random.randint(0, len(mixed)), (row, False))
    alone = play(empty_rows(), *ours)
    together = play(empty_rows(2 * ACCOUNTS), *[row for row, _ in mixed])
    kept = [place for place, (_, is_ours) in enumerate(mixed) if is_ours]
    assert (together.features[kept] == alone.features).all()
    assert (together.rows[:ACCOUNTS] == alone.rows).all()


def test_rows_fit_the_contract_and_the_input_rows_stay_as_they_were():
    rows = empty_rows()
    rows.setflags(write=False)
    seen = play(rows, (0, 1, 100, f.DAY_MS))
    assert DEFAULT_DEFINITIONS.row_bytes <= MODULE_ROW_BYTES_MAX
    assert not rows.any()
    assert seen.rows.shape == rows.shape


def test_a_burst_inside_one_block_is_counted():
    seen = play(empty_rows(), *[(0, 1 + i % 3, 100, 5 * f.DAY_MS + i) for i in range(9)])
    assert seen.features[:, DEFAULT_DEFINITIONS.names.index("sent_lately")].tolist() == list(range(9))


def test_evidence_grows_inside_one_block():
    calm = play(empty_rows(), *[(0, 1, 100, day * f.DAY_MS) for day in range(10)])
    burst = play(calm.rows, *[(0, 1, 1_000, 11 * f.DAY_MS + i) for i in range(4)])
    evidence = burst.features[:, DEFAULT_DEFINITIONS.names.index("evidence")].tolist()
    assert evidence == sorted(evidence)
    assert evidence[0] == 0 < evidence[1] < evidence[3]


def test_a_large_amount_lifts_the_mean_by_three_means_at_most():
    before = play(empty_rows(), *[(0, 1, 100, day * f.DAY_MS) for day in range(10)])
    after = play(before.rows, (0, 1, 2**53 - 1, 11 * f.DAY_MS), (0, 1, 100, 11 * f.DAY_MS + 1))
    assert 100 * 16 < after.mean_16[1] < 130 * 16


def test_extreme_amounts_and_times_saturate_and_never_overflow():
    rows = empty_rows()
    for day in (0, 1, 2**21):
        block = [(0, 0, 2**53 - 1, day * f.DAY_MS)] * 9_000
        rows = play(rows, *block).rows
    state = rows.view(RULES.row).reshape(-1)[0]
    assert state["count"] == f.COUNT_MAX
    assert int(state["sum"]) <= AMOUNT_MAX * f.COUNT_MAX < 2**61
    assert state["unreported"].max() == 9_000
    last = play(rows, (0, 0, 2**53 - 1, 2**48 - 1), (0, 0, 2**53 - 1, 2**53 - 1))
    assert last.ratio_64.tolist() == [64, 64]


def test_counters_stop_at_sixteen_bits():
    rows = play(empty_rows(), *[(0, 1, 1, 0)] * 70_000).rows
    state = rows.view(RULES.row).reshape(-1)
    assert state["unreported"][1].max() == state["sent_lately"][0] == 2**16 - 1


def test_a_late_transaction_counts_on_its_own_day_and_turns_nothing_back():
    rows = play(empty_rows(), (0, 1, 100, 20 * f.DAY_MS)).rows
    rows = play(rows, (0, 1, 100, 15 * f.DAY_MS)).rows
    state = rows.view(RULES.row).reshape(-1)
    assert state["receiver_day"][1] == state["sender_day"][0] == 21
    assert state["unreported"][1][15] == 1
    assert state["unreported"][1][20] == 1


def test_a_transaction_later_than_the_label_delay_whitewashes_nobody():
    rows = play(empty_rows(), (0, 1, 100, 40 * f.DAY_MS)).rows
    rows = play(rows, (0, 1, 100, 32 * f.DAY_MS)).rows
    assert rows.view(RULES.row).reshape(-1)["unreported"][1].sum() == 1


def test_a_report_stains_the_receiver_from_the_next_block_on():
    paid = (0, 1, 100, 10 * f.DAY_MS)
    rows = play(empty_rows(), paid).rows
    with_report = f.observe(transfers([(2, 1, 100, 17 * f.DAY_MS)]), reports([paid]), rows, SCALE)
    run = DEFAULT_DEFINITIONS.names.index("run_reports")
    assert with_report.features[0, run] == 0
    assert play(with_report.rows, (2, 1, 100, 17 * f.DAY_MS)).features[0, run] == 1


@pytest.mark.parametrize(("amount", "stains"), [(100, 1), (251, 0), (250, 1)])
def test_a_report_that_the_senders_own_deviation_explains_does_not_stain(amount, stains):
    rows = play(empty_rows(), *[(0, 2, 100, day * f.DAY_MS) for day in range(5)]).rows
    rows = play(rows, (3, 1, 100, 10 * f.DAY_MS)).rows
    rows = f.observe(transfers([]), reports([(0, 1, amount, 10 * f.DAY_MS)]), rows, SCALE).rows
    assert rows.view(RULES.row).reshape(-1)["unexplained"][1].sum() == stains


def test_a_large_amount_explains_a_report_by_itself():
    rows = play(empty_rows(), (0, 1, 500_000, 10 * f.DAY_MS)).rows
    rows = f.observe(transfers([]), reports([(0, 1, 500_000, 10 * f.DAY_MS)]), rows, SCALE).rows
    state = rows.view(RULES.row).reshape(-1)
    assert state["unexplained"][1].sum() == 0
    assert state["unreported"][1].sum() == 0


def test_a_report_older_than_the_ring_changes_nothing():
    rows = play(empty_rows(), (0, 1, 100, 100 * f.DAY_MS)).rows
    after = f.observe(transfers([]), reports([(0, 1, 100, 60 * f.DAY_MS)]), rows, SCALE).rows
    assert (after == rows).all()


def test_the_edges_of_the_ratio_rise_and_stop_at_277_means():
    assert (np.diff(f.RATIO_EDGES) > 0).all()
    assert len(f.RATIO_EDGES) == 255
    assert f.RATIO_EDGES[-1] // 64 == 277


def test_a_row_is_described_by_name_and_an_empty_one_says_never() -> None:
    assert f.describe_row(bytes(ROW_BYTES)) == {
        "mean_amount": 0,
        "sent_day": -1,
        "evidence_sixteenths": 0,
        "received_day": -1,
        "received_unreported": 0,
        "reports_unexplained": 0,
    }
