"""The frame door: shut it takes nothing; open it takes what a peer may send after the handshake."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.errors import Fault, Rejected
from node.full_node import FullNode
from node.home import NetworkPlan, create_network
from node.network.frames import EngineMessage, Frame, Goodbye, Status
from node.network.handshake import Identity
from node.network.memory_transport import MemoryTransport
from node.network.transport import Handler, Peer
from node.node_files import read_node_files
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import ProcessDisk

PEER = Peer(bytes(33), "peer", "memory", is_inbound=True)
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


async def test_after_a_fault_nothing_more_is_taken(node: FullNode) -> None:
    await node.start()
    node.door.on_fault(Fault("cannot read", field="disk"))
    assert node.failed.is_set()
    for frame in GARBAGE:
        await node.door.on_frame(PEER, frame)
    await node.door.on_frame(PEER, Status(0, 9, 8, 8, bytes(32)))
    assert node.catching_up.get_height(PEER.node_key) is None
