"""How long to wait: the delays of every timer, from Delta and the views since the last finalization.

Invariant: Delta grows with the views since the last finalization, is capped, and falls back only on a
new finalization; an attacker who makes views pass cannot shrink it.
Source: consensus.md (Pace). All values in ms; the engine has no clock, it only names delays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EMPTY_INTERVAL_MS_MIN: Final = 250  # D = 0: an idle network need not spin
GROWTH_VIEWS: Final = 4  # unfinal views before Delta doubles: a third of bad leaders costs no growth
RETRY_DOUBLINGS_MAX: Final = 3  # a healed link is noticed within 8 Delta


@dataclass(frozen=True, slots=True)
class Pacing:
    """delta_ms: the assumed bound on one message and its judgement; block_interval_ms: D."""

    delta_ms: int
    delta_ms_max: int
    block_interval_ms: int
    standstill_ms: int
    standstill_ms_max: int

    @property
    def interval_ms(self) -> int:
        """How long a leader with no transactions holds its empty block back."""
        return self.block_interval_ms or EMPTY_INTERVAL_MS_MIN

    def compute_delta_ms(self, view: int, final_view: int) -> int:
        """Delta in `view`, with `final_view` the last final one."""
        doublings = min((view - final_view - 1) // GROWTH_VIEWS, 32)
        return min(self.delta_ms << doublings, self.delta_ms_max)

    def compute_leader_ms(self, delta_ms: int) -> int:
        return self.interval_ms + 2 * delta_ms

    def compute_advance_ms(self, delta_ms: int) -> int:
        return self.interval_ms + 3 * delta_ms

    def compute_retry_ms(self, delta_ms: int, attempt: int) -> int:
        return min(delta_ms << min(attempt, RETRY_DOUBLINGS_MAX), self.delta_ms_max)

    def compute_standstill_ms(self, attempt: int) -> int:
        return min(self.standstill_ms << min(attempt, 32), self.standstill_ms_max)
