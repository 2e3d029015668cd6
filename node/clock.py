"""Time, as the node is told it: one object that says what time it is.

Invariant: nothing else that a node runs reads the system's clocks, so that tests and the deterministic
world decide how late it is. Wall time may jump (somebody sets it); monotonic time never falls.
Leaves out: timers; whoever drives the node owns those. The ledger's own time is in block headers.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

_NS_IN_MS: Final = 1_000_000


class Clock(Protocol):
    """Both in whole milliseconds."""

    def now_ms(self) -> int:
        """Wall time since the Unix epoch; may jump in either direction."""
        ...

    def monotonic_ms(self) -> int:
        """Time since an arbitrary moment; never falls. For durations only."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // _NS_IN_MS

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // _NS_IN_MS


class SkewableClock:
    """Another clock whose wall time is off by `skew_ms` (ahead when positive): a fault to inject."""

    __slots__ = ("_clock", "skew_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.skew_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.skew_ms

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms()


class ManualClock:
    """A clock that stands still until it is moved: for tests and simulations."""

    __slots__ = ("_monotonic_ms", "_now_ms")

    def __init__(self, now_ms: int = 0, monotonic_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    def advance(self, duration_ms: int) -> None:
        """Let `duration_ms` pass on both. ValueError if it is negative: time does not run backwards."""
        if duration_ms < 0:
            raise ValueError(f"a duration of {duration_ms} ms is negative")
        self._now_ms += duration_ms
        self._monotonic_ms += duration_ms

    def set_wall(self, now_ms: int) -> None:
        """Somebody sets the machine's clock; the monotonic one does not notice."""
        self._now_ms = now_ms
