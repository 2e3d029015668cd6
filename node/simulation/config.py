"""What may go wrong in a simulated run, and what a run came to.

The plain numbers of a SimulationConfig stand for the commonest faults; `list_faults` spells them out, and
`faults` takes any other. A run is wholly determined by its config, its seed and the commit.

Invariant: the faulty (villains, those absent after healing, those whose journal was damaged) hold less
than a third of the stake, or the config is refused unless it says that it is beyond the promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.errors import Rejected
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD, LEADER_ONION, LEADER_ROUND_ROBIN
from node.simulation import faults as fault
from node.simulation.faults import Fault
from node.simulation.villains import VILLAINS, parse_villain

NODES_MAX: Final = 256  # a node's name is one byte on the simulated wire
RATES: Final = ("loss", "duplication", "slow_share", "crashes", "build_failures", "flipped_bits")
CHANCES: Final = ("partitions", "blackouts", "slow_links", "full_disks", "failed_syncs", "lost_journals")
NODE_CHANCES: Final = ("restarts", "pauses", "clock_skews", "lost_stores")  # of whole nodes alone


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Shares are per message (loss, duplication, slow_share), per effect (crashes), per build, or per tick
    of faults.TICK_MS (CHANCES, NODE_CHANCES). full_nodes: whole nodes, with clients, instead of engines.

    stakes: one per node, all 1 when empty. villains: NAME or NAME@INDEX; equivocators: how many of that
    name more. absent: nodes that stay down after healing. crash_at: crash whoever stands at the boundary
    between effects of this number, counted over all nodes from 0. flipped_bits: share of crashes that
    damage the journal. model_switches: how often, at least, validators decide on other models, and clock: genesis's
    (both with whole nodes).
    epoch_blocks: heights in an epoch, 0: one epoch for ever; with whole nodes leader_election: genesis's, joiners:
    nodes besides that bond and come from outside, unrest: share of runs in which the absent are jailed and
    validators leave (`full_nodes/casting.py`). faulty_ms: length of the phase with faults. All times are
    simulated ms: those of the engine are short, so that a short run holds many views.
    """

    nodes: int = 4
    stakes: tuple[int, ...] = ()
    loss: float = 0.05
    duplication: float = 0.02
    slow_share: float = 0.01
    latency_ms_max: int = 20
    crashes: float = 0.002
    crash_at: int = -1
    blackouts: float = 0.0
    partitions: float = 0.3
    slow_links: float = 0.0
    flipped_bits: float = 0.0
    full_disks: float = 0.0
    failed_syncs: float = 0.0
    equivocators: int = 0
    villains: tuple[str, ...] = ()
    absent: int = 0
    build_failures: float = 0.01
    faults: tuple[Fault, ...] = ()
    faulty_ms: int = 1_200  # three ticks
    delta_ms: int = 60  # above a fetch, a judgement and a vote at the largest latency
    delta_ms_max: int = 1_000
    block_interval_ms: int = 40
    standstill_ms: int = 400
    standstill_ms_max: int = 1_600
    full_nodes: bool = False
    epoch_blocks: int = 0
    leader_election: str = LEADER_ROUND_ROBIN
    joiners: int = 0
    unrest: float = 0.0
    lost_journals: float = 0.0
    restarts: float = 0.0
    pauses: float = 0.0
    clock_skews: float = 0.0
    lost_stores: float = 0.0
    model_switches: int = 0
    clock: str = CLOCK_WALL
    is_beyond_promise: bool = False  # let a third of the stake and more lie: to see it break

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise Rejected(f"{self.nodes} is out of range", field="--nodes", mend=f"use 1 to {NODES_MAX}")
        if self.stakes and len(self.stakes) != self.nodes:
            raise Rejected(f"{len(self.stakes)} stakes for {self.nodes} nodes", field="--stakes")
        for name in RATES + CHANCES + NODE_CHANCES:
            # A rate of 1 lets nothing through; a chance of 1 is a fault at every tick.
            rate = getattr(self, name)
            if not 0 <= rate <= 1 or (name in RATES and rate == 1):
                raise Rejected(
                    f"{rate} must be at least 0 and below 1",
                    field=f"--{name.replace('_', '-')}",
                    mend="use e.g. 0.1",
                )
            if name in NODE_CHANCES and rate and not self.full_nodes:
                raise Rejected(
                    "happens to whole nodes", field=f"--{name.replace('_', '-')}", mend="add --full-nodes"
                )
        if self.faulty_ms < 0 or self.latency_ms_max < 1:
            raise Rejected("times are positive", field="--faulty-ms")
        for item in self.faults:
            item.check(self.nodes)
        if self.model_switches < 0 or (self.model_switches and not self.full_nodes):
            raise Rejected(
                "is decided by whole nodes' validators", field="--model-switches", mend="add --full-nodes"
            )
        if self.clock not in (CLOCK_WALL, CLOCK_WORKLOAD):
            raise Rejected(
                f'"{self.clock}" is unknown', field="--clock", mend=f"use {CLOCK_WALL} or {CLOCK_WORKLOAD}"
            )
        if self.clock == CLOCK_WORKLOAD and not self.full_nodes:
            raise Rejected("engines know no time of day", field="--clock", mend="add --full-nodes")
        if self.epoch_blocks < 0:
            raise Rejected("must be 0 (no epochs) or more", field="--epoch-blocks", mend="use e.g. 8")
        if self.leader_election not in (LEADER_ROUND_ROBIN, LEADER_ONION):
            raise Rejected(
                f'"{self.leader_election}" is unknown',
                field="--leader-election",
                mend=f"use {LEADER_ROUND_ROBIN} or {LEADER_ONION}",
            )
        if self.leader_election == LEADER_ONION and not (self.full_nodes and self.epoch_blocks):
            raise Rejected(
                "is for whole nodes and epochs",
                field="--leader-election",
                mend="add --full-nodes and --epoch-blocks N",
            )
        if self.joiners < 0:
            raise Rejected("must be 0 or more", field="--joiners", mend="use e.g. 1")
        if self.node_count > NODES_MAX:
            raise Rejected(
                f"{self.joiners} and --nodes {self.nodes} make more than {NODES_MAX} nodes",
                field="--joiners",
                mend="use --joiners 0, or fewer nodes",
            )
        if not 0 <= self.unrest <= 1:
            raise Rejected("is a share", field="--unrest", mend="use 0 to 1")
        if self.equivocators < 0 or self.absent < 0:
            raise Rejected("must be 0 or more", field="--equivocators")
        if 3 * self.weigh_faulty() >= sum(self.all_stakes) and not self.is_beyond_promise:
            raise Rejected(
                "the faulty could hold a third of the stake: nothing is promised then",
                field="--villain",
                mend=f"use at most {(self.nodes - 1) // 3} of {self.nodes}",
            )

    def weigh_faulty(self) -> int:
        """The most stake that the faulty could hold, wherever the seed places them. Raises Rejected."""
        stakes = list(self.all_stakes)
        faulty = 0
        for villain in self.all_villains:
            name, index = self.parse_villain(villain)
            if index is not None:
                if index >= self.nodes or stakes[index] == 0:
                    raise Rejected(f"{name}@{index} is no place for it", field="--villain")
                faulty += stakes[index]
                stakes[index] = 0
        unplaced = sum("@" not in villain for villain in self.all_villains)
        return faulty + sum(sorted(stakes, reverse=True)[: unplaced + self.absent])

    def parse_villain(self, text: str) -> tuple[str, int | None]:
        """ "flooder@2" -> ("flooder", 2). Raises Rejected."""
        if self.full_nodes:
            from node.simulation.full_nodes.liars import LIARS

            return parse_villain(text, (*VILLAINS, *LIARS))
        return parse_villain(text)

    @property
    def node_count(self) -> int:
        """Of all nodes, those from outside last."""
        return self.nodes + (self.joiners if self.full_nodes and self.epoch_blocks else 0)

    @property
    def all_villains(self) -> tuple[str, ...]:
        return ("equivocator",) * self.equivocators + self.villains

    @property
    def all_stakes(self) -> tuple[int, ...]:
        return self.stakes or (1,) * self.nodes

    def list_faults(self) -> tuple[Fault, ...]:
        """Every fault of the run, those named by a number first."""
        named: tuple[tuple[bool, Fault], ...] = (
            (True, fault.Latency(1, self.latency_ms_max)),
            (self.loss > 0, fault.Loss(self.loss)),
            (self.duplication > 0, fault.Duplication(self.duplication)),
            (self.slow_share > 0, fault.SlowMessages(self.slow_share)),
            (self.slow_links > 0, fault.SlowLinks(self.slow_links)),
            (self.partitions > 0, fault.RandomCuts(self.partitions)),
            (self.build_failures > 0, fault.BuildFailures(self.build_failures)),
            (self.crashes > 0, fault.Crashes(self.crashes)),
            (self.crash_at >= 0, fault.CrashAt(self.crash_at)),
            (self.blackouts > 0, fault.Blackouts(self.blackouts)),
            (self.flipped_bits > 0, fault.FlippedBits(self.flipped_bits)),
            (self.full_disks > 0, fault.FullDisks(self.full_disks)),
            (self.failed_syncs > 0, fault.FailedSyncs(self.failed_syncs)),
            (self.lost_journals > 0, fault.JournalLost(self.lost_journals)),
            (self.restarts > 0, fault.OrderlyRestarts(self.restarts)),
            (self.pauses > 0, fault.Pauses(self.pauses)),
            (self.clock_skews > 0, fault.ClockSkew(self.clock_skews)),
            (self.lost_stores > 0, fault.StoreLost(self.lost_stores)),
        )
        return (*(item for is_on, item in named if is_on), *self.faults)


# What `assay simulate --full-nodes` runs unless told otherwise: everything that may go wrong, now and then.
FULL_NODES: Final = SimulationConfig(
    full_nodes=True,
    loss=0.02,  # a connection is reset, or waits, a few times a second
    crashes=0.001,
    blackouts=0.02,
    slow_links=0.1,
    flipped_bits=0.1,
    full_disks=0.05,
    failed_syncs=0.05,
    lost_journals=0.03,
    restarts=0.15,
    pauses=0.15,
    clock_skews=0.15,
    lost_stores=0.05,
    faulty_ms=3_000,  # seven ticks, tens of blocks
    joiners=1,
    unrest=0.5,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. views: the highest view entered (of every epoch, added up); finalized: height of the longest chain."""

    seed: int
    violation: str
    trace_hash: str
    views: int
    finalized: int
    simulated_ms: int
    events: int
    crashes: int
    evidence: int
    epochs: int = 1
