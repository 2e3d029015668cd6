"""The refusal desk: what this node refused, lately or before its last start, and what proves it.

Reads the memory of refusals, the mempool's drops and the log (`refusal_keeper.py`). Invariant: reads only. Leaves out: HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.block import Header
from consensus.errors import Rejected
from consensus.ledger.scoring import REFUSE, SCORE_MAX
from consensus.refusal import RefusalEntry
from consensus.vote import Certificate
from node.api.door import TransactionRecord
from node.api.refusal_records import (
    ConsistencyProof,
    LoggedRecord,
    RefusalPage,
    RefusalProof,
    RefusalRecord,
)
from node.duties.refusal_keeper import RefusalKeeper
from node.mempool.mempool import Mempool
from node.mempool.refusals import Refusals

REFUSAL_CODES = ("refused", "policy")

Finality = tuple[Certificate | None, tuple[Header, ...]]


class RefusalDesk:
    """get_finality: what makes the block of a height final."""

    def __init__(
        self,
        refusals: Refusals,
        keeper: RefusalKeeper,
        mempool: Mempool,
        get_finality: Callable[[int], Finality],
    ) -> None:
        self._refusals = refusals
        self._keeper = keeper
        self._mempool = mempool
        self._get_finality = get_finality

    def get_transaction(self, transaction_id: bytes) -> TransactionRecord | None:
        """A refused transaction with its reasons, None if it was not refused here."""
        refusal = self._refusals.get(transaction_id)
        if refusal is not None:
            return TransactionRecord(
                refusal.transaction, "refused", score=refusal.score, outcome=REFUSE, reasons=refusal.reasons
            )
        logged = self._keeper.get(transaction_id)
        if logged is None or logged.transaction is None or not isinstance(logged.entry, RefusalEntry):
            return None
        entry = logged.entry
        return TransactionRecord(
            logged.transaction, "refused", score=entry.score, outcome=REFUSE, reasons=entry.reasons
        )

    def get(self, transaction_id: bytes) -> RefusalRecord | None:
        """What is known of a refusal: by the mempool, if it is of late, and by the log."""
        logged = self._keeper.get(transaction_id)
        record = None if logged is None else LoggedRecord(logged.index, logged.leaf, logged.entry)
        proof = None if logged is None else self._prove(logged.index)
        drop = self._mempool.get_drop(transaction_id)
        if drop is not None and drop.code in REFUSAL_CODES:
            return RefusalRecord(
                drop.id, drop.code, drop.reason, drop.score, drop.height, drop.clock_ms, record, proof
            )
        if logged is None or not isinstance(logged.entry, RefusalEntry):
            return None
        entry = logged.entry
        reason = f"scored {entry.score} of {SCORE_MAX}; ask for its explanation"
        return RefusalRecord(
            transaction_id, "refused", reason, entry.score, entry.height, entry.time_ms, record, proof
        )

    def _prove(self, index: int) -> RefusalProof | None:
        found = self._keeper.prove(index)
        if found is None:
            return None
        return RefusalProof(found.header, found.siblings, *self._get_finality(found.header.height))

    def list(self, first: int, limit: int) -> RefusalPage:
        entries = (LoggedRecord(e.index, e.leaf, e.entry) for e in self._keeper.list(first, limit))
        return RefusalPage(self._keeper.log.get_head(), tuple(entries))

    def prove_consistency(self, first: int, second: int | None) -> ConsistencyProof:
        """Raises Rejected unless 0 < first <= second <= the log's size, which stands for None."""
        log = self._keeper.log
        second = len(log) if second is None else second
        if not 0 < first <= second <= len(log):
            raise Rejected(
                f"{first} to {second} of a log with {len(log)} entries",
                field="first",
                code="limit",
                mend="use 0 < first <= second <= its count (GET /v1/refusals)",
            )
        siblings = log.prove_consistency(first, second)
        return ConsistencyProof(log.get_head(first), log.get_head(second), siblings)
