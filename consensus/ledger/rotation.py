"""Rotation: a validator votes with another key from the next set that is fixed, two epochs on.

Payload: canonical (voting key, proof), the proof as in bond.py.

Invariant: sets that are fixed keep the old key, and evidence speaks of an index in such a set: changing
the key changes nothing about what was signed with the old one, which stays this operator's for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger import staking
from consensus.ledger.kind import UsualKind
from consensus.transaction import KIND_ROTATE_KEY, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

PAYLOAD_BYTES: Final = 128  # a key and a signature: 102


def sign_rotation(key: crypto.PrivateKey, chain_id: str, operator: bytes) -> bytes:
    """The payload with which `operator`'s validator will vote with `key`."""
    return encode_rotation(key.public_key, key.sign(staking.compute_key_digest(chain_id, operator)))


def encode_rotation(voting_key: bytes, proof: bytes) -> bytes:
    return codec.encode((voting_key, proof))


def decode_rotation(payload: bytes) -> tuple[bytes, bytes]:
    """(voting key, proof). Raises Rejected; the proof is not checked here."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES, count=2)
    return (
        codec.check_bytes(fields[0], "payload.voting_key", length=crypto.KEY_BYTES),
        codec.check_bytes(fields[1], "payload.proof", length=crypto.SIGNATURE_BYTES),
    )


@dataclass(frozen=True, slots=True)
class RotateKeyKind(UsualKind):
    """To oneself."""

    number: int = KIND_ROTATE_KEY
    name: str = "rotate_key"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        staking.check_own(tx)
        decode_rotation(tx.payload)

    def check(self, tx: Transaction, work: Work) -> None:
        staking.check_staking(work.parameters)
        stake = staking.check_known(work.records, tx.sender)
        if stake.status == staking.TOMBSTONED:
            raise Rejected("its validator lied and is out for good", field="sender", code="tombstoned")
        voting_key, proof = decode_rotation(tx.payload)
        if voting_key == stake.voting_key:
            raise Rejected("is the one it votes with", field="payload.voting_key", code="voting_key_taken")
        staking.check_fee(tx, work.parameters, staking.POSITION_BYTES)
        staking.check_voting_key(work.records, work.chain_id, tx.sender, voting_key, proof)

    def apply(self, tx: Transaction, work: Work) -> None:
        voting_key, _ = decode_rotation(tx.payload)
        stake = replace(staking.get_stake(work.records, tx.sender), voting_key=voting_key)
        records = staking.put_voting_key(work.records, voting_key, tx.sender)
        work.records = staking.put_stake(records, tx.sender, stake, work.parameters.stake_units_min)


ROTATE_KEY: Final = RotateKeyKind()
