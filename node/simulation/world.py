"""The deterministic world: one seed drives the clock, the links, the disks, the crashes and the villains.

First a phase with faults, in which safety must hold; then the world heals and finality must come back
within the bound of `checkers.LivenessChecker`. The same configuration and seed give the same trace,
event by event; its hash is part of the outcome. What lives in the world is a subclass's affair: engines
alone (`engine_world.py`) or whole nodes (`full_nodes/`); faults work on both.

Invariant: nothing here reads a clock or another source of chance than `random.Random(seed)`; whoever
tries while a run is on, fails it (`guard.py`).
Source: FoundationDB's simulation, TigerBeetle's VOPR. Leaves out: what a message is and how it arrives.
"""

from __future__ import annotations

import heapq
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any, Final, Protocol

from consensus.bft.contract import BlockRef, Engine
from consensus.vote import ValidatorSet, Verifier
from node.engine.journal import JournalStatus
from node.simulation.checkers import LivenessChecker, SafetyChecker, Violation
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.guard import forbid_outside
from node.simulation.links import Links, Pairs
from node.simulation.memory_disk import MemoryDisk
from node.simulation.timeline import Timeline
from node.simulation.trace_hash import TraceHash

EVENTS_MAX: Final = 2_000_000  # a run that does not end is a violation, not a hanging test
LOOK_MS: Final = 20  # how often liveness is looked at after healing
RESTART_MS: Final = 500  # at most, from a crash until the node is back
START_MS: Final = 50  # at most, between the first and the last node's first start

Action = Callable[..., None]


class Crash(BaseException):
    """The node goes down here. Not an Exception: what a node survives, it must not swallow."""


class SimulatedHost(Protocol):
    """A node as the world and its faults see it."""

    index: int
    disk: MemoryDisk
    is_damaged: bool  # its journal was, and no quorum has told its view yet
    signs_above: int  # the view that a quorum told it after that; -1: it was never asked

    @property
    def journal_path(self) -> Path:
        """On its disk."""
        ...

    @property
    def mark_path(self) -> Path:
        """On its disk: the file beside the key that says "this key has voted"."""
        ...

    @property
    def is_up(self) -> bool: ...

    def start(self) -> None:
        """Come up with what the disk holds."""
        ...

    def crash(self) -> None:
        """Lose all that is not durable."""
        ...


class World(ABC):
    """One run. A `timeline` remembers what happened, at a cost, and changes nothing.

    genesis: where every engine begins; chain_id and verify: how the checkers check signatures.
    A subclass sets up what `_make_hosts` needs before it calls this constructor.
    """

    hosts: Sequence[SimulatedHost]

    def __init__(
        self,
        config: SimulationConfig,
        seed: int,
        *,
        validators: ValidatorSet,
        genesis: BlockRef,
        chain_id: str,
        verify: Verifier,
        timeline: Timeline | None = None,
    ) -> None:
        self.config = config
        self.seed = seed
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.crashes = 0
        self.boundaries = 0  # between effects, passed so far
        self.events = 0
        self.timeline = timeline
        self.trace = TraceHash()
        self.build_failures = 0.0
        self.flip_share = 0.0
        self.validators = validators
        self.genesis = genesis
        self.chain_id = chain_id
        self.refused: Counter[int] = Counter()  # by sender: what no node took, by its form or signature
        self._crash_share = 0.0
        self._crash_at: set[int] = set()
        self._queue: list[tuple[int, int, Action, tuple[Any, ...]]] = []
        self._tokens = 0
        self._is_faulty = True
        self._absent: set[int] = set()  # down for good
        self._failure = ""
        self.villains = self._place_villains()
        honest = frozenset(range(config.node_count)) - set(self.villains)
        self.safety = SafetyChecker(validators, honest, genesis, chain_id, verify, config.epoch_blocks)
        self.links = Links(self.rng)
        self.hosts = self._make_hosts()

    # --- what lives here: a subclass says ---------------------------------------------------------------

    @abstractmethod
    def _make_hosts(self) -> Sequence[SimulatedHost]:
        """One for each validator, in order; none of them up."""

    def _on_healed(self, host: SimulatedHost) -> None:  # noqa: B027 - not every world has more to do
        """The world has healed, and this host is up and stays so."""

    def _place_villains(self) -> dict[int, str]:
        """Who is a villain, and which."""
        return place_villains(self.config, self.rng)

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

    # --- what is told of a run ------------------------------------------------------------------------

    def note(self, what: str, node: int) -> None:
        """A line of the trace, in words; node -1: the whole world."""
        self.trace.add(f"{self.now_ms} {node} {what}\n".encode())
        self.record("note", node, what)

    def record(self, kind: str, node: int, text: str = "") -> None:
        """For the timeline alone."""
        if self.timeline is not None:
            self.timeline.add(self.now_ms, node, kind, text)

    def fail(self, text: str) -> None:
        """A violation, told where raising it could be swallowed: the run ends before its next event.

        The first one counts.
        """
        self._failure = self._failure or text

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

    def maybe_crash(self, host: SimulatedHost) -> None:  # noqa: ARG002 - a scenario asks whose it is
        """Called at every boundary between effects of an honest node. Raises Crash."""
        self.boundaries += 1
        if self.boundaries in self._crash_at and self._is_faulty:
            if self._crash_share:
                self._draw_crash()
            raise Crash

    def crash_disk(self, host: SimulatedHost) -> None:
        """What a crash does to a disk."""
        host.disk.crash(self.rng)
        is_hit = self.flip_share > 0 and self.rng.random() < self.flip_share and self.may_damage(host)
        if is_hit and host.disk.flip_bit(host.journal_path, self.rng):
            self.note("a bit of its journal flips", host.index)
            self.lose_journal(host)

    def lose_journal(self, host: SimulatedHost) -> None:
        """It is damaged or gone: the node may stand lower than before, and must only observe."""
        host.is_damaged = True
        self.safety.places.pop(host.index, None)

    def may_damage(self, host: SimulatedHost) -> bool:
        """Whether its journal may be lost too: the damaged and the villains stay below a third."""
        # Who may sign above a view that it has not passed is as good as gone: seed 2000856 in test_world.py.
        damaged = {
            other.index
            for other in self.hosts
            if other.is_damaged or self.safety.places.get(other.index, (0, 0))[0] <= other.signs_above
        }
        return host.index in self.safety.honest and self.is_bearable(damaged | {host.index})

    def is_bearable(self, harmed: set[int]) -> bool:
        """Whether the honest among these and the villains hold less than a third of the stake."""
        stakes = self.config.all_stakes
        stake = sum(stakes[index] for index in harmed & self.safety.honest)
        return 3 * (stake + self.config.weigh_faulty()) < sum(stakes)

    def check_journal(self, host: SimulatedHost, status: JournalStatus) -> None:
        """A damaged journal must be noticed, and no other called so. Raises Violation."""
        if host.index in self.safety.honest and (status.observe_until_view is None) != host.is_damaged:
            told = status.problem or "nothing"
            raise Violation(f"journal: node {host.index}, damaged: {host.is_damaged}, tells of {told}")
        if status.problem:
            self.note(f"observes only: {status.problem}", host.index)

    def restart_later(self, host: SimulatedHost) -> None:
        """A host went down in the midst of its effects."""
        self.crashes += 1
        self.push(1 + int(self.rng.random() * RESTART_MS), self._bring_up, (host,))

    def _bring_up(self, host: SimulatedHost) -> None:
        if not host.is_up and host.index not in self._absent:
            host.start()

    def cut(self, name: str, links: Pairs) -> None:
        """A fault cuts these links, in place of those that it cut under this name before."""
        if self.links.cut(name, links):
            told = " ".join(f"{a}>{b}" for a, b in sorted(self.links.cut_now))
            self.note(f"cut {told}" if told else "cut none", -1)

    # --- what nodes say of themselves -----------------------------------------------------------------

    def look_at(self, host: SimulatedHost, engine: Engine) -> None:
        """After every step. Raises Violation."""
        view = engine.view
        self.safety.look_at(host.index, view, engine.finalized_view)
        self.safety.weigh(host.index, engine)
        if self.timeline is not None:
            self.timeline.add_view(self.now_ms, host.index, view, getattr(engine, "leader", -1))

    def halted(self, node: int, reason: str) -> None:
        """An engine stopped signing. Raises Violation."""
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
                self._check_failure()
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
            if self._failure:
                self._check_failure()
            if self.events > EVENTS_MAX:
                raise Violation(f"runaway: {EVENTS_MAX} events in {self.now_ms} simulated ms")
        self.now_ms = until_ms

    def _check_failure(self) -> None:
        if self._failure:
            raise Violation(self._failure)

    def _heal(self) -> None:
        self._is_faulty = False
        self.links.heal()
        self.build_failures = self.flip_share = 0.0
        for host in self.hosts:
            host.disk.mend()
        # Exactly a quorum must do: the absent ones stay down for good.
        honest = sorted(self.safety.honest)
        absent = self._absent = set(self.rng.sample(honest, self.config.absent))
        self.note("heal", -1)
        for host in self.hosts:
            if host.index in absent:
                host.crash()
                continue
            if not host.is_up:
                host.start()
            self._on_healed(host)
        online = [index for index in honest if index not in absent]
        healed_view = max((view for view, _ in self.safety.places.values()), default=0)
        liveness = LivenessChecker(self.now_ms, healed_view)
        while True:
            self._run_for(LOOK_MS)
            places = {index: self.safety.places.get(index, (0, 0)) for index in online}
            if liveness.check(self.now_ms, places):
                return

    def count_views(self) -> int:
        """The highest view that anybody honest entered."""
        return max((view for view, _ in self.safety.places.values()), default=0)

    def summarize(self, violation: str) -> Outcome:
        return Outcome(
            seed=self.seed,
            violation=violation,
            trace_hash=self.trace.compute(),
            views=self.count_views(),
            finalized=len(self.safety.chain) - 1,
            simulated_ms=self.now_ms,
            events=self.events,
            crashes=self.crashes,
            evidence=self.safety.evidence,
            epochs=1 + max(self.safety.opened.values(), default=0),
        )


def place_villains(config: SimulationConfig, rng: random.Random) -> dict[int, str]:
    """Who is a villain, and which: a run's first draw."""
    parsed = [config.parse_villain(villain) for villain in config.all_villains]
    placed = {index: name for name, index in parsed if index is not None}
    free = [index for index in range(config.nodes) if index not in placed]
    names = [name for name, index in parsed if index is None]
    return placed | dict(zip(rng.sample(free, len(names)), names, strict=True))
