"""What waits for one peer, who is banned, and when to dial again: the limits around a connection."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from node.network import reputation
from node.network.dialer import Backoff, BackoffLimits, KnownPeer
from node.network.frames import FRAME_BYTES_MAX
from node.network.reputation import Reputation
from node.network.send_queue import LIMITS, Limit, Overflow, SendQueue
from node.network.transport import Priority

SMALL = {priority: Limit(3, 100) for priority in Priority}
CONSENSUS, GOSSIP, BULK = Priority.CONSENSUS, Priority.GOSSIP, Priority.BULK


async def drain(queue: SendQueue) -> list[bytes]:
    return [await queue.get() for _ in range(len(queue))]


async def test_the_most_urgent_frame_goes_first_and_each_lane_keeps_its_order() -> None:
    queue = SendQueue()
    for data, priority in ((b"bulk", BULK), (b"tx1", GOSSIP), (b"vote1", CONSENSUS), (b"tx2", GOSSIP)):
        assert queue.put(data, priority)
    queue.put(b"vote2", CONSENSUS)
    assert await drain(queue) == [b"vote1", b"vote2", b"tx1", b"tx2", b"bulk"]


async def test_full_gossip_drops_its_oldest() -> None:
    queue = SendQueue(SMALL)
    assert all(queue.put(b"%d" % n, GOSSIP) for n in range(5))
    assert await drain(queue) == [b"2", b"3", b"4"]
    assert queue.dropped_count == 2


async def test_full_bulk_refuses_the_newest() -> None:
    queue = SendQueue(SMALL)
    assert [queue.put(bytes(40), BULK) for _ in range(3)] == [True, True, False]
    assert (len(queue), queue.size_bytes, queue.dropped_count) == (2, 80, 1)


async def test_full_consensus_overflows_and_changes_nothing() -> None:
    queue = SendQueue(SMALL)
    for n in range(3):
        queue.put(b"%d" % n, CONSENSUS)
    with pytest.raises(Overflow):
        queue.put(b"3", CONSENSUS)
    assert await drain(queue) == [b"0", b"1", b"2"]


async def test_an_empty_lane_takes_a_frame_of_any_size() -> None:
    queue = SendQueue(SMALL)
    assert queue.put(bytes(500), GOSSIP)
    assert all(limit.bytes_max >= FRAME_BYTES_MAX for limit in LIMITS.values())


async def test_a_topic_keeps_its_place_and_its_newest_frame() -> None:
    queue = SendQueue(SMALL)
    queue.put(b"status 1", CONSENSUS, "status")
    queue.put(b"vote", CONSENSUS)
    queue.put(b"status 22", CONSENSUS, "status")
    assert queue.size_bytes == 13
    assert await drain(queue) == [b"status 22", b"vote"]
    queue.put(b"status 3", CONSENSUS, "status")
    assert await drain(queue) == [b"status 3"]
    assert queue.size_bytes == 0


async def test_a_reader_waits_for_the_next_frame() -> None:
    queue = SendQueue()
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not reader.done()
    queue.put(b"x", BULK)
    assert await asyncio.wait_for(reader, 5) == b"x"


@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 60)), max_size=40))
def test_no_lane_grows_beyond_its_limits(puts: list[tuple[Priority, int]]) -> None:
    async def run() -> None:
        queue = SendQueue(SMALL)
        for priority, size in puts:
            try:
                queue.put(bytes(size), priority)
            except Overflow:
                assert priority is CONSENSUS
            assert all(len(lane) <= 3 for lane in queue._lanes.values())
            assert all(size <= 100 for size in queue._sizes.values())
        assert sum(map(len, await drain(queue))) + queue.size_bytes <= sum(size for _, size in puts)
        assert queue.size_bytes == 0

    asyncio.run(run())


def test_points_add_up_to_a_ban_that_ends() -> None:
    book = Reputation(ban_s=60)
    assert [book.add(b"k", 25, float(n)) for n in range(4)] == [False, False, False, True]
    assert book.get_ban_left_s(b"k", 13) == pytest.approx(50)
    assert book.get_ban_left_s(b"other", 13) == 0
    assert book.get_ban_left_s(b"k", 63) == 0
    assert book.get_points(b"k", 63) == 0


def test_points_fade_one_by_one() -> None:
    book = Reputation()
    book.add(b"k", 50, 0)
    assert book.get_points(b"k", 9) == 50
    assert book.get_points(b"k", 105) == 40
    book.add(b"k", 0, 105)  # touching it loses no fraction
    assert book.get_points(b"k", 110) == 39
    assert book.get_points(b"k", 10_000) == 0


def test_the_memory_of_faults_is_bounded() -> None:
    book = Reputation()
    for n in range(reputation.ENTRIES_MAX + 10):
        book.add(n.to_bytes(4, "big"), 10, 0)
    assert book.get_points((0).to_bytes(4, "big"), 0) == 0
    assert book.get_points((reputation.ENTRIES_MAX).to_bytes(4, "big"), 0) == 10


@given(st.integers(0, 2**32))
def test_delays_double_up_to_their_limit_with_jitter(seed: int) -> None:
    backoff = Backoff(random.Random(seed), BackoffLimits(0.1, 10))
    middles = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert all(0.5 * middle <= backoff.next_s() <= 1.5 * middle for middle in middles)
    backoff.reset()
    assert backoff.next_s() <= 0.15
    backoff.settle()
    assert backoff.next_s() >= 5


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://127.0.0.1:1", PrivateKey.from_seed(b"x").public_key),
        ("127.0.0.1:1", PrivateKey.from_seed(b"x").public_key),
        ("ws://127.0.0.1:1", bytes(33)),
        ("ws://127.0.0.1:1", b""),
        ("ws://127.0.0.1:port", PrivateKey.from_seed(b"x").public_key),
        ("ws://[::1", PrivateKey.from_seed(b"x").public_key),
    ],
)
def test_a_peer_that_cannot_be_dialled_is_rejected_in_the_settings(url: str, key: bytes) -> None:
    with pytest.raises(Rejected, match="peer x"):
        KnownPeer("x", url, key)
