"""Signature checks of transactions: beside the event loop, once per transaction and node.

A `Verifier` remembers the ids whose signatures hold, so that what the mempool checked costs the
judge of a block nothing. What is new goes to the worker process in small batches, a judged block's
before the mempool's; without a worker, or after it died, the loop itself checks in small slices.

Invariant: `is_verified(id)` only after the signature of exactly those bytes was found valid (an id is the
hash of the whole transaction, signature included). Wrong ones are not remembered: their number is the
sender's choice. Leaves out: what to do with a wrong one; peers and clients are answered elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from consensus import crypto
from consensus.transaction import Transaction, compute_signing_digest
from node.signature_worker import SignatureWorker

BATCH_ITEMS: Final = 128  # 5 ms of the worker; an urgent batch waits for at most two of them
SLICE_ITEMS: Final = 16  # without a worker: 0.6 ms between two turns of the loop
VERIFIED_IDS_MAX: Final = 1 << 17  # a full mempool and some blocks; about 20 MB when full


class _Request:
    """One call of `verify`: its answers fill up batch by batch."""

    __slots__ = ("answers", "future", "left", "transactions")

    def __init__(self, transactions: Sequence[Transaction], future: asyncio.Future[list[bool]]) -> None:
        self.transactions = transactions
        self.answers = [False] * len(transactions)
        self.left = len(transactions)
        self.future = future


@dataclass(frozen=True, slots=True)
class _Batch:
    request: _Request
    start: int
    stop: int


class VerifiedIds:
    """A bounded set of ids; the one remembered longest ago is forgotten first."""

    def __init__(self, count_max: int = VERIFIED_IDS_MAX) -> None:
        self._count_max = count_max
        self._ids: dict[bytes, None] = {}

    def __contains__(self, transaction_id: object) -> bool:
        return transaction_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, transaction_id: bytes) -> None:
        self._ids[transaction_id] = None
        if len(self._ids) > self._count_max:
            # An eighth at once: deleting one by one leaves the dict's front full of holes to step over.
            for oldest in list(islice(self._ids, max(1, self._count_max // 8))):
                del self._ids[oldest]


class Verifier:
    """Checks signatures for one chain. Make it, and await it, in the node's one event loop.

    `worker` may be None (simulation, tests, platforms without fork): then everything is inline.
    """

    def __init__(
        self, chain_id: str, worker: SignatureWorker | None = None, ids_max: int = VERIFIED_IDS_MAX
    ) -> None:
        self._chain_id = chain_id
        self._worker = worker
        self._is_attached = False
        self._verified = VerifiedIds(ids_max)
        self._urgent: deque[_Batch] = deque()
        self._patient: deque[_Batch] = deque()
        self._under_way: dict[bytes, tuple[_Request, int]] = {}  # by id: who asked, and its place there
        self._inline: asyncio.Task[None] | None = None
        self.checked = 0  # signatures checked since the start, for metrics

    @property
    def waiting(self) -> int:
        """Signatures asked for and not yet handed to worker or loop."""
        return sum(batch.stop - batch.start for queue in (self._urgent, self._patient) for batch in queue)

    @property
    def has_worker(self) -> bool:
        return self._worker is not None and self._worker.is_alive

    def is_verified(self, transaction_id: bytes) -> bool:
        """Whether this transaction's signature was found valid here before (and not forgotten since)."""
        return transaction_id in self._verified

    async def verify_new(self, transactions: Sequence[Transaction], *, urgent: bool = False) -> list[bool]:
        """One answer per transaction, in order; only those not verified before are checked.

        `urgent` goes before everything that is not: a block being judged holds up the network.
        """
        verified, under_way = self._verified, self._under_way
        answers = [tx.id in verified for tx in transactions]
        unknown = [index for index, known in enumerate(answers) if not known]
        if not unknown:
            return answers
        # What another call is having checked is awaited, not checked twice. An urgent one does not wait.
        others = {} if urgent else {i: found for i in unknown if (found := under_way.get(transactions[i].id))}
        own = [index for index in unknown if index not in others]
        checked = await self.verify([transactions[index] for index in own], urgent=urgent)
        for index, answer in zip(own, checked, strict=True):
            answers[index] = answer
        for index, (request, place) in others.items():
            answers[index] = (await asyncio.shield(request.future))[place]
        return answers

    async def verify(self, transactions: Sequence[Transaction], *, urgent: bool = False) -> list[bool]:
        """One answer per transaction, in order; all of them are checked, and the valid ones remembered."""
        if not transactions:
            return []
        loop = asyncio.get_running_loop()
        if self._worker is not None and not self._is_attached and self._worker.is_alive:
            self._worker.attach(loop)
            self._is_attached = True
        request = _Request(transactions, loop.create_future())
        for place, tx in enumerate(transactions):
            self._under_way[tx.id] = (request, place)
        queue = self._urgent if urgent else self._patient
        size = BATCH_ITEMS if self.has_worker else SLICE_ITEMS
        for start in range(0, len(transactions), size):
            queue.append(_Batch(request, start, min(start + size, len(transactions))))
        self._pump()
        # Others may be waiting for the same answers: one caller's cancellation is not theirs.
        return await asyncio.shield(request.future)

    async def close(self) -> None:
        """End the worker. Requests not answered yet are cancelled."""
        if self._inline is not None:
            self._inline.cancel()
            await asyncio.wait([self._inline])
        batches = [*self._urgent, *self._patient]
        self._urgent.clear()
        self._patient.clear()
        for batch in batches:
            batch.request.future.cancel()
        for request, _ in self._under_way.values():
            request.future.cancel()
        self._under_way.clear()
        if self._worker is not None:
            self._worker.close()

    def _pump(self) -> None:
        worker = self._worker
        if worker is not None and worker.is_alive:
            while worker.has_room and (batch := self._take_next()) is not None:
                self._submit(worker, batch)
        elif self._inline is None and (self._urgent or self._patient):
            self._inline = asyncio.get_running_loop().create_task(self._run_inline())

    def _take_next(self) -> _Batch | None:
        queue = self._urgent or self._patient
        return queue.popleft() if queue else None

    def _submit(self, worker: SignatureWorker, batch: _Batch) -> None:
        # Digests are made batch by batch: 5,000 of them in one turn would hold the loop up for 8 ms.
        chain_id = self._chain_id
        items = [
            tx.public_key + compute_signing_digest(tx, chain_id) + tx.signature
            for tx in batch.request.transactions[batch.start : batch.stop]
        ]

        def on_answer(answers: list[bool] | None) -> None:
            if answers is not None:
                self._finish(batch, answers)
            elif not batch.request.future.done():
                self._urgent.appendleft(batch)  # the worker died: back in line, at its head
            self._pump()

        worker.submit(items, on_answer)

    async def _run_inline(self) -> None:
        chain_id = self._chain_id
        try:
            while (batch := self._take_next()) is not None:
                part = batch.request.transactions[batch.start : batch.stop]
                answers: list[bool] = []
                for start in range(0, len(part), SLICE_ITEMS):  # a batch may have been cut for the worker
                    items = [
                        (tx.public_key, compute_signing_digest(tx, chain_id), tx.signature)
                        for tx in part[start : start + SLICE_ITEMS]
                    ]
                    answers += crypto.verify_batch(items)
                    await asyncio.sleep(0)
                self._finish(batch, answers)
        finally:
            self._inline = None

    def _finish(self, batch: _Batch, answers: list[bool]) -> None:
        request, under_way = batch.request, self._under_way
        part = request.transactions[batch.start : batch.stop]
        request.answers[batch.start : batch.stop] = answers
        request.left -= len(part)
        self.checked += len(part)
        remember = self._verified.add
        for tx, is_valid in zip(part, answers, strict=True):
            if is_valid:
                remember(tx.id)
            found = under_way.get(tx.id)
            if found is not None and found[0] is request:
                del under_way[tx.id]
        if request.left == 0 and not request.future.done():
            request.future.set_result(request.answers)


class InlineVerifier(Verifier):
    """A Verifier without a process: the loop checks in small slices, in the order of the calls."""

    def __init__(self, chain_id: str, ids_max: int = VERIFIED_IDS_MAX) -> None:
        super().__init__(chain_id, None, ids_max)
