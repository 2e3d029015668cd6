"""Laws of reports over any order of their kinds: no money is made, records fit each other, all of it is forgotten."""

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.ledger import cases, dispute, reporters
from consensus.parameters import DAY_MS
from consensus.transaction import Transaction
from tests.report_chain import (
    ANN,
    BEN,
    BOND,
    CLERK,
    CONTEST_MS,
    FRIEND,
    JURY,
    SHOP,
    VICTIM,
    VOTE_MS,
    ReportChain,
)

PEOPLE = (ANN, BEN, CLERK, VICTIM, SHOP, FRIEND, *JURY)
REPORTERS = (ANN, BEN, CLERK, JURY[1])
# (step, who, which transfer, verdict, time after the tip)
STEPS = st.tuples(
    st.sampled_from(
        ("file", "file", "back", "dispute", "vote", "vote", "reclaim", "register", "leave", "pay")
    ),
    st.integers(0, len(PEOPLE) - 1),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([0, 0, 0, 1, 1_000, VOTE_MS, VOTE_MS + 1, CONTEST_MS, 14 * DAY_MS]),
)


def make(chain: ReportChain, step: tuple[str, int, int, int, int]) -> Transaction:
    name, who, index, verdict, after_ms = step
    when = {"timestamp_ms": chain.now_ms + after_ms}
    person = PEOPLE[who]
    match name:
        case "file":
            return chain.file(REPORTERS[who % 4], index, **when)
        case "back":
            return chain.take_back(REPORTERS[who % 4], index, **when)
        case "dispute":
            return chain.dispute((SHOP, VICTIM, FRIEND)[who % 3], index, **when)
        case "vote":
            return chain.vote(who % 3, verdict, index, **when)
        case "reclaim":
            return chain.reclaim((SHOP, VICTIM)[who % 2], index, **when)
        case "register":
            return chain.register(person, **when)
        case "leave":
            return chain.leave(person, **when)
        case _:
            return chain.transfer(person, FRIEND, **when)


def check_records(chain: ReportChain) -> None:
    records = chain.view.records
    told = 0
    for key, case in cases.walk_cases(records):
        standing = list(cases.walk_filings(records, key, cases.STANDING))
        assert case.standing == len(standing)
        is_told = case.told_height > 0
        assert is_told == (case.standing >= 2 and case.finding != cases.FALSE)
        told += is_told and case.memos == {(1, 0): 1}
        assert dispute.find_dispute(records, key) is None or case.finding == cases.UNSETTLED
    assert chain.count() == told
    for _, reporter in reporters.walk_reporters(records):
        assert reporter.bond_units == (BOND if reporter.status == reporters.REGISTERED else 0)
    disputers = [entry.disputer for _, entry in dispute.walk_disputes(records)]
    for person in PEOPLE:
        assert dispute.get_open(records, person.address) == disputers.count(person.address)


@settings(max_examples=80)
@given(st.lists(st.lists(STEPS, max_size=6), max_size=10))
def test_no_order_of_reports_and_disputes_makes_money_or_loses_count(
    blocks: list[list[tuple[str, int, int, int, int]]],
) -> None:
    chain = ReportChain(reporting="listed+validators+registered", reports_min=2, report_pair_ms=28 * DAY_MS)
    supply = chain.view.supply
    for block in blocks:
        built = chain.build(*(make(chain, step) for step in block))
        chain.add(built.block)  # checked: what is built is accepted
        assert chain.view.supply <= supply
        supply = chain.view.supply
        chain.check_money()
        check_records(chain)
    chain.wait(60 * DAY_MS + CONTEST_MS + 2 * VOTE_MS + DAY_MS)
    for kind in (1, 21, 22, 23, 24):
        assert not list(chain.view.records.walk(bytes((0x80 | kind,))))
    chain.check_money()
