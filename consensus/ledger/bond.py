"""Bond: money becomes stake behind a validator, one's own (which makes one) or another's (delegation).

The envelope's amount goes to `receiver`, the operator's account, and from there into the pool. The first
bond of an account to itself carries a payload: canonical (voting key, proof, commission). The
proof is the voting key's signature, so that nobody takes another's key for its own.

Invariant: what is bonded leaves the balances wholly, and buys shares rounded down. A bond that rounding
would cost more than a thousandth is refused. Leaves out: when it counts (selection.py, two epochs on).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger import staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.staking import POSITION_BYTES, VALIDATOR_BYTES, Counters, Stake
from consensus.parameters import WHOLE_BP
from consensus.transaction import KIND_BOND, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

PAYLOAD_BYTES: Final = 128  # a key, a signature, a number: at most 105
ROUNDING_PARTS: Final = 1_000  # a bond loses at most one part of so many


@dataclass(frozen=True, slots=True)
class Founding:
    """What makes a validator: its voting key (33 bytes), that key's proof (64), its commission in basis points."""

    voting_key: bytes
    proof: bytes
    commission_bp: int


def encode_founding(founding: Founding) -> bytes:
    return codec.encode((founding.voting_key, founding.proof, founding.commission_bp))


def sign_founding(key: crypto.PrivateKey, chain_id: str, operator: bytes, commission_bp: int) -> bytes:
    """The payload with which `operator` founds a validator that votes with `key`."""
    proof = key.sign(staking.compute_key_digest(chain_id, operator))
    return encode_founding(Founding(key.public_key, proof, commission_bp))


def decode_founding(payload: bytes) -> Founding:
    """Raises Rejected; the proof is not checked here."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES, count=3)
    voting_key, proof, commission_bp = fields
    return Founding(
        codec.check_bytes(voting_key, "payload.voting_key", length=crypto.KEY_BYTES),
        codec.check_bytes(proof, "payload.proof", length=crypto.SIGNATURE_BYTES),
        codec.check_int(commission_bp, "payload.commission_bp", high=WHOLE_BP),
    )


@dataclass(frozen=True, slots=True)
class BondKind(UsualKind):
    """To an operator's address; with a payload to one's own when there is no validator yet."""

    number: int = KIND_BOND
    name: str = "bond"

    def check_form(self, tx: Transaction) -> None:
        if tx.payload:
            decode_founding(tx.payload)
            staking.check_own(tx)
        if not tx.amount:
            raise Rejected("nothing is bonded", field="amount", mend="use 1 or more", code="range")

    def check(self, tx: Transaction, work: Work) -> None:
        parameters, records = work.parameters, work.records
        staking.check_staking(parameters)
        if tx.payload:
            self._check_founding(tx, work)
            return
        stake = staking.check_known(records, tx.receiver)
        if stake.status == staking.TOMBSTONED:
            raise Rejected(
                "its validator lied and is out for good",
                field="receiver",
                mend="choose another",
                code="tombstoned",
            )
        if tx.amount < parameters.delegation_units_min:
            raise _refuse_small(tx.amount, parameters.delegation_units_min)
        minted = staking.compute_minted(tx.amount, stake.tokens, stake.shares)
        worth = staking.compute_value(minted, stake.tokens + tx.amount, stake.shares + minted)
        if (tx.amount - worth) * ROUNDING_PARTS > tx.amount:
            raise Rejected(
                f"{tx.amount} would buy shares worth {worth}",
                field="amount",
                mend="bond more at once",
                code="bond_rounding",
            )
        if not staking.get_shares(records, tx.sender, tx.receiver):
            staking.check_fee(tx, parameters, POSITION_BYTES)

    def _check_founding(self, tx: Transaction, work: Work) -> None:
        founding = decode_founding(tx.payload)
        if staking.find_stake(work.records, tx.sender) is not None:
            raise Rejected(
                "the account operates a validator already",
                field="payload",
                mend="leave it empty to add stake",
                code="validator_exists",
            )
        if tx.amount < work.parameters.stake_units_min:
            raise _refuse_small(tx.amount, work.parameters.stake_units_min)
        staking.check_fee(tx, work.parameters, VALIDATOR_BYTES)
        staking.check_voting_key(work.records, work.chain_id, tx.sender, founding.voting_key, founding.proof)

    def apply(self, tx: Transaction, work: Work) -> None:
        records, operator = work.records, tx.receiver
        work.balance[work.index[operator]] -= tx.amount
        if tx.payload:
            founding = decode_founding(tx.payload)
            counters = staking.get_counters(records)
            stake = Stake(
                counters.serial_next,
                founding.voting_key,
                tx.amount,
                tx.amount,
                tx.amount,
                founding.commission_bp,
            )
            records = staking.put_counters(
                records, Counters(counters.serial_next + 1, counters.epoch, counters.left_units)
            )
            records = staking.put_voting_key(records, founding.voting_key, operator)
        else:
            old = staking.get_stake(records, operator)
            minted = staking.compute_minted(tx.amount, old.tokens, old.shares)
            stake = replace(old, tokens=old.tokens + tx.amount, shares=old.shares + minted)
            if tx.sender == operator:
                stake = replace(stake, own_shares=old.own_shares + minted)
            else:
                shares = staking.get_shares(records, tx.sender, operator)
                records = staking.put_shares(records, tx.sender, operator, shares + minted)
        work.records = staking.put_stake(records, operator, stake, work.parameters.stake_units_min)


BOND: Final = BondKind()


def _refuse_small(amount: int, units_min: int) -> Rejected:
    return Rejected(
        f"{amount} is below the minimum", field="amount", mend=f"use {units_min} or more", code="bond_minimum"
    )
