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


def make_payload(parent: BlockRef, view: int, proposer: int, salt: int, epoch: int = EPOCH) -> bytes:
    """A block on `parent`; different salts make different blocks."""
    return codec.encode((view, parent.height + 1, parent.view, parent.hash, proposer, salt, epoch))


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


def is_height_right(block: BlockRef, parent: bytes | None) -> bool:
    """Whether a block stands one above its parent; None: the parent is genesis, or long gone."""
    if block.parent_hash == GENESIS.hash:
        return block.height == GENESIS.height + 1
    return parent is None or block.height == read_block(parent).height + 1


_KEYS: list[bytes] = []


@lru_cache(maxsize=64)
def make_validators(stakes: tuple[int, ...]) -> ValidatorSet:
    """A validator set with real keys (its constructor checks them) and these stakes."""
    while len(_KEYS) < len(stakes):
        _KEYS.append(crypto.PrivateKey.from_seed(b"simulated %d" % len(_KEYS)).public_key)
    if not stakes:
        raise Rejected("must be at least one", field="--nodes")
    return ValidatorSet(tuple(Validator(key, stake) for key, stake in zip(_KEYS, stakes, strict=False)))


def sign(public_key: bytes, digest: bytes) -> bytes:
    """A toy signature, 64 bytes: who signed what, for all to read. A hash would cost a tenth of a run."""
    return digest + public_key[1:]


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return signature == sign(public_key, digest)
