"""A few engines on benches under one virtual clock: scripted where the deterministic world draws lots.

Messages take 1 ms, judging and building too. `drop` decides what is lost; `withheld` names bodies that
nobody serves. `crash` and `restart` go through what was persisted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from consensus.bft import contract
from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    Effect,
    Event,
    Judgement,
    Message,
    Proposal,
    Received,
    Timer,
    TimerFired,
)
from consensus.vote import Vote, is_conflict
from node.simulation import toys
from tests.fakes.engine_bench import Bench


class Cluster:
    """`nodes[i]` is validator i's bench; all start at once."""

    def __init__(self, size: int, **settings: object) -> None:
        settings = {"delta_ms": 50, "delta_ms_max": 1000, "block_interval_ms": 0, **settings}
        self.nodes = [Bench(own, (1,) * size, **settings) for own in range(size)]
        self.now_ms = 0
        self.drop: Callable[[int, int, Message], bool] = lambda sender, receiver, message: False
        self.withheld: set[bytes] = set()
        self.payloads: dict[bytes, bytes] = {}
        self.down: set[int] = set()
        self.said: list[tuple[int, Vote]] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._timers: dict[tuple[int, Timer], int] = {}

    def start(self, which: Iterable[int] | None = None) -> None:
        for index in range(len(self.nodes)) if which is None else which:
            self._perform(index, self.nodes[index].start())

    def crash(self, *which: int) -> None:
        for index in which:
            self.down.add(index)
            for key in [key for key in self._timers if key[0] == index]:
                del self._timers[key]

    def restart(self, *which: int) -> None:
        for index in which:
            self.down.discard(index)
            self._perform(index, self.nodes[index].restart())

    def run(self, duration_ms: int) -> None:
        until_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0][0] <= until_ms:
            self.now_ms, _, act = heapq.heappop(self._queue)
            act()
        self.now_ms = until_ms

    @property
    def final_views(self) -> list[int]:
        return [node.engine.finalized_view for node in self.nodes]

    @property
    def views(self) -> list[int]:
        return [node.engine.view for node in self.nodes]

    def has_conflicting_votes(self) -> bool:
        by_place: dict[tuple[int, int], list[Vote]] = {}
        for _, vote in self.said:
            by_place.setdefault((vote.signer, vote.subject.view), []).append(vote)
        return any(is_conflict(a, b) for group in by_place.values() for a in group for b in group)

    def _later(self, delay_ms: int, act: Callable[[], None]) -> int:
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._count, act))
        return self._count

    def step(self, index: int, event: Event) -> None:
        if index not in self.down:
            self._perform(index, self.nodes[index].step(event))

    def _send(self, sender: int, receiver: int, message: Message) -> None:
        if not self.drop(sender, receiver, message):
            self._later(1, lambda: self.step(receiver, Received(message, bytes((sender,)))))

    def _perform(self, index: int, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case contract.Broadcast(message):
                    vote = message.vote if isinstance(message, Proposal) else message
                    if isinstance(vote, Vote):
                        self.said.append((index, vote))
                    for receiver in range(len(self.nodes)):
                        if receiver != index:
                            self._send(index, receiver, message)
                case contract.Send(peer, message):
                    self._send(index, peer[0], message)
                case contract.FetchCertificate(request, hint, attempt):
                    peer = (index + 1 + attempt) % len(self.nodes) if hint is None or attempt else hint
                    self._send(index, peer, request)
                case contract.FetchBlock(block_hash):
                    if block_hash in self.payloads and block_hash not in self.withheld:
                        payload = self.payloads[block_hash]
                        event = BlockFetched(toys.read_block(payload), payload)
                        self._later(2, lambda event=event: self.step(index, event))
                case contract.Judge(block):
                    self._later(1, lambda block=block: self.judge(index, block.hash))
                case contract.Build(view, parent, _, True):  # nobody has work: empty blocks only
                    payload = toys.make_payload(parent, view, index, 0)
                    block = toys.read_block(payload)
                    self.payloads[block.hash] = payload
                    built = BlockBuilt(view, block, payload)
                    self._later(1, lambda built=built: self.step(index, built))
                case contract.SetTimer(timer, view, delay_ms):
                    self._set_timer(index, timer, view, delay_ms)
                case contract.CancelTimer(timer):
                    self._timers.pop((index, timer), None)
                case _:
                    pass

    def judge(self, index: int, block_hash: bytes) -> None:
        is_here = block_hash not in self.withheld
        self.step(index, BlockJudged(block_hash, Judgement.VALID if is_here else Judgement.NOT_YET))

    def _set_timer(self, index: int, timer: Timer, view: int, delay_ms: int) -> None:
        def fire() -> None:
            if self._timers.get((index, timer)) == token:
                del self._timers[index, timer]
                self.step(index, TimerFired(timer, view))

        token = self._later(delay_ms, fire)
        self._timers[index, timer] = token
