"""Transaction: a signed statement by one account. One envelope for every kind.

The envelope (who, nonce, receiver, amount, fee, times) is the same for all kinds, so that mempool,
nonces and fees know no kind; what is a kind's own stands in `payload`, canonical msgpack that only
the kind's module in `consensus/ledger/` reads (empty for a transfer).

Invariant: `raw` is the one encoding, `id` its SHA-256, `sender` the address of `public_key`; the
signature is over a digest that binds a domain tag and the chain id (see `compute_signing_digest`).
Leaves out: whether it may happen now; that is the ledger's question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected

TRANSACTION_TAG: Final = b"assay/transaction/1"
PAYLOAD_BYTES_MAX: Final = 4096  # a report: a transaction, a header and two proofs of 64 hashes at most
TRANSACTION_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + 256  # the envelope takes at most 203 bytes

KIND_TRANSFER: Final = 0
KIND_REPORT: Final = 1
KIND_BOND: Final = 2
KIND_UNBOND: Final = 3
KIND_WITHDRAW: Final = 4
KIND_UNJAIL: Final = 5
KIND_ROTATE_KEY: Final = 6
KIND_EVIDENCE: Final = 7
KIND_COMMIT: Final = 8
KIND_PUBLISH_MODEL: Final = 16  # 9 to 15 are left to money and stake
KIND_APPROVE_MOTION: Final = 17
KIND_REGISTER_REPORTER: Final = 20
KIND_LEAVE_REPORTER: Final = 21
KIND_WITHDRAW_REPORT: Final = 22
KIND_DISPUTE_REPORT: Final = 23
KIND_VOTE_REPORT: Final = 24
KIND_RECLAIM_DEPOSIT: Final = 25
KIND_MAX: Final = 127  # one byte in msgpack

_FIELDS: Final = 10
_HEAD: Final = bytes([0x90 | _FIELDS])  # msgpack: an array of ten
_SIGNATURE_HEAD: Final = bytes([0xC4, crypto.SIGNATURE_BYTES])  # msgpack: a byte string of 64

# One account sends many transactions: its address is hashed once. 2^16 entries take about 12 MB.
_cached_address = lru_cache(maxsize=1 << 16)(crypto.compute_address)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Amounts and fee in smallest units (0..2^53-1), times in ms since the epoch.

    sender (20 bytes), id (32) and raw follow from the other fields. Two transactions are equal
    when their raw bytes are.
    """

    kind: int
    public_key: bytes
    nonce: int
    receiver: bytes
    amount: int
    fee: int
    timestamp_ms: int
    expires_ms: int
    payload: bytes
    signature: bytes
    sender: bytes = field(init=False, repr=False, compare=False)
    id: bytes = field(init=False, repr=False, compare=False)
    raw: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Signature last: the signed body is `raw` without it, so one packing serves id and digest.
        body = _encode_body(self)
        raw = _HEAD + body + _SIGNATURE_HEAD + self.signature
        put = object.__setattr__
        put(self, "sender", _cached_address(self.public_key))
        put(self, "raw", raw)
        put(self, "id", crypto.hash_bytes(raw))

    def __hash__(self) -> int:
        return hash(self.id)


def _encode_body(tx: Transaction) -> bytes:
    """The nine signed fields, without an array header."""
    return codec.encode(
        (
            tx.kind,
            tx.public_key,
            tx.nonce,
            tx.receiver,
            tx.amount,
            tx.fee,
            tx.timestamp_ms,
            tx.expires_ms,
            tx.payload,
        )
    )[1:]


def compute_signing_digest(tx: Transaction, chain_id: str) -> bytes:
    """The 32 bytes that the sender signs: domain tag, chain id and every field but the signature."""
    body = tx.raw[1 : -len(_SIGNATURE_HEAD) - crypto.SIGNATURE_BYTES]
    return crypto.tagged_digest(TRANSACTION_TAG, chain_id, body)


def sign_transaction(
    key: crypto.PrivateKey,
    chain_id: str,
    *,
    kind: int = KIND_TRANSFER,
    nonce: int,
    receiver: bytes,
    amount: int,
    fee: int,
    timestamp_ms: int,
    expires_ms: int,
    payload: bytes = b"",
) -> Transaction:
    """A signed transaction of `key`'s account for `chain_id`. Raises Rejected for impossible fields."""
    fields = (kind, key.public_key, nonce, receiver, amount, fee, timestamp_ms, expires_ms, payload)
    unsigned = _build_transaction((*fields, bytes(crypto.SIGNATURE_BYTES)))
    return Transaction(*fields, key.sign(compute_signing_digest(unsigned, chain_id)))


class _Draft:
    """A transaction while it is filled in: the same slots, not frozen yet, and then it becomes one.

    A frozen dataclass' __setattr__ costs ten times as much as a plain one, and there are thirteen fields.
    """

    __slots__ = Transaction.__slots__

    def __init__(self, fields: tuple[Any, ...], sender: bytes, transaction_id: bytes, raw: bytes) -> None:
        (
            self.kind,
            self.public_key,
            self.nonce,
            self.receiver,
            self.amount,
            self.fee,
            self.timestamp_ms,
            self.expires_ms,
            self.payload,
            self.signature,
        ) = fields
        self.sender = sender
        self.id = transaction_id
        self.raw = raw


def decode_transaction(data: bytes, data_hash: bytes | None = None) -> Transaction:
    """The transaction that `data` encodes. Raises Rejected; the signature is *not* checked here.

    data_hash: the SHA-256 of `data`, where the caller has it already.
    """
    fields = codec.decode_flat(data, what="transaction", bytes_max=TRANSACTION_BYTES_MAX, count=_FIELDS)
    if not _are_sound(fields):
        _check_fields(fields)
    # `decode_flat` proved that `data` is the fields' encoding: encoding them again would cost a third of all this.
    tx: Any = _Draft(fields, _cached_address(fields[1]), data_hash or crypto.hash_bytes(data), data)
    tx.__class__ = Transaction
    done: Transaction = tx
    return done


def _build_transaction(fields: tuple[Any, ...]) -> Transaction:
    _check_fields(fields)
    return Transaction(*fields)


_TYPES: Final = (int, bytes, int, bytes, int, int, int, int, bytes, bytes)


def _are_sound(fields: tuple[Any, ...]) -> bool:
    """Whether `_check_fields` has nothing to say, in little more than half its time."""
    if tuple(map(type, fields)) != _TYPES:
        return False
    kind, public_key, nonce, receiver, amount, fee, timestamp_ms, expires_ms, payload, signature = fields
    return (
        0 <= kind <= KIND_MAX
        and len(public_key) == crypto.KEY_BYTES
        and 0 <= nonce <= codec.MONEY_MAX
        and len(receiver) == crypto.ADDRESS_BYTES
        and 0 <= amount <= codec.MONEY_MAX
        and 0 <= fee <= codec.MONEY_MAX
        and 0 <= timestamp_ms < expires_ms <= codec.TIME_MS_MAX
        and len(payload) <= PAYLOAD_BYTES_MAX
        and len(signature) == crypto.SIGNATURE_BYTES
    )


def _check_fields(fields: tuple[Any, ...]) -> None:
    """Raises Rejected naming the first field that no transaction may have."""
    kind, public_key, nonce, receiver, amount, fee, timestamp_ms, expires_ms, payload, signature = fields
    codec.check_int(kind, "kind", high=KIND_MAX)
    codec.check_bytes(public_key, "public_key", length=crypto.KEY_BYTES)
    codec.check_int(nonce, "nonce")
    codec.check_bytes(receiver, "receiver", length=crypto.ADDRESS_BYTES)
    codec.check_int(amount, "amount")
    codec.check_int(fee, "fee")
    codec.check_int(timestamp_ms, "timestamp_ms", high=codec.TIME_MS_MAX)
    codec.check_int(expires_ms, "expires_ms", high=codec.TIME_MS_MAX)
    codec.check_bytes(payload, "payload", length_max=PAYLOAD_BYTES_MAX)
    codec.check_bytes(signature, "signature", length=crypto.SIGNATURE_BYTES)
    if expires_ms <= timestamp_ms:
        raise Rejected(
            f"{expires_ms} is not after timestamp_ms {timestamp_ms}", field="expires_ms", code="expires"
        )


def is_signed(tx: Transaction, chain_id: str) -> bool:
    """Whether the signature is the sender's, for this chain."""
    return crypto.verify(tx.public_key, compute_signing_digest(tx, chain_id), tx.signature)
