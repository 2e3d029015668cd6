"""The kinds of transaction that this ledger knows: one tuple. A new kind is added here and nowhere else."""

from __future__ import annotations

from typing import Final

from consensus.errors import Rejected
from consensus.ledger.accusation import EVIDENCE
from consensus.ledger.approval import APPROVE_MOTION
from consensus.ledger.beacon import COMMIT
from consensus.ledger.bond import BOND
from consensus.ledger.dispute import DISPUTE_REPORT, RECLAIM_DEPOSIT, VOTE_REPORT
from consensus.ledger.kind import Kind
from consensus.ledger.publication import PUBLISH_MODEL
from consensus.ledger.registration import LEAVE_REPORTER, REGISTER_REPORTER
from consensus.ledger.report import REPORT
from consensus.ledger.retraction import WITHDRAW_REPORT
from consensus.ledger.rotation import ROTATE_KEY
from consensus.ledger.transfer import TRANSFER
from consensus.ledger.unbond import UNBOND
from consensus.ledger.unjail import UNJAIL
from consensus.ledger.withdraw import WITHDRAW

KINDS: Final[tuple[Kind, ...]] = (
    TRANSFER,
    REPORT,
    BOND,
    UNBOND,
    WITHDRAW,
    UNJAIL,
    ROTATE_KEY,
    EVIDENCE,
    COMMIT,
    PUBLISH_MODEL,
    APPROVE_MOTION,
    REGISTER_REPORTER,
    LEAVE_REPORTER,
    WITHDRAW_REPORT,
    DISPUTE_REPORT,
    VOTE_REPORT,
    RECLAIM_DEPOSIT,
)

KIND_BY_NUMBER: Final[dict[int, Kind]] = {kind.number: kind for kind in KINDS}


def get_kind(number: int) -> Kind:
    """The kind with this number; raises Rejected when there is none."""
    kind = KIND_BY_NUMBER.get(number)
    if kind is None:
        known = ", ".join(f"{kind.number} ({kind.name})" for kind in KINDS)
        raise Rejected(
            f"{number} is not a kind of transaction", field="kind", mend=f"use {known}", code="kind"
        )
    return kind
