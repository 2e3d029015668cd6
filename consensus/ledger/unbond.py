"""Unbond: stake begins to leave a validator. It stays slashable until it may be withdrawn.

Payload: canonical (units,), 0 for all that the sender has there. What goes is `units` exactly, for the
fewest shares that are worth it; when that takes all shares, it is all that they are worth, rounded down.

Invariant: what leaves goes from the pool into this epoch's unbonding pool of the validator, unit by unit.
What leaves the set of validators in one epoch stays below the cap (selection.py): beyond it is "not yet".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from consensus import codec
from consensus.codec import TIME_MS_MAX
from consensus.errors import NotYet, Rejected
from consensus.ledger import epochs, selection, staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.staking import POSITION_BYTES, Claim, Counters, Stake, Unbonding
from consensus.transaction import KIND_UNBOND, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

PAYLOAD_BYTES: Final = 16
ALL: Final = 0


def encode_units(units: int) -> bytes:
    """The payload that takes so many units out, or ALL."""
    return codec.encode((units,))


def decode_units(payload: bytes) -> int:
    """Raises Rejected."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES, count=1)
    return codec.check_int(fields[0], "payload.units")


@dataclass(frozen=True, slots=True)
class _Exit:
    """What an unbonding does: shares gone, units out, weight lost in the set of the next epoch."""

    shares: int
    units: int
    charge: int


@dataclass(frozen=True, slots=True)
class UnbondKind(UsualKind):
    """Of a validator, named by its operator's address in `receiver`."""

    number: int = KIND_UNBOND
    name: str = "unbond"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        decode_units(tx.payload)

    def check(self, tx: Transaction, work: Work) -> None:
        parameters, records = work.parameters, work.records
        staking.check_staking(parameters)
        stake = staking.check_known(records, tx.receiver)
        held = staking.get_shares(records, tx.sender, tx.receiver)
        if not held:
            raise Rejected(
                "the sender has nothing there", field="receiver", mend="name another", code="unbond_nothing"
            )
        units, worth = decode_units(tx.payload), staking.compute_value(held, stake.tokens, stake.shares)
        if units > worth:
            raise Rejected(
                f"{units}, the sender has {worth} there",
                field="payload.units",
                mend=f"use at most {worth}, or 0 for all",
                code="unbond_too_much",
            )
        found = _compute_exit(tx, work, stake)
        left = staking.compute_value(
            held - found.shares, stake.tokens - found.units, stake.shares - found.shares
        )
        if found.shares < held and left < parameters.delegation_units_min:
            raise Rejected(
                f"{left} would be left, less than {parameters.delegation_units_min}",
                field="payload.units",
                mend="use 0 for all",
                code="unbond_rest",
            )
        staking.check_fee(tx, parameters, POSITION_BYTES)
        _check_churn(work, found.charge)

    def apply(self, tx: Transaction, work: Work) -> None:
        records, operator, parameters = work.records, tx.receiver, work.parameters
        stake = staking.get_stake(records, operator)
        found = _compute_exit(tx, work, stake)
        held = staking.get_shares(records, tx.sender, operator) - found.shares
        new = replace(stake, tokens=stake.tokens - found.units, shares=stake.shares - found.shares)
        if tx.sender == operator:
            new = replace(new, own_shares=held)
        else:
            records = staking.put_shares(records, tx.sender, operator, held)
        records = staking.put_stake(records, operator, new, parameters.stake_units_min)
        counters = staking.get_counters(records)
        left_units = _get_left_units(counters, work.epoch) + found.charge
        records = staking.put_counters(records, Counters(counters.serial_next, work.epoch, left_units))
        if found.units:
            is_after = int(stake.status == staking.TOMBSTONED)
            old = staking.find_unbonding(records, operator, work.epoch, is_after) or Unbonding(0, 0, 0)
            unbonding = Unbonding(
                old.tokens + found.units,
                old.claimed + found.units,
                max(old.release_ms, min(TIME_MS_MAX, work.compute_time_ms(tx) + parameters.unbonding_ms)),
            )
            records = staking.put_unbonding(records, operator, work.epoch, is_after, unbonding)
            claimed = staking.get_claimed(records, tx.sender, operator, work.epoch, is_after)
            claim = Claim(operator, work.epoch, is_after, claimed + found.units)
            records = staking.put_claim(records, tx.sender, claim)
        work.records = records


UNBOND: Final = UnbondKind()


def _compute_exit(tx: Transaction, work: Work, stake: Stake) -> _Exit:
    held = staking.get_shares(work.records, tx.sender, tx.receiver)
    worth = staking.compute_value(held, stake.tokens, stake.shares)
    units = decode_units(tx.payload)
    shares = held
    if units not in (ALL, worth):
        shares = staking.compute_redeemed_shares(units, stake.tokens, stake.shares)
    if shares == held:
        units = worth  # where a share is worth several units: who gives up the last one leaves nothing behind
    if stake.status == staking.TOMBSTONED:
        return _Exit(shares, units, 0)  # it is out of the next set already
    weight = epochs.get_set(work.records, work.epoch + 1).get_stake(tx.receiver)
    return _Exit(shares, units, selection.compute_charge(weight, stake.tokens, units))


def _get_left_units(counters: Counters, epoch: int) -> int:
    return counters.left_units if counters.epoch == epoch else 0


def _check_churn(work: Work, charge: int) -> None:
    if not charge:
        return
    churn = selection.compute_churn_units(epochs.get_set(work.records, work.epoch + 1), work.parameters)
    if charge > churn:
        raise Rejected(
            f"{charge} of the validators' stake would leave at once, at most {churn} may in an epoch",
            field="payload.units",
            mend=f"unbond at most {churn} in an epoch",
            code="churn",
        )
    room = churn - _get_left_units(staking.get_counters(work.records), work.epoch)
    if charge > room:
        raise NotYet(
            f"{charge} of the validators' stake would leave, {room} may still in this epoch",
            field="payload.units",
            mend="try again in the next epoch",
            code="churn",
        )
