"""Merkle trees over an ordered list, their proofs, and two ways to grow them.

    compute_root, prove_*     from a list at hand: the transactions of a block
    CompactRange              O(log n) memory, append and root only: what a state carries
    HashTree                  every complete subtree kept: proofs at any size, for what a node serves

Invariant: one list, one root; leaf and inner hashes are prefixed 0 and 1, so neither passes for
the other. Proof and tree size come from strangers: the `verify_` functions answer False to any
nonsense and never raise on it.
Source: RFC 6962 section 2.1 (trees, audit paths, consistency proofs); RFC 9162 sections 2.1.3.2
and 2.1.4.2 (their verification); "compact range" as in Certificate Transparency's Go code.
Left out: sparse trees and updates in place (the state's own tree does those).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()  # RFC 6962 section 2.1: MTH({}) = SHA-256()
TREE_SIZE_MAX: Final = 2**63 - 1  # sizes travel as 64-bit integers; no proof is longer than 63 hashes

Subtree = Callable[[int, int], bytes]  # MTH(D[begin:end]) of some list D


def hash_leaf(data: bytes) -> bytes:
    """SHA-256(0x00 | data)."""
    return sha256(b"\x00" + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 | left | right)."""
    return sha256(b"\x01" + left + right).digest()


def compute_root(leaf_data: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 over the leaves' data; sha256(b"") for none."""
    return compute_root_of_hashes([sha256(b"\x00" + data).digest() for data in leaf_data])


def compute_root_of_hashes(leaf_hashes: Sequence[bytes]) -> bytes:
    """The same from leaf hashes (`hash_leaf`), 32 bytes each."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        # Pairing neighbours and carrying an odd last one up gives RFC 6962's tree: its left side is
        # always the largest complete one. `hash_node` written out: a call costs as much as the hash.
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def prove_inclusion(leaf_data: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of leaf `index`, lowest sibling first; IndexError outside the list."""
    return HashTree(hash_leaf(data) for data in leaf_data).prove_inclusion(index, len(leaf_data))


def prove_consistency(leaf_data: Sequence[bytes], size1: int) -> tuple[bytes, ...]:
    """The proof that the first `size1` leaves are a prefix of all; ValueError unless 0 < size1 <= n."""
    return HashTree(hash_leaf(data) for data in leaf_data).prove_consistency(size1, len(leaf_data))


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows `leaf_hash` at `index` of the tree with `size` leaves and this root."""
    if not (0 <= index < size <= TREE_SIZE_MAX) or len(leaf_hash) != HASH_BYTES:
        return False
    position, last, computed = index, size - 1, leaf_hash  # RFC 9162 section 2.1.3.2: fn, sn, r
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if position & 1 or position == last:
            computed = hash_node(sibling, computed)
            while not position & 1 and position:  # a carried node has no sibling on these levels
                position >>= 1
                last >>= 1
        else:
            computed = hash_node(computed, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and computed == root


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree (size1, root1) is a prefix of (size2, root2); an empty first tree gives False."""
    if not 0 < size1 <= size2 <= TREE_SIZE_MAX or any(len(node) != HASH_BYTES for node in proof):
        return False
    if size1 == size2:
        return not proof and root1 == root2
    if not proof:
        return False
    nodes = list(proof)
    if size1 & (size1 - 1) == 0:  # RFC 9162 section 2.1.4.2: a complete first tree is its own first node
        nodes.insert(0, root1)
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position >>= 1
        last >>= 1
    first = second = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first = hash_node(node, first)
            second = hash_node(node, second)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            second = hash_node(second, node)
        position >>= 1
        last >>= 1
    return last == 0 and first == root1 and second == root2


def walk_inclusion(subtree: Subtree, index: int, size: int) -> tuple[bytes, ...]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, 0 <= index < size, by whoever can tell MTH(D[begin:end])."""
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split_size(end - begin)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(begin, middle))
            begin = middle
    return tuple(reversed(path))


def walk_consistency(subtree: Subtree, size1: int, size2: int) -> tuple[bytes, ...]:
    """PROOF(size1, D[size2]) of RFC 6962 section 2.1.2, 0 < size1 <= size2, likewise."""
    path: list[bytes] = []
    begin, end = 0, size2
    while end != size1:  # SUBPROOF: walk towards the seam between leaf size1 - 1 and leaf size1
        middle = begin + split_size(end - begin)
        if size1 <= middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(begin, middle))
            begin = middle
    if begin > 0:  # begin = 0: the first tree is this whole subtree, and the verifier knows its root
        path.append(subtree(begin, end))
    return tuple(reversed(path))


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The frontier of a growing tree: its size and the roots of its complete subtrees, largest first.

    `peaks` holds one hash of 32 bytes per set bit of `size`. ValueError otherwise: a decoder checks
    what a stranger sent before it builds one.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= TREE_SIZE_MAX:
            raise ValueError(f"a tree has 0 to {TREE_SIZE_MAX} leaves, not {self.size}")
        if len(self.peaks) != self.size.bit_count() or any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise ValueError(f"a tree of {self.size} leaves has {self.size.bit_count()} peaks of 32 bytes")

    def append(self, leaf_hash: bytes) -> "CompactRange":
        """The frontier with one more leaf (`hash_leaf` of its data)."""
        peaks, carry = list(self.peaks), leaf_hash
        remaining = self.size
        while remaining & 1:  # adding one to a binary number: equal neighbours merge and carry
            carry = hash_node(peaks.pop(), carry)
            remaining >>= 1
        return CompactRange(self.size + 1, (*peaks, carry))

    @property
    def root(self) -> bytes:
        """MTH of RFC 6962 over all leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = hash_node(peak, root)
        return root

    def as_tuple(self) -> tuple[int, tuple[bytes, ...]]:
        """(size, peaks), the form that is encoded; `CompactRange(*pair)` is the way back."""
        return self.size, self.peaks


class ProvableTree(ABC):
    """What a tree answers that knows the roots of its parts: for itself as it was at any earlier size."""

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many leaves it has."""

    @abstractmethod
    def _subtree(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]); `begin` is a multiple of the largest power of two below the width."""

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves (default: all); ValueError when there are fewer."""
        size = self._check_size(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def prove_inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """PATH(index, D[size]) of RFC 6962 section 2.1.1; IndexError unless 0 <= index < size."""
        size = self._check_size(size)
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of a tree with {size}")
        return walk_inclusion(self._subtree, index, size)

    def prove_consistency(self, size1: int, size2: int | None = None) -> tuple[bytes, ...]:
        """PROOF(size1, D[size2]) of RFC 6962 section 2.1.2; ValueError unless 0 < size1 <= size2."""
        size2 = self._check_size(size2)
        if not 0 < size1 <= size2:
            raise ValueError(f"the first tree has 1 to {size2} leaves, not {size1}")
        return walk_consistency(self._subtree, size1, size2)

    def _check_size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise ValueError(f"the tree has {len(self)} leaves, not {size}")
        return size


class HashTree(ProvableTree):
    """An appendable tree that keeps the hash of every complete subtree: two hashes a leaf.

    It answers for the tree as it was at any earlier size, in O(log n) hashes. Not a noun but a store:
    it changes in place, and only by growing (`truncate` undoes what was appended).
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # _levels[k][i] is MTH of leaves i * 2^k to (i + 1) * 2^k - 1
        for leaf_hash in leaf_hashes:
            self.append(leaf_hash)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf_hash: bytes) -> None:
        """Adds one leaf hash (32 bytes) at the end; ValueError for another length."""
        if len(leaf_hash) != HASH_BYTES:
            raise ValueError(f"a leaf hash is {HASH_BYTES} bytes, this is {len(leaf_hash)}")
        level, height = self._levels[0], 0
        level.append(leaf_hash)
        while len(level) % 2 == 0:
            node = hash_node(level[-2], level[-1])
            height += 1
            if height == len(self._levels):
                self._levels.append([])
            level = self._levels[height]
            level.append(node)

    def truncate(self, size: int) -> None:
        """Forgets every leaf from `size` on; ValueError when there are fewer."""
        self._check_size(size)
        for height, level in enumerate(self._levels):
            del level[size >> height :]

    def get_leaf_hash(self, index: int) -> bytes:
        """The leaf hash at `index`; IndexError outside the tree."""
        if not 0 <= index < len(self):
            raise IndexError(f"leaf {index} of a tree with {len(self)}")
        return self._levels[0][index]

    def compact(self, size: int | None = None) -> CompactRange:
        """The frontier of the first `size` leaves (default: all)."""
        size = self._check_size(size)
        heights = [height for height in range(size.bit_length()) if size >> height & 1]
        return CompactRange(size, tuple(self._levels[k][(size >> k) - 1] for k in reversed(heights)))

    def root_between(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) of a part that proofs are made of: ValueError unless `begin` is a multiple of its
        width, or of the largest power of two below that where it is none itself."""
        width = end - begin
        if not 0 <= begin < end <= len(self):
            raise ValueError(f"leaves {begin} to {end} of a tree with {len(self)}")
        if begin % (width if width & (width - 1) == 0 else split_size(width)):
            raise ValueError(f"leaves {begin} to {end} are no part that proofs are made of")
        return self._subtree(begin, end)

    def _subtree(self, begin: int, end: int) -> bytes:
        # MTH(D[begin:end]); `begin` is a multiple of the largest power of two below the width, so every
        # complete part of it is stored.
        width = end - begin
        if width & (width - 1) == 0:
            height = width.bit_length() - 1
            return self._levels[height][begin >> height]
        middle = begin + split_size(width)
        return hash_node(self._subtree(begin, middle), self._subtree(middle, end))


def split_size(size: int) -> int:
    """RFC 6962 section 2.1: k, the largest power of two smaller than n > 1."""
    return 1 << ((size - 1).bit_length() - 1)
