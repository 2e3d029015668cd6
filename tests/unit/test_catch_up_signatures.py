"""Catching up checks what transactions were signed, also where a quorum certified the block."""

from dataclasses import replace
from pathlib import Path

from node.blocks.catch_up import LIE_POINTS
from node.network.frames import Status
from tests.chain_factory import ChainFactory
from tests.fakes.rooms import Rooms, make_batch, make_peer


async def test_a_transaction_that_nobody_signed_is_not_taken_from_a_certified_block(tmp_path: Path) -> None:
    factory = ChainFactory()
    rooms = Rooms(tmp_path / "home", factory, "ann")
    try:
        good, bad = factory.transfer(0, 1), replace(factory.transfer(1, 2), signature=bytes(63) + b"\1")
        factory.append(factory.build((good, bad)))
        peer = make_peer("ann")
        rooms.catch_up.on_status(peer, Status(0, 9, 9, 9, b"?" * 32))
        rooms.catch_up.on_final_blocks(peer, make_batch(factory, 1, 1))
        await rooms.settle(lambda: rooms.transport.penalties)
        assert [penalty[:2] for penalty in rooms.transport.penalties] == [(peer.node_key, LIE_POINTS)]
        assert rooms.store.finalized_height == 0
    finally:
        await rooms.close()
