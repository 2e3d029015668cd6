"""What a block's transactions and reports are to modules: columns of numbers, one row each.

Invariant: accounts are named by their place in `index`, the same in all columns of a block and in the rows
that go with them; times and amounts are int64 as they stand in the transactions.
Leaves out: the modules' answers (judging.py), and where rows come from in a block (work.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.cases import Reported
from consensus.ledger.judging import Panel
from consensus.ledger.scoring import ReportColumns, TransferColumns
from consensus.ledger.state import ROW_FIXED_BYTES, View
from consensus.transaction import Transaction


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


def read_columns(
    view: View, transactions: Sequence[Transaction]
) -> tuple[TransferColumns, NDArray[np.uint8]]:
    """Transactions beside each other in the next block: their columns, and uint8[accounts, room] of rows."""
    index: dict[bytes, int] = {}
    for tx in transactions:
        index.setdefault(tx.sender, len(index))
        index.setdefault(tx.receiver, len(index))
    slots = np.array(view.find_slots(tuple(index)), dtype=np.int64)
    return build_transfer_columns(transactions, index), view.read_rows(slots)[:, ROW_FIXED_BYTES:]
