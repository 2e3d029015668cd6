"""Catching up: a node that is behind takes final blocks with their certificate from its peers.

The proof comes before the work: a batch must link, block by block, from our own final block to the one
its certificate makes final, and that certificate must hold a quorum's signatures. Then every block is
executed and compared like any other; a difference means that *we* differ from a quorum (rule 11).

Invariant: blocks and certificate are durable before the state moves; a liar costs one batch of signature
checks and loses its reputation. Source: consensus.md, rules 7, 9 and 11. Leaves out: snapshots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from consensus import block as blocks
from consensus import crypto, vote
from consensus.bft.contract import Event, Halt, Received
from consensus.block import Block, Header
from consensus.errors import Rejected
from consensus.ledger.rules import Rules
from consensus.vote import Certificate
from node.chain import Chain
from node.finality import Finality
from node.frames import FINAL_BLOCKS_MAX, FinalBlocks, GetFinalBlocks, Status
from node.judge import SignatureCheck
from node.transport import Peer, Transport

log = logging.getLogger("assay.catch_up")

GAP_BLOCKS: Final = 3  # within this the ordinary way (proposals, certificates) is the faster one
STALL_SECONDS: Final = 1.0  # a smaller gap that does not close by itself is closed here
ANSWER_SECONDS: Final = 5.0  # 4 MB of blocks over a slow link; then another peer is asked
LIE_POINTS: Final = 100  # a batch that does not hold is no accident


class FinalStore(Protocol):
    def put_block(self, block: Block) -> None: ...

    def put_final(
        self, certificate: Certificate, blocks: Sequence[Block], links: Sequence[Header] = ()
    ) -> None: ...

    def sync(self) -> None: ...


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
        on_halt: Callable[[Halt], None],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._finality = finality
        self._signatures = signatures
        self._transport = transport
        self._post = post
        self._on_halt = on_halt
        self._heights: dict[bytes, int] = {}  # final heights that connected peers claim
        self._request: _Request | None = None
        self._is_applying = False
        self._turn = 0  # rotates through peers
        self._seen_height = -1
        self._seen_at = 0.0

    @property
    def is_syncing(self) -> bool:
        """Whether a peer is ahead by more than the ordinary way would close soon."""
        return max(self._heights.values(), default=0) > self._chain.finalized.height + GAP_BLOCKS

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
            self.check()

    def check(self) -> None:
        """Ask for the next blocks if we are behind and nobody is asked yet. Call now and then."""
        now = asyncio.get_running_loop().time()
        height = self._chain.finalized.height
        if height != self._seen_height:
            self._seen_height, self._seen_at = height, now
        if self._is_applying or (self._request is not None and now < self._request.deadline):
            return
        self._request = None
        is_stalled = now - self._seen_at >= STALL_SECONDS
        gap = 1 if is_stalled or self._finality.is_behind else GAP_BLOCKS
        ahead = [key for key, claimed in self._heights.items() if claimed >= height + gap]
        if not ahead:
            return
        self._turn += 1
        peer = ahead[self._turn % len(ahead)]
        self._request = _Request(peer, height + 1, now + ANSWER_SECONDS)
        self._transport.send(peer, GetFinalBlocks(height + 1, FINAL_BLOCKS_MAX))

    async def on_final_blocks(self, peer: Peer, frame: FinalBlocks) -> None:
        """A batch that was asked for. Raises Rejected when it does not hold."""
        request = self._request
        if request is None or request.peer != peer.node_key or frame.from_height != request.from_height:
            return  # late, or never asked for: no fault, and nothing is done with it
        self._request = None
        if not frame.raws:
            self._heights[peer.node_key] = 0  # it has none: its next status says more
            return
        self._is_applying = self._finality.is_paused = True
        try:
            await self._take(frame)
        except Rejected as reason:
            self._transport.penalise(peer.node_key, LIE_POINTS, str(reason))
            log.warning("final blocks refused", extra={"peer": str(peer), "reason": str(reason)})
        finally:
            self._is_applying = self._finality.is_paused = False
        self._finality.retry()
        self.check()

    async def _take(self, frame: FinalBlocks) -> None:
        batch = [blocks.decode_block(raw) for raw in frame.raws]
        batch = [block for block in batch if block.header.height > self._chain.finalized.height]
        if not batch:
            return
        links = [blocks.decode_header(raw) for raw in frame.links]
        certificate = self._check_links([block.header for block in batch] + links, frame.certificate)
        transactions = [tx for block in batch for tx in block.transactions]
        # Not urgent: whoever catches up judges no proposal, and its mempool has no hurry either.
        answers = await self._signatures.verify_new(transactions)
        if not all(answers):
            raise Rejected("of a transaction is wrong", field="signature", code="signature")
        for block in batch:
            if block.parent_certificate is not None:
                self._check_certificate(block.parent_certificate)
            self._store.put_block(block)
        self._store.put_final(certificate, batch, links)
        self._store.sync()
        for block in batch:
            await asyncio.sleep(0)  # a thousand blocks must not silence the node
            try:
                delta = self._rules.check_block(self._chain.final_view, block, None)
            except Rejected as reason:
                self._on_halt(Halt(f"a quorum finalised what we refuse: {reason}", block.hash))
                return
            self._chain.add(block, delta)
            self._finality.commit_stored((block,))
        self._post(Received(certificate, b""))

    def _check_links(self, headers: Sequence[Header], raw_certificate: bytes) -> Certificate:
        """The certificate, once the headers link from our final block to the one it makes final."""
        parent = self._chain.finalized
        for header in headers:
            if header.parent_hash != parent.hash or header.height != parent.height + 1:
                raise Rejected("do not link to our final block", field="final_blocks", code="link")
            parent = header
        certificate = vote.decode_certificate(raw_certificate)
        subject = certificate.subject
        if subject.kind != vote.FINALIZE or subject.block_hash != parent.hash or subject.view != parent.view:
            raise Rejected("is not the finalization of the last block", field="certificate", code="link")
        self._check_certificate(certificate)
        return certificate

    def _check_certificate(self, certificate: Certificate) -> None:
        vote.check_certificate(certificate, self._rules.validators, self._rules.chain_id, crypto.verify)
