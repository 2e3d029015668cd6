"""One simulated node: an engine, its journal on a disk that forgets, and a toy ledger of block bodies.

Performs effects as a real node does: records first, one sync, then the rest in order; before each of
these steps the world may crash it. Bodies are bytes that must be fetched and made durable before a
block is judged valid, and durable bodies are what a restarted node still has.

Invariant: after a crash nothing is left but the disk: journal, mark, bodies, committed chain and its
finalization. What `engine.is_needed` says no to, never reaches the engine, as in a real node.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from consensus.bft import contract
from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Effect,
    Event,
    Judgement,
    Message,
    Persist,
    Received,
    SigningAllowed,
    Timer,
    TimerFired,
    WorkWaiting,
)
from consensus.bft.restore import Record
from consensus.errors import Fault
from consensus.vote import Certificate
from node.journal import Journal
from node.observation import Observation
from node.simulation import toys
from node.simulation.memory_disk import MemoryDisk

if TYPE_CHECKING:
    from node.simulation.world import World

JOURNAL_PATH: Final = Path("journal")
MARK_PATH: Final = Path("key.voted")
BODY_SYNC_MS: Final = 8  # at most; how long a body takes to become durable
JUDGE_MS: Final = 12
BUILD_MS: Final = 10
WORK_MS: Final = 30  # until transactions come, when none were waiting
FETCH_RETRY_MS: Final = 60  # above a round trip at the default latency
WEIGH_STEPS: Final = 16  # a flood within one view is seen after a round of messages
FETCH_RETRIES_GROWING: Final = 8  # then the delay stays


class SimulatedEngine(Protocol):
    """An engine, or a villain in its clothes."""

    @property
    def view(self) -> int: ...

    @property
    def finalized_view(self) -> int: ...

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]: ...

    def step(self, event: Event) -> tuple[Effect, ...]: ...


_NAMES: Final = tuple(bytes((index,)) for index in range(256))  # node keys on the simulated wire
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
        self.finalization: Certificate | None = None  # durable: of the last committed block
        self.incarnation = 0  # timers and work of an earlier life are void
        self.is_damaged = False  # its journal was, and no quorum has told its view yet
        self.signs_above = -1  # the view that a quorum told it after that; -1: it was never asked
        self._committed_hashes = {toys.GENESIS.hash}
        self._is_honest = index in world.safety.honest
        self._world = world
        self._make_engine = make_engine
        self._random = rng.random
        self._journal: Journal | None = None
        self._is_needed: Callable[[Message], bool] | None = None
        self._place = (0, 0)  # view and final view when it was looked at last
        self._steps = 0
        self._performers: dict[type, Callable[[Any], None]] = {
            contract.Broadcast: self._perform_broadcast,
            contract.Send: self._perform_send,
            contract.FetchCertificate: self._perform_fetch_certificate,
            contract.FetchBlock: self._perform_fetch_block,
            contract.Build: self._build,
            contract.Judge: self._perform_judge,
            contract.SetTimer: self._set_timer,
            contract.CancelTimer: self._perform_cancel_timer,
            contract.Finalize: self._perform_finalize,
            contract.ReportEvidence: self._perform_report,
            contract.Halt: self._perform_halt,
        }
        self._reset()

    def _reset(self) -> None:
        self._valid = {toys.GENESIS.hash}
        self._judging: dict[bytes, BlockRef] = {}  # asked for, without an answer for good
        self._wanted: set[bytes] = set()  # bodies being fetched
        self._engine_wants: set[bytes] = set()  # FetchBlock without an answer
        self._timers: dict[Timer, int] = {}
        self._finals: list[Certificate] = []  # finalizations of blocks not yet committed
        self._observation: Observation | None = None

    @property
    def is_up(self) -> bool:
        return self.engine is not None

    def _draw_ms(self, ms_max: int) -> int:
        return 1 + int(self._random() * ms_max)

    # --- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        """Come up with what the disk holds."""
        self.incarnation += 1
        self._place = (0, 0)
        self.disk.mend()
        self._reset()
        if self.disk.read_file(MARK_PATH) is not None and self.disk.read_file(JOURNAL_PATH) is None:
            self._world.lose_journal(self)
        self._journal, records, status = Journal.open(JOURNAL_PATH, mark_path=MARK_PATH, disk=self.disk)
        self._world.check_journal(self, status)
        if status.observe_until_view is None:
            self._observation = Observation(self._world.validators, self.index)
        self._valid.update(self._committed_hashes)
        engine = self.engine = self._make_engine(status.observe_until_view)
        self._is_needed = getattr(engine, "is_needed", None)
        self._world.record("start", self.index)
        if self.finalization is not None:
            records = (*records, self.finalization)
        self._step(engine.start, records)

    def crash(self) -> None:
        """Lose all that is not durable."""
        self.incarnation += 1
        self.engine = None
        self._world.note("crash", self.index)
        self._world.crash_disk(self)

    def handle(self, event: Event) -> None:
        """Step the engine and perform what it says."""
        if self.engine is not None:
            self._step(self.engine.step, event)

    def _step(self, act: Callable[[Any], tuple[Effect, ...]], argument: object) -> None:
        engine, world = self.engine, self._world
        assert engine is not None
        try:
            self._perform(act(argument))
        except Crash:
            self.crash()
            world.restart_later(self)
            return
        except Fault as fault:
            # A disk that is full or fails to sync ends the process; anything else is an engine's fault.
            if fault.code != "disk":
                raise
            self.crash()
            world.restart_later(self)
            return
        # Nothing can have gone back where nothing moved; what an engine keeps may grow without.
        self._steps += 1
        place = engine.view, engine.finalized_view
        if place != self._place or self._steps % WEIGH_STEPS == 0:
            self._place = place
            world.look_at(self, engine)

    # --- effects ------------------------------------------------------------------------------------

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        if not effects:
            return
        records = [effect.record for effect in effects if type(effect) is Persist]
        maybe_crash = self._world.maybe_crash if self._is_honest else None
        if records:
            journal = self._journal
            assert journal is not None
            if maybe_crash is not None:
                maybe_crash(self)
            journal.append(records)
            if maybe_crash is not None:
                maybe_crash(self)
            journal.sync()
        performers = self._performers
        for effect in effects:
            if maybe_crash is not None:
                maybe_crash(self)
            if type(effect) is not Persist:
                performers[type(effect)](effect)

    def _perform_broadcast(self, effect: contract.Broadcast) -> None:
        self._world.hear(self, effect.message)
        self._world.broadcast(self.index, effect.message)

    def _perform_send(self, effect: contract.Send) -> None:
        self._world.hear(self, effect.message)
        self._world.send(self.index, effect.peer[0], effect.message)

    def _perform_fetch_certificate(self, effect: contract.FetchCertificate) -> None:
        peer = self._choose_peer(effect.hint, effect.attempt)
        self._world.send(self.index, peer, effect.request)

    def _perform_fetch_block(self, effect: contract.FetchBlock) -> None:
        self._engine_wants.add(effect.block_hash)
        if effect.block_hash in self.bodies:
            self._answer_wants(effect.block_hash)
        else:
            self._fetch(effect.block_hash, effect.hint, effect.attempt)

    def _perform_judge(self, effect: contract.Judge) -> None:
        self._judging[effect.block.hash] = effect.block
        self._judge(effect.block.hash)

    def _perform_cancel_timer(self, effect: contract.CancelTimer) -> None:
        self._timers.pop(effect.timer, None)

    def _perform_finalize(self, effect: contract.Finalize) -> None:
        certificate = effect.certificate
        self._world.note(f"final {certificate.subject.view}", self.index)
        self._finals.append(certificate)
        self._commit()
        self._observe(certificate)

    def _perform_report(self, effect: contract.ReportEvidence) -> None:
        first = effect.evidence.first
        self._world.record("evidence", self.index, f"validator {first.signer}, view {first.subject.view}")
        self._world.safety.accuse(effect.evidence)

    def _perform_halt(self, effect: contract.Halt) -> None:
        self._world.halted(self.index, effect.reason)

    def _set_timer(self, effect: contract.SetTimer) -> None:
        token = self._timers[effect.timer] = self._world.make_token()
        self._world.push(effect.delay_ms, self._fire, (effect.timer, effect.view, token))

    def _fire(self, timer: Timer, view: int, token: int) -> None:
        # Tokens are never used twice: those of an earlier life are not in the table.
        if self._timers.get(timer) == token and self.engine is not None:
            del self._timers[timer]
            self.handle(TimerFired(timer, view))

    def _later(self, delay_ms: int, act: Callable[..., None], *arguments: Any) -> None:
        self._world.push(delay_ms, self._act_if_alive, (self.incarnation, act, arguments))

    def _act_if_alive(self, incarnation: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.incarnation == incarnation and self.engine is not None:
            act(*arguments)

    def _observe(self, certificate: Certificate) -> None:
        """While observing only: learn from a finalization when signing is safe again."""
        observation = self._observation
        if observation is None or self._finals or self.engine is None:
            return
        observation.note(certificate, self.engine.view)
        if observation.above_view is not None:
            assert self._journal is not None
            self._observation, self.is_damaged = None, False
            self.signs_above = observation.above_view
            self._journal.allow_signing(observation.above_view)
            self._world.note(f"signs above {observation.above_view}", self.index)
            self._later(0, self.handle, SigningAllowed(observation.above_view))

    # --- the toy ledger -------------------------------------------------------------------------------

    def has_branch(self, block_hash: bytes) -> bool:
        """Whether this block and all its ancestors down to the committed chain are durable."""
        while block_hash not in self._committed_hashes:
            payload = self.bodies.get(block_hash)
            if payload is None:
                return False
            block_hash = toys.read_block(payload).parent_hash
        return True

    def _build(self, build: contract.Build) -> None:
        if not build.is_empty_allowed and self._random() < 0.5:
            self._later(self._draw_ms(WORK_MS), self.handle, WorkWaiting())
            return
        if self._random() < self._world.build_failures:
            self._later(self._draw_ms(BUILD_MS), self.handle, BlockBuilt(build.view, None, b""))
            return
        salt = int(self._random() * toys.VALID_SALTS)
        payload = toys.make_payload(build.parent, build.view, self.index, salt)
        self._later(
            self._draw_ms(BUILD_MS), self._finish_build, build.view, toys.read_block(payload), payload
        )

    def _finish_build(self, view: int, block: BlockRef, payload: bytes) -> None:
        self.bodies[block.hash] = payload  # durable before it is answered
        self._valid.add(block.hash)
        self.handle(BlockBuilt(view, block, payload))

    def _judge(self, block_hash: bytes) -> None:
        """Answer if body and ancestors are there; else fetch, and come back when something arrives."""
        block = self._judging.get(block_hash)
        if block is None:
            return
        payload = self.bodies.get(block_hash)
        if payload is None:
            self._fetch(block_hash, block.proposer, 0)
        elif block.parent_hash in self._valid or block.view <= self.committed[-1].view:
            self._later(self._world.draw_judge_ms(self.index), self._answer_judge, block, payload)
            return
        self._later(0, self.handle, BlockJudged(block_hash, Judgement.NOT_YET))

    def _answer_judge(self, block: BlockRef, payload: bytes) -> None:
        if self._judging.pop(block.hash, None) is None:
            return
        parent = self.bodies.get(block.parent_hash)
        is_valid = toys.is_valid_payload(payload) and toys.is_height_right(block, parent)
        if is_valid:
            self._valid.add(block.hash)
        self.handle(BlockJudged(block.hash, Judgement.VALID if is_valid else Judgement.INVALID))
        for child in [ref.hash for ref in self._judging.values() if ref.parent_hash == block.hash]:
            self._judge(child)

    def _commit(self) -> None:
        """Commit final blocks in order, as far as their bodies are there; fetch the rest."""
        for final in list(self._finals):
            branch: list[BlockRef] = []
            block_hash, tip = final.subject.block_hash, self.committed[-1]
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
            self._finals.remove(final)
            for block in reversed(branch):
                self._world.safety.commit(self.index, block)
                self.committed.append(block)
                self._committed_hashes.add(block.hash)
                self._valid.add(block.hash)
            if branch:
                self.finalization = final
                self._world.record("commit", self.index, f"height {self.committed[-1].height}")
                for waiting in list(self._judging):
                    self._judge(waiting)

    # --- bodies over the network --------------------------------------------------------------------

    def _choose_peer(self, hint: int | None, attempt: int) -> int:
        if hint is not None and attempt == 0 and hint != self.index:
            return hint
        nodes = len(self._world.hosts)
        if nodes == 1:
            return self.index
        chosen = int(self._random() * (nodes - 1))
        return chosen + (chosen >= self.index)

    def _fetch(self, block_hash: bytes, hint: int | None, attempt: int) -> None:
        if block_hash in self.bodies or (attempt == 0 and block_hash in self._wanted):
            return
        self._wanted.add(block_hash)
        self._world.request_body(self.index, self._choose_peer(hint, attempt), block_hash)
        if attempt == 0:
            self._later(FETCH_RETRY_MS, self._retry_fetch, block_hash, 1)

    def _retry_fetch(self, block_hash: bytes, attempt: int) -> None:
        is_needed = block_hash in self._judging or block_hash in self._engine_wants or self._finals
        if block_hash in self.bodies or not is_needed:
            self._wanted.discard(block_hash)
            return
        self._fetch(block_hash, None, attempt)
        delay_ms = FETCH_RETRY_MS * min(attempt + 1, FETCH_RETRIES_GROWING)
        self._later(delay_ms, self._retry_fetch, block_hash, attempt + 1)

    def take_body(self, payload: bytes) -> None:
        """A body arrived: make it durable, then go on with whatever waited for it."""
        self._later(self._draw_ms(BODY_SYNC_MS), self._keep_body, toys.read_block(payload), payload)

    def _keep_body(self, block: BlockRef, payload: bytes) -> None:
        if block.hash in self.bodies:
            return
        self.bodies[block.hash] = payload
        self._wanted.discard(block.hash)
        self._answer_wants(block.hash)
        self._judge(block.hash)
        self._commit()

    def _answer_wants(self, block_hash: bytes) -> None:
        if block_hash in self._engine_wants:
            self._engine_wants.discard(block_hash)
            payload = self.bodies[block_hash]
            self._later(0, self.handle, BlockFetched(toys.read_block(payload), payload))

    def receive(self, message: Message, sender: int) -> None:
        if self.engine is not None and (self._is_needed is None or self._is_needed(message)):
            self._step(self.engine.step, Received(message, _NAMES[sender]))
