"""Toy blocks and toy signatures: enough for engines, cheap enough for a hundred thousand runs.

A toy block is its header alone; its hash is the SHA-256 of its payload. A toy signature names
the signer and the digest: nobody in the world forges one unless a villain is given the name to sign
with. Nothing here is secure, and nothing outside the simulation may use it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from consensus import codec, crypto
from consensus.bft.contract import BlockRef
from consensus.errors import Rejected
from consensus.vote import Validator, ValidatorSet

CHAIN_ID = "simulation"
EPOCH = 0
GENESIS = BlockRef(crypto.hash_bytes(b"simulated genesis"), EPOCH, 0, 0, 0, bytes(32), 0)
BLOCKS_KEPT: Final = 4_096  # a block is read some thirty times, all within a second of the run
VALID_SALTS = 1_000_000  # a salt at or above this marks a block that nobody should judge valid


def make_payload(
    parent: BlockRef, view: int, proposer: int, salt: int, epoch: int = EPOCH, height_max: int | None = None
) -> bytes:
    """A block on `parent`; different salts make different blocks. height_max: the epoch's boundary."""
    height = compute_height(parent, height_max)
    return codec.encode((view, height, parent.view, parent.hash, proposer, salt, epoch))


def compute_height(parent: BlockRef, height_max: int | None) -> int:
    """Of a block on `parent`: one more, but past the epoch's boundary, where tails keep its height."""
    return parent.height + 1 if height_max is None else min(parent.height + 1, height_max)


@lru_cache(maxsize=BLOCKS_KEPT)
def read_block(payload: bytes) -> BlockRef:
    """The BlockRef of a payload. Raises Rejected."""
    value = codec.decode(payload, what="toy", bytes_max=256)
    view, height, parent_view, parent_hash, proposer, _, epoch = codec.check_fields(value, 7, "toy")
    for number in (view, height, parent_view, proposer, epoch):
        codec.check_int(number, "toy")
    codec.check_bytes(parent_hash, "toy.parent_hash", length=32)
    return BlockRef(crypto.hash_bytes(payload), epoch, view, height, parent_view, parent_hash, proposer)


def hash_block(payload: bytes) -> bytes:
    """The hash that a block of this payload has."""
    return crypto.hash_bytes(payload)


@lru_cache(maxsize=BLOCKS_KEPT)
def is_valid_payload(payload: bytes) -> bool:
    """Whether the toy ledger takes this block."""
    value = codec.decode(payload, what="toy", bytes_max=256)
    return bool(value[5] < VALID_SALTS)


def is_height_right(block: BlockRef, parent: bytes | None, height_max: int | None = None) -> bool:
    """Whether a block stands one above its parent, or is a tail; None: the parent is genesis, or long gone."""
    if block.parent_hash == GENESIS.hash:
        return block.height == GENESIS.height + 1
    return parent is None or block.height == compute_height(read_block(parent), height_max)


_KEYS: list[bytes] = []


def make_key(index: int) -> crypto.PrivateKey:
    """The real key of validator `index`."""
    return crypto.PrivateKey.from_seed(b"simulated %d" % index)


@lru_cache(maxsize=64)
def make_validators(stakes: tuple[int, ...]) -> ValidatorSet:
    """A validator set with real keys (its constructor checks them) and these stakes."""
    if not stakes:
        raise Rejected("must be at least one", field="--nodes")
    return make_members(tuple(range(len(stakes))), stakes)


@lru_cache(maxsize=256)
def make_members(members: tuple[int, ...], stakes: tuple[int, ...]) -> ValidatorSet:
    """As make_validators, of these nodes."""
    while len(_KEYS) <= max(members):
        _KEYS.append(make_key(len(_KEYS)).public_key)
    pairs = zip(members, stakes, strict=True)
    return ValidatorSet(tuple(Validator(_KEYS[node], stake) for node, stake in pairs))


def get_public_key(node: int) -> bytes:
    """The voting key of a node that has been in a set."""
    return _KEYS[node]


def sign(public_key: bytes, digest: bytes) -> bytes:
    """A toy signature, 64 bytes: who signed what, for all to read. A hash would cost a tenth of a run."""
    return digest + public_key[1:]


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return signature == sign(public_key, digest)
