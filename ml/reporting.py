"""Filings by reporters as a chain would count them, and a trace played under what its modules are then told.

`count_filings` is the ledger's rule in plain form (consensus/ledger/cases.py): told when `reports_min` stand,
withdrawn when fewer do, repeated after the first of two accounts in a period. Invariant: the same filings give
the same columns as the ledger's; a test plays both. Leaves out: bonds, votes, windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import ModuleView, ReportColumns, TransferColumns, ValidationModule
from ml.dataset import Trace
from ml.definitions import DAY_MS
from ml.playback import BLOCK_ROWS, OBSERVE_ONLY

PAIR_MS: Final = 28 * DAY_MS


@dataclass(frozen=True, slots=True, order=True)
class Filing:
    """A reporter reports a row of the trace, or takes that back."""

    time_ms: int
    row: int
    reporter: int
    is_withdrawal: bool = False


@dataclass(frozen=True, slots=True)
class Telling:
    """The modules are told of a row, or that it counts no more."""

    time_ms: int
    row: int
    is_withdrawn: bool = False
    is_repeated: bool = False


def count_filings(
    trace: Trace, filings: Iterable[Filing], reports_min: int = 1, pair_ms: int = PAIR_MS
) -> list[Telling]:
    """What a chain with these parameters tells its modules, in order of time."""
    standing: dict[int, set[int]] = {}
    told: set[int] = set()
    first: dict[tuple[int, int, int], int] = {}
    tellings: list[Telling] = []
    for filing in sorted(filings):
        row, reporters = filing.row, standing.setdefault(filing.row, set())
        if filing.is_withdrawal:
            reporters.discard(filing.reporter)
        else:
            reporters.add(filing.reporter)
        pair = (
            int(trace.time_ms[row]) // max(pair_ms, 1),
            int(trace.sender[row]),
            int(trace.receiver[row]),
        )
        if len(reporters) >= reports_min and row not in told:
            is_repeated = pair_ms > 0 and first.setdefault(pair, row) != row
            told.add(row)
            tellings.append(Telling(filing.time_ms, row, is_repeated=is_repeated))
        elif len(reporters) < reports_min and row in told:
            told.discard(row)
            if first.get(pair) == row:
                del first[pair]
            tellings.append(Telling(filing.time_ms, row, is_withdrawn=True))
    return tellings


def play_tellings(
    trace: Trace, tellings: Sequence[Telling], module: ValidationModule, end: int | None = None
) -> NDArray[np.int64]:
    """int64[end]: the scores of the trace's first `end` rows, none refused; tellings in order of time.

    What falls due within a block of rows takes effect after it; a withdrawal one block after its report at least.
    """
    stop = len(trace) if end is None else end
    state = np.zeros((len(trace.names), module.row_bytes), dtype=np.uint8)
    score = np.zeros(stop, dtype=np.int64)
    memos: dict[int, int] = {}
    held: list[Telling] = []
    place = 0
    for start in range(0, stop, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, stop))
        now_ms = int(trace.time_ms[rows[-1]])
        while place < len(tellings) and tellings[place].time_ms <= now_ms:
            held.append(tellings[place])
            place += 1
        due, held = _take_due(held, int(rows[-1]))
        about = np.array([entry.row for entry in due], dtype=np.int64)
        named = (trace.sender[rows], trace.receiver[rows], trace.sender[about], trace.receiver[about])
        accounts, index = np.unique(np.concatenate(named), return_inverse=True)
        n, m = len(rows), len(about)
        transactions = TransferColumns(index[:n], index[n : 2 * n], trace.amount[rows], trace.time_ms[rows])
        reports = ReportColumns(
            index[2 * n : 2 * n + m],
            index[2 * n + m :],
            trace.amount[about],
            trace.time_ms[about],
            np.where(about < start, score[about], 0),
            is_withdrawn=np.array([entry.is_withdrawn for entry in due], dtype=np.bool_),
            memo=np.array([entry.is_withdrawn and memos[entry.row] for entry in due], dtype=np.uint8),
            is_repeated=np.array([entry.is_repeated for entry in due], dtype=np.bool_),
        )
        verdicts, new_rows = module.evaluate(transactions, reports, ModuleView(state[accounts], OBSERVE_ONLY))
        state[accounts] = new_rows
        score[rows] = verdicts.score
        for number, entry in enumerate(due):
            if not entry.is_withdrawn:
                memos[entry.row] = 0 if verdicts.memo is None else int(verdicts.memo[number])
    return score


def _take_due(held: Sequence[Telling], last_row: int) -> tuple[list[Telling], list[Telling]]:
    """What a block that ends with `last_row` is told, and what waits: rows to come, and what comes after a new
    report of the same row in this block."""
    due: list[Telling] = []
    left: list[Telling] = []
    bound: set[int] = set()  # rows of which this block is told no more
    for entry in held:
        if entry.row > last_row or entry.row in bound:
            left.append(entry)
            bound.add(entry.row)
            continue
        due.append(entry)
        if not entry.is_withdrawn:
            bound.add(entry.row)
    return due, left


def add_payments(
    trace: Trace,
    time_ms: NDArray[np.int64],
    receiver: NDArray[np.int64],
    amount: NDArray[np.int64],
    payers: int,
) -> tuple[Trace, NDArray[np.bool_]]:
    """The trace with more payments, clean ones, by `payers` new accounts in turn; and which rows they are."""
    count, known = len(time_ms), len(trace.names)
    sender = known + np.arange(count) % payers
    times = np.concatenate((trace.time_ms, time_ms))
    order = np.argsort(times, kind="stable")
    fraud = np.zeros(len(trace), dtype=np.uint8) if trace.fraud is None else trace.fraud
    pattern = np.zeros(len(trace), dtype=np.uint8) if trace.pattern is None else trace.pattern
    none = np.zeros(count, dtype=np.uint8)
    joined = replace(
        trace,
        time_ms=times[order],
        sender=np.concatenate((trace.sender, sender))[order],
        receiver=np.concatenate((trace.receiver, receiver))[order],
        amount=np.concatenate((trace.amount, amount))[order],
        fraud=np.concatenate((fraud, none))[order],
        pattern=np.concatenate((pattern, none))[order],
        names=(*trace.names, *(f"payer {number}" for number in range(payers))),
    )
    return joined, order >= len(trace)
