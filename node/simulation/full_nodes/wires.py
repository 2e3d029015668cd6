"""The network between whole nodes: what TCP makes of the world's links.

Every frame is encoded when it is sent and decoded when it arrives, so that bounds hold. A connection
delivers the frames of one priority in order. A message that the links lose is sent again a while later,
with all behind it waiting; or, in RESET_SHARE of cases, that is the end of the connection: both sides
hear of it, what was under way is lost, and they connect again. A cut holds frames up, and ends the
connection when it lasts (KEEPALIVE_MS), also if it is one-way. Duplication means nothing here: TCP drops
the copy. Queues, bans and penalties are those of a real node (send_queue.py, reputation.py).

Invariant: nothing reaches a process but through its loop; nothing of a dead process is sent.
Leaves out: the handshake (in this world node key i is host i's), strangers, dialling with backoff.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from consensus.errors import NotYet, Rejected
from node.network.frames import Frame, Goodbye, Status
from node.network.reputation import POINTS_MALFORMED, POINTS_REJECTED, Reputation
from node.network.send_queue import Overflow, SendQueue
from node.network.transport import Handler, Peer, PeerReport, Priority, get_priority
from node.network.wire import decode_frame, encode_frame
from node.simulation.full_nodes.loop import VirtualLoop
from node.simulation.links import Links, Pairs

RESET_SHARE: Final = 0.25  # of lost messages: the connection breaks; the others come again
RESEND_MS: Final = 200  # Linux's least time before TCP sends again
KEEPALIVE_MS: Final = 150  # a real one is 20 s; a run lasts a few, and whoever waits for it learns nothing
CONNECT_MS: Final = 60  # at most, from losing a connection until the next attempt, and between attempts
NEWS_MS: Final = 20  # at most, until one side hears that a connection has ended
HANDLER_GRACE_S: Final = 1.0  # as connection.py has it: to finish the frame at hand
WINDOW_BYTES: Final = 256_000  # under way to one peer, as its socket's buffers hold; the rest is queued
DECODED_MAX: Final = 4_096  # frames remembered, for their other receivers


class Door(Protocol):
    """What a villain puts between its node and the wire. Bytes go on the wire as they are."""

    def rewrite(self, frame: Frame, receiver: int) -> Iterable[Frame | bytes]:
        """What goes to this receiver (an index) instead of a frame of the node's."""
        ...

    def answer(self, frame: Frame, sender: int) -> Iterable[Frame | bytes] | None:
        """What goes back to a frame that the node then never sees; None: the node takes it."""
        ...


class NetworkWorld(Protocol):
    """The world, as its network needs it."""

    now_ms: int
    links: Links

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None: ...

    def draw(self) -> float:
        """Uniform in [0, 1), of the world's one generator."""
        ...

    def note_frame(self, sender: int, receiver: int, data: bytes) -> None:
        """A frame has arrived at a process that runs."""
        ...

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to hear of `note_sent`."""
        ...

    def note_sent(self, sender: int, receiver: int, frame: Frame, delay_ms: int | None) -> None:
        """A frame is on its way; delay_ms None: it will not arrive."""
        ...

    def note_penalty(self, by: int, whom: int, points: int, reason: str, *, is_ban: bool) -> None: ...


class Process(Protocol):
    """One life of a host, as its wire needs it."""

    index: int
    loop: VirtualLoop

    def speak(self, frame: Frame) -> None:
        """Called before the frame is sent to anybody. Raises Crash where the process ends here."""
        ...


@dataclass(slots=True, eq=False)
class _Stream:
    """One direction of a connection."""

    sender: int
    receiver: int
    queue: SendQueue = field(default_factory=SendQueue)
    arrivals_ms: list[int] = field(default_factory=lambda: [0] * len(Priority))  # the last one's, by priority
    is_waiting: bool = False  # something may stand in the queue
    under_way_bytes: int = 0  # sent, and not yet dealt with by the receiver

    def is_free(self, cut: Pairs) -> bool:
        """Whether a frame can go at once."""
        is_open = not self.is_waiting and self.under_way_bytes < WINDOW_BYTES
        return is_open and (not cut or (self.sender, self.receiver) not in cut)


@dataclass(slots=True, eq=False)
class _Connection:
    streams: dict[int, _Stream]  # by sender
    dialler: int
    opened_ms: int
    is_broken: bool = False  # nothing more goes over it; the ends hear of that in their time
    closed: set[int] = field(default_factory=set)  # the ends that have

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(self.streams)


class Cables:
    """All connections of a world, between hosts 0 to nodes - 1. `keys`: their node keys."""

    def __init__(self, world: NetworkWorld, keys: list[bytes]) -> None:
        self.keys = keys
        self.indexes = {key: index for index, key in enumerate(keys)}
        self.counts: Counter[str] = Counter()  # what happened, for tests and people
        self._world = world
        self._wires: dict[int, Wire] = {}  # that run and listen
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._dialling: set[tuple[int, int]] = set()
        self._decoded: dict[bytes, Frame | Rejected] = {}

    # --- what the world says --------------------------------------------------------------------------

    def on_links_changed(self) -> None:
        """Call when links were cut or healed."""
        world = self._world
        for connection in list(self._connections.values()):
            if connection.is_broken:
                continue
            if self._is_cut(*connection.ends):
                world.push(KEEPALIVE_MS, self._check_alive, (connection,))
            for stream in connection.streams.values():
                self.pump(connection, stream)

    def on_death(self, index: int) -> None:
        """A process ended without a word; its peers hear of it from the kernel. What it sent may arrive."""
        self._wires.pop(index, None)
        for connection in list(self._connections.values()):
            if index in connection.streams:
                connection.is_broken = True
                self._tell_ends(connection, after_ms=0)
                self.close_end(connection, index)

    def _check_alive(self, connection: _Connection) -> None:
        if not connection.is_broken and self._is_cut(*connection.ends):
            self.counts["cut off"] += 1
            self.end(connection)

    def _is_cut(self, a: int, b: int) -> bool:
        cut: Pairs = self._world.links.cut_now
        return bool(cut) and ((a, b) in cut or (b, a) in cut)

    # --- connecting -----------------------------------------------------------------------------------

    def listen(self, wire: Wire) -> None:
        """A process has come up: it dials all others, and they it."""
        self._wires[wire.index] = wire
        for other in range(len(self.keys)):
            if other != wire.index:
                self._dial_later(wire.index, other)

    def stop_listening(self, wire: Wire) -> None:
        if self._wires.get(wire.index) is wire:
            del self._wires[wire.index]

    def _dial_later(self, a: int, b: int, delay_ms: int = 0) -> None:
        pair = (min(a, b), max(a, b))
        if pair not in self._dialling:
            self._dialling.add(pair)
            self._world.push(delay_ms + self._draw_ms(CONNECT_MS), self._dial, pair)

    def _dial(self, a: int, b: int) -> None:
        self._dialling.discard((a, b))
        one, other = self._wires.get(a), self._wires.get(b)
        if one is None or other is None:
            return  # who comes up dials
        ban_ms = max(one.get_ban_left_ms(b), other.get_ban_left_ms(a))
        is_stuck = (a, b) in self._connections or one.process.loop.is_paused or other.process.loop.is_paused
        if is_stuck or ban_ms or self._is_cut(a, b):
            self._dial_later(a, b, ban_ms)
            return
        world = self._world
        dialler, responder = (one, other) if world.draw() < 0.5 else (other, one)
        streams = {a: _Stream(a, b), b: _Stream(b, a)}
        connection = self._connections[a, b] = _Connection(streams, dialler.index, world.now_ms)
        self.counts["connected"] += 1
        # Who is dialled takes the connection and says so: what it says next comes after that.
        welcome_ms = self._draw_ms(NEWS_MS)
        streams[responder.index].arrivals_ms = [world.now_ms + welcome_ms] * len(Priority)
        responder.process.loop.call_soon(responder.open, connection)
        world.push(welcome_ms, self._welcome, (dialler, connection))

    def _welcome(self, dialler: Wire, connection: _Connection) -> None:
        if self._wires.get(dialler.index) is dialler and not connection.is_broken:
            dialler.process.loop.call_soon(dialler.open, connection)

    # --- carrying -------------------------------------------------------------------------------------

    def put(
        self, connection: _Connection, stream: _Stream, data: bytes, priority: Priority, topic: str
    ) -> bool:
        """Send a frame, or queue it; False when it is not taken. An overflow ends the connection."""
        if stream.is_free(self._world.links.cut_now):
            self._launch(connection, stream, data, priority)
            return True
        try:
            stream.is_waiting = True
            is_taken = stream.queue.put(data, priority, topic)
        except Overflow:
            self.counts["overflow"] += 1
            self.end(connection)
            return False
        return is_taken

    def pump(self, connection: _Connection, stream: _Stream) -> None:
        """Send what is queued, as far as the window allows, unless a cut holds it up."""
        if not stream.is_waiting or (stream.sender, stream.receiver) in self._world.links.cut_now:
            return
        while not connection.is_broken and stream.under_way_bytes < WINDOW_BYTES:
            found = stream.queue.take()
            if found is None:
                stream.is_waiting = False
                return
            priority, data = found
            self._launch(connection, stream, data, priority)

    def _launch(self, connection: _Connection, stream: _Stream, data: bytes, priority: Priority) -> None:
        world = self._world
        delays_ms = world.links.draw_delays_ms(stream.sender, stream.receiver)
        if not delays_ms and world.draw() < RESET_SHARE:
            self.counts["reset"] += 1
            if world.is_watched:
                self._note_sent(stream, data, None)
            self.end(connection)
            return
        # Lost, and sent again when nobody acknowledges it; of two copies the first one counts.
        delay_ms = min(delays_ms) if delays_ms else RESEND_MS + self._draw_ms(NEWS_MS)
        arrival_ms = max(world.now_ms + delay_ms, stream.arrivals_ms[priority])
        stream.arrivals_ms[priority] = arrival_ms
        stream.under_way_bytes += len(data)
        if world.is_watched:
            self._note_sent(stream, data, arrival_ms - world.now_ms)
        world.push(arrival_ms - world.now_ms, self._arrive, (connection, stream, data))

    def _note_sent(self, stream: _Stream, data: bytes, delay_ms: int | None) -> None:
        try:
            frame = self.decode(data)
        except Rejected:
            return
        self._world.note_sent(stream.sender, stream.receiver, frame, delay_ms)

    def _arrive(self, connection: _Connection, stream: _Stream, data: bytes) -> None:
        wire = self._wires.get(stream.receiver)
        if wire is not None and wire.take(connection, stream, data):
            self._world.note_frame(stream.sender, stream.receiver, data)

    def decode(self, data: bytes) -> Frame:
        """As decode_frame, once for all receivers: frames are frozen. Raises Rejected."""
        frame = self._decoded.get(data)
        if frame is None:
            try:
                frame = decode_frame(data)
            except Rejected as error:
                frame = error
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            self._decoded[data] = frame
        if isinstance(frame, Rejected):
            raise frame
        return frame

    # --- ending ---------------------------------------------------------------------------------------

    def end(self, connection: _Connection) -> None:
        """It breaks: what is under way may still arrive until a side hears of it; nothing follows."""
        if not connection.is_broken:
            connection.is_broken = True
            self._tell_ends(connection, after_ms=0)

    def end_in_order(self, connection: _Connection, index: int) -> None:
        """One side ends it, after all that it has sent; the other one hears of it behind that."""
        if not connection.is_broken:
            connection.is_broken = True
            last_ms = max(connection.streams[index].arrivals_ms)
            self._tell_ends(connection, after_ms=max(0, last_ms - self._world.now_ms))
        self.close_end(connection, index)

    def _tell_ends(self, connection: _Connection, after_ms: int) -> None:
        for index in connection.ends:
            self._world.push(after_ms + self._draw_ms(NEWS_MS), self._tell_end, (connection, index))

    def _tell_end(self, connection: _Connection, index: int) -> None:
        if index in connection.closed:
            return
        wire = self._wires.get(index)
        if wire is None:
            self.close_end(connection, index)
        else:
            wire.process.loop.call_soon(wire.drop, connection)

    def close_end(self, connection: _Connection, index: int) -> None:
        """A side has heard of the end, or is no more."""
        a, b = connection.ends
        connection.closed.add(index)
        if len(connection.closed) == 2 and self._connections.get((a, b)) is connection:
            del self._connections[a, b]
            self._dial_later(a, b)

    def _draw_ms(self, ms_max: int) -> int:
        return 1 + int(self._world.draw() * ms_max)


@dataclass(slots=True, eq=False)
class _Link:
    """A connection as one of its ends has it."""

    peer: Peer
    index: int  # the peer's
    connection: _Connection
    own: _Stream
    other: _Stream
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

    def open(self, connection: _Connection) -> None:
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

    def drop(self, connection: _Connection) -> None:
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

    def take(self, connection: _Connection, stream: _Stream, data: bytes) -> bool:
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

    def _take_late(self, connection: _Connection, stream: _Stream, data: bytes) -> None:
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
