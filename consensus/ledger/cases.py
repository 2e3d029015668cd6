"""Cases: what is on record about reported transfers, and when the modules are told.

A case is a reported transfer; a filing is one reporter's report of it. The modules are told of a case when
`reports_min` filings stand, and told again, as withdrawn, when fewer do; what they noted is kept here and
given back. All but the first for a (sender, receiver) in each `report_pair_ms` of transfer time are repeated.

Invariant: a case is told at most once until it is withdrawn, never both in one block. Every record lives under
the day from which nobody can ask for it any more: what expires stands in front, a bounded number goes a block.
Keys: namespace | day (4 bytes) | transaction id, and for a filing | 0 standing, 1 withdrawn | reporter.
Leaves out: who may report (reporters.py), disputes' own records (dispute.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from consensus import codec
from consensus.errors import Rejected
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.parameters import DAY_MS, Parameters
from consensus.transaction import (
    KIND_RECLAIM_DEPOSIT,
    KIND_REPORT,
    KIND_TRANSFER,
    KIND_WITHDRAW_REPORT,
    PAYLOAD_BYTES_MAX,
    Transaction,
    decode_transaction,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consensus.ledger.work import Work

EXPIRED_PER_BLOCK_MAX: Final = 256  # of each namespace, some 5 ms of a block; a day's are gone within minutes
STANDING_MAX: Final = 64  # filings of one transfer at a time: a finding touches each; more say nothing new
NAMESPACE: Final = rec.get_kind_namespace(KIND_REPORT)
NAMESPACE_FILING: Final = rec.get_kind_namespace(KIND_WITHDRAW_REPORT)
NAMESPACE_PAIR: Final = rec.get_kind_namespace(KIND_RECLAIM_DEPOSIT)
STANDING: Final = 0
WITHDRAWN: Final = 1

UNSETTLED: Final = 0
UPHELD: Final = 1  # validators found the reports right
FALSE: Final = 2  # and here wrong
FINDING_NAMES: Final = ("none", "upheld", "false")

_CASE_BYTES_MAX: Final = 128
_MEMO_BYTES: Final = 4  # place, generation, what was noted; of eight modules at most
_TRANSFERS_KEPT: Final = 256  # read by mempool, proposer and judge


Memos = Mapping[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Case:
    """A reported transfer. standing: filings that stand; newest_ms: the newest filing's time.

    told_height: the block in which the modules were told, 0 when they do not know of it (or no more).
    memos: what modules noted then, by where their rows lie and of which generation (judging.Seat); what was not
    noted is left out. finding: of a vote about it.
    """

    sender: bytes
    receiver: bytes
    score: int
    standing: int = 0
    newest_ms: int = 0
    told_height: int = 0
    finding: int = UNSETTLED
    memos: Memos = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filing:
    """One reporter's report: when it was made (`Work.compute_time_ms`), and the block it stands in."""

    reporter: bytes
    status: int
    filed_ms: int
    height: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A row of `scoring.ReportColumns`; sender and receiver are local indices of the block's work.

    `source` is the id of the transaction that brought it, `case` the key of its record.
    """

    sender: int
    receiver: int
    amount: int
    timestamp_ms: int
    score: int
    source: bytes
    case: bytes
    is_withdrawn: bool = False
    memos: Memos = field(default_factory=dict)
    is_repeated: bool = False


# --- keys -------------------------------------------------------------------------------------------------


def compute_days(reported: Transaction, parameters: Parameters) -> bytes:
    """The part of a key that says until when a transfer's records are kept, and the transfer: day | id."""
    # The last filing, then the last dispute of it, its vote, and as long again to fetch a deposit. Times
    # are below 2^48 ms: days fit four bytes.
    open_ms = parameters.report_window_ms + parameters.report_contest_ms + 2 * parameters.dispute_vote_ms
    day = (reported.timestamp_ms + open_ms) // DAY_MS + 1
    return day.to_bytes(4, "big") + reported.id


def get_key(reported: Transaction, parameters: Parameters) -> bytes:
    return NAMESPACE + compute_days(reported, parameters)


def _get_pair_key(reported: Transaction, parameters: Parameters) -> bytes:
    period = reported.timestamp_ms // parameters.report_pair_ms
    return NAMESPACE_PAIR + period.to_bytes(8, "big") + reported.sender + reported.receiver


# --- records ------------------------------------------------------------------------------------------------


def find_case(work: Work, key: bytes) -> Case | None:
    """As the block has it so far: cases are written at its end, when the modules have spoken."""
    return work.cases.get(key) or read_case(work.records, key)


def read_case(records: Records, key: bytes) -> Case | None:
    value = records.get(key)
    return None if value is None else _decode_case(value)


def walk_cases(records: Records) -> Iterator[tuple[bytes, Case]]:
    """(key, case), those that expire first in front. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(NAMESPACE):
        yield key, _decode_case(value)


def _encode_case(case: Case) -> bytes:
    numbers = (case.score, case.standing, case.newest_ms, case.told_height, case.finding)
    memos = b"".join(
        place.to_bytes(2, "big") + bytes((generation, memo))
        for (place, generation), memo in sorted(case.memos.items())
    )
    return codec.encode((case.sender, case.receiver, *numbers, memos))


def _decode_case(value: bytes) -> Case:
    fields: tuple[Any, ...] = codec.decode_flat(value, what="case", bytes_max=_CASE_BYTES_MAX, count=8)
    raw: bytes = fields[7]
    starts = range(0, len(raw), _MEMO_BYTES)
    memos = {(int.from_bytes(raw[at : at + 2], "big"), raw[at + 2]): raw[at + 3] for at in starts}
    return replace(Case(*fields), memos=memos)


def _get_filing_key(case_key: bytes, status: int, reporter: bytes) -> bytes:
    return NAMESPACE_FILING + case_key[1:] + bytes((status,)) + reporter


def put_filing(records: Records, case_key: bytes, filing: Filing) -> Records:
    key = _get_filing_key(case_key, filing.status, filing.reporter)
    return records.put(key, filing.filed_ms.to_bytes(8, "big") + filing.height.to_bytes(8, "big"))


def find_filing(records: Records, case_key: bytes, status: int, reporter: bytes) -> Filing | None:
    value = records.get(_get_filing_key(case_key, status, reporter))
    return None if value is None else _decode_filing(reporter, status, value)


def withdraw_filing(records: Records, case_key: bytes, filing: Filing) -> Records:
    records = records.remove(_get_filing_key(case_key, STANDING, filing.reporter))
    return put_filing(records, case_key, replace(filing, status=WITHDRAWN))


def walk_filings(records: Records, case_key: bytes, status: int | None = None) -> Iterator[Filing]:
    """Those of a case, the standing ones (at most STANDING_MAX) first."""
    prefix = NAMESPACE_FILING + case_key[1:] + (b"" if status is None else bytes((status,)))
    at = len(NAMESPACE_FILING + case_key[1:])
    for key, value in records.walk(prefix):
        yield _decode_filing(key[at + 1 :], key[at], value)


def _decode_filing(reporter: bytes, status: int, value: bytes) -> Filing:
    return Filing(reporter, status, int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))


# --- telling the modules ------------------------------------------------------------------------------------


def apply_standing(work: Work, key: bytes, case: Case, reported: Transaction, source: bytes) -> None:
    """Keeps `case`, and tells the modules when enough filings stand, or no longer do."""
    parameters = work.parameters
    is_enough = case.standing >= parameters.reports_min and case.finding != FALSE
    if is_enough and not case.told_height:
        case = replace(case, told_height=work.height)
        is_repeated = not _take_pair(work, reported)
        work.reports.append(_make_row(work, key, case, reported, source, is_repeated=is_repeated))
    elif not is_enough and case.told_height:
        work.reports.append(_make_row(work, key, case, reported, source, is_withdrawn=True))
        case = replace(case, told_height=0, memos={})
        _leave_pair(work, reported)
    work.cases[key] = case


def is_just_told(work: Work, case: Case) -> bool:
    """Whether this block told the modules of it: what they note is not known before its end."""
    return case.told_height == work.height


def _take_pair(work: Work, reported: Transaction) -> bool:
    if not work.parameters.report_pair_ms:
        return True
    key = _get_pair_key(reported, work.parameters)
    if work.records.get(key) is not None:
        return False
    work.records = work.records.put(key, reported.id)
    return True


def _leave_pair(work: Work, reported: Transaction) -> None:
    """The next report of the two is not repeated, if this one was the first."""
    if not work.parameters.report_pair_ms:
        return
    key = _get_pair_key(reported, work.parameters)
    if work.records.get(key) == reported.id:
        work.records = work.records.remove(key)


def _make_row(
    work: Work,
    key: bytes,
    case: Case,
    reported: Transaction,
    source: bytes,
    *,
    is_withdrawn: bool = False,
    is_repeated: bool = False,
) -> Reported:
    return Reported(
        work.index[reported.sender],
        work.index[reported.receiver],
        reported.amount,
        reported.timestamp_ms,
        case.score,
        source,
        key,
        is_withdrawn,
        case.memos,
        is_repeated,
    )


def write_cases(work: Work, memos: NDArray[np.uint8], seats: Sequence[tuple[int, int]]) -> None:
    """At the block's end: its cases, with what the modules noted (uint8[m, seats]) of each report.

    seats: where each module's rows lie (0: it keeps none), and their generation.
    """
    for row, noted in zip(work.reports, memos.tolist(), strict=True):
        if not row.is_withdrawn:
            kept = {seat: memo for seat, memo in zip(seats, noted, strict=True) if memo and seat[0]}
            work.cases[row.case] = replace(work.cases[row.case], memos=kept)
    for key, case in work.cases.items():
        work.records = work.records.put(key, _encode_case(case))


# --- expiry -------------------------------------------------------------------------------------------------


def take_expired(work: Work, namespace: bytes) -> list[tuple[bytes, bytes]]:
    """Removes what nobody can ask for any more from a namespace of keys by day: (key, value), in order."""
    today = work.timestamp_ms // DAY_MS
    expired: list[tuple[bytes, bytes]] = []
    for key, value in islice(work.records.walk(namespace), EXPIRED_PER_BLOCK_MAX):
        if int.from_bytes(key[1:5], "big") > today:
            break
        expired.append((key, value))
    for key, _ in expired:
        work.records = work.records.remove(key)
    return expired


def forget_pairs(work: Work) -> None:
    """The same for pairs: those of a period none of whose transfers can be told of any more."""
    pair_ms = work.parameters.report_pair_ms
    for key, _ in tuple(islice(work.records.walk(NAMESPACE_PAIR), EXPIRED_PER_BLOCK_MAX)):
        period_end_ms = (int.from_bytes(key[1:9], "big") + 1) * pair_ms
        if period_end_ms + work.parameters.report_window_ms >= work.timestamp_ms:
            break
        work.records = work.records.remove(key)


# --- what the kinds read alike ------------------------------------------------------------------------------


@lru_cache(maxsize=_TRANSFERS_KEPT)
def decode_reported(raw: bytes) -> Transaction:
    """The transfer that a withdrawal, dispute or vote is about. Raises Rejected."""
    reported = decode_transaction(codec.check_bytes(raw, "payload.reported", length_max=PAYLOAD_BYTES_MAX))
    if reported.kind != KIND_TRANSFER:
        raise Rejected("only a transfer is ever reported", field="payload.reported", code="report_kind")
    return reported


def encode_about(reported: Transaction) -> bytes:
    """The payload of what is about a reported transfer and says nothing else."""
    return codec.encode((reported.raw,))


def decode_about(payload: bytes) -> Transaction:
    """Raises Rejected."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, count=1)
    return decode_reported(fields[0])


def check_receiver(tx: Transaction, reported: Transaction) -> None:
    """Raises Rejected unless the envelope names the reported transfer's receiver."""
    if tx.receiver != reported.receiver:
        raise Rejected(
            "is not the receiver of the reported transaction",
            field="receiver",
            mend=f"use 0x{reported.receiver.hex()}",
            code="report_receiver",
        )


def check_case(work: Work, reported: Transaction) -> tuple[bytes, Case]:
    """The key and the case of a transfer. Raises Rejected when it was not reported."""
    key = get_key(reported, work.parameters)
    case = find_case(work, key)
    if case is None:
        raise Rejected(
            f"0x{reported.id.hex()} is not reported, or no longer on record",
            field="payload.reported",
            code="report_unknown",
        )
    return key, case
