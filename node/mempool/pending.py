"""Pending transactions, held so that every question a mempool asks is cheap.

Per sender a line in order of nonces; across senders, who is proposed next (a sorted run of the lines'
heads), who is evicted first (a heap of their tails), who expires first. What no longer holds is left in
place, recognised when met, and swept when it outnumbers what does. Most transactions become final before
anybody asks for tails, prices or deadlines: until then these cost an append, or nothing.

Invariant: an entry is in exactly one line, count and bytes are the sums over the entries, and within
a sender the walk goes up by nonce. Insertion and removal cost O(log n) and a shift of one line's list
(1 us at 4,096); a walk costs O(k log k) for its first k entries and O(1) for each head that came since the
last one, whatever the pool holds.
Leaves out: which transactions may enter; that is the mempool's policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count

from node.mempool.lines import Entry, Key, Line
from node.mempool.queues import Deadlines, Heads, LazyHeap


class Pending:
    """All pending transactions. `make_rank(entry)` orders proposals among heads of lines."""

    def __init__(self, make_rank: Callable[[Entry], Key]) -> None:
        self._make_rank = make_rank
        self._entries: dict[bytes, Entry] = {}
        self._lines: dict[bytes, Line] = {}
        self._seq = count()
        self.count = 0
        self.size_bytes = 0
        self._heads = Heads()
        self._tails: LazyHeap | None = None
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return self.count

    def __contains__(self, transaction_id: object) -> bool:
        return transaction_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """In order of arrival."""
        return iter(self._entries.values())

    def get(self, transaction_id: bytes) -> Entry | None:
        return self._entries.get(transaction_id)

    def get_line(self, sender: bytes) -> Line | None:
        """The sender's line; None when nothing of it is pending. Read it, do not change it."""
        return self._lines.get(sender)

    @property
    def sender_count(self) -> int:
        return len(self._lines)

    def insert(self, entry: Entry) -> None:
        """Add an entry whose id, and whose sender's nonce, is not here yet."""
        tx, lines = entry.tx, self._lines
        assert tx.id not in self._entries
        entry.seq = next(self._seq)
        entry.rank = self._make_rank(entry)
        line = lines.get(tx.sender)
        if line is None:
            line = lines[tx.sender] = Line()
        else:
            assert line.find(entry.nonce) is None
        line.insert(entry)
        entry.line = line
        self._entries[tx.id] = entry
        self.count += 1
        self.size_bytes += entry.size_bytes
        if line.entries[0] is entry:
            self._heads.push(entry, len(lines))
        if self._tails is not None and (line.tail is entry or line.prices[0] == entry.price):
            self._push_tail(self._tails, line)
        self._deadlines.push(entry, self.count)

    def remove(self, entry: Entry) -> None:
        """Take out an entry that is here."""
        line = entry.line
        assert line is not None
        entries, tails = line.entries, self._tails
        was_head = entries[0] is entry
        was_tail, price_before = (line.tail is entry, line.prices[0]) if tails is not None else (False, 0)
        del self._entries[entry.tx.id]
        self.count -= 1
        self.size_bytes -= entry.size_bytes
        line.remove(entry)
        entry.line = None
        if not entries:
            del self._lines[entry.tx.sender]
            if not self._lines:
                self._tails = None
            return
        if was_head:
            self._heads.push(entries[0], len(self._lines))
        if tails is not None and (was_tail or line.prices[0] != price_before):
            self._push_tail(tails, line)

    def walk(self, skipped: set[bytes]) -> Iterator[Entry]:
        """In order of rank across senders, by nonce within one; the pool must not change meanwhile.

        A sender that the caller puts into `skipped` meanwhile is not walked any further.
        """
        following: list[
            tuple[Key, int, list[Entry]]
        ] = []  # rank and place of the next of lines already started
        for head in self._heads.walk():
            if following:
                yield from _walk_following(following, skipped, head.rank)
            sender = head.tx.sender
            if sender in skipped:
                continue
            yield head
            entries = head.line.entries if head.line is not None else ()
            if len(entries) > 1 and sender not in skipped:
                heappush(following, (entries[1].rank, 1, entries))
        yield from _walk_following(following, skipped, None)

    def plan_eviction(
        self, price: int, count_over: int, bytes_over: int, sender: bytes
    ) -> list[Entry] | None:
        """Whom to evict so that the pool shrinks by so many entries and bytes; None when it cannot.

        Only entries worth less than `price`, from the tails of lines, the least worth first. A line is worth
        its lowest price: nothing behind a cheap transaction is proposed before it. `sender`'s own
        line is left alone: a newcomer must not open a gap below itself.
        """
        victims: list[Entry] = []
        seen = {sender}
        for tail in self._get_tails().walk():
            if count_over <= 0 and bytes_over <= 0:
                break
            if tail is None or tail.tx.sender in seen:
                continue
            seen.add(tail.tx.sender)
            line = self._lines[tail.tx.sender]
            prices = list(line.prices) if bytes_over > tail.size_bytes or count_over > 1 else line.prices
            if prices[0] >= price:
                return None
            for entry in reversed(line.entries):
                if (count_over <= 0 and bytes_over <= 0) or prices[0] >= price:
                    break
                victims.append(entry)
                count_over -= 1
                bytes_over -= entry.size_bytes
                if prices is line.prices:
                    break  # one was enough
                del prices[bisect_left(prices, entry.price)]
                if not prices:
                    break
        return victims if count_over <= 0 and bytes_over <= 0 else None

    def get_price_floor(self) -> int:
        """What the first to be evicted is worth; 0 for an empty pool."""
        tails = self._get_tails()
        tails.settle()
        return tails.items[0][0][0] if tails.items else 0

    def pop_expired(self, clock_ms: int) -> list[Entry]:
        """Take out those whose deadline lies before `clock_ms`."""
        expired = list(self._deadlines.pop_before(clock_ms))
        for entry in expired:
            self.remove(entry)
        return expired

    def _get_tails(self) -> LazyHeap:
        if self._tails is None:
            self._tails = LazyHeap(self._is_tail)
            for line in self._lines.values():
                self._push_tail(self._tails, line)
        return self._tails

    def _push_tail(self, tails: LazyHeap, line: Line) -> None:
        # The newest of equals goes first: those who waited keep their place.
        tail = line.tail
        tails.push((line.prices[0], -tail.seq), tail, len(self._lines))

    def _is_tail(self, key: Key, entry: Entry) -> bool:
        line = entry.line
        return line is not None and line.entries[-1] is entry and line.prices[0] == key[0]


def _walk_following(
    following: list[tuple[Key, int, list[Entry]]], skipped: set[bytes], rank_end: Key | None
) -> Iterator[Entry]:
    """Those of lines already started that rank before `rank_end` (None: all), lowest first."""
    while following and (rank_end is None or following[0][0] < rank_end):
        _, place, entries = following[0]
        entry = entries[place]
        sender = entry.tx.sender
        if sender not in skipped:
            yield entry
        place += 1
        if place < len(entries) and sender not in skipped:
            heapreplace(following, (entries[place].rank, place, entries))
        else:
            heappop(following)
