"""The seam between the node and its network: frames in, frames out, and who is there.

The runtime, gossip and catching up know only `Transport`, the node makes and ends a `Network`:
`peers.PeerNetwork` with sockets, `memory_transport.MemoryTransport` within one process, and a simulated
world can bring its own.

Invariant: sending never waits and never raises; what cannot be queued is dropped and counted, and all
that is sent may be lost. Frames of one priority from one peer arrive in order, or the peer is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, assert_never

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


class Priority(IntEnum):
    """What goes first when a peer's queue holds several; each has limits of its own (`send_queue.py`)."""

    CONSENSUS = 0  # votes, certificates, proposals and what judging them waits for; overflow disconnects
    GOSSIP = 1  # transactions; the oldest is dropped, and comes again by announcement or in a block
    BULK = 2  # blocks for those who catch up; refused when full: they ask again, or another


def get_priority(frame: Frame) -> Priority:
    """The usual priority of a frame; a sender that knows better says so."""
    match frame:
        case Hello() | Proof() | Welcome() | Goodbye() | Status() | EngineMessage() | CompactProposal():
            return Priority.CONSENSUS
        case GetBodyTransactions() | BodyTransactions() | GetBlock() | GetFinalBlocks():
            return Priority.CONSENSUS  # requests are small, and a body holds up a vote
        case Announce() | GetTransactions() | Transactions():
            return Priority.GOSSIP
        case BlockBody() | FinalBlocks():
            return Priority.BULK
    assert_never(frame)


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that has proven its key (33 bytes). name: from our settings, or "". address: where it is."""

    node_key: bytes
    name: str
    address: str
    is_inbound: bool

    def __str__(self) -> str:
        return self.name or f"0x{self.node_key.hex()[:12]}@{self.address}"


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What `describe` tells of a connected or known peer. Times in seconds."""

    node_key: bytes
    name: str
    address: str
    is_connected: bool
    is_inbound: bool
    connected_s: float
    queued_frames: int
    queued_bytes: int
    points: int
    banned_s: float
    problem: str  # why the last attempt to dial it failed, "" when connected


class Handler(Protocol):
    """What a transport tells the node. `on_frame` is awaited before that peer's next frame is read.

    Raised by on_frame: Rejected scores the peer, NotYet is nobody's fault and is only counted; anything
    else is our own fault and goes to on_fault, which should stop the node.
    """

    async def on_frame(self, peer: Peer, frame: Frame) -> None: ...

    def on_connected(self, peer: Peer) -> None: ...

    def on_disconnected(self, peer: Peer) -> None: ...

    def on_fault(self, error: BaseException) -> None: ...


class Transport(Protocol):
    def peers(self) -> tuple[Peer, ...]:
        """All who are connected now, in the order of connecting."""
        ...

    def broadcast(
        self, frame: Frame, priority: Priority | None = None, except_peer: bytes | None = None
    ) -> int:
        """Queue for every peer but `except_peer` (a node key); how many took it. Encoded once."""
        ...

    def send(self, node_key: bytes, frame: Frame, priority: Priority | None = None) -> bool:
        """Queue for one peer; False when it is not connected or its queue refused."""
        ...

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        """Score a peer whose fault showed later than in on_frame; at 100 points it is banned for a while."""
        ...


class Network(Transport, Protocol):
    """A transport with a life: what a node needs to make, open and end one."""

    async def start(self) -> None:
        """Listen and begin to connect. Raises Rejected when the port cannot be had."""
        ...

    async def close(self) -> None:
        """Say goodbye to all and take nobody any more; in bounded time. Also when it was never started."""
        ...

    def describe(self) -> list[PeerReport]:
        """Every connected and every known peer, for people."""
        ...
