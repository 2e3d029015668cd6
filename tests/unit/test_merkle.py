"""consensus.merkle against the recursive definitions of RFC 6962, written down here word for word."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.merkle import (
    EMPTY_ROOT,
    TREE_SIZE_MAX,
    CompactRange,
    HashTree,
    compute_root,
    compute_root_of_hashes,
    hash_leaf,
    hash_node,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)

leaf_lists = st.lists(st.binary(max_size=6), max_size=40)
LEAVES = [bytes([number]) * number for number in range(70)]


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], is_whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if is_whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], is_whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert compute_root([]) == EMPTY_ROOT == CompactRange().root == HashTree().root() == sha256(b"").digest()


def test_a_leaf_never_passes_for_an_inner_node() -> None:
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    assert hash_leaf(left + right) != hash_node(left, right) == compute_root([b"a", b"b"])


@given(leaf_lists)
def test_every_way_to_a_root_gives_the_rfc_root(leaves: list[bytes]) -> None:
    hashes = [hash_leaf(leaf) for leaf in leaves]
    frontier = CompactRange()
    for leaf_hash in hashes:
        frontier = frontier.append(leaf_hash)
    expected = mth(leaves)
    assert compute_root(leaves) == compute_root_of_hashes(hashes) == expected
    assert frontier.root == HashTree(hashes).root() == expected
    assert HashTree(hashes).compact() == frontier


@pytest.mark.parametrize("size", range(1, 20))
def test_every_inclusion_proof_is_the_rfc_path_and_verifies(size: int) -> None:
    tree, leaves = HashTree(map(hash_leaf, LEAVES)), LEAVES[:size]
    for index in range(size):
        proof = tree.prove_inclusion(index, size)
        assert list(proof) == path(index, leaves)
        assert proof == prove_inclusion(leaves, index)
        assert verify_inclusion(hash_leaf(leaves[index]), index, size, proof, mth(leaves))


@pytest.mark.parametrize("size2", range(1, 20))
def test_every_consistency_proof_is_the_rfc_proof_and_verifies(size2: int) -> None:
    tree, leaves = HashTree(map(hash_leaf, LEAVES)), LEAVES[:size2]
    for size1 in range(1, size2 + 1):
        proof = tree.prove_consistency(size1, size2)
        assert list(proof) == subproof(size1, leaves, True)
        assert proof == prove_consistency(leaves, size1)
        assert verify_consistency(size1, size2, mth(leaves[:size1]), mth(leaves), proof)


@given(st.integers(1, 70), st.data())
def test_a_proof_shows_one_leaf_at_one_place_only(size: int, data: st.DataObject) -> None:
    tree = HashTree(hash_leaf(leaf) for leaf in LEAVES)
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, 80).filter(lambda number: number != index))
    proof, root = tree.prove_inclusion(index, size), tree.root(size)
    leaf_hash = hash_leaf(LEAVES[index])
    assert not verify_inclusion(leaf_hash, other, size, proof, root)
    assert not verify_inclusion(hash_leaf(b"forged"), index, size, proof, root)
    assert not verify_inclusion(leaf_hash, index, size, proof, hash_leaf(b"forged"))
    assert not verify_inclusion(leaf_hash, index, size, (*proof, root), root)
    if proof:
        assert not verify_inclusion(leaf_hash, index, size, proof[:-1], root)
        place = data.draw(st.integers(0, len(proof) - 1))
        bent = (*proof[:place], hash_leaf(b"bent"), *proof[place + 1 :])
        assert not verify_inclusion(leaf_hash, index, size, bent, root)


@given(st.integers(2, 70), st.data())
def test_a_rewritten_history_is_not_consistent(size2: int, data: st.DataObject) -> None:
    size1 = data.draw(st.integers(1, size2 - 1))
    changed = data.draw(st.integers(0, size1 - 1))
    rewritten = [b"rewritten" if number == changed else leaf for number, leaf in enumerate(LEAVES[:size2])]
    old_root = compute_root(LEAVES[:size1])
    proof = prove_consistency(rewritten, size1)
    assert not verify_consistency(size1, size2, old_root, compute_root(rewritten), proof)


@given(st.integers(), st.integers(), st.lists(st.binary(max_size=40), max_size=80), st.binary(max_size=40))
def test_nonsense_from_strangers_is_false_and_never_raises(
    first: int, second: int, proof: list[bytes], root: bytes
) -> None:
    assert verify_inclusion(root, first, second, proof, b"no root") is False
    assert verify_consistency(first, second, root, b"no root", proof) is False


def test_an_endless_proof_for_the_largest_tree_ends() -> None:
    proof = [EMPTY_ROOT] * 1000
    assert not verify_inclusion(EMPTY_ROOT, 0, TREE_SIZE_MAX, proof, EMPTY_ROOT)
    assert not verify_inclusion(EMPTY_ROOT, 0, TREE_SIZE_MAX + 1, proof, EMPTY_ROOT)
    assert not verify_consistency(5, TREE_SIZE_MAX, EMPTY_ROOT, EMPTY_ROOT, proof)


@given(leaf_lists)
def test_a_frontier_comes_back_from_its_tuple(leaves: list[bytes]) -> None:
    frontier = HashTree(hash_leaf(leaf) for leaf in leaves).compact()
    assert CompactRange(*frontier.as_tuple()) == frontier
    assert frontier.append(EMPTY_ROOT).root == HashTree([*map(hash_leaf, leaves), EMPTY_ROOT]).root()


@pytest.mark.parametrize(
    ("size", "peaks"),
    [
        (-1, ()),
        (0, (EMPTY_ROOT,)),
        (1, ()),
        (2, (EMPTY_ROOT, EMPTY_ROOT)),
        (3, (EMPTY_ROOT, b"")),
        (2**63, ()),
    ],
)
def test_a_frontier_whose_peaks_do_not_fit_its_size_cannot_be_built(
    size: int, peaks: tuple[bytes, ...]
) -> None:
    with pytest.raises(ValueError, match="a tree"):
        CompactRange(size, peaks)


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_tree_remembers_each_earlier_size(size: int, more: int) -> None:
    tree = HashTree(hash_leaf(leaf) for leaf in LEAVES)
    assert tree.root(size) == compute_root(LEAVES[:size])
    assert tree.compact(size).root == tree.root(size)
    tree.truncate(size)
    assert (len(tree), tree.root()) == (size, compute_root(LEAVES[:size]))
    for leaf in LEAVES[:more]:
        tree.append(hash_leaf(leaf))
    assert tree.root() == compute_root(LEAVES[:size] + LEAVES[:more])


def test_a_tree_says_what_it_does_not_have() -> None:
    tree = HashTree([hash_leaf(b"a"), hash_leaf(b"b")])
    assert tree.get_leaf_hash(1) == hash_leaf(b"b")
    for bad_index in (-1, 2):
        with pytest.raises(IndexError, match="tree with 2"):
            tree.get_leaf_hash(bad_index)
        with pytest.raises(IndexError, match="tree with 2"):
            tree.prove_inclusion(bad_index)
    with pytest.raises(IndexError, match="tree with 1"):
        tree.prove_inclusion(1, 1)
    for bad_size in (-1, 3):
        with pytest.raises(ValueError, match="has 2 leaves"):
            tree.root(bad_size)
    for bad_size in (0, 3):
        with pytest.raises(ValueError, match="1 to 2 leaves"):
            tree.prove_consistency(bad_size)
    with pytest.raises(ValueError, match="32 bytes"):
        tree.append(b"short")
    assert len(tree) == 2
