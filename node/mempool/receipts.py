"""What a mempool answers and remembers: receipts, reasons for drops, senders that back off.

Invariant: everything here is bounded, and nothing here is consensus: a receipt is one node's answer of
the moment, and a transaction that became final overrides whatever was said of it before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from consensus.errors import NotYet, Rejected
from consensus.transaction import Transaction

RETRY_MS: Final = 1_000  # a block or two from now there is room again
SENDERS_MAX: Final = 1 << 16  # whose refusals are counted: 10 MB; the one refused longest ago is forgotten


class Outcome(StrEnum):
    """accepted: taken in. known: it was here (or is final) already. refused: judged, or its sender backs
    off. rejected: not valid here and now."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    REFUSED = "refused"
    REJECTED = "rejected"


class Receipt(NamedTuple):
    """A node's answer of the moment to one transaction (a tuple: one is made for each, and it costs a third).

    id: None when the bytes are no transaction. code: a stable word for machines; reason: one line for
    people. Both are empty for what was simply accepted. score is None where it was not judged.
    retry_ms > 0: the same bytes may fare better after that time (a queue is full, a nonce too far ahead).
    """

    id: bytes | None
    outcome: Outcome
    code: str = ""
    reason: str = ""
    score: int | None = None
    retry_ms: int = 0


def reject(transaction_id: bytes | None, error: Rejected | NotYet) -> Receipt:
    """The answer to what is not valid here and now; NotYet: the same bytes may be later."""
    retry_ms = RETRY_MS if isinstance(error, NotYet) else 0
    return Receipt(transaction_id, Outcome.REJECTED, error.code, str(error), retry_ms=retry_ms)


def make_signature_error(chain_id: str) -> Rejected:
    """The signature does not hold."""
    return Rejected(
        f'is not the sender\'s for chain "{chain_id}"',
        field="signature",
        mend="sign with the sender's key and this chain's id",
        code="signature",
    )


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a transaction is not (or no longer) pending. code: refused, expired, evicted, replaced, or the
    code of the Rejected that says what became wrong with it (nonce_used, unfunded, ...).

    height and clock_ms are those of the ledger when it happened.
    """

    transaction: Transaction
    code: str
    reason: str
    score: int | None
    height: int
    clock_ms: int

    @property
    def id(self) -> bytes:
        return self.transaction.id


class DropLog:
    """The last drops by id; the oldest is forgotten first."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._drops: OrderedDict[bytes, Drop] = OrderedDict()

    def __len__(self) -> int:
        return len(self._drops)

    def __iter__(self) -> Iterator[Drop]:
        """Newest first."""
        return reversed(self._drops.values())

    def get(self, transaction_id: bytes) -> Drop | None:
        return self._drops.get(transaction_id)

    def add(self, drop: Drop) -> None:
        self._drops.pop(drop.id, None)
        self._drops[drop.id] = drop
        if len(self._drops) > self._count_max:
            self._drops.popitem(last=False)

    def discard(self, transaction_id: bytes) -> None:
        """It is pending again, or final: the drop no longer tells where it stands."""
        self._drops.pop(transaction_id, None)


class _Record:
    """One sender's refusals within the window, and until when its transactions are turned away."""

    __slots__ = ("chain_ms", "count", "monotonic_ms", "until_chain_ms", "until_monotonic_ms")

    def __init__(self, chain_ms: int, monotonic_ms: int) -> None:
        self.count = 0
        self.chain_ms = chain_ms  # when the window opened
        self.monotonic_ms = monotonic_ms
        self.until_chain_ms = 0
        self.until_monotonic_ms = 0


class BackOff:
    """Senders refused too often in a short time wait before they are judged again.

    Time passes by whichever clock is faster: the machine's, or the chain's, which outruns it when
    months are replayed in a minute and stands still when nobody transacts.
    """

    def __init__(self, refusals_max: int, window_ms: int, wait_ms: int) -> None:
        self._refusals_max = refusals_max
        self._window_ms = window_ms
        self._wait_ms = wait_ms
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def count_refusal(self, sender: bytes, chain_ms: int, monotonic_ms: int) -> None:
        """One of `sender`'s transactions, properly signed, was refused."""
        record = self._records.get(sender)
        if record is None or self._is_past(record, chain_ms, monotonic_ms):
            record = self._records[sender] = _Record(chain_ms, monotonic_ms)
            if len(self._records) > SENDERS_MAX:
                self._records.popitem(last=False)
        self._records.move_to_end(sender)
        record.count += 1
        if record.count >= self._refusals_max:
            record.until_chain_ms = chain_ms + self._wait_ms
            record.until_monotonic_ms = monotonic_ms + self._wait_ms

    def get_wait_ms(self, sender: bytes, chain_ms: int, monotonic_ms: int) -> int:
        """How long this sender's transactions are still turned away; 0: they are judged."""
        record = self._records.get(sender)
        if record is None or record.count < self._refusals_max:
            return 0
        wait_ms = min(record.until_chain_ms - chain_ms, record.until_monotonic_ms - monotonic_ms)
        if wait_ms > 0:
            return wait_ms
        del self._records[sender]
        return 0

    def _is_past(self, record: _Record, chain_ms: int, monotonic_ms: int) -> bool:
        return (
            chain_ms - record.chain_ms > self._window_ms
            or monotonic_ms - record.monotonic_ms > self._window_ms
        )
