"""The intake: transactions that peers sent wait here for their checks, so that nothing waits behind them.

A connection's frames are read one after the other. If a frame of transactions were checked in that turn,
the proposal behind it would wait for a hundred signatures; so it is put here, and a task of its own takes
in batch after batch. Invariant: bounded in bytes per peer and in all; what does not fit is dropped and
counted, because gossip may lose (the block brings what is missing) and a vote may not wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

WAITING_BYTES_PEER_MAX: Final = 2_000_000  # a full block's worth of one peer
WAITING_BYTES_MAX: Final = 16_000_000  # eight such peers; two seconds of the checks of a fast machine

TakeIn = Callable[[list[bytes], bytes], Awaitable[None]]


class Intake:
    """`take_in(raws, node_key)` is awaited for one batch at a time. `forget(raws)` is told of drops."""

    def __init__(self, take_in: TakeIn, forget: Callable[[Sequence[bytes]], None]) -> None:
        self._take_in = take_in
        self._forget = forget
        self._waiting: deque[tuple[list[bytes], bytes, int]] = deque()
        self._bytes: Counter[bytes] = Counter()
        self._bytes_all = 0
        self._arrived = asyncio.Event()
        self.waiting = 0  # transactions put here and not taken in yet
        self.dropped = 0  # transactions, since the start

    def put(self, raws: list[bytes], node_key: bytes) -> None:
        """Take a batch for later, or drop it when this peer, or all together, left too much already."""
        size = sum(map(len, raws))
        is_room = (
            self._bytes[node_key] + size <= WAITING_BYTES_PEER_MAX
            and self._bytes_all + size <= WAITING_BYTES_MAX
        )
        if not is_room:
            self.dropped += len(raws)
            self._forget(raws)
            return
        self._waiting.append((raws, node_key, size))
        self.waiting += len(raws)
        self._bytes[node_key] += size
        self._bytes_all += size
        self._arrived.set()

    async def run(self) -> None:
        """Take in what waits, until cancelled."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            raws, node_key, size = self._waiting.popleft()
            await self._take_in(raws, node_key)
            self.waiting -= len(raws)
            self._bytes_all -= size
            self._bytes[node_key] -= size
            if not self._bytes[node_key]:
                del self._bytes[node_key]
