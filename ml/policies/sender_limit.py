"""A policy of one rule: how many transactions, and how much money, a sender may hand in within a window.

    assay node --policy sender-limit=count=60,window=1m,amount=500000

Not the consensus module `velocity`, which all validators recompute: this one counts what *this* node let
in, by the chain's clock, so that no timestamp that a sender chose moves anything.
Invariant: memory is bounded by `senders` times SLOTS pairs of integers; who was silent longest is
forgotten first. The window slides by slices of an eighth of it: a sender never gets more than its
limit in any window, and waits at most an eighth longer. Leaves out: receivers; what other nodes let in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from consensus.codec import MONEY_MAX
from ml.policy import ALLOW, Opinion, PolicyBatch, refuse
from ml.policy_settings import Settings

NAME: Final = "sender-limit"
SLICES: Final = 8  # of a window: the finer they are, the sooner a sender that waits may go on
SLOTS: Final = SLICES + 1  # the oldest of them is only partly within the window, and still counts
COUNT_MAX: Final = 10_000_000
SENDERS_MAX: Final = 1_000_000  # some 500 MB; the default of 100,000 takes a tenth


class _Tally:
    """One sender's last slices: counts and amounts, by number of slice modulo SLOTS."""

    __slots__ = ("amounts", "counts", "newest")

    def __init__(self, slice_number: int) -> None:
        self.newest = slice_number
        self.counts = [0] * SLOTS
        self.amounts = [0] * SLOTS

    def turn(self, slice_number: int) -> None:
        """Forget what lies a window back; a clock that went back turns nothing."""
        for number in range(self.newest + 1, min(slice_number, self.newest + SLOTS) + 1):
            self.counts[number % SLOTS] = self.amounts[number % SLOTS] = 0
        self.newest = max(self.newest, slice_number)


class SenderLimit:
    """A Policy. What exceeds the limit is refused and not counted; what waits already is never asked twice."""

    def __init__(self, count_max: int, amount_max: int, window_ms: int, senders_max: int) -> None:
        self._count_max = count_max
        self._amount_max = amount_max
        self._slice_ms = max(1, window_ms // SLICES)
        self._window = f"{window_ms / 1000:g} s"
        self._senders_max = senders_max
        self._tallies: OrderedDict[bytes, _Tally] = OrderedDict()

    def __len__(self) -> int:
        """Senders remembered."""
        return len(self._tallies)

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        if not batch.is_new:
            return [ALLOW] * len(batch)
        number = batch.clock_ms // self._slice_ms
        return [self._judge(tx.sender, tx.amount, number) for tx in batch.transactions]

    def _judge(self, sender: bytes, amount: int, slice_number: int) -> Opinion:
        tally = self._tallies.get(sender)
        if tally is None:
            tally = self._tallies[sender] = _Tally(slice_number)
            if len(self._tallies) > self._senders_max:
                self._tallies.popitem(last=False)
        self._tallies.move_to_end(sender)
        tally.turn(slice_number)
        if sum(tally.counts) + 1 > self._count_max:
            return refuse(f"more than {self._count_max} transactions of this sender within {self._window}")
        if sum(tally.amounts) + amount > self._amount_max:
            return refuse(f"more than {self._amount_max} units of this sender within {self._window}")
        tally.counts[tally.newest % SLOTS] += 1
        tally.amounts[tally.newest % SLOTS] += amount
        return ALLOW


def load(values: Mapping[str, Any]) -> SenderLimit:
    """Settings: count (60), amount (all money), window (1m), senders (100,000). Raises Rejected."""
    settings = Settings(NAME, values)
    limit = SenderLimit(
        settings.get_int("count", 60, low=1, high=COUNT_MAX),
        settings.get_int("amount", MONEY_MAX, low=1),
        settings.get_span_ms("window", "1m"),
        settings.get_int("senders", 100_000, low=1, high=SENDERS_MAX),
    )
    settings.check_all_read()
    return limit
