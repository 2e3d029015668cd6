"""When what became final on which node: the finalized events of all nodes, noted as they come.

Invariant: every final block above the start is noted once per node, in order; a gap in a stream is a
Fault, for then the measurement knows nothing. What is final on all nodes is shown on a board that the
load's processes read. Leaves out: which transactions a block holds; they are looked up afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from consensus.errors import Fault
from node.bench.stopwatch import monotonic_s
from node.client.node_client import NodeClient

LOOK_S: Final = 0.5  # between two looks at whether a stream has ended


@dataclass(slots=True)
class Series:
    """What one node told: for each final block its height, when, and transactions final by then."""

    heights: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)

    def add(self, height: int, transactions: int, now_s: float) -> None:
        self.heights.append(height)
        self.times_s.append(now_s)
        self.totals.append(self.total + transactions)

    @property
    def total(self) -> int:
        return self.totals[-1] if self.totals else 0

    def get_time(self, height: int) -> float | None:
        """When this node told that the block was final; None for a block that it did not tell of."""
        if not self.heights or not self.heights[0] <= height <= self.heights[-1]:
            return None
        return self.times_s[height - self.heights[0]]


class Watch:
    """`async with Watch(urls) as watch:`; on_move is told how many transactions are final on all nodes."""

    def __init__(self, urls: Sequence[str], on_move: Callable[[int], None] | None = None) -> None:
        self.urls = tuple(urls)
        self.series = [Series() for _ in urls]
        self.all_times_s: list[float] = []
        self.all_totals: list[int] = []
        self._on_move = on_move
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watch:
        ready = [asyncio.Event() for _ in self.urls]
        self._tasks = [asyncio.create_task(self._follow(i, ready[i])) for i in range(len(self.urls))]
        try:
            for event in ready:
                while not event.is_set():
                    self.check()
                    try:
                        async with asyncio.timeout(LOOK_S):
                            await event.wait()
                    except TimeoutError:
                        continue
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def total(self) -> int:
        """Transactions final on every node."""
        return min(series.total for series in self.series)

    def check(self) -> None:
        """Raises what a stream ended with: none should."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                raise task.exception() or Fault("ended by itself", field="event stream")

    async def wait_total(self, total: int, seconds_max: float) -> bool:
        """Until so many are final on every node; False when that takes longer."""
        deadline_s = monotonic_s() + seconds_max
        while self.total < total:
            self.check()
            left_s = deadline_s - monotonic_s()
            if left_s <= 0:
                return False
            self._moved.clear()
            try:
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await self._moved.wait()
            except TimeoutError:
                continue
        return True

    async def _follow(self, index: int, ready: asyncio.Event) -> None:
        series, url = self.series[index], self.urls[index]
        async with NodeClient([url]) as client:
            # The stream begins with what comes next. Blocks come all the time, so the first one proves it open.
            async for event in client.follow_events(["finalized"]):
                if event.name != "finalized":
                    raise Fault(f"has a {event.name} in it", field=f"event stream of {url}")
                height = event.data["height"]
                if series.heights and height != series.heights[-1] + 1:
                    raise Fault(f"leaves out block {height - 1}", field=f"event stream of {url}")
                series.add(height, event.data["transactions"], monotonic_s())
                ready.set()
                self._note()

    def _note(self) -> None:
        total = self.total
        if total > (self.all_totals[-1] if self.all_totals else 0):
            self.all_totals.append(total)
            self.all_times_s.append(monotonic_s())
            if self._on_move is not None:
                self._on_move(total)
        self._moved.set()
