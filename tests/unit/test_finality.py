"""Finality: what a certificate makes final is fetched, made durable, committed in order, and told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.block import encode_block
from consensus.errors import Fault
from node.blocks import finality
from node.network.frames import BlockBody, GetBlock
from tests.chain_factory import ChainFactory
from tests.fakes.rooms import Rooms


@pytest.fixture
def factory() -> ChainFactory:
    return ChainFactory()


@pytest.fixture
async def rooms(tmp_path: Path, factory: ChainFactory) -> AsyncIterator[Rooms]:
    rooms = Rooms(tmp_path / "home", factory, "ann")
    yield rooms
    await rooms.close()


async def test_a_certificate_makes_its_block_and_all_ancestors_final_in_order(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(4)
    await rooms.judge_all(*blocks)
    rooms.finality.finalize(factory.finalizations[2])
    assert rooms.finals == blocks[:3]
    assert rooms.chain.finalized == blocks[2].header
    assert rooms.store.finalized_height == 3


async def test_missing_bodies_are_fetched_and_then_committed(rooms: Rooms, factory: ChainFactory) -> None:
    blocks = factory.grow(3)
    await rooms.judge_all(blocks[0])
    rooms.finality.finalize(factory.finalizations[2])
    assert rooms.finals == []
    for block in reversed(blocks[1:]):
        await rooms.settle(
            lambda block=block: any(GetBlock(block.hash) == f for _, f in rooms.transport.sent)
        )
        rooms.judge.on_block_body(BlockBody(block.hash, encode_block(block)))
    await rooms.settle(lambda: rooms.finals)
    assert rooms.finals == blocks


async def test_a_node_whose_blocks_come_one_finalization_late_commits_them_all_the_same(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(5)
    for height in range(1, 6):
        rooms.finality.finalize(factory.finalizations[height - 1])
        await rooms.judge_all(*blocks[height - 2 : height - 1])
        assert rooms.chain.finalized.height == height - 1


async def test_only_so_many_finalizations_wait_and_the_oldest_go(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finality, "WAITING_MAX", 2)
    blocks = factory.grow(4)
    for certificate in factory.finalizations[:3]:
        rooms.finality.finalize(certificate)
    await rooms.judge_all(blocks[0])
    assert rooms.finals == []
    await rooms.judge_all(blocks[1])
    assert rooms.finals == blocks[:2]


async def test_a_newer_certificate_takes_the_place_of_the_one_that_waits(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(3)
    for certificate in (factory.finalizations[2], factory.finalizations[0]):  # the older one comes later
        rooms.finality.finalize(certificate)
    await rooms.judge_all(*blocks)
    await rooms.settle(lambda: len(rooms.finals) == 3)
    assert rooms.finals == blocks


async def test_a_certificate_of_what_is_final_already_changes_nothing(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(2)
    await rooms.judge_all(*blocks)
    rooms.finality.finalize(factory.finalizations[1])
    rooms.finality.finalize(factory.finalizations[0])
    rooms.finality.finalize(factory.finalizations[1])
    assert rooms.finals == blocks


async def test_while_catching_up_applies_a_batch_certificates_wait(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    await rooms.judge_all(block)
    rooms.finality.pause()
    rooms.finality.finalize(factory.finalizations[0])
    assert rooms.finals == []
    rooms.finality.resume()
    assert rooms.finals == [block]


async def test_the_state_does_not_move_when_finality_cannot_be_made_durable(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = factory.grow(1)
    await rooms.judge_all(block)

    def fail() -> None:
        raise Fault("cannot make it durable", field="disk")

    monkeypatch.setattr(rooms.store, "sync", fail)
    with pytest.raises(Fault):
        rooms.finality.finalize(factory.finalizations[0])
    assert rooms.chain.finalized.height == 0
    assert rooms.finals == []
