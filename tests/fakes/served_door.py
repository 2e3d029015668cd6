"""A fake door behind a real API server on a free port: the fixtures of the API's tests, a thread to serve in, one GET."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.metrics import NodeMetrics
from tests.fakes.fake_door import KEYS, FakeDoor

LIMITS = Limits(
    page_entries_max=3,
    page_transactions_max=5,
    streams_max=3,
    streams_per_client_max=2,
    loopback_requests_per_second=1_000,
    loopback_requests_burst=60,
)
ADDRESS = "0x" + KEYS[0].address.hex()


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
async def server(door: FakeDoor) -> AsyncIterator[ApiServer]:
    clock = iter(range(10**9))
    settings = ApiSettings(limits=LIMITS, host_names=("node.example",))
    server = ApiServer(door, settings, NodeMetrics(), lambda: next(clock))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session(server: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as client:
        yield client


@contextmanager
def serve_in_thread(server: ApiServer) -> Iterator[str]:
    """The URL of a server on a loop of its own: commands bring theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)  # a test that fails ends all the same
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
        yield server.url
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def get(session: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any]:
    async with session.get(path, headers=headers) as response:
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        document = await response.json(content_type=None)
        if response.status >= 400:
            assert {"type", "title", "status", "detail", "code"} <= document.keys()
            assert document["status"] == response.status
        return response.status, document
