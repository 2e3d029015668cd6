"""A validation module of one rule: how much of its daily allowance of N transactions an account used.

It shows how short a module can be: a row of eight bytes, an `evaluate`, an `explain`. The artifact is
N in decimal (b"" means 50). Invariant: a late transaction counts on the sender's newest day, so that
no timestamp gives an allowance back. Leaves out: reports, receivers, amounts.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.ledger.scoring import (
    SCORE_MAX,
    Contribution,
    Explanation,
    ModuleView,
    ReportColumns,
    TransferColumns,
    Verdicts,
)

DAY_MS: Final = 86_400_000
LIMIT_DEFAULT: Final = 50  # transactions a day: people send fewer, runaway scripts more
LIMIT_MAX: Final = 1_000_000
ROW: Final = np.dtype([("day", "<u4"), ("count", "<u4")])  # newest day plus one; sent on it


class VelocityModule:
    """score = used share of the allowance, below SCORE_MAX up to N and SCORE_MAX above it."""

    name: Final = "velocity"
    row_bytes: Final = ROW.itemsize
    rows_key: Final = sha256(b"assay/rows/velocity/1").digest()  # what an account sent is so under any limit

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.digest: bytes = sha256(f"assay/module/velocity/1/{limit}".encode()).digest()

    def evaluate(
        self,
        transactions: TransferColumns,
        reports: ReportColumns,  # noqa: ARG002  a rule learns nothing
        view: ModuleView,
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        rows = np.array(view.rows, order="C")
        state = rows.view(ROW).reshape(-1)
        count = np.zeros(len(transactions), dtype=np.int64)
        days = (transactions.timestamp_ms // DAY_MS + 1).tolist()
        for i, (sender, day) in enumerate(zip(transactions.sender.tolist(), days, strict=True)):
            if day > state["day"][sender]:
                state[sender] = (day, 0)
            count[i] = state["count"][sender] = min(int(state["count"][sender]) + 1, LIMIT_MAX + 1)
        used = count * (SCORE_MAX - 1) // self.limit
        return Verdicts.from_scores(np.where(count > self.limit, SCORE_MAX, used), view.thresholds), rows

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        verdicts, _ = self.evaluate(transactions, _NO_REPORTS, view)
        score, outcome = int(verdicts.score[index]), int(verdicts.outcome[index])
        used = "all" if score == SCORE_MAX else f"{score / 100:.0f} %"
        words = f"{used} of the sender's {self.limit} transactions a day are used"
        return Explanation(score, outcome, 0, score, (Contribution("sent_today", score, score, words),))


_NONE: Final = np.zeros(0, dtype=np.int64)
_NO_REPORTS: Final = ReportColumns(_NONE, _NONE, _NONE, _NONE, _NONE)


def load(artifact: bytes) -> VelocityModule:
    """The module with the limit that `artifact` states. Raises Rejected if it states none."""
    if artifact == b"":
        return VelocityModule(LIMIT_DEFAULT)
    if not (artifact.isdigit() and len(artifact) <= 7 and 0 < int(artifact) <= LIMIT_MAX):
        raise Rejected(
            f"{artifact[:20]!r} is not a limit", field="velocity", mend=f"write 1 to {LIMIT_MAX} in decimal"
        )
    return VelocityModule(int(artifact))
