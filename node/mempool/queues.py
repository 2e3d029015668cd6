"""Orders across senders: who is proposed next, who expires first, who is evicted first.

Each is kept so that what comes costs an append or little more, and is sorted when somebody asks. Nothing is
searched for: what no longer holds (an entry that left, a head that is no head any longer) is recognised when
met, and swept when it outnumbers what does. Invariant: whatever holds stands in each, and is met in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, merge
from operator import attrgetter
from typing import Final

from consensus.codec import TIME_MS_MAX
from node.mempool.lines import Entry, Key

STALE_SPARE: Final = 256  # below this a sweep costs more than it frees
RUN_SHARE: Final = 4  # heads of a run that are sorted anew for each that comes, at most: a microsecond


_get_rank: Final[Callable[[Entry], Key]] = attrgetter("rank")


class Heads:
    """First entries of lines by rank: a sorted run, and those that came since it was last walked.

    Most that come rank behind all that wait (they are younger, or pay the same), and are appended to the run.
    Those that do not stay beside it until they are many enough to be worth merging. An entry
    that is no head any longer, or that became one again, may stand in it as well, and is passed over.
    """

    def __init__(self) -> None:
        self._run: list[Entry] = []
        self._fresh: list[Entry] = []

    def __len__(self) -> int:
        return len(self._run) + len(self._fresh)

    def push(self, entry: Entry, live_count: int) -> None:
        """`live_count`: how many heads there are; twice as many make a sweep due."""
        self._fresh.append(entry)
        if len(self._run) + len(self._fresh) > 2 * live_count + STALE_SPARE:
            kept = dict.fromkeys(_keep_heads(self._run))
            self._run = list(kept)
            self._fresh = [entry for entry in dict.fromkeys(_keep_heads(self._fresh)) if entry not in kept]

    def walk(self) -> Iterator[Entry]:
        """The heads, lowest rank first. They must not change meanwhile."""
        self._arrange()
        run, fresh = self._run, self._fresh
        before: Entry | None = None
        for entry in merge(run, fresh, key=_get_rank) if fresh else run:
            line = entry.line
            # A rank is one entry's alone: the same one again stands right behind itself.
            if line is not None and line.entries[0] is entry and entry is not before:
                yield entry
                before = entry

    def _arrange(self) -> None:
        """Sort in what came, where that costs no more than what came."""
        run = self._run
        stale = 0
        for entry in run:
            if entry.line is not None and entry.line.entries[0] is entry:
                break
            stale += 1
        if stale:
            del run[:stale]
        if not self._fresh:
            return
        fresh = _keep_heads(self._fresh)
        fresh.sort(key=_get_rank)
        self._fresh = []
        place = bisect_right(run, fresh[0].rank, key=_get_rank) if fresh else len(run)
        if len(run) - place > RUN_SHARE * len(fresh) + STALE_SPARE:
            self._fresh = fresh
            return
        end = run[place:]
        if end:
            del run[place:]
            fresh += _keep_heads(end)
            fresh.sort(key=_get_rank)
        run += fresh


def _keep_heads(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if (line := entry.line) is not None and line.entries[0] is entry]


class Deadlines:
    """Who expires first: a heap of those that a deadline came near to, and a list of all others.

    Most are final long before, and never enter the heap. Those no longer pending stay until they are met or swept.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry]] = []  # (deadline, seq, entry)
        self._waiting: list[Entry] = []
        self._waiting_min_ms = TIME_MS_MAX  # none of those waiting is due earlier

    def __len__(self) -> int:
        return len(self._heap) + len(self._waiting)

    def push(self, entry: Entry, live_count: int) -> None:
        """`live_count`: how many are pending; twice as many make a sweep due."""
        self._waiting.append(entry)
        self._waiting_min_ms = min(self._waiting_min_ms, entry.deadline_ms)
        if len(self._heap) + len(self._waiting) > 2 * live_count + STALE_SPARE:
            self._waiting = [entry for entry in self._waiting if entry.line is not None]
            self._heap = [item for item in self._heap if item[2].line is not None]
            heapify(self._heap)

    def pop_before(self, clock_ms: int) -> Iterator[Entry]:
        """Take out those whose deadline lies before, earliest first."""
        heap = self._heap
        if self._waiting_min_ms < clock_ms:
            for entry in self._waiting:
                if entry.line is not None:
                    heappush(heap, (entry.deadline_ms, entry.seq, entry))
            self._waiting = []
            self._waiting_min_ms = TIME_MS_MAX
        while heap and heap[0][0] < clock_ms:
            entry = heappop(heap)[2]
            if entry.line is not None:
                yield entry


class LazyHeap:
    """A heap of (key, seq, entry) where some no longer hold; the same entry may stand in it twice."""

    def __init__(self, is_live: Callable[[Key, Entry], bool]) -> None:
        self._is_live = is_live
        self.items: list[tuple[Key, int, Entry]] = []

    def __len__(self) -> int:
        return len(self.items)

    def push(self, key: Key, entry: Entry, live_count: int) -> None:
        """`live_count`: how many hold at most; twice as many make a sweep due."""
        heappush(self.items, (key, entry.seq, entry))
        if len(self.items) > 2 * live_count + STALE_SPARE:
            live = {item[1]: item for item in self.items if self._is_live(item[0], item[2])}
            self.items = list(live.values())
            heapify(self.items)

    def settle(self) -> None:
        """Drop those at the top that no longer hold."""
        while self.items and not self._is_live(self.items[0][0], self.items[0][2]):
            heappop(self.items)

    def walk(self) -> Iterator[Entry | None]:
        """Those that hold, lowest key first, without taking them out; None for one that does not.

        The children of place i stand at 2i + 1 and 2i + 2 and are not lower, so a second, small heap
        of places yet to visit is enough (Frederickson 1993 does better than its O(k log k)).
        """
        self.settle()
        items = self.items
        places = [(items[0], 0)] if items else []
        while places:
            (key, _, entry), place = heappop(places)
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(items):
                    heappush(places, (items[child], child))
            yield entry if self._is_live(key, entry) else None
