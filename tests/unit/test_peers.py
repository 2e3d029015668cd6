"""Nodes on real loopback sockets, all on free ports; waits are for events, never for time to pass."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from consensus.crypto import PrivateKey
from consensus.errors import Fault, NotYet, Rejected
from node.network.connection import Connection, Counters, prove
from node.network.connection_table import NetworkLimits, is_better
from node.network.dialer import BackoffLimits, KnownPeer
from node.network.frames import (
    FRAME_BYTES_MAX,
    INITIATOR,
    BlockBody,
    EngineMessage,
    Frame,
    GetBlock,
    Goodbye,
    Status,
    Transactions,
)
from node.network.handshake import Handshake, Identity
from node.network.links import Direction, Links
from node.network.peers import PeerNetwork
from node.network.send_queue import LIMITS, Limit
from node.network.transport import Peer, Priority
from node.network.wire import decode_frame, encode_frame

PATIENCE_S = 10.0  # a bound for a busy machine; nothing here takes a tenth of it
QUICK = NetworkLimits(backoff=BackoffLimits(first_s=0.01, last_s=0.05))


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Node:
    """A network whose handler notes everything, and may be told to answer with an error."""

    def __init__(
        self,
        seed: int,
        *,
        known: Iterable["Node"] = (),
        genesis: bytes = bytes(32),
        limits: NetworkLimits = QUICK,
        port: int = 0,
    ) -> None:
        self.links = Links()
        self.key = PrivateKey.from_seed(b"node %d" % seed)
        self.frames: list[tuple[bytes, Frame]] = []
        self.history: list[str] = []
        self.faults: list[BaseException] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()  # while closed, on_frame waits
        self.gate.set()
        self._changed = asyncio.Condition()
        rng = random.Random(seed)
        self.net = PeerNetwork(
            Identity(self.key, "test", genesis),
            self,
            random_bytes=rng.randbytes,
            rng=rng,
            known_peers=[other.as_known() for other in known],
            limits=limits,
            port=port,
            links=self.links,
        )

    def as_known(self) -> KnownPeer:
        return KnownPeer("known", f"ws://127.0.0.1:{self.net.port}", self.key.public_key)

    @property
    def id(self) -> bytes:
        return self.key.public_key

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        self.frames.append((peer.node_key, frame))
        self._wake()
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    def on_connected(self, peer: Peer) -> None:
        self.history.append("connected")
        self._wake()

    def on_disconnected(self, peer: Peer) -> None:
        self.history.append("disconnected")
        self._wake()

    def on_fault(self, error: BaseException) -> None:
        self.faults.append(error)
        self._wake()

    def _wake(self) -> None:
        self._task = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(condition)

    async def until_peers(self, count: int) -> None:
        await self.until(lambda: len(self.net.peers()) == count)

    async def until_problem(self, text: str) -> None:
        """A refused dial calls nobody; its reason shows in describe()."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(text in report.problem for report in self.net.describe()):  # noqa: ASYNC110
                await asyncio.sleep(0.002)


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await node.net.start()
            stack.push_async_callback(node.net.close)
        yield


async def test_two_nodes_prove_their_keys_and_exchange_frames() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await a.until_peers(1)
            await b.until_peers(1)
            assert b.net.send(a.id, EngineMessage(b"to a"))
            assert a.net.send(b.id, EngineMessage(b"to b"))
            await a.until(lambda: a.frames == [(b.id, EngineMessage(b"to a"))])
            await b.until(lambda: b.frames == [(a.id, EngineMessage(b"to b"))])
            assert (a.net.peers()[0].is_inbound, b.net.peers()[0].is_inbound) == (True, False)
    assert a.history == ["connected", "disconnected"]
    assert a.faults == b.faults == []


async def test_a_broadcast_reaches_all_but_the_excepted_peer() -> None:
    a = Node(1)
    async with running(a):
        b, c = Node(2, known=[a]), Node(3, known=[a])
        async with running(b, c):
            await a.until_peers(2)
            assert a.net.broadcast(EngineMessage(b"x"), except_peer=b.id) == 1
            assert a.net.broadcast(EngineMessage(b"y")) == 2
            await c.until(lambda: len(c.frames) == 2)
            await b.until(lambda: len(b.frames) == 1)
            assert b.frames == [(a.id, EngineMessage(b"y"))]


async def test_frames_of_one_priority_arrive_in_order() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            sent = [EngineMessage(number.to_bytes(4, "big")) for number in range(500)]
            for frame in sent:
                assert b.net.send(a.id, frame)
            await a.until(lambda: len(a.frames) == 500)
            assert [frame for _, frame in a.frames] == sent


async def test_a_frame_of_the_largest_size_passes() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            frame = Transactions(tuple(bytes(4000) for _ in range(FRAME_BYTES_MAX // 4005)))
            data = encode_frame(frame)
            assert FRAME_BYTES_MAX - 5000 < len(data) <= FRAME_BYTES_MAX
            assert b.net.send(a.id, frame)
            await a.until(lambda: len(a.frames) == 1)


async def test_two_nodes_that_dial_each_other_keep_one_connection() -> None:
    for attempt in range(5):
        a = Node(2 * attempt)
        b = Node(2 * attempt + 1)
        async with running(a), running(b):
            ports = a.net.port, b.net.port
        a, b = Node(2 * attempt, port=ports[0], known=[b]), Node(2 * attempt + 1, port=ports[1], known=[a])
        async with running(a, b):
            await a.until_peers(1)
            await b.until_peers(1)
            # What survives carries frames both ways, however the two dials crossed.
            async with asyncio.timeout(PATIENCE_S):
                while not (a.frames and b.frames):
                    a.net.broadcast(EngineMessage(b"a"))
                    b.net.broadcast(EngineMessage(b"b"))
                    await asyncio.sleep(0.01)
            assert len(a.net.peers()) == len(b.net.peers()) == 1
            assert a.faults == b.faults == []


async def test_a_node_of_another_genesis_is_refused_with_the_reason() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a], genesis=b"\x01" * 32)
        async with running(b):
            await b.until_problem("use the same genesis.json")
            assert a.history == b.history == []


async def test_a_node_with_another_key_than_expected_is_refused() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2)
        wrong = KnownPeer("a", f"ws://127.0.0.1:{a.net.port}", PrivateKey.from_seed(b"else").public_key)
        b.net = PeerNetwork(
            Identity(b.key, "test", bytes(32)),
            b,
            random_bytes=random.Random(2).randbytes,
            rng=random.Random(1),
            known_peers=[wrong],
            limits=QUICK,
        )
        async with running(b):
            await b.until_problem("correct the peer's url or node_key")


async def test_a_message_above_the_limit_closes_the_connection_and_scores() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            connection = b.net._table._connections[a.id]
            connection.put(bytes(FRAME_BYTES_MAX + 1), Priority.CONSENSUS)
            await a.until(lambda: "disconnected" in a.history)
            assert a.net._table.reputation.get_points(b.id, now_s()) > 40


async def test_bytes_that_are_no_frame_close_the_connection() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            b.net._table._connections[a.id].put(b"\x93\x05garbage", Priority.CONSENSUS)
            await a.until(lambda: "disconnected" in a.history)
            assert a.frames == []


async def test_a_slow_peer_does_not_delay_another() -> None:
    a = Node(1)
    async with running(a):
        slow, quick = Node(2, known=[a]), Node(3, known=[a])
        async with running(slow, quick):
            await a.until_peers(2)
            slow.gate.clear()
            body = BlockBody(bytes(32), bytes(4_000_000))
            for _ in range(20):
                a.net.send(slow.id, body)  # more than sockets and queue hold
            assert a.net.counters.frames_dropped > 0
            a.net.send(quick.id, EngineMessage(b"vote"))
            await quick.until(lambda: bool(quick.frames))
            assert len(slow.frames) <= 1
            slow.gate.set()


async def test_a_peer_that_takes_no_consensus_frames_is_let_go() -> None:
    queues = {**LIMITS, Priority.CONSENSUS: Limit(8, 4_000_000)}
    a = Node(1, limits=NetworkLimits(queues=queues))
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await a.until_peers(1)
            b.gate.clear()
            async with asyncio.timeout(PATIENCE_S):
                while a.net.send(b.id, EngineMessage(bytes(1_000_000))):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await a.until(lambda: "disconnected" in a.history)
            assert a.net.counters.overflows == 1
            b.gate.set()


async def test_a_node_is_dialled_again_after_its_restart() -> None:
    a = Node(1)
    await a.net.start()
    b = Node(2, known=[a])
    async with running(b):
        await b.until_peers(1)
        await a.net.close()
        await b.until(lambda: b.history[-1] == "disconnected")
        again = Node(1, port=a.net.port)
        async with running(again):
            await b.until_peers(1)
            assert again.net.send(b.id, EngineMessage(b"back"))
            await b.until(lambda: bool(b.frames))


async def test_rejected_frames_lead_to_a_ban_and_not_yet_does_not() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            a.error = NotYet("later")
            for _ in range(10):
                b.net.send(a.id, GetBlock(bytes(32)))
            await a.until(lambda: len(a.frames) == 10)
            assert a.net.peers()
            a.error = Rejected("bad")
            for _ in range(4):
                b.net.send(a.id, GetBlock(bytes(32)))
            await a.until_peers(0)
            await b.until_problem("banned")
            assert a.net.counters.bans == 1
            assert a.history == ["connected", "disconnected"]


async def test_a_fault_of_the_handler_is_told_and_blamed_on_nobody() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            a.error = Fault("disk")
            b.net.send(a.id, GetBlock(bytes(32)))
            await a.until(lambda: a.faults == [a.error])
            assert a.net._table.reputation.get_points(b.id, now_s()) == 0


async def test_strangers_beyond_the_limit_are_refused_and_known_peers_are_not() -> None:
    known = Node(9)
    async with running(known):
        a = Node(1, known=[known], limits=NetworkLimits(inbound_max=1))
        async with running(a):
            await a.until_peers(1)
            b = Node(2, known=[a])
            async with running(b):
                await a.until_peers(2)
                c = Node(3, known=[a])
                async with running(c):
                    await c.until_problem("dial someone else")
            assert not c.history


async def test_unproven_connections_are_bounded_in_number() -> None:
    a = Node(1, limits=NetworkLimits(unproven_max=1, handshake_timeout_s=10 * PATIENCE_S))
    async with running(a), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{a.net.port}/"
        async with session.ws_connect(url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url)
            assert refused.value.status == 503


async def test_unproven_connections_are_bounded_in_time() -> None:
    a = Node(1, limits=NetworkLimits(handshake_timeout_s=0.3))
    async with running(a), aiohttp.ClientSession() as session:
        silent = await session.ws_connect(f"http://127.0.0.1:{a.net.port}/")
        message = await silent.receive(PATIENCE_S)
        assert decode_frame(message.data) == Goodbye("timeout", "no proof of a node key in time")


async def test_silent_sockets_that_had_their_time_give_way_to_who_comes() -> None:
    limits = NetworkLimits(handshake_timeout_s=10 * PATIENCE_S, unproven_s=0.0)
    a = Node(1, limits=limits)
    async with running(a), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{a.net.port}/"
        silent = [await session.ws_connect(url) for _ in range(limits.unproven_max)]
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            assert b.net.counters.dials_failed == 0
            message = await silent[0].receive(PATIENCE_S)  # the oldest
            assert decode_frame(message.data) == Goodbye("timeout", "no proof of a node key in time")
            assert not any(socket.closed for socket in silent[1:])
            for _ in range(3 * limits.unproven_max):
                await session.ws_connect(url)
            assert len(a.net._unproven._since) <= limits.unproven_max
            assert a.faults == []


async def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    a = Node(1, limits=NetworkLimits(heartbeat_s=0.1))
    async with running(a), aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"http://127.0.0.1:{a.net.port}/", autoping=False)
        stranger = Identity(PrivateKey.from_seed(b"stranger"), "test", bytes(32))
        await prove(socket, Handshake(stranger, INITIATOR, random.Random(7).randbytes), Counters())
        await a.until(lambda: a.history == ["connected", "disconnected"])


async def test_a_fragmented_message_is_bounded_as_a_whole() -> None:
    a = Node(1)
    async with running(a), aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"http://127.0.0.1:{a.net.port}/")
        transport = socket._writer.transport  # aiohttp itself never fragments
        piece = bytes(1_000_000)
        for number in range(FRAME_BYTES_MAX // len(piece) + 1):
            head = bytes([0x02 if number == 0 else 0x00, 0xFF]) + len(piece).to_bytes(8, "big") + bytes(4)
            transport.write(head + piece)
        message = await socket.receive(PATIENCE_S)
        goodbye = decode_frame(message.data) if message.type is aiohttp.WSMsgType.BINARY else None
        assert goodbye is None or isinstance(goodbye, Goodbye)
        assert a.net.counters.frames_received == 0


async def test_a_frame_under_way_is_finished_when_its_peer_leaves() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            a.gate.clear()
            a.error = Fault("the handler came to its end")
            b.net.send(a.id, EngineMessage(b"x"))
            await a.until(lambda: bool(a.frames))
            connection = a.net._table.get(b.id)
            assert connection is not None
            connection.end(None)
            await asyncio.sleep(0)
            a.gate.set()
            await a.until(lambda: a.faults == [a.error])


async def test_plain_http_is_told_to_speak_websocket() -> None:
    a = Node(1)
    async with running(a), aiohttp.ClientSession() as session:
        response = await session.get(f"http://127.0.0.1:{a.net.port}/")
        assert response.status == 426


async def test_a_port_in_use_is_rejected_with_the_mend() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, port=a.net.port)
        with pytest.raises(Rejected, match="choose another port"):
            await b.net.start()
        await b.net.close()


async def test_close_is_bounded_when_a_peer_reads_nothing() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            a.gate.clear()
            for _ in range(3):
                b.net.send(a.id, BlockBody(bytes(32), bytes(4_000_000)))
            await a.until(lambda: bool(a.frames))
            async with asyncio.timeout(PATIENCE_S):
                await b.net.close()
            a.gate.set()


async def test_only_the_newest_status_waits() -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await b.until_peers(1)
            for height in range(100):
                b.net.broadcast(Status(0, height, height, height, bytes(32)))
            await a.until(lambda: bool(a.frames))
            assert [frame for _, frame in a.frames] == [Status(0, 99, 99, 99, bytes(32))]


def make_connection(own: bytes, peer: bytes, *, is_ours: bool, opened_at: float) -> Connection:
    return Connection(
        Peer(peer, "", "", not is_ours),
        None,  # type: ignore[arg-type]
        Counters(),
        initiator_key=own if is_ours else peer,
        opened_at=opened_at,
    )


@pytest.mark.parametrize("first_is_dialled_by_low", [True, False])
async def test_both_sides_choose_the_same_of_two_crossing_connections(first_is_dialled_by_low: bool) -> None:
    low, high = b"\x02" + bytes(32), b"\x03" + bytes(32)
    kept = []
    for own, peer in ((low, high), (high, low)):
        for order in (True, False):  # each side may have seen either first
            first = make_connection(own, peer, is_ours=(own == low) == first_is_dialled_by_low, opened_at=1)
            second = make_connection(own, peer, is_ours=(own == low) != first_is_dialled_by_low, opened_at=1)
            old, new = (first, second) if order else (second, first)
            kept.append((new if is_better(new, old, own, 15) else old).initiator_key)
    assert set(kept) == {low}


async def test_a_newer_connection_replaces_a_settled_one() -> None:
    low, high = b"\x02" + bytes(32), b"\x03" + bytes(32)
    old = make_connection(low, high, is_ours=True, opened_at=1)
    new = make_connection(low, high, is_ours=False, opened_at=100)
    assert is_better(new, old, low, 15)


def test_a_dialler_that_gave_up_before_its_upgrade_was_answered_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # uvloop reads request and end of file in one go, as a process does that was stopped and continued.
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        node = Node(1)
        async with running(node):
            with socket.create_connection(("127.0.0.1", node.net.port)) as dialler:
                dialler.sendall(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                )
            async with asyncio.timeout(PATIENCE_S):
                while not node.net.counters.handshakes_failed:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert node.faults == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("direction", "arrives_there", "arrives_here"),
    [("out", False, True), ("in", True, False), ("both", False, False)],
)
async def test_a_cut_link_loses_frames_without_a_word_and_heals(
    direction: Direction, arrives_there: bool, arrives_here: bool
) -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        async with running(b):
            await a.until_peers(1)
            await b.until_peers(1)
            b.links.set_cut({a.id: direction})
            assert b.net.send(a.id, EngineMessage(b"cut"))  # taken, like anything that a cable loses
            b.net.broadcast(EngineMessage(b"cut"))
            read = b.net.counters.frames_received
            a.net.broadcast(EngineMessage(b"cut"))
            async with asyncio.timeout(PATIENCE_S):
                while b.net.counters.frames_received == read:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            b.links.set_cut({})
            # What passes stays in order: once the later frame is there, the earlier one will not come.
            b.net.broadcast(EngineMessage(b"after"))
            a.net.broadcast(EngineMessage(b"after"))
            await a.until(lambda: (b.id, EngineMessage(b"after")) in a.frames)
            await b.until(lambda: (a.id, EngineMessage(b"after")) in b.frames)
            assert ((b.id, EngineMessage(b"cut")) in a.frames) == arrives_there
            assert ((a.id, EngineMessage(b"cut")) in b.frames) == arrives_here
            assert a.history == b.history == ["connected"]


@pytest.mark.parametrize("cutter", ["dialler", "dialled"])
@pytest.mark.parametrize("direction", ["in", "out", "both"])
async def test_over_a_cut_link_no_connection_comes_about_until_it_is_healed(
    cutter: str, direction: Direction
) -> None:
    a = Node(1)
    async with running(a):
        b = Node(2, known=[a])
        links, other = (b.links, a.id) if cutter == "dialler" else (a.links, b.id)
        links.set_cut({other: direction})
        async with running(b):
            async with asyncio.timeout(PATIENCE_S):
                while b.net.counters.dials_failed < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            assert a.net.peers() == b.net.peers() == ()
            links.set_cut({})
            await a.until_peers(1)
            await b.until_peers(1)
    assert a.faults == b.faults == []
