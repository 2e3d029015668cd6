"""Retraction: a reporter takes its report back. The modules forget it as far as they still can.

Payload: the reported transfer; what it carries of sender, receiver, amount and time is proven by its id, which
the record is kept under. Not while a vote is open: a lie that was found out is not taken back.

Invariant: afterwards the rows are as if the report had not come (ml/rings.py says where they cannot be); a
reporter reports a transfer once, taken back or not.
Leaves out: what scores were given meanwhile; a block's verdicts are final.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from consensus.codec import TIME_MS_MAX
from consensus.errors import NotYet, Rejected
from consensus.ledger import cases, dispute, staking
from consensus.ledger.kind import UsualKind
from consensus.parameters import Parameters
from consensus.transaction import KIND_WITHDRAW_REPORT, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


@dataclass(frozen=True, slots=True)
class WithdrawReportKind(UsualKind):
    """Amount 0, to the receiver of the reported transfer, by the reporter."""

    number: int = KIND_WITHDRAW_REPORT
    name: str = "withdraw_report"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        cases.check_receiver(tx, cases.decode_about(tx.payload))

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        return (cases.decode_about(tx.payload).sender,)

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:  # noqa: ARG002
        return TIME_MS_MAX  # the filing's, see `apply`

    def check(self, tx: Transaction, work: Work) -> None:
        reported = cases.decode_about(tx.payload)
        key, case = cases.check_case(work, reported)
        filing = cases.find_filing(work.records, key, cases.STANDING, tx.sender)
        if filing is None:
            raise Rejected(
                f"0x{tx.sender.hex()} has no report of it that stands",
                field="sender",
                mend="use the reporter's key",
                code="report_not_yours",
            )
        contest_ms = work.parameters.report_contest_ms
        if work.timestamp_ms > filing.filed_ms + contest_ms:
            raise Rejected(
                f"the report is older than {contest_ms} ms", field="payload.reported", code="report_contest"
            )
        if case.finding == cases.FALSE:
            raise Rejected(
                "the reports of it were found false", field="payload.reported", code="report_settled"
            )
        dispute.check_undisputed(work, key)
        if cases.is_just_told(work, case):
            raise NotYet(
                "the modules are told of it in this block",
                field="payload.reported",
                mend="try again in the next block",
                code="report_same_block",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        reported = cases.decode_about(tx.payload)
        key, case = cases.check_case(work, reported)
        filing = cases.find_filing(work.records, key, cases.STANDING, tx.sender)
        assert filing is not None
        work.deadline_ms = min(work.deadline_ms, filing.filed_ms + work.parameters.report_contest_ms)
        work.records = cases.withdraw_filing(work.records, key, filing)
        cases.apply_standing(work, key, replace(case, standing=case.standing - 1), reported, tx.id)

    def close(self, work: Work) -> None:
        cases.take_expired(work, cases.NAMESPACE_FILING)


WITHDRAW_REPORT: Final = WithdrawReportKind()
