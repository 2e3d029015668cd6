"""The accounts' Merkle tree: 16-ary, over dense slots, of fixed depth, updated in batches by arrays.

Level 0 holds the leaf hashes by slot, level DEPTH the root. A leaf is SHA-256(0x00 | account row), an
inner node SHA-256(0x01 | its 16 children), and where no account lies below, the node is 32 zero bytes.

Invariant: `TreeDelta` holds, for every node that changed, all sixteen children as they are afterwards,
so a delta lies over any base that agrees with its parent; written, only the changed ones are, and twice changes nothing.
Source: Merkle 1987; sixteen children because paths are then four times shorter than binary ones for
twice the hashing, and hashing 513 bytes costs little more than the call (performance.md).
Leaves out: absence. Slots are in order of creation, so nobody can show that an address has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

ARITY: Final = 16
DEPTH: Final = 6  # 16^6 slots: four gigabytes of account rows, more than a node keeps in memory
SLOTS_MAX: Final = ARITY**DEPTH
HASH_BYTES: Final = 32
BLOCK_BYTES: Final = ARITY * HASH_BYTES  # the children of one node
EMPTY_NODE: Final = bytes(HASH_BYTES)
_LEAVES_AT_ONCE: Final = 1 << 16  # bounds what hashing a whole state copies
_LINES_AT_ONCE: Final = 256  # what is made into bytes and hashed stays in the processor's second cache

Bytes2D = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class TreeDelta:
    """What a block changes. parents[l]: int64[p], rising indices at level l + 1; children[l]:
    uint8[p, 512], all their children at level l; root: 32 bytes.

    nodes[l]: int64[k], the children at level l that changed; places[l]: int64[k], where each lies among all in children[l].
    """

    parents: tuple[NDArray[np.int64], ...]
    children: tuple[Bytes2D, ...]
    nodes: tuple[NDArray[np.int64], ...]
    places: tuple[NDArray[np.int64], ...]
    root: bytes


def hash_rows(rows: Bytes2D, prefix: int) -> Bytes2D:
    """SHA-256(prefix | row) of every row: uint8[n, w] -> uint8[n, 32]."""
    width = rows.shape[1]
    lines = np.empty((min(len(rows), _LINES_AT_ONCE), width + 1), dtype=np.uint8)
    lines[:, 0] = prefix
    digests: list[bytes] = []
    for at in range(0, len(rows), _LINES_AT_ONCE):
        part = lines[: len(rows) - at]
        part[:, 1:] = rows[at : at + _LINES_AT_ONCE]
        digests += [sha256(line).digest() for line in view_lines(part).tolist()]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(rows), HASH_BYTES)


def view_lines(rows: Bytes2D) -> NDArray[np.void]:
    """The n rows of a contiguous uint8[n, w] as n values: written by index in two thirds of the time."""
    return rows.view(f"V{rows.shape[1]}").reshape(-1)


def view_nodes(blocks: Bytes2D) -> NDArray[np.void]:
    """The 16 n hashes of a contiguous uint8[n, 512] as so many values."""
    return view_lines(blocks.reshape(-1, HASH_BYTES))


def overlay(target: Bytes2D, wanted: NDArray[np.int64], keys: NDArray[np.int64], values: Bytes2D) -> None:
    """Writes values[j] over target[i] wherever wanted[i] == keys[j]; `keys` rises."""
    if not len(keys):
        return
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    hits = np.flatnonzero(keys[places] == wanted)
    if len(hits):
        target[hits] = values[places[hits]]


class Tree:
    """The committed tree: every level in one array, grown by doubling. Changed by `write` alone."""

    __slots__ = ("_levels", "root")

    def __init__(self) -> None:
        self._levels: list[Bytes2D] = [np.zeros((1, BLOCK_BYTES), dtype=np.uint8) for _ in range(DEPTH)]
        self.root = EMPTY_NODE

    def read_children(self, level: int, parents: NDArray[np.int64]) -> Bytes2D:
        """A copy of all children at `level` of the nodes `parents`: uint8[p, 512]."""
        blocks = self._levels[level]
        inside = parents < len(blocks)
        if inside.all():
            return blocks.take(parents, axis=0)
        found = np.zeros((len(parents), BLOCK_BYTES), dtype=np.uint8)
        found[inside] = blocks.take(parents[inside], axis=0)
        return found

    def reserve(self, slot_count: int) -> None:
        """Makes room for that many slots (amortised doubling)."""
        need = slot_count
        for level, blocks in enumerate(self._levels):
            need = -(-need // ARITY)
            if need > len(blocks):
                grown = np.zeros((max(need, 2 * len(blocks)), BLOCK_BYTES), dtype=np.uint8)
                grown[: len(blocks)] = blocks
                self._levels[level] = grown

    def write(self, delta: TreeDelta) -> None:
        """Takes the delta over; `reserve` came before."""
        changed = zip(self._levels, delta.children, delta.nodes, delta.places, strict=True)
        for blocks, children, nodes, places in changed:  # the others of the sixteen are the same there
            view_nodes(blocks)[nodes] = view_nodes(children).take(places)
        self.root = delta.root

    def build(self, rows: Bytes2D) -> None:
        """Replaces the whole tree by that over `rows` (uint8[n, w], slot order)."""
        count = len(rows)
        self.reserve(count)
        level = np.concatenate(
            [np.zeros((0, HASH_BYTES), dtype=np.uint8)]
            + [hash_rows(rows[at : at + _LEAVES_AT_ONCE], 0) for at in range(0, count, _LEAVES_AT_ONCE)]
        )
        for blocks in self._levels:
            parents = -(-len(level) // ARITY)
            blocks[:parents].reshape(-1, HASH_BYTES)[: len(level)] = level
            level = hash_rows(blocks[:parents], 1)
        self.root = level[0].tobytes() if count else EMPTY_NODE


def compute_update(
    tree: Tree, pending: Sequence[TreeDelta], slots: NDArray[np.int64], leaves: Bytes2D, root: bytes
) -> TreeDelta:
    """The delta that puts `leaves` (uint8[k, 32]) at `slots` (int64[k], rising, each once).

    The tree below is `tree` with `pending` deltas over it, oldest first; `root` is its root.
    """
    if not len(slots):
        none = np.zeros(0, dtype=np.int64)
        blocks = np.zeros((0, BLOCK_BYTES), dtype=np.uint8)
        return TreeDelta((none,) * DEPTH, (blocks,) * DEPTH, (none,) * DEPTH, (none,) * DEPTH, root)
    all_parents, all_children, all_nodes, all_places = [], [], [], []
    index, hashes = slots, leaves
    for level in range(DEPTH):
        above = index >> 4
        is_first = np.empty(len(above), dtype=bool)
        is_first[0] = True
        np.not_equal(above[1:], above[:-1], out=is_first[1:])
        parents = above[is_first]
        places = np.cumsum(is_first) - 1 << 4 | index & 15
        children = tree.read_children(level, parents)
        for delta in pending:
            overlay(children, parents, delta.parents[level], delta.children[level])
        view_nodes(children)[places] = view_lines(hashes)
        all_parents.append(parents)
        all_children.append(children)
        all_nodes.append(index)
        all_places.append(places)
        index, hashes = parents, hash_rows(children, 1)
    root = hashes[0].tobytes()
    return TreeDelta(tuple(all_parents), tuple(all_children), tuple(all_nodes), tuple(all_places), root)


def compute_path_root(slot: int, leaf_hash: bytes, siblings: Sequence[bytes]) -> bytes:
    """The root that a path leads to; siblings[l] is the other fifteen nodes at level l, in order."""
    node = leaf_hash
    for level, others in enumerate(siblings):
        start = (slot >> (4 * level) & 15) * HASH_BYTES
        node = sha256(b"\x01" + others[:start] + node + others[start:]).digest()
    return node
