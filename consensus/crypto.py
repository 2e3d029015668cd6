"""Hashes, addresses, keys and signatures: everything the protocol signs goes through here.

SHA-256; ECDSA over secp256k1 with compressed keys (33 bytes) and compact low-s signatures (r | s,
64 bytes); nonces by RFC 6979, so that signing needs no randomness. Every signed digest is bound
to a domain tag and a chain id: a vote never passes for a transaction, nor a test for the main chain.

Invariant: whether a signature is valid does not depend on the library installed. Every check of
form is made here, before either library of `consensus.secp256k1` is asked.
Source: SEC 1 v2, RFC 6979, BIP-62 and BIP-146 (low s), BIP-340 (the idea of tagged hashes).
Left out: making random keys (the node does, from the system's source) and storing them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from consensus.errors import Rejected
from consensus.secp256k1 import FIELD_PRIME, GROUP_ORDER, Backend, Signed, load_backend

if TYPE_CHECKING:
    from hashlib import _Hash

HASH_BYTES: Final = 32
KEY_BYTES: Final = 33  # SEC 1 compressed form: a prefix 2 or 3 (the parity of y), then x
SIGNATURE_BYTES: Final = 64
PRIVATE_KEY_BYTES: Final = 32
ADDRESS_BYTES: Final = 20  # collisions cost 2^80 work, a second preimage 2^160; as in Bitcoin and Ethereum

ADDRESS_TAG: Final = b"assay/address"
SEED_TAG: Final = b"assay/private-key-from-seed"
TAG_PREFIXES_KEPT: Final = 256  # some ten tags for each of the few chains one process ever speaks

BACKEND: Final[Backend] = load_backend()
BACKEND_NAME: Final[str] = BACKEND.name

# Big-endian strings of equal length compare as the numbers they spell: range checks without int().
_ZERO: Final = bytes(32)
_ORDER: Final = GROUP_ORDER.to_bytes(32, "big")
_HALF_ORDER: Final = (GROUP_ORDER // 2).to_bytes(32, "big")
_PRIME: Final = FIELD_PRIME.to_bytes(32, "big")


def hash_bytes(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return sha256(data).digest()


@lru_cache(maxsize=TAG_PREFIXES_KEPT)
def _start_tagged(tag: bytes, chain_id: str) -> "_Hash":
    # Two digests of 32 bytes fill exactly one block of SHA-256: what is kept is the state after it.
    return sha256(sha256(tag).digest() + sha256(chain_id.encode()).digest())


def tagged_digest(tag: bytes, chain_id: str, body: bytes) -> bytes:
    """What is signed: sha256(sha256(tag) | sha256(chain_id) | body), 32 bytes.

    `tag` names the kind of message and `chain_id` the network. Both enter as digests of fixed
    length, so no other (tag, chain_id, body) gives the same input. Pass only chain ids of the node's
    own configuration: one state is kept for each pair.
    """
    digest = _start_tagged(tag, chain_id).copy()
    digest.update(body)
    return digest.digest()


def compute_address(public_key: bytes) -> bytes:
    """The account of a key: the last 20 bytes of sha256(ADDRESS_TAG | public_key)."""
    return sha256(ADDRESS_TAG + public_key).digest()[-ADDRESS_BYTES:]


def is_valid_public_key(public_key: bytes, *, backend: Backend = BACKEND) -> bool:
    """Whether these bytes are the one compressed form of a point on the curve."""
    return _has_key_form(public_key) and backend.is_on_curve(public_key)


def verify(public_key: bytes, digest: bytes, signature: bytes, *, backend: Backend = BACKEND) -> bool:
    """Whether `signature` (64 bytes, r | s, low s) is `public_key`'s (33 bytes) over `digest` (32 bytes).

    Any bytes of any length are allowed and answered with False when their form is wrong.
    """
    item = (public_key, digest, signature)
    return _is_well_formed(item) and backend.verify_all((item,))[0]


def verify_batch(items: Sequence[Signed], *, backend: Backend = BACKEND) -> list[bool]:
    """`verify` for many (public_key, digest, signature), answers in order; ECDSA has no cheaper batch.

    It saves the calls and allocations around each item, about half a microsecond.
    """
    well_formed = [_is_well_formed(item) for item in items]
    if all(well_formed):
        return backend.verify_all(items)
    answers = iter(backend.verify_all([item for item, good in zip(items, well_formed, strict=True) if good]))
    return [good and next(answers) for good in well_formed]


def _has_key_form(public_key: bytes) -> bool:
    # x >= p would be a second spelling of x - p; not every library refuses it.
    return len(public_key) == KEY_BYTES and public_key[0] in (2, 3) and public_key[1:] < _PRIME


def _is_well_formed(item: Signed) -> bool:
    public_key, digest, signature = item
    return (
        len(signature) == SIGNATURE_BYTES
        and len(digest) == HASH_BYTES
        and _has_key_form(public_key)
        and _ZERO < signature[:32] < _ORDER
        # BIP-62 rule 5: (r, s) and (r, n - s) both satisfy the equation; one of them must not, or anyone
        # could change a transaction's bytes on its way.
        and _ZERO < signature[32:] <= _HALF_ORDER
    )


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key. `secret` is 32 bytes, never shown by repr; key and address follow from it.

    Raises Rejected when the secret is not 32 bytes or lies outside 1..n-1.
    """

    secret: bytes = field(repr=False)
    public_key: bytes = field(init=False, compare=False, repr=False)
    address: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != PRIVATE_KEY_BYTES:
            raise Rejected(
                f"a private key is {PRIVATE_KEY_BYTES} bytes, this is {len(self.secret)}",
                field="private_key",
                code="private_key_length",
            )
        if not _ZERO < self.secret < _ORDER:
            raise Rejected(
                "zero, or not below the order of secp256k1",
                field="private_key",
                mend="make a new key",
                code="private_key_range",
            )
        public_key = BACKEND.compute_public_key(self.secret)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "address", compute_address(public_key))

    def __repr__(self) -> str:
        return f"PrivateKey(address=0x{self.address.hex()})"

    @classmethod
    def from_bytes(cls, secret: bytes) -> "PrivateKey":
        """The key of 32 big-endian bytes; raises Rejected as the class does."""
        return cls(bytes(secret))

    @classmethod
    def from_seed(cls, seed: bytes) -> "PrivateKey":
        """A key that depends on `seed` alone: for workloads, tests and simulations, never for real value."""
        start = sha256(SEED_TAG).digest() + sha256(seed).digest()
        attempt = 0
        while True:  # a second attempt has a chance of 2^-128
            secret = sha256(start + attempt.to_bytes(4, "big")).digest()
            if _ZERO < secret < _ORDER:
                return cls(secret)
            attempt += 1

    def sign(self, digest: bytes, *, backend: Backend = BACKEND) -> bytes:
        """r | s (64 bytes, low s) over a digest of 32 bytes; the same digest gives the same bytes.

        A digest comes from `tagged_digest`, so another length is the caller's mistake: ValueError.
        """
        if len(digest) != HASH_BYTES:
            raise ValueError(f"a digest is {HASH_BYTES} bytes, this is {len(digest)}")
        return backend.sign(self.secret, digest)
