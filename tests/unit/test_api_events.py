"""Server-sent events: streaming, resuming, gaps, limits, and the ring behind them."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp

from node.api.event_ring import WEIGHT_MAX, EventRing
from node.api.server import ApiServer
from tests.fakes.fake_door import FakeDoor
from tests.fakes.served_door import get


async def read_events(response: aiohttp.ClientResponse, count: int) -> list[tuple[int, str, Any]]:
    events: list[tuple[int, str, Any]] = []
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
            if len(events) == count:
                break
    return events


async def test_events_stream_and_resume_after_the_last_seen(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    async with session.get("/v1/events") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        door.events.publish("head", {"height": 4})
        door.events.publish("finalized", {"height": 3})
        seen = await read_events(response, 2)
    assert seen == [(1000, "head", {"height": 4}), (1001, "finalized", {"height": 3})]
    door.events.publish("head", {"height": 5})
    async with session.get("/v1/events", headers={"Last-Event-ID": "1000"}) as response:
        assert [event[0] for event in await read_events(response, 2)] == [1001, 1002]


async def test_a_reader_who_missed_events_is_told_so(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    for height in range(12):  # the ring holds 8
        door.events.publish("head", {"height": height})
    async with session.get("/v1/events", headers={"Last-Event-ID": "1000"}) as response:
        seen = await read_events(response, 3)
    assert seen[0] == (1003, "gap", {"missed": 3})
    assert [event[0] for event in seen[1:]] == [1004, 1005]


async def test_events_can_be_chosen(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    async with session.get("/v1/events?events=finalized,verdict") as response:
        for name in ("head", "transaction", "finalized", "head", "verdict"):
            door.events.publish(name, {})
        assert [event[1] for event in await read_events(response, 2)] == ["finalized", "verdict"]


async def test_open_streams_are_bounded_and_freed(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    first = await session.get("/v1/events")
    second = await session.get("/v1/events")
    status, problem = await get(session, "/v1/events")
    assert (status, problem["code"]) == (429, "streams")
    first.close()
    second.close()
    async with asyncio.timeout(5):
        while True:  # the server learns of a closed reader when it writes
            door.events.publish("head", {})
            async with session.get("/v1/events") as response:
                if response.status == 200:
                    break


async def test_a_stream_of_events_that_do_not_come_is_freed_while_others_do(
    session: aiohttp.ClientSession, server: ApiServer, door: FakeDoor
) -> None:
    response = await session.get("/v1/events?events=evidence")
    response.close()
    async with asyncio.timeout(5):
        while server._streams.tasks:
            door.events.publish("head", {})
            await get(session, "/v1/status")


async def test_a_last_event_id_must_be_a_number(session: aiohttp.ClientSession) -> None:
    for text in ("x", "-1", "1.5", "9" * 17):
        assert (await get(session, "/v1/events", **{"Last-Event-ID": text}))[0] == 400


async def test_stopping_ends_open_streams_at_once(server: ApiServer) -> None:
    async with (
        aiohttp.ClientSession(server.url) as client,
        client.get("/v1/events") as response,
        asyncio.timeout(3),
    ):
        await response.content.readline()
        await server.stop()
        with suppress(aiohttp.ClientError):  # how the stream ends is the socket's affair
            while await response.content.readline():
                pass


async def test_a_waiting_reader_is_woken_and_a_cancelled_one_loses_nothing() -> None:
    ring = EventRing(first_id=1, capacity=4)
    reader, other = ring.subscribe(None), ring.subscribe(None)
    waiting = asyncio.ensure_future(anext(reader))
    cancelled = asyncio.ensure_future(anext(other))
    await asyncio.sleep(0)
    cancelled.cancel()
    ring.publish("head", {})
    assert (await waiting).id == 1
    assert (await anext(other)).id == 1


def test_the_ring_is_bounded_by_what_its_events_tell_of() -> None:
    ring = EventRing(100)
    for height in range(50):
        ring.publish("transaction", {"height": height}, weight=WEIGHT_MAX // 10)
    assert ring.next_id == 150
    assert ring.oldest == 140
    assert ring.get(140).data["height"] == 40


def test_one_event_heavier_than_all_that_may_be_held_is_held_alone() -> None:
    ring = EventRing(0)
    ring.publish("head", {})
    ring.publish("transaction", {}, weight=2 * WEIGHT_MAX)
    assert (ring.oldest, ring.next_id) == (1, 2)
