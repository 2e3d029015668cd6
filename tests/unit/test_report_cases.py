"""Cases: several reporters of one transfer, when the modules are told, and a report that is taken back."""

from dataclasses import replace

import pytest

from consensus.errors import NotYet, Rejected
from consensus.ledger import cases
from consensus.ledger.records import Records
from consensus.parameters import DAY_MS
from tests.report_chain import ANN, BEN, BOND, CLERK, CONTEST_MS, FRIEND, VICTIM, ReportChain


def test_the_modules_are_told_when_enough_reporters_agree() -> None:
    chain = ReportChain(reports_min=2)
    chain.grow(chain.file(ANN))
    assert (chain.count(), chain.case().told_height) == (0, 0)
    chain.grow(chain.file(BEN))
    assert (chain.count(), chain.case().told_height) == (1, 4)
    chain.grow(chain.take_back(ANN))
    assert (chain.count(), chain.case().told_height, chain.case().standing) == (0, 0, 1)


def test_a_third_report_says_nothing_new_to_the_modules() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN), chain.register(CLERK))
    chain.grow(chain.file(BEN), chain.file(CLERK))
    assert chain.count() == 1
    chain.grow(chain.take_back(ANN), chain.take_back(BEN))
    assert chain.count() == 1
    chain.grow(chain.take_back(CLERK))
    assert chain.count() == 0


def test_a_transfer_taken_back_by_one_is_told_of_again_by_another() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    chain.grow(chain.take_back(ANN), chain.file(BEN))
    assert (chain.count(), chain.case().told_height) == (1, 4)
    assert [(f.reporter, f.status) for f in chain.filings()] == [
        (BEN.address, cases.STANDING),
        (ANN.address, cases.WITHDRAWN),
    ]
    chain.grow(chain.take_back(BEN))
    assert chain.count() == 0


def test_a_report_is_not_taken_back_in_the_block_that_tells_the_modules() -> None:
    chain = ReportChain()
    report, back = chain.file(ANN), chain.take_back(ANN)
    built = chain.build(report, back)
    assert built.block.transactions == (report,)
    assert [(tx, type(error), error.code) for tx, error in built.rejected] == [
        (back, NotYet, "report_same_block")
    ]


def test_a_report_is_taken_back_once_and_not_filed_again() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    chain.grow(chain.take_back(ANN))
    assert chain.code(chain.take_back(ANN)) == "report_not_yours"
    assert chain.code(chain.file(ANN)) == "report_twice"


def test_nobody_else_takes_a_report_back() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    assert chain.code(chain.take_back(BEN)) == "report_not_yours"
    assert chain.code(chain.take_back(ANN, 1)) == "report_unknown"


def test_a_report_is_taken_back_within_its_window() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    late = chain.take_back(ANN, timestamp_ms=chain.now_ms + CONTEST_MS + 1)
    assert chain.code(late) == "report_contest"
    chain.grow(chain.take_back(ANN, timestamp_ms=chain.now_ms + CONTEST_MS))
    assert chain.count() == 0


def test_workload_a_late_transfer_does_not_outdate_a_report_taken_back_in_time() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    back = chain.take_back(ANN, timestamp_ms=chain.now_ms + CONTEST_MS)
    later = chain.transfer(FRIEND, BEN, timestamp_ms=chain.now_ms + CONTEST_MS + 1)
    built = chain.build(back, later)
    assert (built.block.transactions, built.deferred) == ((back,), (later,))
    chain.add(built.block)


def test_the_second_report_of_the_same_two_accounts_is_repeated() -> None:
    chain = ReportChain(report_pair_ms=28 * DAY_MS)
    chain.grow(chain.file(ANN, 0), chain.file(ANN, 1), chain.file(ANN, 2))
    assert chain.count() == 2
    assert [chain.case(index).memos for index in range(3)] == [{(1, 0): 1}, {}, {(1, 0): 1}]


def test_after_the_first_is_taken_back_the_next_is_not_repeated() -> None:
    chain = ReportChain(report_pair_ms=28 * DAY_MS)
    chain.grow(chain.file(ANN, 0))
    chain.grow(chain.take_back(ANN, 0))
    chain.grow(chain.file(BEN, 1))
    assert chain.count() == 1


def test_taking_a_repeated_report_back_leaves_the_first_in_its_place() -> None:
    chain = ReportChain(report_pair_ms=28 * DAY_MS)
    chain.grow(chain.file(ANN, 0), chain.file(ANN, 1))
    chain.grow(chain.take_back(ANN, 1))
    assert chain.count() == 1
    assert sum(1 for _ in chain.view.records.walk(cases.NAMESPACE_PAIR)) == 1


def test_pairs_are_forgotten_when_no_transfer_of_their_period_can_be_reported() -> None:
    chain = ReportChain(report_pair_ms=DAY_MS)
    chain.grow(chain.file(ANN, 0))
    chain.wait(60 * DAY_MS)
    assert sum(1 for _ in chain.view.records.walk(cases.NAMESPACE_PAIR)) == 1
    chain.wait(2 * DAY_MS)
    assert sum(1 for _ in chain.view.records.walk(cases.NAMESPACE_PAIR)) == 0


def test_no_more_reports_stand_than_a_finding_can_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "STANDING_MAX", 2)
    chain = ReportChain()
    chain.grow(chain.register(CLERK), chain.file(ANN), chain.file(BEN))
    assert chain.code(chain.file(CLERK)) == "report_enough"
    chain.grow(chain.take_back(ANN))
    chain.grow(chain.file(CLERK))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"receiver": VICTIM.address}, "report_receiver"),
        ({"amount": 1}, "range"),
        ({"payload": b""}, "encoding"),
        ({"payload": b"\x91\x01"}, "type"),
        ({"payload": b"\x91\xc4\x00"}, "encoding"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(change: dict[str, object], code: str) -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    error = chain.refuse(replace(chain.take_back(ANN), **change))  # type: ignore[arg-type]
    assert isinstance(error, Rejected)
    assert error.code == code


def test_only_a_transfer_is_named() -> None:
    chain = ReportChain()
    chain.grow(chain.file(ANN))
    payload = cases.encode_about(chain.blocks[2].transactions[0])
    assert chain.code(replace(chain.take_back(ANN), payload=payload)) == "report_kind"


# --- who may report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reporting", "may"),
    [
        ("listed", {"listed"}),
        ("validators", {"validator"}),
        ("registered", {"registered"}),
        ("listed+validators", {"listed", "validator"}),
        ("validators+registered", {"validator", "registered"}),
        ("listed+validators+registered", {"listed", "validator", "registered"}),
    ],
)
def test_who_may_report_is_a_parameter(reporting: str, may: set[str]) -> None:
    from tests.report_chain import JURY

    chain = ReportChain(reporting=reporting)
    register = chain.register(CLERK)
    if "registered" in may:
        chain.grow(register)
    else:
        assert chain.code(register) == "registration_off"
    for name, key in (("listed", ANN), ("validator", JURY[1]), ("registered", CLERK)):
        if name in may:
            chain.grow(chain.file(key))
        else:
            assert chain.code(chain.file(key)) == "report_sender"


def test_a_bond_is_taken_whole_and_once() -> None:
    chain = ReportChain()
    before = chain.balance(CLERK)
    assert chain.code(chain.register(CLERK, BOND - 1)) == "report_bond"
    chain.grow(chain.register(CLERK))
    assert chain.balance(CLERK) == before - BOND - 1
    chain.check_money()
    assert chain.code(chain.register(CLERK)) == "reporter_exists"
    assert chain.code(chain.register(ANN)) == "reporter_exists"


def test_a_reporter_leaves_with_its_bond_when_nothing_can_come_any_more() -> None:
    chain = ReportChain()
    chain.grow(chain.register(CLERK))
    before = chain.balance(CLERK)
    chain.grow(chain.file(CLERK))
    chain.grow(chain.leave(CLERK))
    assert chain.code(chain.file(CLERK, 1)) == "report_leaving"
    assert chain.code(chain.leave(CLERK)) == "leave_early"
    reporter = chain.reporter(CLERK)
    assert reporter is not None
    chain.wait(reporter.release_ms - chain.now_ms)
    assert chain.code(chain.leave(CLERK)) == "leave_early"
    chain.wait(1)
    chain.grow(chain.leave(CLERK))
    assert chain.balance(CLERK) == before + BOND - 3
    assert chain.reporter(CLERK) is None
    chain.check_money()


def test_who_holds_no_bond_cannot_leave() -> None:
    chain = ReportChain()
    assert chain.code(chain.leave(CLERK)) == "reporter_unknown"
    assert chain.code(chain.leave(ANN)) == "reporter_unknown"


def test_records_are_walked_from_any_place() -> None:
    records = Records()
    keys = [bytes((1, first, second)) for first in range(0, 250, 7) for second in range(0, 250, 31)]
    for key in keys:
        records = records.put(key, b"v")
    for after in (b"\x01\x00\x00", keys[40], b"\x01\x51\x05", keys[-1], b"\x02"):
        assert [key for key, _ in records.walk(b"\x01", after)] == [key for key in keys if key > after]
