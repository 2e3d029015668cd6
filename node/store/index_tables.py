"""The index's tables, and how they are read and written within one LMDB transaction.

    meta          b"chain" -> format and chain; b"last" -> height and hash of the last block in here
    blocks        first 16 bytes of the hash -> height
    segments      height of its first block -> transactions in it
    transactions  segment | first 16 bytes of the id -> place
    history       segment | address -> places, sorted

A segment is a run of blocks with some half a million transactions, named by the height of its first one.
Ids are random: in one tree over a long chain each would change a page of 4 KiB of its own, and an account's
history another. A segment is small enough that the entries of a batch share pages, and once it is full
nothing in it is written again. What it costs: who looks for an id asks segment after segment, newest first.
Leaves out merging (O'Neil et al., The Log-Structured Merge-Tree, 1996, has it): 2 us a segment is little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from node.store.index_buffer import HEIGHT_BYTES, KEY_BYTES, IndexBuffer, pack_height

FORMAT: Final = b"2"
TABLES_MAX: Final = 5
SEGMENT_TRANSACTIONS: Final = 500_000  # 50 MB with both accounts' histories
LAST_KEY: Final = b"last"
CHAIN_KEY: Final = b"chain"


class IndexTables:
    """The tables of an open LMDB environment. What a method is given as `transaction` is one of LMDB's."""

    def __init__(self, env: Any, create: bool) -> None:
        """Raises lmdb.Error, of a table that is not there and may not be made as well."""
        self._meta = env.open_db(b"meta", create=create)
        self._blocks = env.open_db(b"blocks", create=create)
        self._segments = env.open_db(b"segments", create=create)
        self._transactions = env.open_db(b"transactions", create=create)
        self._history = env.open_db(b"history", dupsort=True, dupfixed=True, create=create)

    def write_chain(self, transaction: Any, chain: bytes) -> None:
        transaction.put(CHAIN_KEY, FORMAT + chain, db=self._meta)

    def is_of(self, transaction: Any, chain: bytes) -> bool:
        """Whether it is in this format and of this chain."""
        found: bytes | None = transaction.get(CHAIN_KEY, db=self._meta)
        return found == FORMAT + chain

    def read_last(self, transaction: Any) -> tuple[int, bytes]:
        """Height and hash of the last block in here; (0, b"") when there is none."""
        data: bytes | None = transaction.get(LAST_KEY, db=self._meta)
        return (0, b"") if data is None else (int.from_bytes(data[:HEIGHT_BYTES], "big"), data[HEIGHT_BYTES:])

    def find_block(self, transaction: Any, block_hash: bytes) -> int | None:
        """The height of the block whose hash begins like this one."""
        found: bytes | None = transaction.get(block_hash[:KEY_BYTES], db=self._blocks)
        return None if found is None else int.from_bytes(found, "big")

    def find_segment(self, transaction: Any, height: int) -> bytes | None:
        """The segment that a block of this height is in, or would be."""
        return next(self._walk_back(transaction, pack_height(height)), None)

    def find_transaction(self, transaction: Any, transaction_id: bytes) -> bytes | None:
        """The packed place of the transaction whose id begins like this one."""
        key = transaction_id[:KEY_BYTES]
        for segment in self._walk_back(transaction):
            found: bytes | None = transaction.get(segment + key, db=self._transactions)
            if found is not None:
                return found
        return None

    def get_place(self, transaction: Any, segment: bytes, transaction_id: bytes) -> bytes | None:
        """The packed place of a transaction whose segment is known."""
        found: bytes | None = transaction.get(segment + transaction_id[:KEY_BYTES], db=self._transactions)
        return found

    def list_history(self, transaction: Any, address: bytes, bound: bytes, limit: int) -> list[bytes]:
        """Up to `limit` packed places of the account below `bound`, newest first."""
        found: list[bytes] = []
        cursor = transaction.cursor(self._history)
        for segment in self._walk_back(transaction, bound[:HEIGHT_BYTES]):
            key = segment + address
            # The first place >= bound, then back; or the last one when all are below it.
            if cursor.set_range_dup(key, bound):
                more = cursor.prev_dup()
            else:
                more = cursor.set_key(key) and cursor.last_dup()
            while more and len(found) < limit:
                found.append(cursor.value())
                more = cursor.prev_dup()
            if len(found) >= limit:
                break
        return found

    def has_history(self, transaction: Any, segment: bytes, address: bytes, place: bytes) -> bool:
        """Whether the account's history has this packed place, in the segment."""
        found: bool = transaction.cursor(self._history).set_key_dup(segment + address, place)
        return found

    def write(self, transaction: Any, buffer: IndexBuffer) -> None:
        """What the buffer holds, of blocks above all those in here: to the newest segment, or to a new one."""
        assert buffer.last is not None, "a buffer with entries has a last block"
        height, block_hash = buffer.last
        segment, count = self._choose_segment(transaction, buffer.first_height)
        transactions = [(segment + key, place) for key, place in sorted(buffer.transactions.items())]
        blocks = sorted((key, pack_height(entry)) for key, entry in buffer.blocks.items())
        history = [
            (segment + address, place)
            for address in sorted(buffer.history)
            for place in buffer.history[address]
        ]
        transaction.cursor(self._transactions).putmulti(transactions)
        transaction.cursor(self._blocks).putmulti(blocks)
        # dupdata: the default, but spelled out: one address has many places
        transaction.cursor(self._history).putmulti(history, dupdata=True)
        total = count + len(transactions)
        transaction.put(segment, total.to_bytes(HEIGHT_BYTES, "big"), db=self._segments)
        transaction.put(LAST_KEY, pack_height(height) + block_hash, db=self._meta)

    def _choose_segment(self, transaction: Any, first_height: int) -> tuple[bytes, int]:
        """The segment that blocks from this height on go to, and how many transactions are in it."""
        cursor = transaction.cursor(self._segments)
        if cursor.last():
            count = int.from_bytes(cursor.value(), "big")
            if count < SEGMENT_TRANSACTIONS:
                return cursor.key(), count
        return pack_height(first_height), 0

    def _walk_back(self, transaction: Any, height: bytes | None = None) -> Iterator[bytes]:
        """The segments from that of a packed height (None: the newest) to the oldest."""
        cursor = transaction.cursor(self._segments)
        if height is not None and cursor.set_range(height):
            more = cursor.key() == height or cursor.prev()
        else:
            more = cursor.last()
        while more:
            yield cursor.key()
            more = cursor.prev()
