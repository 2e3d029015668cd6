"""Whose turn a view is, reckoned the plain way, to check the engine's own schedule by.

Source: consensus.md, Leader; fractions instead of scaled integers, from the first turn on instead of a jump.
"""

from __future__ import annotations

import heapq
from fractions import Fraction


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
