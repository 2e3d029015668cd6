"""Records: the part of the state that is no account row, as an immutable authenticated map.

A radix tree of sixteen children over the keys' hex digits. Keys are not hashed, so that a
namespace can be walked in order and what expires is found at its front. A node with one child does
not exist, so one content has one shape and one root.

Invariant: an instance never changes; `put` and `remove` copy the path and share the rest, so that the
records of unfinal blocks cost only what they changed. Within a namespace (the key's first byte) all
keys have one length: no key is another's beginning.
Source: Morrison, PATRICIA (1968); path copying as in Driscoll et al. (1989).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from consensus.errors import Fault

EMPTY_ROOT: Final = bytes(32)
KEY_BYTES_MAX: Final = 64  # a namespace, a day and a hash take 37
VALUE_BYTES_MAX: Final = 131_071  # a set of 1,024 validators takes 72 kB

# Namespaces: one byte, then a key of the length that the namespace fixes.
NAMESPACE_PARAMETER: Final = b"\x00"  # one byte, see PARAMETER_*: what the chain's own rules read
NAMESPACE_REPORTER: Final = b"\x01"  # an address: may report fraud
NAMESPACE_ANCHOR: Final = b"\x02"  # a height (8 bytes): the history root in that block's header
NAMESPACE_SET: Final = b"\x03"  # an epoch (8 bytes): who validates in it, see epochs.py
# The stake's, see staking.py. What is listed by prefix stands first in the key.
NAMESPACE_VALIDATOR: Final = b"\x04"  # an operator's address
NAMESPACE_DELEGATION: Final = b"\x05"  # delegator, validator: two addresses
NAMESPACE_UNBONDING: Final = b"\x06"  # validator, epoch (8), 0 or 1: after its slashing
NAMESPACE_CLAIM: Final = b"\x07"  # delegator, epoch (8), validator, 0 or 1
NAMESPACE_VOTING_KEY: Final = b"\x08"  # a voting key (33 bytes): whose it is
NAMESPACE_RANK: Final = b"\x09"  # 2^64 - 1 - stake (8), serial (8): candidates, the richest first
NAMESPACE_STAKING: Final = b"\x0a"  # one byte, see STAKING_*
NAMESPACE_ONION: Final = b"\x0b"  # an operator's address, see beacon.py
# The models', see models.py and motion.py.
NAMESPACE_MODEL: Final = b"\x10"  # a model's digest (32): what may be seated
NAMESPACE_PUBLICATION: Final = b"\x11"  # its id (32): an artifact on its way, or here
NAMESPACE_ARTIFACT: Final = b"\x12"  # a publication's id (32), a number (2): a chunk
NAMESPACE_EXPIRY: Final = b"\x13"  # a time (8), a publication's id (32): forgotten after it
NAMESPACE_MOTION: Final = b"\x14"  # a height (8), a motion's digest (32)
NAMESPACE_SCHEDULE: Final = b"\x15"  # a height (8), that of the decision (8), a motion's digest (32)
NAMESPACE_MODULES: Final = b"\x16"  # a height (8): which modules judge from it on, and why
STAKING_COUNTERS: Final = b"\x00"
STAKING_PARTICIPATION: Final = b"\x01"
STAKING_MIX: Final = b"\x02"  # of the beacon
PARAMETER_GENESIS: Final = b"\x00"  # the genesis digest
PARAMETER_SUPPLY: Final = b"\x01"  # money of genesis, issued, burned: 8 bytes each, big-endian
PARAMETER_MODULES: Final = b"\x02"  # who judges the next block, see seating.py


def get_kind_namespace(kind: int) -> bytes:
    """The namespace of a kind of transaction: no other kind writes there."""
    return bytes((0x80 | kind,))


def compute_leaf_hash(key: bytes, value: bytes) -> bytes:
    """SHA-256(0x00 | key length | key | value)."""
    return sha256(b"\x00" + bytes((len(key),)) + key + value).digest()


def compute_branch_hash(digits: bytes, children: bytes) -> bytes:
    """SHA-256(0x01 | number of digits | the digits in ASCII | sixteen hashes)."""
    return sha256(b"\x01" + bytes((len(digits),)) + digits + children).digest()


def _join_hashes(children: tuple[_Node | None, ...]) -> bytes:
    return b"".join(EMPTY_ROOT if child is None else child.hash for child in children)


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: str  # the whole key, as hex digits
    value: bytes
    hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", compute_leaf_hash(bytes.fromhex(self.path), self.value))


@dataclass(frozen=True, slots=True)
class _Branch:
    path: str  # what all keys below begin with, as hex digits
    children: tuple[_Node | None, ...]  # sixteen, by the digit after `path`
    hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = compute_branch_hash(self.path.encode(), _join_hashes(self.children))
        object.__setattr__(self, "hash", digest)


_Node = _Leaf | _Branch
_NO_CHILDREN: Final[tuple[_Node | None, ...]] = (None,) * 16


@dataclass(frozen=True, slots=True)
class Records:
    """The map from keys (1..64 bytes) to values (bytes). `root` is 32 bytes, zeros when empty."""

    _node: _Node | None = None

    @property
    def root(self) -> bytes:
        return EMPTY_ROOT if self._node is None else self._node.hash

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        path, node = key.hex(), self._node
        while isinstance(node, _Branch):
            at = len(node.path)
            if len(path) <= at:
                return None
            node = node.children[int(path[at], 16)]
        return node.value if node is not None and node.path == path else None

    def put(self, key: bytes, value: bytes) -> Records:
        """The map with `key` set. Raises Fault for a key that breaks its namespace's length."""
        if not 0 < len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            raise Fault(f"a key of {len(key)} and a value of {len(value)} bytes", field="records")
        return Records(_put(self._node, _Leaf(key.hex(), value)))

    def remove(self, key: bytes) -> Records:
        """The map without `key`; the same map when it has none."""
        if self.get(key) is None:
            return self
        return Records(_remove(self._node, key.hex()))

    def trace(self, key: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, bytes] | None]:
        """The way to `key`, for a proof: the branches from the root, and the leaf they end at, if any.

        A branch: the digits before it (ASCII), the hashes of its sixteen children (512 bytes). The leaf is
        another key's when this one is absent; None when the last branch shows nothing in its place.
        """
        path, node = key.hex(), self._node
        branches: list[tuple[bytes, bytes]] = []
        while isinstance(node, _Branch):
            branches.append((node.path.encode(), _join_hashes(node.children)))
            if not path.startswith(node.path) or len(path) == len(node.path):
                return tuple(branches), None
            node = node.children[int(path[len(node.path)], 16)]
        return tuple(branches), None if node is None else (bytes.fromhex(node.path), node.value)

    def walk(self, prefix: bytes = b"", after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of every key that begins with `prefix` and is above `after`, in order of the keys."""
        path, above = prefix.hex(), after.hex()
        stack: list[_Node | None] = [self._node]
        while stack:
            node = stack.pop()
            if node is None or not (node.path.startswith(path) or path.startswith(node.path)):
                continue
            if above and (node.path < above[: len(node.path)] or node.path == above):
                continue
            if isinstance(node, _Branch):
                stack.extend(reversed(node.children))
            elif node.path.startswith(path):
                yield bytes.fromhex(node.path), node.value


def _put(node: _Node | None, leaf: _Leaf) -> _Node:
    if node is None or node.path == leaf.path:
        if isinstance(node, _Branch):
            raise Fault("one key is the beginning of another", field="records")
        return leaf
    common = _count_common(node.path, leaf.path)
    if common == len(leaf.path) or (common == len(node.path) and isinstance(node, _Leaf)):
        raise Fault("one key is the beginning of another", field="records")
    digit = int(leaf.path[common], 16)
    if common == len(node.path):
        assert isinstance(node, _Branch)
        return _replace(node, digit, _put(node.children[digit], leaf))
    children = list(_NO_CHILDREN)
    children[digit] = leaf
    children[int(node.path[common], 16)] = node
    return _Branch(node.path[:common], tuple(children))


def _remove(node: _Node | None, path: str) -> _Node | None:
    # Called only for a path that is there.
    if not isinstance(node, _Branch):
        return None
    digit = int(path[len(node.path)], 16)
    child = _remove(node.children[digit], path)
    if child is None:
        left = [other for at, other in enumerate(node.children) if other is not None and at != digit]
        if len(left) == 1:
            return left[0]
    return _replace(node, digit, child)


def _replace(node: _Branch, digit: int, child: _Node | None) -> _Branch:
    return _Branch(node.path, (*node.children[:digit], child, *node.children[digit + 1 :]))


def _count_common(first: str, second: str) -> int:
    if second.startswith(first):  # on the way down
        return len(first)
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at
    return min(len(first), len(second))
