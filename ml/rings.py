"""The receiver's part of a row: rings of days, and what a model's features read off them.

Per day: transactions not reported, and *unexplained* reports, which nothing about the sender or the amount
accounts for, and which do not repeat what the same sender's said before. A day is clean once the label delay is over and something in it was not reported.

Invariant: all transactions of one day see the same of their receiver, so block borders change nothing. One
that comes when its day is already past the label delay counts nowhere: nobody is whitewashed backwards.
A report that is withdrawn leaves the rings as if it had not come, while they hold its day, with two
exceptions: a day's counter that was full, or a day with more reports than counted transactions.
Leaves out: the sender's part (ml/features.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import TIME_MS_MAX
from consensus.errors import Fault
from consensus.ledger.scoring import ReportColumns
from ml.definitions import (
    BYTE_MAX,
    COUNTER_MAX,
    DAY_MS,
    Bytes,
    Definitions,
    Feature,
    FeatureScale,
    Int64s,
    RowRules,
)
from ml.segments import DaySegment

TOOK_CLEAN: Final = 1  # in a report's memo: the day has one clean transaction less
STAINED: Final = 2  # and one unexplained report more
AMOUNT_MAX: Final = 2**40 - 1  # larger amounts count as this; bounds the sums of features.py
CHUNK_ACCOUNTS: Final = 128  # rings worked on at once: arrays small enough that freeing them unmaps no pages


def load_rows(rows: Bytes, accounts: Int64s, rules: RowRules) -> NDArray[np.void]:
    """A copy of the accounts' rows, by field. As bytes: NumPy copies records field by field, 5 times slower."""
    return rows[accounts].view(rules.row).reshape(-1)


def store_rows(rows: Bytes, accounts: Int64s, row: NDArray[np.void]) -> None:
    """Put the accounts' rows back where load_rows took them."""
    rows[accounts] = row.view(np.uint8).reshape(len(accounts), row.itemsize)


def count_elapsed(stored_day: NDArray[np.uint32], day: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
    """Days since the stored newest day (0 for a fresh row: its rings are empty), and which are fresh."""
    fresh = stored_day == 0
    return np.where(fresh, 0, day + 1 - stored_day.astype(np.int64)), fresh


def observe_receivers(rows: Bytes, segment: DaySegment, day: Int64s, definitions: Definitions) -> Bytes:
    """uint8[m, R]: the receiver's features of each of a segment's transactions; updates `rows`."""
    rules, u = definitions.rules, len(segment.account)
    described = np.empty((u, len(definitions.of_receiver)), dtype=np.uint8)
    young = segment.day[segment.owner] - day < rules.mature_days
    place = segment.owner[young] * rules.ring_days + day[young] % rules.ring_days
    places, arrived = np.unique(place, return_counts=True)
    for low in range(0, u, CHUNK_ACCOUNTS):
        chunk = slice(low, low + CHUNK_ACCOUNTS)
        row = load_rows(rows, segment.account[chunk], rules)
        elapsed, _ = count_elapsed(row["receiver_day"], segment.day[chunk])
        age = rules.ring_age[
            segment.day[chunk] % rules.ring_days
        ]  # of each slot's day, and the slot of each age
        current = age >= elapsed[:, None]
        unreported = np.where(current, row["unreported"], 0)
        unexplained = np.where(current, row["unexplained"], 0)
        by_age = age + np.arange(len(age))[:, None] * rules.ring_days
        clean = unreported.take(by_age).astype(np.int32)
        clean[:, : rules.mature_days] = 0
        stain = unexplained.take(by_age).astype(np.int32)
        described[chunk] = _describe_rings(clean, stain, definitions.of_receiver)

        first, end = np.searchsorted(
            places, (low * rules.ring_days, (low + CHUNK_ACCOUNTS) * rules.ring_days)
        )
        slots = places[first:end] - low * rules.ring_days
        counts = unreported.reshape(-1)
        counts[slots] = np.minimum(counts[slots] + arrived[first:end], COUNTER_MAX)
        row["unreported"] = unreported
        row["unexplained"] = unexplained
        row["receiver_day"] = segment.day[chunk] + 1
        store_rows(rows, segment.account[chunk], row)
    return described[segment.owner]


def _describe_rings(
    clean: NDArray[np.int32], stain: NDArray[np.int32], features: tuple[Feature, ...]
) -> Bytes:
    """uint8[u, R] from clean transactions and unexplained reports by age, int32[u, ring_days] each.

    Sums stay below 48 * 2^16 < 2^22. An age of 255 means there is none.
    """
    u, days = clean.shape
    each = np.arange(u)
    has_clean = clean > 0
    has_stain = stain > 0
    any_clean = has_clean.any(axis=1)
    any_stain = has_stain.any(axis=1)
    clean_age = np.where(any_clean, has_clean.argmax(axis=1), days)
    newest = np.where(any_stain, has_stain.argmax(axis=1), days)
    oldest = np.where(any_stain, days - 1 - has_stain[:, ::-1].argmax(axis=1), days)
    clean_before = np.zeros((u, days + 1), dtype=np.int32)  # [i, a]: clean at ages below a
    np.cumsum(clean, axis=1, out=clean_before[:, 1:])
    stain_before = np.zeros((u, days + 1), dtype=np.int32)
    np.cumsum(stain, axis=1, out=stain_before[:, 1:])
    in_run = has_stain & (clean_age[:, None] > np.arange(days, dtype=np.int32))
    run_age = np.where(in_run.any(axis=1), days - 1 - in_run[:, ::-1].argmax(axis=1), BYTE_MAX)
    since = clean_before[each, newest]
    described = np.empty((u, len(features)), dtype=np.uint8)
    for number, feature in enumerate(features):
        match feature.kind:
            case "run_reports":
                column = np.minimum(stain_before[each, clean_age], BYTE_MAX)
            case "run_age_days":
                column = run_age
            case "clean_age_days":
                column = np.where(any_clean, clean_age, BYTE_MAX)
            case "reports" | "clean":
                first, end = feature.arguments
                before = stain_before if feature.kind == "reports" else clean_before
                column = np.minimum(before[:, end] - before[:, first], BYTE_MAX)
            case "newest_report_age_days":
                column = np.where(any_stain, newest, BYTE_MAX)
            case "oldest_report_age_days":
                column = np.where(any_stain, oldest, BYTE_MAX)
            case "clean_since":
                column = np.minimum(since, BYTE_MAX)
            case "clean_between":
                between = np.where(any_stain, clean_before[each, oldest] - since, 0)
                column = np.minimum(between, BYTE_MAX)
            case kind:
                raise Fault(f"no rule computes features of kind {kind!r}")
        described[:, number] = column
    return described


def apply_reports(
    rows: Bytes, reports: ReportColumns, scale: FeatureScale, definitions: Definitions
) -> Bytes:
    """uint8[m], what each did (TOOK_CLEAN, STAINED): takes reported transactions out of the clean ones, and
    stains receivers by the unexplained; one that is withdrawn undoes what its memo says it did."""
    rules = definitions.rules
    memo = np.zeros(len(reports), dtype=np.uint8)
    day = np.clip(reports.timestamp_ms, 0, TIME_MS_MAX) // DAY_MS
    unexplained = ~_is_explained(rows, reports, scale, rules) & ~reports.is_repeated
    newest = load_rows(rows, reports.receiver, rules)["receiver_day"].astype(np.int64) - 1
    age = newest - day
    kept = (age >= 0) & (age < rules.ring_days)  # older ones have left the ring, newer ones were never in it
    account = reports.receiver[kept]
    slot = day[kept] % rules.ring_days
    touched, owner = np.unique(account, return_inverse=True)
    row = load_rows(rows, touched, rules)
    counts = row["unreported"].astype(np.int64)
    np.subtract.at(counts, (owner, slot), 1)
    stains = row["unexplained"].astype(np.int64)
    stained = unexplained[kept]
    np.add.at(stains, (owner, slot), stained.astype(np.int64))
    if counts.min(initial=0) < 0 or stains.max(initial=0) > COUNTER_MAX or reports.is_withdrawn.any():
        done = _apply_each(row, reports, np.flatnonzero(kept), owner, slot, stained)
    else:
        row["unreported"], row["unexplained"] = counts, stains
        done = (TOOK_CLEAN | STAINED * stained).astype(np.uint8)
    memo[kept] = done
    store_rows(rows, touched, row)
    return memo


def _apply_each(
    row: NDArray[np.void],
    reports: ReportColumns,
    place: Int64s,
    owner: Int64s,
    slot: Int64s,
    stained: NDArray[np.bool_],
) -> Bytes:
    """The same one after another, where the order counts; the rule that the sums above are the short form of."""
    done = np.zeros(len(place), dtype=np.uint8)
    for number, at in enumerate(place):
        where = owner[number], slot[number]
        counts, stains = int(row["unreported"][where]), int(row["unexplained"][where])
        if reports.is_withdrawn[at]:
            memo = int(reports.memo[at])
            row["unreported"][where] = min(counts + (memo & TOOK_CLEAN > 0), COUNTER_MAX)
            row["unexplained"][where] = max(stains - (memo & STAINED > 0), 0)
            continue
        memo = TOOK_CLEAN * (counts > 0) | STAINED * (bool(stained[number]) and stains < COUNTER_MAX)
        row["unreported"][where] = counts - (memo & TOOK_CLEAN > 0)
        row["unexplained"][where] = stains + (memo & STAINED > 0)
        done[number] = memo
    return done


def _is_explained(
    rows: Bytes, reports: ReportColumns, scale: FeatureScale, rules: RowRules
) -> NDArray[np.bool_]:
    row = load_rows(rows, reports.sender, rules)
    count = row["count"].astype(np.int64)
    mean = row["sum"].astype(np.int64) // np.maximum(count, 1)
    amount = np.clip(reports.amount, 0, AMOUNT_MAX)
    deviates = (count > 0) & (2 * amount > 5 * mean)
    return deviates | (reports.amount >= scale.large_amount)
