"""What a replay is told, and what it tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from consensus.parameters import DAY_MS

IN_FLIGHT_MAX: Final = 4_000  # some seconds of a busy network; beyond it only mempools grow
PATIENCE_MS: Final = 600_000  # without any final block: half of the validators may be away for a while
LABEL_DELAY_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """rate_max: rows per second, 0 for no limit. label_delay_ms: after which a label is reported."""

    seed: int = 0
    rate_max: int = 0
    label_delay_ms: int = LABEL_DELAY_DAYS * DAY_MS
    in_flight_max: int = IN_FLIGHT_MAX
    patience_ms: int = PATIENCE_MS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a replay is. seconds: of the measured part; done, total: of the funding."""

    phase: str  # connecting, funding, replaying, settling, comparing
    rows: int
    submitted: int
    final: int
    refused: int
    flagged: int
    failed: int
    frauds_caught: int
    reports_final: int
    height: int
    seconds: float
    done: int
    total: int


Watch = Callable[[Snapshot], None]
