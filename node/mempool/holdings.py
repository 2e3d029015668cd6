"""What a mempool holds and remembers, and what it answers about it.

Pending transactions, the last drops and final ids, who backs off, counts of what came and went. Invariant: what
was pending and no longer is, is final or has its drop noted with a reason. All of it is bounded: by
the policy, and the constants here. Leaves out: who comes in and who leaves, which `mempool.py` decides.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from consensus.ledger.state import View
from consensus.parameters import CLOCK_WORKLOAD, Parameters
from consensus.transaction import Transaction
from node.clock import Clock
from node.mempool.admission import MempoolPolicy
from node.mempool.lines import Entry, Key
from node.mempool.pending import Pending
from node.mempool.pressure import Pressure
from node.mempool.receipts import BackOff, Drop, DropLog


class Holdings:
    """The state of one mempool. Its questions are asked by anybody, the rest is `Mempool`'s."""

    def __init__(self, parameters: Parameters, clock: Clock, policy: MempoolPolicy | None = None) -> None:
        self.policy = policy or MempoolPolicy()
        self._clock = clock
        self._parameters = parameters
        self._is_workload = parameters.clock == CLOCK_WORKLOAD
        self._pending = Pending(_rank_by_time if self._is_workload else _rank_by_price)
        self._drops = DropLog(self.policy.drops_kept)
        self._finals: OrderedDict[bytes, None] = OrderedDict()  # a dict's front fills up with holes
        self._back_off = BackOff(
            self.policy.refusals_max, self.policy.refusals_window_ms, self.policy.back_off_ms
        )
        self._pressure = Pressure()
        self._chain_ms = 0
        self._height = 0
        self.received: Counter[str] = Counter()  # receipts by outcome, or by code if it has one
        self.dropped: Counter[str] = Counter()  # transactions that were pending, by code of the drop
        self.finalized = 0  # pending transactions that became final

    # --- questions ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def size_bytes(self) -> int:
        """Bytes of all pending transactions."""
        return self._pending.size_bytes

    @property
    def sender_count(self) -> int:
        """Senders with something pending."""
        return self._pending.sender_count

    def get_wait_ms(self, on_the_way: int) -> int:
        """How long a client should keep what it has, while so many others are on their way in; 0: not at all."""
        return self._pressure.get_wait_ms(len(self._pending) + on_the_way, self._clock.monotonic_ms())

    def has(self, transaction_id: bytes) -> bool:
        """Whether it is pending."""
        return transaction_id in self._pending

    def is_known(self, transaction_id: bytes) -> bool:
        """Whether it is pending, became final lately, or was dropped lately: not worth fetching."""
        return (
            transaction_id in self._pending
            or transaction_id in self._finals
            or self._drops.get(transaction_id) is not None
        )

    def get(self, transaction_id: bytes) -> Transaction | None:
        """A pending transaction."""
        entry = self._pending.get(transaction_id)
        return None if entry is None else entry.tx

    def get_verdict(self, transaction_id: bytes) -> tuple[int, int] | None:
        """(score, outcome) that a pending transaction got at the door."""
        entry = self._pending.get(transaction_id)
        return None if entry is None else (entry.score, entry.outcome)

    def get_raws(self, transaction_ids: Iterable[bytes]) -> list[bytes | None]:
        """The encodings of those that are pending, None for the others."""
        entries = map(self._pending.get, transaction_ids)
        return [None if entry is None else entry.tx.raw for entry in entries]

    def get_drop(self, transaction_id: bytes) -> Drop | None:
        """Why it is not pending, if it was dropped or refused lately."""
        return self._drops.get(transaction_id)

    def get_drops(self) -> Iterable[Drop]:
        """The drops and refusals remembered, newest first."""
        return iter(self._drops)

    def get_pending(self, sender: bytes) -> tuple[Transaction, ...]:
        """A sender's pending transactions by nonce."""
        line = self._pending.get_line(sender)
        return () if line is None else tuple(entry.tx for entry in line.entries)

    def get_page(self, limit: int, start: int = 0) -> list[Entry]:
        """Entries number start .. start + limit - 1 in the order of proposals. Costs O(start + limit)."""
        page: list[Entry] = []
        for index, entry in enumerate(self._pending.walk(set())):
            if index >= start + limit:
                break
            if index >= start:
                page.append(entry)
        return page

    # --- bookkeeping --------------------------------------------------------------------------------

    def _note(self, view: View) -> None:
        header = view.header
        if header.height >= self._height:
            self._height = header.height
            self._chain_ms = header.timestamp_ms

    def _drop(self, entry: Entry, code: str, reason: str) -> None:
        self.dropped[code] += 1
        self._note_drop(entry.tx, code, reason, entry.score)

    def _note_drop(self, tx: Transaction, code: str, reason: str, score: int | None) -> None:
        self._drops.add(Drop(tx, code, reason, score, self._height, self._chain_ms))


def _rank_by_price(entry: Entry) -> Key:
    return (-entry.price, entry.seq)


def _rank_by_time(entry: Entry) -> Key:
    return (entry.tx.timestamp_ms, -entry.price, entry.seq)
