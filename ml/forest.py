"""An integer forest over byte features: one canonical form, exact scores, exact explanations.

A tree is its nodes in preorder (a split's left subtree, then its right); a split sends
`feature <= threshold` left. Preorder needs no child indices, so a decoded tree can hold neither a
cycle nor an orphan, and a forest has exactly one encoding.

Scores follow QuickScorer (Lucchese et al., SIGIR 2015): each (feature, byte, tree) has a mask of the
leaves still reachable; the masks are ANDed over the features, and the lowest bit left is the exit leaf.
Explanations follow Saabas: a split's feature is credited with the change of the node's mean value, so
that contributions telescope to the leaf and add up to the margin exactly, in integers.
Leaves out: training (ml/training.py) and Shapley values, which are not integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import check_bytes, check_fields, check_int
from consensus.errors import Rejected
from ml.definitions import FEATURES_MAX, Bytes, Int64s

LEAVES_MAX: Final = 64  # a leaf mask is one word of 16, 32 or 64 bits; training grows 16 leaves
NODES_MAX: Final = 2 * LEAVES_MAX - 1
MASK_BYTES_MAX: Final = 1024  # of one feature, for all trees: 512 trees of 16 leaves, or 128 of 64: some 2 µs
TREES_MAX: Final = MASK_BYTES_MAX // 2
LEAF_SCALE_BITS: Final = 16  # a leaf is its log-odds times 2^16
VALUE_MAX: Final = 2**24  # log-odds of 256; |margin| <= 2^9 * 2^24 = 2^33
THRESHOLD_MAX: Final = 254  # a byte always satisfies <= 255
CHUNK_ROWS: Final = 256  # rows scored at once: arrays small enough that freeing them unmaps no pages
MASK_WIDTHS: Final = (16, 32, LEAVES_MAX)
LEAF: Final = 255  # stands in place of a feature at a leaf
FOREST_ITEMS_MAX: Final = 8 + 6 * TREES_MAX + 2 * 8 * MASK_BYTES_MAX  # values one encoded forest decodes to


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in preorder. feature: a split's feature or LEAF. threshold: 0 at leaves. value: the leaf's
    log-odds, or at a split the mean below it, times 2^16."""

    feature: tuple[int, ...]
    threshold: tuple[int, ...]
    value: tuple[int, ...]


@dataclass(frozen=True)
class Forest:
    """`trees` over `features` byte features. Its tables are built on first use (some 10 ms)."""

    features: int
    trees: tuple[Tree, ...]

    @cached_property
    def base(self) -> int:
        """The margin of a transaction of which nothing is known: the sum of the roots' means."""
        return sum(tree.value[0] for tree in self.trees)

    @cached_property
    def _leaves(self) -> int:
        """What a tree's leaves are counted up to, in all tables: 16, 32 or 64."""
        most = max(tree.feature.count(LEAF) for tree in self.trees)
        return next(width for width in MASK_WIDTHS if most <= width)

    @cached_property
    def _masks(self) -> tuple[tuple[int, NDArray[Any]], ...]:
        """Per feature in use: its number and uint[256, trees], the leaves its byte leaves reachable."""
        word = np.dtype(f"u{self._leaves // 8}").type
        every = (1 << self._leaves) - 1
        tables: dict[int, NDArray[Any]] = {}
        for number, tree in enumerate(self.trees):
            for feature, threshold, left_leaves in _list_splits(tree):
                if feature not in tables:
                    tables[feature] = np.full((256, len(self.trees)), every, dtype=word)
                tables[feature][threshold + 1 :, number] &= word(every ^ left_leaves)
        return tuple(sorted(tables.items()))

    @cached_property
    def _leaf_values(self) -> Int64s:
        """int64[trees * leaves], leaves from left to right."""
        values = np.zeros((len(self.trees), self._leaves), dtype=np.int64)
        for number, tree in enumerate(self.trees):
            leaves = [v for f, v in zip(tree.feature, tree.value, strict=True) if f == LEAF]
            values[number, : len(leaves)] = leaves
        return values.reshape(-1)

    def compute_leaves(self, features: Bytes) -> NDArray[np.uint8]:
        """uint8[n, trees]: the exit leaf of each row of uint8[n, features], counted from the left."""
        word, every = np.dtype(f"u{self._leaves // 8}"), (1 << self._leaves) - 1
        reachable = np.full((len(features), len(self.trees)), every, dtype=word)
        for feature, table in self._masks:
            reachable &= table.take(features[:, feature], axis=0)
        if self._leaves == 16:
            return _LOWEST_BIT.take(reachable)
        leaves: Bytes = np.bitwise_count(~reachable & (reachable - 1))  # the zeros below the lowest bit
        return leaves

    def compute_margins(self, features: Bytes) -> Int64s:
        """int64[n]: log-odds times 2^16 of each row of uint8[n, features]."""
        margins = np.empty(len(features), dtype=np.int64)
        first = np.arange(len(self.trees), dtype=np.int64) * self._leaves
        for low in range(0, len(features), CHUNK_ROWS):
            rows = slice(low, low + CHUNK_ROWS)
            leaves = self.compute_leaves(features[rows]) + first
            margins[rows] = self._leaf_values.take(leaves).sum(axis=1)
        return margins

    def explain_margin(self, features: Bytes) -> Int64s:
        """int64[features]: what each feature of uint8[features] adds; base + sum = margin, exactly."""
        shares = np.zeros(self.features, dtype=np.int64)
        for tree in self.trees:
            node = 0
            while tree.feature[node] != LEAF:
                went_left = features[tree.feature[node]] <= tree.threshold[node]
                child = node + 1 if went_left else _skip(tree, node + 1)
                shares[tree.feature[node]] += tree.value[child] - tree.value[node]
                node = child
        return shares

    def to_fields(self) -> tuple[Any, ...]:
        """The forest as codec values: (features, ((features, thresholds, values) of each tree ...))."""
        return (
            self.features,
            tuple((bytes(t.feature), bytes(t.threshold), t.value) for t in self.trees),
        )

    @classmethod
    def from_fields(cls, fields: Any) -> Forest:
        """The forest that `fields` (decoded, of bounded size) describe; raises Rejected if it is none."""
        features, trees = check_fields(fields, 2, "forest")
        check_int(features, "forest.features", low=1, high=FEATURES_MAX)
        if type(trees) is not tuple or not 0 < len(trees) <= TREES_MAX:
            raise Rejected(f"must be 1 to {TREES_MAX} trees", field="forest.trees")
        forest = cls(
            features, tuple(_check_tree(t, features, f"forest.trees[{i}]") for i, t in enumerate(trees))
        )
        if forest._leaves // 8 * len(trees) > MASK_BYTES_MAX:
            raise Rejected(
                f"{len(trees)} trees of up to {forest._leaves} leaves take too long to score",
                field="forest.trees",
                mend=f"use at most {8 * MASK_BYTES_MAX // forest._leaves} such trees",
            )
        return forest


_LOWEST_BIT: Final = np.zeros(2**16, dtype=np.uint8)
for _bit in reversed(range(16)):
    _LOWEST_BIT[1 << _bit :: 1 << (_bit + 1)] = _bit  # the numbers whose lowest set bit is _bit


def _skip(tree: Tree, node: int) -> int:
    """The node after the subtree that starts at `node`, in preorder."""
    open_ends = 1
    while open_ends:
        open_ends += -1 if tree.feature[node] == LEAF else 1
        node += 1
    return node


def _list_splits(tree: Tree) -> list[tuple[int, int, int]]:
    """Of each split: feature, threshold, and the leaves of its left subtree as a bit mask."""
    leaves_before = [0]
    for feature in tree.feature:
        leaves_before.append(leaves_before[-1] + (feature == LEAF))
    splits = []
    for node, feature in enumerate(tree.feature):
        if feature != LEAF:
            low, high = leaves_before[node + 1], leaves_before[_skip(tree, node + 1)]
            splits.append((feature, tree.threshold[node], (1 << high) - (1 << low)))
    return splits


def _check_tree(fields: Any, features: int, what: str) -> Tree:
    raw_feature, raw_threshold, value = check_fields(fields, 3, what)
    feature = tuple(check_bytes(raw_feature, f"{what}.feature", length_max=NODES_MAX))
    threshold = tuple(check_bytes(raw_threshold, f"{what}.threshold", length=len(feature)))
    if type(value) is not tuple or len(value) != len(feature):
        raise Rejected(f"must hold {len(feature)} values, one a node", field=f"{what}.value")
    open_ends = 1
    for node, (split, bound, mean) in enumerate(zip(feature, threshold, value, strict=True)):
        if open_ends == 0:
            raise Rejected(f"node {node} hangs on no split", field=what)
        if split != LEAF and split >= features:
            raise Rejected(f"{split} is none of {features} features", field=f"{what}.feature[{node}]")
        if bound > (0 if split == LEAF else THRESHOLD_MAX):
            raise Rejected(f"{bound} cannot be a threshold there", field=f"{what}.threshold[{node}]")
        check_int(mean, f"{what}.value[{node}]", low=-VALUE_MAX, high=VALUE_MAX)
        open_ends += -1 if split == LEAF else 1
    if open_ends:
        raise Rejected("ends before its last leaf", field=what)
    return Tree(feature, threshold, value)
