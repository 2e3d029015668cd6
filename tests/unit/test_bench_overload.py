"""What the benchmark says of a network that is away, does not recover, or drops what it accepted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from node.bench import overload, workload
from node.bench.driver import LoadRun
from node.bench.load import LoadReport
from node.bench.sampling import Samples, ask_steadily
from node.bench.watch import Watch
from node.store.store import Store
from tests.chain_factory import ChainFactory
from tests.ledger_chain import KEYS


@asynccontextmanager
async def serve(handler: Any) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_a_slow_answer_holds_up_no_other_question() -> None:
    answered, woken, count = asyncio.Semaphore(0), asyncio.Event(), 0

    class Noting(list[float]):
        def append(self, value: float) -> None:
            super().append(value)
            answered.release()

    samples = Samples(answers_ms=Noting())

    async def answer(_: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if count == 1:
            await woken.wait()
        return web.Response()

    async with serve(answer) as url, ask_steadily([url], samples) as ask:
        for _ in range(5):
            ask()
        for _ in range(4):
            await answered.acquire()
        woken.set()
        await answered.acquire()
    assert (count, samples.unanswered) == (5, 0)


async def test_a_question_without_an_answer_counts_with_the_time_it_waited() -> None:
    samples, asked = Samples(), asyncio.Event()

    async def be_silent(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serve(be_silent) as url:
        async with ask_steadily([url], samples) as ask:
            ask()
            await asked.wait()
        assert len(samples.answers_ms) == 1


async def test_a_network_that_takes_nothing_has_not_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few accounts there are to ask with: it is asked until the time is over."""
    now_s = 0.0

    def tick() -> float:
        nonlocal now_s
        now_s += 1
        return now_s

    monkeypatch.setattr(overload, "monotonic_s", tick)
    monkeypatch.setattr(overload, "LOOK_S", 0)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with serve(refuse) as url:
        taken_s = await overload.time_recovery([url], KEYS[:2], Watch([url]), 0.0)
    assert taken_s > overload.RECOVERY_SECONDS_MAX


def test_what_lies_only_in_a_block_that_never_became_final_is_lost(tmp_path: Path) -> None:
    factory = ChainFactory()
    factory.grow(4)
    home = factory.write_home(tmp_path / "home")
    store = Store.open(home, factory.rules)
    for block, finalization in zip(factory.blocks[:3], factory.finalizations, strict=False):
        store.put_final(finalization, (block,))
    store.put_block(factory.blocks[3])  # as whoever votes for it does; then its view is nullified
    store.sync()
    store.close()
    raws = [tx.raw for block in factory.blocks for tx in block.transactions]
    path = tmp_path / "signed.bin"
    path.write_bytes(b"".join(len(raw).to_bytes(2, "big") + raw for raw in raws))
    assert len(workload.SignedFile.open(path)) == len(raws)
    run = LoadRun(Watch([]), (LoadReport(accepted=[(0, len(raws))]),), 0.0, 1.0, 0, 0.0)
    assert overload.count_lost(home, path, run) == len(factory.blocks[3].transactions) > 0
