"""Beacon: the seed that orders the leaders of an epoch, where genesis chooses "onion".

Every validator commits to the outermost layer of a hash onion: layer k is the hash of layer k + 1. Whoever
proposes reveals the next layer in its header, and each reveal is hashed into the mix; the mix after the
boundary block of epoch e is the seed of e + 1, whose set and stakes were fixed an epoch before that, so
that nobody bonds to fit a seed. A layer is determined by the commitment; a proposer's only freedom is to
reveal it or not. A commitment counts from two epochs on: nobody picks one to fit a mix that it sees.

Invariant: a layer that was not committed to is never mixed in. Bias: who proposes the last k blocks of an
epoch chooses among 2^k seeds, and pays with k reveals (decision 43 has it measured).
Source: RANDAO (Ethereum); hash chains as in Lamport (1981). Leaves out: a price for not revealing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger import records as rec
from consensus.ledger import staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.records import Records
from consensus.parameters import LEADER_ONION, Parameters
from consensus.transaction import KIND_COMMIT, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

LAYER_TAG: Final = b"assay/onion-layer/1"
MIX_TAG: Final = b"assay/beacon-mix/1"
SEED_TAG: Final = b"assay/beacon-seed/1"
PAYLOAD_BYTES: Final = 64
LAYERS_MAX: Final = 1 << 16  # of one onion: eight megabytes, a day of one's own blocks at a block a second
COMMITMENT_EPOCHS: Final = 2  # until a commitment counts
_MIX_KEY: Final = rec.NAMESPACE_STAKING + rec.STAKING_MIX


@dataclass(frozen=True, slots=True)
class Commitment:
    """tip: the layer revealed last (or none); from epoch `since` on it is `pending`, if that is not empty."""

    tip: bytes
    pending: bytes
    since: int

    def get_tip(self, epoch: int) -> bytes:
        """What the next reveal must hash to; empty while nothing counts yet."""
        return self.pending if self.pending and epoch >= self.since else self.tip


class Onion:
    """A validator's own secret layers: from its secret (32 bytes) to the outermost, which it commits to."""

    def __init__(self, secret: bytes, layers: int) -> None:
        if not 1 <= layers <= LAYERS_MAX:
            raise Rejected(f"{layers}, use 1 to {LAYERS_MAX}", field="layers", code="range")
        self._below: dict[bytes, bytes] = {}
        self._secret = secret
        layer = secret
        for _ in range(layers):
            above = compute_layer_above(layer)
            self._below[above] = layer
            layer = above
        self.tip = layer

    def is_layer(self, layer: bytes) -> bool:
        """Whether it is one of this onion's, the innermost included."""
        return layer in self._below or layer == self._secret

    def find_reveal(self, tip: bytes) -> bytes:
        """The layer below `tip`; empty when it is not of this onion, or the last one."""
        return self._below.get(tip, b"")


def compute_layer_above(layer: bytes) -> bytes:
    return crypto.hash_bytes(LAYER_TAG + layer)


def get_mix(records: Records) -> bytes:
    """All that was revealed so far, 32 bytes; zeros in the beginning."""
    return records.get(_MIX_KEY) or bytes(crypto.HASH_BYTES)


def compute_seed(records: Records, epoch: int) -> bytes:
    """The seed of the leaders' order in `epoch`, from the state of the block before its first one."""
    return crypto.hash_bytes(SEED_TAG + epoch.to_bytes(8, "big") + get_mix(records))


def find_commitment(records: Records, operator: bytes) -> Commitment | None:
    value = records.get(rec.NAMESPACE_ONION + operator)
    return (
        None if value is None else Commitment(*codec.decode_flat(value, what="onion", bytes_max=128, count=3))
    )


def get_tip(records: Records, operator: bytes, epoch: int) -> bytes:
    """What this validator's next reveal must hash to; empty for none."""
    found = find_commitment(records, operator)
    return b"" if found is None else found.get_tip(epoch)


def check_reveal(
    records: Records, parameters: Parameters, operator: bytes, epoch: int, reveal: bytes
) -> None:
    """Raises Rejected unless the reveal is the layer that its proposer committed to, or empty."""
    if not reveal:
        return
    field = "header.reveal"
    if parameters.leader_election != LEADER_ONION:
        raise Rejected("this chain has no beacon", field=field, mend="leave it empty", code="reveal")
    if len(reveal) != crypto.HASH_BYTES or compute_layer_above(reveal) != get_tip(records, operator, epoch):
        raise Rejected(
            "is not the layer below the one that its proposer committed to",
            field=field,
            mend="reveal it, or leave it empty",
            code="reveal",
        )


def apply_reveal(records: Records, operator: bytes, epoch: int, reveal: bytes) -> Records:
    """Mixes a checked reveal in."""
    if not reveal:
        return records
    found = find_commitment(records, operator)
    assert found is not None  # check_reveal saw it
    is_pending = found.pending and epoch >= found.since
    records = _put(
        records,
        operator,
        Commitment(reveal, b"", 0) if is_pending else Commitment(reveal, found.pending, found.since),
    )
    return records.put(_MIX_KEY, crypto.hash_bytes(MIX_TAG + get_mix(records) + reveal))


def _put(records: Records, operator: bytes, commitment: Commitment) -> Records:
    value = codec.encode((commitment.tip, commitment.pending, commitment.since))
    return records.put(rec.NAMESPACE_ONION + operator, value)


@dataclass(frozen=True, slots=True)
class CommitKind(UsualKind):
    """To oneself, by an operator. Payload: canonical (outermost layer,); it replaces one that is pending."""

    number: int = KIND_COMMIT
    name: str = "commit"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        staking.check_own(tx)
        decode_tip(tx.payload)

    def check(self, tx: Transaction, work: Work) -> None:
        if work.parameters.leader_election != LEADER_ONION:
            raise Rejected(
                "this chain has no beacon",
                field="kind",
                mend='use a chain whose genesis sets leader_election to "onion"',
                code="beacon_off",
            )
        staking.check_known(work.records, tx.sender)
        staking.check_fee(tx, work.parameters, staking.POSITION_BYTES)

    def apply(self, tx: Transaction, work: Work) -> None:
        tip = get_tip(work.records, tx.sender, work.epoch)
        commitment = Commitment(tip, decode_tip(tx.payload), work.epoch + COMMITMENT_EPOCHS)
        work.records = _put(work.records, tx.sender, commitment)


COMMIT: Final = CommitKind()


def encode_tip(tip: bytes) -> bytes:
    """The payload that commits to this outermost layer."""
    return codec.encode((tip,))


def decode_tip(payload: bytes) -> bytes:
    """Raises Rejected."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES, count=1)
    return codec.check_bytes(fields[0], "payload.tip", length=crypto.HASH_BYTES)
