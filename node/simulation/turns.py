"""Whose turn a view is, reckoned the plain way, to check the engine's own schedule by.

Source: consensus.md, Epochs; ledger.md, Leaders; fractions instead of scaled integers, from the first turn on instead of a jump.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from fractions import Fraction
from hashlib import sha256
from itertools import accumulate


class Turns:
    """Whose turn each view of an epoch is: the k-th turn of stake w falls due at (2k + 1) / w.

    `offset`: turns that the epochs before took. `named`: views whose leader a scenario decides otherwise.
    """

    def __init__(self, stakes: list[int], offset: int = 0) -> None:
        self.named: dict[int, int] = {}
        self._offset = offset
        self._stakes = stakes
        self._due = [(Fraction(1, stake), index, 0) for index, stake in enumerate(stakes)]
        heapq.heapify(self._due)
        self._leaders: list[int] = []

    def get_leader(self, view: int) -> int:
        turn_number = view + self._offset
        while len(self._leaders) < turn_number:
            _, index, turn = self._due[0]
            self._leaders.append(index)
            due = Fraction(2 * turn + 3, self._stakes[index])
            heapq.heapreplace(self._due, (due, index, turn + 1))
        return self.named.get(view, self._leaders[turn_number - 1])


class Draws:
    """The same where leaders are drawn: each view's number falls into somebody's stake."""

    def __init__(self, stakes: list[int], seed: bytes) -> None:
        self.named: dict[int, int] = {}
        self.seed = seed
        self._ends = list(accumulate(stakes))

    def get_leader(self, view: int) -> int:
        place = int.from_bytes(sha256(self.seed + view.to_bytes(8, "big")).digest(), "big") % self._ends[-1]
        drawn = next(index for index, end in enumerate(self._ends) if place < end)
        return self.named.get(view, drawn)


def compute_draws(stakes: list[int], epoch: int, reveals: Iterable[bytes]) -> Draws:
    """reveals: of all final blocks before the epoch, from the first on."""
    mix = bytes(32)
    for reveal in reveals:
        if reveal:
            mix = sha256(b"assay/beacon-mix/1" + mix + reveal).digest()
    return Draws(stakes, sha256(b"assay/beacon-seed/1" + epoch.to_bytes(8, "big") + mix).digest())
