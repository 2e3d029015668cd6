"""The explainer: why a transaction got its verdict, and what would have to change for it to be accepted.

Verdicts of now are explained on the final state, those of blocks and of old refusals on the state that they
were judged on, rebuilt from the nearest checkpoint. Invariant: the loop reads rows and no more; rebuilding and looking
for changes run in a thread, one each at a time, and when too many wait for changes the answer comes
without them. Leaves out: HTTP and words (`node/api/`, the modules).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from consensus.block import Block
from consensus.errors import NotYet
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import ACCEPT, REFUSE, Counterfactual, Explanation
from consensus.ledger.seating import compute_modules_digest
from consensus.refusal import RefusalEntry
from consensus.transaction import Transaction
from node.api.door import ModuleVerdict, VerdictRecord
from node.blocks.chain import Chain
from node.duties.refusal_keeper import RefusalKeeper
from node.mempool.mempool import Mempool
from node.mempool.refusals import FindChanges, Refusals
from node.store.store import Store

WAITING_MAX: Final = 8  # who asks for changes, at once: 50 ms of a core each, half a second for the last

REBUILDS_MAX: Final = 16  # who asks for a verdict of the past, at once: a second or more each on a long chain

Changes = tuple[tuple[str, tuple[Counterfactual, ...]], ...]


class Explainer:
    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: Store,
        mempool: Mempool,
        refusals: Refusals,
        keeper: RefusalKeeper,
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._mempool = mempool
        self._refusals = refusals
        self._keeper = keeper
        self._rebuilding = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._waiting = 0
        self._rebuilds = 0  # asked for and not answered yet

    async def score(self, transaction: Transaction) -> VerdictRecord:
        """The verdict that it would get now; its signature, nonce and fee mean nothing here."""
        self._rules.check_form(transaction)
        view, batch = self._chain.final_view, (transaction,)
        verdicts = self._rules.evaluate(view, batch)
        outcome = int(verdicts.outcome[0])
        explanations = self._rules.explain(view, batch, 0)
        find = self._rules.prepare_counterfactuals(
            view, batch, 0
        )  # reads its rows before anything is awaited
        changes = await self._find_changes(outcome, find)
        height, score = view.header.height, int(verdicts.score[0])
        return VerdictRecord(transaction, score, outcome, height, _join(explanations, changes))

    async def explain(self, transaction_id: bytes) -> VerdictRecord | None:
        """The verdict of record on a known transaction, final, pending or refused here."""
        place = self._store.find_transaction(transaction_id)
        if place is not None:
            block = self._store.get_block_at(place[0])
            assert block is not None  # final blocks are stored
            return await self._rebuild(partial(self._explain_final, block, place[1]))
        refusal = self._refusals.get(transaction_id)
        if refusal is not None:
            changes = await self._find_changes(REFUSE, self._refusals.get_changes(transaction_id))
            modules = _join(refusal.explanations, changes)
            return VerdictRecord(refusal.transaction, refusal.score, REFUSE, refusal.height, modules)
        pending = self._mempool.get(transaction_id)
        if pending is not None:
            return await self.score(pending)
        logged = self._keeper.get(transaction_id)
        if logged is None or logged.transaction is None or not isinstance(logged.entry, RefusalEntry):
            return None
        if logged.entry.height > self._chain.finalized.height:  # of a block that never became final
            return _tell(logged.transaction, logged.entry, ())
        return await self._rebuild(partial(self._explain_logged, logged.transaction, logged.entry))

    async def _rebuild(self, explain: Callable[[], VerdictRecord]) -> VerdictRecord:
        """In a thread, one after the other: each may execute hundreds of blocks again. Raises NotYet."""
        if self._rebuilds >= REBUILDS_MAX:
            raise NotYet(
                f"{self._rebuilds} explanations of the past are asked for already",
                field="verdict",
                mend="ask again in a moment, or another node",
                code="busy",
            )
        self._rebuilds += 1
        try:
            async with self._rebuilding:
                return await asyncio.to_thread(explain)
        finally:
            self._rebuilds -= 1

    async def _find_changes(self, outcome: int, find: FindChanges | None) -> Changes | None:
        """None where nobody looked."""
        if outcome == ACCEPT:
            return ()
        if find is None or self._waiting >= WAITING_MAX:
            return None
        self._waiting += 1
        try:
            async with self._looking:
                return await asyncio.to_thread(find)
        finally:
            self._waiting -= 1

    def _explain_final(self, block: Block, index: int) -> VerdictRecord:
        """On the state it was judged on: its parent's."""
        view = self._store.rebuild_state(block.header.height - 1).view()
        outcome = block.outcomes[index]
        changes: Changes = ()
        if outcome != ACCEPT:
            changes = self._rules.prepare_counterfactuals(view, block.transactions, index)()
        modules = _join(self._rules.explain(view, block.transactions, index), changes)
        height = block.header.height - 1
        return VerdictRecord(block.transactions[index], block.scores[index], outcome, height, modules)

    def _explain_logged(self, tx: Transaction, entry: RefusalEntry) -> VerdictRecord:
        """Again by itself. If that gives another score, others counted that nobody knows any more: no modules."""
        view = self._store.rebuild_state(entry.height).view()
        is_same = compute_modules_digest(view.modules_record) == entry.modules_digest
        if not is_same or int(self._rules.evaluate(view, (tx,)).score[0]) != entry.score:
            return _tell(tx, entry, ())
        changes = self._rules.prepare_counterfactuals(view, (tx,), 0)()
        return _tell(tx, entry, _join(self._rules.explain(view, (tx,), 0), changes))


def _tell(tx: Transaction, entry: RefusalEntry, modules: tuple[ModuleVerdict, ...]) -> VerdictRecord:
    return VerdictRecord(tx, entry.score, REFUSE, entry.height, modules)


def _join(
    explanations: tuple[tuple[str, Explanation], ...], changes: Changes | None
) -> tuple[ModuleVerdict, ...]:
    found = None if changes is None else dict(changes)
    return tuple(
        ModuleVerdict(name, explanation, None if found is None else found.get(name, ()))
        for name, explanation in explanations
    )
