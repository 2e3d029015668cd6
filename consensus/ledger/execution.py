"""Executing a block: what it changes in its parent's view, and the header that follows from it.

Building (building.py) and checking run the same steps: envelopes in block order (work.py), the modules on
the whole block (judging.py), then fees, upkeep, rows, tree and roots in arrays. A tail, past its epoch's
boundary, runs none of them: it has its parent's state and changes nothing.

Invariant: no step changes the view, whatever it raises. Signatures of transactions and certificates are the
caller's (`Rules.check_signatures`, `vote.check_certificate`): they need no state and are slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from consensus import block as blk
from consensus import merkle, vote
from consensus.block import Block, Header
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import epochs, judging
from consensus.ledger.block_checks import (
    check_header,
    check_verdicts,
    name_transaction,
)
from consensus.ledger.cases import write_cases
from consensus.ledger.columns import build_memos, build_report_columns, build_transfer_columns
from consensus.ledger.judging import Judgment, Panel
from consensus.ledger.state import ROW_FIXED_BYTES, Delta, View, compute_state_root
from consensus.ledger.work import Work
from consensus.refusal import EMPTY_LOG, LogHead, get_head
from consensus.transaction import Transaction

if TYPE_CHECKING:
    from consensus.ledger.rules import Rules


def check_block(rules: Rules, view: View, block: Block, now_ms: int | None) -> Delta:
    """What `block` changes in its parent's `view`.

    Raises Rejected naming the first difference, NotYet when its time is ahead of `now_ms` (the local
    clock; None skips that), Fault when this node cannot make the modules that judge it.
    """
    panel = rules.find_panel(view)
    header = block.header
    check_header(rules, view, block, now_ms)
    head = get_head(header)
    free = FreeFields(header.epoch, header.view, header.proposer, header.timestamp_ms, header.reveal, head)
    if epochs.is_tail(header, view.header, rules.parameters.epoch_blocks):
        expected, delta = seal_tail(rules, view, free, block.parent_certificate)
        _check_roots(header, expected)
        return delta
    for place, tx in enumerate(block.transactions):
        try:
            rules.check_form(tx)
        except Rejected as error:
            raise name_transaction(place, tx, error) from None
    proposer = epochs.get_set(view.records, header.epoch).get_operator(header.proposer)
    assert proposer is not None  # check_header saw it
    work = Work(
        view,
        rules.parameters,
        header.timestamp_ms,
        block.transactions,
        chain_id=rules.chain_id,
        proposer=proposer,
        shelf=rules.shelf,
    )
    for place, tx in enumerate(block.transactions):
        try:
            work.apply(tx)
        except (Rejected, NotYet) as error:
            # The block's time and parent are fixed: what is not yet valid in it never is.
            raise name_transaction(place, tx, error) from None
    judgment = judge_transactions(rules, panel, work, block.transactions, is_strict=True)
    scores, outcomes = list_verdicts(rules, block.transactions, judgment)
    check_verdicts(block, scores, outcomes)
    root = block.compute_transactions_root()  # its scores and outcomes are the recomputed ones by now
    count = len(block.transactions)
    expected, delta = seal(rules, panel, view, work, judgment, count, root, free, block.parent_certificate)
    _check_roots(header, expected)
    return delta


def _check_roots(header: Header, expected: Header) -> None:
    for name in ("transactions_root", "state_root", "history_root", "certificate_digest"):
        told, recomputed = getattr(header, name), getattr(expected, name)
        if told != recomputed:
            raise Rejected(
                f"block {header.height} says 0x{told.hex()}, recomputed 0x{recomputed.hex()}",
                field=f"header.{name}",
                code=name,
            )
    if expected.hash != header.hash:
        raise Fault("a header field escaped the check", field="block")


@dataclass(frozen=True, slots=True)
class FreeFields:
    """What a proposer chooses; all else in a header follows."""

    epoch: int
    view: int
    proposer: bytes
    timestamp_ms: int
    reveal: bytes = b""
    refusals: LogHead = EMPTY_LOG


def judge_transactions(
    rules: Rules, panel: Panel, work: Work, transactions: Sequence[Transaction], *, is_strict: bool
) -> Judgment:
    scored = [tx for tx in transactions if rules.is_scored(tx)]
    transfers = build_transfer_columns(scored, work.index)
    reports = build_report_columns(work.reports)
    rows = work.rows[:, ROW_FIXED_BYTES:]
    return judging.judge(
        panel, transfers, reports, rows, is_strict=is_strict, memos=build_memos(work.reports, panel)
    )


def list_verdicts(
    rules: Rules, transactions: Sequence[Transaction], judgment: Judgment
) -> tuple[tuple[int, ...], bytes]:
    """Scores and outcomes of a block, one per transaction; 0 and ACCEPT for what is not scored."""
    places = [place for place, tx in enumerate(transactions) if rules.is_scored(tx)]
    if len(places) == len(transactions):
        return tuple(judgment.score.tolist()), judgment.outcome.tobytes()
    score = np.zeros(len(transactions), dtype=np.int64)
    outcome = np.zeros(len(transactions), dtype=np.uint8)
    score[places], outcome[places] = judgment.score, judgment.outcome
    return tuple(score.tolist()), outcome.tobytes()


def seal(
    rules: Rules,
    panel: Panel,
    view: View,
    work: Work,
    judgment: Judgment,
    transaction_count: int,
    transactions_root: bytes,
    free: FreeFields,
    certificate: vote.Certificate | None,
) -> tuple[Header, Delta]:
    """The header that follows from an executed block, and its delta."""
    parent = view.header
    history = view.history.append(merkle.hash_leaf(parent.hash))
    history_root = history.root
    epoch_set = epochs.get_set(view.records, free.epoch)
    next_set = epochs.get_next_set(view.records, free.epoch, rules.parameters.epoch_blocks)
    seats = [(seat.place.start, seat.generation) for seat in panel.seats]
    write_cases(work, judgment.memos, seats)
    work.close(history_root, epoch_set.index_by_key[free.proposer], certificate, free.reveal)
    slots, rows = work.compute_rows(judgment.local, judgment.rows)
    tree = view.compute_tree_update(slots, rows)
    account_count = view.account_count + len(work.created)
    header = Header(
        epoch=free.epoch,
        view=free.view,
        height=work.height,
        parent_view=parent.view if parent.epoch == free.epoch else blk.GENESIS_VIEW,
        parent_hash=parent.hash,
        proposer=free.proposer,
        timestamp_ms=free.timestamp_ms,
        transaction_count=transaction_count,
        transactions_root=transactions_root,
        state_root=compute_state_root(
            account_count, tree.root, work.records.root, history.size, history_root
        ),
        history_root=history_root,
        modules_digest=panel.digest,
        validators_digest=epoch_set.validators.digest,
        next_validators_digest=next_set.validators.digest,
        certificate_digest=blk.compute_certificate_digest(certificate),
        reveal=free.reveal,
        refusal_count=free.refusals.count,
        refusal_root=free.refusals.root,
    )
    return header, Delta(header, slots, rows, work.created, account_count, tree, work.records, history)


def seal_tail(
    rules: Rules, view: View, free: FreeFields, certificate: vote.Certificate | None
) -> tuple[Header, Delta]:
    """The header of a tail after `view`, and a delta that changes nothing."""
    parent = view.header
    next_set = epochs.get_next_set(view.records, free.epoch, rules.parameters.epoch_blocks)
    header = Header(
        epoch=free.epoch,
        view=free.view,
        height=parent.height,
        parent_view=parent.view,
        parent_hash=parent.hash,
        proposer=free.proposer,
        timestamp_ms=parent.timestamp_ms,
        transaction_count=0,
        transactions_root=merkle.EMPTY_ROOT,
        state_root=parent.state_root,
        history_root=parent.history_root,
        modules_digest=rules.find_panel(view).digest,
        validators_digest=epochs.get_set(view.records, free.epoch).validators.digest,
        next_validators_digest=next_set.validators.digest,
        certificate_digest=blk.compute_certificate_digest(certificate),
        reveal=epochs.compute_tail_mark(view),
    )
    slots = np.zeros(0, dtype=np.int64)
    rows = np.zeros((0, view.row_bytes), dtype=np.uint8)
    tree = view.compute_tree_update(slots, rows)
    return header, Delta(
        header, slots, rows, {}, view.account_count, tree, view.records, view.history, is_tail=True
    )
