"""Unjail: a validator that was absent stands for election again, once its time is over.

Invariant: only the operator may, and only who is jailed and has the minimum at stake; it sits again in
two epochs' time like any other that joins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from consensus.errors import NotYet, Rejected
from consensus.ledger import staking
from consensus.ledger.kind import UsualKind
from consensus.transaction import KIND_UNJAIL, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


@dataclass(frozen=True, slots=True)
class UnjailKind(UsualKind):
    """To oneself, with an empty payload."""

    number: int = KIND_UNJAIL
    name: str = "unjail"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        staking.check_no_payload(tx)
        staking.check_own(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        staking.check_staking(work.parameters)
        stake = staking.check_known(work.records, tx.sender)
        if stake.status != staking.JAILED:
            raise Rejected(
                f"its validator is {staking.STATUS_NAMES[stake.status]}, not jailed",
                field="sender",
                code="unjail_status",
            )
        if work.epoch < stake.jailed_until:
            raise NotYet(
                f"jailed until epoch {stake.jailed_until}, this is {work.epoch}",
                field="sender",
                mend="try again then",
                code="unjail_early",
            )
        if stake.own_tokens < work.parameters.stake_units_min:
            raise Rejected(
                f"the operator has {stake.own_tokens} at stake",
                field="sender",
                mend=f"bond up to {work.parameters.stake_units_min} first",
                code="bond_minimum",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        stake = replace(staking.get_stake(work.records, tx.sender), status=staking.BONDED, jailed_until=0)
        work.records = staking.put_stake(work.records, tx.sender, stake, work.parameters.stake_units_min)


UNJAIL: Final = UnjailKind()
