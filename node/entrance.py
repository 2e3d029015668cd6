"""The entrance: every transaction comes in here, from clients and from peers, and leaves to the mempool.

The mempool's cheap checks, signatures beside the loop, this node's own policies, the mempool's judgement, then
gossip. Invariant:
a client is answered for each transaction it sent; a peer's go through the bounded intake, and one that
passes on what an honest node would not is scored. Leaves out: what is valid; the mempool knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus import crypto
from consensus.ledger.rules import Rules
from consensus.transaction import Transaction
from node.blocks.chain import Chain
from node.clock import Clock
from node.herald import Herald
from node.mempool.mempool import Mempool
from node.mempool.receipts import Outcome, Receipt
from node.mempool.refusals import Judged, Refusals
from node.network.gossip import Gossip, Scheduler
from node.network.intake import BATCH_MAX, Intake
from node.network.transport import Transport
from node.policies.room import PolicyRoom
from node.verification import Verifier

# An honest node checks these before it passes anything on.
PEER_FAULT_CODES: Final = frozenset({"signature", "encoding", "size", "type"})
PEER_FAULT_POINTS: Final = 10  # for each; ten of them ban the peer


class Entrance:
    """`on_work` is called when something was accepted."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        mempool: Mempool,
        verifier: Verifier,
        refusals: Refusals,
        herald: Herald,
        clock: Clock,
        transport: Transport,
        scheduler: Scheduler,
        on_work: Callable[[], None],
        policies: PolicyRoom,
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._mempool = mempool
        self._verifier = verifier
        self._refusals = refusals
        self._herald = herald
        self._clock = clock
        self._transport = transport
        self._on_work = on_work
        self._policies = policies
        self._on_the_way = 0  # clients' transactions between their arrival and the mempool
        mempool.on_refusal = self.note_refusal
        self.gossip = Gossip(
            transport,
            scheduler,
            has=mempool.is_known,
            get_raws=lambda ids: [raw for raw in mempool.get_raws(ids) if raw is not None],
            deliver=self._deliver,
        )
        self.intake = Intake(
            self._take_from_peer, lambda raws: self.gossip.forget(crypto.hash_bytes(raw) for raw in raws)
        )

    async def submit(self, raws: Sequence[bytes]) -> list[Receipt]:
        """Take in a client's transactions and spread what was accepted. One receipt each, in order."""
        receipts: list[Receipt] = []
        self._on_the_way += len(raws)
        try:
            for start in range(0, len(raws), BATCH_MAX):
                part, accepted = await self._take_in(raws[start : start + BATCH_MAX])
                self.gossip.push(accepted)
                receipts += part
        finally:
            self._on_the_way -= len(raws)
        return receipts

    def get_wait_ms(self) -> int:
        """How long a client should wait before it submits more; 0: not at all."""
        held = len(self._policies.withheld)  # by this node's own policy: no backlog of the network's
        return self._mempool.get_wait_ms(self._on_the_way + self.intake.waiting - held)

    def note_refusal(self, judged: Judged) -> None:
        """Refused at the door or while building: keep why, for whoever asks, and tell it."""
        self._refusals.add(judged, self._rules)
        self._herald.on_refused(judged.transaction, judged.score)

    async def _deliver(self, raws: list[bytes], node_key: bytes) -> None:
        self.intake.put(raws, node_key)

    async def _take_from_peer(self, raws: list[bytes], node_key: bytes) -> None:
        receipts, accepted = await self._take_in(raws)
        self.gossip.announce([tx.id for tx in accepted])
        bad = [receipt for receipt in receipts if receipt.code in PEER_FAULT_CODES]
        if bad:
            reason = f"sent a transaction that {bad[0].reason}"
            self._transport.penalise(node_key, PEER_FAULT_POINTS * len(bad), reason)

    async def _take_in(self, raws: Sequence[bytes]) -> tuple[list[Receipt], list[Transaction]]:
        batch = self._mempool.prepare(raws, self._chain.final_view, self._clock.now_ms())
        signed = await self._verifier.verify_new(batch.candidates)
        opinions = await self._policies.judge(
            [tx for tx, is_signed in zip(batch.candidates, signed, strict=True) if is_signed]
        )
        # Asked anew: blocks may have become final meanwhile.
        receipts = self._mempool.admit(batch, signed, self._chain.final_view, self._clock.now_ms(), opinions)
        # By id: a second copy of the same bytes in a batch is answered with "known".
        taken = {receipt.id for receipt in receipts if receipt.outcome is Outcome.ACCEPTED}
        accepted = [tx for tx in batch.candidates if tx.id in taken]
        self._herald.on_accepted(len(accepted))
        if accepted:
            self._on_work()
        return receipts, accepted
