"""Decoded blocks, by where they lie in the block file; those used longest ago are forgotten first.

Several threads may ask at once: states of the past are rebuilt beside the node's own thread.
Invariant: no more transactions are held than are said, or a single block.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from consensus.block import Block

CACHE_TRANSACTIONS_MAX: Final = 20_000  # decoded blocks kept: about 20 MB


class BlockCache:
    def __init__(self) -> None:
        self._blocks: OrderedDict[int, Block] = OrderedDict()  # by offset
        self._transactions = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, offset: int) -> Block | None:
        with self._lock:
            block = self._blocks.get(offset)
            if block is not None:
                self._blocks.move_to_end(offset)
            return block

    def put(self, offset: int, block: Block) -> None:
        with self._lock:
            replaced = self._blocks.pop(offset, None)  # two threads may have read it at once
            if replaced is not None:
                self._transactions -= len(replaced.transactions) + 1
            self._blocks[offset] = block
            self._transactions += len(block.transactions) + 1
            while self._transactions > CACHE_TRANSACTIONS_MAX and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._transactions -= len(oldest.transactions) + 1
