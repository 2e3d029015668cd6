"""One simulated node: an engine, its journal on a disk that forgets, and a toy ledger of block bodies.

Performs effects as a real node does: records first, one sync, then the rest in order; before each of
these steps the world may crash it. Bodies are bytes that must be fetched and made durable before a
block is judged valid, and durable bodies are what a restarted node still has.

Invariant: after a crash nothing is left but the disk: journal, mark, bodies, committed chain.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, assert_never

from consensus.bft import contract
from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Effect,
    Event,
    Judgement,
    Received,
    Timer,
    TimerFired,
    WorkWaiting,
)
from consensus.bft.restore import Record
from node.journal import Journal
from node.simulation import toys
from node.simulation.memory_disk import MemoryDisk

if TYPE_CHECKING:
    from node.simulation.world import World

JOURNAL_PATH: Final = Path("journal")
MARK_PATH: Final = Path("key.voted")
BODY_SYNC_MS: Final = (1, 8)  # how long a body takes to become durable
JUDGE_MS: Final = (1, 12)
BUILD_MS: Final = (1, 10)
FETCH_RETRY_MS: Final = 120


class SimulatedEngine(Protocol):
    """An engine, or a villain in its clothes."""

    @property
    def view(self) -> int: ...

    @property
    def finalized_view(self) -> int: ...

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]: ...

    def step(self, event: Event) -> tuple[Effect, ...]: ...


MakeEngine = Callable[[int | None], SimulatedEngine]


class Crash(Exception):
    """The node goes down here."""


class Host:
    """Node `index` of a world. `make_engine` takes observe_until_view and is called at every start."""

    def __init__(self, index: int, world: World, make_engine: MakeEngine, rng: random.Random) -> None:
        self.index = index
        self.disk = MemoryDisk()
        self.engine: SimulatedEngine | None = None
        self.bodies: dict[bytes, bytes] = {}  # durable: hash -> payload
        self.committed: list[BlockRef] = [toys.GENESIS]  # durable
        self.incarnation = 0  # timers and work of an earlier life are void
        self._world = world
        self._make_engine = make_engine
        self._rng = rng
        self._journal: Journal | None = None
        self._reset()

    def _reset(self) -> None:
        self._valid = {toys.GENESIS.hash}
        self._judging: dict[bytes, BlockRef] = {}  # asked for, without an answer for good
        self._wanted: set[bytes] = set()  # bodies being fetched
        self._engine_wants: set[bytes] = set()  # FetchBlock without an answer
        self._timers: dict[Timer, int] = {}
        self._finals: list[bytes] = []  # final blocks not yet committed
        self._is_building = False

    @property
    def is_up(self) -> bool:
        return self.engine is not None

    # --- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        """Come up with what the disk holds."""
        self.incarnation += 1
        self._reset()
        self._journal, records, status = Journal.open(JOURNAL_PATH, mark_path=MARK_PATH, disk=self.disk)
        self._valid.update(block.hash for block in self.committed)
        self.engine = self._make_engine(status.observe_until_view)
        self._perform_or_crash(lambda engine: engine.start(records))

    def crash(self) -> None:
        """Lose all that is not durable."""
        self.incarnation += 1
        self.engine = None
        self.disk.crash(self._rng)
        self._world.note("crash", self.index)

    def _perform_or_crash(self, act: Callable[[SimulatedEngine], tuple[Effect, ...]]) -> None:
        engine = self.engine
        if engine is None:
            return
        try:
            self._perform(act(engine))
        except Crash:
            self.crash()
            self._world.restart_later(self)
            return
        self._world.safety.look_at(self.index, engine.view, engine.finalized_view)

    def handle(self, event: Event) -> None:
        """Step the engine and perform what it says."""
        self._perform_or_crash(lambda engine: engine.step(event))

    # --- effects ------------------------------------------------------------------------------------

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        records = [effect.record for effect in effects if isinstance(effect, contract.Persist)]
        journal = self._journal
        assert journal is not None
        if records:
            self._world.maybe_crash(self)
            journal.append(records)
            self._world.maybe_crash(self)
            journal.sync()
        for effect in effects:
            self._world.maybe_crash(self)
            self._perform_one(effect)

    def _perform_one(self, effect: Effect) -> None:
        world = self._world
        match effect:
            case contract.Persist():
                pass
            case contract.Broadcast(message):
                world.hear(self, message)
                world.broadcast(self.index, message)
            case contract.Send(peer, message):
                world.hear(self, message)
                world.send(self.index, peer[0], message)
            case contract.FetchCertificate(request, hint, attempt):
                world.send(self.index, self._choose_peer(hint, attempt), request)
            case contract.FetchBlock(block_hash, _, hint, attempt):
                self._engine_wants.add(block_hash)
                if block_hash in self.bodies:
                    self._answer_wants(block_hash)
                else:
                    self._fetch(block_hash, hint, attempt)
            case contract.Build():
                self._build(effect)
            case contract.Judge(block, _):
                self._judging[block.hash] = block
                self._judge(block.hash)
            case contract.SetTimer(timer, view, delay_ms):
                self._set_timer(timer, view, delay_ms)
            case contract.CancelTimer(timer):
                self._timers.pop(timer, None)
            case contract.Finalize(certificate):
                world.note(f"final {certificate.subject.view}", self.index)
                self._finals.append(certificate.subject.block_hash)
                self._commit()
            case contract.ReportEvidence(evidence):
                world.safety.accuse(evidence)
            case contract.Halt(reason, _):
                world.halted(self.index, reason)
            case _:
                assert_never(effect)

    def _set_timer(self, timer: Timer, view: int, delay_ms: int) -> None:
        token = self._timers[timer] = self._world.make_token()

        def fire() -> None:
            if self._timers.get(timer) == token:
                del self._timers[timer]
                self.handle(TimerFired(timer, view))

        self._later(delay_ms, fire)

    def _later(self, delay_ms: int, act: Callable[[], None]) -> None:
        incarnation = self.incarnation

        def act_if_alive() -> None:
            if self.incarnation == incarnation and self.is_up:
                act()

        self._world.schedule(delay_ms, act_if_alive)

    # --- the toy ledger -------------------------------------------------------------------------------

    def has_branch(self, block_hash: bytes) -> bool:
        """Whether this block and all its ancestors down to the committed chain are durable."""
        committed = {block.hash for block in self.committed}
        while block_hash not in committed:
            payload = self.bodies.get(block_hash)
            if payload is None:
                return False
            block_hash = toys.read_block(payload).parent_hash
        return True

    def _build(self, build: contract.Build) -> None:
        rng = self._rng
        if not build.is_empty_allowed and rng.random() < 0.5:
            self._later(rng.randint(1, 200), lambda: self.handle(WorkWaiting()))
            return
        if rng.random() < self._world.config.build_failures:
            self._later(rng.randint(*BUILD_MS), lambda: self.handle(BlockBuilt(build.view, None, b"")))
            return
        payload = toys.make_payload(build.parent, build.view, self.index, rng.randrange(toys.VALID_SALTS))
        block = toys.read_block(payload)

        def finish() -> None:
            self.bodies[block.hash] = payload  # durable before it is answered
            self._valid.add(block.hash)
            self.handle(BlockBuilt(build.view, block, payload))

        self._later(rng.randint(*BUILD_MS), finish)

    def _judge(self, block_hash: bytes) -> None:
        """Answer if body and ancestors are there; else fetch, and come back when something arrives."""
        block = self._judging.get(block_hash)
        if block is None:
            return
        payload = self.bodies.get(block_hash)
        if payload is None:
            self._fetch(block_hash, block.proposer, 0)
        elif block.parent_hash in self._valid or block.view <= self.committed[-1].view:
            is_valid = toys.is_valid_payload(payload)

            def answer() -> None:
                if self._judging.pop(block_hash, None) is None:
                    return
                if is_valid:
                    self._valid.add(block_hash)
                self.handle(BlockJudged(block_hash, Judgement.VALID if is_valid else Judgement.INVALID))
                for child in [ref.hash for ref in self._judging.values() if ref.parent_hash == block_hash]:
                    self._judge(child)

            self._later(self._rng.randint(*JUDGE_MS), answer)
            return
        self._later(0, lambda: self.handle(BlockJudged(block_hash, Judgement.NOT_YET)))

    def _commit(self) -> None:
        """Commit final blocks in order, as far as their bodies are there; fetch the rest."""
        for final_hash in list(self._finals):
            branch: list[BlockRef] = []
            block_hash, tip = final_hash, self.committed[-1]
            while block_hash != tip.hash:
                payload = self.bodies.get(block_hash)
                if payload is None:
                    self._fetch(block_hash, None, 0)
                    return
                block = toys.read_block(payload)
                if block.height <= tip.height:
                    break  # an earlier one than the tip: committed already
                branch.append(block)
                block_hash = block.parent_hash
            self._finals.remove(final_hash)
            for block in reversed(branch):
                self._world.safety.commit(self.index, block)
                self.committed.append(block)
                self._valid.add(block.hash)
            for waiting in list(self._judging):
                self._judge(waiting)

    # --- bodies over the network --------------------------------------------------------------------

    def _choose_peer(self, hint: int | None, attempt: int) -> int:
        if hint is not None and attempt == 0 and hint != self.index:
            return hint
        others = [index for index in range(len(self._world.hosts)) if index != self.index]
        return self._rng.choice(others) if others else self.index

    def _fetch(self, block_hash: bytes, hint: int | None, attempt: int) -> None:
        if block_hash in self.bodies or (attempt == 0 and block_hash in self._wanted):
            return
        self._wanted.add(block_hash)
        self._world.request_body(self.index, self._choose_peer(hint, attempt), block_hash)
        if attempt == 0:
            self._retry_fetch(block_hash, 1)

    def _retry_fetch(self, block_hash: bytes, attempt: int) -> None:
        def again() -> None:
            is_needed = block_hash in self._judging or block_hash in self._engine_wants or self._finals
            if block_hash in self.bodies or not is_needed:
                self._wanted.discard(block_hash)
                return
            self._fetch(block_hash, None, attempt)
            self._retry_fetch(block_hash, attempt + 1)

        self._later(FETCH_RETRY_MS * min(attempt, 8), again)

    def take_body(self, payload: bytes) -> None:
        """A body arrived: make it durable, then go on with whatever waited for it."""
        block = toys.read_block(payload)

        def keep() -> None:
            if block.hash in self.bodies:
                return
            self.bodies[block.hash] = payload
            self._wanted.discard(block.hash)
            self._answer_wants(block.hash)
            self._judge(block.hash)
            self._commit()

        self._later(self._rng.randint(*BODY_SYNC_MS), keep)

    def _answer_wants(self, block_hash: bytes) -> None:
        if block_hash in self._engine_wants:
            self._engine_wants.discard(block_hash)
            payload = self.bodies[block_hash]
            block = toys.read_block(payload)
            self._later(0, lambda: self.handle(BlockFetched(block, payload)))

    def receive(self, message: contract.Message, sender: int) -> None:
        self.handle(Received(message, bytes((sender,))))
