"""A transaction's way from signed to settled: batched, retried, resubmitted, over several nodes.

New rows go to one node, in order, a batch at a time; gossip brings them to the others in that order. (Spread
over nodes, each proposer would take the part it has, and scores depend on what an account did *before*.)
A node that is down or busy is left alone for growing intervals, and the next one takes its place. What was accepted and then overtaken (others sent well after it are final) is
submitted again to another node; so is everything when nothing becomes final. Both stop at expiry.

Invariant: every parcel is told its fate exactly once as refused or failed, and a later final overrides
that (docs/api.md: a refusal is a node's answer of the moment). In flight = posted and not settled.
Leaves out: who learns what is final; the follower hands blocks in.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final

from consensus.transaction import Transaction
from node.clock import Clock
from node.replay.network import Answer, FinalBlock, NetworkClient, NodeAway
from node.replay.signer import Signer

BATCH_MAX: Final = 250  # some 50 kB and 10 ms of a node's time
WORKERS_PER_NODE: Final = 1  # more only put rows into another order
LINGER_MS: Final = 4  # lets a batch fill; far below a block's time
OVERDUE_MS: Final = 2_000  # two empty block intervals: a transaction that others overtook by this is lost
TICK_MS: Final = 100
AWAY_MS_MIN: Final = 200
AWAY_MS_MAX: Final = 3_000  # a node that was restarted is found again within this
REJECTED_RETRY_MS: Final = 500  # doubled each time: a node behind the others catches up meanwhile
REJECTIONS_MAX: Final = 6  # in some 18 s, by different nodes where there are several
SLOWEST_RETRY_MS: Final = 5_000
CODE_GAP: Final = "nonce_gap"  # a mempool's word for a nonce too far above those it knows


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transaction became final, and what it scored."""

    block: FinalBlock
    index: int

    @property
    def score(self) -> int:
        return self.block.scores[self.index]

    @property
    def outcome(self) -> int:
        return self.block.outcomes[self.index]


@dataclass(frozen=True, slots=True)
class Refused:
    """A node judged it and refused it."""

    score: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot become final any more, as far as anybody knows."""

    reason: str


Fate = Place | Refused | Failed


@dataclass(slots=True)
class Parcel:
    """A signed transaction under way. `on_fate` tells its owner how it ended."""

    tx: Transaction
    signer: Signer
    on_fate: Callable[[Parcel, Fate], None]
    on_gap: Callable[[Parcel], bool] | None = None  # its nonce is too far ahead of what the chain saw
    row: int = -1  # of the workload; -1: not one of its rows
    first_ms: int = -1  # monotonic, when it was first handed to a node
    sent_ms: int = -1  # the last time
    node: int = -1  # the last one it was handed to
    rejections: int = 0
    is_waiting: bool = False  # accepted: in some mempool, as far as we know
    is_settled: bool = False


@dataclass(slots=True)
class NodeState:
    """Whether a node answers; monotonic times."""

    away_until_ms: int = 0
    away_ms: int = 0
    is_reachable: bool = True


@dataclass(slots=True)
class Counts:
    """Requests and resubmissions, for the report."""

    requests: int = 0
    backpressure: int = 0
    resubmitted: int = 0
    node_failures: int = 0
    codes: Counter[str] = field(default_factory=Counter)


class Delivery:
    """Post parcels, hand in final blocks; `wait_change` wakes at every settlement and block."""

    def __init__(self, network: NetworkClient, clock: Clock) -> None:
        self._network = network
        self._clock = clock
        self._ready: deque[Parcel] = deque()
        self._retries: list[tuple[int, int, Parcel]] = []  # a heap by monotonic time
        self._order = count()
        self._open: dict[bytes, Parcel] = {}  # posted, not settled
        self._closed: dict[bytes, Parcel] = {}  # refused or failed: a final overrides
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._final_sent_ms = -1  # the latest first submission among what is final
        self._progress_ms = 0  # when something of ours last became final
        self.nodes = [NodeState() for _ in network.names]
        self.counts = Counts()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def get_open(self) -> list[Parcel]:
        """Posted and not settled, oldest first."""
        return list(self._open.values())

    def get_oldest(self) -> Parcel | None:
        return next(iter(self._open.values()), None)

    def start(self) -> None:
        self._progress_ms = self._clock.monotonic_ms()
        for node in range(len(self.nodes)):
            self._tasks.append(asyncio.create_task(self._watch_refusals(node)))
            for _ in range(WORKERS_PER_NODE):
                self._tasks.append(asyncio.create_task(self._run_worker(node)))
        self._tasks.append(asyncio.create_task(self._run_ticks()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def check_alive(self) -> None:
        """Raises what a worker died of: an error of our own."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def post(self, parcel: Parcel, *, is_urgent: bool = False) -> None:
        """Take charge of a parcel; urgent ones go first."""
        if not self._open:
            self._progress_ms = self._clock.monotonic_ms()
        self._open[parcel.tx.id] = parcel
        if is_urgent:
            self._ready.appendleft(parcel)
        else:
            self._ready.append(parcel)
        self._work.set()

    async def wait_change(self, timeout_ms: int = 200) -> None:
        """Until something was settled or became final; a bounded time."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._changed.wait()
        self.check_alive()

    def abandon(self, reason: str) -> None:
        """What is not settled yet has failed."""
        for parcel in list(self._open.values()):
            self._fail(parcel, reason)
        self._ready.clear()
        self._retries.clear()

    def take_block(self, block: FinalBlock) -> None:
        """Settle what a final block holds, and what it shows to be expired."""
        now_ms = self._clock.monotonic_ms()
        for index, transaction_id in enumerate(block.ids):
            parcel = self._open.pop(transaction_id, None) or self._closed.pop(transaction_id, None)
            if parcel is not None:
                parcel.is_settled = True
                parcel.signer.settle(parcel.tx.nonce)
                self._final_sent_ms = max(self._final_sent_ms, parcel.first_ms)
                self._progress_ms = now_ms
                parcel.on_fate(parcel, Place(block, index))
        for parcel in list(self._open.values()):
            # Posted in order of time: the first that can still come ends the search (reports, which carry the
            # time they are posted at, are not older than rows around them).
            if parcel.tx.expires_ms >= block.header.timestamp_ms:
                break
            self._fail(parcel, "expired")
        self._changed.set()

    def note_refusal(self, transaction_id: bytes, score: int) -> None:
        """A node that had accepted it refused it while building a block: its answer of the moment."""
        parcel = self._open.get(transaction_id)
        if parcel is not None and parcel.is_waiting:
            self._close(parcel)
            parcel.on_fate(parcel, Refused(score, "refused while a block was built"))
            self._changed.set()

    async def _watch_refusals(self, node: int) -> None:
        while True:
            with suppress(NodeAway):
                await self._network.watch_refusals(node, self.note_refusal)
            await asyncio.sleep(AWAY_MS_MIN / 1000)

    # --- workers ------------------------------------------------------------------------------------

    async def _run_worker(self, node: int) -> None:
        state = self.nodes[node]
        while True:
            wait_ms = state.away_until_ms - self._clock.monotonic_ms()
            if wait_ms > 0:
                await asyncio.sleep(wait_ms / 1000)
                continue
            batch = self._take_batch(node)
            if not batch:
                self._work.clear()
                await self._work.wait()
                if len(self._ready) < BATCH_MAX:
                    await asyncio.sleep(LINGER_MS / 1000)
                continue
            try:
                answers = await self._submit(node, batch)
            except NodeAway as away:
                self._leave_alone(node, away.retry_ms)
                self._give_back(batch)
                continue
            state.away_ms, state.is_reachable = 0, True
            for parcel, answer in zip(batch, answers, strict=True):
                self._take_answer(parcel, answer)
            self._changed.set()

    def _take_batch(self, node: int) -> list[Parcel]:
        """Up to BATCH_MAX ready parcels for this node: new ones if it is the first that can be reached, and
        those that another node had before, if there is any other."""
        able = [number for number, state in enumerate(self.nodes) if state.is_reachable]
        is_first = not able or node == able[0]
        has_others = any(number != node for number in able)
        batch: list[Parcel] = []
        passed: list[Parcel] = []
        while self._ready and len(batch) < BATCH_MAX:
            parcel = self._ready.popleft()
            if parcel.is_settled:
                continue
            is_mine = is_first if parcel.node < 0 else not has_others or parcel.node != node
            (batch if is_mine else passed).append(parcel)
        self._ready.extendleft(reversed(passed))
        return batch

    async def _submit(self, node: int, batch: list[Parcel]) -> list[Answer]:
        now_ms = self._clock.monotonic_ms()
        for parcel in batch:
            parcel.node = node
            parcel.sent_ms = now_ms
            if parcel.first_ms < 0:
                parcel.first_ms = now_ms
        self.counts.requests += 1
        return await self._network.submit(node, [parcel.tx.raw for parcel in batch])

    def _leave_alone(self, node: int, retry_ms: int) -> None:
        state = self.nodes[node]
        if retry_ms:
            self.counts.backpressure += 1
        else:
            self.counts.node_failures += 1
            state.is_reachable = False
        self._work.set()  # another one may be first now
        state.away_ms = min(max(AWAY_MS_MIN, 2 * state.away_ms), AWAY_MS_MAX)
        state.away_until_ms = self._clock.monotonic_ms() + (retry_ms or state.away_ms)

    def _give_back(self, batch: list[Parcel]) -> None:
        for parcel in batch:
            parcel.node = -1  # it was never taken: whoever is first now sends it, in its order
        self._ready.extendleft(reversed(batch))
        self._work.set()

    def _take_answer(self, parcel: Parcel, answer: Answer) -> None:
        if parcel.is_settled:
            return
        if answer.code == CODE_GAP and parcel.on_gap is not None and parcel.on_gap(parcel):
            self._fail(parcel, f"{answer.code}: {answer.reason}")
        elif answer.retry_ms > 0:
            self.counts.backpressure += 1
            self.counts.codes[answer.code] += 1
            self._retry(parcel, min(answer.retry_ms, SLOWEST_RETRY_MS))
        elif answer.outcome == "accepted":
            parcel.is_waiting = True
        elif answer.outcome == "refused":
            self._close(parcel)
            parcel.on_fate(parcel, Refused(answer.score, answer.reason))
        else:
            parcel.rejections += 1
            self.counts.codes[answer.code] += 1
            if parcel.rejections > REJECTIONS_MAX:
                self._fail(parcel, f"{answer.code}: {answer.reason}")
            else:
                # A node that is behind rejects what the others take; the last final blocks may hold it already.
                delay_ms = REJECTED_RETRY_MS * 2 ** (parcel.rejections - 1)
                self._retry(parcel, min(delay_ms, SLOWEST_RETRY_MS))

    def _retry(self, parcel: Parcel, delay_ms: int) -> None:
        parcel.is_waiting = False
        heappush(self._retries, (self._clock.monotonic_ms() + delay_ms, next(self._order), parcel))

    def _fail(self, parcel: Parcel, reason: str) -> None:
        self._close(parcel)
        parcel.on_fate(parcel, Failed(reason))

    def _close(self, parcel: Parcel) -> None:
        parcel.is_settled = True
        parcel.signer.settle(parcel.tx.nonce)
        del self._open[parcel.tx.id]
        self._closed[parcel.tx.id] = parcel

    # --- time ---------------------------------------------------------------------------------------

    async def _run_ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            now_ms = self._clock.monotonic_ms()
            found = len(self._ready)
            while self._retries and self._retries[0][0] <= now_ms:
                parcel = heappop(self._retries)[2]
                if not parcel.is_settled:
                    self._ready.append(parcel)
            self._resubmit_overdue(now_ms)
            if len(self._ready) > found or self._ready:
                self._work.set()

    def _resubmit_overdue(self, now_ms: int) -> None:
        is_still = now_ms - self._progress_ms > OVERDUE_MS
        for parcel in self._open.values():
            if not parcel.is_waiting:
                continue
            age_ms = now_ms - parcel.sent_ms
            if age_ms < OVERDUE_MS:
                continue
            if is_still or self._final_sent_ms - parcel.sent_ms > OVERDUE_MS:
                parcel.is_waiting = False
                self.counts.resubmitted += 1
                self._ready.append(parcel)
