"""The index as an audit reads it: beside a running node, and compared with every block.

Read-only; LMDB's snapshot of one moment per block, so that the node's writer is never held up.
Leaves out: repair; a node rebuilds an index that is deleted.
"""

from __future__ import annotations

from pathlib import Path

import lmdb

from consensus.block import Block
from consensus.errors import Rejected
from node.store.index_buffer import pack_place
from node.store.index_tables import TABLES_MAX, IndexTables


class IndexReader:
    """The index of a home whose node may be running: read-only, for an audit."""

    def __init__(self, folder: Path) -> None:
        """Raises Rejected when it cannot be read."""
        try:
            self._env = lmdb.open(
                str(folder), max_dbs=TABLES_MAX, readonly=True, create=False, readahead=False
            )
            self._tables = IndexTables(self._env, create=False)
            with self._env.begin() as transaction:
                self.last_height, _ = self._tables.read_last(transaction)
        except lmdb.Error as error:
            raise Rejected(
                f"cannot be read ({error})", field="index", mend="delete index/: the node rebuilds it"
            ) from None

    def is_of(self, chain: bytes) -> bool:
        """Whether it is of this chain, and in the format that nodes read."""
        with self._env.begin() as transaction:
            return self._tables.is_of(transaction, chain)

    def find_difference(self, block: Block) -> str | None:
        """What the index says wrongly, or not at all, about a final block; None when all is there."""
        try:
            return self._find_difference(block)
        except lmdb.Error as error:
            return f"cannot be read ({error})"

    def _find_difference(self, block: Block) -> str | None:
        height = block.header.height
        tables = self._tables
        with self._env.begin() as transaction:
            segment = tables.find_segment(transaction, height)
            if segment is None or tables.find_block(transaction, block.hash) != height:
                return "the block's hash is missing or elsewhere"
            for index, tx in enumerate(block.transactions):
                place = pack_place(height, index)
                if tables.get_place(transaction, segment, tx.id) != place:
                    return f"transaction {index} is missing or elsewhere"
                for address in {tx.sender, tx.receiver}:
                    if not tables.has_history(transaction, segment, address, place):
                        return f"the history of 0x{address.hex()} lacks transaction {index}"
        return None

    def close(self) -> None:
        self._env.close()
