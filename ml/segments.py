"""A block cut into rounds: in each, every account lives one day of its transactions.

Within a round an account's limits are fixed, so what earlier transactions of the block add to it is a
sort and a cumulative sum, however many transactions one account packs. Invariant: an account's day is
the newest it has seen, and no other account's transactions move it. Sorts are stable.
Leaves out: what is summed (ml/features.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DaySegment:
    """One day of every account that is still to be played: u accounts, m transactions.

    at: int64[m], positions in the block, sorted by account, in block order within one. owner: int64[m],
    which of the u accounts. start: int64[u], its first position in `at`. account, day: int64[u].
    """

    at: Int64s
    owner: Int64s
    start: Int64s
    account: Int64s
    day: Int64s

    @property
    def place(self) -> Int64s:
        """int64[m]: how many of its account's transactions come before each."""
        return np.arange(len(self.owner)) - self.start[self.owner]

    def sum_before(self, values: Int64s) -> Int64s:
        """int64[m]: for each transaction the sum over the earlier ones of its account.

        The running total over all accounts may wrap; modulo 2^64 the difference undoes that, as long as
        one account's sum stays below 2^63.
        """
        total = np.cumsum(values) - values
        before: Int64s = total - total[self.start][self.owner]
        return before

    def sum_all(self, values: Int64s) -> Int64s:
        """int64[u]: the sum over each account's transactions."""
        sums: Int64s = np.add.reduceat(values, self.start)
        return sums


def cut_days(account: Int64s, day: Int64s, newest: NDArray[np.uint32]) -> list[DaySegment]:
    """Cut a block into rounds in each of which every account lives one day; most blocks need one or two.

    account, day: int64[n] of the block's transactions. newest: uint32[k], each account's newest day plus
    one, or 0. Rounds are at most the days that the block spans.
    """
    if len(account) == 0:
        return []
    order = np.argsort(account, kind="stable")
    accounts = account[order]
    first = np.concatenate(([True], accounts[1:] != accounts[:-1]))
    group = np.cumsum(first) - 1
    # A running maximum within each group: the group's number in the high bits keeps groups apart.
    days = np.maximum(day[order], newest[accounts].astype(np.int64) - 1)
    days = np.maximum.accumulate((group << 32) | days) & (2**32 - 1)
    cut = first.copy()
    cut[1:] |= days[1:] != days[:-1]
    start = np.flatnonzero(cut)
    owner = np.cumsum(cut) - 1
    if len(start) == group[-1] + 1:
        return [DaySegment(order, owner, start, accounts[start], days[start])]
    cuts_before = np.flatnonzero(first[start])  # the first segment of each group
    turn = np.arange(len(start)) - cuts_before[group[start]]
    length = np.diff(np.append(start, len(order)))
    rounds = []
    for number in range(int(turn.max()) + 1):
        chosen = np.flatnonzero(turn == number)
        sizes = length[chosen]
        ends = np.cumsum(sizes)
        begin = ends - sizes
        owner_now = np.repeat(np.arange(len(chosen)), sizes)
        positions = np.arange(ends[-1]) - begin[owner_now] + start[chosen][owner_now]
        rounds.append(
            DaySegment(order[positions], owner_now, begin, accounts[start[chosen]], days[start[chosen]])
        )
    return rounds
