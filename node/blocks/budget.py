"""The block budget: how many transactions this node's next block may hold, so that its view survives it.

A view's timers presume that building and judging a block take less than half of Delta (consensus.md,
Pace). How long that takes here and now is measured, as wall time: beside other processes a signature
waits longer than it computes. What is expected of a block is its size times the time per transaction of
recent blocks. A block's fixed cost is counted with them, so the bound settles where the whole takes the
time allowed, and errs on the small side after small blocks.

Invariant: the bound falls at once, rises by an eighth at most with each block seen, and never falls below
a floor that keeps the chain going. Where no time passes (a virtual world's clock) there is no bound.
Leaves out: the chain's own limits of bytes and count, which hold besides.
"""

from __future__ import annotations

from typing import Final

COUNT_FLOOR: Final = 100  # 3 ms for each in half of the default Delta: twenty times what any of them takes
COUNT_START: Final = 1_000  # nothing is known yet; a quiet machine judges so many in 60 ms
SAMPLE_TRANSACTIONS: Final = 32  # smaller blocks tell what a block costs, not what a transaction does
KEEP: Final = 0.75  # of the past with each faster block: the last four make two thirds of the mean
SAMPLE_TIMES_MAX: Final = 2  # times the time allowed: what took longer was held up, not large
GROWTH_DIVISOR: Final = 8  # the bound doubles in six blocks: a second or two


class _TimePerTransaction:
    """A mean over recent blocks, the larger and the later ones counting more, or the last if it was slower."""

    __slots__ = ("_count", "_total_ms")

    def __init__(self) -> None:
        self._total_ms = 0.0
        self._count = 0.0

    def note(self, count: int, took_ms: int) -> None:
        keep = KEEP if took_ms < count * self.get_ms() else 0.0
        self._total_ms = keep * self._total_ms + took_ms
        self._count = keep * self._count + count

    def get_ms(self) -> float:
        """0.0 as long as nothing was noted."""
        return self._total_ms / self._count if self._count else 0.0


class BlockBudget:
    """Told what each block took; asked before each proposal."""

    def __init__(self, time_ms_max: int) -> None:
        """`time_ms_max`: for building and judging one block together; half of Delta."""
        self._time_ms_max = time_ms_max
        self._building = _TimePerTransaction()
        self._judging = _TimePerTransaction()
        self._count_max: int | None = COUNT_START

    def get_count_max(self, count_max: int) -> int:
        """How many transactions the next block may hold, of `count_max` that the chain allows."""
        return count_max if self._count_max is None else min(count_max, self._count_max)

    def compute_expected_ms(self, count: int) -> float:
        """What building and judging a block of so many would take, by what recent ones took."""
        return count * (self._building.get_ms() + self._judging.get_ms())

    def note_built(self, count: int, took_ms: int) -> None:
        """This node built a block from so many candidates."""
        self._note(self._building, count, took_ms)

    def note_judged(self, count: int, took_ms: int) -> None:
        """This node judged another's block: bodies, signatures, execution, disk; not the wait for its parent."""
        self._note(self._judging, count, took_ms)

    def note_lost(self, count: int) -> None:
        """This node's last block, of so many transactions, did not make it: its view was nullified."""
        # A small one was lost for another reason, and so was one that took no time.
        if self._count_max is not None and count > COUNT_FLOOR:
            self._count_max = max(COUNT_FLOOR, min(count, self._count_max) // 2)

    def _note(self, times: _TimePerTransaction, count: int, took_ms: int) -> None:
        if count < SAMPLE_TRANSACTIONS:
            return
        times.note(count, min(took_ms, SAMPLE_TIMES_MAX * self._time_ms_max))
        expected_ms = self.compute_expected_ms(count)
        if expected_ms == 0:
            self._count_max = None
            return
        fitting = max(COUNT_FLOOR, int(self._time_ms_max * count / expected_ms))
        if self._count_max is None:
            self._count_max = fitting
        else:
            self._count_max = min(fitting, self._count_max + self._count_max // GROWTH_DIVISOR)
