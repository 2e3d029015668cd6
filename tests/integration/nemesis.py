"""The nemesis: what can be done to seven validators, one small class for each act.

`perform` does it to running processes; `mend` is the act that ends it, None when it has ended by itself.
`nemesis_plan.py` draws what happens when, and to whom. To add a fault, write a class and put it into that deck.

Invariant: an act is a value, the same in every run. Leaves out: lying validators; the simulated world has those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Final, Protocol

from tests.integration.faulty_network import FaultyNetwork, Loss
from tests.integration.steady_load import SteadyLoad

NODES: Final = 7


@dataclass(slots=True)
class Scene:
    """What an action acts on. log_marks: where a node's log ended when its journal was lost."""

    network: FaultyNetwork
    load: SteadyLoad
    log_marks: dict[int, int] = field(default_factory=dict)


class Action(Protocol):
    @property
    def mend(self) -> Action | None: ...

    @property
    def nodes(self) -> tuple[int, ...]:
        """Whom it concerns; no two faults concern the same node."""
        ...

    def perform(self, scene: Scene) -> None: ...


@dataclass(frozen=True, slots=True)
class OnOne:
    """The part of an action on one node."""

    node: int

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.node,)

    @property
    def mend(self) -> Action | None:
        return None


# --- processes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kill(OnOne):
    """kill -9."""

    @property
    def mend(self) -> Action | None:
        return Start(self.node)

    def perform(self, scene: Scene) -> None:
        scene.network.kill_nodes(self.node)


@dataclass(frozen=True, slots=True)
class Start(OnOne):
    def perform(self, scene: Scene) -> None:
        scene.network.start_nodes(self.node)


@dataclass(frozen=True, slots=True)
class Freeze(OnOne):
    """SIGSTOP: its sockets stay open and take what fits into them."""

    @property
    def mend(self) -> Action | None:
        return Thaw(self.node)

    def perform(self, scene: Scene) -> None:
        scene.network.freeze(self.node)


@dataclass(frozen=True, slots=True)
class Thaw(OnOne):
    def perform(self, scene: Scene) -> None:
        scene.network.thaw(self.node)


@dataclass(frozen=True, slots=True)
class Restart(OnOne):
    """An orderly end and a new start."""

    by_call: bool

    def perform(self, scene: Scene) -> None:
        scene.network.stop_in_order(self.node, by_call=self.by_call)
        scene.network.start_nodes(self.node)


# --- links and clocks -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """Frames on these ways are lost: one link, one or both ways, or all links of a node."""

    nodes: tuple[int, ...]
    ways: tuple[tuple[int, int], ...]  # (from, to)

    def __str__(self) -> str:
        return f"Cut({tell_ways(self.ways)})"

    @property
    def mend(self) -> Action | None:
        return Heal(self.nodes, self.ways)

    def perform(self, scene: Scene) -> None:
        scene.network.cut(*self.ways)


@dataclass(frozen=True, slots=True)
class Heal:
    nodes: tuple[int, ...]
    ways: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"Heal({tell_ways(self.ways)})"

    @property
    def mend(self) -> Action | None:
        return None

    def perform(self, scene: Scene) -> None:
        scene.network.heal(*self.ways)


@dataclass(frozen=True, slots=True)
class Skew(OnOne):
    """Its wall clock is wrong by more than the chain's drift: its blocks, or all others', must wait."""

    skew_ms: int

    @property
    def mend(self) -> Action | None:
        return SetRight(self.node)

    def perform(self, scene: Scene) -> None:
        scene.network.skew(self.node, self.skew_ms)


@dataclass(frozen=True, slots=True)
class SetRight(OnOne):
    def perform(self, scene: Scene) -> None:
        scene.network.skew(self.node, 0)


@dataclass(frozen=True, slots=True)
class Nudge(OnOne):
    """Its wall clock is wrong by less than the drift, for good: no fault at all."""

    skew_ms: int

    def perform(self, scene: Scene) -> None:
        scene.network.skew(self.node, self.skew_ms)


def tell_ways(ways: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"{source}>{target}" for source, target in ways)


# --- files ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TearJournal(OnOne):
    """kill -9 within a write to the journal: `share` of a record that nobody has heard of is there."""

    share: float
    is_cut: bool

    def perform(self, scene: Scene) -> None:
        scene.network.kill_nodes(self.node)
        scene.network.tear_journal(self.node, self.share, is_cut=self.is_cut)
        mark = scene.network.get_log_bytes(self.node)
        scene.network.start_nodes(self.node)
        scene.network.check_signs(self.node, mark)


@dataclass(frozen=True, slots=True)
class LoseJournal(OnOne):
    """kill -9, and the journal is deleted, damaged within, or an older one restored: it may only observe.

    with_store: the store is gone too. again: it is killed once more while it observes.
    """

    how: Loss
    with_store: bool
    again: bool

    @property
    def mend(self) -> Action | None:
        return AwaitSigning(self.node)

    def perform(self, scene: Scene) -> None:
        network = scene.network
        network.kill_nodes(self.node)
        network.lose_journal(self.node, self.how)
        if self.with_store:
            network.delete_store(self.node)
        mark = scene.log_marks[self.node] = network.get_log_bytes(self.node)
        network.start_nodes(self.node)
        network.check_observes(self.node, mark)
        if self.again:
            network.kill_nodes(self.node)
            is_signing = network.is_signing_again(self.node, mark)
            mark = network.get_log_bytes(self.node)
            network.start_nodes(self.node)
            if not is_signing:
                network.check_observes(self.node, mark)


@dataclass(frozen=True, slots=True)
class AwaitSigning(OnOne):
    """A quorum tells it its view, above which it signs again."""

    def perform(self, scene: Scene) -> None:
        scene.network.wait_signing(self.node, scene.log_marks.pop(self.node))


@dataclass(frozen=True, slots=True)
class DeleteStore(OnOne):
    """kill -9, and the store is gone while the journal stays: it catches up and contradicts no vote of its own.

    kills: so often it is killed again as soon as it answers, in the midst of catching up.
    """

    kills: int

    @property
    def mend(self) -> Action | None:
        return AwaitCaughtUp(self.node)

    def perform(self, scene: Scene) -> None:
        scene.network.kill_nodes(self.node)
        scene.network.delete_store(self.node)
        scene.network.start_nodes(self.node)
        for _ in range(self.kills):
            scene.network.kill_nodes(self.node)
            scene.network.start_nodes(self.node)


@dataclass(frozen=True, slots=True)
class AwaitCaughtUp(OnOne):
    def perform(self, scene: Scene) -> None:
        scene.network.wait_caught_up(self.node)


# --- outages ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KillMany:
    """kill -9 of so many that no quorum is left; they are started again."""

    nodes: tuple[int, ...]
    rounds: int

    @property
    def mend(self) -> Action | None:
        return None

    def perform(self, scene: Scene) -> None:
        scene.network.kill_nodes(*self.nodes)
        scene.load.wait_rounds(self.rounds)
        scene.network.start_nodes(*self.nodes)


@dataclass(frozen=True, slots=True)
class Siege:
    """Without a quorum a view cannot end: `frozen` stand still while all others are killed in it, two at a time.

    Whoever comes back forgetful, above all the view's leader, contradicts what its neighbours still hold of it.
    """

    frozen: tuple[int, ...]  # three without a fault
    rounds: int

    @property
    def nodes(self) -> tuple[int, ...]:
        return self.frozen

    @property
    def mend(self) -> Action | None:
        return None

    def perform(self, scene: Scene) -> None:
        network = scene.network
        for node in self.frozen:
            network.freeze(node)
        scene.load.wait_rounds(self.rounds)
        others = network.asked
        for pair in (others[:2], others[2:]):
            network.kill_nodes(*pair)
            network.start_nodes(*pair)
            network.wait_linked(others)
        for node in self.frozen:
            network.thaw(node)


@dataclass(frozen=True, slots=True)
class KillAll:
    """kill -9 of all seven at once, also of those that are frozen; torn: whose journals were being written."""

    torn: tuple[int, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        return ()

    @property
    def mend(self) -> Action | None:
        return None

    def perform(self, scene: Scene) -> None:
        scene.network.kill_everything()
        for node in self.torn:
            scene.network.tear_journal(node, (node + 1) / NODES, is_cut=node % 2 == 0)
        scene.network.start_everything()


@dataclass(frozen=True, slots=True)
class Split:
    """A partition none of whose sides is a quorum."""

    side: tuple[int, ...]
    rounds: int

    @property
    def nodes(self) -> tuple[int, ...]:
        return ()

    @property
    def mend(self) -> Action | None:
        return None

    def perform(self, scene: Scene) -> None:
        ways = {
            way for way in permutations(range(NODES), 2) if (way[0] in self.side) != (way[1] in self.side)
        }
        ways -= scene.network.cuts
        scene.network.cut(*ways)
        scene.load.wait_rounds(self.rounds)
        scene.network.heal(*ways)
