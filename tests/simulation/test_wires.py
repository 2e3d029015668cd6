"""The wires between whole nodes: connections as TCP makes them of links that lose, delay and are cut."""

import asyncio
import heapq
import random
from collections.abc import Callable
from typing import Any

import pytest

from consensus.errors import NotYet, Rejected
from node.network.frames import Announce, Frame, GetBlock, GetFinalBlocks, Goodbye
from node.network.reputation import BAN_S
from node.network.send_queue import LIMITS
from node.network.transport import Peer, Priority
from node.simulation.full_nodes.cables import KEEPALIVE_MS, RESEND_MS, WINDOW_BYTES, Cables
from node.simulation.full_nodes.loop import VirtualLoop
from node.simulation.full_nodes.wires import Wire
from node.simulation.links import Links


def frame(number: int) -> Frame:
    return GetFinalBlocks(number, 1)


def announcement(number: int, count: int = 1) -> Announce:
    return Announce(tuple((number * 10_000 + place).to_bytes(32, "big") for place in range(count)))


class Net:
    """A world with nothing but a network."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.now_ms = 0
        self.rng = random.Random(seed)
        self.links = Links(self.rng)
        self.errors: list[str] = []
        self.arrived: list[tuple[int, int, bytes]] = []
        self.penalties: list[tuple[int, int, int, bool]] = []
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tokens = 0
        self.cables = Cables(self, [bytes((index,)) * 33 for index in range(nodes)])
        self.ends = [End(self, index) for index in range(nodes)]
        self.run_for(200)

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._tokens += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._tokens, act, arguments))

    def run_for(self, duration_ms: int) -> None:
        until_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0][0] <= until_ms:
            self.now_ms, _, act, arguments = heapq.heappop(self._queue)
            act(*arguments)
        self.now_ms = until_ms
        assert self.errors == []

    def cut(self, *pairs: tuple[int, int]) -> None:
        self.links.cut("test", frozenset(pairs))
        self.cables.on_links_changed()

    def draw(self) -> float:
        return self.rng.random()

    def note_frame(self, sender: int, receiver: int, data: bytes) -> None:
        self.arrived.append((sender, receiver, data))

    is_watched = False

    def note_sent(self, sender: int, receiver: int, frame: Frame, delay_ms: int | None) -> None:
        raise AssertionError("nobody watches")

    def note_penalty(self, by: int, whom: int, points: int, reason: str, *, is_ban: bool) -> None:
        self.penalties.append((by, whom, points, is_ban))


class Lies:
    """A door that says what it is told to."""

    def __init__(
        self,
        rewrite: Callable[[Frame, int], Any],
        answer: Callable[[Frame, int], Any] = lambda frame, sender: None,
    ) -> None:
        self.rewrite = rewrite
        self.answer = answer


class End:
    """A process and its node in one: takes frames as it is told to."""

    def __init__(self, net: Net, index: int) -> None:
        self.net, self.index = net, index
        self.seen: list[Any] = []
        self.faults: list[BaseException] = []
        self.raises: BaseException | None = None
        self.takes_s = 0.0
        self.at_once = self.at_once_max = 0
        self.door: Lies | None = None
        self.begin()

    def begin(self) -> None:
        self.loop = VirtualLoop(self.net, self.net.errors.append)
        self.wire = Wire(
            self.net.cables,
            self.net,
            self,
            self,
            self.door,
        )
        self.loop.create_task(self.wire.start())

    def kill(self) -> None:
        self.loop.kill()
        self.net.cables.on_death(self.index)

    def speak(self, frame: Frame) -> None:
        pass

    def send(self, receiver: int, *frames: Frame) -> list[bool]:
        return [self.wire.send(self.net.cables.keys[receiver], frame) for frame in frames]

    def frames(self) -> list[Frame]:
        return [item[1] for item in self.seen if isinstance(item, tuple)]

    def names(self) -> list[str]:
        return [peer.name for peer in self.wire.peers()]

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        self.seen.append((peer.name, frame))
        if self.raises is not None:
            raise self.raises

    def on_connected(self, peer: Peer) -> None:
        self.seen.append(f"+{peer.name}")

    def on_disconnected(self, peer: Peer) -> None:
        self.seen.append(f"-{peer.name}")

    def on_fault(self, error: BaseException) -> None:
        self.faults.append(error)


@pytest.fixture
def net(seed: int) -> Net:
    return Net(2, seed)


# --- connecting and carrying --------------------------------------------------------------------------


def test_all_connect_to_all_and_one_of_two_dials(seed: int) -> None:
    net = Net(4, seed)
    for end in net.ends:
        assert sorted(end.names()) == [f"node{other}" for other in range(4) if other != end.index]
    inbound = [peer.is_inbound for end in net.ends for peer in end.wire.peers()]
    assert sum(inbound) == len(inbound) // 2


def test_frames_of_one_priority_arrive_in_order_however_links_behave(net: Net) -> None:
    a, b = net.ends
    net.links.slow_share, net.links.duplication = 0.3, 0.2
    assert all(a.send(1, *map(frame, range(300))))
    net.run_for(5_000)
    assert b.frames() == [frame(number) for number in range(300)]


def test_a_broadcast_reaches_all_but_the_one_left_out(seed: int) -> None:
    net = Net(4, seed)
    assert net.ends[0].wire.broadcast(frame(7), except_peer=net.cables.keys[2]) == 2
    net.run_for(100)
    assert [end.frames() for end in net.ends] == [[], [frame(7)], [], [frame(7)]]


def test_nothing_is_sent_to_who_is_not_connected(net: Net) -> None:
    a, b = net.ends
    b.kill()
    net.run_for(100)
    assert a.send(1, frame(1)) == [False]
    assert a.wire.broadcast(frame(1)) == 0


def test_one_frame_of_a_peer_is_dealt_with_at_a_time(net: Net) -> None:
    a, b = net.ends
    b.takes_s = 0.01
    a.send(1, *map(frame, range(20)))
    net.run_for(2_000)
    assert (len(b.frames()), b.at_once_max) == (20, 1)


def test_a_lost_frame_comes_again_or_ends_the_connection(seed: int) -> None:
    kept = reset = 0
    for number in range(40):
        net = Net(2, seed + number)
        a, b = net.ends
        net.links.loss = 0.999
        a.send(1, frame(1))
        net.links.loss = 0.0
        a.send(1, frame(2))
        net.run_for(2 * RESEND_MS)
        if b.frames():
            kept += 1
            assert b.frames() == [frame(1), frame(2)]
            assert b.seen[0] == "+node0"
            assert "-node0" not in b.seen
        else:
            reset += 1
            assert (a.seen, b.seen) == (["+node1", "-node1", "+node1"], ["+node0", "-node0", "+node0"])
    assert kept > reset > 2


# --- cuts ---------------------------------------------------------------------------------------------


def test_a_short_cut_holds_frames_up(net: Net) -> None:
    a, b = net.ends
    net.cut((0, 1), (1, 0))
    assert a.send(1, frame(1)) == [True]
    net.run_for(KEEPALIVE_MS - 50)
    assert b.frames() == []
    net.cut()
    net.run_for(100)
    assert (b.frames(), b.seen[0]) == ([frame(1)], "+node0")
    net.run_for(1_000)
    assert "-node0" not in b.seen


@pytest.mark.parametrize("pairs", [((0, 1), (1, 0)), ((0, 1),), ((1, 0),)])
def test_a_long_cut_ends_the_connection_on_both_sides(net: Net, pairs: tuple[tuple[int, int], ...]) -> None:
    a, b = net.ends
    net.cut(*pairs)
    net.run_for(1_000)
    assert (a.names(), b.names()) == ([], [])
    net.cut()
    net.run_for(200)
    assert (a.names(), b.names()) == (["node1"], ["node0"])


# --- processes that end -------------------------------------------------------------------------------


def test_the_peers_of_a_dead_process_hear_of_it_and_of_its_return(net: Net) -> None:
    a, b = net.ends
    a.kill()
    net.run_for(500)
    assert (b.names(), a.send(1, frame(1))) == ([], [False])
    a.begin()
    net.run_for(500)
    assert (b.names(), b.seen) == (["node0"], ["+node0", "-node0", "+node0"])


def test_what_a_process_sent_before_its_end_may_arrive_and_nothing_after(seed: int) -> None:
    arrived = 0
    for number in range(30):
        net = Net(2, seed + number)
        a, b = net.ends
        a.send(1, frame(1))
        a.kill()
        a.send(1, frame(2))
        a.wire.broadcast(frame(3))
        net.run_for(500)
        assert b.frames() in ([], [frame(1)])
        arrived += len(b.frames())
    assert 0 < arrived < 30


def test_whoever_closes_has_its_last_words_heard(net: Net) -> None:
    a, b = net.ends
    a.send(1, *map(frame, range(50)))
    a.loop.create_task(a.wire.close())
    net.run_for(500)
    assert len(b.frames()) == 50
    assert (a.names(), b.names(), a.seen[-1]) == ([], [], "-node1")
    assert a.send(1, frame(1)) == [False]


def test_a_paused_process_reads_what_came_when_it_goes_on(net: Net) -> None:
    a, b = net.ends
    b.loop.pause()
    a.send(1, frame(1))
    net.run_for(2_000)
    assert b.frames() == []
    b.loop.unpause()
    net.run_for(10)
    assert b.frames() == [frame(1)]


# --- queues -------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_fills_its_queue_and_no_more(net: Net) -> None:
    a, b = net.ends
    b.loop.pause()
    for number in range(3_000):
        a.wire.send(net.cables.keys[1], announcement(number, 100), Priority.GOSSIP)
    report = a.wire.describe()[0]
    assert report.queued_frames <= LIMITS[Priority.GOSSIP].frames_max
    stream = next(iter(net.cables._connections.values())).streams[0]
    assert stream.under_way_bytes < WINDOW_BYTES + 4_000


def test_an_overflow_of_consensus_frames_ends_the_connection(net: Net) -> None:
    a, b = net.ends
    b.loop.pause()
    sent = a.send(1, *[GetBlock(number.to_bytes(32, "big")) for number in range(15_000)])
    assert (sent[0], sent[-1]) == (True, False)
    b.loop.unpause()
    net.run_for(500)
    assert "-node1" in a.seen
    assert "-node0" in b.seen


# --- peers at fault -----------------------------------------------------------------------------------


def test_rejected_frames_are_scored_and_the_fourth_bans_for_a_while(net: Net) -> None:
    a, b = net.ends
    b.raises = Rejected("no", field="frame")
    a.send(1, *map(frame, range(3)))
    net.run_for(100)
    assert b.names() == ["node0"]
    a.send(1, frame(3))
    net.run_for(1_000)
    assert (a.names(), b.names()) == ([], [])
    assert [penalty[3] for penalty in net.penalties] == [False, False, False, True]
    b.raises = None
    net.run_for(int(BAN_S * 1_000) + 200)
    assert (a.names(), b.names()) == (["node1"], ["node0"])


def test_a_peer_may_be_banned_later_than_in_its_frame(net: Net) -> None:
    a, b = net.ends
    b.loop.call_soon(b.wire.penalise, net.cables.keys[0], 100, "lied")
    net.run_for(100)
    assert (a.names(), b.names(), net.penalties) == ([], [], [(1, 0, 100, True)])


def test_what_is_not_yet_understood_is_no_fault(net: Net) -> None:
    a, b = net.ends
    b.raises = NotYet("early")
    a.send(1, *map(frame, range(9)))
    net.run_for(100)
    assert (len(b.frames()), net.penalties) == (9, [])


def test_an_error_of_our_own_goes_to_the_node(net: Net) -> None:
    a, b = net.ends
    b.raises = ValueError("ours")
    a.send(1, frame(1))
    net.run_for(100)
    assert [str(error) for error in b.faults] == ["ours"]


def test_bytes_that_are_no_frame_end_the_connection(seed: int) -> None:
    net = Net(2, seed)
    a, b = net.ends
    a.kill()
    a.door = Lies(lambda frame, receiver: (b"garbage",))
    a.begin()
    net.run_for(300)
    a.send(1, frame(1))
    net.run_for(30)
    assert (b.frames(), net.penalties) == ([], [(1, 0, 50, False)])
    assert b.seen[-1] == "-node0"


# --- liars --------------------------------------------------------------------------------------------


def test_a_liar_tells_each_something_else(seed: int) -> None:
    net = Net(3, seed)
    liar = net.ends[0]
    liar.kill()
    liar.door = Lies(lambda told, receiver: (frame(receiver), frame(receiver + 10)) if receiver < 2 else ())
    liar.begin()
    net.run_for(300)
    liar.wire.broadcast(frame(99))
    net.run_for(100)
    assert net.ends[1].frames() == [frame(1), frame(11)]
    assert net.ends[2].frames() == []


def test_a_liar_answers_what_its_node_never_sees(net: Net) -> None:
    honest, liar = net.ends
    liar.kill()
    liar.door = Lies(
        lambda told, receiver: (told,), lambda told, sender: (frame(42),) if told == frame(1) else None
    )
    liar.begin()
    net.run_for(300)
    honest.send(1, frame(1), frame(2))
    net.run_for(100)
    assert (honest.frames(), liar.frames()) == ([frame(42)], [frame(2)])


def test_a_goodbye_is_the_last_word(net: Net) -> None:
    a, b = net.ends
    a.send(1, Goodbye("shutdown", "tired"), frame(1))
    net.run_for(60)
    assert b.frames() == []
    assert "-node0" in b.seen


def test_the_same_seed_gives_the_same_network(seed: int) -> None:
    def play() -> list[Any]:
        net = Net(3, seed)
        net.links.loss, net.links.slow_share = 0.05, 0.1
        for number in range(200):
            net.ends[number % 3].wire.broadcast(frame(number))
            if number % 50 == 20:
                net.cut((0, 1))
            if number % 50 == 40:
                net.cut()
            net.run_for(10)
        return [net.arrived, net.cables.counts, [end.seen for end in net.ends]]

    assert play() == play()
