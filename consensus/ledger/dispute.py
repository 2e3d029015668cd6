"""Dispute: the accused's side contradicts the reports of a transfer, and validators vote who is right.

The receiver or the sender of a reported transfer disputes it with a deposit. The running epoch's validators
vote, by stake, until `dispute_vote_ms` are over. More than half of all stake for "false": the reports count no
more, every reporter of it is struck off and its bond burned, the deposit goes back. More than half for
"fraud": the reports are upheld and the deposit is burned. Neither: nothing happens; the disputer may
reclaim the deposit and try again.

Invariant: no outcome pays anybody, so that neither bait nor verdict is worth buying: bonds and lost deposits
are burned. A filing is found false only while it can be contested. One dispute of a transfer at a time,
OPEN_MAX of an account; a record of it is (disputer, opened, deposit), a vote's is (opened, verdict).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from consensus import codec
from consensus.codec import TIME_MS_MAX
from consensus.errors import NotYet, Rejected
from consensus.ledger import cases, epochs, reporters, staking, supply
from consensus.ledger import records as rec
from consensus.ledger.kind import UsualKind
from consensus.ledger.records import Records
from consensus.parameters import Parameters
from consensus.transaction import (
    KIND_DISPUTE_REPORT,
    KIND_LEAVE_REPORTER,
    KIND_RECLAIM_DEPOSIT,
    KIND_VOTE_REPORT,
    PAYLOAD_BYTES_MAX,
    Transaction,
)

if TYPE_CHECKING:
    from consensus.ledger.work import Work

NAMESPACE: Final = rec.get_kind_namespace(KIND_DISPUTE_REPORT)  # day | transfer
NAMESPACE_VOTE: Final = rec.get_kind_namespace(KIND_VOTE_REPORT)  # day | transfer | operator
NAMESPACE_OPEN: Final = rec.get_kind_namespace(KIND_LEAVE_REPORTER)  # disputer: how many are open
OPEN_MAX: Final = 16  # of one account: what validators are asked to look at for one deposit's owner
DISPUTE_BYTES: Final = 128  # of records, as `account_byte_fee_units` charges for them
FRAUD: Final = 0
MISTAKE: Final = 1
VERDICT_NAMES: Final = ("fraud", "false")


@dataclass(frozen=True, slots=True)
class Dispute:
    """opened_ms: when it was made (`Work.compute_time_ms`); from then the vote's time runs."""

    disputer: bytes
    opened_ms: int
    deposit_units: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Stake of the running set for either verdict, and all of it."""

    fraud_units: int
    false_units: int
    total_units: int

    @property
    def is_false(self) -> bool:
        return 2 * self.false_units > self.total_units

    @property
    def is_upheld(self) -> bool:
        return 2 * self.fraud_units > self.total_units


# --- records ------------------------------------------------------------------------------------------------


def find_dispute(records: Records, case_key: bytes) -> Dispute | None:
    value = records.get(NAMESPACE + case_key[1:])
    return None if value is None else _decode(value)


def walk_disputes(records: Records) -> Iterator[tuple[bytes, Dispute]]:
    """(case's key, dispute) of all that hold a deposit. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(NAMESPACE):
        yield cases.NAMESPACE + key[1:], _decode(value)


def _decode(value: bytes) -> Dispute:
    return Dispute(*codec.decode_flat(value, what="dispute", bytes_max=64, count=3))


def _open(records: Records, case_key: bytes, dispute: Dispute) -> Records:
    value = codec.encode((dispute.disputer, dispute.opened_ms, dispute.deposit_units))
    records = records.put(NAMESPACE + case_key[1:], value)
    return _count_open(records, dispute.disputer, 1)


def _remove(records: Records, case_key: bytes, dispute: Dispute) -> Records:
    return _count_open(records.remove(NAMESPACE + case_key[1:]), dispute.disputer, -1)


def get_open(records: Records, address: bytes) -> int:
    """How many disputes of this account are open, up to OPEN_MAX."""
    value = records.get(NAMESPACE_OPEN + address)
    return 0 if value is None else value[0]


def _count_open(records: Records, address: bytes, step: int) -> Records:
    count = get_open(records, address) + step
    key = NAMESPACE_OPEN + address
    return records.put(key, bytes((count,))) if count else records.remove(key)


def compute_tally(records: Records, case_key: bytes, dispute: Dispute, epoch: int) -> Tally:
    """Who has voted, by the stake of the set of `epoch`: a seat counts once, with what it has now."""
    prefix = NAMESPACE_VOTE + case_key[1:]
    verdicts: dict[bytes, int] = {}
    for key, value in records.walk(prefix):
        if int.from_bytes(value[:8], "big") == dispute.opened_ms:
            verdicts[key[len(prefix) :]] = value[8]
    epoch_set = epochs.get_set(records, epoch)
    units = [0, 0]
    for operator, validator in zip(epoch_set.operators, epoch_set.validators.validators, strict=True):
        if operator in verdicts:
            units[verdicts[operator]] += validator.stake
    return Tally(units[FRAUD], units[MISTAKE], epoch_set.validators.total)


def check_undisputed(work: Work, case_key: bytes) -> None:
    """Raises Rejected while validators vote about a transfer."""
    dispute = find_dispute(work.records, case_key)
    if dispute is not None and work.timestamp_ms <= dispute.opened_ms + work.parameters.dispute_vote_ms:
        raise Rejected(
            "the reports of it are disputed",
            field="payload.reported",
            mend="wait for the vote",
            code="report_disputed",
        )


# --- dispute ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DisputeReportKind(UsualKind):
    """The deposit, to the receiver of the reported transfer, by it or by the transfer's sender."""

    number: int = KIND_DISPUTE_REPORT
    name: str = "dispute_report"

    def check_form(self, tx: Transaction) -> None:
        reported = cases.decode_about(tx.payload)
        cases.check_receiver(tx, reported)
        if tx.sender not in (reported.sender, reported.receiver):
            raise Rejected(
                "is neither sender nor receiver of the reported transaction",
                field="sender",
                mend="let the accused dispute",
                code="dispute_sender",
            )

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        return (cases.decode_about(tx.payload).sender,)

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:  # noqa: ARG002
        return TIME_MS_MAX  # the case's, see `apply`

    def check(self, tx: Transaction, work: Work) -> None:
        parameters = work.parameters
        key, case = cases.check_case(work, cases.decode_about(tx.payload))
        if case.finding != cases.UNSETTLED:
            raise Rejected("was voted on before", field="payload.reported", code="report_settled")
        if not case.standing:
            raise Rejected("no report of it stands", field="payload.reported", code="report_unknown")
        if work.timestamp_ms > case.newest_ms + parameters.report_contest_ms:
            raise Rejected(
                f"the newest report of it is older than {parameters.report_contest_ms} ms",
                field="payload.reported",
                code="report_contest",
            )
        if find_dispute(work.records, key) is not None:
            raise Rejected(
                "is disputed already",
                field="payload.reported",
                mend="wait for the vote; after it, let who disputed reclaim the deposit",
                code="report_disputed",
            )
        if get_open(work.records, tx.sender) >= OPEN_MAX:
            raise Rejected(
                f"has {OPEN_MAX} disputes open",
                field="sender",
                mend="wait for a vote, or reclaim a deposit",
                code="dispute_open",
            )
        if tx.amount != parameters.dispute_deposit_units:
            raise Rejected(
                f"{tx.amount}, the deposit is {parameters.dispute_deposit_units}",
                field="amount",
                mend=f"use {parameters.dispute_deposit_units}",
                code="dispute_deposit",
            )
        staking.check_fee(tx, parameters, DISPUTE_BYTES)

    def apply(self, tx: Transaction, work: Work) -> None:
        key, case = cases.check_case(work, cases.decode_about(tx.payload))
        work.deadline_ms = min(work.deadline_ms, case.newest_ms + work.parameters.report_contest_ms)
        work.balance[work.index[tx.receiver]] -= tx.amount
        opened_ms = work.compute_time_ms(tx)
        work.records = _open(work.records, key, Dispute(tx.sender, opened_ms, tx.amount))

    def close(self, work: Work) -> None:
        for _, value in cases.take_expired(work, NAMESPACE):
            dispute = _decode(value)  # nobody came for the deposit in all that time
            work.records = _count_open(work.records, dispute.disputer, -1)
            work.records = supply.burn(work.records, dispute.deposit_units)


# --- vote ---------------------------------------------------------------------------------------------------


def encode_vote(reported: Transaction, verdict: int) -> bytes:
    """The payload of a vote: FRAUD or MISTAKE."""
    return codec.encode((reported.raw, verdict))


def decode_vote(payload: bytes) -> tuple[Transaction, int]:
    """(the reported transfer, the verdict). Raises Rejected."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, count=2)
    return cases.decode_reported(fields[0]), codec.check_int(fields[1], "payload.verdict", high=MISTAKE)


@dataclass(frozen=True, slots=True)
class VoteReportKind(UsualKind):
    """Amount 0, to the receiver of the reported transfer, by the operator of a validator of this epoch."""

    number: int = KIND_VOTE_REPORT
    name: str = "vote_report"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        cases.check_receiver(tx, decode_vote(tx.payload)[0])

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        return (decode_vote(tx.payload)[0].sender,)

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:  # noqa: ARG002
        return TIME_MS_MAX  # the dispute's, see `apply`

    def check(self, tx: Transaction, work: Work) -> None:
        key, case = cases.check_case(work, decode_vote(tx.payload)[0])
        dispute = find_dispute(work.records, key)
        if dispute is None:
            raise Rejected("is not disputed", field="payload.reported", code="vote_nothing")
        end_ms = dispute.opened_ms + work.parameters.dispute_vote_ms
        if work.timestamp_ms > end_ms:
            raise Rejected(f"the vote ended at {end_ms} ms", field="payload.reported", code="vote_over")
        if not epochs.get_set(work.records, work.epoch).get_stake(tx.sender):
            raise Rejected(
                f"0x{tx.sender.hex()} operates no validator of epoch {work.epoch}",
                field="sender",
                mend="use a validator's key",
                code="vote_sender",
            )
        vote = work.records.get(NAMESPACE_VOTE + key[1:] + tx.sender)
        if vote is not None and int.from_bytes(vote[:8], "big") == dispute.opened_ms:
            raise Rejected("voted before", field="sender", code="vote_twice")
        if cases.is_just_told(work, case):
            raise NotYet(
                "the modules are told of it in this block",
                field="payload.reported",
                mend="try again in the next block",
                code="report_same_block",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        reported, verdict = decode_vote(tx.payload)
        key, case = cases.check_case(work, reported)
        dispute = find_dispute(work.records, key)
        assert dispute is not None
        work.deadline_ms = min(work.deadline_ms, dispute.opened_ms + work.parameters.dispute_vote_ms)
        value = dispute.opened_ms.to_bytes(8, "big") + bytes((verdict,))
        work.records = work.records.put(NAMESPACE_VOTE + key[1:] + tx.sender, value)
        tally = compute_tally(work.records, key, dispute, work.epoch)
        if tally.is_upheld:
            work.records = supply.burn(_remove(work.records, key, dispute), dispute.deposit_units)
            work.cases[key] = replace(case, finding=cases.UPHELD)
        elif tally.is_false:
            work.records = _remove(work.records, key, dispute)
            work.balance[work.index[dispute.disputer]] += dispute.deposit_units
            _strike_reporters(work, key, dispute)
            cases.apply_standing(work, key, replace(case, finding=cases.FALSE), reported, tx.id)

    def close(self, work: Work) -> None:
        cases.take_expired(work, NAMESPACE_VOTE)


def _strike_reporters(work: Work, case_key: bytes, dispute: Dispute) -> None:
    contestable_ms = dispute.opened_ms - work.parameters.report_contest_ms
    for filing in tuple(cases.walk_filings(work.records, case_key, cases.STANDING)):
        if filing.filed_ms >= contestable_ms:
            work.records = reporters.strike(work.records, filing.reporter)


# --- reclaim ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReclaimDepositKind(UsualKind):
    """Amount 0, to the receiver of the reported transfer, by who disputed: no majority came in time."""

    number: int = KIND_RECLAIM_DEPOSIT
    name: str = "reclaim_deposit"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        cases.check_receiver(tx, cases.decode_about(tx.payload))

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        return (cases.decode_about(tx.payload).sender,)

    def check(self, tx: Transaction, work: Work) -> None:
        key, _ = cases.check_case(work, cases.decode_about(tx.payload))
        dispute = find_dispute(work.records, key)
        if dispute is None or dispute.disputer != tx.sender:
            raise Rejected(
                f"holds no deposit of 0x{tx.sender.hex()}",
                field="payload.reported",
                mend="name a transaction that this account disputed",
                code="reclaim_nothing",
            )
        end_ms = dispute.opened_ms + work.parameters.dispute_vote_ms
        if work.timestamp_ms <= end_ms:
            raise NotYet(
                f"the vote goes on until {end_ms} ms",
                field="payload.reported",
                mend="try again then",
                code="reclaim_early",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        key, _ = cases.check_case(work, cases.decode_about(tx.payload))
        dispute = find_dispute(work.records, key)
        assert dispute is not None
        work.records = _remove(work.records, key, dispute)
        work.balance[work.index[tx.sender]] += dispute.deposit_units

    def close(self, work: Work) -> None:
        cases.forget_pairs(work)


DISPUTE_REPORT: Final = DisputeReportKind()
VOTE_REPORT: Final = VoteReportKind()
RECLAIM_DEPOSIT: Final = ReclaimDepositKind()
