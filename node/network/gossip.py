"""Spreading transactions: pushed by the node that first had them, announced by everyone else.

A client's transactions go to its node's peers as bodies, in batches, without a question. A node that got
them from a peer waits a moment and announces ids to those it has not heard them from; whoever lacks one
asks one announcer, and the next when that one is silent. See docs/decisions/0011-gossip.md.

Invariant: every table is bounded, no peer can fill one alone, and a body is asked for from one peer at a
time. A lost or dropped frame costs time only: what gossip misses is fetched with the block.
Leaves out: what a valid transaction is; the mempool behind the three callables decides.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from consensus.crypto import hash_bytes
from node.network.frames import ANNOUNCE_IDS_MAX, Announce, GetTransactions, Transactions
from node.network.transport import Peer, Priority, Transport

SEEN_MAX: Final = 1 << 16  # ids whose bodies came lately: twenty seconds at 3,000 a second, some 12 MB
WANTED_MAX: Final = 1 << 15  # ids announced to us and not yet here
WANTED_PEER_MAX: Final = WANTED_MAX // 4  # of them first announced by one peer: four liars fill the table
HOLDERS_MAX: Final = 8  # announcers remembered for one id: enough to fall back on
PUSH_DELAY_S: Final = 0.002  # clients' single submissions share a frame; nobody feels it in 60 ms
RELAY_DELAY_S: Final = 0.1  # by then the first node's push has reached the others, and most ids need no frame
REQUEST_TIMEOUT_S: Final = 1.0  # a round trip between busy nodes; then the next announcer is asked
PUSH_PEERS_MAX: Final = 8  # in a larger network the first node pushes to so many, and announces to the rest
FRAME_BODIES_BYTES: Final = 262_144  # of transactions in a frame: two milliseconds of a consensus frame's way


class Timer(Protocol):
    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """Time in seconds, as an asyncio loop has it; a simulated world brings its own."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Body(Protocol):
    """What gossip needs of a transaction: its id (32 bytes) and its raw bytes, whose SHA-256 that is."""

    @property
    def id(self) -> bytes: ...

    @property
    def raw(self) -> bytes: ...


@dataclass(slots=True)
class GossipCounters:
    pushed: int = 0  # bodies, per peer
    served: int = 0  # bodies asked for
    received: int = 0
    duplicates: int = 0
    requested: int = 0
    timeouts: int = 0  # requests of one id that its announcer did not answer


@dataclass(slots=True)
class _Wanted:
    """An id announced to us: who to ask, and who is asked now."""

    first: bytes  # whose quota it fills
    others: deque[bytes] = field(default_factory=deque)  # announcers not asked yet
    asked: bytes = b""
    attempt: int = 0  # the batch of the current request


class Gossip:
    """One node's gossip. Calls from one event loop; `has` says mempool or chain has the id.

    get_raws: the raw transactions it still has of these ids, in any order. deliver: raw transactions new
    to us and the node key they came from; awaited, so that a flooding peer waits. When the mempool has
    taken them, the node calls `announce` with their ids.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        *,
        has: Callable[[bytes], bool],
        get_raws: Callable[[Sequence[bytes]], Iterable[bytes]],
        deliver: Callable[[list[bytes], bytes], Awaitable[None]],
    ) -> None:
        self.counters = GossipCounters()
        self._transport = transport
        self._scheduler = scheduler
        self._has = has
        self._get_raws = get_raws
        self._deliver = deliver
        self._seen: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()  # id -> peers known to have it
        self._wanted: dict[bytes, _Wanted] = {}
        self._wanted_counts: Counter[bytes] = Counter()  # by the peer that announced first
        self._batches: deque[tuple[float, int, tuple[bytes, ...]]] = deque()  # deadline, attempt, ids
        self._attempt = 0
        self._pushes: list[Body] = []
        self._relays: dict[bytes, None] = {}  # ids to announce, in order
        self._push_timer: Timer | None = None
        self._relay_timer: Timer | None = None
        self._request_timer: Timer | None = None

    # --- what the node tells --------------------------------------------------------------------------

    def push(self, transactions: Iterable[Body]) -> None:
        """Transactions that a client gave to this node and the mempool took."""
        for tx in transactions:
            self._drop_wanted(tx.id)
            self._see(tx.id, ())
            self._pushes.append(tx)
        if self._pushes and self._push_timer is None:
            self._push_timer = self._scheduler.call_later(PUSH_DELAY_S, self._flush_pushes)

    def announce(self, ids: Iterable[bytes]) -> None:
        """Transactions that came from peers and that the mempool took."""
        for transaction_id in ids:
            if transaction_id not in self._seen:
                self._drop_wanted(transaction_id)
                self._see(transaction_id, ())
            self._relays[transaction_id] = None
        if self._relays and self._relay_timer is None:
            self._relay_timer = self._scheduler.call_later(RELAY_DELAY_S, self._flush_relays)

    def forget(self, ids: Iterable[bytes]) -> None:
        """Take these if they are offered again (the mempool had no room for them, say)."""
        for transaction_id in ids:
            self._seen.pop(transaction_id, None)

    def on_disconnected(self, peer: Peer) -> None:
        """Ask others for what this peer was asked for."""
        waiting = [key for key, wanted in self._wanted.items() if wanted.asked == peer.node_key]
        self._ask_next(waiting)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._push_timer, self._relay_timer, self._request_timer):
            if timer is not None:
                timer.cancel()

    # --- what peers say -------------------------------------------------------------------------------

    async def on_frame(self, peer: Peer, frame: Announce | GetTransactions | Transactions) -> None:
        """Take a gossip frame; returns when the bodies in it are delivered."""
        match frame:
            case Announce(ids):
                self._take_announcement(peer.node_key, ids)
            case GetTransactions(ids):
                self._serve(peer.node_key, ids)
            case Transactions(raws):
                await self._take_bodies(peer.node_key, raws)

    def _take_announcement(self, node_key: bytes, ids: Sequence[bytes]) -> None:
        missing: list[bytes] = []
        for transaction_id in ids:
            holders = self._seen.get(transaction_id)
            if holders is not None:
                if len(holders) < HOLDERS_MAX and node_key not in holders:
                    self._seen[transaction_id] = (*holders, node_key)
                continue
            wanted = self._wanted.get(transaction_id)
            if wanted is not None:
                if len(wanted.others) < HOLDERS_MAX and node_key not in (wanted.asked, *wanted.others):
                    wanted.others.append(node_key)
            elif (
                not self._has(transaction_id)
                and len(self._wanted) < WANTED_MAX
                and self._wanted_counts[node_key] < WANTED_PEER_MAX
            ):
                self._wanted[transaction_id] = _Wanted(node_key)
                self._wanted_counts[node_key] += 1
                missing.append(transaction_id)
        self._request(node_key, missing)

    def _serve(self, node_key: bytes, ids: Sequence[bytes]) -> None:
        raws = list(self._get_raws(ids))
        self.counters.served += len(raws)
        for batch in _split_bodies(raws):
            self._transport.send(node_key, Transactions(batch), Priority.GOSSIP)

    async def _take_bodies(self, node_key: bytes, raws: Sequence[bytes]) -> None:
        fresh = []
        for raw in raws:
            transaction_id = hash_bytes(raw)  # `consensus.transaction` defines the id so
            wanted = self._drop_wanted(transaction_id) if transaction_id in self._wanted else None
            if transaction_id in self._seen or self._has(transaction_id):
                self.counters.duplicates += 1
                continue
            holders = (node_key,) if wanted is None else (node_key, wanted.asked, *wanted.others)
            self._see(transaction_id, holders)
            fresh.append(raw)
        self.counters.received += len(fresh)
        if fresh:
            await self._deliver(fresh, node_key)

    # --- asking ---------------------------------------------------------------------------------------

    def _request(self, node_key: bytes, ids: Sequence[bytes]) -> None:
        for start in range(0, len(ids), ANNOUNCE_IDS_MAX):
            batch = tuple(ids[start : start + ANNOUNCE_IDS_MAX])
            self._attempt += 1
            for transaction_id in batch:
                wanted = self._wanted[transaction_id]
                wanted.asked, wanted.attempt = node_key, self._attempt
            self.counters.requested += len(batch)
            self._batches.append((self._scheduler.time() + REQUEST_TIMEOUT_S, self._attempt, batch))
            # When it is not taken, the time-out below finds the next announcer.
            self._transport.send(node_key, GetTransactions(batch), Priority.GOSSIP)
        if self._batches and self._request_timer is None:
            self._request_timer = self._scheduler.call_later(REQUEST_TIMEOUT_S, self._expire_requests)

    def _expire_requests(self) -> None:
        self._request_timer = None
        now_s = self._scheduler.time()
        late = []
        while self._batches and self._batches[0][0] <= now_s:
            _, attempt, ids = self._batches.popleft()
            late += [key for key in ids if key in self._wanted and self._wanted[key].attempt == attempt]
        self.counters.timeouts += len(late)
        self._ask_next(late)
        if self._batches and self._request_timer is None:
            delay_s = max(0.0, self._batches[0][0] - now_s)
            self._request_timer = self._scheduler.call_later(delay_s, self._expire_requests)

    def _ask_next(self, ids: Iterable[bytes]) -> None:
        """Ask each id's next announcer, or give it up when there is none."""
        by_peer: dict[bytes, list[bytes]] = {}
        for transaction_id in ids:
            others = self._wanted[transaction_id].others
            if others:
                by_peer.setdefault(others.popleft(), []).append(transaction_id)
            else:
                self._drop_wanted(transaction_id)
        for node_key, batch in by_peer.items():
            self._request(node_key, batch)

    def _drop_wanted(self, transaction_id: bytes) -> _Wanted | None:
        wanted = self._wanted.pop(transaction_id, None)
        if wanted is not None:
            self._wanted_counts[wanted.first] -= 1
            if not self._wanted_counts[wanted.first]:
                del self._wanted_counts[wanted.first]
        return wanted

    # --- telling --------------------------------------------------------------------------------------

    def _see(self, transaction_id: bytes, holders: tuple[bytes, ...]) -> None:
        self._seen[transaction_id] = holders
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    def _flush_pushes(self) -> None:
        self._push_timer = None
        pushes, self._pushes = self._pushes, []
        peers = sorted(self._transport.peers(), key=lambda peer: not peer.name)  # configured ones first
        to_push, to_tell = peers[:PUSH_PEERS_MAX], peers[PUSH_PEERS_MAX:]
        for batch in _split_bodies([tx.raw for tx in pushes]):
            frame = Transactions(batch)
            if not to_tell:
                self.counters.pushed += len(batch) * self._transport.broadcast(frame, Priority.GOSSIP)
                continue
            for peer in to_push:
                self.counters.pushed += len(batch) * self._transport.send(
                    peer.node_key, frame, Priority.GOSSIP
                )
        for peer in to_tell:
            self._tell(peer.node_key, [tx.id for tx in pushes])

    def _flush_relays(self) -> None:
        self._relay_timer = None
        relays, self._relays = self._relays, {}
        news: dict[bytes, list[bytes]] = {peer.node_key: [] for peer in self._transport.peers()}
        for transaction_id in relays:
            holders = self._seen.get(transaction_id, ())
            for node_key, ids in news.items():
                if node_key not in holders:
                    ids.append(transaction_id)
        for node_key, ids in news.items():
            self._tell(node_key, ids)

    def _tell(self, node_key: bytes, ids: Sequence[bytes]) -> None:
        for start in range(0, len(ids), ANNOUNCE_IDS_MAX):
            batch = tuple(ids[start : start + ANNOUNCE_IDS_MAX])
            self._transport.send(node_key, Announce(batch), Priority.GOSSIP)


def _split_bodies(raws: Sequence[bytes]) -> Iterable[tuple[bytes, ...]]:
    """Batches of about FRAME_BODIES_BYTES, in order."""
    batch: list[bytes] = []
    size = 0
    for raw in raws:
        if batch and size + len(raw) > FRAME_BODIES_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(raw)
        size += len(raw)
    if batch:
        yield tuple(batch)
