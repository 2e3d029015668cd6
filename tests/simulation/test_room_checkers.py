"""The checkers of what rooms hold object to each table that is overfilled, and to what is kept of the past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.block import Header
from consensus.transaction import sign_transaction
from node.api import event_ring
from node.blocks import catch_up, compact_bodies, judge
from node.blocks.judge import InvalidBlock, _Work
from node.full_node import FullNode
from node.mempool.lines import Entry
from node.mempool.queues import STALE_SPARE
from node.mempool.receipts import Drop
from node.network import gossip, intake
from node.network.transport import PeerReport
from node.simulation.checkers import Violation
from node.simulation.config import SimulationConfig
from node.simulation.full_nodes.chain import GENESIS_MS, make_chain
from node.simulation.full_nodes.room_checkers import (
    QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX,
    check_bounds,
    check_leftovers,
)
from node.simulation.full_nodes.world import NodeWorld
from node.verification import VERIFIED_IDS_MAX

CHAIN = make_chain((1, 1, 1, 1))
CONFIG = SimulationConfig(
    full_nodes=True, loss=0, slow_share=0, crashes=0, partitions=0, build_failures=0, faulty_ms=60
)


@pytest.fixture
def node(seed: int) -> FullNode:
    """A node that has seen some blocks, at rest."""
    world = NodeWorld(CONFIG, seed)
    assert world.run() == ""
    process = world.hosts[0].process
    assert process is not None
    assert process.node is not None
    return process.node


def make_ids(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


def make_entry(nonce: int = 100) -> Entry:
    tx = sign_transaction(
        CHAIN.client_keys[0],
        CHAIN.rules.chain_id,
        nonce=nonce,
        receiver=bytes(20),
        amount=1,
        fee=1,
        timestamp_ms=GENESIS_MS,
        expires_ms=GENESIS_MS + 1,
    )
    return Entry(tx, tx.expires_ms, 0, 0)


def make_header(node: FullNode, number: int) -> Header:
    return replace(node.chain.finalized, timestamp_ms=number)


def fill_mempool(node: FullNode) -> None:
    node.mempool.policy = replace(node.mempool.policy, count_max=1)
    for nonce in (100, 101):
        node.mempool._pending.insert(make_entry(nonce))


def fill_mempool_bytes(node: FullNode) -> None:
    node.mempool.policy = replace(node.mempool.policy, bytes_max=1)
    node.mempool._pending.insert(make_entry())


def miscount_mempool(node: FullNode) -> None:
    node.mempool._pending.size_bytes += 1


def fill_drops(node: FullNode) -> None:
    node.mempool.policy = replace(node.mempool.policy, drops_kept=1)
    for nonce in (100, 101):
        node.mempool._drops.add(Drop(make_entry(nonce).tx, "expired", "", None, 1, 1))


def fill_heads(node: FullNode) -> None:
    node.mempool.policy = replace(node.mempool.policy, count_max=1)
    entry = make_entry()
    node.mempool._pending._heads._fresh += [entry] * (STALE_SPARE + 4)


def fill_verified(node: FullNode) -> None:
    node.verifier._verified._ids |= dict.fromkeys(make_ids(VERIFIED_IDS_MAX + 1))


def fill_events(node: FullNode) -> None:
    node.events._next = node.events._first + event_ring.EVENTS_KEPT + 1


def fill_seen(node: FullNode) -> None:
    node.gossip._seen.update(dict.fromkeys(make_ids(gossip.SEEN_MAX + 1), ()))


def fill_wanted(node: FullNode) -> None:
    for number, transaction_id in enumerate(make_ids(gossip.WANTED_MAX + 1)):
        first = bytes((number % 5,))
        node.gossip._wanted[transaction_id] = gossip._Wanted(first)
        node.gossip._wanted_counts[first] += 1


def fill_one_peers_wanted(node: FullNode) -> None:
    for transaction_id in make_ids(gossip.WANTED_PEER_MAX + 1):
        node.gossip._wanted[transaction_id] = gossip._Wanted(b"one")
        node.gossip._wanted_counts[b"one"] += 1


def miscount_wanted(node: FullNode) -> None:
    node.gossip._wanted[bytes(32)] = gossip._Wanted(b"one")


def fill_intake(node: FullNode) -> None:
    node.entrance.intake._bytes_all = intake.WAITING_BYTES_MAX + 1


def fill_one_peers_intake(node: FullNode) -> None:
    node.entrance.intake._bytes[b"one"] = intake.WAITING_BYTES_PEER_MAX + 1


def fill_compact_bodies(node: FullNode) -> None:
    bodies = node.judge_room._bodies._compact._bodies
    bodies.update(dict.fromkeys(make_ids(compact_bodies.BODIES_MAX + 1)))  # type: ignore[arg-type] - counted


def fill_invalid(node: FullNode) -> None:
    refused = InvalidBlock(node.chain.finalized, "for a test")
    node.judge_room.invalid.update(dict.fromkeys(make_ids(judge.INVALID_MAX + 1), refused))


def fill_work(node: FullNode) -> None:
    height = node.chain.finalized.height + 1
    for number, block_hash in enumerate(make_ids(1_000)):
        header = replace(node.chain.finalized, height=height, timestamp_ms=number)
        node.judge_room._work[block_hash] = _Work(header, height, 0, 0)


def fill_chain(node: FullNode) -> None:
    node.chain._above.update(dict.fromkeys(make_ids(1_000)))  # type: ignore[arg-type] - counted alone


def fill_heights(node: FullNode) -> None:
    node.catching_up._heights |= dict.fromkeys(make_ids(9), 1)


def fill_budgets(node: FullNode) -> None:
    node.serving._budgets |= dict.fromkeys(make_ids(9), (1, 1))


def fill_distrusted(node: FullNode) -> None:
    node.catching_up._distrusted |= dict.fromkeys(make_ids(catch_up.DISTRUSTED_MAX + 1), 1.0)


def queue_for_a_peer(frames: int, size_bytes: int) -> Callable[[FullNode], None]:
    def fill(node: FullNode) -> None:
        report = PeerReport(bytes(33), "slow", "", True, True, 1.0, frames, size_bytes, 0, 0.0, "")
        node.network.describe = lambda: [report]  # type: ignore[method-assign]

    return fill


def test_a_node_at_rest_is_within_all_bounds_and_has_no_leftovers(node: FullNode) -> None:
    assert node.chain.finalized.height > 0
    check_bounds(0, node)
    check_leftovers(0, node)


@pytest.mark.parametrize(
    ("fill", "what"),
    [
        (fill_mempool, "2 pending transactions"),
        (fill_mempool_bytes, "bytes of pending"),
        (miscount_mempool, "uncounted bytes"),
        (fill_drops, "drops"),
        (fill_heads, "heads of lines"),
        (fill_verified, "verified ids"),
        (fill_events, "events"),
        (fill_seen, "ids seen"),
        (fill_wanted, "ids wanted"),
        (fill_one_peers_wanted, "that one peer announced"),
        (miscount_wanted, "not counted"),
        (fill_intake, "bytes waiting for their checks"),
        (fill_one_peers_intake, "bytes of one peer"),
        (fill_compact_bodies, "compact bodies"),
        (fill_invalid, "invalid blocks"),
        (fill_work, "blocks to judge"),
        (fill_chain, "blocks above"),
        (fill_heights, "heights"),
        (fill_budgets, "budgets"),
        (fill_distrusted, "distrusted"),
        (queue_for_a_peer(QUEUE_FRAMES_MAX + 1, 0), "frames waiting for a peer"),
        (queue_for_a_peer(0, QUEUE_BYTES_MAX + 1), "bytes waiting for a peer"),
    ],
)
def test_an_overfilled_table(node: FullNode, fill: Callable[[FullNode], None], what: str) -> None:
    fill(node)
    with pytest.raises(Violation, match=rf"^bounded memory: node 0 holds .*{what}"):
        check_bounds(0, node)


def test_work_on_a_block_below_the_final_one(node: FullNode) -> None:
    node.judge_room._work[bytes(32)] = _Work(make_header(node, 1), 0, 0, 0)
    with pytest.raises(Violation, match=r"^leftovers: node 0 still judges"):
        check_leftovers(0, node)


def test_a_final_transaction_that_is_still_pending(node: FullNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.store, "find_transaction", lambda _: (1, 0))
    node.mempool._pending.insert(make_entry())
    with pytest.raises(Violation, match=r"^leftovers: .* is final and pending"):
        check_leftovers(0, node)
