"""The transaction desk: what the API asks about transactions: taking, finding and listing them.

Invariant: reads only, but for `submit`. Leaves out: proofs and blocks (`desk.py`), why they scored what they
scored (`explainer.py`), and what proves that they were refused (`refusals.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consensus.block import Block
from node.api import door
from node.api.door import MempoolEntry, MempoolPage, TransactionRecord
from node.desks.refusals import RefusalDesk
from node.mempool import receipts
from node.mempool.receipts import Outcome

if TYPE_CHECKING:
    from node.full_node import FullNode


class TransactionDesk:
    """Of one node; answers as `api.door.NodeDoor` says."""

    def __init__(self, node: FullNode, refusals: RefusalDesk) -> None:
        self._node = node
        self._refusals = refusals

    def get_wait_ms(self) -> int:
        return self._node.entrance.get_wait_ms()

    async def submit(self, raws: Sequence[bytes]) -> list[door.Receipt]:
        return [_answer(receipt) for receipt in await self._node.entrance.submit(raws)]

    def get_transaction(self, transaction_id: bytes) -> TransactionRecord | None:
        node = self._node
        place = node.store.find_transaction(transaction_id)
        if place is not None:
            block = node.store.get_block_at(place[0])
            assert block is not None  # final blocks are stored
            return record_final(block, place[1])
        pending = node.mempool.get(transaction_id)
        if pending is not None:
            score, outcome = node.mempool.get_verdict(transaction_id) or (None, None)
            return TransactionRecord(pending, "pending", score=score, outcome=outcome)
        return self._find_dropped(transaction_id)

    def _find_dropped(self, transaction_id: bytes) -> TransactionRecord | None:
        node = self._node
        refused = self._refusals.get_transaction(transaction_id)
        if refused is not None:
            return refused
        drop = node.mempool.get_drop(transaction_id)
        if drop is None or drop.transaction is None:
            return None
        if drop.code == "policy":  # this node's own word, no verdict: it says whose in the reason
            return TransactionRecord(drop.transaction, "refused", score=drop.score, reasons=(drop.reason,))
        return TransactionRecord(
            drop.transaction, "expired", score=drop.score, reasons=(f"{drop.code}: {drop.reason}",)
        )

    def get_mempool(self, limit: int) -> MempoolPage:
        mempool = self._node.mempool
        entries = tuple(MempoolEntry(entry.tx, entry.score) for entry in mempool.get_page(limit))
        return MempoolPage(len(mempool), mempool.size_bytes, entries)


def _answer(receipt: receipts.Receipt) -> door.Receipt:
    """A mempool's receipt as the API tells it; what was known before counts as accepted."""
    match receipt.outcome:
        case Outcome.ACCEPTED | Outcome.KNOWN:
            return door.Receipt(receipt.id, "accepted", score=receipt.score)
        case Outcome.REFUSED:
            return _tell(receipt, "refused")
        case Outcome.REJECTED:
            return _tell(receipt, "rejected")


def _tell(receipt: receipts.Receipt, outcome: door.ReceiptOutcome) -> door.Receipt:
    return door.Receipt(receipt.id, outcome, receipt.code, receipt.reason, receipt.score, receipt.retry_ms)


def record_final(block: Block, index: int) -> TransactionRecord:
    """What is told of transaction `index` of a final block."""
    return TransactionRecord(
        block.transactions[index],
        "final",
        block.header.height,
        index,
        block.hash,
        block.scores[index],
        block.outcomes[index],
    )
