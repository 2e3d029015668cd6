"""What peers sent waits for its checks: bounded, in turns, and not of who is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from node.entrance import Entrance
from node.network.intake import BATCH_MAX, ITEM_BYTES, WAITING_BYTES_PEER_MAX, Intake

ANN, BOB = b"ann", b"bob"


class World:
    """Batches are taken in without a pause, as those that need no signature check."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, int]] = []
        self.forgotten = 0
        self.intake = Intake(self.take, self.forget)

    async def take(self, raws: list[bytes], node_key: bytes) -> None:
        self.taken.append((node_key, len(raws)))

    def forget(self, raws: Sequence[bytes]) -> None:
        self.forgotten += len(raws)


async def test_between_two_batches_others_have_their_turn() -> None:
    world = World()
    world.intake.put([b"abc"] * (2 * BATCH_MAX + 1), ANN)
    running = asyncio.create_task(world.intake.run())
    for turns in range(1, 4):
        await asyncio.sleep(0)
        assert len(world.taken) == turns
    await asyncio.sleep(0)
    assert [count for _, count in world.taken] == [BATCH_MAX, BATCH_MAX, 1]
    assert (world.intake.waiting, world.intake._bytes_all, world.intake._bytes) == (0, 0, {})
    running.cancel()


async def test_small_ones_count_with_what_they_cost() -> None:
    world = World()
    count_max = WAITING_BYTES_PEER_MAX // (3 + ITEM_BYTES)
    world.intake.put([b"abc"] * (count_max + 1), ANN)
    assert (world.intake.waiting, world.intake.dropped) == (0, count_max + 1)
    world.intake.put([b"abc"] * count_max, ANN)
    assert world.intake.waiting == count_max


async def test_nothing_more_is_taken_in_of_who_is_gone() -> None:
    world = World()
    for node_key in (ANN, BOB, ANN):
        world.intake.put([b"abc"] * (BATCH_MAX + 1), node_key)
    world.intake.on_disconnected(ANN)
    world.intake.on_disconnected(b"nobody")
    assert (world.intake.waiting, world.intake.dropped, world.forgotten) == (
        BATCH_MAX + 1,
        2 * BATCH_MAX + 2,
        2 * BATCH_MAX + 2,
    )
    running = asyncio.create_task(world.intake.run())
    for _ in range(4):
        await asyncio.sleep(0)
    assert world.taken == [(BOB, BATCH_MAX), (BOB, 1)]
    assert (world.intake.waiting, world.intake._bytes_all, world.intake._bytes) == (0, 0, {})
    running.cancel()


async def test_what_this_nodes_own_policy_holds_back_shuts_no_door() -> None:
    mempool = SimpleNamespace(is_known=None, on_refusal=None, get_wait_ms=lambda waiting: waiting)
    policies = SimpleNamespace(withheld=range(4_000))
    none: Any = None
    fakes: Any = (mempool, policies)
    entrance = Entrance(none, none, fakes[0], none, none, none, none, none, none, none, fakes[1])
    assert entrance.get_wait_ms() == -4_000
