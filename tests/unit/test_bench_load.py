"""The benchmark's submitting process against a server that is busy, or takes only a part."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from node.bench import load
from node.bench.load import FIRST_COUNT, OPEN, POST_MAX, STOP, LoadPlan, LoadReport, split_batches
from node.bench.stopwatch import monotonic_s
from node.bench.workload import SignedFile

COUNT, BATCH = 400, 5
RAWS = [number.to_bytes(2, "big") for number in range(COUNT)]  # the server does not look into them
BUSY, ACCEPTED, LATER = 429, "accepted", "rejected"

Answer = Callable[[int, list[bytes]], "list[str] | int"]  # of the post's number and what it brought


class Node:
    """Answers posts as it is told to; notes what it took."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _, raws: [ACCEPTED] * len(raws)
        self.posts: list[int] = []  # how many transactions each brought
        self.taken: list[bytes] = []
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        raws: list[bytes] = msgpack.unpackb(await request.read())
        self.posts.append(len(raws))
        answer = self.answer(len(self.posts), raws)
        if isinstance(answer, int):
            return web.Response(status=answer, headers={"Retry-After": "0"})
        self.taken += [raw for raw, outcome in zip(raws, answer, strict=True) if outcome == ACCEPTED]
        receipts = [{"outcome": outcome, "code": "", "reason": "", "retry_ms": 1} for outcome in answer]
        return web.Response(text=json.dumps(receipts, separators=(",", ":")))


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(load, "AGAIN_S", 0.0)
    node = Node()
    application = web.Application()
    application.router.add_post("/v1/transactions", node.serve)
    async with TestServer(application) as server:
        node.url = str(server.make_url("")).rstrip("/")
        yield node


async def submit(node: Node, board: list[int] | None = None) -> LoadReport:
    """All of it is due at once."""
    signed = SignedFile(b"".join(len(raw).to_bytes(2, "big") + raw for raw in RAWS))
    (batches,) = split_batches(0, COUNT, BATCH, 1)
    plan = LoadPlan(0, Path("unused"), (node.url,), batches, OPEN, rate=1e9)
    process: Any = load._Load(plan, board or [0] * (FIRST_COUNT + 1), signed)
    return await process.run(monotonic_s())


async def test_what_a_busy_node_does_not_take_is_posted_together_when_it_does(node: Node) -> None:
    node.answer = lambda number, raws: BUSY if number <= 6 else [ACCEPTED] * len(raws)
    report = await submit(node)
    assert sorted(node.taken) == RAWS
    assert (report.accepted_count, report.pushed_back, report.problem) == (COUNT, 6, "")
    assert max(node.posts) <= POST_MAX
    assert len(node.posts) <= 6 + 2 * COUNT // POST_MAX + load.CONNECTIONS  # not one for each of 80 batches


async def test_what_was_not_taken_of_a_post_is_posted_again_and_nothing_twice(node: Node) -> None:
    seen: set[bytes] = set()

    def take_odd_ones_later(_: int, raws: list[bytes]) -> list[str]:
        answers = [ACCEPTED if raw[-1] % 2 == 0 or raw in seen else LATER for raw in raws]
        seen.update(raws)
        return answers

    node.answer = take_odd_ones_later
    report = await submit(node)
    assert sorted(node.taken) == RAWS
    numbers = sorted(number for start, end in report.accepted for number in range(start, end))
    assert numbers == list(range(COUNT))
    assert {batch for batch, _, _ in report.sent} == set(split_batches(0, COUNT, BATCH, 1)[0])


async def test_it_stops_when_it_is_told_to_although_nothing_is_taken(node: Node) -> None:
    board = [0] * (FIRST_COUNT + 1)

    def stop_after_nine(number: int, _: list[bytes]) -> int:
        board[STOP] = int(number > 9)
        return BUSY

    node.answer = stop_after_nine
    report = await submit(node, board)
    assert (report.accepted_count, node.taken) == (0, [])
