"""What waits of one sender: entries of transactions by nonce, and what each is worth to a full pool.

Invariant: a line's entries have rising nonces, its cost is the sum of theirs. Most lines hold one or two
entries, so a line is one list; what only a full pool asks for is made when it asks. Leaves out: order across
senders (`queues.py`), and which transactions may enter; that is the mempool's policy.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from consensus.transaction import Transaction

SIZE_STEP_BYTES: Final = (
    256  # transfers differ by some bytes (integers are packed short): one price for all of them
)
PRICE_SCALE: Final = 1_000  # a price is an integer: thousandths of a unit per started step of bytes

Key = tuple[int, ...]


def compute_price(fee: int, size_bytes: int) -> int:
    """Thousandths of a fee unit for each started SIZE_STEP_BYTES."""
    return fee * PRICE_SCALE // -(-size_bytes // SIZE_STEP_BYTES)


def compute_fee_for(price: int, size_bytes: int) -> int:
    """The lowest fee with which a transaction of this size has at least this price."""
    return -(-price * -(-size_bytes // SIZE_STEP_BYTES) // PRICE_SCALE)


class Entry:
    """A pending transaction. seq: order of arrival; rank: order of proposals, lowest first.

    deadline_ms: the last block time at which it is valid; cost: amount + fee, units; line: the sender's,
    None when it is not (or no longer) pending.
    """

    __slots__ = (
        *("cost", "deadline_ms", "line", "nonce", "outcome", "price", "rank", "rest_blocks", "rests_until"),
        *("score", "seq", "size_bytes", "tx"),
    )

    def __init__(self, tx: Transaction, deadline_ms: int, score: int, outcome: int) -> None:
        self.tx = tx
        self.nonce = tx.nonce
        self.size_bytes = size_bytes = len(tx.raw)
        self.price = compute_price(tx.fee, size_bytes)
        self.cost = tx.amount + tx.fee
        self.deadline_ms = deadline_ms
        self.score = score
        self.outcome = outcome
        self.rest_blocks = 0  # not asked for again in so many blocks, because it came too early in one
        self.rests_until = 0  # that height
        self.seq = -1
        self.rank: Key = ()
        self.line: Line | None = None


_get_nonce: Final[Callable[[Entry], int]] = attrgetter("nonce")


class Line:
    """One sender's pending transactions, lowest nonce first. Most lines have one or two."""

    __slots__ = ("_prices", "cost", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._prices: list[int] | None = None  # as `prices`, from when they are first asked for
        self.cost = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def head(self) -> Entry:
        return self.entries[0]

    @property
    def tail(self) -> Entry:
        return self.entries[-1]

    @property
    def prices(self) -> list[int]:
        """Ascending: the lowest is what the whole line is worth to a full pool, which alone asks."""
        if self._prices is None:
            self._prices = sorted(entry.price for entry in self.entries)
        return self._prices

    def find(self, nonce: int) -> Entry | None:
        """The pending transaction with this nonce."""
        entries = self.entries
        if not entries or nonce > entries[-1].nonce:
            return None
        entry = entries[bisect_left(entries, nonce, key=_get_nonce)]
        return entry if entry.nonce == nonce else None

    def insert(self, entry: Entry) -> None:
        entries = self.entries
        if not entries or entry.nonce > entries[-1].nonce:
            entries.append(entry)
        else:
            insort(entries, entry, key=_get_nonce)
        if self._prices is not None:
            insort(self._prices, entry.price)
        self.cost += entry.cost

    def remove(self, entry: Entry) -> None:
        entries = self.entries
        if entries[0] is entry:
            del entries[0]
        else:
            del entries[bisect_left(entries, entry.nonce, key=_get_nonce)]
        if self._prices is not None:
            del self._prices[bisect_left(self._prices, entry.price)]
        self.cost -= entry.cost
