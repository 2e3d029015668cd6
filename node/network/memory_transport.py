"""A network within one process: the transport of several nodes without sockets, for tests.

Frames are encoded and decoded as on the wire, so that bounds hold; each direction of a link delivers in
order, one frame at a time, in a task of the running loop. Links can be cut and joined.
Invariant: as with sockets, sending never waits, and what a cut link carried is lost.
Leaves out: priorities, queue limits and bans (`peers.py`), loss and delay (a simulated world's affair).
"""

from __future__ import annotations

import asyncio

from consensus.errors import NotYet, Rejected
from node.network.frames import Frame
from node.network.transport import Handler, Peer, PeerReport, Priority
from node.network.wire import decode_frame, encode_frame


class MemoryTransport:
    """One node's end of a MemoryNetwork; implements `transport.Network`."""

    def __init__(self, node_key: bytes, name: str) -> None:
        self.node_key = node_key
        self.name = name
        self.penalties: list[tuple[bytes, int, str]] = []
        self.handler: Handler | None = None
        self._links: dict[bytes, _Link] = {}

    def peers(self) -> tuple[Peer, ...]:
        return tuple(link.peer for link in self._links.values())

    def broadcast(
        self,
        frame: Frame,
        priority: Priority | None = None,  # noqa: ARG002 - one lane here
        except_peer: bytes | None = None,
    ) -> int:
        data = encode_frame(frame)
        links = [link for node_key, link in self._links.items() if node_key != except_peer]
        for link in links:
            link.put(data)
        return len(links)

    def send(
        self,
        node_key: bytes,
        frame: Frame,
        priority: Priority | None = None,  # noqa: ARG002 - one lane here
    ) -> bool:
        link = self._links.get(node_key)
        if link is None:
            return False
        link.put(encode_frame(frame))
        return True

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        self.penalties.append((node_key, points, reason))

    async def start(self) -> None:
        """Nothing to listen on: whoever owns the MemoryNetwork joins its ends."""

    async def close(self) -> None:
        """Cut every link, as the end of a process does."""
        for link in list(self._links.values()):
            link.other._close(self.node_key)
            self._close(link.other.node_key)

    def describe(self) -> list[PeerReport]:
        return [
            PeerReport(
                link.peer.node_key,
                link.peer.name,
                link.peer.address,
                is_connected=True,
                is_inbound=link.peer.is_inbound,
                connected_s=0.0,
                queued_frames=link.queue.qsize(),
                queued_bytes=0,
                points=0,
                banned_s=0.0,
                problem="",
            )
            for link in self._links.values()
        ]

    def _open(self, other: MemoryTransport, *, is_inbound: bool) -> None:
        peer = Peer(other.node_key, other.name, "memory", is_inbound)
        self._links[other.node_key] = _Link(peer, self, other)
        if self.handler is not None:
            self.handler.on_connected(peer)

    def _close(self, node_key: bytes) -> None:
        link = self._links.pop(node_key)
        link.task.cancel()
        if self.handler is not None:
            self.handler.on_disconnected(link.peer)

    async def _take(self, sender: bytes, data: bytes) -> None:
        link = self._links.get(sender)
        if self.handler is None or link is None:
            return
        try:
            await self.handler.on_frame(link.peer, decode_frame(data))
        except NotYet:
            return
        except Rejected as error:
            self.penalise(sender, 0, str(error))
        except Exception as error:
            self.handler.on_fault(error)


class _Link:
    """What `own` has sent to `other` and `other` has not taken yet."""

    def __init__(self, peer: Peer, own: MemoryTransport, other: MemoryTransport) -> None:
        self.peer = peer
        self.other = other
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.under_way = 0
        self.task = asyncio.create_task(self._carry(own, other))

    def put(self, data: bytes) -> None:
        self.under_way += 1
        self.queue.put_nowait(data)

    async def _carry(self, own: MemoryTransport, other: MemoryTransport) -> None:
        while True:
            data = await self.queue.get()
            await other._take(own.node_key, data)
            self.under_way -= 1
            self.queue.task_done()


class MemoryNetwork:
    """Makes transports and links between them; use within a running loop."""

    def __init__(self) -> None:
        self.transports: dict[bytes, MemoryTransport] = {}

    def add(self, node_key: bytes, name: str = "") -> MemoryTransport:
        """A node's transport, not yet linked; set its `handler` before joining."""
        transport = MemoryTransport(node_key, name)
        self.transports[node_key] = transport
        return transport

    def join(self, first: bytes, second: bytes) -> None:
        """Link two nodes; `first` dialled. Both handlers are told."""
        a, b = self.transports[first], self.transports[second]
        a._open(b, is_inbound=False)
        b._open(a, is_inbound=True)

    def join_all(self) -> None:
        keys = list(self.transports)
        for place, first in enumerate(keys):
            for second in keys[place + 1 :]:
                self.join(first, second)

    def cut(self, first: bytes, second: bytes) -> None:
        """Unlink two nodes; what was under way is lost."""
        self.transports[first]._close(second)
        self.transports[second]._close(first)

    async def settle(self) -> None:
        """Until every frame sent so far, and every frame sent in answer, was dealt with."""
        while True:
            links = [link for transport in self.transports.values() for link in transport._links.values()]
            if not any(link.under_way for link in links):
                return
            for link in links:
                await link.queue.join()

    def close(self) -> None:
        """Stop carrying."""
        for transport in self.transports.values():
            for link in transport._links.values():
                link.task.cancel()
