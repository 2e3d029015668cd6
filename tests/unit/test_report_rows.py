"""A report that is taken back leaves the rows as if it had not come; memos say what there is to undo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.ledger.scoring import ReportColumns, TransferColumns
from ml.definitions import DAY_MS, DEFAULT_DEFINITIONS, FeatureScale
from ml.features import observe

SCALE = FeatureScale(amount_edges=(1, 100, 1_000, 10_000, 100_000), large_amount=500_000)
NONE = np.zeros(0, dtype=np.int64)
NO_TRANSFERS = TransferColumns(NONE, NONE, NONE, NONE)
NO_REPORTS = ReportColumns(NONE, NONE, NONE, NONE, NONE)
Entry = tuple[int, int, int, int]  # sender, receiver, amount, time


def transfers(entries: list[Entry]) -> TransferColumns:
    sender, receiver, amount, time = np.array(entries, dtype=np.int64).reshape(-1, 4).T
    return TransferColumns(sender, receiver, amount, time)


def reports(entries: list[Entry]) -> ReportColumns:
    t = transfers(entries)
    score = np.zeros(len(entries), dtype=np.int64)
    return ReportColumns(t.sender, t.receiver, t.amount, t.timestamp_ms, score)


def empty_rows() -> np.ndarray:
    return np.zeros((4, DEFAULT_DEFINITIONS.row_bytes), dtype=np.uint8)


DAYS_MS = st.integers(20_000, 20_060).map(lambda day: day * DAY_MS)
PLAYED = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3_000) | st.just(10**6), DAYS_MS),
    min_size=1,
    max_size=30,
)


def _play(
    blocks: list[TransferColumns], told: dict[int, list[tuple[int, ReportColumns]]], skipped: int
) -> np.ndarray:
    """Rows after all blocks; told[i]: (number, report or withdrawal) after block i, without number `skipped`."""
    rows = empty_rows()
    memos: dict[int, np.ndarray] = {}
    for place, block in enumerate(blocks):
        for number, columns in [(-1, NO_REPORTS), *told.get(place, [])]:
            if number == skipped:
                continue
            is_back = bool(columns.is_withdrawn.any())
            told_now = replace(columns, memo=memos[number]) if is_back else columns
            transfers = block if number == -1 else NO_TRANSFERS
            seen = observe(transfers, told_now, rows, SCALE, DEFAULT_DEFINITIONS)
            memos[number] = seen.memo
            rows = seen.rows
    return rows


@given(PLAYED, st.data())
def test_a_report_that_is_taken_back_leaves_rows_as_if_it_had_not_come(
    played: list[Entry], data: st.DataObject
) -> None:
    """Of transfers that counted (none is late: they come in order of time); other reports stand beside it."""
    played.sort(key=lambda entry: entry[3])
    blocks = [transfers([entry]) for entry in played]
    told: dict[int, list[tuple[int, ReportColumns]]] = {}
    reported = data.draw(st.sets(st.integers(0, len(played) - 1), min_size=1, max_size=8), "reported")
    for number in sorted(reported):
        report = reports([played[number]])
        if data.draw(st.booleans(), "repeated"):
            report = replace(report, is_repeated=np.array([True]))
        at = data.draw(st.integers(number, len(played) - 1), "filed")
        told.setdefault(at, []).append((number, report))
    taken_back = data.draw(st.sampled_from(sorted(reported)), "taken back")
    filed = next(at for at, entries in told.items() if any(n == taken_back for n, _ in entries))
    withdrawal = replace(reports([played[taken_back]]), is_withdrawn=np.array([True]))
    at = data.draw(st.integers(filed, len(played) - 1), "withdrawn")
    told.setdefault(at, []).append((taken_back, withdrawal))
    assert np.array_equal(_play(blocks, told, -2), _play(blocks, told, taken_back))


def test_the_long_form_of_reports_is_the_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    entries = [
        (int(a), int(b), int(c), (20_000 + int(d)) * DAY_MS)
        for a, b, c, d in generator.integers(0, (4, 4, 900, 3), (60, 4))
    ]
    rows = observe(transfers(entries), NO_REPORTS, empty_rows(), SCALE)
    short = observe(NO_TRANSFERS, reports(entries[:30]), rows.rows, SCALE)
    monkeypatch.setattr("ml.rings.COUNTER_MAX", 0)  # nothing fits: the long form runs, and stains nobody
    long = observe(NO_TRANSFERS, reports(entries[:30]), rows.rows, SCALE)
    assert (long.memo & 1).tolist() == (short.memo & 1).tolist()
    assert not (long.memo & 2).any()


def test_a_day_with_more_reports_than_transfers_gives_back_only_what_was_taken() -> None:
    entry = (0, 1, 50, 20_000 * DAY_MS)
    rows = observe(transfers([entry]), NO_REPORTS, empty_rows(), SCALE)
    twice = observe(NO_TRANSFERS, reports([entry, entry]), rows.rows, SCALE)
    assert (twice.memo & 1).tolist() == [1, 0]
    both = replace(reports([entry, entry]), is_withdrawn=np.array([True, True]), memo=twice.memo)
    assert np.array_equal(observe(NO_TRANSFERS, both, twice.rows, SCALE).rows, rows.rows)
