"""Who is connected: one connection per node key, who may join, who is banned.

Invariant: at most one connection per key, and of two both sides keep the same one (`is_better`). The
handler hears of every peer that comes and of every one that goes, in turn. No sockets here, no waiting.
Leaves out: how connections come about and what runs them (`peers.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from node.network.connection import Connection, Counters
from node.network.dialer import BackoffLimits
from node.network.frames import REASON_LENGTH_MAX, Goodbye
from node.network.reputation import BAN_S, Reputation
from node.network.send_queue import LIMITS, Limit
from node.network.transport import Handler, Priority

log = logging.getLogger("assay.peers")


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Times in seconds."""

    inbound_max: int = 64  # strangers that may follow us; known peers are always let in
    unproven_max: int = 16  # each may make us hold one frame of 4.5 MB for handshake_timeout_s
    handshake_timeout_s: float = 5.0  # two round trips and two signatures, on a machine that is busy
    unproven_s: float = 2.0  # then, if all places are taken, who has proven no key gives way to who comes
    heartbeat_s: float = 20.0  # a ping when nothing came; no answer for half of it ends the connection
    settled_s: float = 15.0  # three handshakes: older connections did not cross with a new one
    ban_s: float = BAN_S
    backoff: BackoffLimits = field(default_factory=BackoffLimits)
    queues: dict[Priority, Limit] = field(default_factory=lambda: dict(LIMITS))


def is_better(new: Connection, old: Connection, own_key: bytes, settled_s: float) -> bool:
    """Whether `new` replaces `old`, both to one peer; the peer comes to the same answer.

    When both dialled at once, the dial of the smaller key stays. Otherwise the newer one does: a peer that
    dials again, or lets itself be dialled, has lost the old connection, if we have noticed or not.
    """
    if new.initiator_key == old.initiator_key or new.opened_at - old.opened_at >= settled_s:
        return True
    return new.initiator_key == min(own_key, new.peer.node_key)


class Unproven:
    """Connections that have proven no key yet: few, and the oldest gives way once it had time enough."""

    def __init__(self, limits: NetworkLimits) -> None:
        self._limits = limits
        self._since: dict[asyncio.Timeout, float] = {}  # the oldest first

    def make_room(self, now_s: float) -> bool:
        """Whether one more may come; if need be the oldest is timed out at once."""
        if len(self._since) < self._limits.unproven_max:
            return True
        oldest = next(iter(self._since))
        if now_s - self._since[oldest] < self._limits.unproven_s:
            return False
        self.drop(oldest)
        if not oldest.expired():
            oldest.reschedule(now_s)
        return True

    def add(self, timeout: asyncio.Timeout, now_s: float) -> None:
        """timeout: what bounds the connection's handshake; it is dropped before that is over."""
        self._since[timeout] = now_s

    def drop(self, timeout: asyncio.Timeout) -> None:
        self._since.pop(timeout, None)


class ConnectionTable:
    """The connections of one node. Times in seconds of the loop's clock."""

    def __init__(
        self,
        own_key: bytes,
        known_keys: Iterable[bytes],
        handler: Handler,
        limits: NetworkLimits,
        counters: Counters,
    ) -> None:
        self.reputation = Reputation(limits.ban_s)
        self.is_closed = False
        self._own_key = own_key
        # Set while a known peer is not connected: its dialler waits for that.
        self.absent = {node_key: asyncio.Event() for node_key in known_keys}
        for event in self.absent.values():
            event.set()
        self._handler = handler
        self._limits = limits
        self._counters = counters
        self._connections: dict[bytes, Connection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def get(self, node_key: bytes) -> Connection | None:
        return self._connections.get(node_key)

    def get_all(self) -> tuple[Connection, ...]:
        """In the order of connecting."""
        return tuple(self._connections.values())

    def get_refusal(self, connection: Connection, now_s: float) -> Goodbye | None:
        """Why this proven connection is not taken, or None."""
        node_key = connection.peer.node_key
        if self.is_closed:
            return Goodbye("shutdown", "this node stops")
        if self.reputation.get_ban_left_s(node_key, now_s):
            return Goodbye("banned", "banned for a while for earlier faults")
        old = self._connections.get(node_key)
        if old is not None:
            if is_better(connection, old, self._own_key, self._limits.settled_s):
                return None
            return Goodbye("duplicate", "connected already")
        inbound = sum(other.peer.is_inbound for other in self._connections.values())
        if connection.peer.is_inbound and node_key not in self.absent and inbound >= self._limits.inbound_max:
            return Goodbye("full", f"{inbound} others are connected, dial someone else")
        return None

    def add(self, connection: Connection) -> None:
        """Take a connection that was not refused, in place of an older one if there is one."""
        peer = connection.peer
        old = self._connections.get(peer.node_key)
        if old is not None:
            self.drop(old, Goodbye("duplicate", "replaced by another connection"))
        self._connections[peer.node_key] = connection
        if peer.node_key in self.absent:
            self.absent[peer.node_key].clear()
        log.info("peer %s connected (%s)", peer, "inbound" if peer.is_inbound else "outbound")
        self._handler.on_connected(peer)

    def drop(self, connection: Connection, goodbye: Goodbye | None) -> None:
        """End a connection and forget it; nothing more when it was replaced or dropped before."""
        node_key = connection.peer.node_key
        connection.end(goodbye)
        if self._connections.get(node_key) is not connection:
            return
        del self._connections[node_key]
        if node_key in self.absent:
            self.absent[node_key].set()
        self._handler.on_disconnected(connection.peer)

    def close(self) -> None:
        """Drop all and take no more."""
        self.is_closed = True
        for connection in self.get_all():
            self.drop(connection, Goodbye("shutdown", "this node stops"))

    def penalise(self, node_key: bytes, points: int, reason: str, now_s: float) -> None:
        """Score a fault; a peer that reaches 100 points is told, dropped and banned for a while."""
        if not self.reputation.add(node_key, points, now_s):
            return
        self._counters.bans += 1
        log.warning("peer 0x%s is banned for %.0f s: %s", node_key.hex(), self._limits.ban_s, reason)
        connection = self._connections.get(node_key)
        if connection is not None:
            self.drop(connection, Goodbye("banned", _cut_line(f"banned for a while: {reason}")))


def _cut_line(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:REASON_LENGTH_MAX]
