"""The index of a simulated node: the entries that LMDB would hold, in memory.

What it holds belongs to the node's MemoryDisk and outlives the process, as files would; after a crash the
world chooses how much is left (`MemoryDisk.crash`), for a store must bear any of it: behind the block
file, ahead of it, or empty.
Invariant: what is left is always the index of the first blocks that were added, up to some block.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from consensus.block import Block
from node.simulation.memory_disk import MemoryDisk
from node.store.index_buffer import IndexBuffer, TransactionPlace, pack_bound, unpack_place


class IndexContent:
    """What lies on the disk: the blocks added, and their entries."""

    def __init__(self, chain: bytes) -> None:
        self.chain = chain
        self.blocks: list[Block] = []
        self.entries = IndexBuffer()

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.entries.add(block)

    def keep(self, count: int) -> None:
        """Lose all but the first `count` blocks."""
        if count < len(self.blocks):
            del self.blocks[count:]
            self.entries = IndexBuffer()
            for block in self.blocks:
                self.entries.add(block)


class MemoryIndex:
    """A BlockIndex on a MemoryDisk. `check_alive` is called first by everything that it is asked."""

    def __init__(self, disk: MemoryDisk, folder: Path, chain: bytes, check_alive: Callable[[], None]) -> None:
        content = disk.indexes.get(folder)
        if content is None or content.chain != chain:
            content = disk.indexes[folder] = IndexContent(chain)
        self._content = content
        self._check_alive = check_alive

    @property
    def last(self) -> tuple[int, bytes]:
        return self._get_entries().last or (0, b"")

    def find_transaction(self, transaction_id: bytes) -> TransactionPlace | None:
        return self._get_entries().find_transaction(transaction_id)

    def find_block(self, block_hash: bytes) -> int | None:
        return self._get_entries().find_block(block_hash)

    def get_history(
        self, address: bytes, before: TransactionPlace | None, limit: int
    ) -> tuple[TransactionPlace, ...]:
        found = self._get_entries().list_history(address, pack_bound(before), limit)
        return tuple(unpack_place(place) for place in found)

    def add_block(self, block: Block) -> None:
        self._check_alive()
        self._content.add(block)

    def clear(self) -> None:
        self._check_alive()
        self._content.keep(0)

    def close(self) -> None:
        """All is written as it comes."""

    def abandon(self) -> None:
        """The same."""

    def _get_entries(self) -> IndexBuffer:
        self._check_alive()
        return self._content.entries
