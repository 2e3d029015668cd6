"""Faults: what the world does to links, disks and nodes before it heals. One frozen dataclass each.

A fault has two methods: `check(nodes)` refuses what makes no sense, `begin(world)` sets it going, once,
at the start of a run. What happens again and again asks `world.every`; the world stops it when it heals.
To add one, write such a class and put it into SimulationConfig.faults.

Invariant: chance comes from `world.rng` alone; nothing here outlasts `World.heal`.
Source: FoundationDB's and TigerBeetle's lists of what disks and networks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Final, Protocol

from consensus.errors import Rejected

if TYPE_CHECKING:
    from node.simulation.full_nodes.host import NodeHost
    from node.simulation.world import World

TICK_MS: Final = 400  # two view timeouts: long enough that a cut ends views, short enough for three in a run


class Fault(Protocol):
    def check(self, nodes: int) -> None:
        """Raises Rejected if this cannot happen among so many nodes."""
        ...

    def begin(self, world: World) -> None: ...


class _Plain:
    """A fault that makes sense anywhere."""

    __slots__ = ()

    def check(self, nodes: int) -> None:
        pass


# --- links ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Latency(_Plain):
    """Each message takes ms_min to ms_max. shape 1: any equally; 3: mostly quick, with a long tail."""

    ms_min: int = 1
    ms_max: int = 20
    shape: int = 1

    def begin(self, world: World) -> None:
        world.links.set_latency(self.ms_min, self.ms_max, self.shape)


@dataclass(frozen=True, slots=True)
class Loss(_Plain):
    share: float

    def begin(self, world: World) -> None:
        world.links.loss = self.share


@dataclass(frozen=True, slots=True)
class Duplication(_Plain):
    share: float

    def begin(self, world: World) -> None:
        world.links.duplication = self.share


@dataclass(frozen=True, slots=True)
class SlowMessages(_Plain):
    """This share of messages takes links.SLOW_FACTOR times as long: others overtake them."""

    share: float

    def begin(self, world: World) -> None:
        world.links.slow_share = self.share


@dataclass(frozen=True, slots=True)
class SlowLinks(_Plain):
    """At each tick, with this chance, everything that one node says (not what it hears) becomes slow."""

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            nodes = len(world.hosts)
            is_hit, slow = world.rng.random() < self.chance, int(world.rng.random() * nodes)
            pairs = frozenset((slow, other) for other in range(nodes)) if is_hit else frozenset()
            if pairs != world.links.slow:
                world.links.slow = pairs
                world.note(f"slow {slow}" if is_hit else "slow none", -1)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class RandomCuts(_Plain):
    """At each tick, with this chance, a random cut; three in ten let one direction through."""

    chance: float
    one_way_share: float = 0.3

    def begin(self, world: World) -> None:
        def strike() -> None:
            rng, nodes = world.rng, len(world.hosts)
            if rng.random() >= self.chance:
                world.cut("random", frozenset())
                return
            side = {index for index in range(nodes) if rng.random() < 0.5}
            world.cut("random", make_cut(nodes, [side], is_one_way=rng.random() < self.one_way_share))

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class Partition:
    """These sides do not hear each other from from_ms to until_ms; who is on no side hears everybody.

    is_one_way: what an earlier side says still reaches the later ones.
    """

    sides: tuple[tuple[int, ...], ...]
    from_ms: int = 0
    until_ms: int = 1_000_000_000
    is_one_way: bool = False

    def check(self, nodes: int) -> None:
        members = [index for side in self.sides for index in side]
        if (
            len(self.sides) < 2
            or len(set(members)) != len(members)
            or not all(0 <= m < nodes for m in members)
        ):
            raise Rejected(
                f"{self.sides} are not two or more sides of {nodes} nodes",
                field="--partition",
                mend='use e.g. "0,1|2,3": each node at most once',
            )

    def begin(self, world: World) -> None:
        links = {
            (a, b)
            for one, other in permutations(range(len(self.sides)), 2)
            if not self.is_one_way or one > other
            for a in self.sides[one]
            for b in self.sides[other]
        }
        name = f"partition {self.sides}"
        world.schedule_fault(self.from_ms, lambda: world.cut(name, frozenset(links)))
        world.schedule_fault(self.until_ms, lambda: world.cut(name, frozenset()))


def make_cut(nodes: int, sides: list[set[int]], *, is_one_way: bool) -> frozenset[tuple[int, int]]:
    """The (from, to) links between a side and all the rest; one way: only those out of it."""
    return frozenset(
        (a, b)
        for side in sides
        for a in range(nodes)
        for b in range(nodes)
        if (a in side) > (b in side) or (not is_one_way and (a in side) != (b in side))
    )


# --- nodes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crashes(_Plain):
    """At each boundary between two effects of an honest node, this chance that it goes down there."""

    share: float

    def begin(self, world: World) -> None:
        world.set_crash_share(self.share)


@dataclass(frozen=True, slots=True)
class CrashAt(_Plain):
    """One crash, at the boundary of this number."""

    boundary: int

    def begin(self, world: World) -> None:
        world.set_crash_at(self.boundary)


@dataclass(frozen=True, slots=True)
class Blackouts(_Plain):
    """At each tick, with this chance, all honest nodes go down at once."""

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                for host in world.hosts:
                    if host.is_up and host.index in world.safety.honest:
                        host.crash()
                        world.restart_later(host)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class BuildFailures(_Plain):
    """This share of builds fails for good: the leader must nullify its own view."""

    share: float

    def begin(self, world: World) -> None:
        world.build_failures = self.share


# --- whole nodes alone --------------------------------------------------------------------------------
# An engine's host has no process to stop and no store to lose: the configuration refuses these there.


def _choose_honest(world: World) -> NodeHost:
    """Any honest host, up or down."""
    hosts: list[NodeHost] = [host for host in world.hosts if host.index in world.safety.honest]  # type: ignore[misc]
    return hosts[int(world.rng.random() * len(hosts))]


@dataclass(frozen=True, slots=True)
class OrderlyRestarts(_Plain):
    """At each tick, with this chance, one node is told to stop; it closes in order and comes back."""

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                _choose_honest(world).stop()

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class Pauses(_Plain):
    """At each tick, with this chance, one node's process stops, and goes on up to two ticks later."""

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                host = _choose_honest(world)
                host.pause()
                world.schedule_fault(1 + int(world.rng.random() * 2 * TICK_MS), host.unpause)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class ClockSkew(_Plain):
    """At each tick, with this chance, somebody sets a node's wall clock: right, or wrong by up to ms_max.

    Mostly within the drift that honest clocks are granted: two of four beyond it stop the network.
    """

    chance: float
    ms_max: int = 30_000  # three times the drift that honest clocks are granted

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                host = _choose_honest(world)
                skew_ms = int((2 * world.rng.random() - 1) ** 3 * self.ms_max)
                host.skew_ms = skew_ms if world.rng.random() < 0.7 else 0
                world.note(f"its clock is off by {host.skew_ms} ms", host.index)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class StoreLost(_Plain):
    """At each tick, with this chance, a node goes down and loses its store, its journal not: it must catch
    up, and not vote twice.

    Only ever nodes that, with the villains, hold less than a third: of the bodies that a quorum vouched for
    one must be left somewhere.
    """

    chance: float

    def begin(self, world: World) -> None:
        hit: set[int] = set()

        def strike() -> None:
            if world.rng.random() < self.chance:
                host = _choose_honest(world)
                if host.is_up and world.is_bearable(hit | {host.index}):
                    hit.add(host.index)
                    host.lose_store()

        world.every(TICK_MS, strike)


# --- disks ------------------------------------------------------------------------------------------
# Lost un-synced writes and torn tails need no class: every crash brings them (memory_disk.py).


@dataclass(frozen=True, slots=True)
class FlippedBits(_Plain):
    """This share of crashes flips a bit of a durable record with others after it: observe only.

    Bounded: the damaged and the villains stay below a third of the stake.
    """

    share: float

    def begin(self, world: World) -> None:
        world.flip_share = self.share


@dataclass(frozen=True, slots=True)
class JournalLost(_Plain):
    """At each tick, with this chance, a node goes down and its journal is gone: observe only.

    Bounded as flipped bits are.
    """

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                host = world.hosts[int(world.rng.random() * len(world.hosts))]
                has_voted = host.disk.read_file(host.mark_path) is not None
                if has_voted and host.is_up and world.may_damage(host):
                    host.crash()
                    host.disk.remove(host.journal_path)
                    world.note("its journal is lost", host.index)
                    world.lose_journal(host)
                    world.restart_later(host)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class FullDisks(_Plain):
    """At each tick, with this chance, one node's disk takes no byte more: it must stop, not improvise.

    Somebody makes room before it comes up again.
    """

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                host = world.hosts[int(world.rng.random() * len(world.hosts))]
                host.disk.bytes_left = int(world.rng.random() * 300)  # it may run out within a record
                world.note("disk full", host.index)

        world.every(TICK_MS, strike)


@dataclass(frozen=True, slots=True)
class FailedSyncs(_Plain):
    """At each tick, with this chance, the next sync of one node fails, which is fatal and never retried."""

    chance: float

    def begin(self, world: World) -> None:
        def strike() -> None:
            if world.rng.random() < self.chance:
                host = world.hosts[int(world.rng.random() * len(world.hosts))]
                host.disk.is_sync_failing = True
                world.note("sync fails", host.index)

        world.every(TICK_MS, strike)
