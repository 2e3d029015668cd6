"""The judge: gets a proposed block's body and parent, checks the block, makes it durable, says so.

A proposal carries ids (BIP 152); the bodies come from the mempool, what is missing from the proposer,
and failing that the whole block from any peer. A block whose parent is not here waits for it, and the
parent is fetched. "Missing" is never "invalid" (consensus.md, rule 10).

Invariant: VALID is posted only after the block was executed on its parent's state and the store has
synced its body; a body or signature is checked once. Leaves out: finality, and catching up from far.
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
from consensus.ledger.rules import Rules
from consensus.transaction import Transaction, decode_transaction
from node.chain import Chain
from node.clock import Clock
from node.frames import BlockBody, BodyTransactions, CompactProposal, GetBlock, GetBodyTransactions
from node.transport import Transport

log = logging.getLogger("assay.judge")

FETCH_SECONDS: Final = 0.3  # a block crosses loopback in 10 ms; then another peer is asked
FETCH_SECONDS_MAX: Final = 5.0
NOT_YET_SECONDS: Final = 0.2  # a block ahead of our clock is looked at again after this
AHEAD_BLOCKS_MAX: Final = 64  # heights above the final one that are judged; farther is for catching up
BAD_BODY_POINTS: Final = 50  # a second one bans the peer
BODIES_MAX: Final = 128  # proposals whose bodies are kept before they are asked for


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
class CompactBody:
    """A proposal's body with ids in place of transactions, and the peer that sent it."""

    height: int
    frame: CompactProposal
    source: bytes


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
        read_block: Callable[[bytes], BlockRef],
        post: Callable[[Event], None],
        on_valid: Callable[[Block], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._signatures = signatures
        self._find_transaction = find_transaction
        self._transport = transport
        self._clock = clock
        self._read_block = read_block
        self._post = post
        self._on_valid = on_valid
        self._on_fault = on_fault
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._heights: dict[bytes, int] = {}  # of blocks with a task, as far as known
        self._compact: dict[bytes, CompactBody] = {}
        self._arrived: dict[bytes, asyncio.Event] = {}  # set when a frame about this block came
        self._answers: dict[bytes, dict[int, Transaction]] = {}
        self._whole: dict[bytes, Block] = {}
        self._grown: dict[bytes, asyncio.Event] = {}  # set when the chain has this block
        self.invalid: dict[bytes, str] = {}  # blocks found invalid, and why; for rule 11's alarm

    # --- what the engine and the peers say ----------------------------------------------------------

    def judge(self, block_hash: bytes, header: Header) -> None:
        """Judge a proposed block; answers with BlockJudged, maybe much later."""
        if self._chain.get_block(block_hash) is not None or self._is_final(header):
            self._post(BlockJudged(block_hash, Judgement.VALID))
        elif block_hash in self.invalid:
            self._post(BlockJudged(block_hash, Judgement.INVALID))
        else:
            self._start(block_hash, header)

    def fetch(self, block_hash: bytes) -> None:
        """Get a block of which only the hash is known (certified, or some block's parent), and judge it.

        Answers with BlockFetched when it is here, and then with BlockJudged.
        """
        header = self._chain.get_header(block_hash)
        if header is not None:
            self._post(BlockFetched(self._read_block(header.raw), header.raw))
        elif block_hash not in self.invalid:
            self._start(block_hash, None)

    def offer_body(self, header: Header, frame: CompactProposal, source: bytes) -> None:
        """A proposal's compact body; kept until the engine asks to judge the block."""
        if header.hash not in self._compact and header.height > self._chain.finalized.height:
            while len(self._compact) >= BODIES_MAX:
                del self._compact[next(iter(self._compact))]
            self._compact[header.hash] = CompactBody(header.height, frame, source)
            self._signal(header.hash)

    def on_body_transactions(self, frame: BodyTransactions) -> None:
        """Transactions a proposal's source was asked for. Raises Rejected when they are not those."""
        compact = self._compact.get(frame.block_hash)
        if compact is None or frame.block_hash not in self._tasks:
            return  # answered too late: the block was judged or dropped meanwhile
        if len(frame.raws) != len(frame.indices):
            raise Rejected("has not one transaction per index", field="body_transactions")
        answers = self._answers.setdefault(frame.block_hash, {})
        for index, raw in zip(frame.indices, frame.raws, strict=True):
            if index >= len(compact.frame.ids):
                raise Rejected(f"{index} is not in the block", field="body_transactions.indices")
            transaction = decode_transaction(raw)
            if transaction.id != compact.frame.ids[index]:
                raise Rejected(f"transaction {index} is another", field="body_transactions")
            answers[index] = transaction
        self._signal(frame.block_hash)

    def on_block_body(self, frame: BlockBody) -> None:
        """A whole block that was asked for. Raises Rejected when it is not that block."""
        if not frame.raw or frame.block_hash not in self._tasks:
            return
        block = blocks.decode_block(frame.raw)
        if block.hash != frame.block_hash:
            raise Rejected("is not the block asked for", field="block_body")
        self._whole[frame.block_hash] = block
        self._signal(frame.block_hash)

    def on_chain_grown(self, block_hash: bytes) -> None:
        """The chain has this block: those that wait for it as their parent go on."""
        event = self._grown.pop(block_hash, None)
        if event is not None:
            event.set()

    def on_finalized(self, header: Header) -> None:
        """Blocks at or below the final height need no judgement any more."""
        for block_hash, height in list(self._heights.items()):
            if height <= header.height:
                self._tasks[block_hash].cancel()
        past = [known for known, body in self._compact.items() if body.height <= header.height]
        for block_hash in past:
            del self._compact[block_hash]
        if len(self.invalid) > BODIES_MAX:
            self.invalid = dict(list(self.invalid.items())[-BODIES_MAX:])

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one block's way ----------------------------------------------------------------------------

    def _start(self, block_hash: bytes, header: Header | None) -> None:
        if block_hash in self._tasks:
            return
        if header is not None:
            self._heights[block_hash] = header.height
        task = asyncio.get_running_loop().create_task(self._run(block_hash, header))
        self._tasks[block_hash] = task
        task.add_done_callback(lambda done: self._end(block_hash, done))

    def _end(self, block_hash: bytes, task: asyncio.Task[None]) -> None:
        self._tasks.pop(block_hash, None)
        self._heights.pop(block_hash, None)
        self._arrived.pop(block_hash, None)
        self._answers.pop(block_hash, None)
        self._whole.pop(block_hash, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)

    async def _run(self, block_hash: bytes, header: Header | None) -> None:
        try:
            block = await self._get_body(block_hash, header)
            self._heights[block_hash] = block.header.height
            if header is None:
                self._post(BlockFetched(self._read_block(block.header.raw), block.header.raw))
            if block.header.height <= self._chain.finalized.height:
                return  # an abandoned branch
            parent_hash = block.header.parent_hash
            while (view := self._chain.get_view(parent_hash)) is None:
                if block.header.height > self._chain.finalized.height + AHEAD_BLOCKS_MAX:
                    return  # too far ahead: catching up will bring it
                if parent_hash in self.invalid:
                    raise Rejected("its parent is invalid", field="header.parent_hash", code="parent")
                self.fetch(parent_hash)
                await self._grown.setdefault(parent_hash, asyncio.Event()).wait()
            await self._check_signatures(block)
            view = self._chain.get_view(parent_hash)
            if view is None:
                return  # another branch became final while signatures were checked
            while True:
                try:
                    delta = self._rules.check_block(view, block, self._clock.now_ms())
                    break
                except NotYet as reason:
                    log.info("block waits", extra={"block": block_hash.hex(), "reason": str(reason)})
                    await asyncio.sleep(NOT_YET_SECONDS)
        except Rejected as reason:
            log.warning("block refused", extra={"block": block_hash.hex(), "reason": str(reason)})
            self.invalid[block_hash] = str(reason)
            self._post(BlockJudged(block_hash, Judgement.INVALID))
            self.on_chain_grown(block_hash)  # children wake up and find their parent invalid
            return
        if self._chain.get_view(parent_hash) is None:
            return
        if self._store.get_block(block_hash) is None:
            self._store.put_block(block)
            self._store.sync()
        self._chain.add(block, delta)
        self._on_valid(block)
        self._post(BlockJudged(block_hash, Judgement.VALID))
        self.on_chain_grown(block_hash)

    async def _check_signatures(self, block: Block) -> None:
        answers = await self._signatures.verify_new(block.transactions, urgent=True)
        if not all(answers):
            raise Rejected(
                f"of transaction {answers.index(False)} is wrong", field="signature", code="signature"
            )
        certificate = block.parent_certificate
        if certificate is not None:
            vote.check_certificate(certificate, self._rules.validators, self._rules.chain_id, crypto.verify)

    async def _get_body(self, block_hash: bytes, header: Header | None) -> Block:
        stored = self._store.get_block(block_hash)
        if stored is not None:
            return stored
        attempt = 0
        while True:
            block = self._whole.get(block_hash)
            if block is None and header is not None:
                block = self._assemble(block_hash, header, attempt)
            if block is not None:
                return block
            if header is None or attempt > 0 or block_hash not in self._compact:
                self._ask_for_block(block_hash, attempt)
            arrived = self._arrived.setdefault(block_hash, asyncio.Event())
            arrived.clear()
            try:
                async with asyncio.timeout(min(FETCH_SECONDS * 2**attempt, FETCH_SECONDS_MAX)):
                    await arrived.wait()
            except TimeoutError:
                attempt = min(attempt + 1, 10)

    def _assemble(self, block_hash: bytes, header: Header, attempt: int) -> Block | None:
        """The block from its compact body, if every transaction is here; else asks the source for the rest."""
        compact = self._compact.get(block_hash)
        if compact is None:
            return None
        frame = compact.frame
        answers = self._answers.get(block_hash, {})
        transactions: list[Transaction] = []
        missing = []
        for index, transaction_id in enumerate(frame.ids):
            found = answers.get(index) or self._find_transaction(transaction_id)
            if found is None:
                missing.append(index)
            else:
                transactions.append(found)
        if missing:
            if attempt == 0 and not answers:
                request = GetBodyTransactions(block_hash, tuple(missing))
                self._transport.send(compact.source, request)
            return None
        try:
            certificate = blocks.decode_parent_certificate(frame.parent_certificate)
            block = Block(header, tuple(transactions), frame.scores, frame.outcomes, certificate)
            blocks.check_body(block)
        except Rejected as reason:
            # The body is not the one the header commits to: its sender's fault, not the block's.
            self._transport.penalise(compact.source, BAD_BODY_POINTS, str(reason))
            del self._compact[block_hash]
            self._ask_for_block(block_hash, attempt)
            return None
        return block

    def _is_final(self, header: Header) -> bool:
        return self._store.get_header(header.height) == header and header.height <= self._chain.finalized.height

    def _ask_for_block(self, block_hash: bytes, attempt: int) -> None:
        """Ask one peer for the whole block: who sent the proposal first, then the others in turn."""
        peers = [peer.node_key for peer in self._transport.peers()]
        compact = self._compact.get(block_hash)
        if compact is not None and compact.source in peers:
            peers.remove(compact.source)
            peers.insert(0, compact.source)
        if peers:
            self._transport.send(peers[attempt % len(peers)], GetBlock(block_hash))

    def _signal(self, block_hash: bytes) -> None:
        event = self._arrived.get(block_hash)
        if event is not None:
            event.set()
