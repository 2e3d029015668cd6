"""A Merkle tree over a list that stays on disk: of 256 leaves, a tile, one hash is kept in memory.

What lies within a tile is hashed again from its leaves, which the owner of the list reads. So a million
leaves cost half a megabyte, and a proof two tiles at most: 512 leaves read and hashed.

Invariant: the same roots and proofs as `merkle.HashTree` over the same leaf hashes, at every size.
Source: RFC 6962 section 2.1; tiles as in "Transparent Logs for Skeptical Clients" (Cox, 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus import merkle
from consensus.merkle import HashTree, ProvableTree

TILE_HEIGHT: Final = 8  # 256 leaves: a read of 100 kB, hashed in a third of a millisecond
TILE_LEAVES: Final = 1 << TILE_HEIGHT

ReadHashes = Callable[[int, int], Sequence[bytes]]  # leaf hashes number begin .. end - 1


class TileTree(ProvableTree):
    """Grows by `append`. read_hashes: leaf hashes of a complete tile, as they were appended."""

    def __init__(self, read_hashes: ReadHashes) -> None:
        self._read_hashes = read_hashes
        self._upper = HashTree()  # its leaves are the roots of complete tiles
        self._tip = HashTree()  # the last tile, while it is not complete
        self._cached = (-1, HashTree())  # the complete tile that was read last

    def __len__(self) -> int:
        return len(self._upper) * TILE_LEAVES + len(self._tip)

    def append(self, leaf_hash: bytes) -> None:
        self._tip.append(leaf_hash)
        if len(self._tip) == TILE_LEAVES:
            self._upper.append(self._tip.root())
            self._tip = HashTree()

    def _subtree(self, begin: int, end: int) -> bytes:
        # By what holds for `begin`, a complete part is stored, and what is no wider than a tile lies within one.
        width = end - begin
        if width > TILE_LEAVES:
            if width & (width - 1) == 0:
                return self._upper.root_between(begin >> TILE_HEIGHT, end >> TILE_HEIGHT)
            middle = begin + merkle.split_size(width)
            return merkle.hash_node(self._subtree(begin, middle), self._subtree(middle, end))
        if width == TILE_LEAVES:
            return self._upper.get_leaf_hash(begin >> TILE_HEIGHT)
        first = begin & (TILE_LEAVES - 1)
        return self._open_tile(begin >> TILE_HEIGHT).root_between(first, first + width)

    def _open_tile(self, number: int) -> HashTree:
        if number == len(self._upper):
            return self._tip
        if number != self._cached[0]:
            begin = number * TILE_LEAVES
            self._cached = number, HashTree(self._read_hashes(begin, begin + TILE_LEAVES))
        return self._cached[1]
