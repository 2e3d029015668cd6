"""Withdraw: what has left a validator long enough, and an operator's commission, become balance again.

Pull, not push: an epoch's end pays nobody, so that its cost does not grow with the number of delegators.

Invariant: a claim is paid once, with its part of what slashing left of its pool, rounded down; the last
claim of a pool takes the rest. Claims ripen in order of their epoch, so that walking from the oldest
finds them; a transaction pays CLAIMS_MAX at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from consensus.errors import NotYet, Rejected
from consensus.ledger import staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.records import Records
from consensus.ledger.staking import Claim, Unbonding
from consensus.transaction import KIND_WITHDRAW, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

CLAIMS_MAX: Final = 32  # some 2 ms of a block; more need a second transaction


@dataclass(frozen=True, slots=True)
class WithdrawKind(UsualKind):
    """To oneself, with an empty payload: all that is ripe."""

    number: int = KIND_WITHDRAW
    name: str = "withdraw"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        staking.check_no_payload(tx)
        staking.check_own(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        staking.check_staking(work.parameters)
        own = staking.find_stake(work.records, tx.sender)
        if (own is not None and own.owed_units) or _list_ripe(work, tx.sender):
            return
        first = next(staking.walk_claims(work.records, tx.sender), None)
        if first is None:
            raise Rejected("nothing is leaving", field="sender", mend="unbond first", code="withdraw_nothing")
        unbonding = _get_unbonding(work.records, first)
        raise NotYet(
            f"the first of it is out in epoch {first.epoch + work.parameters.unbonding_epochs}, "
            f"from {unbonding.release_ms} ms on",
            field="sender",
            mend="try again then",
            code="withdraw_early",
        )

    def apply(self, tx: Transaction, work: Work) -> None:
        records, paid = work.records, 0
        own = staking.find_stake(records, tx.sender)
        if own is not None and own.owed_units:
            paid += own.owed_units
            records = staking.put_stake(
                records, tx.sender, replace(own, owed_units=0), work.parameters.stake_units_min
            )
        for claim in _list_ripe(work, tx.sender):
            unbonding = _get_unbonding(records, claim)
            units = staking.compute_value(claim.amount, unbonding.tokens, unbonding.claimed)
            paid += units
            rest = replace(
                unbonding, tokens=unbonding.tokens - units, claimed=unbonding.claimed - claim.amount
            )
            records = staking.put_unbonding(records, claim.validator, claim.epoch, claim.is_after, rest)
            records = staking.put_claim(records, tx.sender, replace(claim, amount=0))
        work.records = records
        work.balance[work.index[tx.sender]] += paid


WITHDRAW: Final = WithdrawKind()


def _list_ripe(work: Work, delegator: bytes) -> list[Claim]:
    """By the parent's time: the block's may still rise while it is built, and more would be out for its judges."""
    ripe: list[Claim] = []
    now_ms = work.parent.timestamp_ms
    for claim in islice(staking.walk_claims(work.records, delegator), CLAIMS_MAX):
        if claim.epoch + work.parameters.unbonding_epochs > work.epoch:
            break
        if _get_unbonding(work.records, claim).release_ms <= now_ms:
            ripe.append(claim)
    return ripe


def _get_unbonding(records: Records, claim: Claim) -> Unbonding:
    unbonding = staking.find_unbonding(records, claim.validator, claim.epoch, claim.is_after)
    assert unbonding is not None  # a pool stands while anybody claims of it
    return unbonding
