"""The index as an audit reads it: beside a running node, and compared with every block.

Read-only; LMDB's snapshot of one moment per block, so that the node's writer is never held up.
Leaves out: repair; a node rebuilds an index that is deleted.
"""

from __future__ import annotations

from pathlib import Path

import lmdb

from consensus.block import Block
from consensus.errors import Rejected
from node.store.index import CHAIN_KEY, FORMAT, LAST_KEY
from node.store.index_buffer import HEIGHT_BYTES, KEY_BYTES, pack_height, pack_place


class IndexReader:
    """The index of a home whose node may be running: read-only, for an audit."""

    def __init__(self, folder: Path) -> None:
        """Raises Rejected when it cannot be read."""
        try:
            self._env = lmdb.open(str(folder), max_dbs=4, readonly=True, create=False, readahead=False)
            self._meta = self._env.open_db(b"meta", create=False)
            self._transactions = self._env.open_db(b"transactions", create=False)
            self._blocks = self._env.open_db(b"blocks", create=False)
            self._history = self._env.open_db(b"history", dupsort=True, dupfixed=True, create=False)
            with self._env.begin(db=self._meta) as transaction:
                self.chain: bytes = (transaction.get(CHAIN_KEY) or b"").removeprefix(FORMAT)
                data: bytes = transaction.get(LAST_KEY) or bytes(HEIGHT_BYTES)
        except lmdb.Error as error:
            raise Rejected(
                f"cannot be read ({error})", field="index", mend="delete index/: the node rebuilds it"
            ) from None
        self.last_height = int.from_bytes(data[:HEIGHT_BYTES], "big")

    def find_difference(self, block: Block) -> str | None:
        """What the index says wrongly, or not at all, about a final block; None when all is there."""
        try:
            return self._find_difference(block)
        except lmdb.Error as error:
            return f"cannot be read ({error})"

    def _find_difference(self, block: Block) -> str | None:
        height = block.header.height
        with self._env.begin() as transaction:
            if transaction.get(block.hash[:KEY_BYTES], db=self._blocks) != pack_height(height):
                return "the block's hash is missing or elsewhere"
            cursor = transaction.cursor(db=self._history)
            for index, tx in enumerate(block.transactions):
                place = pack_place(height, index)
                if transaction.get(tx.id[:KEY_BYTES], db=self._transactions) != place:
                    return f"transaction {index} is missing or elsewhere"
                for address in {tx.sender, tx.receiver}:
                    if not cursor.set_key_dup(address, place):
                        return f"the history of 0x{address.hex()} lacks transaction {index}"
        return None

    def close(self) -> None:
        self._env.close()
