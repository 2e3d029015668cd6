"""The herald: tells what happened to whoever listens, as events and as figures.

Events go to the API's ring (`api/event_ring.py`), figures to /metrics. Invariant: it only tells; no room
waits for it or asks it anything. Leaves out: logs; each room writes its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from consensus.block import Block
from consensus.ledger.scoring import OUTCOME_NAMES
from consensus.transaction import Transaction
from consensus.vote import Evidence
from node.api.event_ring import EventRing
from node.clock import Clock
from node.metrics import NodeMetrics

BLOCKS_TIMED_MAX: Final = 64  # valid and not yet final; abandoned ones leave by age


class Herald:
    """One node's. `events` and `metrics` are read by the API."""

    def __init__(self, events: EventRing, metrics: NodeMetrics, clock: Clock) -> None:
        self.events = events
        self.metrics = metrics
        self._clock = clock
        self._seen_ms: dict[bytes, int] = {}  # when a block became valid here, until it is final
        self._expired_told = 0
        self.accuse: Callable[[Evidence], None] = _tell_nobody  # who brings a lie to the chain

    def on_accepted(self, count: int) -> None:
        self.metrics.count_transactions("accepted", count)

    def on_refused(self, tx: Transaction, score: int) -> None:
        """Refused at the door or while building: this node's word of the moment."""
        self.metrics.count_transactions("refused")
        self.events.publish(
            "verdict",
            {"id": _hex(tx.id), "outcome": "refuse", "score": score, "sender": _hex(tx.sender)},
        )

    def on_expired(self, count_all: int) -> None:
        """`count_all`: dropped as expired since the start."""
        self.metrics.count_transactions("expired", count_all - self._expired_told)
        self._expired_told = count_all

    def on_valid(self, block: Block) -> None:
        header = block.header
        self._seen_ms[header.hash] = self._clock.monotonic_ms()
        while len(self._seen_ms) > BLOCKS_TIMED_MAX:
            del self._seen_ms[next(iter(self._seen_ms))]
        self.events.publish("head", {"height": header.height, "hash": _hex(header.hash)})

    def on_final(self, block: Block) -> None:
        header = block.header
        flagged = sum(1 for outcome in block.outcomes if outcome)
        self.metrics.count_transactions("final", len(block.transactions))
        self.metrics.count_transactions("flagged", flagged)
        self.events.publish(
            "finalized",
            {
                "height": header.height,
                "hash": _hex(header.hash),
                "state_root": _hex(header.state_root),
                "timestamp_ms": header.timestamp_ms,
                "transactions": len(block.transactions),
                "flagged": flagged,
            },
        )
        self._tell_transactions(block)
        self._measure(block)

    def on_evidence(self, evidence: Evidence) -> None:
        self.metrics.evidence.inc()
        self.events.publish(
            "evidence",
            {
                "epoch": evidence.first.subject.epoch,
                "signer": evidence.first.signer,
                "view": evidence.first.subject.view,
            },
        )
        self.accuse(evidence)

    def _tell_transactions(self, block: Block) -> None:
        """One event per block for all its transactions: one each would push everything else out of the ring."""
        if block.transactions:
            told = [
                {"id": _hex(tx.id), "score": score, "outcome": OUTCOME_NAMES[outcome]}
                for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True)
            ]
            self.events.publish(
                "transaction", {"height": block.header.height, "transactions": told}, weight=len(told)
            )

    def _measure(self, block: Block) -> None:
        seen_ms = self._seen_ms.pop(block.hash, None)
        if seen_ms is not None:
            self.metrics.finalization_seconds.observe((self._clock.monotonic_ms() - seen_ms) / 1_000)
        skipped = block.header.view - block.header.parent_view - 1
        if skipped > 0:
            self.metrics.views_nullified.inc(skipped)


def _tell_nobody(_: Evidence) -> None:
    """Until somebody is there who accuses."""


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
