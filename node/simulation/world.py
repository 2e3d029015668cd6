"""The deterministic world: one seed drives the clock, the links, the disks, the crashes and the villains.

First a phase with faults, in which safety must hold; then the world heals and finality must come back
within the bound of `checkers.LivenessChecker`. The same configuration and seed give the same trace,
event by event; its hash is part of the outcome.

Invariant: nothing here reads a clock or another source of chance than `random.Random(seed)`; whoever
tries while a run is on, fails it (`guard.py`).
Source: FoundationDB's simulation, TigerBeetle's VOPR. Leaves out: whole nodes (engines alone, so far).
"""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
from collections import Counter
from collections.abc import Callable
from math import log
from typing import Any, Final

from consensus.bft.contract import Message, Proposal
from consensus.bft.messages import check_message, encode_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import NOTARIZE, Vote
from node.journal import JournalStatus
from node.simulation import toys
from node.simulation.checkers import LivenessChecker, SafetyChecker, Violation
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.guard import forbid_outside
from node.simulation.host import JOURNAL_PATH, JUDGE_MS, Crash, Host, SimulatedEngine
from node.simulation.links import Links, Pairs
from node.simulation.timeline import Timeline
from node.simulation.villains import Means, Villain, make_villain, parse_villain

__all__ = ["MakeSimulated", "Outcome", "SimulationConfig", "World", "simulate"]

EVENTS_MAX: Final = 2_000_000  # a run that does not end is a violation, not a hanging test
LOOK_MS: Final = 20  # how often liveness is looked at after healing
RESTART_MS: Final = 500  # at most, from a crash until the node is back
START_MS: Final = 50  # at most, between the first and the last node's first start

MakeSimulated = Callable[[EngineConfig, Callable[[bytes], bytes]], SimulatedEngine]
Action = Callable[..., None]


class World:
    """One run. `make_engine` is how a test or a student puts another engine in; a `timeline` remembers
    what happened, at a cost, and changes nothing.
    """

    def __init__(
        self,
        config: SimulationConfig,
        seed: int,
        make_engine: MakeSimulated = SimplexEngine,
        timeline: Timeline | None = None,
    ) -> None:
        self.config = config
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.crashes = 0
        self.boundaries = 0  # between effects, passed so far
        self.events = 0
        self.timeline = timeline
        self.build_failures = 0.0
        self.flip_share = 0.0
        self._crash_share = 0.0
        self._crash_at: set[int] = set()
        self._queue: list[tuple[int, int, Action, tuple[Any, ...]]] = []
        self._tokens = 0
        self._trace = hashlib.sha256()
        self._deliveries: list[int] = []  # packed, not hashed yet
        self._is_faulty = True
        # By identity: the message, a number that its content alone decides, and whether it is sound.
        self._checked: dict[int, tuple[Message, int, bool]] = {}
        self._sound: dict[bytes, tuple[int, bool]] = {}  # by content
        self.validators = toys.make_validators(config.all_stakes)
        self.refused: Counter[int] = Counter()  # by sender: what no node took, by its form or signature
        self.villains = self._place_villains()
        honest = frozenset(range(config.nodes)) - set(self.villains)
        self.safety = SafetyChecker(self.validators, honest)
        self.links = Links(self.rng)
        self.hosts = [
            Host(index, self, self._make(index, make_engine), self.rng) for index in range(config.nodes)
        ]

    def _place_villains(self) -> dict[int, str]:
        """Who is a villain, and which."""
        parsed = [parse_villain(villain) for villain in self.config.all_villains]
        placed = {index: name for name, index in parsed if index is not None}
        free = [index for index in range(self.config.nodes) if index not in placed]
        names = [name for name, index in parsed if index is None]
        return placed | dict(zip(self.rng.sample(free, len(names)), names, strict=True))

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
            return self.make_villain(
                Means(
                    index,
                    self.validators,
                    lambda: self.make_disguised(engine_config, sign),
                    sign,
                    self.hosts[index].bodies,
                    self.rng,
                )
            )

        return make

    # What a scenario decides otherwise (scenarios/stage.py).

    def make_villain(self, means: Means) -> Villain:
        return make_villain(self.villains[means.index], means)

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        """The honest engine inside a villain."""
        return SimplexEngine(config, sign)

    def draw_judge_ms(self, node: int) -> int:  # noqa: ARG002 - a scenario makes one node slow
        return 1 + int(self.rng.random() * JUDGE_MS)

    # --- time ---------------------------------------------------------------------------------------

    def push(self, delay_ms: int, act: Action, arguments: tuple[Any, ...]) -> None:
        """`act(*arguments)` after delay_ms; what was pushed first goes first within one ms."""
        self._tokens = token = self._tokens + 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, token, act, arguments))

    def schedule(self, delay_ms: int, act: Callable[[], None]) -> None:
        self.push(delay_ms, act, ())

    def schedule_fault(self, delay_ms: int, act: Callable[[], None]) -> None:
        """As `schedule`, unless the world has healed by then."""
        self.push(delay_ms, self._strike, (act,))

    def every(self, period_ms: int, act: Callable[[], None]) -> None:
        """Now and again each period_ms, until the world heals."""

        def strike() -> None:
            act()
            self.schedule_fault(period_ms, strike)

        strike()

    def _strike(self, act: Callable[[], None]) -> None:
        if self._is_faulty:
            act()

    def make_token(self) -> int:
        self._tokens += 1
        return self._tokens

    # --- the trace ----------------------------------------------------------------------------------

    def note(self, what: str, node: int) -> None:
        """A line of the trace, in words."""
        self._flush()
        self._trace.update(f"{self.now_ms} {node} {what}\n".encode())
        self.record("note", node, what)

    def record(self, kind: str, node: int, text: str = "") -> None:
        """For the timeline alone."""
        if self.timeline is not None:
            self.timeline.add(self.now_ms, node, kind, text)

    def _flush(self) -> None:
        self._trace.update(struct.pack(f"<{len(self._deliveries)}Q", *self._deliveries))
        self._deliveries.clear()

    # --- crashes and disks --------------------------------------------------------------------------

    def set_crash_share(self, share: float) -> None:
        self._crash_share = share
        self._draw_crash()

    def set_crash_at(self, boundary: int) -> None:
        self._crash_at.add(boundary + 1)

    def _draw_crash(self) -> None:
        # One draw for all boundaries up to the next crash, instead of one for each.
        draws = log(1.0 - self.rng.random()) / log(1.0 - self._crash_share)
        self._crash_at.add(self.boundaries + 1 + int(draws))

    def maybe_crash(self, host: Host) -> None:  # noqa: ARG002 - a scenario asks whose it is
        """Called at every boundary between effects of an honest node."""
        self.boundaries += 1
        if self.boundaries in self._crash_at and self._is_faulty:
            if self._crash_share:
                self._draw_crash()
            raise Crash

    def crash_disk(self, host: Host) -> None:
        """What a crash does to a disk."""
        host.disk.crash(self.rng)
        is_hit = self.flip_share > 0 and self.rng.random() < self.flip_share and self._may_damage(host)
        if is_hit and host.disk.flip_bit(JOURNAL_PATH, self.rng):
            self.note("a bit of its journal flips", host.index)
            self.lose_journal(host)

    def lose_journal(self, host: Host) -> None:
        """It is damaged or gone: the node may stand lower than before, and must only observe."""
        host.is_damaged = True
        self.safety.places.pop(host.index, None)

    def _may_damage(self, host: Host) -> bool:
        stakes = self.config.all_stakes
        # Who may sign above a view that it has not passed is as good as gone: seed 2000856 in test_world.py.
        damaged = {host.index} | {
            other.index
            for other in self.hosts
            if other.is_damaged or self.safety.places.get(other.index, (0, 0))[0] <= other.signs_above
        }
        stake = sum(stakes[index] for index in damaged & self.safety.honest)
        return host.index in self.safety.honest and 3 * (stake + self.config.weigh_faulty()) < sum(stakes)

    def check_journal(self, host: Host, status: JournalStatus) -> None:
        """A damaged journal must be noticed, and no other called so."""
        if host.index in self.safety.honest and (status.observe_until_view is None) != host.is_damaged:
            told = status.problem or "nothing"
            raise Violation(f"journal: node {host.index}, damaged: {host.is_damaged}, tells of {told}")
        if status.problem:
            self.note(f"observes only: {status.problem}", host.index)

    def restart_later(self, host: Host) -> None:
        self.crashes += 1
        self.push(1 + int(self.rng.random() * RESTART_MS), self._bring_up, (host,))

    def _bring_up(self, host: Host) -> None:
        if not host.is_up:
            host.start()

    # --- the network --------------------------------------------------------------------------------

    def hear(self, host: Host, message: Message) -> None:
        if host.index not in self.safety.honest:
            return
        vote = message.vote if isinstance(message, Proposal) else message
        is_durable, block = True, None
        if isinstance(vote, Vote) and vote.subject.kind == NOTARIZE:
            is_durable = host.has_branch(vote.subject.block_hash)
            payload = host.bodies.get(vote.subject.block_hash)
            block = None if payload is None else toys.read_block(payload)
        self.safety.hear(host.index, message, is_body_durable=is_durable, block=block)

    def broadcast(self, sender: int, message: Message) -> None:
        for receiver in range(len(self.hosts)):
            if receiver != sender:
                self.send(sender, receiver, message)

    def send(self, sender: int, receiver: int, message: Message) -> None:
        delays_ms = self.links.draw_delays_ms(sender, receiver)
        for delay_ms in delays_ms:
            self._tokens = token = self._tokens + 1
            arrival = (self.now_ms + delay_ms, token, self._deliver, (sender, receiver, message))
            heapq.heappush(self._queue, arrival)
        if self.timeline is not None:
            self.timeline.add_message(self.now_ms, sender, receiver, message, delays_ms)

    def _deliver(self, sender: int, receiver: int, message: Message) -> None:
        _, number, is_sound = self._checked.get(id(message)) or self._check(sender, message)
        self._deliveries.append(self.now_ms << 32 | sender << 26 | receiver << 20 | number)
        if is_sound:
            self.hosts[receiver].receive(message, sender)
        else:
            self.refused[sender] += 1

    def _check(self, sender: int, message: Message) -> tuple[Message, int, bool]:
        """Once for all receivers, and for all copies: messages are frozen."""
        content = encode_message(message)
        known = self._sound.get(content)
        if known is None:
            is_sound = True
            try:
                check_message(message, self.validators, toys.CHAIN_ID, toys.verify)
            except Rejected as error:
                is_sound = False
                if sender in self.safety.honest:
                    raise Violation(
                        f"form: honest node {sender} sends what no node takes ({error})"
                    ) from error
            known = self._sound[content] = (len(self._sound) & 0xFFFFF, is_sound)
            self._flush()
            self._trace.update(content)
        checked = self._checked[id(message)] = (message, *known)
        return checked

    def request_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        for delay_ms in self.links.draw_delays_ms(asker, peer):
            self.push(delay_ms, self._answer_body, (asker, peer, block_hash))

    def _answer_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        host = self.hosts[peer]
        if isinstance(host.engine, Villain):
            payload = host.engine.answer_body(block_hash)
        else:
            payload = host.bodies.get(block_hash) if host.is_up else None
        if payload is None:
            return
        for delay_ms in self.links.draw_delays_ms(peer, asker):
            self.push(delay_ms, self._deliver_body, (asker, peer, block_hash, payload))

    def _deliver_body(self, asker: int, peer: int, block_hash: bytes, payload: bytes) -> None:
        if toys.hash_block(payload) != block_hash:
            self.refused[peer] += 1  # not what was asked for
        elif self.hosts[asker].is_up:
            self.hosts[asker].take_body(payload)

    def cut(self, name: str, links: Pairs) -> None:
        """A fault cuts these links, in place of those that it cut under this name before."""
        if self.links.cut(name, links):
            told = " ".join(f"{a}>{b}" for a, b in sorted(self.links.cut_now))
            self.note(f"cut {told}" if told else "cut none", -1)

    # --- what honest nodes say of themselves --------------------------------------------------------

    def look_at(self, host: Host, engine: SimulatedEngine) -> None:
        """After every step."""
        view = engine.view
        self.safety.look_at(host.index, view, engine.finalized_view)
        self.safety.weigh(host.index, engine)
        if self.timeline is not None:
            self.timeline.add_view(self.now_ms, host.index, view, getattr(engine, "leader", -1))

    def halted(self, node: int, reason: str) -> None:
        self.record("halt", node, reason)
        if node in self.safety.honest:
            raise Violation(f"halt: honest node {node} stopped signing ({reason})")

    # --- the run ------------------------------------------------------------------------------------

    def run(self) -> str:
        """Returns what went wrong, or ""."""
        if self.timeline is not None:
            self.timeline.villains = self.villains
        try:
            with forbid_outside():
                for host in self.hosts:
                    self.push(int(self.rng.random() * (START_MS + 1)), host.start, ())
                for fault in self.config.list_faults():
                    fault.begin(self)
                self._run_for(self.config.faulty_ms)
                self._heal()
                self.safety.check_final_votes()
        except Violation as violation:
            self.record("violation", -1, str(violation))
            return str(violation)
        return ""

    def _run_for(self, duration_ms: int) -> None:
        until_ms = self.now_ms + duration_ms
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_ms:
            self.now_ms, _, act, arguments = pop(queue)
            self.events += 1
            act(*arguments)
            if self.events > EVENTS_MAX:
                raise Violation(f"runaway: {EVENTS_MAX} events in {self.now_ms} simulated ms")
        self.now_ms = until_ms

    def _heal(self) -> None:
        self._is_faulty = False
        self.links.heal()
        self.build_failures = self.flip_share = 0.0
        for host in self.hosts:
            host.disk.mend()
        # Exactly a quorum must do: the absent ones stay down for good.
        honest = sorted(self.safety.honest)
        absent = set(self.rng.sample(honest, self.config.absent))
        self.note("heal", -1)
        for host in self.hosts:
            if host.index in absent:
                host.crash()
            elif not host.is_up:
                host.start()
        online = [index for index in honest if index not in absent]
        healed_view = max((view for view, _ in self.safety.places.values()), default=0)
        liveness = LivenessChecker(self.now_ms, healed_view)
        while True:
            self._run_for(LOOK_MS)
            places = {index: self.safety.places.get(index, (0, 0)) for index in online}
            if liveness.check(self.now_ms, places):
                return

    def summarize(self, seed: int, violation: str) -> Outcome:
        self._flush()
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


def simulate(
    config: SimulationConfig,
    seed: int,
    make_engine: MakeSimulated = SimplexEngine,
    timeline: Timeline | None = None,
) -> Outcome:
    """One run, wholly determined by its arguments. A violation is told in the outcome, not raised."""
    world = World(config, seed, make_engine, timeline)
    return world.summarize(seed, world.run())
