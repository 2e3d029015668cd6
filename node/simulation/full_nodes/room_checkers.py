"""What a node's rooms may hold: each table within the bound that its room states, and no work for the past.

Written against the rooms' own limits, which they promise in their first lines ("bounded whatever is
offered"). Invariant: counts only, nothing is changed. Leaves out: the engine's rounds, which
`checkers.SafetyChecker.weigh` counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from consensus.bft.replica import VIEWS_AHEAD_MAX
from node.api import event_ring
from node.blocks import catch_up, compact_bodies, judge
from node.engine import held_frames
from node.full_node import FullNode
from node.mempool import queues, refusals
from node.network import gossip, intake
from node.network.send_queue import LIMITS
from node.simulation.checkers import ROUND_BLOCKS_MAX, Violation
from node.verification import VERIFIED_IDS_MAX

Weight = tuple[str, int, int]  # what, how much there is, how much there may be

QUEUE_FRAMES_MAX: Final = sum(limit.frames_max for limit in LIMITS.values())
QUEUE_BYTES_MAX: Final = sum(limit.bytes_max for limit in LIMITS.values())


def check_bounds(index: int, node: FullNode) -> None:
    """Raises Violation for the first table that holds more than it may."""
    for what, count, most in list_weights(node):
        if count > most:
            raise Violation(f"bounded memory: node {index} holds {count} {what}, at most {most} are promised")


def list_weights(node: FullNode) -> Iterator[Weight]:
    """Every table of a node that its peers or clients can fill."""
    yield from _weigh_mempool(node)
    yield from _weigh_gossip(node)
    yield from _weigh_blocks(node)
    peers = len(node.network.peers())
    yield "frames of the next epoch", len(node.door.held), held_frames.PEER_FRAMES_MAX * max(1, peers)
    yield "peers' heights", len(node.catching_up._heights), peers
    yield "peers' budgets", len(node.serving._budgets), peers
    yield "distrusted peers", len(node.catching_up._distrusted), catch_up.DISTRUSTED_MAX
    for report in node.network.describe():
        yield "frames waiting for a peer", report.queued_frames, QUEUE_FRAMES_MAX
        yield "bytes waiting for a peer", report.queued_bytes, QUEUE_BYTES_MAX


def _weigh_mempool(node: FullNode) -> Iterator[Weight]:
    mempool, policy = node.mempool, node.mempool.policy
    waiting, size_bytes = mempool._pending, sum(entry.size_bytes for entry in mempool._pending)
    yield "pending transactions", len(mempool), policy.count_max
    yield "bytes of pending transactions", size_bytes, policy.bytes_max
    yield "uncounted bytes of pending transactions", abs(size_bytes - mempool.size_bytes), 0
    yield "drops", len(mempool._drops), policy.drops_kept
    yield "refusals", len(node.refusals), refusals.REFUSALS_KEPT
    yield "refusals with their changes", len(node.refusals._changes), refusals.CHANGES_KEPT
    for name, heap, live in (
        ("heads of lines", waiting._heads, waiting.sender_count),
        ("tails of lines", waiting._tails, waiting.sender_count),
        ("deadlines", waiting._deadlines, len(waiting)),
    ):
        # Swept at the next insertion: as many as were ever live at once may still stand there.
        highest = max(live, policy.count_max)
        kept = 0 if heap is None else len(heap)  # tails are made when a full pool asks for them
        yield name, kept, 2 * highest + queues.STALE_SPARE + 1
    yield "verified ids", len(node.verifier._verified), VERIFIED_IDS_MAX
    events = node.events
    yield "events", events.next_id - events.oldest, event_ring.EVENTS_KEPT


def _weigh_gossip(node: FullNode) -> Iterator[Weight]:
    talk, taken = node.gossip, node.entrance.intake
    yield "ids seen", len(talk._seen), gossip.SEEN_MAX
    yield "ids wanted", len(talk._wanted), gossip.WANTED_MAX
    counted = sum(talk._wanted_counts.values())
    yield "ids wanted and not counted", abs(counted - len(talk._wanted)), 0
    yield (
        "ids wanted that one peer announced",
        max(talk._wanted_counts.values(), default=0),
        gossip.WANTED_PEER_MAX,
    )
    yield "bytes waiting for their checks", taken._bytes_all, intake.WAITING_BYTES_MAX
    yield (
        "bytes of one peer waiting for their checks",
        max(taken._bytes.values(), default=0),
        intake.WAITING_BYTES_PEER_MAX,
    )


def _weigh_blocks(node: FullNode) -> Iterator[Weight]:
    room, engine = node.judge_room, node.engine
    views = max(0, engine.view - engine.finalized_view)
    yield "compact bodies", len(room._bodies._compact), compact_bodies.BODIES_MAX
    yield "invalid blocks", len(room.invalid), judge.INVALID_MAX
    # What the engine asks for, one or two blocks a view, and as many parents of what is far ahead.
    work_max = ROUND_BLOCKS_MAX * (views + VIEWS_AHEAD_MAX) + judge.AHEAD_BLOCKS_MAX
    yield "blocks to judge", len(room._work), work_max
    yield "blocks above the final one", len(node.chain._above), ROUND_BLOCKS_MAX * (views + VIEWS_AHEAD_MAX)


def check_leftovers(index: int, node: FullNode) -> None:
    """At rest: raises Violation for what is still held of the past."""
    final = node.chain.finalized
    for work in node.judge_room._work.values():
        if work.header is not None and work.header.height <= final.height:
            raise Violation(
                f"leftovers: node {index} still judges a block of height {work.header.height}, "
                f"final is {final.height}"
            )
    for entry in node.mempool._pending:
        if node.store.find_transaction(entry.tx.id) is not None:
            raise Violation(f"leftovers: 0x{entry.tx.id.hex()} is final and pending on node {index}")
