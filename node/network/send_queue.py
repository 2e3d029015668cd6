"""What waits to be sent to one peer: bounded in frames and in bytes, for each priority by itself.

Invariant: a slow peer costs at most the sum of the limits below, and never delays another peer.
When a priority is full: consensus overflows (the connection is given up: a validator that misses votes
must resynchronise anyway), gossip drops its oldest, bulk refuses the newest. Pure, but for one event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from node.network.frames import FRAME_BYTES_MAX
from node.network.transport import Priority


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of one priority may wait."""

    frames_max: int
    bytes_max: int

    def __post_init__(self) -> None:
        assert self.frames_max >= 1
        assert self.bytes_max >= 1


LIMITS: Final[dict[Priority, Limit]] = {
    # Two rounds of votes at 1,024 validators; three full bodies of a block.
    Priority.CONSENSUS: Limit(4_096, 3 * FRAME_BYTES_MAX),
    # Some seconds of traffic at thousands of transactions a second; older ones stand in a block by then.
    Priority.GOSSIP: Limit(1_024, 8_000_000),
    # One frame in the air and one behind it: who catches up asks again when it has digested them.
    Priority.BULK: Limit(64, 2 * FRAME_BYTES_MAX),
}


class Overflow(Exception):
    """The peer does not take its consensus frames fast enough."""


class SendQueue:
    """Encoded frames in, the most urgent first out. For one event loop; `get` for one reader."""

    def __init__(self, limits: dict[Priority, Limit] = LIMITS) -> None:
        self._limits = limits
        self._lanes: dict[Priority, deque[bytes | str]] = {priority: deque() for priority in Priority}
        self._sizes = dict.fromkeys(Priority, 0)
        self._latest: dict[str, bytes] = {}  # by topic; the lane holds the topic as a placeholder
        self._ready = asyncio.Event()
        self.dropped_count = 0

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes.values())

    def put(self, data: bytes, priority: Priority, topic: str = "") -> bool:
        """Queue one frame; False when it was refused. Raises Overflow (consensus only).

        With a `topic`, a frame of that topic that still waits is replaced and its place kept.
        """
        if topic and topic in self._latest:
            self._sizes[priority] += len(data) - len(self._latest[topic])
            self._latest[topic] = data
            return True
        limit = self._limits[priority]
        lane = self._lanes[priority]
        while len(lane) >= limit.frames_max or (lane and self._sizes[priority] + len(data) > limit.bytes_max):
            match priority:
                case Priority.CONSENSUS:
                    raise Overflow(f"{len(lane)} frames of {self._sizes[priority]} bytes wait")
                case Priority.GOSSIP:
                    self._take(priority)
                    self.dropped_count += 1
                case Priority.BULK:
                    self.dropped_count += 1
                    return False
        lane.append(topic or data)
        if topic:
            self._latest[topic] = data
        self._sizes[priority] += len(data)
        self._ready.set()
        return True

    async def get(self) -> bytes:
        """The next frame, waiting for one if need be."""
        while True:
            found = self.take()
            if found is not None:
                return found[1]
            self._ready.clear()
            await self._ready.wait()

    def take(self) -> tuple[Priority, bytes] | None:
        """The next frame and its priority; None when nothing waits."""
        for priority in Priority:
            if self._lanes[priority]:
                return priority, self._take(priority)
        return None

    def _take(self, priority: Priority) -> bytes:
        entry = self._lanes[priority].popleft()
        data = self._latest.pop(entry) if isinstance(entry, str) else entry
        self._sizes[priority] -= len(data)
        return data
