"""One process's end of the network between whole nodes: implements `transport.Network` over the cables.

Every frame is encoded when it is sent and decoded when it arrives, so that bounds hold; one frame of a
peer at a time is handled. Bans and penalties are those of a real node (reputation.py). A villain's door
rewrites what goes out and may answer what comes in.

Invariant: nothing of a dead process is sent. Leaves out: what becomes of a frame under way (`cables.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from consensus.errors import NotYet, Rejected
from node.network.frames import Frame, Goodbye, Status
from node.network.reputation import POINTS_MALFORMED, POINTS_REJECTED, Reputation
from node.network.transport import Handler, Peer, PeerReport, Priority, get_priority
from node.network.wire import encode_frame
from node.simulation.full_nodes.cables import Cables, Connection, NetworkWorld, Stream
from node.simulation.full_nodes.loop import VirtualLoop

HANDLER_GRACE_S: Final = 1.0  # as connection.py has it: to finish the frame at hand


class Door(Protocol):
    """What a villain puts between its node and the wire. Bytes go on the wire as they are."""

    def rewrite(self, frame: Frame, receiver: int) -> Iterable[Frame | bytes]:
        """What goes to this receiver (an index) instead of a frame of the node's."""
        ...

    def answer(self, frame: Frame, sender: int) -> Iterable[Frame | bytes] | None:
        """What goes back to a frame that the node then never sees; None: the node takes it."""
        ...


class Process(Protocol):
    """One life of a host, as its wire needs it."""

    index: int
    loop: VirtualLoop

    def speak(self, frame: Frame) -> None:
        """Called before the frame is sent to anybody. Raises Crash where the process ends here."""
        ...


@dataclass(slots=True, eq=False)
class _Link:
    """A connection as one of its ends has it."""

    peer: Peer
    index: int  # the peer's
    connection: Connection
    own: Stream
    other: Stream
    inbox: deque[bytes] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None
    reader: asyncio.Task[None] | None = None
    is_handling: bool = False
    is_over: bool = False


class Wire:
    """One process's end of the network; implements `transport.Network`. For one life of a host."""

    def __init__(
        self,
        cables: Cables,
        world: NetworkWorld,
        process: Process,
        handler: Handler,
        door: Door | None = None,
    ) -> None:
        self.index = process.index
        self.process = process
        self.reputation = Reputation()
        self._cables = cables
        self._world = world
        self._handler = handler
        self._door = door
        self._links: dict[bytes, _Link] = {}  # in the order of connecting
        self._is_closed = False

    # --- the Transport door ---------------------------------------------------------------------------

    def peers(self) -> tuple[Peer, ...]:
        return tuple(link.peer for link in self._links.values())

    def broadcast(
        self, frame: Frame, priority: Priority | None = None, except_peer: bytes | None = None
    ) -> int:
        if self._is_silent():
            return 0
        self.process.speak(frame)
        links = [link for node_key, link in self._links.items() if node_key != except_peer]
        if self._door is not None:
            return sum(
                self._put_lies(link, self._door.rewrite(frame, link.index), priority) for link in links
            )
        data = encode_frame(frame)
        return sum(self._put(link, frame, data, priority) for link in links)

    def send(self, node_key: bytes, frame: Frame, priority: Priority | None = None) -> bool:
        link = self._links.get(node_key)
        if link is None or self._is_silent():
            return False
        self.process.speak(frame)
        if self._door is not None:
            return self._put_lies(link, self._door.rewrite(frame, link.index), priority)
        return self._put(link, frame, encode_frame(frame), priority)

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        if self._is_silent():
            return
        is_ban = self.reputation.add(node_key, points, self.process.loop.time())
        whom = self._cables.indexes.get(node_key, -1)
        self._world.note_penalty(self.index, whom, points, reason, is_ban=is_ban)
        link = self._links.get(node_key)
        if is_ban and link is not None:
            self._end(link)

    # --- the Network door -----------------------------------------------------------------------------

    async def start(self) -> None:
        self._cables.listen(self)

    async def close(self) -> None:
        self._is_closed = True
        self._cables.stop_listening(self)
        for link in list(self._links.values()):
            self._end(link)

    def describe(self) -> list[PeerReport]:
        now_s = self.process.loop.time()
        reports = []
        for index, node_key in enumerate(self._cables.keys):
            if index == self.index:
                continue
            link = self._links.get(node_key)
            reports.append(
                PeerReport(
                    node_key=node_key,
                    name=f"node{index}",
                    address="simulated",
                    is_connected=link is not None,
                    is_inbound=link is not None and link.peer.is_inbound,
                    connected_s=0.0 if link is None else now_s - link.connection.opened_ms / 1_000,
                    queued_frames=0 if link is None else len(link.own.queue),
                    queued_bytes=0 if link is None else link.own.queue.size_bytes,
                    points=self.reputation.get_points(node_key, now_s),
                    banned_s=self.reputation.get_ban_left_s(node_key, now_s),
                    problem="",
                )
            )
        return reports

    def get_ban_left_ms(self, index: int) -> int:
        now_s = self.process.loop.time()
        return int(1_000 * self.reputation.get_ban_left_s(self._cables.keys[index], now_s))

    # --- sending --------------------------------------------------------------------------------------

    def _is_silent(self) -> bool:
        return self._is_closed or self.process.loop.is_dead

    def _put_lies(self, link: _Link, lies: Iterable[Frame | bytes], priority: Priority | None) -> bool:
        is_taken = False
        for lie in lies:
            data = lie if isinstance(lie, bytes) else encode_frame(lie)
            is_taken = self._put(link, lie, data, priority) or is_taken
        return is_taken

    def _put(self, link: _Link, frame: Frame | bytes, data: bytes, priority: Priority | None) -> bool:
        if link.connection.is_broken:
            return False  # nobody has told the node yet; what it says is lost
        if priority is None:
            priority = Priority.CONSENSUS if isinstance(frame, bytes) else get_priority(frame)
        topic = "status" if isinstance(frame, Status) else ""
        return self._cables.put(link.connection, link.own, data, priority, topic)

    # --- connections ----------------------------------------------------------------------------------

    def open(self, connection: Connection) -> None:
        """In this process's turn: the connection stands."""
        if self._is_closed or connection.is_broken:
            self._cables.close_end(connection, self.index)
            return
        a, b = connection.ends
        other = b if a == self.index else a
        node_key = self._cables.keys[other]
        peer = Peer(node_key, f"node{other}", "simulated", is_inbound=connection.dialler == other)
        link = _Link(peer, other, connection, connection.streams[self.index], connection.streams[other])
        self._links[node_key] = link
        link.reader = self.process.loop.create_task(self._read(link))
        self._handler.on_connected(peer)

    def drop(self, connection: Connection) -> None:
        """In this process's turn: the connection is gone."""
        link = next((link for link in self._links.values() if link.connection is connection), None)
        if link is None:
            self._cables.close_end(connection, self.index)  # it never stood here
        else:
            self._end(link)

    def _end(self, link: _Link) -> None:
        if link.is_over:
            return
        link.is_over = True
        del self._links[link.peer.node_key]
        self._cables.end_in_order(link.connection, self.index)
        reader = link.reader
        assert reader is not None
        if not link.is_handling:
            reader.cancel()
        elif reader is not asyncio.current_task():
            self.process.loop.call_later(HANDLER_GRACE_S, reader.cancel)
        self._handler.on_disconnected(link.peer)

    # --- receiving ------------------------------------------------------------------------------------

    def take(self, connection: Connection, stream: Stream, data: bytes) -> bool:
        """A frame reaches the process; False when it does not have this connection any more."""
        link = self._links.get(self._cables.keys[stream.sender])
        if link is None or link.connection is not connection:
            # It may be about to: the socket's buffer holds the frame until then.
            if self.index in connection.closed:
                return False
            self.process.loop.call_soon(self._take_late, connection, stream, data)
            return True
        link.inbox.append(data)
        if link.waiter is not None and not link.waiter.done():
            link.waiter.set_result(None)
        return True

    def _take_late(self, connection: Connection, stream: Stream, data: bytes) -> None:
        link = self._links.get(self._cables.keys[stream.sender])
        if link is not None and link.connection is connection:
            link.inbox.append(data)
            if link.waiter is not None and not link.waiter.done():
                link.waiter.set_result(None)

    async def _read(self, link: _Link) -> None:
        loop = self.process.loop
        while not link.is_over:
            while not link.inbox:
                link.waiter = loop.create_future()
                await link.waiter
            data = link.inbox.popleft()
            link.is_handling = True
            try:
                await self._handle(link, data)
            finally:
                link.is_handling = False
            link.other.under_way_bytes -= len(data)
            self._cables.pump(link.connection, link.other)

    async def _handle(self, link: _Link, data: bytes) -> None:
        peer = link.peer
        try:
            frame = self._cables.decode(data)
        except Rejected as error:
            self._fault_peer(link, POINTS_MALFORMED, str(error))
            self._end(link)
            return
        if isinstance(frame, Goodbye):
            self._end(link)
            return
        if self._door is not None and (answers := self._door.answer(frame, link.index)) is not None:
            self._put_lies(link, answers, None)
            return
        try:
            await self._handler.on_frame(peer, frame)
        except NotYet:
            return
        except Rejected as error:
            self._fault_peer(link, POINTS_REJECTED, str(error))
        except Exception as error:
            self._handler.on_fault(error)

    def _fault_peer(self, link: _Link, points: int, reason: str) -> None:
        self.penalise(link.peer.node_key, points, reason)
