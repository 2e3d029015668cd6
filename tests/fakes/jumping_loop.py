"""An asyncio loop without a clock: when nothing is left to do, its time jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.SelectSelector):
    """Never waits: what it would have waited for is over at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[Any, int]]:
        assert timeout is not None, "nothing is left that could ever happen"
        self.now_s += max(timeout, 0.0)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Nothing from outside reaches it: no sockets, signals or other threads."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now_s

    def now_ms(self) -> int:
        """Makes this loop a `node.clock.Clock`."""
        return round(self.time() * 1_000)

    def monotonic_ms(self) -> int:
        return self.now_ms()
