"""Approve motion: a validator's operator says that the modules shall change at a height (motion.py).

The first approval makes the motion; there is no other way to propose one. Invariant: an operator of the
running epoch's set approves a motion at most once, and never so late that it would be decided without
notice. Leaves out: voting against; who is against does not approve, and a motion dies at its height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.errors import Rejected
from consensus.ledger import epochs, models, motion, staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.motion import SeatModel, Tally
from consensus.transaction import KIND_APPROVE_MOTION, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

APPROVAL_BYTES: Final = 192  # of records, as `account_byte_fee_units` charges for them


@dataclass(frozen=True, slots=True)
class ApproveMotionKind(UsualKind):
    """By an operator, to itself, without an amount."""

    number: int = KIND_APPROVE_MOTION
    name: str = "approve_motion"

    def check_form(self, tx: Transaction) -> None:
        motion.decode_motion(tx.payload)
        staking.check_own(tx)
        staking.check_no_amount(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        proposed = motion.decode_motion(tx.payload)
        if not epochs.get_set(work.records, work.epoch).get_stake(tx.sender):
            raise Rejected(
                f"0x{tx.sender.hex()} operates no validator of epoch {work.epoch}",
                field="sender",
                mend="use an operator's key",
                code="motion_sender",
            )
        staking.check_fee(tx, work.parameters, APPROVAL_BYTES)
        first = work.height + work.parameters.motion_notice_blocks + 1
        last = work.height + motion.AHEAD_BLOCKS_MAX
        if not first <= proposed.height <= last:
            raise Rejected(
                f"{proposed.height} is not {first} to {last}, as an approval in block {work.height} may name",
                field="payload.height",
                mend=f"use {first} or somewhat more",
                code="motion_height",
            )
        named = [proposed.change.digest]
        if isinstance(proposed.change, SeatModel) and proposed.change.in_place_of:
            named.append(proposed.change.in_place_of)
        for digest in named:
            if models.find_model(work.records, digest) is None:
                raise Rejected(
                    f"0x{digest.hex()} is no model of this chain",
                    field="payload.digest",
                    mend="publish it first",
                    code="model_unknown",
                )
        tally = motion.find_tally(work.records, proposed)
        if tx.sender in tally.approvers:
            raise Rejected("the sender approved it before", field="sender", code="motion_twice")
        new = _count(work, tally, tx.sender)
        if (
            new.is_decided
            and not tally.is_decided
            and motion.count_decided(work.records, proposed.height) >= motion.DECIDED_MAX
        ):
            raise Rejected(
                f"{motion.DECIDED_MAX} motions are decided for block {proposed.height}",
                field="payload.height",
                mend="choose another height",
                code="motion_full",
            )

    def apply(self, tx: Transaction, work: Work) -> None:
        proposed = motion.decode_motion(tx.payload)
        old = motion.find_tally(work.records, proposed)
        tally = _count(work, old, tx.sender)
        work.records = motion.put_tally(work.records, proposed, tally)
        if tally.is_decided and not old.is_decided:
            work.records = motion.keep_decided(work.records, proposed)

    def close(self, work: Work) -> None:
        work.records = motion.close_block(work.records, work.height, work.module_room_bytes)


APPROVE_MOTION: Final = ApproveMotionKind()


def _count(work: Work, tally: Tally, approver: bytes) -> Tally:
    epoch_set = epochs.get_set(work.records, work.epoch)
    return motion.compute_tally(tally, approver, epoch_set, work.height)
