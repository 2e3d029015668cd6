"""One WebSocket between two nodes: its handshake, then a reader and a writer until either side ends it.

Invariant: a frame is handed over only after the frame before it was dealt with, so a node that is busy
stops reading and TCP holds its peers back; nothing is ever buffered for it here. Ending is bounded in
time: a goodbye that the peer does not take is followed by cutting the socket.
Leaves out: who may connect, and which of two connections stays; `peers.py` decides.
"""

from __future__ import annotations

import asyncio
import itertools
import socket as sockets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import WSMsgType, web

from consensus.errors import NotYet, Rejected
from node.network.frames import Frame, Goodbye, Hello
from node.network.handshake import Handshake, say_goodbye
from node.network.send_queue import LIMITS, Limit, Overflow, SendQueue
from node.network.transport import Peer, Priority
from node.network.wire import decode_frame, encode_frame

if TYPE_CHECKING:
    Socket = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]

OnFrame = Callable[[Peer, Frame], Awaitable[None]]
OnRejected = Callable[[Peer, Rejected], None]

GOODBYE_TIMEOUT_S: Final = 1.0  # a line and a close frame; who cannot take them in a second is cut off
CLOSE_TIMEOUT_S: Final = 2 * GOODBYE_TIMEOUT_S  # aiohttp's own; longer, so that ours governs and cuts
TURN_FRAMES_MAX: Final = 32  # of one peer before others have their turn: some milliseconds
HANDLER_GRACE_S: Final = 1.0  # a batch of transactions is checked in less


@dataclass(slots=True)
class Counters:
    """What the metrics show, over the life of the process. Bytes are those of frames, without WebSocket's."""

    frames_received: int = 0
    frames_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    frames_dropped: int = 0  # gossip and bulk that a full queue did not take
    overflows: int = 0  # connections ended because consensus frames piled up
    frames_rejected: int = 0
    frames_not_yet: int = 0
    handshakes_failed: int = 0
    dials: int = 0
    dials_failed: int = 0
    bans: int = 0


class Lost(Exception):
    """The connection is gone, without a word or with a goodbye that was read."""


async def read_frame(socket: Socket, counters: Counters) -> Frame:
    """The next frame. Raises Rejected for what is none, Lost when there will be no more."""
    message = await socket.receive()
    if message.type is WSMsgType.BINARY:
        counters.frames_received += 1
        counters.bytes_received += len(message.data)
        return decode_frame(message.data)
    if message.type is WSMsgType.TEXT:
        raise Rejected("a text message", field="frame", code="encoding", mend="send binary messages")
    if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
        raise Rejected(str(message.data), field="frame", code="websocket")
    raise Lost(f"closed with code {socket.close_code}")


async def prove(socket: Socket, handshake: Handshake, counters: Counters) -> Hello:
    """Run a handshake to its end: for the initiator up to Welcome, for the responder up to the proof.

    Returns the other side's hello. Raises Rejected (and has said goodbye) or Lost.
    """
    try:
        for frame in handshake.start():
            await socket.send_bytes(encode_frame(frame))
        while True:
            for frame in handshake.receive(await read_frame(socket, counters)):
                await socket.send_bytes(encode_frame(frame))
            if handshake.is_welcome or (handshake.is_proven and handshake.own.role):
                assert handshake.peer is not None
                return handshake.peer
    except Rejected as error:
        counters.handshakes_failed += 1
        await end_socket(socket, say_goodbye(error))
        raise
    except ConnectionError as error:  # aiohttp's, when the transport closes under a write
        raise Lost(str(error) or "connection reset") from None


async def end_socket(socket: Socket, goodbye: Goodbye | None) -> None:
    """Say goodbye if there is something to say, and close; within GOODBYE_TIMEOUT_S."""
    if isinstance(socket, web.WebSocketResponse) and not socket.prepared:
        return  # the upgrade itself failed, and aiohttp ends what is left
    inner = socket.get_extra_info("socket")  # asked now: a closing socket does not tell any more
    try:
        async with asyncio.timeout(GOODBYE_TIMEOUT_S):
            if goodbye is not None and not socket.closed:
                await socket.send_bytes(encode_frame(goodbye))
            await socket.close()
    except (ConnectionError, TimeoutError):
        if inner is not None:
            _cut(inner)


def _cut(inner: Any) -> None:
    """Drop a connection and what waits in its buffers: a peer that reads nothing would keep them for ever."""
    if inner.fileno() < 0:
        return  # gone already
    # A copy of the descriptor: uvloop's own object has no shutdown(), and the connection is the same.
    with sockets.fromfd(inner.fileno(), sockets.AF_INET, sockets.SOCK_STREAM) as copy:
        try:
            copy.shutdown(sockets.SHUT_RDWR)
        except OSError:
            return  # the other side was first


class Connection:
    """A proven connection. `initiator_key`: who dialled; `opened_at`: loop time in seconds."""

    def __init__(
        self,
        peer: Peer,
        socket: Socket,
        counters: Counters,
        *,
        initiator_key: bytes,
        opened_at: float,
        limits: dict[Priority, Limit] = LIMITS,
    ) -> None:
        self.peer = peer
        self.initiator_key = initiator_key
        self.opened_at = opened_at
        self.queue = SendQueue(limits)
        self._socket = socket
        self._counters = counters
        self._end = asyncio.Event()
        self._goodbye: Goodbye | None = None
        self._is_handling = False

    @property
    def is_ended(self) -> bool:
        return self._end.is_set()

    def put(self, data: bytes, priority: Priority, topic: str = "") -> bool:
        """Queue an encoded frame; False when it is not taken. A consensus overflow ends the connection."""
        if self.is_ended:
            return False
        before = self.queue.dropped_count
        try:
            is_taken = self.queue.put(data, priority, topic)
        except Overflow as overflow:
            self._counters.overflows += 1
            self.end(Goodbye("slow", f"too slow for consensus: {overflow}"))
            return False
        self._counters.frames_dropped += self.queue.dropped_count - before
        return is_taken

    def end(self, goodbye: Goodbye | None) -> None:
        """Have `run` return soon; the first reason counts. No further frame is handed over."""
        if not self.is_ended:
            self._goodbye = goodbye
            self._end.set()

    async def run(self, on_frame: OnFrame, on_rejected: OnRejected) -> str:
        """Read and write until one side ends it; returns why, in words.

        A Rejected of `on_frame` goes to `on_rejected` and reading goes on, a NotYet is counted. Raises
        Rejected for bytes that are no frame, and any other error of `on_frame`: that fault is ours.
        An on_frame under way when the connection ends has HANDLER_GRACE_S to finish; then it is
        cancelled. Cancelling this does the same, and still says goodbye.
        """
        reader = asyncio.create_task(self._read(on_frame, on_rejected))
        writer = asyncio.create_task(self._write())
        ended = asyncio.create_task(self._end.wait())
        tasks = (reader, writer, ended)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end.set()
            if self._goodbye is None and reader.done() and not reader.cancelled():
                error = reader.exception()
                self._goodbye = say_goodbye(error) if isinstance(error, Rejected) else None
            writer.cancel()
            ended.cancel()
            if self._is_handling:
                await asyncio.wait((reader,), timeout=HANDLER_GRACE_S)
            reader.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await end_socket(self._socket, self._goodbye)
        errors = [error for error in results if isinstance(error, Exception)]
        for error in errors:
            if not isinstance(error, (Lost, ConnectionError)):
                raise error
        if self._goodbye is not None:
            return self._goodbye.reason
        return str(errors[0]) if errors else "ended"

    async def _read(self, on_frame: OnFrame, on_rejected: OnRejected) -> None:
        for count in itertools.count(1):
            if count % TURN_FRAMES_MAX == 0:
                await asyncio.sleep(0)  # what is in the buffer is read without a pause: 17,000 small frames
            if self._end.is_set():
                return
            frame = await read_frame(self._socket, self._counters)
            if self._end.is_set():
                return
            if isinstance(frame, Goodbye):
                raise Lost(f"said goodbye: {frame.reason}")
            self._is_handling = True
            try:
                await on_frame(self.peer, frame)
            except NotYet:
                self._counters.frames_not_yet += 1
            except Rejected as error:
                self._counters.frames_rejected += 1
                on_rejected(self.peer, error)
            finally:
                self._is_handling = False

    async def _write(self) -> None:
        while True:
            data = await self.queue.get()
            self._counters.frames_sent += 1
            self._counters.bytes_sent += len(data)
            # Returns at once while the socket takes it, and waits when 256 kB are under way.
            await self._socket.send_bytes(data)
