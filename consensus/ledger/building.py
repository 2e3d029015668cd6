"""Building a block: which candidates a proposer's next one holds, and what becomes of the others.

Candidates are applied in their order, as many as fit; the modules judge those together, and what they
refuse is left out with all that shares an account with it, until a block remains that they accept whole.

Invariant: `execution.check_block` accepts what `build_block` makes, after the same view and with the same
delta; the view is not changed, whatever is raised. Candidates' signatures were checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus import block as blk
from consensus import vote
from consensus.block import Block
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import beacon, epochs, scoring
from consensus.ledger.block_checks import check_certificate_binding, check_jump, compute_place
from consensus.ledger.execution import FreeFields, judge_transactions, list_verdicts, seal, seal_tail
from consensus.ledger.judging import Judgment
from consensus.ledger.kinds import KIND_BY_NUMBER
from consensus.ledger.state import Delta, View
from consensus.ledger.work import Work
from consensus.parameters import CLOCK_WORKLOAD
from consensus.refusal import EMPTY_LOG, LogHead, check_head
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
        free = FreeFields(epoch, view_number, proposer_key, view.header.timestamp_ms)
        header, delta = seal_tail(rules, view, free, certificate)
        return Built(Block(header, (), (), b"", certificate), delta, (), tuple(candidates), ())
    pool = _Pool()
    chosen: Sequence[Transaction] = candidates
    for attempt in range(ROUNDS_MAX + 1):
        if attempt == ROUNDS_MAX:  # a module that breaks its contract: an empty block is always right
            pool.deferred += chosen
            chosen = ()
        work, chosen = _select(rules, view, chosen, proposer, now_ms, pool)
        judgment = judge_transactions(rules, panel, work, chosen, is_strict=False)
        failed = {work.reports[place].source for place in judgment.failed_reports}
        kept = _take_accepted(rules, chosen, judgment, failed, pool)
        if len(kept) == len(chosen):
            break
        chosen = kept
    free = FreeFields(epoch, view_number, proposer_key, work.timestamp_ms, reveal, refusals)
    scores, outcomes = list_verdicts(rules, chosen, judgment)
    root = blk.compute_transactions_root(chosen, scores, outcomes)
    header, delta = seal(rules, panel, view, work, judgment, len(chosen), root, free, certificate)
    block = Block(header, tuple(chosen), scores, outcomes, certificate)
    return Built(block, delta, tuple(pool.refused), tuple(pool.deferred), tuple(pool.rejected))


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
