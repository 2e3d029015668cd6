"""What an index answers, its keys, and entries of final blocks held in memory.

    transactions  first 16 bytes of the id -> place      blocks  first 16 bytes of the hash -> height
    history       address -> places, ascending           place   height 6 | index 2, big-endian

Half an id is enough: who finds two ids that share it (2^64 hashes) makes his own two transactions hard
to look up; whoever reads a place compares the whole id with the block.
Leaves out: files; `index.py` keeps these entries in LMDB and holds the newest in a buffer like this.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Protocol

from consensus.block import Block

KEY_BYTES: Final = 16
PLACE_BYTES: Final = 8
HEIGHT_BYTES: Final = 6

TransactionPlace = tuple[int, int]  # height, index in the block


class BlockIndex(Protocol):
    """Where a transaction, a block hash and an account's history are found, as the store asks for it."""

    @property
    def last(self) -> tuple[int, bytes]:
        """Height and hash of the last block added; (0, b"") for an empty index."""
        ...

    def find_transaction(self, transaction_id: bytes) -> TransactionPlace | None:
        """Where the transaction may stand; the caller compares the whole id."""
        ...

    def find_block(self, block_hash: bytes) -> int | None:
        """The height of a final block; the caller compares the whole hash."""
        ...

    def get_history(
        self, address: bytes, before: TransactionPlace | None, limit: int
    ) -> tuple[TransactionPlace, ...]:
        """Up to `limit` places of the account's transactions, newest first, all older than `before`."""
        ...

    def add_block(self, block: Block) -> None:
        """Take in the next final block. Raises Fault when an earlier one could not be written."""
        ...

    def clear(self) -> None:
        """Start again from nothing: what it says is not of this block file."""
        ...

    def close(self) -> None:
        """Write what is not written yet. Raises Fault."""
        ...

    def abandon(self) -> None:
        """Let go of it as it is, as a dying process does."""
        ...


OpenIndex = Callable[[Path, bytes, Executor], BlockIndex]  # folder, genesis digest, runs what may lag


class IndexBuffer:
    """Entries of blocks, in the form in which an index keeps them. Not shared between threads while it grows."""

    def __init__(self) -> None:
        self.transactions: dict[bytes, bytes] = {}
        self.blocks: dict[bytes, int] = {}
        self.history: dict[bytes, list[bytes]] = {}  # ascending, for blocks come in order
        self.entries = 0
        self.first_height = 0  # of the blocks in here; 0: there are none
        self.last: tuple[int, bytes] | None = None

    def add(self, block: Block) -> None:
        """The next final block."""
        height = pack_height(block.header.height)
        transactions, history = self.transactions, self.history
        for index, tx in enumerate(block.transactions):
            place = height + index.to_bytes(PLACE_BYTES - HEIGHT_BYTES, "big")
            transactions[tx.id[:KEY_BYTES]] = place
            history.setdefault(tx.sender, []).append(place)
            if tx.receiver != tx.sender:
                history.setdefault(tx.receiver, []).append(place)
        self.first_height = self.first_height or block.header.height
        self.blocks[block.hash[:KEY_BYTES]] = block.header.height
        self.entries += 1 + 3 * len(block.transactions)
        self.last = (block.header.height, block.hash)

    def find_transaction(self, transaction_id: bytes) -> TransactionPlace | None:
        place = self.transactions.get(transaction_id[:KEY_BYTES])
        return None if place is None else unpack_place(place)

    def find_block(self, block_hash: bytes) -> int | None:
        return self.blocks.get(block_hash[:KEY_BYTES])

    def list_history(self, address: bytes, bound: bytes, limit: int) -> list[bytes]:
        """Up to `limit` packed places below `bound`, newest first."""
        places = self.history.get(address, [])
        end = bisect_left(places, bound)
        return places[max(0, end - limit) : end][::-1]


def pack_bound(before: TransactionPlace | None) -> bytes:
    """The packed place that all of a page lie below; None: the newest page."""
    return b"\xff" * PLACE_BYTES if before is None else pack_place(*before)


def pack_place(height: int, index: int) -> bytes:
    return height.to_bytes(HEIGHT_BYTES, "big") + index.to_bytes(PLACE_BYTES - HEIGHT_BYTES, "big")


def unpack_place(place: bytes) -> TransactionPlace:
    return int.from_bytes(place[:HEIGHT_BYTES], "big"), int.from_bytes(place[HEIGHT_BYTES:], "big")


def pack_height(height: int) -> bytes:
    return height.to_bytes(HEIGHT_BYTES, "big")
