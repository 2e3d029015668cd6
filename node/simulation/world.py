"""The deterministic world: one seed drives the clock, the links, the disks, the crashes and the villains.

First a phase with faults, in which safety must hold; then the world heals and finality must come back
within the bound of `checkers.LivenessChecker`. The same configuration and seed give the same trace,
event by event; its hash is part of the outcome.

Invariant: nothing here reads a clock or another source of chance than `random.Random(seed)`.
Source: FoundationDB's simulation, TigerBeetle's VOPR. Leaves out: whole nodes (engines alone, so far).
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from consensus.bft.contract import Message, Proposal
from consensus.bft.messages import check_message, encode_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import NOTARIZE, Vote
from node.simulation import toys
from node.simulation.checkers import LivenessChecker, SafetyChecker, Violation
from node.simulation.host import Crash, Host, SimulatedEngine
from node.simulation.links import LinkFaults, Links
from node.simulation.villains import Equivocator

NODES_MAX: Final = 64
EVENTS_MAX: Final = 2_000_000  # a run that does not end is a violation, not a hanging test
LOOK_MS: Final = 50  # how often liveness is looked at after healing

MakeSimulated = Callable[[EngineConfig, Callable[[bytes], bytes]], SimulatedEngine]


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """What may go wrong. Rates: loss and duplication per message, crashes per effect.

    equivocators: how many villains; stakes: one per node, all 1 when empty. faulty_ms: length of the
    phase with faults, in simulated ms. absent: nodes that stay down after healing. crash_at: crash whoever
    stands at the boundary of this number, counted over all nodes from 0.
    """

    nodes: int = 4
    stakes: tuple[int, ...] = ()
    loss: float = 0.05
    duplication: float = 0.02
    slow_share: float = 0.01
    latency_ms_max: int = 30
    crashes: float = 0.0005
    crash_at: int = -1
    blackouts: float = 0.0  # per second: all nodes crash at once
    partitions: float = 0.3  # per second: a new random cut
    equivocators: int = 0
    absent: int = 0
    build_failures: float = 0.01
    faulty_ms: int = 8_000
    delta_ms: int = 100
    delta_ms_max: int = 2_000
    block_interval_ms: int = 0
    standstill_ms: int = 1_000
    standstill_ms_max: int = 4_000

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise Rejected(f"{self.nodes} is out of range", field="--nodes", mend=f"use 1 to {NODES_MAX}")
        if self.stakes and len(self.stakes) != self.nodes:
            raise Rejected(f"{len(self.stakes)} stakes for {self.nodes} nodes", field="--stakes")
        for name in ("loss", "duplication", "slow_share", "crashes", "build_failures"):
            if not 0 <= getattr(self, name) < 1:
                raise Rejected("must be at least 0 and below 1", field=f"--{name}")
        faulty = sum(sorted(self.all_stakes, reverse=True)[: self.equivocators + self.absent])
        if self.equivocators < 0 or self.absent < 0 or 3 * faulty >= sum(self.all_stakes):
            raise Rejected(
                "the faulty could hold a third of the stake: nothing is promised then",
                field="--equivocators",
                mend=f"use at most {(self.nodes - 1) // 3} of {self.nodes}",
            )

    @property
    def all_stakes(self) -> tuple[int, ...]:
        return self.stakes or (1,) * self.nodes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. views: the highest view entered; finalized: height of the longest chain."""

    seed: int
    violation: str
    trace_hash: str
    views: int
    finalized: int
    simulated_ms: int
    events: int
    crashes: int
    evidence: int


class World:
    """One run. `make_engine` is how a test or a student puts another engine in."""

    def __init__(
        self, config: SimulationConfig, seed: int, make_engine: MakeSimulated = SimplexEngine
    ) -> None:
        self.config = config
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.crashes = 0
        self.boundaries = 0  # between effects, passed so far
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._tokens = 0
        self._trace = hashlib.sha256()
        self._is_faulty = True
        self._checked: dict[int, tuple[Message, int]] = {}  # by identity: the message, its hash_message
        self.validators = toys.make_validators(config.all_stakes)
        villains = set(self.rng.sample(range(config.nodes), config.equivocators))
        honest = frozenset(range(config.nodes)) - villains
        self.safety = SafetyChecker(self.validators, honest)
        faults = LinkFaults(
            config.loss, config.duplication, 1, max(1, config.latency_ms_max), config.slow_share
        )
        self.links = Links(faults, self.rng)
        self.hosts = [
            Host(index, self, self._make(index, make_engine), self.rng) for index in range(config.nodes)
        ]

    def _make(self, index: int, make_engine: MakeSimulated) -> Callable[[int | None], SimulatedEngine]:
        config, key = self.config, self.validators.validators[index].public_key

        def sign(digest: bytes) -> bytes:
            return toys.sign(key, digest)

        def make(observe_until_view: int | None) -> SimulatedEngine:
            engine_config = EngineConfig(
                chain_id=toys.CHAIN_ID,
                epoch=toys.EPOCH,
                validators=self.validators,
                own_index=index,
                genesis=toys.GENESIS,
                delta_ms=config.delta_ms,
                delta_ms_max=config.delta_ms_max,
                block_interval_ms=config.block_interval_ms,
                standstill_ms=config.standstill_ms,
                standstill_ms_max=config.standstill_ms_max,
                observe_until_view=observe_until_view,
            )
            if index in self.safety.honest:
                return make_engine(engine_config, sign)
            others = [other for other in range(config.nodes) if other != index]
            villain = SimplexEngine(engine_config, sign)
            return Equivocator(villain, index, others, sign, self.hosts[index].bodies, self.rng)

        return make

    # --- what hosts use ---------------------------------------------------------------------------

    def schedule(self, delay_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self.make_token(), act))

    def make_token(self) -> int:
        self._tokens += 1
        return self._tokens

    def note(self, what: str, node: int) -> None:
        """A line of the trace."""
        self._trace.update(f"{self.now_ms} {node} {what}\n".encode())

    def maybe_crash(self, host: Host) -> None:
        """Called at every boundary between effects."""
        if not self._is_faulty or host.index not in self.safety.honest:
            return
        self.boundaries += 1
        if self.boundaries - 1 == self.config.crash_at:
            raise Crash
        if self.config.crashes and self.rng.random() < self.config.crashes:
            raise Crash

    def restart_later(self, host: Host) -> None:
        self.crashes += 1
        self.schedule(self.rng.randint(1, 1_500), lambda: None if host.is_up else host.start())

    def hear(self, host: Host, message: Message) -> None:
        if host.index not in self.safety.honest:
            return
        vote = message.vote if isinstance(message, Proposal) else message
        is_durable = True
        if isinstance(vote, Vote) and vote.subject.kind == NOTARIZE:
            is_durable = host.has_branch(vote.subject.block_hash)
        self.safety.hear(host.index, message, is_body_durable=is_durable)

    def broadcast(self, sender: int, message: Message) -> None:
        for receiver in range(len(self.hosts)):
            if receiver != sender:
                self.send(sender, receiver, message)

    def send(self, sender: int, receiver: int, message: Message) -> None:
        for delay_ms in self.links.draw_delays_ms(sender, receiver):
            self.schedule(delay_ms, lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: int, receiver: int, message: Message) -> None:
        checked = self._checked.get(id(message))
        if checked is None:
            # Once for all receivers: messages are frozen, and this world forges nothing yet.
            try:
                check_message(message, self.validators, toys.CHAIN_ID, toys.verify)
            except Rejected as error:
                if sender in self.safety.honest:
                    raise Violation(
                        f"form: honest node {sender} sends what no node takes ({error})"
                    ) from error
                return
            checked = self._checked[id(message)] = (message, hash_message(message))
        self._trace.update(b"%d %d>%d %d\n" % (self.now_ms, sender, receiver, checked[1]))
        self.hosts[receiver].receive(message, sender)

    def request_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        for delay_ms in self.links.draw_delays_ms(asker, peer):
            self.schedule(delay_ms, lambda: self._answer_body(asker, peer, block_hash))

    def _answer_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        host = self.hosts[peer]
        payload = host.bodies.get(block_hash) if host.is_up else None
        if payload is None:
            return
        for delay_ms in self.links.draw_delays_ms(peer, asker):
            self.schedule(delay_ms, lambda: self._deliver_body(asker, payload))

    def _deliver_body(self, asker: int, payload: bytes) -> None:
        if self.hosts[asker].is_up:
            self.hosts[asker].take_body(payload)

    def halted(self, node: int, reason: str) -> None:
        if node in self.safety.honest:
            raise Violation(f"halt: honest node {node} stopped signing ({reason})")

    # --- the run ------------------------------------------------------------------------------------

    def run(self) -> str:
        """Returns what went wrong, or ""."""
        config = self.config
        try:
            for host in self.hosts:
                self.schedule(self.rng.randint(0, 50), host.start)
            self._disturb()
            self._run_for(config.faulty_ms)
            self._heal()
            self.safety.check_final_votes()
        except Violation as violation:
            return str(violation)
        return ""

    def _run_for(self, duration_ms: int) -> None:
        until_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0][0] <= until_ms:
            self.now_ms, _, act = heapq.heappop(self._queue)
            self.events += 1
            if self.events > EVENTS_MAX:
                raise Violation(f"runaway: {EVENTS_MAX} events in {self.now_ms} simulated ms")
            act()
        self.now_ms = until_ms

    def _disturb(self) -> None:
        """Once a second: perhaps a new cut, perhaps everything crashes at once."""
        if not self._is_faulty:
            return
        config, rng = self.config, self.rng
        draw = rng.random()
        if draw < config.partitions:
            side = {index for index in range(config.nodes) if rng.random() < 0.5}
            is_one_way = rng.random() < 0.3
            pairs = [(a, b) for a in range(config.nodes) for b in range(config.nodes)]
            self.links.cut(
                (a, b)
                for a, b in pairs
                if (a in side) > (b in side) or (not is_one_way and (a in side) != (b in side))
            )
            self.note(f"cut {sorted(side)} {is_one_way}", -1)
        else:
            self.links.cut(())
        if rng.random() < config.blackouts:
            for host in self.hosts:
                if host.is_up and host.index in self.safety.honest:
                    host.crash()
                    self.restart_later(host)
        self.schedule(1_000, self._disturb)

    def _heal(self) -> None:
        self._is_faulty = False
        self.links.heal()
        # Exactly a quorum must do: the absent ones stay down for good.
        honest = sorted(self.safety.honest)
        absent = set(self.rng.sample(honest, self.config.absent))
        for host in self.hosts:
            if host.index in absent:
                host.crash()
            elif not host.is_up:
                host.start()
        self.note("heal", -1)
        online = [index for index in honest if index not in absent]
        healed_view = max((view for view, _ in self.safety.places.values()), default=0)
        liveness = LivenessChecker(self.now_ms, healed_view)
        while True:
            self._run_for(LOOK_MS)
            places = {index: self.safety.places.get(index, (0, 0)) for index in online}
            if liveness.check(self.now_ms, places):
                return

    def summarize(self, seed: int, violation: str) -> Outcome:
        return Outcome(
            seed=seed,
            violation=violation,
            trace_hash=self._trace.hexdigest(),
            views=max((view for view, _ in self.safety.places.values()), default=0),
            finalized=len(self.safety.chain) - 1,
            simulated_ms=self.now_ms,
            events=self.events,
            crashes=self.crashes,
            evidence=self.safety.evidence,
        )


def hash_message(message: Message) -> int:
    """A number for the trace that depends on the message's content alone."""
    return int.from_bytes(hashlib.sha256(encode_message(message)).digest()[:6], "big")


def simulate(config: SimulationConfig, seed: int, make_engine: MakeSimulated = SimplexEngine) -> Outcome:
    """One run, wholly determined by its arguments. A violation is told in the outcome, not raised."""
    world = World(config, seed, make_engine)
    return world.summarize(seed, world.run())
