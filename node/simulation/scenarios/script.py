"""A script in a world: what a scenario names, in the place of chance's faults, for engines and whole nodes.

    class Stage(Scripted, EngineWorld)        class NodeStage(Scripted, NodeWorld)

Invariant: the script decides only what it names; safety and liveness are checked as on any other run, and
the same text and seed give the same trace. Leaves out: how messages are lost (the stages say).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from consensus.bft.contract import Message, Proposal
from consensus.bft.leader import LeaderSchedule
from consensus.bft.simplex import EngineConfig
from consensus.vote import KIND_NAMES, ValidatorSet, Vote
from node.simulation.config import SimulationConfig
from node.simulation.scenarios import plan
from node.simulation.scenarios.expectations import Facts
from node.simulation.scenarios.plan import Scenario
from node.simulation.seats import compute_place
from node.simulation.villains.villain import get_view
from node.simulation.world import SimulatedHost, World


class ScriptedLeaders(LeaderSchedule):
    """The usual schedule, but for the views that the script names."""

    def __init__(self, validators: ValidatorSet, leaders: dict[int, int]) -> None:
        super().__init__(validators)
        self._scripted = leaders

    def get_leader(self, view: int) -> int:
        found = self._scripted.get(view)
        return super().get_leader(view) if found is None else found


class Scripted(World):
    """A world whose faults are scripted; one half of it. `_prepare` comes before, `_begin` after its making."""

    def _prepare(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._leaders = dict(scenario.leaders)
        self._first_ms: dict[int, int] = {}  # place -> when the first message about it was sent
        self._crashed: set[tuple[int, int]] = set()  # (which crash, node): each happens once
        self.votes_ms: dict[int, list[int]] = {}
        self.told: Counter[tuple[int, str]] = Counter()
        self._said: set[tuple[int, int, int]] = set()
        self.healed_view = 0

    def _begin(self) -> None:
        self.safety.turns.named = self._leaders
        for restart in self.scenario.restarts:
            for node in sorted(restart.nodes):
                self.push(restart.at_ms, self._restart, (node, restart))
        for number, crash in enumerate(self.scenario.crashes):
            if crash.at_ms is not None:
                for node in sorted(crash.nodes):
                    self.push(crash.at_ms, self._crash, (number, node))

    def _instruct(self, engine: Any, config: EngineConfig) -> Any:
        if self._leaders and config.epoch == 0:
            engine._schedule = ScriptedLeaders(config.validators, self._leaders)
        return engine

    # --- the network ----------------------------------------------------------------------------------

    def _note_place(self, epoch: int, view: int) -> None:
        self._first_ms.setdefault(compute_place(epoch, view), self.now_ms)

    def _is_cut(self, sender: int, receiver: int, epoch: int, view: int) -> bool:
        return self._is_faulty and any(
            cut.is_cut(sender, receiver)
            for cut in self.scenario.partitions
            if self._is_on(cut.span, epoch, view)
        )

    def _is_lost(self, name: str, sender: int, receiver: int, epoch: int, view: int) -> bool:
        return self._is_faulty and any(
            loss.is_lost(name, sender, receiver)
            for loss in self.scenario.losses
            if self._is_on(loss.span, epoch, view)
        )

    def _is_on(self, span: plan.Span, epoch: int, view: int) -> bool:
        first_ms = self._first_ms.get(compute_place(epoch, view), self.now_ms)
        return span.is_on(epoch, view, self.now_ms, first_ms)

    # --- crashes --------------------------------------------------------------------------------------

    def _take_said(self, node: int, message: Message) -> bool:
        """A node says this; whether it goes down before anybody hears it."""
        name, view = plan.name_message(message), get_view(message)
        if node in self.safety.honest:
            self.told[view, name] += 1
        vote = message.vote if isinstance(message, Proposal) else message
        if isinstance(vote, Vote) and (node, vote.subject.kind, view) not in self._said:
            self._said.add((node, vote.subject.kind, view))
            self.votes_ms.setdefault(node, []).append(self.now_ms)
        for number, crash in enumerate(self.scenario.crashes):
            if (crash.name, crash.view) != (name, view) or node not in crash.nodes:
                continue
            if not crash.is_before:
                self.push(0, self._crash, (number, node))
            elif (number, node) not in self._crashed and self._is_faulty:
                self._crashed.add((number, node))
                return True
        return False

    def restart_later(self, host: SimulatedHost) -> None:
        """After a crash in the midst of effects: the latest one that the script named."""
        self.crashes += 1
        numbers = [number for number, node in self._crashed if node == host.index]
        self._come_back(max(numbers), host.index)

    def _crash(self, number: int, node: int) -> None:
        host = self.hosts[node]
        if not self._is_faulty or not host.is_up or (number, node) in self._crashed:
            return
        self._crashed.add((number, node))
        self._bring_down(number, host)

    def _bring_down(self, number: int, host: SimulatedHost) -> None:
        self.crashes += 1
        host.crash()
        self._come_back(number, host.index)

    def _come_back(self, number: int, node: int) -> None:
        down_ms = self.scenario.crashes[number].down_ms
        if down_ms is not None:
            self.push(down_ms, self._bring_up, (self.hosts[node],))

    def _restart(self, node: int, restart: plan.Restart) -> None:
        host = self.hosts[node]
        if host.is_up:
            if not restart.is_forgetful:
                return
            self.crashes += 1
            host.crash()
        if restart.is_forgetful:
            host.disk.remove(host.journal_path)
            self.lose_journal(host)
        host.start()

    # --- the run --------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.healed_view = max((view for view, _ in self.safety.places.values()), default=0)
        super()._heal()

    def gather_facts(self, violation: str) -> Facts:
        safety = self.safety
        finals = [self.safety.places.get(node, (0, 0))[1] for node in sorted(safety.honest)]
        return Facts(
            violation=violation,
            chain=tuple(safety.chain),
            notarized=frozenset(safety.notarized),
            nullified=frozenset(safety.nullified),
            accused=frozenset(
                safety.sets[evidence.first.subject.epoch].members[evidence.first.signer]
                for evidence in safety.accusations
            ),
            refused=frozenset(self.refused),
            views=self.count_views(),
            crashes=self.crashes,
            rounds_max=safety.rounds_max,
            resumed_views=max(finals) - self.healed_view,
            heights=dict(safety.heights),
            votes=Counter(
                (view, KIND_NAMES[vote.subject.kind])
                for (_, view), votes in safety.votes.items()
                for vote in votes
            ),
            votes_ms=self.votes_ms,
            told=self.told,
            epochs=1 + max(safety.opened.values(), default=0),
        )


def make_config(scenario: Scenario) -> SimulationConfig:
    """The world of a scenario: no fault of chance but those it asks for. Raises Rejected."""
    return SimulationConfig(
        full_nodes=scenario.is_full,
        nodes=len(scenario.stakes),
        stakes=scenario.stakes,
        loss=scenario.loss,
        duplication=0,
        slow_share=0,
        latency_ms_max=scenario.latency_ms_max,
        crashes=0,
        partitions=0,
        villains=tuple(f"{name}@{index}" for index, name in scenario.villains),
        absent=scenario.absent,
        build_failures=0,
        faulty_ms=scenario.faults_ms,
        delta_ms=scenario.delta_ms,
        epoch_blocks=scenario.epoch_blocks,
        joiners=scenario.joiners,
        delta_ms_max=max(1_000, scenario.delta_ms),
        block_interval_ms=40,
        standstill_ms=400,
        standstill_ms_max=1_600,
        is_beyond_promise=scenario.is_beyond_promise,
    )
