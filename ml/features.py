"""The bytes of a transaction that a model reads, and the row an account keeps for them.

An account's row has a sender's part (a decayed mean of its amounts, a ring of days of how far amounts
exceeded it) and a receiver's part (ml/rings.py). Which features there are, and over which windows, the
model says (ml/definitions.py). A row of zeros is an account nothing is known about.

Invariants: integers only. A transaction's features depend on the parent's rows and on earlier
transactions that share an account with it; cutting a block in two anywhere changes nothing (what
amounts are winsorised by is fixed when a sender's day begins, not when a block does). A late
transaction counts in its own day's slot and never turns a ring back. Nothing can overflow: the
bounds stand beside the constants. Reports take effect after the block's transfers.
Leaves out: who may report, once-only reports, the window they may come in (the ledger's affair).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import TIME_MS_MAX
from consensus.ledger.scoring import ReportColumns, TransferColumns
from ml.definitions import (
    BYTE_MAX,
    COUNTER_MAX,
    DAY_MS,
    DECAY_DAYS,
    DEFAULT_DEFINITIONS,
    Bytes,
    Definitions,
    FeatureScale,
    Int64s,
)
from ml.rings import (
    AMOUNT_MAX,
    apply_reports,
    count_elapsed,
    load_rows,
    observe_receivers,
    store_rows,
)
from ml.segments import DaySegment, cut_days

COUNT_ONE: Final = 2**8  # one transaction in the decayed count: eight bits below the point
COUNT_DAWN_MAX: Final = 2**12 * COUNT_ONE  # what a day may begin with; more is halved, with the sum
COUNT_MAX: Final = 2**13 * COUNT_ONE  # where a day stops adding: sum < 2^(40+8+13) = 2^61
EVIDENCE_ONE_MAX: Final = 255  # by one transaction, in sixteenths of a mean
RATIO_MAX: Final = 2**20 - 1
RATIO_UNKNOWN_64: Final = 64  # of a sender of whom nothing is known: as if the amount were the mean


def _ratio_edges() -> Int64s:
    """255 edges in 64ths of a mean: exact below one mean, then steps of a 32nd, up to 277 means."""
    edges = [1]
    while len(edges) < BYTE_MAX:
        edges.append(edges[-1] + max(1, edges[-1] // 32))
    return np.array(edges, dtype=np.int64)


RATIO_EDGES: Final = _ratio_edges()


@dataclass(frozen=True, slots=True)
class Observation:
    """features: uint8[n, F]; ratio_64: amount over mean in 64ths, mean_16: the sender's mean in 16ths
    (0 = unknown), both int64[n]; rows: uint8[k, row_bytes], the new rows; memo: uint8[m], what each report did."""

    features: Bytes
    ratio_64: Int64s
    mean_16: Int64s
    rows: Bytes
    memo: Bytes


def describe_row(row: bytes, definitions: Definitions = DEFAULT_DEFINITIONS) -> dict[str, int]:
    """What an account's row says, by name; amounts in smallest units, days since the epoch.

    A mean of 0 and a day of -1 stand for "never".
    """
    state = np.frombuffer(row, dtype=definitions.rules.row)[0]
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
    transactions: TransferColumns,
    reports: ReportColumns,
    rows: Bytes,
    scale: FeatureScale,
    definitions: Definitions = DEFAULT_DEFINITIONS,
) -> Observation:
    """The features of a block's n transactions in order, and the k touched accounts' rows after it."""
    new_rows = np.array(rows, dtype=np.uint8, order="C")
    state = new_rows.view(definitions.rules.row).reshape(-1)
    n = len(transactions)
    features = np.zeros((n, len(definitions)), dtype=np.uint8)
    ratio_64 = np.zeros(n, dtype=np.int64)
    mean_16 = np.zeros(n, dtype=np.int64)
    time = np.clip(transactions.timestamp_ms, 0, TIME_MS_MAX)
    day = time // DAY_MS
    amount = np.clip(transactions.amount, 0, AMOUNT_MAX)
    of_sender = definitions.of_sender
    for segment in cut_days(transactions.sender, day, state["sender_day"]):
        at = segment.at
        seen = _observe_senders(new_rows, segment, amount[at], time[at], definitions)
        ratio_64[at], mean_16[at] = seen.ratio_64, seen.mean_16
        for number, feature in enumerate(of_sender):
            if feature.kind != "amount":
                features[at, number] = seen.columns[feature.kind, feature.arguments]
    for number, feature in enumerate(of_sender):
        if feature.kind == "amount":
            features[:, number] = np.searchsorted(scale.edges, transactions.amount, side="right")
    for segment in cut_days(transactions.receiver, day, state["receiver_day"]):
        features[segment.at, len(of_sender) :] = observe_receivers(
            new_rows, segment, day[segment.at], definitions
        )
    memo = apply_reports(new_rows, reports, scale, definitions) if len(reports) else _NO_MEMO
    return Observation(features, ratio_64, mean_16, new_rows, memo)


_NO_MEMO: Final = np.zeros(0, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class _SeenOfSenders:
    """Of a segment's m transactions: as in Observation, and a byte by (kind, arguments)."""

    ratio_64: Int64s
    mean_16: Int64s
    columns: dict[tuple[str, tuple[int, ...]], Int64s]


def _observe_senders(
    rows: Bytes, segment: DaySegment, amount: Int64s, time: Int64s, definitions: Definitions
) -> _SeenOfSenders:
    """What the senders' rows say of a segment's transactions; updates `rows`."""
    rules = definitions.rules
    row = load_rows(rows, segment.account, rules)
    day = time // DAY_MS
    elapsed, fresh = count_elapsed(row["sender_day"], segment.day)
    count = row["count"].astype(np.int64)
    total = row["sum"].astype(np.int64)
    keep = rules.decay[np.minimum(elapsed, DECAY_DAYS)]
    count = count * keep + 2**15 >> 16  # rounded: flooring a small count would lift its mean
    total = (total >> 16) * keep + ((total & 0xFFFF) * keep + 2**15 >> 16)  # exact, below 2^62 throughout
    halve = ((elapsed > 0) & (count > COUNT_DAWN_MAX)).astype(np.int64)
    count >>= halve
    total >>= halve
    limit = np.where(
        count > 0, np.minimum(rules.winsor_means * (total // np.maximum(count, 1)), AMOUNT_MAX), AMOUNT_MAX
    )
    limit = np.where((elapsed > 0) | fresh, limit, row["winsor"].astype(np.int64))
    age = rules.evidence_age[segment.day % rules.evidence_days]  # of each slot's day
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
    mean_16 = np.where(count_before > 0, mean_16, 0)
    ratio = _divide(amount, mean_16, count_before > 0)

    late = segment.day[owner] - day  # >= 0
    excess = np.clip((ratio - rules.evidence_ratio_64) >> 2, 0, EVIDENCE_ONE_MAX)
    excess[late >= rules.evidence_days] = 0
    columns: dict[tuple[str, tuple[int, ...]], Int64s] = {}
    columns["sent_lately", ()] = _count_lately(row, segment, time, rules.lately_ms)
    for kind, arguments in ((feature.kind, feature.arguments) for feature in definitions.of_sender):
        if kind == "amount_over_mean":
            columns[kind, arguments] = np.searchsorted(RATIO_EDGES, ratio, side="right")
        elif kind == "evidence":
            window = np.where(age < arguments[0], ring, 0).sum(axis=1)
            seen = np.where(late < arguments[0], excess, 0)
            columns[kind, arguments] = np.minimum((window[owner] + segment.sum_before(seen)) >> 2, BYTE_MAX)
        elif kind == "sent_count":
            columns[kind, arguments] = np.minimum(count_before // COUNT_ONE, BYTE_MAX)

    np.add.at(ring, (owner, day % rules.evidence_days), excess)
    row["sum"] = total + segment.sum_all(added)
    row["count"] = count + segment.sum_all(weight)
    row["winsor"] = limit
    row["sender_day"] = segment.day + 1
    row["evidence"] = np.minimum(ring, COUNTER_MAX)
    store_rows(rows, segment.account, row)
    return _SeenOfSenders(ratio, mean_16, columns)


def compute_ratios(amount: Int64s, mean_16: int, known: bool) -> Int64s:
    """int64[n]: amounts over one sender's mean (in 16ths, if it is known), in 64ths of it."""
    clipped = np.clip(amount, 0, AMOUNT_MAX)
    return _divide(clipped, np.full(len(clipped), mean_16), np.full(len(clipped), known))


def _divide(amount: Int64s, mean_16: Int64s, known: NDArray[np.bool_]) -> Int64s:
    ratio = np.minimum((amount << 10) // np.maximum(mean_16, 1), RATIO_MAX)
    return np.where(known, ratio, RATIO_UNKNOWN_64)


def _count_lately(row: NDArray[np.void], segment: DaySegment, time: Int64s, lately_ms: int) -> Int64s:
    """How many the sender sent before in the same span, as a byte; updates `row`.

    Late transactions count in its newest span, so that no timestamp starts the count anew.
    """
    owner = segment.owner
    stored = row["lately"].astype(np.int64)
    span = np.maximum(time // lately_ms + 1, stored[owner])
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


assert COUNTER_MAX >= BYTE_MAX << 2  # a ring that is full gives the byte's maximum, in block or out of it
