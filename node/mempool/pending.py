"""Pending transactions, held so that every question a mempool asks is cheap.

Per sender a line in order of nonces; across senders three heaps: who is proposed next (the heads of the
lines), who is evicted first (the tails), who expires first. Heaps are never searched: what no longer
holds is left in place, recognised when met, and swept when it outnumbers what does. The heap of tails is
made when a full pool first asks for it, and given up when the pool is empty again: most never need it.

Invariant: an entry is in exactly one line, count and bytes are the sums over the entries, and within
a sender the walk goes up by nonce. Insertion and removal cost O(log n) and a shift of one line's list of
integers (1 us at 4,096); a walk costs O(k log k) for its first k entries, whatever the pool holds.
Leaves out: which transactions may enter; that is the mempool's policy.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from consensus.transaction import Transaction

SIZE_STEP_BYTES: Final = (
    256  # transfers differ by some bytes (integers are packed short): one price for all of them
)
PRICE_SCALE: Final = 1_000  # a price is an integer: thousandths of a unit per started step of bytes
STALE_SPARE: Final = 256  # below this a sweep costs more than it frees

Key = tuple[int, ...]


def compute_price(fee: int, size_bytes: int) -> int:
    """Thousandths of a fee unit for each started SIZE_STEP_BYTES."""
    return fee * PRICE_SCALE // -(-size_bytes // SIZE_STEP_BYTES)


def compute_fee_for(price: int, size_bytes: int) -> int:
    """The lowest fee with which a transaction of this size has at least this price."""
    return -(-price * -(-size_bytes // SIZE_STEP_BYTES) // PRICE_SCALE)


class Entry:
    """A pending transaction. seq: order of arrival; rank: order of proposals, lowest first.

    deadline_ms: the last block time at which it is valid; cost: amount + fee, units.
    """

    __slots__ = ("cost", "deadline_ms", "outcome", "price", "rank", "score", "seq", "size_bytes", "tx")

    def __init__(self, tx: Transaction, deadline_ms: int, score: int, outcome: int) -> None:
        self.tx = tx
        self.size_bytes = len(tx.raw)
        self.price = compute_price(tx.fee, self.size_bytes)
        self.cost = tx.amount + tx.fee
        self.deadline_ms = deadline_ms
        self.score = score
        self.outcome = outcome
        self.seq = -1
        self.rank: Key = ()


class Line:
    """One sender's pending transactions, lowest nonce first."""

    __slots__ = ("by_nonce", "cost", "nonces", "prices")

    def __init__(self) -> None:
        self.nonces: list[int] = []
        self.by_nonce: dict[int, Entry] = {}
        self.prices: list[int] = []  # ascending: the lowest is what the whole line is worth to a full pool
        self.cost = 0

    def __len__(self) -> int:
        return len(self.nonces)

    @property
    def head(self) -> Entry:
        return self.by_nonce[self.nonces[0]]

    @property
    def tail(self) -> Entry:
        return self.by_nonce[self.nonces[-1]]

    def get_after(self, nonce: int) -> Entry | None:
        """The pending transaction with the next higher nonce."""
        place = bisect_left(self.nonces, nonce + 1)
        return self.by_nonce[self.nonces[place]] if place < len(self.nonces) else None

    def insert(self, entry: Entry) -> None:
        insort(self.nonces, entry.tx.nonce)
        insort(self.prices, entry.price)
        self.by_nonce[entry.tx.nonce] = entry
        self.cost += entry.cost

    def remove(self, entry: Entry) -> None:
        del self.nonces[bisect_left(self.nonces, entry.tx.nonce)]
        del self.prices[bisect_left(self.prices, entry.price)]
        del self.by_nonce[entry.tx.nonce]
        self.cost -= entry.cost


class _LazyHeap:
    """A heap of (key, seq, entry) where some no longer hold; the same entry may stand in it twice."""

    def __init__(self, is_live: Callable[[Key, Entry], bool]) -> None:
        self._is_live = is_live
        self.items: list[tuple[Key, int, Entry]] = []

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

    def pop_until(self, key_max: Key) -> Iterator[Entry]:
        """Take out those with a key of at most `key_max`, lowest first."""
        while self.items and self.items[0][0] <= key_max:
            key, _, entry = heappop(self.items)
            if self._is_live(key, entry):
                yield entry

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


class Pending:
    """All pending transactions. `make_rank(entry)` orders proposals among heads of lines."""

    def __init__(self, make_rank: Callable[[Entry], Key]) -> None:
        self._make_rank = make_rank
        self._entries: dict[bytes, Entry] = {}
        self._lines: dict[bytes, Line] = {}
        self._seq = count()
        self.size_bytes = 0
        self._heads = _LazyHeap(self._is_head)
        self._tails: _LazyHeap | None = None
        self._deadlines = _LazyHeap(lambda _, entry: self._entries.get(entry.tx.id) is entry)

    def __len__(self) -> int:
        return len(self._entries)

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
        tx = entry.tx
        assert tx.id not in self._entries
        entry.seq = next(self._seq)
        entry.rank = self._make_rank(entry)
        line = self._lines.get(tx.sender)
        if line is None:
            line = self._lines[tx.sender] = Line()
        assert tx.nonce not in line.by_nonce
        line.insert(entry)
        self._entries[tx.id] = entry
        self.size_bytes += entry.size_bytes
        if line.nonces[0] == tx.nonce:
            self._heads.push(entry.rank, entry, len(self._lines))
        if self._tails is not None and (line.nonces[-1] == tx.nonce or line.prices[0] == entry.price):
            self._push_tail(self._tails, line)
        self._deadlines.push((entry.deadline_ms,), entry, len(self._entries))

    def remove(self, entry: Entry) -> None:
        """Take out an entry that is here."""
        tx = entry.tx
        line = self._lines[tx.sender]
        was_head, was_tail = line.head is entry, line.tail is entry
        price_before = line.prices[0]
        del self._entries[tx.id]
        self.size_bytes -= entry.size_bytes
        line.remove(entry)
        if not line.nonces:
            del self._lines[tx.sender]
            if not self._lines:
                self._tails = None
            return
        if was_head:
            self._heads.push(line.head.rank, line.head, len(self._lines))
        if self._tails is not None and (was_tail or line.prices[0] != price_before):
            self._push_tail(self._tails, line)

    def walk(self, skipped: set[bytes]) -> Iterator[Entry]:
        """In order of rank across senders, by nonce within one; the pool must not change meanwhile.

        A sender that the caller puts into `skipped` meanwhile is not walked any further.
        """
        started: set[bytes] = set()
        following: list[tuple[Key, int, Entry]] = []  # second and later ones of lines already started
        heads = self._heads.walk()
        standing: Entry | None = None  # the lowest head of a line not started yet
        is_more = True
        while True:
            while is_more and standing is None:
                try:
                    standing = next(heads)
                except StopIteration:
                    is_more = False
                if standing is not None and standing.tx.sender in started:
                    standing = None
            if standing is not None and (not following or standing.rank <= following[0][0]):
                entry, standing = standing, None
                started.add(entry.tx.sender)
            elif following:
                entry = heappop(following)[2]
            else:
                return
            if entry.tx.sender in skipped:
                continue
            yield entry
            if entry.tx.sender not in skipped:
                after = self._lines[entry.tx.sender].get_after(entry.tx.nonce)
                if after is not None:
                    heappush(following, (after.rank, after.seq, after))

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
            for nonce in reversed(line.nonces):
                entry = line.by_nonce[nonce]
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
        expired = list(self._deadlines.pop_until((clock_ms - 1,)))
        for entry in expired:
            self.remove(entry)
        return expired

    def _get_tails(self) -> _LazyHeap:
        if self._tails is None:
            self._tails = _LazyHeap(self._is_tail)
            for line in self._lines.values():
                self._push_tail(self._tails, line)
        return self._tails

    def _push_tail(self, tails: _LazyHeap, line: Line) -> None:
        # The newest of equals goes first: those who waited keep their place.
        tail = line.tail
        tails.push((line.prices[0], -tail.seq), tail, len(self._lines))

    def _is_head(self, _: Key, entry: Entry) -> bool:
        line = self._lines.get(entry.tx.sender)
        return line is not None and line.head is entry

    def _is_tail(self, key: Key, entry: Entry) -> bool:
        line = self._lines.get(entry.tx.sender)
        return line is not None and line.tail is entry and line.prices[0] == key[0]
