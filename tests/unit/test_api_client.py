"""The client: fail-over, errors in the node's own words, typed answers, events over lost nodes."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from consensus.errors import Fault, NotYet, Rejected
from node.api.door import Event
from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.client.node_client import NodeClient, check_url
from node.metrics import NodeMetrics
from tests.fakes.fake_door import CHAIN_ID, CLOCK_MS, KEYS, FakeDoor, make_transfer


def make_server(door: FakeDoor, **limits: int) -> ApiServer:
    return ApiServer(door, ApiSettings(limits=Limits(**limits)), NodeMetrics(), lambda: 0)


def find_closed_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
async def server(door: FakeDoor) -> AsyncIterator[ApiServer]:
    server = make_server(door)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[NodeClient]:
    async with NodeClient([find_closed_url(), server.url]) as client:
        yield client


async def test_the_next_node_is_asked_when_one_is_gone(client: NodeClient, server: ApiServer) -> None:
    status = await client.get_status()
    assert (status.chain_id, status.clock_ms, status.head_height, status.finalized_height) == (
        CHAIN_ID,
        CLOCK_MS,
        3,
        2,
    )
    assert client.url == server.url


async def test_a_node_that_is_not_ready_is_passed_over(client: NodeClient, server: ApiServer) -> None:
    behind = FakeDoor()
    behind.fails = NotYet("catching up", code="syncing")
    first = make_server(behind)
    await first.start()
    try:
        async with NodeClient([first.url, server.url]) as both:
            assert (await both.get_status()).head_height == 3
            assert both.url == server.url
        async with NodeClient([first.url]) as alone:
            with pytest.raises(NotYet, match="catching up"):
                await alone.get_status()
    finally:
        await first.stop()


async def test_when_nobody_answers_it_is_not_yet_and_names_the_node() -> None:
    url = find_closed_url()
    async with NodeClient([url]) as client:
        with pytest.raises(NotYet, match=f"{url}: no node answers .*start it"):
            await client.get_status()


async def test_a_batch_comes_back_as_receipts(client: NodeClient) -> None:
    good, refused, foreign = make_transfer(7), make_transfer(8, 666), make_transfer(9, chain_id="other")
    receipts = await client.submit([good.raw, refused.raw, foreign.raw, b"\x00"])
    assert [receipt.outcome for receipt in receipts] == ["accepted", "refused", "rejected", "rejected"]
    assert [receipt.id for receipt in receipts] == [good.id, refused.id, foreign.id, None]
    assert receipts[1].score == 9_700


async def test_an_account_and_a_transaction_are_read(client: NodeClient, door: FakeDoor) -> None:
    account = await client.get_account(KEYS[0].address)
    assert (account.balance, account.nonce) == (1_000, 6)
    standing = await client.get_transaction(door.blocks[2].block.transactions[1].id)
    assert standing is not None
    assert (standing.status, standing.height, standing.index, standing.outcome) == ("final", 2, 1, "accept")
    assert await client.get_transaction(bytes(32)) is None


async def test_another_node_may_know_what_one_does_not(client: NodeClient, server: ApiServer) -> None:
    tx = make_transfer(77)
    await client.submit([tx.raw])
    empty = make_server(FakeDoor())
    await empty.start()
    try:
        async with NodeClient([empty.url, server.url, find_closed_url()]) as both:
            standing = await both.get_transaction(tx.id)
            assert standing is not None
            assert standing.status == "pending"
            assert await both.get_transaction(bytes(32)) is None
    finally:
        await empty.stop()


async def test_blocks_come_whole(client: NodeClient, door: FakeDoor) -> None:
    assert await client.get_block("finalized") == door.blocks[2]
    assert await client.get_block(door.blocks[3].block.hash) == door.blocks[3]
    assert await client.get_block(99) is None


async def test_a_problem_becomes_the_error_it_was(client: NodeClient, door: FakeDoor) -> None:
    with pytest.raises(Rejected) as caught:
        await client.get_json("/v1/blocks/x")
    assert (caught.value.code, caught.value.field) == ("path", "block")
    assert str(caught.value) == "block: must be a whole number; use a height, a hash, head or finalized"
    door.fails = Fault("broken")
    with pytest.raises(Fault, match="its log says why"):
        await client.get_status()


async def test_what_is_no_node_is_named() -> None:
    application = web.Application()
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with NodeClient([f"http://127.0.0.1:{runner.addresses[0][1]}"]) as client:
            with pytest.raises(Rejected, match="not a node"):
                await client.get_status()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "url", ["", "localhost:1", "ftp://x", "http://", "http://x:y", "http://x/path", "http://x?a=1"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(Rejected, match="not a node's URL"):
        check_url(url)


async def test_events_go_on_after_a_lost_node_with_a_gap(server: ApiServer, door: FakeDoor) -> None:
    other_door = FakeDoor()
    first = make_server(other_door)
    await first.start()
    seen: list[Event] = []
    async with NodeClient([first.url, server.url]) as client, asyncio.timeout(10):
        events = client.follow_events(["head"])
        reading = asyncio.ensure_future(anext(events))
        await other_door.subscribed.wait()
        other_door.events.publish("head", {"height": 1})
        seen.append(await reading)
        await first.stop()
        seen.append(await anext(events))
        reading = asyncio.ensure_future(anext(events))
        await door.subscribed.wait()
        door.events.publish("head", {"height": 2})
        seen.append(await reading)
        await events.aclose()
    assert [event.name for event in seen] == ["head", "gap", "head"]
    assert seen[-1].data == {"height": 2}
