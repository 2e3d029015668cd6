"""A tree whose leaves stay on disk has the roots and proofs of one in memory; an index of ids finds all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.merkle import EMPTY_ROOT, HashTree, hash_leaf
from node.store import id_index
from node.store.id_index import IdIndex
from node.store.tile_tree import TILE_LEAVES, TileTree

LEAVES = [hash_leaf(number.to_bytes(4, "big")) for number in range(5 * TILE_LEAVES + 9)]
WHOLE = HashTree(LEAVES)


def make_tree(size: int) -> TileTree:
    tree = TileTree(lambda begin, end: LEAVES[begin:end])
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    assert len(tree) == size
    return tree


TREE = make_tree(len(LEAVES))


def test_every_size_has_the_root_of_rfc_6962() -> None:
    assert make_tree(0).root() == EMPTY_ROOT
    for size in range(len(LEAVES) + 1):
        assert TREE.root(size) == WHOLE.root(size), size
    for size in (1, TILE_LEAVES - 1, TILE_LEAVES, TILE_LEAVES + 1, 2 * TILE_LEAVES):
        assert make_tree(size).root() == WHOLE.root(size)


@given(st.data())
@settings(max_examples=300)
def test_proofs_are_those_of_a_tree_in_memory(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    assert TREE.prove_inclusion(index, size) == WHOLE.prove_inclusion(index, size)
    assert TREE.prove_consistency(index + 1, size) == WHOLE.prove_consistency(index + 1, size)


def test_what_was_never_there_has_no_proof() -> None:
    tree = make_tree(3)
    for index, size in ((3, 3), (-1, 3)):
        with pytest.raises(IndexError):
            tree.prove_inclusion(index, size)
    for first, second in ((0, 3), (3, 2), (1, 4)):
        with pytest.raises(ValueError, match="tree"):
            tree.prove_consistency(first, second)
    with pytest.raises(ValueError, match="tree"):
        tree.root(4)


def test_few_hashes_are_kept() -> None:
    assert len(TREE._upper) == 5
    assert len(TREE._tip) == 9


def test_an_index_answers_every_place_of_an_id(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(id_index, "CHUNK_IDS", 16)
    rng = random.Random(seed)
    ids = [bytes([rng.randrange(12)]) * 32 for _ in range(100)]
    index = IdIndex()
    for number, entry_id in enumerate(ids):
        assert len(index) == number
        index.add(entry_id)
    for value in range(13):
        wanted = bytes([value]) * 32
        assert index.find(wanted) == tuple(place for place, found in enumerate(ids) if found == wanted)


def test_ids_that_begin_alike_are_both_answered() -> None:
    index = IdIndex()
    index.add(b"same 8 b" + b"x" * 24)
    index.add(b"same 8 b" + b"y" * 24)
    assert index.find(b"same 8 b" + b"z" * 24) == (0, 1)
