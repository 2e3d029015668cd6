"""The network between simulated nodes: latency, loss, duplication, reordering, partitions.

Invariant: every draw comes from the world's one generator, in the order of sending. A healed network
delivers everything once, within the bound on latency.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """Probabilities per message; latencies are uniform between the bounds, so messages overtake."""

    loss: float = 0.0
    duplication: float = 0.0
    latency_ms_min: int = 1
    latency_ms_max: int = 30
    slow_share: float = 0.0  # of messages that take ten times as long


class Links:
    """Decides when, how often and whether a message arrives."""

    def __init__(self, faults: LinkFaults, rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._cut: frozenset[tuple[int, int]] = frozenset()
        self.sent = 0

    def heal(self) -> None:
        """From now on nothing is lost, repeated or cut."""
        faults = self._faults
        self._faults = LinkFaults(latency_ms_min=faults.latency_ms_min, latency_ms_max=faults.latency_ms_max)
        self._cut = frozenset()

    def cut(self, links: Iterable[tuple[int, int]]) -> None:
        """Cut these (from, to) links and mend all others; asymmetric cuts are possible."""
        self._cut = frozenset(links)

    def draw_delays_ms(self, sender: int, receiver: int) -> tuple[int, ...]:
        """How long each copy of a message takes; empty when it is lost."""
        self.sent += 1
        faults, rng = self._faults, self._rng
        if (sender, receiver) in self._cut or (faults.loss and rng.random() < faults.loss):
            return ()
        copies = 2 if faults.duplication and rng.random() < faults.duplication else 1
        return tuple(self._draw_latency_ms() for _ in range(copies))

    def _draw_latency_ms(self) -> int:
        faults, rng = self._faults, self._rng
        latency_ms = rng.randint(faults.latency_ms_min, faults.latency_ms_max)
        return 10 * latency_ms if faults.slow_share and rng.random() < faults.slow_share else latency_ms
