"""The frame door: every frame of a peer comes in here and goes to the room it is for.

Implements `transport.Handler`. Invariant: what an engine hears was decoded and its signatures were checked
first, with the set of its epoch; what is said of the next epoch waits for its engine. A frame that no honest node sends is Rejected, so that the network scores its sender. Shut before
the node is built and after it failed or closed: frames are dropped then.
Leaves out: sockets, handshake, reputation (`node/network/`); each room checks its own frames.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from consensus import crypto
from consensus.bft import contract
from consensus.bft.contract import CertificateRequest, Proposal, Received
from consensus.bft.messages import check_message, decode_message
from consensus.block import Header, decode_header
from consensus.errors import NotYet, Rejected
from consensus.ledger.rules import Rules
from consensus.vote import NULLIFY, Vote
from node.blocks.catch_up import CatchUp
from node.blocks.chain import Chain
from node.blocks.judge import Judge
from node.blocks.serving import Serving
from node.engine.held_frames import HeldFrame, HeldFrames
from node.engine.room import EngineRoom, get_epoch
from node.network.frames import (
    Announce,
    BlockBody,
    BodyTransactions,
    CompactProposal,
    EngineMessage,
    FinalBlocks,
    Frame,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
    GetTransactions,
    Goodbye,
    Hello,
    Proof,
    Status,
    Transactions,
    Welcome,
)
from node.network.gossip import Gossip
from node.network.intake import Intake
from node.network.reputation import POINTS_REJECTED
from node.network.transport import Peer, Transport

log = logging.getLogger("assay.node")

RECORDS_TOLD_MAX: Final = 64  # of the newest views, to a peer that has just connected
NULLIFIES_KEPT: Final = 4096  # forty views that a hundred validators gave up; 1 MB


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where frames go. post: takes the engine's events; send_status: tells one peer of our chain."""

    rules: Rules
    chain: Chain
    engines: EngineRoom
    judge: Judge
    gossip: Gossip
    intake: Intake
    catching_up: CatchUp
    serving: Serving
    network: Transport
    post: Callable[[contract.Event], None]
    send_status: Callable[[bytes], None]


class FrameDoor:
    """Made before the network that it handles; `open` when the rooms are built."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self._on_fault = on_fault
        self._rooms: Rooms | None = None
        # A nullify may be needed again and again, for it asks for help: its signature is checked once.
        self._nullifies: dict[bytes, None] = {}
        self.held = HeldFrames()

    def open(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def shut(self) -> None:
        """Take nothing more."""
        self._rooms = None

    def on_epoch(self) -> None:
        """The next epoch's engine runs: what was said to it already may come in."""
        asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        for peer, frame in self.held.take():
            if self._rooms is None:
                return
            try:
                self._take_engine_frame(self._rooms, peer, frame)
            except Rejected as reason:
                self._rooms.network.penalise(peer.node_key, POINTS_REJECTED, str(reason))
            except NotYet:
                pass  # of an epoch that is still ahead of us: as unheard
            except Exception as error:  # ours: not left to the loop, which would only log it
                self._on_fault(error)
                return

    # --- as Handler has it --------------------------------------------------------------------------

    def on_connected(self, peer: Peer) -> None:
        log.info("connected", extra={"peer": str(peer)})
        if self._rooms is None:
            return
        self._rooms.send_status(peer.node_key)
        # What was said before this connection stood is lost to this peer: without it a network that starts
        # at once would wait for the retry timers of its first view.
        for record in self._rooms.engines.list_records()[-RECORDS_TOLD_MAX:]:
            self._rooms.engines.host.send(peer.node_key, record)

    def on_disconnected(self, peer: Peer) -> None:
        log.info("disconnected", extra={"peer": str(peer)})
        self.held.drop(peer)
        if self._rooms is None:
            return
        self._rooms.gossip.on_disconnected(peer)
        self._rooms.intake.on_disconnected(peer.node_key)
        self._rooms.catching_up.on_disconnected(peer)
        self._rooms.serving.on_disconnected(peer)

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        """One frame of a peer. Raises Rejected when it is at fault."""
        rooms = self._rooms
        if rooms is None:
            return
        match frame:
            case EngineMessage() | CompactProposal():
                self._take_engine_frame(rooms, peer, frame)
                await rooms.engines.wait_for_room()
            case Transactions() | Announce() | GetTransactions():
                await rooms.gossip.on_frame(peer, frame)
            case Status():
                rooms.catching_up.on_status(peer, frame)
            case GetBlock():
                rooms.serving.on_get_block(peer, frame)
            case GetBodyTransactions():
                rooms.serving.on_get_body_transactions(peer, frame)
            case GetFinalBlocks():
                rooms.serving.on_get_final_blocks(peer, frame)
            case BlockBody():
                rooms.judge.on_block_body(frame)
            case BodyTransactions():
                rooms.judge.on_body_transactions(frame, peer.node_key)
            case FinalBlocks():
                rooms.catching_up.on_final_blocks(peer, frame)
            case Hello() | Proof() | Welcome() | Goodbye():
                raise Rejected("came after the handshake", field=type(frame).__name__)
            case _:
                assert_never(frame)

    def on_fault(self, error: BaseException) -> None:
        self._on_fault(error)

    def _take_engine_frame(self, rooms: Rooms, peer: Peer, frame: HeldFrame) -> None:
        body = frame if isinstance(frame, CompactProposal) else None
        raw = frame.proposal if isinstance(frame, CompactProposal) else frame.payload
        message = decode_message(raw, rooms.chain.read_block)
        if body is not None and not isinstance(message, Proposal):
            raise Rejected("carries no proposal", field="compact_proposal")
        epoch = get_epoch(message)
        engine, validators = rooms.engines.find_engine(epoch), rooms.chain.find_validators(epoch)
        if engine is None or validators is None:
            if epoch == rooms.engines.epoch + 1:
                self.held.hold(peer, frame)
            return
        if not engine.is_needed(message):
            return  # known, old or far ahead: not worth a signature check
        if isinstance(message, CertificateRequest) and not rooms.serving.spend_certificate(
            peer, len(validators.validators)
        ):
            return
        is_nullify = isinstance(message, Vote) and message.subject.kind == NULLIFY
        if not is_nullify or raw not in self._nullifies:
            check_message(message, validators, rooms.rules.chain_id, crypto.verify)
        if is_nullify:
            self._keep_nullify(raw)
        if body is not None and isinstance(message, Proposal):
            header: Header = decode_header(message.payload)
            rooms.judge.offer_body(header, body, peer.node_key)
        rooms.post(Received(message, peer.node_key))

    def _keep_nullify(self, raw: bytes) -> None:
        """Remember these bytes, which name their epoch and so their signer's key, as checked."""
        self._nullifies[raw] = None
        if len(self._nullifies) > NULLIFIES_KEPT:
            del self._nullifies[next(iter(self._nullifies))]
