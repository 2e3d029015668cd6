"""Follows final blocks: each is fetched once, in order, from a node that has it.

The hashes of all blocks from genesis on are kept as a Merkle tree (two hashes a block), because a fraud
report must prove its block under the history root of a recent one.
Invariant: blocks are handed on in rising order without holes. A node that stands still for a second while
others may go on is exchanged for the next. Leaves out: checking blocks; a client trusts its nodes, and
the replay compares them at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from consensus import merkle
from consensus.errors import Fault
from node.clock import Clock
from node.replay.network import FinalBlock, NetworkClient, NodeAway, read_final_block

WAIT_MS: Final = 1_500  # longer than a block interval of 1 s
RETRY_MS: Final = 200


class Follower:
    """`on_block` is told of every final block above `height` as it was at the start."""

    def __init__(self, network: NetworkClient, clock: Clock, on_block: Callable[[FinalBlock], None]) -> None:
        self._network = network
        self._clock = clock
        self._on_block = on_block
        self._node = 0
        self._hashes = merkle.HashTree()
        self._task: asyncio.Task[None] | None = None
        self.height = -1
        self.clock_ms = 0  # the last final block's time
        self.moved_ms = 0  # monotonic, when the last final block came

    async def start(self) -> None:
        """Catch up with the hashes of what is final already, and follow from there."""
        while self.height < 0:
            try:
                status = await self._network.get_status(self._node)
                while len(self._hashes) <= status.final_height:
                    known = len(self._hashes)
                    hashes = await self._network.get_block_hashes(self._node, known, status.final_height + 1)
                    for block_hash in hashes:
                        self._hashes.append(merkle.hash_leaf(block_hash))
                self.height, self.clock_ms = status.final_height, status.clock_ms
            except NodeAway:
                await self._turn()
        self.moved_ms = self._clock.monotonic_ms()
        self._task = asyncio.create_task(self._run())

    def prove_block(self, height: int) -> tuple[int, tuple[bytes, ...]]:
        """The anchor (the last final block's height) and the proof of block `height` < anchor under it."""
        return self.height, self._hashes.prove_inclusion(height, self.height)

    def check_alive(self) -> None:
        """Raises what the task died of: an error of our own."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            raise self._task.exception() or Fault("ended by itself", field="follower")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                final = await self._network.wait_final(self._node, self.height, WAIT_MS)
                if final <= self.height:
                    await self._turn()
                while self.height < final:
                    block = read_final_block(await self._network.get_block(self._node, self.height + 1))
                    self._take(block)
            except NodeAway:
                await self._turn()

    def _take(self, block: FinalBlock) -> None:
        self._hashes.append(merkle.hash_leaf(block.header.hash))
        self.height = block.header.height
        self.clock_ms = block.header.timestamp_ms
        self.moved_ms = self._clock.monotonic_ms()
        self._on_block(block)

    async def _turn(self) -> None:
        """On to the next node; a pause when all had their turn."""
        self._node = (self._node + 1) % len(self._network.names)
        if self._node == 0:
            await asyncio.sleep(RETRY_MS / 1000)
