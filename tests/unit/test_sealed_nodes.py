"""Whole nodes that were given everything: they ask the machine for nothing, and the same again is the same."""

from __future__ import annotations

import asyncio
import builtins
import io
import logging
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from consensus.bft.simplex import SimplexEngine
from consensus.transaction import sign_transaction
from node.full_node import FullNode
from node.home import Network, NetworkPlan, create_network
from node.metrics import NodeMetrics
from node.network.handshake import Identity
from node.network.memory_transport import MemoryNetwork, MemoryTransport
from node.network.transport import Handler
from node.node_files import NodeFiles, read_node_files
from node.simulation.guard import ForbiddenCallError, forbid_outside
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import ProcessDisk
from tests.fakes.jumping_loop import JumpingLoop

FILES = ("open", "stat", "listdir", "scandir", "mkdir", "unlink", "replace", "rename", "remove")


class Inline(Executor):
    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def sealed() -> Iterator[None]:
    """No clock, chance or socket; no file and no thread either. Also not where the error is caught."""
    asked: list[object] = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        asked.append(arguments)
        raise ForbiddenCallError("a file or a thread was asked for")

    logging.disable()  # a log record reads the clock
    try:
        with forbid_outside(), pytest.MonkeyPatch.context() as patch:
            for name in FILES:
                patch.setattr(os, name, refuse)
            patch.setattr(builtins, "open", refuse)
            patch.setattr(io, "open", refuse)
            patch.setattr(threading.Thread, "start", refuse)
            yield
    finally:
        logging.disable(logging.NOTSET)
    assert asked == []


class SealedNodes:
    """Two validators on memory disks in a loop without a clock. Make it before the seal, start it within."""

    def __init__(self, network: Network, disks: list[MemoryDisk], seed: int) -> None:
        self.network, self.loop = network, JumpingLoop()
        self.links = MemoryNetwork()
        self.rng = random.Random(seed)
        self.files = [self._read(home) for home in network.homes]
        self.metrics = [NodeMetrics() for _ in network.homes]
        self.disks = [ProcessDisk(disk) for disk in disks]
        self.nodes: list[FullNode] = []

    def _read(self, home: Path) -> NodeFiles:
        files = read_node_files(home)
        # Keys are looked for in the home at every epoch; here, in what was given.
        settings = replace(files.settings, worker=False)
        return replace(files, settings=settings, read_voting_keys=tuple)

    async def start(self) -> None:
        for files, metrics, disk in zip(self.files, self.metrics, self.disks, strict=True):
            node = FullNode(
                files,
                rng=self.rng,
                clock=self.loop,
                disk=disk,
                executor=Inline(),
                make_network=self._make_network,
                make_engine=SimplexEngine,
                open_index=disk.open_index,
                metrics=metrics,
                serves_api=False,
            )
            self.nodes.append(node)
            await node.start()
        self.links.join(*(node.node_key.public_key for node in self.nodes))

    def _make_network(self, identity: Identity, handler: Handler) -> MemoryTransport:
        transport = self.links.add(identity.key.public_key)
        transport.handler = handler
        return transport

    async def pay(self, nonce: int) -> None:
        """One payment, final on both."""
        accounts, node = self.network.accounts, self.nodes[nonce % 2]
        tx = sign_transaction(
            accounts[0],
            node.rules.chain_id,
            nonce=nonce,
            receiver=accounts[1].address,
            amount=5,
            fee=1,
            timestamp_ms=10,
            expires_ms=10_000,
        )
        receipts = await node.entrance.submit([tx.raw])
        assert [receipt.reason for receipt in receipts] == [""]
        async with asyncio.timeout(60):
            while not all(node.store.find_transaction(tx.id) for node in self.nodes):
                assert [node.fault for node in self.nodes] == [None, None]
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()

    def list_hashes(self) -> list[bytes]:
        store = self.nodes[0].store
        headers = [store.get_header(height) for height in range(1, store.finalized_height + 1)]
        return [header.hash for header in headers if header is not None]


@pytest.fixture
def network(tmp_path: Path, seed: int) -> Network:
    plan = NetworkPlan(2, 20_000, block_interval_ms=1_000, refuses=False, module_names=("fraud",))
    return create_network(tmp_path / "net", plan, random.Random(seed).randbytes)


def run_payments(network: Network, disks: list[MemoryDisk], seed: int, first: int = 0) -> list[bytes]:
    """Start, pay four times, stop: the hashes of the final chain."""
    nodes = SealedNodes(network, disks, seed)

    async def run() -> list[bytes]:
        try:
            await nodes.start()
            for nonce in range(first, first + 4):
                await nodes.pay(nonce)
            return nodes.list_hashes()
        finally:
            await nodes.close()

    try:
        with sealed():
            return nodes.loop.run_until_complete(run())
    finally:
        nodes.loop.close()


def test_nodes_that_were_given_everything_ask_the_machine_for_nothing(network: Network, seed: int) -> None:
    disks = [MemoryDisk(), MemoryDisk()]
    hashes = run_payments(network, disks, seed)
    assert len(hashes) >= 4
    again = run_payments(network, disks, seed + 1, first=4)  # from what the disks hold
    assert again[: len(hashes)] == hashes
    assert len(again) >= len(hashes) + 4


def test_the_same_world_runs_the_same_way_twice(network: Network, seed: int) -> None:
    first, second = (run_payments(network, [MemoryDisk(), MemoryDisk()], seed) for _ in range(2))
    assert first == second
