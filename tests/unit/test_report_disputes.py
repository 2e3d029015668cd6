"""Disputes: who may contradict a report, who votes, what either verdict costs whom."""

import pytest

from consensus.ledger import cases, dispute, reporters
from consensus.ledger.dispute import FRAUD, MISTAKE
from tests.report_chain import (
    ANN,
    BEN,
    BOND,
    CLERK,
    CONTEST_MS,
    DEPOSIT,
    FRIEND,
    JURY,
    SHOP,
    VICTIM,
    VOTE_MS,
    ReportChain,
)


@pytest.fixture
def chain() -> ReportChain:
    """CLERK is registered and reported the first transfer."""
    chain = ReportChain()
    chain.grow(chain.register(CLERK))
    chain.grow(chain.file(CLERK))
    return chain


def test_a_false_report_is_withdrawn_and_costs_the_bond(chain: ReportChain) -> None:
    shop = chain.balance(SHOP)
    chain.grow(chain.dispute(SHOP))
    assert chain.balance(SHOP) == shop - DEPOSIT - 1
    chain.check_money()
    chain.grow(chain.vote(0, MISTAKE))
    assert (chain.count(), chain.case().finding) == (1, cases.UNSETTLED)
    supply = chain.view.supply
    chain.grow(chain.vote(2, MISTAKE))
    assert (chain.count(), chain.case().finding, chain.case().told_height) == (0, cases.FALSE, 0)
    assert chain.balance(SHOP) == shop - 1
    assert chain.reporter(CLERK) == reporters.Reporter(reporters.STRUCK)
    assert chain.view.supply == supply - BOND
    chain.check_money()
    assert chain.code(chain.file(CLERK, 1)) == "report_struck"
    assert chain.code(chain.register(CLERK)) == "reporter_exists"
    assert chain.code(chain.leave(CLERK)) == "reporter_unknown"


def test_after_a_finding_nobody_reports_disputes_or_votes_about_it(chain: ReportChain) -> None:
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE), chain.vote(1, MISTAKE))
    assert chain.code(chain.file(ANN)) == "report_settled"
    assert chain.code(chain.dispute(SHOP)) == "report_settled"
    assert chain.code(chain.vote(2, MISTAKE)) == "vote_nothing"
    assert chain.code(chain.take_back(CLERK)) == "report_settled"


def test_an_upheld_report_stands_and_the_deposit_is_burned(chain: ReportChain) -> None:
    shop, supply = chain.balance(SHOP), chain.view.supply
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, FRAUD), chain.vote(1, FRAUD))
    assert (chain.count(), chain.case().finding) == (1, cases.UPHELD)
    assert chain.balance(SHOP) == shop - DEPOSIT - 1
    assert chain.view.supply == supply - DEPOSIT
    assert chain.reporter(CLERK) == reporters.Reporter(reporters.REGISTERED, BOND)
    chain.check_money()
    assert chain.code(chain.dispute(SHOP)) == "report_settled"


def test_half_of_the_stake_decides_nothing() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE), chain.vote(1, FRAUD))
    tally = dispute.compute_tally(
        chain.view.records, chain.key_of(), dispute.Dispute(SHOP.address, chain.now_ms, 0), 0
    )
    assert (tally.fraud_units, tally.false_units, tally.total_units) == (350, 400, 1_000)
    assert chain.case().finding == cases.UNSETTLED
    assert not dispute.Tally(500, 500, 1_000).is_false
    assert not dispute.Tally(500, 500, 1_000).is_upheld
    assert dispute.Tally(499, 501, 1_000).is_false


def test_without_a_majority_the_deposit_comes_back_and_the_report_stands(chain: ReportChain) -> None:
    shop = chain.balance(SHOP)
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE))
    assert chain.code(chain.reclaim(SHOP)) == "reclaim_early"
    chain.wait(VOTE_MS + 1)
    assert chain.code(chain.vote(1, MISTAKE)) == "vote_over"
    assert chain.code(chain.reclaim(VICTIM)) == "reclaim_nothing"
    chain.grow(chain.reclaim(SHOP))
    assert chain.balance(SHOP) == shop - 2
    assert chain.count() == 1
    chain.check_money()


def test_a_dispute_that_lapsed_can_be_opened_anew_and_old_votes_do_not_count(chain: ReportChain) -> None:
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE))
    chain.wait(VOTE_MS + 1)
    assert chain.code(chain.dispute(SHOP)) == "report_disputed"
    chain.grow(chain.reclaim(SHOP))
    chain.grow(chain.dispute(VICTIM))
    chain.grow(chain.vote(2, MISTAKE))
    assert chain.case().finding == cases.UNSETTLED
    chain.grow(chain.vote(0, MISTAKE))
    assert chain.case().finding == cases.FALSE


def test_only_the_two_of_the_transfer_may_dispute_and_only_with_the_deposit(chain: ReportChain) -> None:
    assert chain.code(chain.dispute(FRIEND)) == "dispute_sender"
    assert chain.code(chain.dispute(SHOP, amount=DEPOSIT - 1)) == "dispute_deposit"
    assert chain.code(chain.dispute(SHOP, 1)) == "report_unknown"
    chain.grow(chain.dispute(VICTIM))
    assert chain.code(chain.dispute(SHOP)) == "report_disputed"


def test_only_what_stands_is_disputed(chain: ReportChain) -> None:
    chain.grow(chain.take_back(CLERK))
    assert chain.code(chain.dispute(SHOP)) == "report_unknown"


def test_a_dispute_comes_in_time(chain: ReportChain) -> None:
    filed_ms = chain.case().newest_ms
    late = chain.dispute(SHOP, timestamp_ms=filed_ms + CONTEST_MS + 1)
    assert chain.code(late) == "report_contest"
    chain.grow(chain.dispute(SHOP, timestamp_ms=filed_ms + CONTEST_MS))


def test_only_validators_vote_and_each_once(chain: ReportChain) -> None:
    assert chain.code(chain.vote(0, MISTAKE)) == "vote_nothing"
    chain.grow(chain.dispute(SHOP))
    foreign = chain.make(24, FRIEND, SHOP.address, dispute.encode_vote(chain.transfer_of(), MISTAKE))
    assert chain.code(foreign) == "vote_sender"
    chain.grow(chain.vote(0, FRAUD))
    assert chain.code(chain.vote(0, MISTAKE)) == "vote_twice"


def test_while_it_is_disputed_nobody_reports_or_takes_back(chain: ReportChain) -> None:
    chain.grow(chain.dispute(SHOP))
    assert chain.code(chain.file(ANN)) == "report_disputed"
    assert chain.code(chain.take_back(CLERK)) == "report_disputed"
    chain.wait(VOTE_MS + 1)
    chain.grow(chain.take_back(CLERK))
    assert chain.count() == 0


def test_all_reporters_of_a_false_report_are_struck_off_but_those_beyond_contest() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    chain.wait(CONTEST_MS)
    chain.grow(chain.file(BEN))
    chain.wait(1)
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE), chain.vote(1, MISTAKE))
    assert chain.reporter(ANN) == reporters.Reporter(reporters.LISTED)
    assert chain.reporter(BEN) == reporters.Reporter(reporters.STRUCK)
    assert chain.count() == 0


def test_a_validator_that_reported_falsely_is_struck_off_too() -> None:
    chain = ReportChain(reporting="validators")
    chain.grow(chain.file(JURY[2]))
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE), chain.vote(1, MISTAKE))
    assert chain.reporter(JURY[2]) == reporters.Reporter(reporters.STRUCK)
    assert chain.code(chain.file(JURY[2], 1)) == "report_struck"


def test_a_bond_cannot_leave_before_the_last_report_of_it_is_past_a_finding(chain: ReportChain) -> None:
    chain.grow(chain.leave(CLERK))
    chain.wait(chain.case().newest_ms + CONTEST_MS - chain.now_ms)
    chain.grow(chain.dispute(SHOP))
    chain.wait(VOTE_MS - 1)
    assert chain.code(chain.leave(CLERK)) == "leave_early"
    chain.grow(chain.vote(0, MISTAKE), chain.vote(1, MISTAKE))
    assert chain.reporter(CLERK) == reporters.Reporter(reporters.STRUCK)


def test_an_account_has_a_bounded_number_of_disputes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispute, "OPEN_MAX", 2)
    chain = ReportChain()
    chain.grow(*(chain.file(ANN, index) for index in range(3)))
    chain.grow(chain.dispute(SHOP, 0), chain.dispute(SHOP, 1))
    assert chain.code(chain.dispute(SHOP, 2)) == "dispute_open"
    chain.grow(chain.vote(0, FRAUD), chain.vote(1, FRAUD))
    chain.grow(chain.dispute(SHOP, 2))


def test_workload_a_late_transfer_does_not_end_a_vote_of_its_own_block(chain: ReportChain) -> None:
    chain.grow(chain.dispute(SHOP))
    vote = chain.vote(0, MISTAKE, timestamp_ms=chain.now_ms + VOTE_MS)
    later = chain.transfer(FRIEND, BEN, timestamp_ms=chain.now_ms + VOTE_MS + 1)
    built = chain.build(vote, later)
    assert (built.block.transactions, built.deferred) == ((vote,), (later,))
    chain.add(built.block)


def test_a_report_and_all_that_is_about_it_is_forgotten(chain: ReportChain) -> None:
    supply = chain.view.supply
    chain.grow(chain.dispute(SHOP))
    chain.grow(chain.vote(0, MISTAKE))
    chain.wait(60 * 86_400_000 + CONTEST_MS + 2 * VOTE_MS + 86_400_000)
    records = chain.view.records
    for kind in (1, 22, 23, 24, 21):
        assert not list(records.walk(bytes((0x80 | kind,))))
    assert chain.view.supply == supply - DEPOSIT  # nobody came for it
    chain.check_money()
