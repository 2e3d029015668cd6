"""Registration: anybody becomes a reporter by a bond, and leaves with it when nothing can come any more.

Register: to oneself, with an amount of `report_bond_units`. Leave: to oneself, twice: the first says so and
ends reporting, the second, once the last report can be disputed no more and every vote is over, pays out.

Invariant: the bond waits as long as any report that it stands for can be found false.
Source: the two steps of unbond.py and withdraw.py. Leaves out: what burns a bond (dispute.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from consensus.errors import NotYet, Rejected
from consensus.ledger import reporters, staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.reporters import REGISTERED, REPORTER_BYTES, STATUS_NAMES, Reporter
from consensus.parameters import REPORTING_REGISTERED
from consensus.transaction import KIND_LEAVE_REPORTER, KIND_REGISTER_REPORTER, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


@dataclass(frozen=True, slots=True)
class RegisterReporterKind(UsualKind):
    """To oneself; the amount is the bond."""

    number: int = KIND_REGISTER_REPORTER
    name: str = "register_reporter"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_payload(tx)
        staking.check_own(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        parameters = work.parameters
        if REPORTING_REGISTERED not in parameters.reporting.split("+"):
            raise Rejected(
                f'this chain takes reports of "{parameters.reporting}" and registers nobody',
                field="kind",
                mend="use a chain whose genesis sets reporting to registered",
                code="registration_off",
            )
        known = reporters.find_reporter(work.records, tx.sender)
        if known is not None:
            raise Rejected(
                f"is on record as {STATUS_NAMES[known.status]}",
                field="sender",
                mend="use another account",
                code="reporter_exists",
            )
        if tx.amount != parameters.report_bond_units:
            raise Rejected(
                f"{tx.amount}, the bond is {parameters.report_bond_units}",
                field="amount",
                mend=f"use {parameters.report_bond_units}",
                code="report_bond",
            )
        staking.check_fee(tx, parameters, REPORTER_BYTES)

    def apply(self, tx: Transaction, work: Work) -> None:
        work.balance[work.index[tx.sender]] -= tx.amount
        work.records = reporters.put_reporter(work.records, tx.sender, Reporter(REGISTERED, tx.amount))


@dataclass(frozen=True, slots=True)
class LeaveReporterKind(UsualKind):
    """To oneself, amount 0: first to leave, then for the bond."""

    number: int = KIND_LEAVE_REPORTER
    name: str = "leave_reporter"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        staking.check_no_payload(tx)
        staking.check_own(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        known = reporters.find_reporter(work.records, tx.sender)
        if known is None or known.status != REGISTERED:
            words = "is no reporter" if known is None else f"is {STATUS_NAMES[known.status]}"
            raise Rejected(
                f"{words}, no bond is held for it",
                field="sender",
                mend="use a registered reporter's key",
                code="reporter_unknown",
            )
        if known.release_ms and work.timestamp_ms <= known.release_ms:
            raise NotYet(
                f"its bond is out after {known.release_ms} ms",
                field="sender",
                mend="try again then",
                code="leave_early",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        known = reporters.find_reporter(work.records, tx.sender)
        assert known is not None
        if known.release_ms:
            work.records = reporters.remove_reporter(work.records, tx.sender)
            work.balance[work.index[tx.sender]] += known.bond_units
            return
        release_ms = compute_release_ms(tx, work)
        work.records = reporters.put_reporter(work.records, tx.sender, replace(known, release_ms=release_ms))


REGISTER_REPORTER: Final = RegisterReporterKind()
LEAVE_REPORTER: Final = LeaveReporterKind()


def compute_release_ms(tx: Transaction, work: Work) -> int:
    """Until when the bond waits: this may be dated before, and a report after, the block's time."""
    parameters = work.parameters
    latest_ms = work.compute_time_ms(tx) + parameters.timestamp_age_ms_max + parameters.clock_drift_ms_max
    return latest_ms + parameters.report_contest_ms + parameters.dispute_vote_ms
