"""Streams to try a validation module on: transfers and reports among few accounts, from a seed.

A stream is a list of blocks over one numbering of accounts. It is made to hurt: bursts, late and far days,
transfers to oneself, amounts of 0 and of all money, reports early and late, empty blocks.
Invariant: the same seed and sizes give the same stream. Leaves out: what is valid on some chain (balances,
nonces): a module never sees that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import MONEY_MAX, TIME_MS_MAX
from consensus.ledger.scoring import ReportColumns, TransferColumns

DAY_MS: Final = 86_400_000
FIRST_DAY: Final = 20_000
EXTREME_AMOUNTS: Final = (0, 1, 2**24, 2**31, 2**40, MONEY_MAX)
EXTREME_TIMES_MS: Final = (0, 1, FIRST_DAY * DAY_MS, 2**41, TIME_MS_MAX)

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """transfers: accounts by number. reported: int64[m], which transfers of the stream (counted from its first)
    the block's reports speak of."""

    transfers: TransferColumns
    reported: Int64s


@dataclass(frozen=True, slots=True)
class Stream:
    blocks: tuple[StreamBlock, ...]
    accounts: int

    def __len__(self) -> int:
        return sum(len(block.transfers) for block in self.blocks)

    def concatenate(self) -> TransferColumns:
        """All transfers as one block's columns."""
        return TransferColumns(
            *(
                np.concatenate([getattr(block.transfers, name) for block in self.blocks])
                for name in TransferColumns.__slots__
            )
        )

    def build_reports(self, block: StreamBlock, scores: Int64s) -> ReportColumns:
        """The block's reports, as the ledger would hand them over; scores: of the whole stream."""
        whole, reported = self.concatenate(), block.reported
        return ReportColumns(
            whole.sender[reported],
            whole.receiver[reported],
            whole.amount[reported],
            whole.timestamp_ms[reported],
            scores[reported],
        )


def make_stream(seed: int, *, blocks: int = 16, rows: int = 40, accounts: int = 24) -> Stream:
    """`blocks` blocks of up to `rows` transfers, some days apart."""
    random = np.random.Generator(np.random.PCG64(seed))
    made: list[StreamBlock] = []
    start, day = 0, FIRST_DAY
    for number in range(blocks):
        n = 0 if number == blocks // 2 else int(random.integers(1, rows + 1))
        day += int(random.integers(0, 4)) + (30 if number == blocks - 3 else 0)
        late = np.where(random.integers(0, 8, n) == 0, random.integers(1, 12, n), 0)
        amount = random.integers(1, 100, n) * 10 ** random.integers(0, 5, n)
        extreme = random.integers(0, 12, n) == 0
        amount = np.where(
            extreme, np.array(EXTREME_AMOUNTS)[random.integers(0, len(EXTREME_AMOUNTS), n)], amount
        )
        sender = random.integers(0, max(2, accounts // 3), n)  # few senders: bursts within a block
        time = (day - late) * DAY_MS + random.integers(0, DAY_MS, n)
        burst = random.integers(0, 3, n) == 0
        time[burst] = time[burst] // 600_000 * 600_000
        transfers = TransferColumns(sender, random.integers(0, accounts, n), amount, time)
        count = min(start, int(random.integers(0, 6)))
        reported = np.sort(random.choice(start, count, replace=False)) if count else np.zeros(0, np.int64)
        made.append(StreamBlock(transfers, reported.astype(np.int64)))
        start += n
    return Stream(tuple(made), accounts)


def make_load(seed: int, *, blocks: int, rows: int = 1_000, accounts: int = 2_000) -> Stream:
    """Ordinary full blocks, to measure what a module costs: some hours apart, nothing extreme."""
    random = np.random.Generator(np.random.PCG64(seed))
    made = []
    for number in range(blocks):
        time = FIRST_DAY * DAY_MS + number * 6 * 3_600_000 + np.sort(random.integers(0, 6 * 3_600_000, rows))
        transfers = TransferColumns(
            random.integers(0, accounts, rows),
            random.integers(0, accounts, rows),
            random.integers(100, 20_000, rows),
            time,
        )
        reported = random.integers(0, number * rows, 5) if number else np.zeros(0, np.int64)
        made.append(StreamBlock(transfers, np.unique(reported).astype(np.int64)))
    return Stream(tuple(made), accounts)


def split(stream: Stream, random: np.random.Generator, *, into_single: bool = False) -> Stream:
    """The same transfers in the same order in other blocks; a block's reports stay behind its last transfer."""
    made = []
    for block in stream.blocks:
        n = len(block.transfers)
        inner = (
            np.arange(1, n) if into_single else np.flatnonzero(random.integers(0, 4, max(0, n - 1)) == 0) + 1
        )
        edges = [0, *inner.tolist(), n]
        for begin, end in pairwise(edges):
            part = TransferColumns(
                *(getattr(block.transfers, name)[begin:end] for name in TransferColumns.__slots__)
            )
            made.append(StreamBlock(part, block.reported if end == n else block.reported[:0]))
    return Stream(tuple(made), stream.accounts)


def find_components(transfers: TransferColumns) -> list[int]:
    """For each transfer the number of its group: those that share accounts, directly or in turn."""
    parent: dict[int, int] = {}

    def find(account: int) -> int:
        while parent.setdefault(account, account) != account:
            account = parent[account]
        return account

    pairs = list(zip(transfers.sender.tolist(), transfers.receiver.tolist(), strict=True))
    for sender, receiver in pairs:
        parent[find(sender)] = find(receiver)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(sender), len(numbers)) for sender, _ in pairs]
