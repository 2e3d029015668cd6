"""Reports by API: what the desk reads in the state is what the calls answer, page by page, as their schemas say."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from consensus.ledger.dispute import FRAUD, MISTAKE
from node.api import schemas
from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.desks.reports import ReportDesk
from node.metrics import NodeMetrics
from tests.fakes.fake_door import FakeDoor
from tests.report_chain import (
    ANN,
    BEN,
    BOND,
    CLERK,
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
    """All three transfers are reported; the first is disputed with one vote, the second found false."""
    chain = ReportChain(reporting="listed+validators+registered")
    chain.grow(chain.register(CLERK))
    chain.grow(chain.file(CLERK), chain.file(ANN), chain.file(BEN, 1), chain.file(ANN, 2))
    chain.grow(chain.take_back(ANN))
    chain.grow(chain.dispute(SHOP), chain.dispute(VICTIM, 1))
    chain.grow(chain.vote(0, FRAUD), chain.vote(0, MISTAKE, 1), chain.vote(1, MISTAKE, 1))
    return chain


def open_desk(chain: ReportChain) -> ReportDesk:
    return ReportDesk(chain.view, chain.rules.parameters)


def test_the_desk_tells_a_case_whole(chain: ReportChain) -> None:
    case = open_desk(chain).find_case(chain.transfer_of())
    assert case is not None
    assert (case.sender, case.receiver, case.standing) == (VICTIM.address, SHOP.address, 1)
    assert [(f.reporter, f.is_withdrawn) for f in case.filings] == [
        (CLERK.address, False),
        (ANN.address, True),
    ]
    assert case.dispute is not None
    assert (case.dispute.disputer, case.dispute.deposit_units) == (SHOP.address, DEPOSIT)
    assert case.dispute.ends_ms == case.dispute.opened_ms + VOTE_MS
    assert (case.dispute.fraud_units, case.dispute.false_units, case.dispute.total_units) == (400, 0, 1_000)
    assert open_desk(chain).find_case(chain.blocks[2].transactions[0]) is None


def test_the_desk_pages_through_cases_and_through_disputes(chain: ReportChain) -> None:
    desk = open_desk(chain)
    everything = [case.id for case in desk.list_cases(b"", 10, is_disputed=False).cases]
    assert len(everything) == 3
    seen: list[bytes] = []
    after: bytes | None = b""
    while after is not None:
        page = desk.list_cases(after, 2, is_disputed=False)
        seen += [case.id for case in page.cases]
        after = page.after
    assert seen == everything
    disputed = desk.list_cases(b"", 10, is_disputed=True)
    assert [case.id for case in disputed.cases] == [chain.transfer_of().id]


def test_the_desk_tells_who_may_report(chain: ReportChain) -> None:
    desk = open_desk(chain)
    record = desk.list_reporters()
    told = {entry.address: (entry.status, entry.may_report, entry.bond_units) for entry in record.reporters}
    assert told[ANN.address] == ("listed", True, 0)
    assert told[BEN.address] == ("struck off", False, 0)
    assert told[CLERK.address] == ("registered", True, BOND)
    assert told[JURY[2].address] == ("validator", True, 0)
    assert record.reporters[0] == desk.find_reporter(record.reporters[0].address)
    assert desk.find_reporter(JURY[2].address) is not None
    assert desk.find_reporter(FRIEND.address) is None


@pytest.fixture
async def session(chain: ReportChain) -> AsyncIterator[aiohttp.ClientSession]:
    door, desk = FakeDoor(), open_desk(chain)
    reported = next(iter(door.records))
    cases = desk.list_cases(b"", 10, is_disputed=False).cases
    door.cases = {case.id: case for case in sorted(cases, key=lambda case: case.id)}
    door.cases[reported] = cases[0]
    door.reporters = list(desk.list_reporters().reporters)
    server = ApiServer(door, ApiSettings(limits=Limits()), NodeMetrics(), lambda: 0)
    await server.start()
    async with aiohttp.ClientSession(server.url) as client:
        yield client
    await server.stop()


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with session.get(path) as response:
        return response.status, await response.json(content_type=None)


async def test_calls_answer_as_their_schemas_say(session: aiohttp.ClientSession) -> None:
    named = schemas.build_schemas(Limits())
    status, page = await get(session, "/v1/reports?limit=100")
    assert status == 200
    for case in page["reports"]:
        assert case.keys() == named["Case"]["properties"].keys()
        if case["dispute"] is not None:
            assert case["dispute"].keys() == named["Dispute"]["properties"].keys()
    status, page = await get(session, "/v1/reports?disputed=true")
    assert status == 200
    assert all(case["dispute"] for case in page["reports"])
    status, record = await get(session, "/v1/reporters")
    assert status == 200
    for entry in record["reporters"]:
        assert entry.keys() == named["Reporter"]["properties"].keys()
    address = "0x" + CLERK.address.hex()
    assert await get(session, f"/v1/reporters/{address}") == (
        200,
        next(entry for entry in record["reporters"] if entry["address"] == address),
    )


async def test_a_reported_transaction_says_so(session: aiohttp.ClientSession) -> None:
    page = (await get(session, "/v1/blocks/1"))[1]
    answers = [await get(session, f"/v1/transactions/{tx['id']}") for tx in page["transactions"]]
    found = [record["report"] for _, record in answers]
    assert sum(report is not None for report in found) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/reports?after=0x12", 400),
        ("/v1/reports?disputed=maybe", 400),
        ("/v1/reports?limit=0", 422),
        ("/v1/reporters/0x" + "11" * 20, 404),
        ("/v1/reporters/me", 400),
    ],
)
async def test_bad_questions_are_problems(session: aiohttp.ClientSession, path: str, status: int) -> None:
    found, problem = await get(session, path)
    assert found == status
    assert problem["status"] == status
