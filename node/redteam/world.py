"""A town on a chain that refuses, without the chain: its payments, its frauds, reports that come late.

Blocks go through the ledger's own judging on the modules' rows. What is refused never happens: it leaves, and
the rest of its block is judged without it, as a proposer's is. Victims of the town and of the red team
report what went through, when the label delay is over.
Invariant: a pure function of town, modules and waves; playing one campaign leaves the history it began
with as it was. Leaves out: fees, balances, nonces, the back-off of senders who are refused too often.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.judging import Panel, Seat, judge
from consensus.ledger.scoring import REFUSE, ReportColumns, TransferColumns
from ml.dataset import Trace
from node.redteam.scene import Wave

BLOCK_MS: Final = 12 * 3_600_000  # a town's half day in a block: a report waits no longer to take effect

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Report:
    """A transfer as it will be reported, ordered by when."""

    due_ms: int
    sender: int
    receiver: int
    amount: int
    timestamp_ms: int
    score: int

    def __lt__(self, other: Report) -> bool:
        return self.due_ms < other.due_ms


@dataclass(slots=True)
class RedWorld:
    """trace: the town's rows; what comes after `row` has not happened yet. rows: uint8[accounts, row bytes]."""

    seats: tuple[Seat, ...]
    trace: Trace
    rows: NDArray[np.uint8]
    delay_ms: int
    row: int = 0
    due: list[Report] = field(default_factory=list)
    honest: int = 0  # the town's clean payments so far, and those of them that were refused
    honest_refused: int = 0

    def fork(self) -> RedWorld:
        """The same world, to go on in another way."""
        return RedWorld(
            self.seats,
            self.trace,
            self.rows.copy(),
            self.delay_ms,
            self.row,
            list(self.due),
            self.honest,
            self.honest_refused,
        )

    def advance(self, until_ms: int) -> None:
        """The town lives until then."""
        trace = self.trace
        end = int(np.searchsorted(trace.time_ms, until_ms, side="right"))
        while self.row < end:
            block_ms = int(trace.time_ms[self.row]) // BLOCK_MS
            stop = min(end, int(np.searchsorted(trace.time_ms, (block_ms + 1) * BLOCK_MS)))
            rows = slice(self.row, stop)
            columns = TransferColumns(
                trace.sender[rows], trace.receiver[rows], trace.amount[rows], trace.time_ms[rows]
            )
            labels = np.zeros(stop - self.row, np.uint8) if trace.fraud is None else trace.fraud[rows]
            outcome = self._play_block(columns, labels.astype(bool), int(trace.time_ms[stop - 1]))
            self.honest += int(np.count_nonzero(labels == 0))
            self.honest_refused += int(np.count_nonzero((labels == 0) & (outcome == REFUSE)))
            self.row = stop

    def submit(self, wave: Wave) -> Sequence[int]:
        """The town lives until the wave's time; then its payments make a block. Their fates, in order."""
        self.advance(wave.time_ms)
        if not wave.payments:
            return ()
        table = [
            (p.sender, p.receiver, p.amount, wave.time_ms if p.timestamp_ms is None else p.timestamp_ms)
            for p in wave.payments
        ]
        columns = TransferColumns(*np.array(table, dtype=np.int64).T.copy())
        is_reported = np.array([payment.is_theft for payment in wave.payments])
        fates: list[int] = self._play_block(columns, is_reported, wave.time_ms).tolist()
        return fates

    def _play_block(
        self, columns: TransferColumns, is_reported: NDArray[np.bool_], now_ms: int
    ) -> NDArray[np.uint8]:
        """Judge, leave out what is refused, judge the rest again: as if each had been judged in its turn."""
        n = len(columns)
        outcome = np.full(n, REFUSE, dtype=np.uint8)
        reports = self._take_due(now_ms)
        left = np.arange(n)
        while True:
            part = TransferColumns(*(getattr(columns, name)[left] for name in TransferColumns.__slots__))
            judgment = judge(Panel(self.seats, None, b""), part, reports, self.rows, is_strict=False)
            gone = _find_first_refused(part, judgment.outcome)
            if not len(gone):
                break
            left = np.delete(left, gone)
        self.rows[judgment.local] = judgment.rows
        outcome[left] = judgment.outcome
        for place, score in zip(left.tolist(), judgment.score.tolist(), strict=True):
            if is_reported[place]:
                report = Report(
                    now_ms + self.delay_ms,
                    int(columns.sender[place]),
                    int(columns.receiver[place]),
                    int(columns.amount[place]),
                    int(columns.timestamp_ms[place]),
                    score,
                )
                insort(self.due, report)
        return outcome

    def _take_due(self, now_ms: int) -> ReportColumns:
        count = 0
        while count < len(self.due) and self.due[count].due_ms <= now_ms:
            count += 1
        table = [(r.sender, r.receiver, r.amount, r.timestamp_ms, r.score) for r in self.due[:count]]
        del self.due[:count]
        return ReportColumns(*np.array(table, dtype=np.int64).reshape(-1, 5).T.copy())


def _find_first_refused(columns: TransferColumns, outcome: NDArray[np.uint8]) -> Int64s:
    """Places of the refused ones that no earlier refused one shares an account with: those are certain."""
    tainted: set[int] = set()
    found = []
    for place in np.flatnonzero(outcome == REFUSE).tolist():
        accounts = {int(columns.sender[place]), int(columns.receiver[place])}
        if not accounts & tainted:
            found.append(place)
        tainted |= accounts
    return np.array(found, dtype=np.int64)
