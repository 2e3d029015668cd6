"""Twelve one-byte features of a transaction, and the 226 bytes an account keeps for them.

An account's row has a sender's part (a decayed mean of its amounts, sixteen days of how far amounts
exceeded it) and a receiver's part (forty days of transactions not reported and of reports that
nothing about the sender explains). A row of zeros is an account nothing is known about.

Invariants: integers only. A transaction's features depend on the parent's rows and on earlier
transactions that share an account with it; cutting a block in two anywhere changes nothing (what
amounts are winsorised by is fixed when a sender's day begins, not when a block does). A late
transaction counts in its own day's slot and never turns a ring back. Nothing can overflow: the
bounds stand beside the constants. Reports take effect after the block's transfers.
Leaves out: who may report, once-only reports, the window they may come in (the ledger's affair).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import TIME_MS_MAX
from consensus.ledger.scoring import ReportColumns, TransferColumns
from ml.segments import DaySegment, cut_days

FEATURES_VERSION: Final = 1  # raise it with any change that changes a feature's value or a row's bytes

DAY_MS: Final = 86_400_000
LATELY_MS: Final = 600_000  # ten minutes: what counts as a burst; divides a day (times are below 2^48)
AMOUNT_MAX: Final = 2**40 - 1  # larger amounts count as this; bounds the sums below
COUNT_ONE: Final = 2**8  # one transaction in the decayed count: eight bits below the point
COUNT_DAWN_MAX: Final = 2**12 * COUNT_ONE  # what a day may begin with; more is halved, with the sum
COUNT_MAX: Final = 2**13 * COUNT_ONE  # where a day stops adding: sum < 2^(40+8+13) = 2^61
DECAY_DAYS: Final = 1024  # after so many silent days nothing is left of a mean
WINSOR: Final = 3  # an amount adds at most so many means to the mean
EVIDENCE_DAYS: Final = 16  # slots of the sender's ring
EVIDENCE_WINDOW_DAYS: Final = 14
EVIDENCE_RATIO_64: Final = 160  # amounts above 2.5 means are evidence
EVIDENCE_ONE_MAX: Final = 255  # by one transaction, in sixteenths of a mean
RING_DAYS: Final = 40  # slots of the receiver's rings; 28 are too few
LABEL_DELAY_DAYS: Final = 7  # a report may come so long after its transaction
MATURE_DAYS: Final = LABEL_DELAY_DAYS + 1  # age at which a whole day is past the label delay
CHUNK_ACCOUNTS: Final = 128  # rings worked on at once: arrays small enough that freeing them unmaps no pages
RATIO_MAX: Final = 2**20 - 1
COUNTER_MAX: Final = 2**16 - 1
BYTE_MAX: Final = 255

ROW: Final = np.dtype(
    [
        ("sum", "<u8"),  # decayed sum of winsorised amounts, times COUNT_ONE
        ("count", "<u4"),  # decayed count, times COUNT_ONE
        ("sender_day", "<u4"),  # newest day as a sender, plus one; 0 = never sent
        ("winsor", "<u8"),  # the largest amount that counts in full today
        ("lately", "<u4"),  # newest ten minutes as a sender, plus one
        ("sent_lately", "<u2"),  # sent in them
        ("evidence", "<u2", (EVIDENCE_DAYS,)),  # slot = day modulo 16
        ("receiver_day", "<u4"),  # newest day as a receiver, plus one; 0 = never received
        ("unreported", "<u2", (RING_DAYS,)),  # slot = day modulo 40
        ("unexplained", "<u2", (RING_DAYS,)),
    ]
)
ROW_BYTES: Final = ROW.itemsize  # 226

FEATURE_NAMES: Final = (
    "amount",
    "amount_over_mean",
    "evidence",
    "sent_lately",
    "run_reports",
    "run_age_days",
    "clean_age_days",
    "reports",
    "newest_report_age_days",
    "oldest_report_age_days",
    "clean_since",
    "clean_between",
)
FEATURES: Final = len(FEATURE_NAMES)
SENDER_FEATURES: Final = 4  # the first four; the rest describe the receiver

Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def _decay_table() -> Int64s:
    value, table = 2**16, []
    for _ in range(DECAY_DAYS):
        table.append(value)
        value = value * 63 // 64  # any rate from 31/32 to 127/128 did as well
    return np.array([*table, 0], dtype=np.int64)


def _ratio_edges() -> Int64s:
    """255 edges in 64ths of a mean: exact below one mean, then steps of a 32nd, up to 277 means."""
    edges = [1]
    while len(edges) < BYTE_MAX:
        edges.append(edges[-1] + max(1, edges[-1] // 32))
    return np.array(edges, dtype=np.int64)


DECAY: Final = _decay_table()
RATIO_EDGES: Final = _ratio_edges()
_RING_AGES: Final = np.arange(RING_DAYS, dtype=np.int32)


def _age_table(slots: int) -> Int64s:
    """[d, s]: how old slot s is on a day d modulo `slots`; which is also the slot that is s days old.

    A table, because dividing forty times a transaction would cost more than all the rest.
    """
    number = np.arange(slots, dtype=np.int64)
    return (number[:, None] - number) % slots


_EVIDENCE_AGE: Final = _age_table(EVIDENCE_DAYS)
_RING_AGE: Final = _age_table(RING_DAYS)


@dataclass(frozen=True)
class FeatureScale:
    """What training learns about a chain's amounts; part of the model artifact.

    amount_edges: at most 255, rising: the `amount` byte is how many edges an amount reaches.
    large_amount: an amount that by itself explains a report (so that its receiver is not stained).
    """

    amount_edges: tuple[int, ...]
    large_amount: int

    @cached_property
    def edges(self) -> Int64s:
        return np.array(self.amount_edges, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Observation:
    """features: uint8[n, 12]; ratio_64: amount over mean in 64ths, mean_16: the sender's mean in 16ths
    (0 = unknown), both int64[n]; rows: uint8[k, 226], the new rows."""

    features: Bytes
    ratio_64: Int64s
    mean_16: Int64s
    rows: Bytes


def describe_row(row: bytes) -> dict[str, int]:
    """What an account's row (ROW_BYTES bytes) says, by name; amounts in smallest units, days since the epoch.

    A mean of 0 and a day of -1 stand for "never".
    """
    state = np.frombuffer(row, dtype=ROW)[0]
    count = int(state["count"])
    return {
        "mean_amount": int(state["sum"]) // count if count else 0,
        "sent_day": int(state["sender_day"]) - 1,
        "evidence_sixteenths": int(state["evidence"].astype(np.int64).sum()),
        "received_day": int(state["receiver_day"]) - 1,
        "received_unreported": int(state["unreported"].astype(np.int64).sum()),
        "reports_unexplained": int(state["unexplained"].astype(np.int64).sum()),
    }


def observe(
    transactions: TransferColumns, reports: ReportColumns, rows: Bytes, scale: FeatureScale
) -> Observation:
    """The features of a block's n transactions in order, and the k touched accounts' rows after it."""
    new_rows = np.array(rows, dtype=np.uint8, order="C")
    state = new_rows.view(ROW).reshape(-1)
    n = len(transactions)
    features = np.zeros((n, FEATURES), dtype=np.uint8)
    ratio_64 = np.zeros(n, dtype=np.int64)
    mean_16 = np.zeros(n, dtype=np.int64)
    time = np.clip(transactions.timestamp_ms, 0, TIME_MS_MAX)
    day = time // DAY_MS
    amount = np.clip(transactions.amount, 0, AMOUNT_MAX)
    features[:, 0] = np.searchsorted(scale.edges, transactions.amount, side="right")
    for segment in cut_days(transactions.sender, day, state["sender_day"]):
        at = segment.at
        ratio, mean, evidence, recent = _observe_senders(new_rows, segment, amount[at], time[at])
        ratio_64[at], mean_16[at] = ratio, mean
        features[at, 1] = np.searchsorted(RATIO_EDGES, ratio, side="right")
        features[at, 2] = evidence
        features[at, 3] = recent
    for segment in cut_days(transactions.receiver, day, state["receiver_day"]):
        features[segment.at, SENDER_FEATURES:] = _observe_receivers(new_rows, segment, day[segment.at])
    if len(reports):
        _apply_reports(new_rows, reports, scale)
    return Observation(features, ratio_64, mean_16, new_rows)


def _load(rows: Bytes, accounts: Int64s) -> NDArray[np.void]:
    """A copy of the accounts' rows, by field. As bytes: NumPy copies records field by field, 5 times slower."""
    return rows[accounts].view(ROW).reshape(-1)


def _store(rows: Bytes, accounts: Int64s, row: NDArray[np.void]) -> None:
    rows[accounts] = row.view(np.uint8).reshape(-1, ROW_BYTES)


def _observe_senders(
    rows: Bytes, segment: DaySegment, amount: Int64s, time: Int64s
) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Ratio to the mean in 64ths, mean in 16ths, evidence byte, transactions lately (a byte), each
    int64[m]; updates `rows`."""
    row = _load(rows, segment.account)
    day = time // DAY_MS
    elapsed, fresh = _elapsed(row["sender_day"], segment.day)
    count = row["count"].astype(np.int64)
    total = row["sum"].astype(np.int64)
    keep = DECAY[np.minimum(elapsed, DECAY_DAYS)]
    count = count * keep + 2**15 >> 16  # rounded: flooring a small count would lift its mean
    total = (total >> 16) * keep + ((total & 0xFFFF) * keep + 2**15 >> 16)  # exact, below 2^62 throughout
    halve = ((elapsed > 0) & (count > COUNT_DAWN_MAX)).astype(np.int64)
    count >>= halve
    total >>= halve
    limit = np.where(count > 0, np.minimum(WINSOR * (total // np.maximum(count, 1)), AMOUNT_MAX), AMOUNT_MAX)
    limit = np.where((elapsed > 0) | fresh, limit, row["winsor"].astype(np.int64))
    age = _EVIDENCE_AGE[segment.day % EVIDENCE_DAYS]  # of each slot's day
    ring = np.where(age < elapsed[:, None], 0, row["evidence"].astype(np.int64))

    owner = segment.owner
    weight = np.where(count[owner] + segment.place * COUNT_ONE < COUNT_MAX, COUNT_ONE, 0)
    added = np.minimum(amount, limit[owner]) * weight
    count_before = count[owner] + segment.sum_before(weight)
    total_before = total[owner] + segment.sum_before(added)
    divisor = np.maximum(count_before, 1)
    mean_16 = np.where(  # the shift must not leave 63 bits
        total_before < 2**58, (total_before << 4) // divisor, (total_before // divisor) << 4
    )
    ratio = np.minimum((amount << 10) // np.maximum(mean_16, 1), RATIO_MAX)
    ratio = np.where(count_before > 0, ratio, 64)  # nothing known: as if it were the mean

    late = segment.day[owner] - day  # >= 0
    excess = np.clip((ratio - EVIDENCE_RATIO_64) >> 2, 0, EVIDENCE_ONE_MAX)
    excess[late >= EVIDENCE_DAYS] = 0
    window = np.where(age < EVIDENCE_WINDOW_DAYS, ring, 0).sum(axis=1)
    seen = np.where(late < EVIDENCE_WINDOW_DAYS, excess, 0)
    evidence = np.minimum((window[owner] + segment.sum_before(seen)) >> 2, BYTE_MAX)

    recent = _count_lately(row, segment, time)

    np.add.at(ring, (owner, day % EVIDENCE_DAYS), excess)
    row["sum"] = total + segment.sum_all(added)
    row["count"] = count + segment.sum_all(weight)
    row["winsor"] = limit
    row["sender_day"] = segment.day + 1
    row["evidence"] = np.minimum(ring, COUNTER_MAX)
    _store(rows, segment.account, row)
    return ratio, np.where(count_before > 0, mean_16, 0), evidence, recent


def _count_lately(row: NDArray[np.void], segment: DaySegment, time: Int64s) -> Int64s:
    """How many the sender sent before in the same ten minutes, as a byte; updates `row`.

    Late transactions count in its newest ten minutes, so that no timestamp starts the count anew.
    """
    owner = segment.owner
    stored = row["lately"].astype(np.int64)
    span = np.maximum(time // LATELY_MS + 1, stored[owner])
    span = np.maximum.accumulate((owner << 32) | span)  # a running maximum within each owner
    begins = np.concatenate(([True], span[1:] != span[:-1]))
    begin = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    span &= 2**32 - 1
    goes_on = span == stored[owner]
    before = np.where(goes_on, row["sent_lately"].astype(np.int64)[owner], 0)
    before += np.arange(len(owner)) - begin[run]
    last = np.append(segment.start[1:], len(owner)) - 1
    row["lately"] = span[last]
    row["sent_lately"] = np.minimum(before[last] + 1, COUNTER_MAX)
    return np.minimum(before, BYTE_MAX)


def _elapsed(stored_day: NDArray[np.uint32], day: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
    """Days since the stored newest day (0 for a fresh row: its rings are empty), and which are fresh."""
    fresh = stored_day == 0
    return np.where(fresh, 0, day + 1 - stored_day.astype(np.int64)), fresh


def _observe_receivers(rows: Bytes, segment: DaySegment, day: Int64s) -> Bytes:
    """uint8[m, 8]: what the receiver's rings say; updates `rows`.

    All transactions of one day see the same: they count in slots too young to be clean. One that comes
    when its day is already past the label delay counts nowhere, so nobody can be whitewashed backwards.
    """
    u = len(segment.account)
    described = np.empty((u, FEATURES - SENDER_FEATURES), dtype=np.uint8)
    young = segment.day[segment.owner] - day < MATURE_DAYS
    place = segment.owner[young] * RING_DAYS + day[young] % RING_DAYS
    places, arrived = np.unique(place, return_counts=True)
    for low in range(0, u, CHUNK_ACCOUNTS):
        chunk = slice(low, low + CHUNK_ACCOUNTS)
        row = _load(rows, segment.account[chunk])
        elapsed, _ = _elapsed(row["receiver_day"], segment.day[chunk])
        age = _RING_AGE[segment.day[chunk] % RING_DAYS]  # of each slot's day, and the slot of each age
        current = age >= elapsed[:, None]
        unreported = np.where(current, row["unreported"], 0)
        unexplained = np.where(current, row["unexplained"], 0)
        by_age = age + np.arange(len(age))[:, None] * RING_DAYS
        clean = unreported.take(by_age).astype(np.int32)
        clean[:, :MATURE_DAYS] = 0
        stain = unexplained.take(by_age).astype(np.int32)
        described[chunk] = _describe_rings(clean, stain)

        first, end = np.searchsorted(places, (low * RING_DAYS, (low + CHUNK_ACCOUNTS) * RING_DAYS))
        slots = places[first:end] - low * RING_DAYS
        counts = unreported.reshape(-1)
        counts[slots] = np.minimum(counts[slots] + arrived[first:end], COUNTER_MAX)
        row["unreported"] = unreported
        row["unexplained"] = unexplained
        row["receiver_day"] = segment.day[chunk] + 1
        _store(rows, segment.account[chunk], row)
    return described[segment.owner]


def _describe_rings(clean: NDArray[np.int32], stain: NDArray[np.int32]) -> Bytes:
    """uint8[u, 8] from clean transactions and unexplained reports by age, int32[u, 40] each.

    Sums stay below 40 * 2^16 < 2^22. An age of 255 means there is none.
    """
    u = len(clean)
    each = np.arange(u)
    has_clean = clean > 0
    has_stain = stain > 0
    any_clean = has_clean.any(axis=1)
    any_stain = has_stain.any(axis=1)
    clean_age = np.where(any_clean, has_clean.argmax(axis=1), RING_DAYS)
    newest = np.where(any_stain, has_stain.argmax(axis=1), RING_DAYS)
    oldest = np.where(any_stain, RING_DAYS - 1 - has_stain[:, ::-1].argmax(axis=1), RING_DAYS)
    clean_before = np.zeros((u, RING_DAYS + 1), dtype=np.int32)  # [i, a]: clean at ages below a
    np.cumsum(clean, axis=1, out=clean_before[:, 1:])
    stain_before = np.zeros((u, RING_DAYS + 1), dtype=np.int32)
    np.cumsum(stain, axis=1, out=stain_before[:, 1:])
    in_run = has_stain & (clean_age[:, None] > _RING_AGES)
    run_age = np.where(in_run.any(axis=1), RING_DAYS - 1 - in_run[:, ::-1].argmax(axis=1), BYTE_MAX)
    since = clean_before[each, newest]
    features = np.empty((u, FEATURES - SENDER_FEATURES), dtype=np.uint8)
    features[:, 0] = np.minimum(stain_before[each, clean_age], BYTE_MAX)
    features[:, 1] = run_age
    features[:, 2] = np.where(any_clean, clean_age, BYTE_MAX)
    features[:, 3] = np.minimum(stain_before[:, RING_DAYS], BYTE_MAX)
    features[:, 4] = np.where(any_stain, newest, BYTE_MAX)
    features[:, 5] = np.where(any_stain, oldest, BYTE_MAX)
    features[:, 6] = np.minimum(since, BYTE_MAX)
    features[:, 7] = np.minimum(np.where(any_stain, clean_before[each, oldest] - since, 0), BYTE_MAX)
    return features


def _apply_reports(rows: Bytes, reports: ReportColumns, scale: FeatureScale) -> None:
    """Take reported transactions out of the clean ones, and stain receivers by the unexplained."""
    day = np.clip(reports.timestamp_ms, 0, TIME_MS_MAX) // DAY_MS
    unexplained = ~_is_explained(rows, reports, scale)
    newest = _load(rows, reports.receiver)["receiver_day"].astype(np.int64) - 1
    age = newest - day
    kept = (age >= 0) & (age < RING_DAYS)  # older ones have left the ring, newer ones were never in it
    account = reports.receiver[kept]
    slot = day[kept] % RING_DAYS
    touched, owner = np.unique(account, return_inverse=True)
    row = _load(rows, touched)
    counts = row["unreported"].astype(np.int64)
    np.subtract.at(counts, (owner, slot), 1)
    stains = row["unexplained"].astype(np.int64)
    np.add.at(stains, (owner, slot), unexplained[kept].astype(np.int64))
    row["unreported"] = np.maximum(counts, 0)
    row["unexplained"] = np.minimum(stains, COUNTER_MAX)
    _store(rows, touched, row)


def _is_explained(rows: Bytes, reports: ReportColumns, scale: FeatureScale) -> NDArray[np.bool_]:
    row = _load(rows, reports.sender)
    count = row["count"].astype(np.int64)
    mean = row["sum"].astype(np.int64) // np.maximum(count, 1)
    amount = np.clip(reports.amount, 0, AMOUNT_MAX)
    deviates = (count > 0) & (2 * amount > 5 * mean)
    return deviates | (reports.amount >= scale.large_amount)
