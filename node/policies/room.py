"""The policy room: asks this node's modules about what comes in, and remembers what is held back.

Modules are asked in the order of the settings; what one refuses, the later ones never see. Opinions act
in two places only: the mempool's door (refused ones do not come in), and this node's own proposals (held
ones are left out; ones that are refused later leave the mempool). About twice a second modules may
reload; then all that waits is asked about anew, and what is held every HOLD_MS.

Invariant: batches are judged one after another, so that no transaction is new twice, and the loop never
waits for a module. Nothing here is heard by the judge of blocks: what others propose is judged as ever.
Leaves out: asking one module (attendant.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from consensus.ledger.rules import Rules
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import Transaction
from ml.policy import Decision, Opinion, PolicyBatch, refuse
from node.blocks.chain import Chain
from node.clock import Clock
from node.mempool.mempool import Mempool
from node.policies.attendant import CALL_OUTCOMES, Attendant, PolicyReport
from node.policies.calling import Caller, ThreadCaller
from node.policies.plan import LoadedPolicy

log = logging.getLogger("assay.policy")

REVIEW_BATCH: Final = 500  # of what waits; new arrivals take turns with them
RELOAD_MS: Final = 1_000
HOLD_MS: Final = 5_000  # what is held is asked about again so often
HELD_MAX: Final = 10_000  # a proposal walks past all of them; more are refused

MakeCaller = Callable[[str], Caller]


class PolicyRoom:
    """Without modules it answers at once, and nothing is held."""

    def __init__(
        self,
        policies: Sequence[LoadedPolicy],
        rules: Rules,
        chain: Chain,
        mempool: Mempool,
        clock: Clock,
        registry: CollectorRegistry,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_work: Callable[[], None],
        make_caller: MakeCaller = ThreadCaller,
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._mempool = mempool
        self._clock = clock
        self._spawn = spawn
        self._on_work = on_work
        self._turn = asyncio.Lock()
        self._held: dict[bytes, str] = {}
        self._is_reviewing = False
        self._reload_due_ms = self._hold_due_ms = clock.monotonic_ms()
        self._figures = _Figures(registry, [loaded.label for loaded in policies]) if policies else None
        self._attendants = [
            Attendant(loaded, make_caller(loaded.label), clock, self._count_call) for loaded in policies
        ]

    @property
    def withheld(self) -> AbstractSet[bytes]:
        """Ids that this node does not propose."""
        return self._held.keys()

    def describe(self) -> tuple[PolicyReport, ...]:
        return tuple(attendant.describe() for attendant in self._attendants)

    async def start(self) -> None:
        """Raises Rejected or Fault when a module cannot start."""
        for attendant in self._attendants:
            await attendant.start()

    async def close(self) -> None:
        for attendant in self._attendants:
            await attendant.close()

    # --- the door -----------------------------------------------------------------------------------

    async def judge(self, transactions: Sequence[Transaction]) -> dict[bytes, Opinion]:
        """What the modules refuse or hold among new transactions, by id; nothing is said of the rest."""
        if not self._attendants or not transactions:
            return {}
        async with self._turn:
            # Asked for its turn, another batch may have brought the same ones in.
            new = tuple(tx for tx in transactions if not self._mempool.has(tx.id))
            view = self._chain.final_view
            verdicts = self._rules.evaluate(view, new)
            opinions, _ = await self._ask(
                PolicyBatch(new, verdicts.score, verdicts.outcome, self._get_clock_ms())
            )
        for transaction_id, opinion in opinions.items():
            if opinion.decision is Decision.HOLD:
                if len(self._held) < HELD_MAX:
                    self._held[transaction_id] = opinion.reason
                else:
                    opinions[transaction_id] = refuse("too much is held here by policy")
        return opinions

    async def _ask(self, batch: PolicyBatch) -> tuple[dict[bytes, Opinion], bool]:
        """Every module in turn; and whether all of them answered."""
        answers: dict[bytes, Opinion] = {}
        is_whole = True
        for array in (batch.score, batch.outcome):
            array.flags.writeable = False
        for attendant in self._attendants:
            if not len(batch):
                break
            opinions = await attendant.ask(batch)
            if opinions is None:
                is_whole = False
                if not (attendant.refuses_on_failure and batch.is_new):
                    continue
                opinions = [refuse("gave no answer, and nothing new comes in without it")] * len(batch)
            kept = []
            for place, (tx, opinion) in enumerate(zip(batch.transactions, opinions, strict=True)):
                name = opinion.decision.name
                attendant.decisions[name] += 1
                if opinion.decision is not Decision.ALLOW and (
                    tx.id not in answers or opinion.decision is Decision.REFUSE
                ):
                    reason = f"policy {attendant.label}: {opinion.reason or 'no reason given'}"
                    answers[tx.id] = Opinion(opinion.decision, reason)
                if opinion.decision is not Decision.REFUSE:
                    kept.append(place)
            self._count_decisions(attendant.label, opinions)
            if len(kept) < len(batch):
                batch = PolicyBatch(
                    tuple(batch.transactions[place] for place in kept),
                    batch.score[kept],
                    batch.outcome[kept],
                    batch.clock_ms,
                    batch.is_new,
                )
        return answers, is_whole

    # --- what waits ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Called about twice a second: let modules reload, look again at what is due, forget what is gone."""
        if not self._attendants:
            return
        for transaction_id in [held for held in self._held if not self._mempool.has(held)]:
            del self._held[transaction_id]
        if not self._is_reviewing:
            self._is_reviewing = True
            self._spawn(self._review())

    async def _review(self) -> None:
        try:
            has_changed = await self._reload()
            now_ms = self._clock.monotonic_ms()
            is_due = now_ms >= self._hold_due_ms
            if is_due:
                self._hold_due_ms = now_ms + HOLD_MS
            waiting: list[Transaction] = []
            if has_changed:
                waiting = [entry.tx for entry in self._mempool.get_page(len(self._mempool))]
                log.info("policies changed: judging what waits", extra={"transactions": len(waiting)})
            elif is_due:
                waiting = [tx for held in self._held if (tx := self._mempool.get(held)) is not None]
            for start in range(0, len(waiting), REVIEW_BATCH):
                await self._look_again(waiting[start : start + REVIEW_BATCH])
        finally:
            self._is_reviewing = False

    async def _reload(self) -> bool:
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._reload_due_ms:
            return False
        self._reload_due_ms = now_ms + RELOAD_MS
        has_changed = False
        for attendant in self._attendants:
            if attendant.has_reload:
                async with self._turn:
                    has_changed |= await attendant.reload()
        return has_changed

    async def _look_again(self, transactions: Sequence[Transaction]) -> None:
        async with self._turn:
            pending = [(tx, found) for tx in transactions if (found := self._mempool.get_verdict(tx.id))]
            score = np.array([found[0] for _, found in pending], dtype=np.int64)
            outcome = np.array([found[1] for _, found in pending], dtype=np.uint8)
            batch = PolicyBatch(
                tuple(tx for tx, _ in pending), score, outcome, self._get_clock_ms(), is_new=False
            )
            opinions, is_whole = await self._ask(batch)
        released = 0
        for tx, _ in pending:
            opinion = opinions.get(tx.id)
            if opinion is None:
                # Without every module's word what was held stays held.
                if is_whole and self._held.pop(tx.id, None) is not None:
                    released += 1
            elif opinion.decision is Decision.REFUSE:
                self._held.pop(tx.id, None)
                self._mempool.withdraw(tx.id, "policy", opinion.reason)
            elif tx.id in self._held or len(self._held) < HELD_MAX:
                self._held[tx.id] = opinion.reason
        if released:
            self._on_work()

    def _get_clock_ms(self) -> int:
        chain_ms = self._chain.finalized.timestamp_ms
        is_workload = self._rules.parameters.clock == CLOCK_WORKLOAD
        return chain_ms if is_workload else max(chain_ms, self._clock.now_ms())

    # --- figures ------------------------------------------------------------------------------------

    def _count_call(self, label: str, outcome: str) -> None:
        if self._figures is not None:
            self._figures.calls.labels(label, outcome).inc()

    def _count_decisions(self, label: str, opinions: Sequence[Opinion]) -> None:
        if self._figures is not None:
            for decision in Decision:
                count = sum(opinion.decision is decision for opinion in opinions)
                self._figures.transactions.labels(label, decision.name.lower()).inc(count)


class _Figures:
    """For /metrics. Labels are the settings' and closed sets, never a stranger's."""

    def __init__(self, registry: CollectorRegistry, labels: Sequence[str]) -> None:
        self.calls = Counter(
            "assay_policy_calls",
            "Batches that a policy module was asked about, by what became of the call",
            ("policy", "outcome"),
            registry=registry,
        )
        self.transactions = Counter(
            "assay_policy_transactions",
            "Transactions by a policy module's decision",
            ("policy", "decision"),
            registry=registry,
        )
        for label in labels:  # shown as 0 before the first
            for outcome in CALL_OUTCOMES:
                self.calls.labels(label, outcome)
            for decision in Decision:
                self.transactions.labels(label, decision.name.lower())
