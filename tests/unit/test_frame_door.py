"""The frame door: shut it takes nothing; open it takes what a peer may send after the handshake."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import WSMessage, WSMsgType

from consensus import crypto
from consensus.bft.contract import CertificateRequest, Event, Timer, TimerFired
from consensus.bft.messages import encode_message
from consensus.errors import Fault, Rejected
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Subject, Vote
from node.blocks import serving
from node.config import read_key
from node.engine.runtime import WAITING_EVENTS_MAX
from node.full_node import FullNode
from node.home import NetworkPlan, create_network, open_network
from node.network.connection import Connection, Counters, Lost
from node.network.frame_door import NULLIFIES_KEPT
from node.network.frames import BodyTransactions, EngineMessage, Frame, Goodbye, Status
from node.network.handshake import Identity
from node.network.memory_transport import MemoryTransport
from node.network.transport import Handler, Peer
from node.network.wire import encode_frame
from node.node_files import read_node_files
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import ProcessDisk

PEER = Peer(bytes(33), "peer", "memory", is_inbound=True)


class FullSocket:
    """Holds so many frames, and gives each without a pause."""

    FRAMES = 20_000
    close_code = 1000

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = self.FRAMES

    async def receive(self) -> WSMessage:
        self.left -= 1
        if self.left < 0:
            return WSMessage(WSMsgType.CLOSED, None, None)
        return WSMessage(WSMsgType.BINARY, self.data, None)


GARBAGE: tuple[Frame, ...] = (EngineMessage(b"nonsense"), Goodbye("bye", "why"))


def make_network(identity: Identity, handler: Handler) -> MemoryTransport:
    transport = MemoryTransport(identity.key.public_key, "own")
    transport.handler = handler
    return transport


@pytest.fixture
async def node(tmp_path: Path, seed: int) -> AsyncIterator[FullNode]:
    rng = random.Random(seed)
    plan = NetworkPlan(2, 20_000, block_interval_ms=250, module_names=())
    files = read_node_files(create_network(tmp_path / "net", plan, rng.randbytes).homes[0])
    files = replace(files, settings=replace(files.settings, worker=False))
    disk = ProcessDisk(MemoryDisk())
    node = FullNode(
        files, rng=rng, make_network=make_network, disk=disk, open_index=disk.open_index, serves_api=False
    )
    yield node
    await node.close()


async def test_before_the_start_everything_is_dropped(node: FullNode) -> None:
    node.door.on_connected(PEER)
    for frame in GARBAGE:
        await node.door.on_frame(PEER, frame)
    node.door.on_disconnected(PEER)
    assert node.fault is None


async def test_an_open_door_refuses_what_no_honest_node_sends(node: FullNode) -> None:
    await node.start()
    for frame in GARBAGE:
        with pytest.raises(Rejected):
            await node.door.on_frame(PEER, frame)
    await node.door.on_frame(PEER, Status(0, 9, 8, 8, bytes(32)))
    assert node.catching_up.get_height(PEER.node_key) == 8
    assert node.fault is None


async def test_a_nullify_that_is_told_again_and_again_is_checked_once(
    node: FullNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start()
    validators = node.rules.validators
    keys = (read_key(home / "validator.key") for home in open_network(tmp_path / "net").homes)
    key = next(key for key in keys if validators.get_index(key.public_key) != node.engines.own_index)
    signer = validators.get_index(key.public_key)
    assert signer is not None
    checked: list[bytes] = []
    verify = crypto.verify

    def count(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        checked.append(digest)
        return verify(public_key, digest, signature)

    monkeypatch.setattr(crypto, "verify", count)

    async def tell(kind: int, view: int, block_hash: bytes = NO_BLOCK) -> None:
        subject = Subject(0, kind, view, block_hash)
        signature = key.sign(subject.compute_digest(node.rules.chain_id))
        raw = encode_message(Vote(subject, signer, signature))
        await node.door.on_frame(PEER, EngineMessage(raw))

    for view in (1, 2):
        for _ in range(1_000):
            await tell(NULLIFY, view)
        assert len(checked) == view
    await tell(FINALIZE, 1, b"b" * 32)  # contradicts it
    assert len(checked) == 3
    forged = Vote(Subject(0, NULLIFY, 3, NO_BLOCK), signer, bytes(63) + b"\1")
    for _ in range(2):
        with pytest.raises(Rejected):
            await node.door.on_frame(PEER, EngineMessage(encode_message(forged)))
    assert len(checked) == 5
    assert node.fault is None


async def test_checked_nullifies_are_forgotten_when_they_become_too_many(node: FullNode) -> None:
    for number in range(2 * NULLIFIES_KEPT):
        node.door._keep_nullify(number.to_bytes(4, "big"))
    assert len(node.door._nullifies) == NULLIFIES_KEPT


async def test_a_peer_that_asks_without_end_waits_itself_and_nobody_behind_it(
    node: FullNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames are in the buffer, as aiohttp has them: reading one does not suspend."""
    await node.start()
    monkeypatch.setattr(serving, "BUDGET_BYTES", 10**12)
    engine, longest, timers_ahead = node.engine, 0, []
    step = engine.step

    def watch(event: Event) -> object:
        nonlocal longest
        longest = max(longest, len(node.runtime._events))
        if isinstance(event, TimerFired):
            timers_ahead.append(socket.left)
        return step(event)

    monkeypatch.setattr(node.runtime, "_engine", SimpleNamespace(step=watch))
    socket = FullSocket(encode_frame(EngineMessage(encode_message(CertificateRequest(0, 1, NOTARIZE)))))
    connection = Connection(PEER, cast(Any, socket), Counters(), initiator_key=b"", opened_at=0)
    reader = asyncio.create_task(connection._read(node.door.on_frame, lambda *_: None))
    await asyncio.sleep(0)
    node.runtime.post(TimerFired(Timer.INTERVAL, 1))
    with pytest.raises(Lost):
        await reader
    assert longest <= WAITING_EVENTS_MAX
    assert timers_ahead[0] > FullSocket.FRAMES // 2
    assert node.fault is None


async def test_a_body_answer_is_handed_on_with_its_senders_key(
    node: FullNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start()
    told: list[tuple[Frame, bytes]] = []
    monkeypatch.setattr(
        node.judge_room, "on_body_transactions", lambda frame, sender: told.append((frame, sender))
    )
    frame = BodyTransactions(bytes(32), (), ())
    await node.door.on_frame(PEER, frame)
    assert told == [(frame, PEER.node_key)]


async def test_after_a_fault_nothing_more_is_taken(node: FullNode) -> None:
    await node.start()
    node.door.on_fault(Fault("cannot read", field="disk"))
    assert node.failed.is_set()
    for frame in GARBAGE:
        await node.door.on_frame(PEER, frame)
    await node.door.on_frame(PEER, Status(0, 9, 8, 8, bytes(32)))
    assert node.catching_up.get_height(PEER.node_key) is None
