"""The accounts' tree: an update in place gives the root of a tree built anew, over any chain of deltas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consensus.ledger import tree as tr
from consensus.ledger.tree import Tree, TreeDelta

WIDTH = 9


def make_rows(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, WIDTH), dtype=np.uint8)


def build(rows: NDArray[np.uint8]) -> Tree:
    tree = Tree()
    tree.build(rows)
    return tree


def update(tree: Tree, pending: list[TreeDelta], rows: NDArray[np.uint8], slots: list[int]) -> TreeDelta:
    """The delta that writes rows[slots] over the tree and its pending deltas."""
    places = np.array(sorted(set(slots)), dtype=np.int64)
    root = pending[-1].root if pending else tree.root
    return tr.compute_update(tree, pending, places, tr.hash_rows(rows[places], 0), root)


@given(st.integers(1, 300), st.integers(0, 80), st.lists(st.integers(0, 10**6), max_size=12))
def test_an_update_equals_a_tree_built_anew(count: int, more: int, picks: list[int]) -> None:
    rows = make_rows(count + more, 1)
    tree = build(rows[:count])
    changed = [pick % count for pick in picks]
    rows[changed] ^= 0x55
    delta = update(tree, [], rows, changed + list(range(count, count + more)))
    assert delta.root == build(rows).root
    tree.reserve(count + more)
    tree.write(delta)
    assert tree.root == build(rows).root


@given(st.lists(st.lists(st.integers(0, 199), min_size=1, max_size=8), min_size=1, max_size=20))
def test_deltas_over_deltas_equal_one_tree(changes: list[list[int]]) -> None:
    rows = make_rows(200, 2)
    tree = build(rows)
    pending: list[TreeDelta] = []
    for number, slots in enumerate(changes):
        rows[slots] += np.uint8(number + 1)
        pending.append(update(tree, pending, rows, slots))
        assert pending[-1].root == build(rows).root
    for delta in pending:
        tree.write(delta)
    assert tree.root == build(rows).root
    assert update(tree, [], rows, [0, 199]).root == tree.root


@pytest.mark.parametrize("count", [1, 15, 16, 17, 256, 257, 4_097])
def test_every_slot_has_a_path_to_the_root(count: int) -> None:
    rows = make_rows(count, 3)
    tree = build(rows)
    leaves = tr.hash_rows(rows, 0)
    for slot in {0, count // 2, count - 1}:
        siblings = []
        for level in range(tr.DEPTH):
            place = slot >> 4 * level
            children = tree.read_children(level, np.array([place >> 4]))[0].tobytes()
            start = (place & 15) * 32
            siblings.append(children[:start] + children[start + 32 :])
        assert tr.compute_path_root(slot, leaves[slot].tobytes(), siblings) == tree.root


def test_nothing_changed_is_the_same_root() -> None:
    tree = build(make_rows(20, 4))
    assert update(tree, [], make_rows(20, 4), []).root == tree.root


def test_a_leaf_is_no_inner_node() -> None:
    row = np.zeros((1, 512), dtype=np.uint8)
    assert tr.hash_rows(row, 0).tobytes() != tr.hash_rows(row, 1).tobytes()
