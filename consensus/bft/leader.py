"""Who leads a view: smooth weighted round-robin, a pure function of the frozen stakes, epoch and view.

Turn k (0, 1, ...) of validator i falls due at (2k + 1) / (2 w_i) of a period; the leader of view v is
whoever's turn is the (v - 1)-th in that order, ties to the lower index. Over every period of W / gcd
views each validator leads exactly w_i / gcd of them, evenly spread.

An epoch begins where the one before it should have ended, `offset` turns into the order: were every
epoch to begin with the first turn, a validator with less than half a turn an epoch would never lead.

By time t each validator had floor(t w_i / W + 1/2) turns, which add up to t give or take n / 2. So the
place of any view is found within n steps of a place that is computed at once: view 10^6 after a restart
costs what view 1 does.
Source: stride scheduling (Waldspurger 1995), the order of Sainte-Lague seats; integers throughout.
`DrawnSchedule` is the other order: each view's leader is drawn by stake from a seed (a beacon's: signatures
of ECDSA may not seed one).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from hashlib import sha256
from itertools import accumulate
from math import gcd
from typing import Final

from consensus.vote import ValidatorSet

CHUNK_VIEWS: Final = 64  # computed together; as far as votes are looked at ahead of the current view
CHUNKS_KEPT: Final = 4  # the current views, those not yet final, and a jump

# Stakes are below 2^53, so two different quotients x / a and y / b differ by more than 2^-106: scaled by
# 2^107 and rounded down they still stand in the same order, and equal ones stay equal.
_SCALE_BITS: Final = 107


def compute_offset(epoch: int, epoch_blocks: int) -> int:
    """How many turns the epochs before this one take when no view is lost."""
    return epoch * epoch_blocks


class LeaderSchedule:
    """The leaders of one epoch. `get_leader(view)` for view >= 1; the answer depends on nothing else.

    offset: turns before view 1 (>= 0): `compute_offset` of the epoch.
    """

    def __init__(self, validators: ValidatorSet, offset: int = 0) -> None:
        stakes = [validator.stake for validator in validators.validators]
        unit = gcd(*stakes)
        self._weights = [stake // unit for stake in stakes]
        self.period = sum(self._weights)  # views after which the order repeats
        self._offset = offset % self.period
        self._chunks: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    def get_leader(self, view: int) -> int:
        """The index of the validator that leads `view` (>= 1)."""
        chunk, offset = divmod(view - 1, CHUNK_VIEWS)
        leaders = self._chunks.get(chunk)
        if leaders is None:
            leaders = self._compute_leaders(chunk * CHUNK_VIEWS)
            self._chunks[chunk] = leaders
            if len(self._chunks) > CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        return leaders[offset]

    def _compute_leaders(self, start: int) -> tuple[int, ...]:
        """Leaders of the CHUNK_VIEWS places from `start` (counted from 0)."""
        place = (start + self._offset) % self.period
        # No more than `place` turns fall due by this time, and at most n + 1 fewer.
        time = max(0, place - (len(self._weights) + 1) // 2)
        period = self.period
        turns = [(2 * time * weight + period) // (2 * period) for weight in self._weights]
        queue = [(self._compute_due(index, done), index, done) for index, done in enumerate(turns)]
        heapq.heapify(queue)
        leaders = []
        for _ in range(place - sum(turns) + CHUNK_VIEWS):
            _, index, done = queue[0]
            leaders.append(index)
            heapq.heapreplace(queue, (self._compute_due(index, done + 1), index, done + 1))
        return tuple(leaders[-CHUNK_VIEWS:])

    def _compute_due(self, index: int, turn: int) -> int:
        # Turns beyond the period's last go on into the next period: due times only add a period.
        return ((2 * turn + 1) << _SCALE_BITS) // self._weights[index]


class DrawnSchedule:
    """Leaders drawn by stake, each view's by itself: SHA-256(seed | view) mod W falls into somebody's stake.

    The remainder favours nobody by more than 2^-203: W is below 2^53.
    """

    def __init__(self, validators: ValidatorSet, seed: bytes) -> None:
        self._seed = seed
        self._total = validators.total
        self._ends = list(accumulate(validator.stake for validator in validators.validators))

    def get_leader(self, view: int) -> int:
        """The index of the validator that leads `view` (>= 1)."""
        draw = int.from_bytes(sha256(self._seed + view.to_bytes(8, "big")).digest(), "big") % self._total
        return bisect_right(self._ends, draw)
