"""The transaction desk: what the API asks about transactions: taking, finding, scoring and explaining them.

Invariant: reads only, but for `submit`; explaining a final one of long ago re-executes its chain from the nearest
checkpoint, in a thread, one at a time. Leaves out: proofs and blocks (`desk.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consensus.block import Block
from consensus.ledger.scoring import REFUSE, Explanation
from consensus.transaction import Transaction
from node.api import door
from node.api.door import (
    MempoolEntry,
    MempoolPage,
    ModuleVerdict,
    RefusalRecord,
    TransactionRecord,
    VerdictRecord,
)
from node.mempool import receipts
from node.mempool.receipts import Outcome

if TYPE_CHECKING:
    from node.full_node import FullNode


class TransactionDesk:
    """Of one node; answers as `api.door.NodeDoor` says."""

    def __init__(self, node: FullNode) -> None:
        self._node = node
        self._explaining = asyncio.Lock()

    def get_wait_ms(self) -> int:
        return self._node.entrance.get_wait_ms()

    async def submit(self, raws: Sequence[bytes]) -> list[door.Receipt]:
        return [_answer(receipt) for receipt in await self._node.entrance.submit(raws)]

    async def score(self, transaction: Transaction) -> VerdictRecord:
        node = self._node
        node.rules.check_form(transaction)
        view = node.chain.final_view
        verdicts = node.rules.evaluate(view, (transaction,))
        return VerdictRecord(
            transaction,
            int(verdicts.score[0]),
            int(verdicts.outcome[0]),
            view.header.height,
            _name(node.rules.explain(view, (transaction,), 0)),
        )

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
        refusal = node.refusals.get(transaction_id)
        if refusal is not None:
            reasons = tuple(
                contribution.words
                for _, explanation in refusal.explanations
                for contribution in explanation.contributions
                if contribution.contribution > 0
            )
            return TransactionRecord(
                refusal.transaction, "refused", score=refusal.score, outcome=REFUSE, reasons=reasons
            )
        drop = node.mempool.get_drop(transaction_id)
        if drop is None or drop.transaction is None:
            return None
        if drop.code == "policy":  # this node's own word, no verdict: it says whose in the reason
            return TransactionRecord(drop.transaction, "refused", score=drop.score, reasons=(drop.reason,))
        return TransactionRecord(
            drop.transaction, "expired", score=drop.score, reasons=(f"{drop.code}: {drop.reason}",)
        )

    async def explain(self, transaction_id: bytes) -> VerdictRecord | None:
        node = self._node
        place = node.store.find_transaction(transaction_id)
        if place is not None:
            block = node.store.get_block_at(place[0])
            assert block is not None  # final blocks are stored
            async with self._explaining:
                return await asyncio.to_thread(self._explain_final, block, place[1])
        refusal = node.refusals.get(transaction_id)
        if refusal is not None:
            return VerdictRecord(
                refusal.transaction, refusal.score, REFUSE, refusal.height, _name(refusal.explanations)
            )
        pending = node.mempool.get(transaction_id)
        return None if pending is None else await self.score(pending)

    def _explain_final(self, block: Block, index: int) -> VerdictRecord:
        """On the state it was judged on: its parent's, rebuilt from the nearest earlier checkpoint."""
        node = self._node
        state = node.store.rebuild_state(block.header.height - 1)
        explanations = node.rules.explain(state.view(), block.transactions, index)
        return VerdictRecord(
            block.transactions[index],
            block.scores[index],
            block.outcomes[index],
            block.header.height - 1,
            _name(explanations),
        )

    def get_refusal(self, transaction_id: bytes) -> RefusalRecord | None:
        drop = self._node.mempool.get_drop(transaction_id)
        if drop is None or drop.code not in ("refused", "policy"):
            return None
        return RefusalRecord(drop.id, drop.code, drop.reason, drop.score, drop.height, drop.clock_ms)

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


def _name(explanations: tuple[tuple[str, Explanation], ...]) -> tuple[ModuleVerdict, ...]:
    return tuple(ModuleVerdict(name, explanation) for name, explanation in explanations)
