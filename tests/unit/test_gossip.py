"""Gossip: each body once over each link, and no announcement is trusted to be answered."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from consensus.crypto import hash_bytes
from node.network import gossip as gossips
from node.network.frames import Announce, Frame, GetTransactions, Transactions
from node.network.gossip import Gossip
from node.network.memory_transport import MemoryNetwork, MemoryTransport
from node.network.transport import Peer, Priority


@dataclass(frozen=True)
class Tx:
    raw: bytes

    @property
    def id(self) -> bytes:
        return hash_bytes(self.raw)


@dataclass
class Alarm:
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class FakeTime:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Alarm:
        alarm = Alarm(callback)
        self._count += 1
        heapq.heappush(self._alarms, (self.now + delay, self._count, alarm))
        return alarm

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._alarms and self._alarms[0][0] <= end:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback is not None:
                alarm.callback()
        self.now = end


@dataclass
class Sent:
    """A transport that notes what is sent."""

    keys: tuple[bytes, ...]
    frames: list[tuple[bytes, Frame]] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)  # of configured peers; all others are strangers

    def peers(self) -> tuple[Peer, ...]:
        return tuple(Peer(key, self.names.get(key, ""), "", True) for key in self.keys)

    def broadcast(
        self, frame: Frame, priority: Priority | None = None, except_peer: bytes | None = None
    ) -> int:
        self.frames += [(key, frame) for key in self.keys if key != except_peer]
        return len(self.keys)

    def send(self, node_key: bytes, frame: Frame, priority: Priority | None = None) -> bool:
        self.frames.append((node_key, frame))
        return True

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        raise AssertionError("gossip blames nobody")

    def take(self) -> list[tuple[bytes, Frame]]:
        frames, self.frames = self.frames, []
        return frames


class Side:
    """One gossip with a pool in place of a mempool, alone with what it sends."""

    def __init__(self, *keys: bytes) -> None:
        self.time = FakeTime()
        self.sent = Sent(keys)
        self.pool: dict[bytes, bytes] = {}
        self.delivered: list[tuple[bytes, list[bytes]]] = []
        self.gossip = Gossip(
            self.sent, self.time, has=self.pool.__contains__, get_raws=self.get_raws, deliver=self.deliver
        )

    def get_raws(self, ids: Sequence[bytes]) -> Iterable[bytes]:
        return [self.pool[key] for key in ids if key in self.pool]

    async def deliver(self, raws: list[bytes], node_key: bytes) -> None:
        self.delivered.append((node_key, raws))

    async def hear(self, key: bytes, frame: Announce | GetTransactions | Transactions) -> None:
        await self.gossip.on_frame(Peer(key, "", "", True), frame)


A, B, C = b"a", b"b", b"c"
ONE, TWO = Tx(b"one"), Tx(b"two")


async def test_a_clients_transactions_are_pushed_in_one_batch() -> None:
    side = Side(A, B)
    side.gossip.push([ONE])
    side.gossip.push([TWO])
    assert side.sent.take() == []
    side.time.advance(gossips.PUSH_DELAY_S)
    both = Transactions((ONE.raw, TWO.raw))
    assert side.sent.take() == [(A, both), (B, both)]


async def test_a_large_push_is_split_into_frames_of_bounded_size() -> None:
    side = Side(A)
    side.gossip.push([Tx(bytes(4000) + bytes([n])) for n in range(200)])
    side.time.advance(1)
    frames = [frame for _, frame in side.sent.take() if isinstance(frame, Transactions)]
    sizes = [sum(map(len, frame.raws)) for frame in frames]
    assert sum(sizes) == 200 * 4001
    assert max(sizes) <= gossips.FRAME_BODIES_BYTES


async def test_in_a_large_network_bodies_go_to_some_and_ids_to_the_rest() -> None:
    keys = [bytes([n]) for n in range(12)]
    side = Side(*keys)
    side.gossip.push([ONE])
    side.time.advance(1)
    frames = [type(frame) for _, frame in side.sent.take()]
    assert frames == [Transactions] * gossips.PUSH_PEERS_MAX + [Announce] * 4


async def test_strangers_who_came_first_do_not_displace_configured_peers_from_the_push() -> None:
    strangers = tuple(bytes((number,)) * 33 for number in range(60))
    side = Side(*strangers, A)
    side.sent.names[A] = "known"
    side.gossip.push([ONE])
    side.time.advance(1)
    assert (A, Transactions((ONE.raw,))) in side.sent.take()


async def test_bodies_are_delivered_once_whoever_sends_them() -> None:
    side = Side(A, B)
    await side.hear(A, Transactions((ONE.raw, TWO.raw)))
    await side.hear(B, Transactions((TWO.raw,)))
    assert side.delivered == [(A, [ONE.raw, TWO.raw])]
    assert side.gossip.counters.duplicates == 1


async def test_a_body_that_came_back_is_not_delivered() -> None:
    side = Side(A)
    side.gossip.push([ONE])
    await side.hear(A, Transactions((ONE.raw,)))
    assert side.delivered == []


async def test_ids_are_announced_to_those_not_known_to_have_them() -> None:
    side = Side(A, B, C)
    await side.hear(A, Transactions((ONE.raw,)))
    side.gossip.announce([ONE.id])
    await side.hear(B, Announce((ONE.id,)))  # B has it too, and says so before we speak
    side.time.advance(gossips.RELAY_DELAY_S)
    assert side.sent.take() == [(C, Announce((ONE.id,)))]


async def test_an_unknown_id_is_asked_of_its_announcer_once() -> None:
    side = Side(A, B)
    await side.hear(A, Announce((ONE.id, TWO.id)))
    await side.hear(B, Announce((ONE.id,)))
    assert side.sent.take() == [(A, GetTransactions((ONE.id, TWO.id)))]


async def test_an_id_in_the_pool_is_not_asked_for() -> None:
    side = Side(A)
    side.pool[ONE.id] = ONE.raw
    await side.hear(A, Announce((ONE.id,)))
    assert side.sent.take() == []


async def test_a_refused_transaction_is_not_fetched_again() -> None:
    side = Side(A, B)
    await side.hear(A, Transactions((ONE.raw,)))  # the mempool refuses it: it is not in the pool
    await side.hear(B, Announce((ONE.id,)))
    assert side.sent.take() == []
    side.gossip.forget([ONE.id])
    await side.hear(B, Announce((ONE.id,)))
    assert side.sent.take() == [(B, GetTransactions((ONE.id,)))]


async def test_a_silent_announcer_is_followed_by_the_next() -> None:
    side = Side(A, B, C)
    for key in (A, B, C):
        await side.hear(key, Announce((ONE.id,)))
    asked = []
    for _ in range(4):
        asked += side.sent.take()
        side.time.advance(gossips.REQUEST_TIMEOUT_S)
    assert asked == [(key, GetTransactions((ONE.id,))) for key in (A, B, C)]
    assert side.gossip.counters.timeouts == 3
    await side.hear(A, Announce((ONE.id,)))  # given up, so a new announcement counts
    assert side.sent.take() == [(A, GetTransactions((ONE.id,)))]


async def test_a_late_answer_is_taken_all_the_same() -> None:
    side = Side(A, B)
    await side.hear(A, Announce((ONE.id,)))
    await side.hear(B, Announce((ONE.id,)))
    side.time.advance(gossips.REQUEST_TIMEOUT_S)
    await side.hear(A, Transactions((ONE.raw,)))
    side.time.advance(10)
    assert side.delivered == [(A, [ONE.raw])]
    assert len(side.sent.take()) == 2


async def test_a_peer_that_leaves_is_followed_by_the_next_at_once() -> None:
    side = Side(A, B)
    await side.hear(A, Announce((ONE.id,)))
    await side.hear(B, Announce((ONE.id,)))
    side.sent.take()
    side.gossip.on_disconnected(Peer(A, "", "", True))
    assert side.sent.take() == [(B, GetTransactions((ONE.id,)))]


async def test_a_request_is_served_from_the_pool() -> None:
    side = Side(A)
    side.pool[ONE.id] = ONE.raw
    await side.hear(A, GetTransactions((TWO.id, ONE.id)))
    assert side.sent.take() == [(A, Transactions((ONE.raw,)))]
    await side.hear(A, GetTransactions((TWO.id,)))
    assert side.sent.take() == []


async def test_one_peer_cannot_fill_the_request_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossips, "WANTED_PEER_MAX", 10)
    monkeypatch.setattr(gossips, "WANTED_MAX", 15)
    side = Side(A, B)
    ids = tuple(hash_bytes(bytes([n])) for n in range(50))
    await side.hear(A, Announce(ids))
    await side.hear(B, Announce(ids[20:]))
    assert side.sent.take() == [(A, GetTransactions(ids[:10])), (B, GetTransactions(ids[20:25]))]
    side.time.advance(10)  # nobody answers, and the table is empty again
    await side.hear(B, Announce(ids[40:]))
    assert side.sent.take() == [(B, GetTransactions(ids[40:]))]


async def test_the_memory_of_seen_ids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossips, "SEEN_MAX", 100)
    side = Side(A)
    for n in range(1000):
        await side.hear(A, Transactions((b"tx %d" % n,)))
    assert len(side.gossip._seen) == 100


# --- several nodes --------------------------------------------------------------------------------------


class Node(Side):
    """A side whose transport leads to others, and whose mempool takes everything."""

    def __init__(self, transport: MemoryTransport, time: FakeTime) -> None:
        super().__init__()
        self.time = time
        self.received: list[Frame] = []
        self.gossip = Gossip(
            transport, time, has=self.pool.__contains__, get_raws=self.get_raws, deliver=self.deliver
        )
        transport.handler = self

    async def deliver(self, raws: list[bytes], node_key: bytes) -> None:
        self.pool |= {hash_bytes(raw): raw for raw in raws}
        self.gossip.announce([hash_bytes(raw) for raw in raws])

    def submit(self, transactions: Sequence[Tx]) -> None:
        self.pool |= {tx.id: tx.raw for tx in transactions}
        self.gossip.push(transactions)

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        assert isinstance(frame, Announce | GetTransactions | Transactions)
        self.received.append(frame)
        await self.gossip.on_frame(peer, frame)

    def on_connected(self, peer: Peer) -> None:
        pass

    def on_disconnected(self, peer: Peer) -> None:
        self.gossip.on_disconnected(peer)

    def on_fault(self, error: BaseException) -> None:
        raise error


@pytest.fixture
async def network() -> AsyncIterator[tuple[MemoryNetwork, FakeTime, list[Node]]]:
    network, time = MemoryNetwork(), FakeTime()
    nodes = [Node(network.add(bytes([n])), time) for n in range(4)]
    yield network, time, nodes
    network.close()
    await asyncio.sleep(0)


async def pass_time(network: MemoryNetwork, time: FakeTime, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        time.advance(0.05)
        await network.settle()


async def test_four_nodes_carry_each_body_once_over_each_link(
    network: tuple[MemoryNetwork, FakeTime, list[Node]],
) -> None:
    net, time, nodes = network
    net.join_all()
    batch = [Tx(b"tx %d" % n) for n in range(500)]
    nodes[2].submit(batch)
    await pass_time(net, time, 0.5)
    assert all(len(node.pool) == 500 for node in nodes)
    bodies = [len(frame.raws) for node in nodes for frame in node.received if isinstance(frame, Transactions)]
    assert sum(bodies) == 3 * 500
    assert not any(isinstance(frame, GetTransactions) for node in nodes for frame in node.received)


async def test_a_chain_of_nodes_spreads_by_announcement(
    network: tuple[MemoryNetwork, FakeTime, list[Node]],
) -> None:
    net, time, nodes = network
    keys = list(net.transports)
    for first, second in pairwise(keys):
        net.join(first, second)
    nodes[0].submit([ONE, TWO])
    await pass_time(net, time, 1)
    assert all(node.pool.keys() == {ONE.id, TWO.id} for node in nodes)


async def test_a_push_that_was_lost_is_made_good_by_others(
    network: tuple[MemoryNetwork, FakeTime, list[Node]],
) -> None:
    net, time, nodes = network
    net.join_all()
    keys = list(net.transports)
    net.cut(keys[0], keys[3])  # the first node reaches two of three
    nodes[0].submit([ONE])
    await pass_time(net, time, 1)
    assert ONE.id in nodes[3].pool
