"""Catching up: a node that is behind takes final blocks with their certificate from its peers.

The proof comes before the work: a batch must link, block by block, from our own final block to the one
its certificate makes final, and that certificate must hold a quorum's signatures, of the epoch's set; a
batch is of one epoch. Then every block is executed and compared like any other; a difference means that
*we* differ from a quorum (rule 11): the judge is told, so that the engine stops signing, and nothing more is
asked for. While one batch is executed the next is fetched and proven: the one is work for this process,
the other for the one that checks signatures.

Invariant: blocks and certificate are durable before the state moves; a liar costs one batch of signature
checks and loses its reputation; a batch is applied whole, whatever becomes of its connection. Source: consensus.md, rules 7, 9 and 11. Leaves out: snapshots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from consensus import block as blocks
from consensus import crypto, vote
from consensus.bft.contract import Event, Received
from consensus.block import Block, Header
from consensus.errors import Fault, Rejected
from consensus.ledger import epochs
from consensus.ledger.rules import Rules
from consensus.vote import Certificate, ValidatorSet
from node.blocks.chain import Chain
from node.blocks.finality import Finality
from node.blocks.judge import SignatureCheck
from node.network.frames import FINAL_BLOCKS_MAX, FinalBlocks, GetFinalBlocks, Status
from node.network.transport import Peer, Transport

log = logging.getLogger("assay.catch_up")

GAP_BLOCKS: Final = 3  # within this the ordinary way (proposals, certificates) is the faster one
STALL_SECONDS: Final = (
    1.0  # a smaller gap that does not close by itself is closed here, like what a batch left
)
ANSWER_SECONDS: Final = 5.0  # 4 MB of blocks over a slow link; then another peer is asked
DISTRUST_SECONDS: Final = 30.0  # whoever claims more than it delivers is not believed for so long
DISTRUSTED_MAX: Final = 256  # keys, also of peers that left: four times the strangers that may be connected
LIE_POINTS: Final = 100  # a batch that does not hold is no accident
BATCHES_MAX: Final = 2  # one is executed, one is proven; 4 MB each


class FinalStore(Protocol):
    def put_block(self, block: Block) -> None: ...

    def put_final(
        self, certificate: Certificate, blocks: Sequence[Block], links: Sequence[Header] = ()
    ) -> None: ...

    def sync(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Proven:
    """A batch that a quorum made final; not empty. `links` lead from its last block to the certificate's."""

    blocks: Sequence[Block]
    links: Sequence[Header]
    certificate: Certificate


@dataclass(slots=True)
class _Request:
    peer: bytes
    from_height: int
    deadline: float  # of the running loop's time


class CatchUp:
    """Watches what peers say of themselves and fetches while they are ahead."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: FinalStore,
        finality: Finality,
        signatures: SignatureCheck,
        transport: Transport,
        post: Callable[[Event], None],
        refuse: Callable[[Header, str], None],
        on_fault: Callable[[BaseException], None],
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """before_batch: told before each batch is made final here."""
        self._rules = rules
        self._chain = chain
        self._store = store
        self._finality = finality
        self._signatures = signatures
        self._transport = transport
        self._post = post
        self._refuse = refuse
        self._on_fault = on_fault
        self._before_batch = before_batch
        self._heights: dict[bytes, int] = {}  # final heights that connected peers claim
        self._distrusted: dict[bytes, float] = {}  # who owes us an answer, connected or not, and until when
        self._request: _Request | None = None
        self._tasks: list[asyncio.Task[None]] = []  # a batch each, in their order
        self._is_proving = False  # the last of them is not proven yet: nobody knows where the next begins
        self._tip: Header | None = None  # the last proven block that is not executed yet
        self._is_chasing = False  # a batch came, and nothing says yet that it was the last
        self._is_over = False  # closed, or a quorum made final what we refuse
        self._turn = 0  # rotates through peers
        self._seen_height = -1
        self._seen_at = 0.0

    @property
    def is_syncing(self) -> bool:
        """Whether a peer is ahead by more than the ordinary way would close soon."""
        return bool(self._list_ahead(self._chain.finalized, GAP_BLOCKS + 1))

    def _get_tip(self) -> Header:
        """What the next batch must link to."""
        return self._tip or self._chain.finalized

    def find_epoch(self) -> int | None:
        """The highest epoch that a peer claims to be in; None while we are alone or behind.

        A stranger that is distrusted is not heard. A configured peer is: it may only have been slow, and
        who signs again by this answer must not do so too early.
        """
        known, now = self._list_known(), asyncio.get_running_loop().time()
        heights = [
            height
            for key, height in self._heights.items()
            if key in known or self._distrusted.get(key, 0.0) <= now
        ]
        if self.is_syncing or not heights:
            return None
        return epochs.compute_epoch(max(heights) + 1, self._chain.epoch_blocks)

    def _list_known(self) -> set[bytes]:
        """The connected peers that are configured here."""
        return {peer.node_key for peer in self._transport.peers() if peer.name}

    def get_height(self, node_key: bytes) -> int | None:
        """The last final height that a peer told of."""
        return self._heights.get(node_key)

    def on_status(self, peer: Peer, status: Status) -> None:
        self._heights[peer.node_key] = status.final_height
        self.check()

    def on_disconnected(self, peer: Peer) -> None:
        self._heights.pop(peer.node_key, None)
        if self._request is not None and self._request.peer == peer.node_key:
            self._request = None
            if not peer.name:  # a configured peer's connection may cross with another, or its node restart
                self._distrust(peer.node_key)
            self.check()

    def check(self) -> None:
        """Ask for the next blocks if we are behind and nobody is asked yet. Call now and then."""
        now = asyncio.get_running_loop().time()
        if self._chain.finalized.height != self._seen_height:
            self._seen_height, self._seen_at = self._chain.finalized.height, now
        request = self._request
        if self._is_over or self._is_proving or len(self._tasks) == BATCHES_MAX:
            return
        if request is not None and now < request.deadline:
            return
        if request is not None:
            self._distrust(request.peer)
        self._request = None
        gap = 1 if self._is_chasing or now - self._seen_at >= STALL_SECONDS else GAP_BLOCKS
        tip = self._get_tip()
        believed, known = self._list_ahead(tip, gap), self._list_known()
        ahead = [key for key in believed if key in known] or believed
        ahead = ahead or self._list_ahead(tip, gap, is_believed=False)
        if not ahead:
            self._is_chasing = False
            return
        self._turn += 1
        peer = ahead[self._turn % len(ahead)]
        self._request = _Request(peer, tip.height + 1, now + ANSWER_SECONDS)
        self._transport.send(peer, GetFinalBlocks(tip.height + 1, FINAL_BLOCKS_MAX))

    def _list_ahead(self, header: Header, gap: int, *, is_believed: bool = True) -> list[bytes]:
        """Peers that claim at least so many final blocks above this one."""
        now = asyncio.get_running_loop().time()
        low = header.height + gap
        return [
            key
            for key, claimed in self._heights.items()
            if claimed >= low and (not is_believed or self._distrusted.get(key, 0.0) <= now)
        ]

    def _distrust(self, peer: bytes) -> None:
        self._distrusted.pop(peer, None)  # the newest stands last
        self._distrusted[peer] = asyncio.get_running_loop().time() + DISTRUST_SECONDS
        if len(self._distrusted) > DISTRUSTED_MAX:
            del self._distrusted[next(iter(self._distrusted))]

    def on_final_blocks(self, peer: Peer, frame: FinalBlocks) -> None:
        """A batch that was asked for: checked and applied in a task of its own."""
        request = self._request
        if request is None or request.peer != peer.node_key or frame.from_height != request.from_height:
            return  # late, or never asked for: no fault, and nothing is done with it
        self._request = None
        if self._is_over:
            return
        if not frame.raws:
            self._distrust(peer.node_key)
            if self._list_ahead(self._get_tip(), GAP_BLOCKS):
                self.check()  # somebody else; with nobody else the next status is soon enough
            return
        self._finality.pause()
        self._is_proving = self._is_chasing = True
        # Not in the connection's own task, which ends with it: the store would be ahead of the state.
        before = self._tasks[-1] if self._tasks else None
        task = asyncio.get_running_loop().create_task(self._apply(peer, frame, before))
        self._tasks.append(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._is_over = True
            self._on_fault(error)
        if not self._tasks:
            self._tip = None
            self._is_proving = False
            self._finality.resume()
        self.check()

    async def close(self) -> None:
        """Stop applying. What is durable and not applied yet is executed at the next start."""
        self._is_over = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _apply(self, peer: Peer, frame: FinalBlocks, before: asyncio.Task[None] | None) -> None:
        """Prove a batch while the one `before` is executed; then execute it."""
        proven = None
        try:
            proven = await self._prove(frame, before)
        except Rejected as reason:
            self._transport.penalise(peer.node_key, LIE_POINTS, str(reason))
            self._distrust(peer.node_key)
            log.warning("final blocks refused", extra={"peer": str(peer), "reason": str(reason)})
        self._is_proving = False
        if proven is None:
            return
        self._distrusted.pop(peer.node_key, None)  # slow, and no liar
        self._tip = proven.blocks[-1].header
        self.check()
        await _wait(before)
        if not self._is_over:
            await self._execute(proven)

    async def _prove(self, frame: FinalBlocks, before: asyncio.Task[None] | None) -> _Proven | None:
        """What of it is new, once all signatures hold; None when nothing is. Raises Rejected."""
        height = self._get_tip().height
        batch = [blocks.decode_block(raw) for raw in frame.raws]
        batch = [block for block in batch if block.header.height > height]
        if not batch:
            return None
        links = [blocks.decode_header(raw) for raw in frame.links]
        if self._find_next_validators() is None:
            await _wait(before)  # of an epoch that begins two batches on
        certificate, validators = self._check_links(
            [block.header for block in batch], links, frame.certificate
        )
        transactions = [tx for block in batch for tx in block.transactions]
        # Not urgent: whoever catches up judges no proposal, and its mempool has no hurry either.
        answers = await self._signatures.verify_new(transactions)
        if not all(answers):
            raise Rejected("of a transaction is wrong", field="signature", code="signature")
        for block in batch:
            if block.parent_certificate is not None:
                self._check_certificate(block.parent_certificate, validators)
        return _Proven(batch, links, certificate)

    async def _execute(self, proven: _Proven) -> None:
        self._before_batch()
        for block in proven.blocks:
            self._store.put_block(block)
        self._store.put_final(proven.certificate, proven.blocks, proven.links)
        self._store.sync()
        for block in proven.blocks:
            await asyncio.sleep(0)  # a thousand blocks must not silence the node
            try:
                delta = self._rules.check_block(self._chain.final_view, block, None)
            except Rejected as reason:
                headers = [block.header for block in proven.blocks]
                self._halt([*headers, *proven.links], block.header, str(reason))
                break
            self._chain.add(block, delta)
            self._finality.commit_stored((block,))
        self._post(Received(proven.certificate, b""))

    def _find_next_validators(self) -> ValidatorSet | None:
        """Those of the block after the tip; None while too little is executed to know them."""
        epoch = epochs.compute_epoch(self._get_tip().height + 1, self._chain.epoch_blocks)
        return self._chain.find_validators(epoch)

    def _halt(self, headers: Sequence[Header], refused: Header, reason: str) -> None:
        """A quorum made final what we refuse: its certificate will now stop the engine (rule 11)."""
        self._is_over = True
        for header in headers:
            if header.height >= refused.height:
                why = reason if header == refused else f"its ancestor of height {refused.height} is invalid"
                self._refuse(header, why)

    def _check_links(
        self, headers: Sequence[Header], links: Sequence[Header], raw_certificate: bytes
    ) -> tuple[Certificate, ValidatorSet]:
        """The certificate and its epoch's set, once all links from our final block to the one it makes final."""
        parent = self._get_tip()
        epoch = epochs.compute_epoch(parent.height + 1, self._chain.epoch_blocks)
        validators = self._find_next_validators()
        if validators is None:
            raise Fault(f"the set of epoch {epoch} is missing", field="state.records")
        for place, header in enumerate((*headers, *links)):
            is_tail = place >= len(headers) and epochs.is_tail(header, parent, self._chain.epoch_blocks)
            height = parent.height if is_tail else parent.height + 1
            is_link = blocks.is_link(header, parent) if is_tail else header.parent_hash == parent.hash
            if not is_link or (header.height, header.epoch) != (height, epoch):
                raise Rejected("do not link to our final block", field="final_blocks", code="link")
            parent = header
        certificate = vote.decode_certificate(raw_certificate)
        subject = certificate.subject
        told = (subject.kind, subject.epoch, subject.view, subject.block_hash)
        if told != (vote.FINALIZE, epoch, parent.view, parent.hash):
            raise Rejected("is not the finalization of the last block", field="certificate", code="link")
        self._check_certificate(certificate, validators)
        return certificate, validators

    def _check_certificate(self, certificate: Certificate, validators: ValidatorSet) -> None:
        vote.check_certificate(certificate, validators, self._rules.chain_id, crypto.verify)


async def _wait(task: asyncio.Task[None] | None) -> None:
    """Until it has ended; what became of it, whoever made it learns."""
    if task is not None:
        await asyncio.wait([task])
