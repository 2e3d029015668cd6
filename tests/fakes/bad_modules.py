"""Modules that break one rule each, so that every check of the conformance kit is seen to fail.

`good` counts what a sender sent, in a row of eight bytes; the others are `good` but for one thing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from consensus.ledger.scoring import (
    Contribution,
    Explanation,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from ml.policy import ALLOW, Opinion, PolicyBatch, refuse

NONE = np.zeros(0, dtype=np.int64)
NO_REPORTS = ReportColumns(NONE, NONE, NONE, NONE, NONE)


class Good:
    """score = 100 for each transaction that the sender sent before; reports count for two, after the block."""

    name = "good"
    row_bytes = 8

    def __init__(self, artifact: bytes) -> None:
        self.digest = sha256(b"good" + artifact).digest()

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, np.ndarray]:
        rows = np.array(view.rows, order="C")
        sent = rows.view("<u8").reshape(-1)
        score = np.zeros(len(transactions), dtype=np.int64)
        for place, sender in enumerate(transactions.sender.tolist()):
            score[place] = self.rate(transactions, place, int(sent[sender]) % 100)
            sent[sender] = (int(sent[sender]) + 1) % 2**32
        for sender in reports.sender.tolist():
            sent[sender] = (int(sent[sender]) + 2) % 2**32
        return Verdicts.from_scores(score, view.thresholds), rows

    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        return before * 100

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        verdicts, _ = self.evaluate(transactions, NO_REPORTS, view)
        score, outcome = int(verdicts.score[index]), int(verdicts.outcome[index])
        return Explanation(score, outcome, 0, score, (Contribution("sent", score, score, f"scored {score}"),))


class Formless(Good):
    def evaluate(self, transactions: Any, reports: Any, view: ModuleView) -> Any:
        verdicts, rows = super().evaluate(transactions, reports, view)
        return Verdicts(verdicts.score.astype(np.float64), verdicts.outcome), rows  # type: ignore[arg-type]


class Overflowing(Good):
    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        return before * 100 if transactions.amount[place] < 2**53 - 1 else 10_001


class OwnThresholds(Good):
    def evaluate(self, transactions: Any, reports: Any, view: ModuleView) -> Any:
        return super().evaluate(transactions, reports, replace(view, thresholds=Thresholds(1, 2)))


class BlindToBursts(Good):
    """Looks at the parent's rows only: one block escapes it."""

    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Any:
        _, rows = super().evaluate(transactions, reports, view)
        before = np.array(view.rows, order="C").view("<u8").reshape(-1)[transactions.sender].astype(np.int64)
        return Verdicts.from_scores(before % 100 * 100, view.thresholds), rows


class ByNumber(Good):
    """Scores by how accounts happen to be numbered."""

    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        return int(transactions.sender[place]) % 100


class ByCrowd(Good):
    """Scores by how full the block is of others."""

    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Any:
        verdicts, rows = super().evaluate(transactions, reports, view)
        return Verdicts.from_scores(np.minimum(verdicts.score + len(rows), 10_000), view.thresholds), rows


class EagerForReports(Good):
    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Any:
        verdicts, rows = super().evaluate(transactions, reports, view)
        return Verdicts.from_scores(verdicts.score + min(len(reports), 50), view.thresholds), rows


class Remembering(Good):
    def __init__(self, artifact: bytes) -> None:
        super().__init__(artifact)
        self._calls = 0

    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Any:
        verdicts, rows = super().evaluate(transactions, reports, view)
        self._calls += 1
        return Verdicts.from_scores(verdicts.score * 0 + self._calls // 40 % 100, view.thresholds), rows


class Scribbling(Good):
    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Any:
        answer = super().evaluate(transactions, reports, view)
        transactions.amount[:] = 0
        return answer


class Drifting(Good):
    numbers = itertools.count()

    def __init__(self, artifact: bytes) -> None:
        self.digest = sha256(f"{next(self.numbers)}".encode()).digest()


class DeafToArtifact(Good):
    def __init__(self, artifact: bytes) -> None:
        self.digest = sha256(b"whatever").digest()


class Misexplaining(Good):
    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        told = super().explain(transactions, view, index)
        return replace(told, base=1)


class Racing(Good):
    """Works in a buffer that all calls share."""

    def __init__(self, artifact: bytes) -> None:
        super().__init__(artifact)
        self._buffer = 0

    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        self._buffer = before * 100
        time.sleep(0)  # lets other threads in, as longer work would
        return self._buffer


class Hashing(Good):
    """Counts on Python's hashes, which differ from process to process."""

    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        return hash(f"sender {before}") % 10_000


class Slow(Good):
    def rate(self, transactions: TransferColumns, place: int, before: int) -> int:
        return sum(range(3_000)) * 0 + before * 100


class Raising(Good):
    def evaluate(self, transactions: Any, reports: Any, view: ModuleView) -> Any:
        raise ZeroDivisionError("by nothing")


# Check, and the module that fails it.
BAD_MODULES: dict[str, tuple[str, ...]] = {
    "form": ("Formless", "Raising"),
    "extremes": ("Overflowing",),
    "thresholds": ("OwnThresholds",),
    "splits": ("BlindToBursts",),
    "order": ("ByNumber",),
    "neighbours": ("ByCrowd",),
    "reports": ("EagerForReports",),
    "purity": ("Remembering", "Scribbling"),
    "digest": ("Drifting", "DeafToArtifact"),
    "explanation": ("Misexplaining",),
    "threads": ("Racing",),
    "processes": ("Hashing",),
    "cost": ("Slow",),
}


# --- policies ---------------------------------------------------------------------------------------


class Polite:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        return [ALLOW] * len(batch)


class Silent(Polite):
    def judge(self, batch: PolicyBatch) -> Any:
        return None


class WithoutReason(Polite):
    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        return [refuse("")] * len(batch)


class Fragile(Polite):
    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        least = min(tx.amount for tx in batch.transactions)  # of none, and of amounts of 0, it knows nothing
        return [ALLOW if 1_000 // least else refuse("large") for _ in batch.transactions]


class Vandal(Polite):
    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        batch.score.flags.writeable = True
        batch.score[:] = 0
        return [ALLOW] * len(batch)


class CountingTwice(Polite):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._seen = 0

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        self._seen += len(batch)
        return [ALLOW if self._seen <= 150 else refuse("too many")] * len(batch)


class Vague(Polite):
    def reload(self) -> Any:
        return "maybe"


class Sleeping(Polite):
    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        time.sleep(len(batch) / 100_000)
        return [ALLOW] * len(batch)


BAD_POLICIES: dict[str, tuple[str, ...]] = {
    "form": ("Silent", "WithoutReason"),
    "extremes": ("Fragile",),
    "purity": ("Vandal",),
    "second look": ("CountingTwice",),
    "methods": ("Vague",),
    "patience": ("Sleeping",),
}
