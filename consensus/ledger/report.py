"""Report: one who may report says that a final transfer was fraud.

Applying a block is pure, so a report proves what it speaks of: it carries the transfer and two RFC 6962
proofs, transfer (with its score and outcome) in its block's transactions root, and block in the
*history root* of a recent block, the anchor; the state keeps the last ANCHORS_MAX history roots.

Invariant: a reporter reports a transfer at most once, and nobody one whose reports were found false. What is
on record of it, and when the modules are told, is in cases.py.
Leaves out: taking a report back (retraction.py); who is right (dispute.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from consensus import codec, merkle
from consensus.block import Block, Header, compute_leaf, decode_header
from consensus.errors import NotYet, Rejected
from consensus.ledger import cases, dispute, reporters, scoring
from consensus.ledger.cases import Case, Filing
from consensus.ledger.kind import UsualKind
from consensus.parameters import Parameters
from consensus.transaction import (
    KIND_REPORT,
    KIND_TRANSFER,
    PAYLOAD_BYTES_MAX,
    Transaction,
    decode_transaction,
)

if TYPE_CHECKING:
    from consensus.ledger.work import Work

ANCHORS_MAX: Final = 1024  # a quarter of an hour at a block a second: time for a report to arrive
PROOF_HASHES_MAX: Final = 63  # the depth of a tree of 2^63 leaves
_PAYLOADS_KEPT: Final = 1024  # a payload is read by mempool, proposer and judge


@dataclass(frozen=True, slots=True)
class ReportPayload:
    """What a report carries. `index` is the transfer's place in its block, `header` that block's;
    `history_proof` leads from it to the history root in the header of block `anchor_height`."""

    reported: Transaction
    score: int
    outcome: int
    index: int
    header: Header
    inclusion_proof: tuple[bytes, ...]
    anchor_height: int
    history_proof: tuple[bytes, ...]


def build_report_payload(
    block: Block, index: int, anchor_height: int, history_proof: Sequence[bytes]
) -> bytes:
    """The payload that reports `block.transactions[index]`.

    history_proof: inclusion of block.hash at block.header.height in the tree over the hashes of blocks
    0..anchor_height-1 (`HashTree.prove_inclusion(height, anchor_height)`); anchor_height is that of a
    recent block above it.
    """
    leaves = [
        compute_leaf(tx.id, score, outcome)
        for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True)
    ]
    return encode_payload(
        ReportPayload(
            block.transactions[index],
            block.scores[index],
            block.outcomes[index],
            index,
            block.header,
            merkle.prove_inclusion(leaves, index),
            anchor_height,
            tuple(history_proof),
        )
    )


def encode_payload(payload: ReportPayload) -> bytes:
    return codec.encode(
        (
            payload.reported.raw,
            payload.score,
            payload.outcome,
            payload.index,
            payload.header.raw,
            payload.inclusion_proof,
            payload.anchor_height,
            payload.history_proof,
        )
    )


@lru_cache(maxsize=_PAYLOADS_KEPT)
def decode_payload(data: bytes) -> ReportPayload:
    """The report that a payload holds; its transfer is proven to be in its header's block. Rejected."""
    value = codec.decode(
        data, what="payload", bytes_max=PAYLOAD_BYTES_MAX, items_max=2 * PROOF_HASHES_MAX + 16
    )
    raw, score, outcome, index, header_raw, inclusion, anchor_height, history = codec.check_fields(
        value, 8, "payload"
    )
    reported = decode_transaction(codec.check_bytes(raw, "payload.reported", length_max=PAYLOAD_BYTES_MAX))
    if reported.kind != KIND_TRANSFER:
        raise Rejected("only a transfer can be reported", field="payload.reported", code="report_kind")
    header = decode_header(codec.check_bytes(header_raw, "payload.header", length_max=PAYLOAD_BYTES_MAX))
    payload = ReportPayload(
        reported,
        codec.check_int(score, "payload.score", high=scoring.SCORE_MAX),
        codec.check_int(outcome, "payload.outcome", high=scoring.FLAG),
        codec.check_int(index, "payload.index"),
        header,
        _check_proof(inclusion, "payload.inclusion_proof"),
        codec.check_int(anchor_height, "payload.anchor_height"),
        _check_proof(history, "payload.history_proof"),
    )
    leaf = merkle.hash_leaf(compute_leaf(reported.id, payload.score, payload.outcome))
    if not merkle.verify_inclusion(
        leaf, payload.index, header.transaction_count, payload.inclusion_proof, header.transactions_root
    ):
        raise Rejected(
            "does not show the transaction in the block",
            field="payload.inclusion_proof",
            mend="prove id, score and outcome at its index of the header's transactions root",
            code="report_proof",
        )
    return payload


def _check_proof(value: object, what: str) -> tuple[bytes, ...]:
    if type(value) is not tuple or len(value) > PROOF_HASHES_MAX:
        raise Rejected(f"must be an array of at most {PROOF_HASHES_MAX} hashes", field=what, code="encoding")
    return tuple(codec.check_bytes(node, what, length=merkle.HASH_BYTES) for node in value)


@dataclass(frozen=True, slots=True)
class ReportKind(UsualKind):
    """Amount 0, to the receiver of the reported transfer, by an account that may report."""

    number: int = KIND_REPORT
    name: str = "report"

    def check_form(self, tx: Transaction) -> None:
        payload = decode_payload(tx.payload)
        if tx.amount != 0:
            raise Rejected(
                f"{tx.amount}, a report moves no money", field="amount", mend="use 0", code="range"
            )
        if tx.receiver != payload.reported.receiver:
            raise Rejected(
                "is not the receiver of the reported transaction",
                field="receiver",
                mend=f"use 0x{payload.reported.receiver.hex()}",
                code="report_receiver",
            )

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        return (decode_payload(tx.payload).reported.sender,)

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:
        return decode_payload(tx.payload).reported.timestamp_ms + parameters.report_window_ms

    def check(self, tx: Transaction, work: Work) -> None:
        payload = decode_payload(tx.payload)
        reported, header = payload.reported, payload.header
        reporters.check_reporter(work, tx.sender)
        if work.timestamp_ms > self.get_deadline_ms(tx, work.parameters):
            raise Rejected(
                f"the transaction is older than {work.parameters.report_window_ms} ms",
                field="payload.reported",
                code="report_window",
            )
        self._check_case(tx, reported, work)
        if payload.anchor_height > work.parent.height:
            raise NotYet(
                f"block {payload.anchor_height} is not there yet",
                field="payload.anchor_height",
                code="report_anchor",
            )
        root = work.get_history_root(payload.anchor_height)
        if root is None:
            raise Rejected(
                f"block {payload.anchor_height} is not among the last {ANCHORS_MAX}",
                field="payload.anchor_height",
                mend="prove the block against a recent one",
                code="report_anchor",
            )
        leaf = merkle.hash_leaf(header.hash)
        if not merkle.verify_inclusion(
            leaf, header.height, payload.anchor_height, payload.history_proof, root
        ):
            raise Rejected(
                "does not show the block in this chain", field="payload.history_proof", code="report_proof"
            )
        for address, what in ((reported.sender, "sender"), (reported.receiver, "receiver")):
            if not work.is_existing(address):
                raise Rejected(f"its {what} does not exist", field="payload.reported", code="report_proof")

    def _check_case(self, tx: Transaction, reported: Transaction, work: Work) -> None:
        key = cases.get_key(reported, work.parameters)
        case = cases.find_case(work, key)
        if case is None:
            return
        if case.finding == cases.FALSE:
            raise Rejected(
                "the reports of it were found false", field="payload.reported", code="report_settled"
            )
        if cases.find_filing(work.records, key, cases.STANDING, tx.sender) is not None:
            raise Rejected("was reported before by it", field="payload.reported", code="report_twice")
        if cases.find_filing(work.records, key, cases.WITHDRAWN, tx.sender) is not None:
            raise Rejected(
                "was reported before by it, and taken back", field="payload.reported", code="report_twice"
            )
        if case.standing >= cases.STANDING_MAX:
            raise Rejected(
                f"{case.standing} reports of it stand, more say nothing new",
                field="payload.reported",
                code="report_enough",
            )
        dispute.check_undisputed(work, key)

    def apply(self, tx: Transaction, work: Work) -> None:
        payload = decode_payload(tx.payload)
        reported = payload.reported
        key = cases.get_key(reported, work.parameters)
        filed_ms = work.compute_time_ms(tx)
        case = cases.find_case(work, key)
        if case is None:
            case = Case(reported.sender, reported.receiver, payload.score, 1, filed_ms)
        else:
            case = replace(case, standing=case.standing + 1, newest_ms=max(case.newest_ms, filed_ms))
        filing = Filing(tx.sender, cases.STANDING, filed_ms, work.height)
        work.records = cases.put_filing(work.records, key, filing)
        cases.apply_standing(work, key, case, reported, tx.id)

    def close(self, work: Work) -> None:
        cases.take_expired(work, cases.NAMESPACE)


REPORT: Final = ReportKind()
