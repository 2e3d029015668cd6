"""The intake: transactions that peers sent wait here for their checks, so that nothing waits behind them.

A connection's frames are read one after the other. If a frame of transactions were checked in that turn,
the proposal behind it would wait for a hundred signatures; so it is put here, and a task of its own takes
in batch after batch, with a turn for everything else between two. Invariant: bounded in bytes per peer and in
all, small ones counted with what they cost beside their bytes; what does not fit is dropped and counted,
because gossip may lose (the block brings what is missing) and a vote may not wait. Of a peer that is gone,
banned perhaps, nothing more is taken in.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

BATCH_MAX: Final = 1_000  # transactions judged in one go: 10 ms of the loop
ITEM_BYTES: Final = 64  # of each: what three bytes that are no transaction cost, too
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
        size = _measure(raws)
        is_room = (
            self._bytes[node_key] + size <= WAITING_BYTES_PEER_MAX
            and self._bytes_all + size <= WAITING_BYTES_MAX
        )
        if not is_room:
            self.dropped += len(raws)
            self._forget(raws)
            return
        for start in range(0, len(raws), BATCH_MAX):
            part = raws[start : start + BATCH_MAX]
            self._waiting.append((part, node_key, _measure(part)))
        self.waiting += len(raws)
        self._bytes[node_key] += size
        self._bytes_all += size
        self._arrived.set()

    def on_disconnected(self, node_key: bytes) -> None:
        """Drop what waits of this peer; others may bring it."""
        if not self._bytes[node_key]:
            del self._bytes[node_key]
            return
        waiting, self._waiting = self._waiting, deque()
        for raws, sender, size in waiting:
            if sender != node_key:
                self._waiting.append((raws, sender, size))
                continue
            self.dropped += len(raws)
            self._forget(raws)
            self._settle(raws, sender, size)

    async def run(self) -> None:
        """Take in what waits, until cancelled."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            raws, node_key, size = self._waiting.popleft()
            await self._take_in(raws, node_key)
            self._settle(raws, node_key, size)
            await asyncio.sleep(0)  # taking in what needs no signature check suspends nowhere

    def _settle(self, raws: Sequence[bytes], node_key: bytes, size: int) -> None:
        self.waiting -= len(raws)
        self._bytes_all -= size
        self._bytes[node_key] -= size
        if not self._bytes[node_key]:
            del self._bytes[node_key]


def _measure(raws: Sequence[bytes]) -> int:
    return sum(map(len, raws)) + ITEM_BYTES * len(raws)
