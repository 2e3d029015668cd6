"""One simulated node: an engine, its journal on a disk that forgets, and a toy ledger.

Performs effects as a real node does: records first, one sync, then the rest in order; before each of
these steps the world may crash it.

Invariant: after a crash nothing is left but the disk: journal, mark, bodies, committed chain and its
finalization. What `engine.is_needed` says no to, never reaches the engine, as in a real node.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from consensus.bft import contract
from consensus.bft.contract import (
    Effect,
    Engine,
    Event,
    Message,
    Persist,
    Received,
    SigningAllowed,
    Timer,
    TimerFired,
)
from consensus.bft.restore import Record
from consensus.errors import Fault
from consensus.vote import FINALIZE, Certificate
from node.engine.journal import Journal
from node.engine.observation import Observation
from node.simulation.memory_disk import MemoryDisk
from node.simulation.seats import compute_place
from node.simulation.toy_ledger import ToyLedger
from node.simulation.villains.villain import get_epoch
from node.simulation.world import Crash

if TYPE_CHECKING:
    from node.simulation.engine_world import EngineWorld

JOURNAL_PATH: Final = Path("journal")
MARK_PATH: Final = Path("key.voted")
WEIGH_STEPS: Final = 16  # a flood within one view is seen after a round of messages

EARLY_MAX: Final = (
    64  # messages of the next epoch that wait for its beginning here: a view's, at 16 validators
)
SERVE_MS: Final = 100  # who lags is told the end of its epoch no more often than that

NAMES: Final = tuple(bytes((index,)) for index in range(256))  # node keys on the simulated wire
MakeEngine = Callable[[int | None], Engine]


def _is_down(_: Message) -> bool:
    return False


def _is_alive(_: Message) -> bool:
    """An engine that does not say what it needs is told everything."""
    return True


class Host(ToyLedger):
    """Node `index` of a world. `make_engine` takes observe_until_view and is called at every start."""

    def __init__(self, index: int, world: EngineWorld, make_engine: MakeEngine, rng: random.Random) -> None:
        super().__init__(index, world, rng)
        self.disk = MemoryDisk()
        self.journal_path = JOURNAL_PATH
        self.mark_path = MARK_PATH
        self.engine: Engine | None = None
        self.incarnation = 0  # timers and work of an earlier life are void
        self.is_damaged = False
        self.signs_above = -1
        self._is_honest = index in world.safety.honest
        self._has_epochs = world.config.epoch_blocks > 0
        self._observe_until: int | None = 0
        self._make_engine = make_engine
        self._journal: Journal | None = None
        # What a real node asks first: what its engine would not learn from is not checked either.
        self.is_needed: Callable[[Message], bool] = _is_down
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

    def _reset(self) -> None:
        super()._reset()
        self._timers: dict[Timer, int] = {}
        self._observation: Observation | None = None
        self._early: list[tuple[Message, int]] = []
        self._served_ms: dict[tuple[int, int], int] = {}  # (peer, epoch) -> when it was told last

    @property
    def is_up(self) -> bool:
        return self.engine is not None

    # --- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        self.incarnation += 1
        self._place = (0, 0)
        self.disk.mend()
        self._reset()
        if self.disk.read_file(MARK_PATH) is not None and self.disk.read_file(JOURNAL_PATH) is None:
            self._world.lose_journal(self)
        self._journal, records, status = Journal.open(
            JOURNAL_PATH, mark_path=MARK_PATH, epoch=self.epoch, disk=self.disk
        )
        self._world.check_journal(self, status)
        self._observe_until = self._journal.compute_observe_until(self.epoch)
        if self._observe_until is None:
            self._observation = Observation(self.epoch_set.validators, self.own_index)
        self._world.record("start", self.index)
        for record in records:
            # It may have gone down between holding this and saying so.
            if self._is_honest and isinstance(record, Certificate):
                self._world.safety.hear(self.index, record, is_body_durable=True)
        if self.finalization is not None:
            records = (*records, self.finalization)
        self._run_engine(records)

    def _run_engine(self, records: tuple[Record, ...]) -> None:
        """Begin the running epoch's engine with what the journal says of it."""
        engine = self.engine = self._make_engine(self._observe_until)
        self.is_needed = getattr(engine, "is_needed", _is_alive)
        self._step(engine.start, records)

    def _open_epoch(self) -> None:
        if self.committed[-1].height != self.height_max:
            return  # opened already: another finalization said the same
        self.epoch += 1
        self._world.note(f"epoch {self.epoch}", self.index)
        self._world.safety.open_epoch(self.index, self.epoch, self.epoch_set)
        self._forget_epoch()
        self._timers.clear()
        self._place = (0, 0)
        early, self._early = self._early, []
        self._step(self._begin_epoch, ())
        for message, sender in early:
            self.receive(message, sender)

    def _begin_epoch(self, records: tuple[Record, ...]) -> tuple[Effect, ...]:
        journal = self._journal
        assert journal is not None
        journal.enter_epoch(self.epoch)
        if self._observe_until is None:
            # It cannot have voted here: its store, which is never lost, reached this epoch only now.
            journal.allow_signing(0, self.epoch)
            self._observation, self.is_damaged = None, False
        self._observe_until = 0
        engine = self.engine = self._make_engine(0)
        self.is_needed = getattr(engine, "is_needed", _is_alive)
        return engine.start(records)

    def crash(self) -> None:
        self.incarnation += 1
        self.engine = None
        self.is_needed = _is_down
        self._world.note("crash", self.index)
        self._world.crash_disk(self)

    def handle(self, event: Event) -> None:
        """Step the engine and perform what it says."""
        if self.engine is not None:
            self._step(self.engine.step, event)

    def _step(self, act: Callable[[Any], tuple[Effect, ...]], argument: object) -> None:
        world = self._world
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
        engine = self.engine
        assert engine is not None
        place = engine.view, engine.finalized_view
        if place != self._place or self._steps % WEIGH_STEPS == 0:
            self._place = place
            world.look_at(self, engine)

    def receive(self, message: Message, sender: int) -> None:
        if self._has_epochs and self.engine is not None and (epoch := get_epoch(message)) != self.epoch:
            self._receive_elsewhen(message, epoch, sender)
        elif self.engine is not None and self.is_needed(message):
            self._step(self.engine.step, Received(message, NAMES[sender]))

    def _receive_elsewhen(self, message: Message, epoch: int, sender: int) -> None:
        """A message of another epoch than ours: keep it for the next, or tell who lags how its own ended."""
        if epoch == self.epoch + 1 and len(self._early) < EARLY_MAX:
            self._early.append((message, sender))
        ended = self.ended.get(epoch)
        is_answer = isinstance(message, Certificate) and message.subject.kind == FINALIZE
        if ended is None or is_answer or not self._is_honest:
            return
        told_ms = self._served_ms.get((sender, epoch), -SERVE_MS)
        if self._world.now_ms - told_ms >= SERVE_MS:
            self._served_ms[sender, epoch] = self._world.now_ms
            self._perform_send(contract.Send(NAMES[sender], ended))

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
        self._world.broadcast(self.index, effect.message, effect.peers_max)

    def _perform_send(self, effect: contract.Send) -> None:
        self._world.hear(self, effect.message)
        self._world.send(self.index, effect.peer[0], effect.message)

    def _perform_fetch_certificate(self, effect: contract.FetchCertificate) -> None:
        peer = self._choose_peer(self._find_node(effect.hint), effect.attempt)
        self._world.send(self.index, peer, effect.request)

    def _perform_fetch_block(self, effect: contract.FetchBlock) -> None:
        self._engine_wants.add(effect.block_hash)
        if effect.block_hash in self.bodies:
            self._answer_wants(effect.block_hash)
        else:
            self._fetch(effect.block_hash, self._find_node(effect.hint), effect.attempt)

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
            self._observe_until = observation.above_view
            self.signs_above = compute_place(self.epoch, observation.above_view)
            self._journal.allow_signing(observation.above_view, self.epoch)
            self._world.note(f"signs above {observation.above_view}", self.index)
            self._tell(0, SigningAllowed(observation.above_view))
