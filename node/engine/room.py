"""The engine room: the current epoch's engine and, while they may ask for it, the last one's for those who lag.

When an epoch's boundary block is final its engine has done its work: the next one is made with the set that
the state names, begins at view 1 on that block, and takes what the journal has of its epoch. The old one then
only answers; its judging, building and finalizing are over (`host.py`).

Invariant: a node signs in the epoch of its next block alone, and never again below one that it entered (the
journal keeps that); events reach the engine of the epoch that they speak of, or nobody.
Source: consensus.md, Epochs, and What must survive a crash. Leaves out: frames of the next epoch until then (`held_frames.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    CertificateRequest,
    Event,
    Message,
    Proposal,
    Received,
    SigningAllowed,
    TimerFired,
    WorkWaiting,
)
from consensus.bft.restore import Record
from consensus.errors import Fault
from consensus.ledger.rules import Rules
from consensus.vote import Certificate, Vote
from node.blocks.chain import Chain
from node.config import NodeConfig
from node.engine.host import EngineHost, MakeEngine, NodeEngine, plan_engine
from node.engine.journal import Journal
from node.engine.observation import Vigil
from node.engine.runtime import Host, Runtime
from node.engine.voting_keys import VotingKeys
from node.store.store import Store

log = logging.getLogger("assay.node")


def get_epoch(message: Message) -> int:
    """The epoch that a message of engines speaks of."""
    match message:
        case Vote(subject) | Certificate(subject):
            return subject.epoch
        case Proposal(block):
            return block.epoch
        case CertificateRequest(epoch):
            return epoch
        case _:
            assert_never(message)


@dataclass(frozen=True, slots=True)
class EngineMeans:
    """What engines are made of. make_host: of an epoch, with what is told of finalizations; watch: what it is
    wrapped in (the simulated world's); records: the journal's, of this epoch and later ones; keys: this node's, of
    which each epoch's set names one at most."""

    rules: Rules
    chain: Chain
    store: Store
    journal: Journal
    records: Sequence[Record]
    settings: NodeConfig
    keys: VotingKeys
    make_engine: MakeEngine
    make_host: Callable[[int, Callable[[Certificate], None]], EngineHost]
    watch: Callable[[EngineHost], Host]
    vigil: Vigil | None
    on_fault: Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class _Running:
    epoch: int
    own_index: int | None
    public_key: bytes  # the key of that seat; empty without one
    engine: NodeEngine
    host: EngineHost
    runtime: Runtime


class EngineRoom:
    """`start` once; then `on_final` after every commit. on_epoch: told of every epoch that begins after that;
    on_allowed: of an epoch and a view above which this node signs again."""

    def __init__(
        self, means: EngineMeans, on_epoch: Callable[[], None], on_allowed: Callable[[int, int], None]
    ) -> None:
        self._means = means
        self._on_epoch = on_epoch
        self._on_allowed = on_allowed
        self._vigil = means.vigil
        self.records = tuple(means.records)  # the journal's that no engine was given yet
        self._is_stopped = False
        self._old: _Running | None = None
        self._current = self._make()

    def _make(self) -> _Running:
        """The engine of the next block's epoch, not started yet."""
        means, epoch = self._means, self._means.chain.epoch
        validators = means.chain.find_validators(epoch)
        if validators is None:
            raise Fault(f"the set of epoch {epoch} is missing", field="state.records")
        key = means.keys.find(validators)
        own_index = None if key is None else validators.get_index(key.public_key)
        if self._vigil is not None and self._vigil.begin(epoch, validators, own_index):
            self._allow(epoch, 0)
        config = plan_engine(
            means.rules,
            epoch,
            means.chain,
            means.store,
            validators,
            means.settings,
            own_index,
            means.journal.compute_observe_until(epoch),
        )
        sign = None if key is None else key.sign
        host = means.make_host(epoch, self._observe)
        watched = means.watch(host)
        engine = means.make_engine(config, sign)
        runtime = Runtime(engine, means.journal, watched, means.on_fault)
        return _Running(epoch, own_index, b"" if key is None else key.public_key, engine, host, runtime)

    # --- what others read ---------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._current.epoch

    @property
    def own_index(self) -> int | None:
        """This node's seat in the current epoch, or None."""
        return self._current.own_index

    @property
    def public_key(self) -> bytes:
        """The key of that seat; empty without one."""
        return self._current.public_key

    @property
    def engine(self) -> NodeEngine:
        return self._current.engine

    @property
    def host(self) -> EngineHost:
        return self._current.host

    @property
    def runtime(self) -> Runtime:
        return self._current.runtime

    def find_engine(self, epoch: int) -> NodeEngine | None:
        """The engine that takes messages of this epoch."""
        running = self._find(epoch)
        return None if running is None else running.engine

    def _find(self, epoch: int) -> _Running | None:
        for running in (self._current, self._old):
            if running is not None and running.epoch == epoch:
                return running
        return None

    def list_records(self) -> list[Record]:
        """What a peer that has just come should know, oldest first."""
        old = () if self._old is None else self._old.engine.list_records()
        # Of an epoch that is over, certificates say all; a vote would be heard after the end.
        certificates = [record for record in old if isinstance(record, Certificate)]
        return [*certificates, *self._current.engine.list_records()]

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Restore the current engine from the journal and begin."""
        means, epoch = self._means, self._current.epoch
        means.journal.enter_epoch(epoch)
        own = [record for record in self.records if _get_record_epoch(record) == epoch]
        self.records = tuple(record for record in self.records if _get_record_epoch(record) > epoch)
        final = means.store.get_certificate(means.store.finalized_height)
        self._current.runtime.start(own if final is None else [*own, final[0]])

    def stop(self) -> None:
        """Not a word more, of any engine."""
        self._is_stopped = True
        self._current.runtime.stop()
        if self._old is not None:
            self._old.runtime.stop()

    def post(self, event: Event) -> None:
        """Hand an event to the engine that it is for."""
        match event:
            case Received(message):
                running = self._find(get_epoch(message))
            case BlockFetched(block):
                running = self._find(block.epoch)
            case BlockBuilt(_, block):
                running = self._current if block is None else self._find(block.epoch)
            case BlockJudged():
                if self._old is not None:
                    self._old.runtime.post(event)  # whose block it is not, overhears it
                running = self._current
            case WorkWaiting() | SigningAllowed() | TimerFired():
                running = self._current
            case _:
                assert_never(event)
        if running is not None:
            running.runtime.post(event)

    async def wait_for_room(self) -> None:
        """As Runtime has it, of every engine that runs."""
        for running in (self._current, self._old):
            if running is not None:
                await running.runtime.wait_for_room()

    def on_final(self) -> None:
        """Blocks became final: go on to the next epoch if they ended this one."""
        if self._means.chain.epoch == self._current.epoch or self._is_stopped:
            return
        if self._old is not None:
            self._old.runtime.stop()
        old = self._old = self._current
        old.host.is_over = True
        self._tell_end(old)
        # Before the next engine is made: it must not be asked what may be signed by what binds no more.
        self._means.journal.enter_epoch(self._means.chain.epoch)
        self._current = self._make()
        log.info("epoch begins", extra={"epoch": self._current.epoch, "validator": self._current.own_index})
        if old.public_key and self._current.public_key and old.public_key != self._current.public_key:
            told = {"old": old.public_key.hex(), "new": self._current.public_key.hex()}
            log.warning("votes with another key from now on, and never with the old one again", extra=told)
        self.start()
        self._on_epoch()

    def _tell_end(self, old: _Running) -> None:
        """The engine may not know yet how its epoch ended: by catching up, or by a block it never asked for."""
        chain, store = self._means.chain, self._means.store
        found = store.get_certificate(chain.finalized.height)
        links = store.get_links(chain.finalized.height)
        certified = links[-1] if links else chain.finalized
        # What waits there before these may make it sign once more: its host, which is over, lets nobody hear it.
        if found is not None:
            old.runtime.post(Received(found[0], b""))
        old.runtime.post(BlockFetched(chain.read_block(certified.raw), certified.raw))

    def on_catching_up(self) -> None:
        """A batch of final blocks is about to be committed: this node was behind."""
        if self._vigil is not None:
            self._vigil.forget()

    # --- observing only -----------------------------------------------------------------------------

    def _observe(self, certificate: Certificate) -> None:
        """A finalization, before it is acted on: while observing only, learn when signing is safe again."""
        if self._vigil is None:
            return
        above_view = self._vigil.note(certificate, self._current.engine.view)
        if above_view is not None:
            self._allow(self._current.epoch, above_view)
            self.post(SigningAllowed(above_view))

    def _allow(self, epoch: int, above_view: int) -> None:
        self._vigil = None
        self._means.journal.allow_signing(above_view, epoch)
        log.warning("signing again", extra={"epoch": epoch, "above_view": above_view})
        self._on_allowed(epoch, above_view)


def _get_record_epoch(record: Record) -> int:
    return record.block.epoch if isinstance(record, Proposal) else record.subject.epoch
