"""Playing a labelled trace as a chain would live it: blocks of transfers, labels as late reports.

The columns made here go through the same `observe` and `evaluate` that judge a live block; every row is
observed, whatever its score. A label becomes a report when its delay is over and takes effect after the
block in which that happens, as on the chain; nothing else ever sees a label.
Invariant: the same trace, schedule and seed give the same columns; block borders change features only
by when a report due inside a block is seen (at its end).
Leaves out: fees, nonces, refusals (the ledger and the network play those).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.ledger.scoring import (
    REFUSE_NEVER,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    ValidationModule,
)
from ml.dataset import Trace
from ml.definitions import DAY_MS, DEFAULT_DEFINITIONS, Definitions, FeatureScale
from ml.features import observe

BLOCK_ROWS: Final = 1000  # the block size that budgets are stated for
OBSERVE_ONLY: Final = Thresholds(REFUSE_NEVER, REFUSE_NEVER)
LABEL_DELAY_DAYS: Final = DEFAULT_DEFINITIONS.rules.label_delay_days

Int64s = NDArray[np.int64]
Progress = Callable[[str, int, int], None]  # (what, done, total)
Refuse = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]  # features of a block, to which are refused


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """The progress listener of those who have none."""


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """How labels arrive. delay_days: (least, most), drawn evenly for each report; share of the frauds
    that are reported at all; false: share of the reports that concern clean transactions."""

    delay_days: tuple[int, int] = (LABEL_DELAY_DAYS, LABEL_DELAY_DAYS)
    share: float = 1.0
    false: float = 0.0

    def __post_init__(self) -> None:
        least, most = self.delay_days
        if not 0 <= least <= most <= 3650:
            raise Rejected(
                f"{least}..{most} is not a range of days", field="report delay", mend="write 7 or 7..21"
            )
        if not 0 <= self.share <= 1:
            raise Rejected(f"{self.share} is not a share", field="report share", mend="give 0 to 1")
        if not 0 <= self.false < 1:
            raise Rejected(
                f"{self.false} is not a share below 1", field="false reports", mend="give 0 to 0.99"
            )


ON_TIME: Final = ReportPlan()


@dataclass(frozen=True, slots=True)
class ReportSchedule:
    """row: int64[m], the reported rows of a trace; due_ms: int64[m], when each report comes, rising."""

    row: Int64s
    due_ms: Int64s


def schedule_reports(trace: Trace, plan: ReportPlan, seed: int) -> ReportSchedule:
    """Draw the reports of a labelled trace; a trace without labels has none."""
    random = np.random.Generator(np.random.PCG64(seed))
    fraud = np.zeros(len(trace), dtype=np.uint8) if trace.fraud is None else trace.fraud
    rows = np.flatnonzero(fraud)
    if plan.share < 1:
        rows = rows[random.random(len(rows)) < plan.share]
    if plan.false > 0:
        clean = np.flatnonzero(fraud == 0)
        count = min(round(len(rows) * plan.false / (1 - plan.false)), len(clean))
        rows = np.concatenate((rows, random.choice(clean, count, replace=False)))
    least, most = plan.delay_days
    delay = random.integers(least * DAY_MS, most * DAY_MS, len(rows), endpoint=True)
    due = trace.time_ms[rows] + delay
    order = np.lexsort((rows, due))
    return ReportSchedule(rows[order], due[order])


@dataclass(frozen=True, slots=True)
class PlayedBlock:
    """Rows start..end of a trace as a block. accounts: int64[k], the account of each row of the view."""

    start: int
    end: int
    accounts: Int64s
    transactions: TransferColumns
    reports: ReportColumns
    reported: Int64s  # the trace's rows that `reports` speak of


def iterate_blocks(
    trace: Trace, schedule: ReportSchedule, block_rows: int = BLOCK_ROWS, end: int | None = None
) -> Iterator[PlayedBlock]:
    """Cut rows 0..end into blocks; each carries the reports that fell due by its last transaction."""
    stop = len(trace) if end is None else end
    report = 0
    for start in range(0, stop, block_rows):
        rows = slice(start, min(start + block_rows, stop))
        n = rows.stop - start
        report_end = int(np.searchsorted(schedule.due_ms, trace.time_ms[rows.stop - 1], side="right"))
        reported = schedule.row[report:report_end]
        # a delay of 0 days falls due at once: a report speaks only of what was already played
        reported = reported[reported < rows.stop]
        report = report_end
        m = len(reported)
        accounts, index = np.unique(
            np.concatenate(
                (trace.sender[rows], trace.receiver[rows], trace.sender[reported], trace.receiver[reported])
            ),
            return_inverse=True,
        )
        yield PlayedBlock(
            start=start,
            end=rows.stop,
            accounts=accounts,
            transactions=TransferColumns(
                index[:n], index[n : 2 * n], trace.amount[rows], trace.time_ms[rows]
            ),
            reports=ReportColumns(
                index[2 * n : 2 * n + m],
                index[2 * n + m :],
                trace.amount[reported],
                trace.time_ms[reported],
                np.zeros(m, dtype=np.int64),
            ),
            reported=reported,
        )


def play_features(
    trace: Trace,
    schedule: ReportSchedule,
    scale: FeatureScale,
    end: int | None = None,
    progress: Progress = ignore_progress,
    refuse: Refuse | None = None,
    definitions: Definitions = DEFAULT_DEFINITIONS,
) -> NDArray[np.uint8]:
    """uint8[end, F] of the trace's first `end` rows.

    With `refuse` (uint8[n, F] to bool[n]) the state never sees the rows that it names, nor any
    report on them: as on a chain that refuses. Their features are those they were refused by.
    """
    stop = len(trace) if end is None else end
    state = np.zeros((len(trace.names), definitions.row_bytes), dtype=np.uint8)
    features = np.zeros((stop, len(definitions)), dtype=np.uint8)
    refused = np.zeros(stop, dtype=bool)
    for block in iterate_blocks(trace, schedule, end=stop):
        transactions, reports, rows = block.transactions, block.reports, state[block.accounts]
        seen = observe(transactions, reports, rows, scale, definitions)
        features[block.start : block.end] = seen.features
        if refuse is not None:
            refused[block.start : block.end] = refuse(seen.features)
            kept, known = ~refused[block.start : block.end], ~refused[block.reported]
            seen = observe(
                _select_transfers(transactions, kept),
                _select_reports(reports, known),
                rows,
                scale,
                definitions,
            )
        state[block.accounts] = seen.rows
        progress("features", block.end, stop)
    return features


def _select_transfers(columns: TransferColumns, kept: NDArray[np.bool_]) -> TransferColumns:
    c = columns
    return TransferColumns(c.sender[kept], c.receiver[kept], c.amount[kept], c.timestamp_ms[kept])


def _select_reports(columns: ReportColumns, kept: NDArray[np.bool_]) -> ReportColumns:
    c = columns
    return ReportColumns(*(getattr(c, name)[kept] for name in ReportColumns.__slots__))


@dataclass(frozen=True, slots=True)
class PlayedScores:
    """score: int64[end]; seconds: spent inside the module's `evaluate`, for all of them."""

    score: Int64s
    seconds: float


def play_scores(
    trace: Trace,
    schedule: ReportSchedule,
    module: ValidationModule,
    end: int | None = None,
    progress: Progress = ignore_progress,
) -> PlayedScores:
    """Score the trace's first `end` rows by a module, from an empty state, refusing nothing."""
    stop = len(trace) if end is None else end
    state = np.zeros((len(trace.names), module.row_bytes), dtype=np.uint8)
    score = np.zeros(stop, dtype=np.int64)
    seconds = 0.0
    for block in iterate_blocks(trace, schedule, end=stop):
        reports = block.reports
        reports = ReportColumns(
            reports.sender, reports.receiver, reports.amount, reports.timestamp_ms, score[block.reported]
        )
        view = ModuleView(state[block.accounts], OBSERVE_ONLY)
        begun = time.perf_counter()
        verdicts, rows = module.evaluate(block.transactions, reports, view)
        seconds += time.perf_counter() - begun
        state[block.accounts] = rows
        score[block.start : block.end] = verdicts.score
        progress("scores", block.end, stop)
    return PlayedScores(score, seconds)
