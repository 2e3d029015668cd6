"""Blocks: building one from candidates, and checking one by executing it again.

Both run the same steps: envelopes in block order (work.py), the modules on the whole block
(judging.py), then fees, upkeep, rows, tree and roots in arrays. A tail, past its epoch's boundary, runs
none of them: it has its parent's state and changes nothing.

Invariant: what `build_block` makes, `check_block` accepts after the same view and with the same delta;
neither changes the view, whatever it raises. Signatures of transactions and certificates are the
caller's (`Rules.check_signatures`, `vote.check_certificate`): they need no state and are slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from consensus import block as blk
from consensus import merkle, vote
from consensus.block import Block, Header
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import beacon, epochs, judging, scoring
from consensus.ledger.block_checks import (
    check_certificate_binding,
    check_header,
    check_jump,
    check_verdicts,
    compute_place,
    name_transaction,
)
from consensus.ledger.cases import Reported, write_cases
from consensus.ledger.judging import Judgment, Panel
from consensus.ledger.kinds import KIND_BY_NUMBER
from consensus.ledger.scoring import ReportColumns, TransferColumns
from consensus.ledger.state import ROW_FIXED_BYTES, Delta, View, compute_state_root
from consensus.ledger.work import Work
from consensus.parameters import CLOCK_WORKLOAD
from consensus.refusal import EMPTY_LOG, LogHead, check_head, get_head
from consensus.transaction import Transaction

if TYPE_CHECKING:
    from consensus.ledger.rules import Rules

ROUNDS_MAX: Final = 3  # a sound module needs two: with all, and without what it refused


@dataclass(frozen=True, slots=True)
class Built:
    """A block and what became of the candidates that are not in it.

    refused: by a module, with the score. deferred: for a later block, as they share an account with a
    refused one, or did not fit. rejected: invalid by now (Rejected) or too early (NotYet).
    """

    block: Block
    delta: Delta
    refused: tuple[tuple[Transaction, int], ...]
    deferred: tuple[Transaction, ...]
    rejected: tuple[tuple[Transaction, Rejected | NotYet], ...]


def build_transfer_columns(
    transactions: Sequence[Transaction], index: Mapping[bytes, int]
) -> TransferColumns:
    return TransferColumns(
        np.array([index[tx.sender] for tx in transactions], dtype=np.int64),
        np.array([index[tx.receiver] for tx in transactions], dtype=np.int64),
        np.array([tx.amount for tx in transactions], dtype=np.int64),
        np.array([tx.timestamp_ms for tx in transactions], dtype=np.int64),
    )


def build_report_columns(reports: Sequence[Reported]) -> ReportColumns:
    fields = [(r.sender, r.receiver, r.amount, r.timestamp_ms, r.score) for r in reports]
    columns = np.array(fields, dtype=np.int64).reshape(-1, 5).T
    sender, receiver, amount, timestamp_ms, score = (np.ascontiguousarray(column) for column in columns)
    return ReportColumns(
        sender,
        receiver,
        amount,
        timestamp_ms,
        score,
        is_withdrawn=np.array([r.is_withdrawn for r in reports], dtype=np.bool_),
        is_repeated=np.array([r.is_repeated for r in reports], dtype=np.bool_),
    )


def build_memos(reports: Sequence[Reported], panel: Panel) -> NDArray[np.uint8] | None:
    """uint8[m, seats]: what they noted of the reports that are withdrawn, 0 of others; None: of all."""
    if not any(report.is_withdrawn for report in reports):
        return None
    # Who took over a seat's rows since then took over what was noted with them; other rows were not there.
    noted = [
        [report.memos.get((seat.place.start, seat.generation), 0) for seat in panel.seats]
        for report in reports
    ]
    return np.array(noted, dtype=np.uint8).reshape(len(reports), len(panel.seats))


def build_block(
    rules: Rules,
    view: View,
    candidates: Sequence[Transaction],
    *,
    epoch: int,
    view_number: int,
    proposer_key: bytes,
    now_ms: int,
    certificate: vote.Certificate | None,
    reveal: bytes = b"",
    refusals: LogHead = EMPTY_LOG,
) -> Built:
    """A block after `view` of what fits among `candidates`, in their order. Raises Fault for our own errors.

    epoch: the engine's. Past its boundary what is built is a tail, and all candidates are deferred.
    certificate: the parent's, None in the first block of an epoch. reveal: for the beacon (beacon.py), or
    empty. refusals: the proposer's log. A tail leaves both out. Candidates' signatures were checked before.
    """
    panel = rules.find_panel(view)
    try:
        place = compute_place(epoch, view, rules.parameters)
        epoch_set = epochs.get_set(view.records, epoch)
        check_certificate_binding(view.header, epoch, len(epoch_set.operators), certificate)
    except Rejected as error:
        raise Fault(error.problem, field=error.field) from None
    proposer = epoch_set.get_operator(proposer_key)
    if proposer is None:
        raise Fault(f"is not a validator of epoch {epoch}", field="proposer_key")
    try:
        beacon.check_reveal(view.records, rules.parameters, proposer, epoch, reveal)
        check_head(refusals)
    except Rejected as error:
        raise Fault(error.problem, field=error.field) from None
    if place[0] != epoch or view_number <= place[2]:
        raise Fault(f"epoch {epoch} view {view_number} is not after the parent's", field="view_number")
    if place[1] == view.header.height:
        free = _FreeFields(epoch, view_number, proposer_key, view.header.timestamp_ms)
        header, delta = _seal_tail(rules, view, free, certificate)
        return Built(Block(header, (), (), b"", certificate), delta, (), tuple(candidates), ())
    pool = _Pool()
    chosen: Sequence[Transaction] = candidates
    for attempt in range(ROUNDS_MAX + 1):
        if attempt == ROUNDS_MAX:  # a module that breaks its contract: an empty block is always right
            pool.deferred += chosen
            chosen = ()
        work, chosen = _select(rules, view, chosen, proposer, now_ms, pool)
        judgment = _judge(rules, panel, work, chosen, is_strict=False)
        failed = {work.reports[place].source for place in judgment.failed_reports}
        kept = _take_accepted(rules, chosen, judgment, failed, pool)
        if len(kept) == len(chosen):
            break
        chosen = kept
    free = _FreeFields(epoch, view_number, proposer_key, work.timestamp_ms, reveal, refusals)
    scores, outcomes = _list_verdicts(rules, chosen, judgment)
    root = blk.compute_transactions_root(chosen, scores, outcomes)
    header, delta = _seal(rules, panel, view, work, judgment, len(chosen), root, free, certificate)
    block = Block(header, tuple(chosen), scores, outcomes, certificate)
    return Built(block, delta, tuple(pool.refused), tuple(pool.deferred), tuple(pool.rejected))


def check_block(rules: Rules, view: View, block: Block, now_ms: int | None) -> Delta:
    """What `block` changes in its parent's `view`.

    Raises Rejected naming the first difference, NotYet when its time is ahead of `now_ms` (the local
    clock; None skips that), Fault when this node cannot make the modules that judge it.
    """
    panel = rules.find_panel(view)
    header = block.header
    check_header(rules, view, block, now_ms)
    head = get_head(header)
    free = _FreeFields(header.epoch, header.view, header.proposer, header.timestamp_ms, header.reveal, head)
    if epochs.is_tail(header, view.header, rules.parameters.epoch_blocks):
        expected, delta = _seal_tail(rules, view, free, block.parent_certificate)
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
    judgment = _judge(rules, panel, work, block.transactions, is_strict=True)
    scores, outcomes = _list_verdicts(rules, block.transactions, judgment)
    check_verdicts(block, scores, outcomes)
    root = block.compute_transactions_root()  # its scores and outcomes are the recomputed ones by now
    count = len(block.transactions)
    expected, delta = _seal(rules, panel, view, work, judgment, count, root, free, block.parent_certificate)
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
class _FreeFields:
    """What a proposer chooses; all else in a header follows."""

    epoch: int
    view: int
    proposer: bytes
    timestamp_ms: int
    reveal: bytes = b""
    refusals: LogHead = EMPTY_LOG


class _Pool:
    """Where candidates go that are not in the block."""

    def __init__(self) -> None:
        self.refused: list[tuple[Transaction, int]] = []
        self.deferred: list[Transaction] = []
        self.rejected: list[tuple[Transaction, Rejected | NotYet]] = []


def _select(
    rules: Rules, view: View, candidates: Sequence[Transaction], proposer: bytes, now_ms: int, pool: _Pool
) -> tuple[Work, list[Transaction]]:
    """Applies the valid ones among `candidates`, as many as fit."""
    parameters, parent_ms = rules.parameters, view.header.timestamp_ms
    is_workload = parameters.clock == CLOCK_WORKLOAD
    sound: list[Transaction] = []
    room = parameters.block_bytes_max
    for place, tx in enumerate(candidates):
        try:
            rules.check_form(tx)
        except Rejected as error:
            pool.rejected.append((tx, error))
            continue
        room -= len(tx.raw)
        if room < 0 or len(sound) == parameters.block_transactions_max:
            pool.deferred += candidates[place:]
            break
        sound.append(tx)
    start_ms = parent_ms if is_workload else max(parent_ms, now_ms)
    work = Work(
        view,
        parameters,
        start_ms,
        sound,
        chain_id=rules.chain_id,
        proposer=proposer,
        shelf=rules.shelf,
    )
    chosen: list[Transaction] = []
    awaited: set[bytes] = set()  # accounts of transactions that were put off: they may bring the money
    for tx in sound:
        if is_workload and tx.timestamp_ms > work.deadline_ms:
            # The block's time follows its transactions; this one would make an earlier one too old.
            pool.deferred.append(tx)
            awaited.update(_get_accounts(tx))
            continue
        before_ms = work.timestamp_ms
        try:
            if is_workload:
                check_jump(tx.timestamp_ms, parent_ms, parameters)
                work.timestamp_ms = max(before_ms, tx.timestamp_ms)
            work.apply(tx)
        except (Rejected, NotYet) as error:
            work.timestamp_ms = before_ms
            if awaited and not awaited.isdisjoint(_get_accounts(tx)):
                pool.deferred.append(tx)
            else:
                pool.rejected.append((tx, error))
        else:
            chosen.append(tx)
    return work, chosen


def _take_accepted(
    rules: Rules, chosen: Sequence[Transaction], judgment: Judgment, failed: AbstractSet[bytes], pool: _Pool
) -> list[Transaction]:
    """Those that stay: not refused (or failed, a report by its id), and no account in common with an earlier one that does not stay.

    The verdicts of those that stay depend on none of the others, nor do their funds.
    """
    if not failed and not (judgment.outcome == scoring.REFUSE).any():
        return list(chosen)
    kept: list[Transaction] = []
    tainted: set[bytes] = set()
    scored = 0
    for tx in chosen:
        if rules.is_scored(tx):
            is_refused, score = judgment.outcome[scored] == scoring.REFUSE, int(judgment.score[scored])
            scored += 1
        else:
            is_refused, score = tx.id in failed, scoring.SCORE_MAX
        accounts = _get_accounts(tx)
        if is_refused:
            pool.refused.append((tx, score))
        elif not tainted.isdisjoint(accounts):
            pool.deferred.append(tx)
        else:
            kept.append(tx)
            continue
        tainted.update(accounts)
    return kept


def _get_accounts(tx: Transaction) -> tuple[bytes, ...]:
    return (tx.sender, tx.receiver, *KIND_BY_NUMBER[tx.kind].get_accounts(tx))


def _judge(
    rules: Rules, panel: Panel, work: Work, transactions: Sequence[Transaction], *, is_strict: bool
) -> Judgment:
    scored = [tx for tx in transactions if rules.is_scored(tx)]
    transfers = build_transfer_columns(scored, work.index)
    reports = build_report_columns(work.reports)
    rows = work.rows[:, ROW_FIXED_BYTES:]
    return judging.judge(
        panel, transfers, reports, rows, is_strict=is_strict, memos=build_memos(work.reports, panel)
    )


def _list_verdicts(
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


def _seal(
    rules: Rules,
    panel: Panel,
    view: View,
    work: Work,
    judgment: Judgment,
    transaction_count: int,
    transactions_root: bytes,
    free: _FreeFields,
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


def _seal_tail(
    rules: Rules, view: View, free: _FreeFields, certificate: vote.Certificate | None
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
