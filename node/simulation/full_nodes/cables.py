"""The cables between whole nodes: what TCP makes of the world's links.

A connection delivers the frames of one priority in order. A message that the links lose is sent again a
while later, with all behind it waiting; or, in RESET_SHARE of cases, that is the end of the connection:
both sides hear of it, what was under way is lost, and they connect again. A cut holds frames up, and ends
the connection when it lasts (KEEPALIVE_MS), also if it is one-way. Duplication means nothing here: TCP
drops the copy. Queues are those of a real node (send_queue.py).

Invariant: nothing reaches a process but through its loop, and what was sent before its end may arrive.
Leaves out: the handshake (in this world node key i is host i's), strangers, dialling with backoff.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from consensus.errors import Rejected
from node.network.frames import Frame
from node.network.send_queue import Overflow, SendQueue
from node.network.transport import Priority
from node.network.wire import decode_frame
from node.simulation.links import Links, Pairs

if TYPE_CHECKING:
    from node.simulation.full_nodes.wires import Wire

RESET_SHARE: Final = 0.25  # of lost messages: the connection breaks; the others come again
RESEND_MS: Final = 200  # Linux's least time before TCP sends again
KEEPALIVE_MS: Final = 150  # a real one is 20 s; a run lasts a few, and whoever waits for it learns nothing
CONNECT_MS: Final = 60  # at most, from losing a connection until the next attempt, and between attempts
NEWS_MS: Final = 20  # at most, until one side hears that a connection has ended
WINDOW_BYTES: Final = 256_000  # under way to one peer, as its socket's buffers hold; the rest is queued
DECODED_MAX: Final = 4_096  # frames remembered, for their other receivers


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


@dataclass(slots=True, eq=False)
class Stream:
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
class Connection:
    streams: dict[int, Stream]  # by sender
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
        self._connections: dict[tuple[int, int], Connection] = {}
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

    def _check_alive(self, connection: Connection) -> None:
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
        streams = {a: Stream(a, b), b: Stream(b, a)}
        connection = self._connections[a, b] = Connection(streams, dialler.index, world.now_ms)
        self.counts["connected"] += 1
        # Who is dialled takes the connection and says so: what it says next comes after that.
        welcome_ms = self._draw_ms(NEWS_MS)
        streams[responder.index].arrivals_ms = [world.now_ms + welcome_ms] * len(Priority)
        responder.process.loop.call_soon(responder.open, connection)
        world.push(welcome_ms, self._welcome, (dialler, connection))

    def _welcome(self, dialler: Wire, connection: Connection) -> None:
        if self._wires.get(dialler.index) is dialler and not connection.is_broken:
            dialler.process.loop.call_soon(dialler.open, connection)

    # --- carrying -------------------------------------------------------------------------------------

    def put(
        self, connection: Connection, stream: Stream, data: bytes, priority: Priority, topic: str
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

    def pump(self, connection: Connection, stream: Stream) -> None:
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

    def _launch(self, connection: Connection, stream: Stream, data: bytes, priority: Priority) -> None:
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

    def _note_sent(self, stream: Stream, data: bytes, delay_ms: int | None) -> None:
        try:
            frame = self.decode(data)
        except Rejected:
            return
        self._world.note_sent(stream.sender, stream.receiver, frame, delay_ms)

    def _arrive(self, connection: Connection, stream: Stream, data: bytes) -> None:
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

    def end(self, connection: Connection) -> None:
        """It breaks: what is under way may still arrive until a side hears of it; nothing follows."""
        if not connection.is_broken:
            connection.is_broken = True
            self._tell_ends(connection, after_ms=0)

    def end_in_order(self, connection: Connection, index: int) -> None:
        """One side ends it, after all that it has sent; the other one hears of it behind that."""
        if not connection.is_broken:
            connection.is_broken = True
            last_ms = max(connection.streams[index].arrivals_ms)
            self._tell_ends(connection, after_ms=max(0, last_ms - self._world.now_ms))
        self.close_end(connection, index)

    def _tell_ends(self, connection: Connection, after_ms: int) -> None:
        for index in connection.ends:
            self._world.push(after_ms + self._draw_ms(NEWS_MS), self._tell_end, (connection, index))

    def _tell_end(self, connection: Connection, index: int) -> None:
        if index in connection.closed:
            return
        wire = self._wires.get(index)
        if wire is None:
            self.close_end(connection, index)
        else:
            wire.process.loop.call_soon(wire.drop, connection)

    def close_end(self, connection: Connection, index: int) -> None:
        """A side has heard of the end, or is no more."""
        a, b = connection.ends
        connection.closed.add(index)
        if len(connection.closed) == 2 and self._connections.get((a, b)) is connection:
            del self._connections[a, b]
            self._dial_later(a, b)

    def _draw_ms(self, ms_max: int) -> int:
        return 1 + int(self._world.draw() * ms_max)
