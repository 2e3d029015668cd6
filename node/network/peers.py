"""The network of one node: a WebSocket server, a dialler for each known peer, and one connection per key.

Invariant: at most one proven connection per node key (`connection_table.py`). Strangers are bounded: in number before and after they prove a key, in time until they do. A peer at fault
is scored, at 100 points told goodbye and banned for a while. `close` ends everything in bounded time.
Leaves out: what frames mean (the handler), TLS (a later channel binding), discovery (peers are settings).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from consensus.errors import Rejected
from node.network.connection import CLOSE_TIMEOUT_S, Connection, Counters, Lost, end_socket, prove
from node.network.connection_table import ConnectionTable, NetworkLimits, Unproven
from node.network.dialer import SETTLED_CODES, Backoff, KnownPeer
from node.network.frames import (
    FRAME_BYTES_MAX,
    INITIATOR,
    RESPONDER,
    Frame,
    Goodbye,
    Hello,
    Status,
    Welcome,
)
from node.network.handshake import Handshake, Identity
from node.network.links import Links
from node.network.reputation import POINTS_MALFORMED, POINTS_REJECTED
from node.network.transport import Handler, Peer, PeerReport, Priority, get_priority
from node.network.wire import encode_frame

if TYPE_CHECKING:
    from node.network.connection import Socket

log = logging.getLogger("assay.peers")

STOP_TIMEOUT_S: Final = 3.0  # a goodbye and a close frame to every peer at once, then sockets are cut


class PeerNetwork:
    """Implements `transport.Network` over sockets. Construct, `start`, and `close` within one loop."""

    def __init__(
        self,
        identity: Identity,
        handler: Handler,
        *,
        random_bytes: Callable[[int], bytes],
        rng: random.Random,
        known_peers: Iterable[KnownPeer] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        limits: NetworkLimits | None = None,
        links: Links | None = None,
    ) -> None:
        self.counters = Counters()
        self.port = port  # once started: the one that is bound
        self._identity = identity
        self._own_key = identity.key.public_key
        self._handler = handler
        self._random_bytes = random_bytes
        self._rng = rng
        self._host = host
        self._limits = limits or NetworkLimits()
        self._links = Links() if links is None else links
        self._known = {peer.node_key: peer for peer in known_peers if peer.node_key != self._own_key}
        self._table = ConnectionTable(self._own_key, self._known, handler, self._limits, self.counters)
        self._problems: dict[bytes, str] = {}  # of known peers: why the last attempt failed
        self._unproven = Unproven(self._limits)
        self._tasks: set[asyncio.Task[None]] = set()  # one per known peer, one per accepted connection
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen and begin to dial. Raises Rejected when the port cannot be had."""
        app = web.Application()
        app.router.add_get("/", self._accept)
        # Silent connections are dropped by the keep-alive timer, which runs from the start.
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._limits.handshake_timeout_s,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self.port, backlog=self._limits.inbound_max).start()
        except OSError as error:
            await runner.cleanup()
            raise Rejected(
                f"cannot listen on {self._host}:{self.port} ({error.strerror})",
                field="p2p_port",
                mend="stop the other process or choose another port",
                code="port",
            ) from None
        self._runner = runner
        self.port = runner.addresses[0][1]
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        for peer in self._known.values():
            self._watch(asyncio.create_task(self._keep_dialling(peer, self._client)))

    async def close(self) -> None:
        """Say goodbye to all, stop listening and dialling; within some seconds, whatever peers do."""
        self._table.close()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()  # a connection still says its goodbye
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        if self._client is not None:
            await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _watch(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._finish_task)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._handler.on_fault(error)

    # --- the Transport door -------------------------------------------------------------------------

    def peers(self) -> tuple[Peer, ...]:
        return tuple(connection.peer for connection in self._table.get_all())

    def broadcast(
        self, frame: Frame, priority: Priority | None = None, except_peer: bytes | None = None
    ) -> int:
        data = encode_frame(frame)
        priority = get_priority(frame) if priority is None else priority
        topic = _get_topic(frame)
        return sum(
            connection.put(data, priority, topic)
            for connection in self._table.get_all()
            if connection.peer.node_key != except_peer and self._links.is_reached(connection.peer.node_key)
        )

    def send(self, node_key: bytes, frame: Frame, priority: Priority | None = None) -> bool:
        connection = self._table.get(node_key)
        if connection is None:
            return False
        if not self._links.is_reached(node_key):
            return True  # taken, and lost on the way
        priority = get_priority(frame) if priority is None else priority
        return connection.put(encode_frame(frame), priority, _get_topic(frame))

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        self._table.penalise(node_key, points, reason, _now_s())

    def describe(self) -> list[PeerReport]:
        """Every connected and every known peer, for people."""
        now_s = _now_s()
        connected = [connection.peer.node_key for connection in self._table.get_all()]
        keys = dict.fromkeys([*connected, *self._known])
        return [self._describe(node_key, now_s) for node_key in keys]

    def _describe(self, node_key: bytes, now_s: float) -> PeerReport:
        connection = self._table.get(node_key)
        known = self._known.get(node_key)
        assert connection is not None or known is not None
        return PeerReport(
            node_key=node_key,
            name=known.name if known else "",
            address=connection.peer.address if connection else known.url if known else "",
            is_connected=connection is not None,
            is_inbound=connection is not None and connection.peer.is_inbound,
            connected_s=now_s - connection.opened_at if connection else 0.0,
            queued_frames=len(connection.queue) if connection else 0,
            queued_bytes=connection.queue.size_bytes if connection else 0,
            points=self._table.reputation.get_points(node_key, now_s),
            banned_s=self._table.reputation.get_ban_left_s(node_key, now_s),
            problem="" if connection else self._problems.get(node_key, ""),
        )

    # --- inbound ------------------------------------------------------------------------------------

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            compress=False,  # bodies are hashes and signatures; and compressed bytes hide their size
            max_msg_size=FRAME_BYTES_MAX,
            heartbeat=self._limits.heartbeat_s,
            timeout=CLOSE_TIMEOUT_S,
        )
        if not socket.can_prepare(request):
            return web.Response(
                status=426, text="nodes speak WebSocket here\n", headers={"Upgrade": "websocket"}
            )
        if self._table.is_closed or not self._unproven.make_room(_now_s()):
            return web.Response(status=503, text="busy, come back later\n")
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve_inbound(request, socket)
        except ConnectionError:  # who dialled gave up before we came to answer: we were frozen, or very busy
            self.counters.handshakes_failed += 1
            return web.Response(status=400)
        finally:
            self._tasks.discard(task)
        return socket

    async def _serve_inbound(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        address = request.remote or "?"
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s) as timeout:
                self._unproven.add(timeout, _now_s())
                try:
                    await socket.prepare(request)
                    handshake = Handshake(self._identity, RESPONDER, self._random_bytes)
                    hello = await prove(socket, handshake, self.counters)
                finally:
                    self._unproven.drop(timeout)
        except TimeoutError:
            self.counters.handshakes_failed += 1
            await end_socket(socket, Goodbye("timeout", "no proof of a node key in time"))
            return
        except (Lost, Rejected) as error:
            log.info("refused a connection from %s: %s", address, error)
            await end_socket(socket, None)
            return
        if not self._links.is_whole(hello.node_key):
            await end_socket(socket, None)
            return
        connection = self._make_connection(hello, socket, address, initiator_key=hello.node_key)
        refusal = self._table.get_refusal(connection, _now_s())
        if refusal is not None:
            await end_socket(socket, refusal)
            return
        connection.put(encode_frame(Welcome()), Priority.CONSENSUS)  # ahead of all else
        await self._serve(connection)

    # --- outbound -----------------------------------------------------------------------------------

    async def _keep_dialling(self, peer: KnownPeer, client: aiohttp.ClientSession) -> None:
        backoff = Backoff(self._rng, self._limits.backoff)
        while True:
            await self._table.absent[peer.node_key].wait()
            if self._table.get(peer.node_key) is not None:
                continue  # one connection replaced another: it was gone for a moment only
            started_s = _now_s()
            try:
                connection = await self._dial(peer, client)
                self._problems.pop(peer.node_key, None)
                await self._serve(connection)
                if _now_s() - started_s > self._limits.settled_s:
                    backoff.reset()
            except (Rejected, Lost, TimeoutError, OSError, aiohttp.ClientError) as error:
                self.counters.dials_failed += 1
                problem = str(error) or (
                    "no answer in time" if isinstance(error, TimeoutError) else repr(error)
                )
                is_settled = isinstance(error, Rejected) and error.code in SETTLED_CODES
                if is_settled:
                    backoff.settle()
                if problem != self._problems.get(peer.node_key):
                    self._problems[peer.node_key] = problem
                    log.log(
                        logging.WARNING if is_settled else logging.INFO, "peer %s: %s", peer.name, problem
                    )
            ban_left_s = self._table.reputation.get_ban_left_s(peer.node_key, _now_s())
            await asyncio.sleep(max(backoff.next_s(), ban_left_s))

    async def _dial(self, peer: KnownPeer, client: aiohttp.ClientSession) -> Connection:
        """A proven connection that the peer took. Raises Rejected, Lost, TimeoutError, OSError, ClientError."""
        self.counters.dials += 1
        if not self._links.is_whole(peer.node_key):
            raise Lost("no way there: the link is cut")
        async with asyncio.timeout(self._limits.handshake_timeout_s):
            socket = await client.ws_connect(
                peer.url,
                compress=0,
                max_msg_size=FRAME_BYTES_MAX,
                heartbeat=self._limits.heartbeat_s,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        handshake = Handshake(self._identity, INITIATOR, self._random_bytes, expected_key=peer.node_key)
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                hello = await prove(socket, handshake, self.counters)
        except (Lost, TimeoutError):
            await end_socket(socket, None)
            raise
        connection = self._make_connection(hello, socket, peer.url, initiator_key=self._own_key)
        refusal = self._table.get_refusal(connection, _now_s())
        if refusal is not None:
            await end_socket(socket, refusal)
            raise Rejected(refusal.reason, field="peer", code=refusal.code)
        return connection

    # --- both ---------------------------------------------------------------------------------------

    def _make_connection(
        self, hello: Hello, socket: Socket, address: str, *, initiator_key: bytes
    ) -> Connection:
        known = self._known.get(hello.node_key)
        return Connection(
            Peer(hello.node_key, known.name if known else "", address, initiator_key != self._own_key),
            socket,
            self.counters,
            initiator_key=initiator_key,
            opened_at=_now_s(),
            limits=self._limits.queues,
        )

    async def _serve(self, connection: Connection) -> None:
        """Add the connection, run it to its end, take it away. Our own faults go to the handler."""
        peer = connection.peer
        try:
            self._table.add(connection)
            reason = await connection.run(self._hand_over, self._score_rejected)
            log.info("peer %s left: %s", peer, reason)
        except Rejected as error:
            log.warning("peer %s sent no frame: %s", peer, error)
            self.penalise(peer.node_key, POINTS_MALFORMED, str(error))
        except Exception as error:
            self._handler.on_fault(error)
        finally:
            self._table.drop(connection, None)

    async def _hand_over(self, peer: Peer, frame: Frame) -> None:
        if self._links.is_heard(peer.node_key):
            await self._handler.on_frame(peer, frame)

    def _score_rejected(self, peer: Peer, error: Rejected) -> None:
        log.info("peer %s: %s", peer, error)
        self.penalise(peer.node_key, POINTS_REJECTED, str(error))


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _get_topic(frame: Frame) -> str:
    return "status" if isinstance(frame, Status) else ""  # a newer status makes a waiting one worthless
