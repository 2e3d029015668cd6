"""Bodies of proposed blocks: put together from a proposal's ids, or fetched whole.

A proposal carries ids (BIP 152); the bodies come from the mempool, what is missing from whoever sent the
proposal, and failing that the whole block from any peer, configured ones before strangers.

Invariant: what `fetch` returns is the block of that hash, its body the one that the header commits to; who
sent another is asked last from then on, and nobody else can bring that about. Leaves out: whether the block
is valid, and when nobody needs it any more (`judge.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consensus import block as blocks
from consensus.block import Block, Header
from consensus.errors import Rejected
from consensus.transaction import Transaction, decode_transaction
from node.blocks.compact_bodies import CompactBodies, CompactBody
from node.network.frames import BlockBody, BodyTransactions, GetBlock, GetBodyTransactions
from node.network.transport import Transport
from node.store.positions import read_header

FETCH_SECONDS: Final = 0.3  # a block crosses loopback in 10 ms; then another peer is asked
FETCH_SECONDS_MAX: Final = 5.0
QUESTIONS_MAX: Final = 3  # for a body's transactions: the mempool may lose some while others are on their way
BAD_BODY_POINTS: Final = 50  # a second one bans the peer


@dataclass(slots=True)
class WantedBody:
    """A block whose body is on its way, and what of it is here. header: once known."""

    header: Header | None
    arrived: asyncio.Event = field(default_factory=asyncio.Event, kw_only=True)  # a frame about it came
    answers: dict[int, Transaction] = field(default_factory=dict, kw_only=True)  # by place in the block
    asked: tuple[int, ...] = field(default=(), kw_only=True)  # places whose answer is waited for
    questions: int = field(default=0, kw_only=True)  # asked so far
    whole: Block | None = field(default=None, kw_only=True)
    liars: set[bytes] = field(default_factory=set, kw_only=True)  # who sent a body that is not this block's


class BodyFetcher:
    """find_transaction: by id, in the mempool. Of a proposal's body that came early the ids are kept."""

    def __init__(self, find_transaction: Callable[[bytes], Transaction | None], transport: Transport) -> None:
        self._find_transaction = find_transaction
        self._transport = transport
        self._compact = CompactBodies()

    # --- what peers send ------------------------------------------------------------------------------

    def offer(self, body: CompactBody, work: WantedBody | None) -> None:
        """A proposal's body; kept until its block is wanted. work: if it is already."""
        if self._compact.offer(body) and work is not None:
            work.arrived.set()

    def take_transactions(self, frame: BodyTransactions, work: WantedBody, sender: bytes) -> None:
        """Transactions a proposal's source was asked for. Raises Rejected when they are not those."""
        compact = self._compact.get(frame.block_hash)
        if compact is None or compact.source != sender:
            return  # too late: the whole block was asked for meanwhile; or from somebody who was not asked
        if len(frame.raws) != len(frame.indices):
            raise Rejected("has not one transaction per index", field="body_transactions")
        for index, raw in zip(frame.indices, frame.raws, strict=True):
            if index >= len(compact.frame.ids):
                raise Rejected(f"{index} is not in the block", field="body_transactions.indices")
            if index in work.answers:
                continue
            transaction = decode_transaction(raw)
            if transaction.id != compact.frame.ids[index]:
                raise Rejected(f"transaction {index} is another", field="body_transactions")
            work.answers[index] = transaction
        asked, work.asked = work.asked, ()
        if not asked:
            return  # nothing is waited for: kept, and no reason to wake anybody
        if any(place not in work.answers for place in asked):
            # Its source lacks what its own body names. Asked again it would say the same: whoever else took
            # the proposal has the whole block.
            self._give_up_compact(compact, work)
        work.arrived.set()

    def take_block(self, frame: BlockBody, work: WantedBody) -> None:
        """A whole block that was asked for. Raises Rejected when it is not that block."""
        if not frame.raw or work.whole is not None:
            return
        if read_header(frame.raw).hash != frame.block_hash:  # looked at before 4 MB are decoded
            raise Rejected("is not the block asked for", field="block_body")
        work.whole = blocks.decode_block(frame.raw)
        work.arrived.set()

    def drop(self, block_hash: bytes) -> None:
        """Nobody wants this block any more."""
        self._compact.drop(block_hash)

    def prune(self, final: Header) -> None:
        """Forget what the final chain is past."""
        self._compact.prune(final)

    # --- getting one ----------------------------------------------------------------------------------

    async def fetch(self, block_hash: bytes, work: WantedBody) -> Block:
        """The block, whenever it is here. Whoever gives it up cancels this."""
        attempt = 0
        while True:
            block = work.whole
            if block is None and work.header is not None:
                block = self._assemble(block_hash, work, attempt)
            if block is not None:
                return block
            if attempt > 0 or block_hash not in self._compact:
                self._ask_for_block(block_hash, work, attempt)
            work.arrived.clear()
            try:
                async with asyncio.timeout(min(FETCH_SECONDS * 2 ** min(attempt, 10), FETCH_SECONDS_MAX)):
                    await work.arrived.wait()
            except TimeoutError:
                attempt += 1

    def _assemble(self, block_hash: bytes, work: WantedBody, attempt: int) -> Block | None:
        """The block from its compact body, if every transaction is here; else asks the source for the rest."""
        compact = self._compact.get(block_hash)
        if compact is None:
            return None
        transactions, missing = compact.find_missing(work.answers, self._find_transaction)
        if missing:
            if attempt == 0 and not work.asked and work.questions < QUESTIONS_MAX:
                work.asked = missing
                work.questions += 1
                self._transport.send(compact.source, GetBodyTransactions(block_hash, missing))
            return None
        try:
            return compact.assemble(transactions)
        except Rejected as reason:
            # The body is not the one the header commits to: its sender's fault, not the block's.
            self._transport.penalise(compact.source, BAD_BODY_POINTS, str(reason))
            self._give_up_compact(compact, work)
            return None

    def _give_up_compact(self, compact: CompactBody, work: WantedBody) -> None:
        """Ask for the whole block from now on, and its source last."""
        work.liars.add(compact.source)
        work.answers.clear()
        work.asked = ()
        self._compact.drop(compact.header.hash)

    def _ask_for_block(self, block_hash: bytes, work: WantedBody, attempt: int) -> None:
        """Ask one peer for the whole block: who sent the proposal first, then the others in turn.

        A round is all configured peers and one of the others: many silent strangers cost no more than a few.
        """
        compact = self._compact.get(block_hash)
        source = None if compact is None else compact.source
        known: list[bytes] = []
        others: list[bytes] = []
        for peer in self._transport.peers():
            (known if peer.name and peer.node_key not in work.liars else others).append(peer.node_key)
        if not known and not others:
            return
        known.sort(key=lambda key: key != source)
        others.sort(key=lambda key: (key in work.liars, key != source))
        rounds, place = divmod(attempt, len(known) + bool(others))
        key = known[place] if place < len(known) else others[rounds % len(others)]
        self._transport.send(key, GetBlock(block_hash))
