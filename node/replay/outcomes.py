"""What became of every row of a workload, as columns.

Invariant: a row is open, final, refused or failed; only refused and failed may still become final. So
submitted = final + refused + failed once nothing is open. Latency is from the first hand-over to a node
to the moment the client read the final block.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import ACCEPT, FLAG, REFUSE

OPEN: Final = 1  # 0: not sent yet
FINAL: Final = 2
REFUSED: Final = 3
FAILED: Final = 4
NO_SCORE: Final = -1
EXAMPLES_MAX: Final = 4_096  # refused transactions kept whole, to be explained to people


class Outcomes:
    """Columns of n rows, and running counts for the display."""

    def __init__(self, rows: int, fraud: NDArray[np.uint8] | None) -> None:
        self.fraud = fraud
        self.state = np.zeros(rows, dtype=np.uint8)
        self.score = np.full(rows, NO_SCORE, dtype=np.int64)
        self.outcome = np.full(rows, ACCEPT, dtype=np.uint8)
        self.latency_ms = np.full(rows, -1, dtype=np.int64)
        self.counts: Counter[int] = Counter()
        self.flagged = 0
        self.frauds_caught = 0  # refused or flagged, and fraud by its label
        self.failures: Counter[str] = Counter()
        self.refused_raws: dict[int, bytes] = {}  # by row
        self._reasons: dict[int, str] = {}

    @property
    def submitted(self) -> int:
        return sum(self.counts[state] for state in (OPEN, FINAL, REFUSED, FAILED))

    def open(self, row: int) -> None:
        """It is about to be handed to a node."""
        self._move(row, OPEN)

    def set_final(self, row: int, score: int, outcome: int, latency_ms: int) -> None:
        self._uncatch(row)
        self.refused_raws.pop(row, None)
        self._move(row, FINAL)
        self.score[row], self.outcome[row], self.latency_ms[row] = score, outcome, latency_ms
        if outcome == FLAG:
            self.flagged += 1
            self._catch(row)

    def set_refused(self, row: int, score: int | None, raw: bytes) -> None:
        self._move(row, REFUSED)
        self.score[row] = NO_SCORE if score is None else score
        self.outcome[row] = REFUSE
        self._catch(row)
        if len(self.refused_raws) < EXAMPLES_MAX:
            self.refused_raws[row] = raw

    def set_failed(self, row: int, reason: str) -> None:
        self._move(row, FAILED)
        self._reasons[row] = reason
        self.failures[reason] += 1

    def _move(self, row: int, state: int) -> None:
        before = int(self.state[row])
        self.counts[before] -= 1
        self.counts[state] += 1
        self.state[row] = state
        if before == FAILED:
            self.failures[self._reasons.pop(row)] -= 1
            self.failures += Counter()  # drops what is zero now

    def _catch(self, row: int) -> None:
        if self.fraud is not None and self.fraud[row]:
            self.frauds_caught += 1

    def _uncatch(self, row: int) -> None:
        if self.state[row] == REFUSED and self.fraud is not None and self.fraud[row]:
            self.frauds_caught -= 1
