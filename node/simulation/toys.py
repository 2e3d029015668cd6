"""Toy blocks and toy signatures: enough for engines, cheap enough for a hundred thousand runs.

A toy block is its header alone; its hash is the SHA-256 of its payload. A toy signature is a hash of
the signer and the digest: nobody in the world forges one unless a villain is given the name to sign
with. Nothing here is secure, and nothing outside the simulation may use it.
"""

from __future__ import annotations

from consensus import codec, crypto
from consensus.bft.contract import BlockRef
from consensus.errors import Rejected
from consensus.vote import Validator, ValidatorSet

CHAIN_ID = "simulation"
EPOCH = 0
GENESIS = BlockRef(crypto.hash_bytes(b"simulated genesis"), EPOCH, 0, 0, 0, bytes(32), 0)
VALID_SALTS = 1_000_000  # a salt at or above this marks a block that nobody should judge valid


def make_payload(parent: BlockRef, view: int, proposer: int, salt: int) -> bytes:
    """A block on `parent`; different salts make different blocks."""
    return codec.encode((view, parent.height + 1, parent.view, parent.hash, proposer, salt))


def read_block(payload: bytes) -> BlockRef:
    """The BlockRef of a payload. Raises Rejected."""
    value = codec.decode(payload, what="toy", bytes_max=256)
    view, height, parent_view, parent_hash, proposer, _ = codec.check_fields(value, 6, "toy")
    for number in (view, height, parent_view, proposer):
        codec.check_int(number, "toy")
    codec.check_bytes(parent_hash, "toy.parent_hash", length=32)
    return BlockRef(crypto.hash_bytes(payload), EPOCH, view, height, parent_view, parent_hash, proposer)


def is_valid_payload(payload: bytes) -> bool:
    """Whether the toy ledger takes this block."""
    value = codec.decode(payload, what="toy", bytes_max=256)
    return bool(value[5] < VALID_SALTS)


_KEYS: list[bytes] = []


def make_validators(stakes: tuple[int, ...]) -> ValidatorSet:
    """A validator set with real keys (its constructor checks them) and these stakes."""
    while len(_KEYS) < len(stakes):
        _KEYS.append(crypto.PrivateKey.from_seed(b"simulated %d" % len(_KEYS)).public_key)
    if not stakes:
        raise Rejected("must be at least one", field="--nodes")
    return ValidatorSet(tuple(Validator(key, stake) for key, stake in zip(_KEYS, stakes, strict=False)))


def sign(public_key: bytes, digest: bytes) -> bytes:
    """A toy signature, 64 bytes."""
    return 2 * crypto.hash_bytes(public_key + digest)


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return signature == sign(public_key, digest)
