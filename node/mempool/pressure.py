"""Backpressure: whether clients should keep their transactions for a moment.

What a node accepts it checks, spreads and holds; what the network cannot make final soon only makes
all that waits wait longer. So as many may wait here as became final within the last seconds, and not
fewer than a burst: whoever is accepted is then final within about those seconds, and after a storm the
queue is gone in the same time. It costs no signature to say so, nor a look at the body.

Invariant: as long as something becomes final, the door opens again. Leaves out: what peers send, which
came through another node's door; the pool's own bounds.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_MS: Final = 4_000  # a backlog of so long: half of the ten seconds in which a storm must be forgotten
STEP_MS: Final = 100  # finals within a step are counted together: forty numbers are remembered
BURST_TRANSACTIONS: Final = 4_000  # may wait whatever became final: a second or two of four validators
WAIT_MS: Final = 1_000  # what a client is told: a quarter of the queue is gone by then


class Pressure:
    """Told what became final, by a monotonic clock; asked before anything is taken from a client."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, int]] = deque()  # (number of the step, transactions), oldest first

    def note_final(self, count: int, now_ms: int) -> None:
        """So many transactions became final."""
        step = now_ms // STEP_MS
        if self._steps and self._steps[-1][0] == step:
            count += self._steps.pop()[1]
        self._steps.append((step, count))
        self._forget(step)

    def compute_waiting_max(self, now_ms: int) -> int:
        """How many transactions may wait now, on their way in or pending."""
        self._forget(now_ms // STEP_MS)
        return max(BURST_TRANSACTIONS, sum(count for _, count in self._steps))

    def get_wait_ms(self, waiting: int, now_ms: int) -> int:
        """How long a client should wait when so many transactions do; 0: not at all."""
        return WAIT_MS if waiting >= self.compute_waiting_max(now_ms) else 0

    def _forget(self, step: int) -> None:
        while self._steps and self._steps[0][0] <= step - WINDOW_MS // STEP_MS:
            self._steps.popleft()
