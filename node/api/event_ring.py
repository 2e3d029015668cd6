"""The last events of a node, numbered, for any number of readers at their own pace.

A reader is a position in the ring, not a queue: a slow one costs nothing, and learns by a "gap" event
that it missed some. Ids start where the caller says (a clock reading, so that they also rise across
restarts) and a reader resumes with the last id it saw (the Last-Event-ID of server-sent events).

Invariant: ids rise by one without holes; at most EVENTS_KEPT events of WEIGHT_MAX in all are held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from node.api.door import Event

EVENTS_KEPT: Final = 16_384  # some minutes of a busy network's blocks
WEIGHT_MAX: Final = (
    100_000  # things told in them, above all transactions: 35 MB, half a minute at 3,000 a second
)


class EventRing:
    """Publish events, read them from any id on. One loop's own: not for other threads."""

    def __init__(self, first_id: int, capacity: int = EVENTS_KEPT) -> None:
        self._next = self._first = first_id
        self._slots: list[Event | None] = [None] * capacity
        self._weights = [0] * capacity
        self._weight = 0  # of all events held
        self._changed = asyncio.Event()

    @property
    def oldest(self) -> int:
        """The id of the oldest event held."""
        return self._first

    @property
    def next_id(self) -> int:
        return self._next

    def publish(self, name: str, data: Mapping[str, Any], weight: int = 1) -> None:
        """Append an event; `data` must be ready for JSON and is not to be changed afterwards.

        weight: how many things it tells of; the oldest events go when all together tell of too many.
        """
        self._weight += weight
        while self._first < self._next and (
            self._weight > WEIGHT_MAX or self._next - self._first >= len(self._slots)
        ):
            place = self._first % len(self._slots)
            self._slots[place] = None
            self._weight -= self._weights[place]
            self._first += 1
        place = self._next % len(self._slots)
        self._slots[place] = Event(self._next, name, data)
        self._weights[place] = weight
        self._next += 1
        self._changed.set()

    def subscribe(self, last_event_id: int | None) -> EventReader:
        """Events after that id, from now on when None. An id of the future is as good as none."""
        start = self._next if last_event_id is None else min(last_event_id + 1, self._next)
        return EventReader(self, start)

    def get(self, event_id: int) -> Event:
        """The event with this id, which must be held."""
        event = self._slots[event_id % len(self._slots)]
        assert event is not None
        assert event.id == event_id
        return event

    async def wait(self) -> None:
        """Until something is published."""
        # Whoever waits clears first: all waiters of one loop turn are woken by the same set().
        self._changed.clear()
        await self._changed.wait()


class EventReader:
    """An async iterator over the ring; a cancelled `anext` loses nothing."""

    def __init__(self, ring: EventRing, start: int) -> None:
        self._ring = ring
        self._position = start

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        ring = self._ring
        while self._position >= ring.next_id:
            await ring.wait()
        if self._position < ring.oldest:
            missed = ring.oldest - self._position
            self._position = ring.oldest
            return Event(self._position - 1, "gap", {"missed": missed})
        event = ring.get(self._position)
        self._position += 1
        return event
