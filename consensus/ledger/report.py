"""Report: one who may report says that a final transfer was fraud.

Applying a block is pure, so a report proves what it speaks of: it carries the transfer and two RFC 6962
proofs, transfer (with its score and outcome) in its block's transactions root, and block in the
*history root* of a recent block, the anchor; the state keeps the last ANCHORS_MAX history roots.

Invariant: a transfer is reported at most once. Its record lives under the day on which it can no
longer be reported, so that expiry takes the front of the namespace, a bounded number per block.
A record: namespace | last day + 1 (4 bytes) | transaction id -> reporter (20) | height (8).
Leaves out: withdrawing a report; which of two reporters is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from consensus import codec, merkle
from consensus.block import Block, Header, compute_leaf, decode_header
from consensus.errors import NotYet, Rejected
from consensus.genesis import DAY_MS, Parameters
from consensus.ledger import records as rec
from consensus.ledger import scoring
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
EXPIRED_PER_BLOCK_MAX: Final = 256  # some 5 ms of a block; a day's reports are gone within minutes
PROOF_HASHES_MAX: Final = 63  # the depth of a tree of 2^63 leaves
NAMESPACE: Final = rec.get_kind_namespace(KIND_REPORT)
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


@dataclass(frozen=True, slots=True)
class Reported:
    """A row of `scoring.ReportColumns`; sender and receiver are local indices of the block's work.

    `source` is the id of the report itself.
    """

    sender: int
    receiver: int
    amount: int
    timestamp_ms: int
    score: int
    source: bytes


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
class ReportKind:
    """Amount 0, to the receiver of the reported transfer, by an account that may report."""

    number: int = KIND_REPORT
    name: str = "report"
    is_scored: bool = False

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
        if work.records.get(rec.NAMESPACE_REPORTER + tx.sender) is None:
            raise Rejected(
                f"0x{tx.sender.hex()} may not report",
                field="sender",
                mend="use a reporter's key",
                code="report_sender",
            )
        if work.timestamp_ms > self.get_deadline_ms(tx, work.parameters):
            raise Rejected(
                f"the transaction is older than {work.parameters.report_window_ms} ms",
                field="payload.reported",
                code="report_window",
            )
        if work.records.get(_get_key(reported, work.parameters)) is not None:
            raise Rejected("was reported before", field="payload.reported", code="report_twice")
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

    def apply(self, tx: Transaction, work: Work) -> None:
        payload = decode_payload(tx.payload)
        reported = payload.reported
        value = tx.sender + (work.parent.height + 1).to_bytes(8, "big")
        work.records = work.records.put(_get_key(reported, work.parameters), value)
        work.reports.append(
            Reported(
                work.index[reported.sender],
                work.index[reported.receiver],
                reported.amount,
                reported.timestamp_ms,
                payload.score,
                tx.id,
            )
        )

    def close(self, work: Work) -> None:
        today = work.timestamp_ms // DAY_MS
        for key, _ in tuple(islice(work.records.walk(NAMESPACE), EXPIRED_PER_BLOCK_MAX)):
            if int.from_bytes(key[1:5], "big") > today:
                break
            work.records = work.records.remove(key)


REPORT: Final = ReportKind()


def _get_key(reported: Transaction, parameters: Parameters) -> bytes:
    # From this day on the window is over at every moment, so nothing is asked for after it is gone.
    # Both times are below 2^48 ms: days fit four bytes.
    day = (reported.timestamp_ms + parameters.report_window_ms) // DAY_MS + 1
    return NAMESPACE + day.to_bytes(4, "big") + reported.id
