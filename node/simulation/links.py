"""The network between simulated nodes: latency, loss, duplication, reordering, slow links, cuts.

Invariant: every draw comes from the world's one generator, in the order of sending. A healed network
delivers everything once, within the bound on latency. Two draws for an ordinary message: this is the
most frequent thing that happens in a run.
"""

from __future__ import annotations

import random
from typing import Final

SLOW_FACTOR: Final = 10  # longer than a view's timeout at the default latency

Pairs = frozenset[tuple[int, int]]  # (from, to)


class Links:
    """Decides when, how often and whether a message arrives. Faults set the attributes."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self.loss = 0.0
        self.duplication = 0.0
        self.slow_share = 0.0
        self.slow: Pairs = frozenset()
        self._cuts: dict[str, Pairs] = {}
        self._cut: Pairs = frozenset()  # the union
        self.set_latency(1, 20)

    def set_latency(self, ms_min: int, ms_max: int, shape: int = 1) -> None:
        """ms_min + (ms_max - ms_min) * u ** shape, with u uniform in [0, 1)."""
        self._ms_min, self._span, self._shape = ms_min, ms_max - ms_min + 1, shape

    def heal(self) -> None:
        """From now on nothing is lost, repeated, slow or cut; latency stays as it was."""
        self.loss = self.duplication = self.slow_share = 0.0
        self.slow = self._cut = frozenset()
        self._cuts.clear()

    @property
    def cut_now(self) -> Pairs:
        return self._cut

    def cut(self, name: str, links: Pairs) -> bool:
        """Cut these links under this name, in place of those cut under it before; whether that is news."""
        before = self._cut
        self._cuts[name] = links
        self._cut = frozenset().union(*self._cuts.values())
        return self._cut != before

    def draw_delays_ms(self, sender: int, receiver: int) -> tuple[int, ...]:
        """How long each copy of a message takes; empty when it is lost."""
        if self._cut and (sender, receiver) in self._cut:
            return ()
        factor = 1
        draw = self._random()  # one draw decides between loss, duplication and slowness
        if draw < self.loss:
            return ()
        draw -= self.loss
        if draw < self.duplication:
            return (self._draw_latency_ms(), self._draw_latency_ms())
        if draw - self.duplication < self.slow_share:
            factor = SLOW_FACTOR
        if self.slow and (sender, receiver) in self.slow:
            factor = SLOW_FACTOR
        return (factor * (self._ms_min + int(self._span * self._random() ** self._shape)),)

    def _draw_latency_ms(self) -> int:
        return self._ms_min + int(self._span * self._random() ** self._shape)
