"""The judge: gets a proposed block's body and parent, checks the block, makes it durable, says so.

A block whose parent is not here waits for it, and the parent is fetched. "Missing" is never "invalid"
(consensus.md, rule 10).

Invariant: VALID is posted only after the block was executed on its parent's state and the store has
synced its body; a body or signature is checked once. Leaves out: where bodies come from
(`body_fetcher.py`), finality, and catching up from far.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from consensus import block as blocks
from consensus import crypto, vote
from consensus.bft.contract import BlockFetched, BlockJudged, BlockRef, Event, Judgement
from consensus.block import Block, Header
from consensus.errors import NotYet, Rejected
from consensus.ledger import epochs
from consensus.ledger.rules import Rules
from consensus.ledger.state import Delta, View
from consensus.transaction import Transaction
from node.blocks.body_fetcher import BodyFetcher, WantedBody
from node.blocks.budget import BlockBudget
from node.blocks.chain import Chain
from node.blocks.compact_bodies import CompactBody
from node.clock import Clock
from node.network.frames import BlockBody, BodyTransactions, CompactProposal
from node.network.transport import Transport

log = logging.getLogger("assay.judge")

NOT_YET_SECONDS: Final = 0.2  # a block ahead of our clock is looked at again after this
AHEAD_BLOCKS_MAX: Final = (
    64  # heights above the final one whose parents are fetched; catching up does the rest
)
INVALID_MAX: Final = 128  # blocks remembered as invalid: a few dozen views' worth


class SignatureCheck(Protocol):
    """Whose signatures hold; what was seen before (in the mempool) costs nothing."""

    async def verify_new(
        self, transactions: Sequence[Transaction], *, urgent: bool = False
    ) -> list[bool]: ...


class BlockStore(Protocol):
    def put_block(self, block: Block) -> None: ...

    def sync(self) -> None: ...

    def get_block(self, block_hash: bytes) -> Block | None: ...

    def get_header(self, height: int) -> Header | None: ...


@dataclass(frozen=True, slots=True)
class InvalidBlock:
    header: Header
    reason: str


@dataclass(slots=True)
class _Work(WantedBody):
    """A block on its way: all that is kept for it goes with its task.

    height, epoch, view: what is known of a block before its header is; 0 when nothing is.
    """

    height: int
    epoch: int
    view: int
    task: asyncio.Task[None] | None = None

    def is_past(self, chain: Chain) -> bool:
        """Whether the block is final or abandoned, as far as is known of it."""
        final_height = chain.finalized.height
        if self.header is not None:
            return self.header.height <= final_height
        return 0 < self.height <= final_height or (self.view > 0 and chain.is_past(self.epoch, self.view))


class Judge:
    """One task per block; `post` takes the engine's events, `on_valid` is told of every valid block."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: BlockStore,
        signatures: SignatureCheck,
        find_transaction: Callable[[bytes], Transaction | None],
        transport: Transport,
        clock: Clock,
        budget: BlockBudget,
        read_block: Callable[[bytes], BlockRef],
        post: Callable[[Event], None],
        on_valid: Callable[[Block], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._signatures = signatures
        self._clock = clock
        self._budget = budget
        self._read_block = read_block
        self._post = post
        self._on_valid = on_valid
        self._on_fault = on_fault
        self._work: dict[bytes, _Work] = {}
        self._bodies = BodyFetcher(find_transaction, transport)
        self._growth = asyncio.Event()  # set, and replaced, when the chain grew or a block was refused
        self._is_paused = False
        self.invalid: dict[bytes, InvalidBlock] = {}  # found invalid, and why; for rule 11's alarm

    # --- what the engine and the peers say ----------------------------------------------------------

    def judge(self, block_hash: bytes, header: Header) -> None:
        """Judge a proposed block; answers with BlockJudged, maybe much later."""
        if self._chain.get_block(block_hash) is not None or self._is_final(header):
            self._post(BlockJudged(block_hash, Judgement.VALID))
        elif block_hash in self.invalid:
            self._post(BlockJudged(block_hash, Judgement.INVALID))
        elif (work := self._work.get(block_hash)) is not None:
            work.header = header
            work.arrived.set()  # a compact body can be put together now
        else:
            self._start(block_hash, _Work(header, header.height, header.epoch, header.view))

    def fetch(self, block_hash: bytes, *, height: int = 0, epoch: int = 0, view: int = 0) -> None:
        """Get a block of which only the hash is known (certified, or some block's parent), and judge it.

        Answers with BlockFetched when it is here, and then with BlockJudged. height, or epoch and view: the
        block's, if known; when the final chain is past them nobody needs it any more, and the search ends.
        """
        header = self._chain.get_header(block_hash)
        work = self._work.get(block_hash)
        refused = self.invalid.get(block_hash)
        if header is None and work is not None:
            header = work.header
        if header is None and refused is not None:
            header = refused.header
        if header is not None:
            self._post(BlockFetched(self._read_block(header.raw), header.raw))
            if refused is not None:
                self._post(BlockJudged(block_hash, Judgement.INVALID))
        elif work is None:
            self._start(block_hash, _Work(None, height, epoch, view))

    def offer_body(self, header: Header, frame: CompactProposal, source: bytes) -> None:
        """A proposal's compact body; kept until the engine asks to judge the block."""
        if header.height <= self._chain.finalized.height or self._chain.get_block(header.hash) is not None:
            return
        if header.hash not in self.invalid:
            self._bodies.offer(CompactBody(header, frame, source), self._work.get(header.hash))

    def on_body_transactions(self, frame: BodyTransactions, sender: bytes) -> None:
        """Transactions a proposal's source was asked for. Raises Rejected when they are not those."""
        work = self._work.get(frame.block_hash)
        if work is not None:  # else answered too late: the block was judged or dropped meanwhile
            self._bodies.take_transactions(frame, work, sender)

    def on_block_body(self, frame: BlockBody) -> None:
        """A whole block that was asked for. Raises Rejected when it is not that block."""
        work = self._work.get(frame.block_hash)
        if work is not None:
            self._bodies.take_block(frame, work)

    def refuse(self, header: Header, reason: str) -> None:
        """This block is invalid; the engine is told, and those that wait for it as their parent go on."""
        log.warning("block refused", extra={"block": header.hash.hex(), "reason": reason})
        while len(self.invalid) >= INVALID_MAX:
            del self.invalid[next(iter(self.invalid))]
        self.invalid[header.hash] = InvalidBlock(header, reason)
        self._post(BlockJudged(header.hash, Judgement.INVALID))
        self._wake()

    def pause(self) -> None:
        """Begin no checks: catching up brings blocks, and those that wait here may be among them."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._wake()

    def on_finalized(self, final: Header) -> None:
        """The final chain grew to `final`: what it is past needs no judgement any more."""
        for work in self._work.values():
            if work.is_past(self._chain) and work.task is not None:
                work.task.cancel()
                if work.header is not None:
                    self._tell_if_final(work.header)
        self._bodies.prune(final)
        self._wake()

    async def close(self) -> None:
        tasks = [work.task for work in self._work.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one block's way ----------------------------------------------------------------------------

    def _start(self, block_hash: bytes, work: _Work) -> None:
        if block_hash in self._work or work.is_past(self._chain):
            return
        self._work[block_hash] = work
        work.task = asyncio.get_running_loop().create_task(self._run(block_hash, work))
        work.task.add_done_callback(lambda done: self._end(block_hash, done))

    def _end(self, block_hash: bytes, task: asyncio.Task[None]) -> None:
        del self._work[block_hash]
        self._bodies.drop(block_hash)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)

    async def _run(self, block_hash: bytes, work: _Work) -> None:
        is_proposed = work.header is not None  # else fetched: how long that takes says nothing of its size
        started_ms = self._clock.monotonic_ms()
        block = self._store.get_block(block_hash)
        if block is None:
            block = await self._bodies.fetch(block_hash, work)
        body_ms = self._clock.monotonic_ms() - started_ms
        header = block.header
        try:
            if work.header is None:
                work.header = header
                self._post(BlockFetched(self._read_block(header.raw), header.raw))
            if await self._wait_for_parent(header) is not None:
                started_ms = self._clock.monotonic_ms()
                await self._check_signatures(block)
                delta = await self._execute(block)
                if delta is not None:
                    work.task = None  # done, but for telling: what that makes final does not cancel us
                    self._take_valid(block, delta)
                    if is_proposed:
                        took_ms = body_ms + self._clock.monotonic_ms() - started_ms
                        self._budget.note_judged(len(block.transactions), took_ms)
                    return
        except Rejected as reason:
            self.refuse(header, str(reason))
            return
        except NotYet as reason:  # of an epoch that is not known here: nothing that is needed now
            log.warning("block left", extra={"block": block_hash.hex(), "reason": str(reason)})
            return
        self._tell_if_final(header)

    def _take_valid(self, block: Block, delta: Delta) -> None:
        if self._store.get_block(block.hash) is None:
            self._store.put_block(block)
            self._store.sync()
        self._chain.add(block, delta)
        self._on_valid(block)
        self._post(BlockJudged(block.hash, Judgement.VALID))
        self._wake()

    async def _wait_for_parent(self, header: Header) -> View | None:
        """The parent's view; None when the final chain is past this block. Raises Rejected."""
        while True:
            final = self._chain.finalized
            if header.height <= final.height:
                return None
            if self._is_paused:
                await self._growth.wait()
                continue
            view = self._chain.get_view(header.parent_hash)
            if view is not None:
                return view
            if header.parent_hash in self.invalid:
                raise Rejected("its parent is invalid", field="header.parent_hash", code="parent")
            # At a boundary's height it may be a tail, whose parent is as high as itself.
            may_be_tail = header.parent_view > blocks.GENESIS_VIEW and epochs.is_boundary(
                header.height, self._chain.epoch_blocks
            )
            if may_be_tail:
                is_abandoned = self._chain.is_past(header.epoch, header.parent_view)
            else:
                # An epoch's first block stands on a final one. Only the proposer vouches for the parent that
                # it names, so that nothing is fetched at its word.
                is_first = header.parent_view == blocks.GENESIS_VIEW
                is_abandoned = is_first or header.height == final.height + 1
            if is_abandoned:
                return None  # a quorum may have notarized its branch: not invalid
            is_near = header.height <= final.height + AHEAD_BLOCKS_MAX
            if is_near and header.parent_hash not in self._work:
                if may_be_tail:
                    self.fetch(header.parent_hash, epoch=header.epoch, view=header.parent_view)
                else:
                    self.fetch(header.parent_hash, height=header.height - 1)
            await self._growth.wait()

    async def _check_signatures(self, block: Block) -> None:
        answers = await self._signatures.verify_new(block.transactions, urgent=True)
        if not all(answers):
            raise Rejected(
                f"of transaction {answers.index(False)} is wrong", field="signature", code="signature"
            )
        certificate = block.parent_certificate
        if certificate is not None:
            validators = self._chain.find_validators(block.header.epoch)
            if validators is None:
                raise Rejected(f"{block.header.epoch} is not its parent's or the next", field="header.epoch")
            vote.check_certificate(certificate, validators, self._rules.chain_id, crypto.verify)

    async def _execute(self, block: Block) -> Delta | None:
        """What the block changes; None when another branch became final. Raises Rejected."""
        while True:
            # A view is asked for anew after every wait: on a branch that was abandoned it is unusable.
            view = self._chain.get_view(block.header.parent_hash)
            if view is None:
                return None
            try:
                return self._rules.check_block(view, block, self._clock.now_ms())
            except NotYet as reason:
                log.info("block waits", extra={"block": block.hash.hex(), "reason": str(reason)})
            await asyncio.sleep(NOT_YET_SECONDS)

    def _is_final(self, header: Header) -> bool:
        return (
            header.height <= self._chain.finalized.height and self._store.get_header(header.height) == header
        )

    def _tell_if_final(self, header: Header) -> None:
        """It became final another way while it was judged: the engine asks but once."""
        if self._is_final(header):
            self._post(BlockJudged(header.hash, Judgement.VALID))

    def _wake(self) -> None:
        self._growth.set()
        self._growth = asyncio.Event()
