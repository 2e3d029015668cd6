"""Block checks: where a block differs from what its parent's state and its own body allow, in words.

`check_header` says all that can be said before executing the block, `check_verdicts` what its scores
and outcomes should have been. Invariant: the first difference is named with both values; nothing is
read but the block, its parent's header and the chain's rules.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from consensus import refusal, vote
from consensus.block import GENESIS_VIEW, Block, Header
from consensus.errors import NotYet, Rejected
from consensus.ledger import beacon, epochs, scoring
from consensus.parameters import CLOCK_WORKLOAD, Parameters
from consensus.transaction import Transaction

if TYPE_CHECKING:
    from consensus.ledger.rules import Rules
    from consensus.ledger.state import View


def check_jump(timestamp_ms: int, parent_ms: int, parameters: Parameters) -> None:
    """Workload clock: raises NotYet when a block at this time would skip too much."""
    if timestamp_ms - parent_ms > parameters.clock_jump_ms_max:
        raise NotYet(
            f"{timestamp_ms} is {timestamp_ms - parent_ms} ms after the last block, "
            f"at most {parameters.clock_jump_ms_max} allowed",
            field="timestamp_ms",
            code="timestamp",
        )


def name_transaction(place: int, tx: Transaction, error: Rejected | NotYet) -> Rejected:
    """What is wrong with the transaction at `place` of a block, as what is wrong with the block."""
    return Rejected(
        f"transaction {place} (0x{tx.id.hex()}): {error.field}: {error.problem}",
        field="block.transactions",
        code=error.code,
    )


def check_header(rules: Rules, view: View, block: Block, now_ms: int | None) -> None:
    """Raises Rejected or NotYet for all that can be said before executing the block."""
    header, parent, parameters = block.header, view.header, rules.parameters
    if header.parent_hash != parent.hash:
        raise Rejected(
            f"is 0x{header.parent_hash.hex()}, not block {parent.height} (0x{parent.hash.hex()})",
            field="header.parent_hash",
            code="parent",
        )
    epoch, height, parent_view = compute_place(header.epoch, view, parameters)
    for name, told, expected in (
        ("epoch", header.epoch, epoch),
        ("parent_view", header.parent_view, parent_view),
        ("height", header.height, height),
        ("transaction_count", header.transaction_count, len(block.transactions)),
        ("scores", len(block.scores), len(block.transactions)),
        ("outcomes", len(block.outcomes), len(block.transactions)),
    ):
        if told != expected:
            raise Rejected(f"is {told}, must be {expected}", field=f"header.{name}", code=name)
    if header.view <= parent_view:
        raise Rejected(
            f"{header.view} is not after the parent's {parent_view}", field="header.view", code="view"
        )
    epoch_set = epochs.get_set(view.records, epoch)
    operator = epoch_set.get_operator(header.proposer)
    if operator is None:
        raise Rejected(f"is not a validator of epoch {epoch}", field="header.proposer", code="proposer")
    if not epochs.is_tail(header, parent, parameters.epoch_blocks):
        beacon.check_reveal(view.records, parameters, operator, epoch, header.reveal)
    refusal.check_head(refusal.get_head(header))
    next_set = epochs.get_next_set(view.records, epoch, parameters.epoch_blocks)
    for name, digest, expected_digest in (
        ("modules_digest", header.modules_digest, rules.find_panel(view).digest),
        ("validators_digest", header.validators_digest, epoch_set.validators.digest),
        ("next_validators_digest", header.next_validators_digest, next_set.validators.digest),
    ):
        if digest != expected_digest:
            raise Rejected(
                f"is 0x{digest.hex()}, the parent's state names 0x{expected_digest.hex()}",
                field=f"header.{name}",
                code=name,
            )
    check_certificate_binding(parent, epoch, len(epoch_set.operators), block.parent_certificate)
    if len(block.transactions) > parameters.block_transactions_max:
        raise Rejected(
            f"{len(block.transactions)}, at most {parameters.block_transactions_max} allowed",
            field="block.transactions",
            code="size",
        )
    size = sum(len(tx.raw) for tx in block.transactions)
    if size > parameters.block_bytes_max:
        raise Rejected(
            f"{size} bytes, at most {parameters.block_bytes_max} allowed",
            field="block.transactions",
            code="size",
        )
    if epochs.is_tail(header, parent, parameters.epoch_blocks):
        _check_tail(block, view)
    else:
        _check_time(block, parent, parameters, now_ms)


def _check_tail(block: Block, view: View) -> None:
    """consensus.md, Epochs: no transactions, the parent's state and time, and the boundary block's hash."""
    parent, mark = view.header, epochs.compute_tail_mark(view)
    if block.transactions:
        raise Rejected(
            f"{len(block.transactions)} past the boundary of epoch {parent.epoch}",
            field="block.transactions",
            mend="put them into the next epoch",
            code="tail",
        )
    if block.header.reveal != mark:
        raise Rejected(
            f"is 0x{block.header.reveal.hex()}, a tail names its boundary block 0x{mark.hex()}",
            field="header.reveal",
            code="tail",
        )
    if block.header.refusal_count:
        raise Rejected(
            "a tail, which is never final, commits to no log",
            field="header.refusal_count",
            mend="use 0",
            code="refusals",
        )
    if block.header.timestamp_ms != parent.timestamp_ms:
        raise Rejected(
            f"{block.header.timestamp_ms}, a tail has its parent's {parent.timestamp_ms}",
            field="header.timestamp_ms",
            code="timestamp",
        )


def compute_place(told_epoch: int, view: View, parameters: Parameters) -> tuple[int, int, int]:
    """(epoch, height, parent view) of a block after `view`; `told_epoch`, its own, makes it a tail or not.

    Past the boundary a block of the same epoch is a tail; a block of the next one opens that.
    """
    parent, epoch_blocks = view.header, parameters.epoch_blocks
    if told_epoch == parent.epoch and epochs.is_boundary(parent.height, epoch_blocks):
        return parent.epoch, parent.height, parent.view
    if view.is_tail:
        raise Rejected(
            f"is {told_epoch}: what stands on a tail of epoch {parent.epoch} is a tail of it",
            field="header.epoch",
            mend="build on the boundary block",
            code="epoch",
        )
    height = parent.height + 1
    epoch = epochs.compute_epoch(height, epoch_blocks)
    return epoch, height, parent.view if epoch == parent.epoch else GENESIS_VIEW


def check_certificate_binding(
    parent: Header, epoch: int, validator_count: int, certificate: vote.Certificate | None
) -> None:
    """Raises Rejected unless the certificate that a block of `epoch` carries is about its parent.

    validator_count: in the set of that epoch. Signatures are the caller's to check.
    """
    field = "block.certificate"
    if parent.height == 0 or parent.epoch != epoch:
        if certificate is not None:
            raise Rejected(
                "the first block of an epoch has none", field=field, mend="leave it out", code="certificate"
            )
        return
    if certificate is None:
        raise Rejected("is missing", field=field, mend="carry the parent's", code="certificate")
    subject = certificate.subject
    if subject.kind == vote.NULLIFY or (subject.epoch, subject.view, subject.block_hash) != (
        parent.epoch,
        parent.view,
        parent.hash,
    ):
        raise Rejected("is not about the parent", field=field, code="certificate")
    signers = certificate.signers
    if not signers or signers[-1] >= validator_count or any(low >= high for low, high in pairwise(signers)):
        raise Rejected(
            "its signers are not rising indices of the epoch's set", field=field, code="certificate"
        )


def _check_time(block: Block, parent: Header, parameters: Parameters, now_ms: int | None) -> None:
    timestamp_ms, field = block.header.timestamp_ms, "header.timestamp_ms"
    if parameters.clock == CLOCK_WORKLOAD:
        expected = max(parent.timestamp_ms, *(tx.timestamp_ms for tx in block.transactions), 0)
        if timestamp_ms != expected:
            raise Rejected(
                f"{timestamp_ms}, the latest of parent and transactions is {expected}",
                field=field,
                code="timestamp",
            )
        if timestamp_ms - parent.timestamp_ms > parameters.clock_jump_ms_max:
            raise Rejected(
                f"{timestamp_ms - parent.timestamp_ms} ms after the parent, "
                f"at most {parameters.clock_jump_ms_max} allowed",
                field=field,
                code="timestamp",
            )
        return
    if timestamp_ms < parent.timestamp_ms:
        raise Rejected(
            f"{timestamp_ms} is before the parent's {parent.timestamp_ms}", field=field, code="timestamp"
        )
    if now_ms is not None and timestamp_ms > now_ms + parameters.clock_drift_ms_max:
        raise NotYet(f"{timestamp_ms} is ahead of the local clock {now_ms}", field=field, code="timestamp")


def check_verdicts(block: Block, scores: tuple[int, ...], outcomes: bytes) -> None:
    """Raises Rejected naming the first score or outcome that differs from the recomputed one, or is REFUSE."""
    if block.scores == scores and block.outcomes == outcomes and scoring.REFUSE not in outcomes:
        return  # as nearly always; what follows names the first difference
    for place, (told, recomputed) in enumerate(zip(block.scores, scores, strict=True)):
        if told != recomputed:
            raise Rejected(
                f"of transaction {place} (0x{block.transactions[place].id.hex()}): "
                f"the block says {told}, recomputed {recomputed}",
                field="block.scores",
                code="score",
            )
    for place, (told, recomputed) in enumerate(zip(block.outcomes, outcomes, strict=True)):
        if told != recomputed:
            raise Rejected(
                f"of transaction {place} (0x{block.transactions[place].id.hex()}): "
                f"the block says {told}, recomputed {recomputed}",
                field="block.outcomes",
                code="outcome",
            )
        if told == scoring.REFUSE:
            raise Rejected(
                f"of transaction {place} (0x{block.transactions[place].id.hex()}): "
                f"refused with score {scores[place]}, such a block is invalid",
                field="block.outcomes",
                code="refused",
            )
