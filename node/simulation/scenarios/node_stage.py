"""Acts a scenario out among whole nodes, with clients, stores, gossip and sync.

What a script loses in views, or by name, is lost at the sender's door; what it cuts for a time is cut as
any link, so that connections break.

Invariant: as `script.py`. Leaves out: how long judging takes, which whole nodes decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from consensus.bft.contract import Message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from node.engine.journal import JournalStatus
from node.full_node import FullNode
from node.network.frames import BlockBody, BodyTransactions, Frame
from node.simulation.full_nodes.process import NodeProcess
from node.simulation.full_nodes.wires import Door
from node.simulation.full_nodes.world import NodeWorld
from node.simulation.scenarios import plan
from node.simulation.scenarios.expectations import Facts
from node.simulation.scenarios.plan import Scenario
from node.simulation.scenarios.script import Scripted, make_config
from node.simulation.villains.villain import get_epoch, get_view
from node.simulation.world import Crash, SimulatedHost


class NodeStage(Scripted, NodeWorld):
    """A world of whole nodes whose faults are scripted."""

    def __init__(
        self, scenario: Scenario, seed: int, make_engine: Callable[..., Any] = SimplexEngine
    ) -> None:
        self._prepare(scenario)
        self._observed: set[int] = set()
        self._roots: dict[int, bytes] = {}
        self._transfers = 0

        def make(engine_config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> Any:
            return self._instruct(make_engine(engine_config, sign), engine_config)

        NodeWorld.__init__(self, make_config(scenario), seed, make)
        self._begin()
        for cut in scenario.partitions:
            if cut.span.views is None:
                self._plan_cut(cut)

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> SimplexEngine:
        engine: SimplexEngine = self._instruct(super().make_disguised(config, sign), config)
        return engine

    # --- the network ----------------------------------------------------------------------------------

    def _plan_cut(self, cut: plan.Partition) -> None:
        times_ms = cut.span.times_ms or range(self.config.faulty_ms)
        nodes = range(self.config.nodes)
        links = frozenset((a, b) for a in nodes for b in nodes if a != b and cut.is_cut(a, b))
        name = f"script {cut}"
        self.schedule_fault(times_ms.start, lambda: self.cut(name, links))
        self.schedule_fault(times_ms.stop, lambda: self.cut(name, frozenset()))

    def get_wire_door(self, process: NodeProcess) -> Door:
        return ScriptedDoor(self, process)

    def is_swallowed(self, process: NodeProcess, frame: Frame, receiver: int) -> bool:
        """Whether the script lets nobody hear this."""
        try:
            message = self.epochs.read_message(frame)
        except Rejected:
            return False  # a villain's noise
        if message is not None:
            name, place = plan.name_message(message), (get_epoch(message), get_view(message))
        elif isinstance(frame, BlockBody | BodyTransactions):
            name, place = plan.BODIES, _get_body_place(process.node, frame.block_hash)
        else:
            name, place = "", (0, 0)
        sender = process.index
        in_views = (
            cut.is_cut(sender, receiver)
            for cut in self.scenario.partitions
            if cut.span.views is not None and self._is_on(cut.span, *place)
        )
        self._note_place(*place)
        return self._is_faulty and (any(in_views) or self._is_lost(name, sender, receiver, *place))

    # --- processes ------------------------------------------------------------------------------------

    def hear(self, process: NodeProcess, message: Message) -> None:
        super().hear(process, message)
        if self._take_said(process.index, message):
            process.host.crash()
            self.restart_later(process.host)
            raise Crash

    def _bring_down(self, number: int, host: SimulatedHost) -> None:
        machine, crash = self.hosts[host.index], self.scenario.crashes[number]
        match crash.way:
            case plan.STOP:
                machine.stop()
            case plan.PAUSE:
                machine.pause()
                if crash.down_ms is not None:
                    self.schedule_fault(crash.down_ms, machine.unpause)
            case plan.FORGET_STORE:
                machine.lose_store()
            case plan.FORGET_JOURNAL:
                machine.crash()
                machine.disk.remove(machine.journal_path)
                self.note("its journal is lost", machine.index)
                self.lose_journal(machine)
                self.restart_later(machine)
            case _:
                super()._bring_down(number, host)

    def check_start(self, process: NodeProcess, node: FullNode) -> None:
        super().check_start(process, node)
        status: JournalStatus = node.journal_status
        if status.observe_until_view is None:
            self._observed.add(process.index)

    # --- the end --------------------------------------------------------------------------------------

    def _heal(self) -> None:
        super()._heal()
        online = self._list_online()
        self._roots = {index: node.chain.final_view.root for index, node in online.items()}
        self._transfers = sum(
            all(node.store.find_transaction(transaction_id) is not None for node in online.values())
            for transaction_id in self.checkers.ledger.plain.places
        )

    def gather_facts(self, violation: str) -> Facts:
        stakes = self.checkers.ledger.plain.stakes
        nodes = {key.address: index for index, key in enumerate(self.chain.validator_keys)}
        return replace(
            super().gather_facts(violation),
            roots=self._roots,
            observed=frozenset(self._observed),
            penalised=frozenset((penalty.by, penalty.whom) for penalty in self.checkers.penalties),
            transfers=self._transfers,
            seated=frozenset(index for seats in self.safety.sets.values() for index in seats.members),
            slashed=frozenset() if stakes is None else frozenset(nodes[one] for one in stakes.slashed),
        )


class ScriptedDoor:
    """Between a process and its wire: swallows what the script loses, and lets a liar lie before that."""

    def __init__(self, stage: NodeStage, process: NodeProcess) -> None:
        self._stage = stage
        self._process = process

    def rewrite(self, frame: Frame, receiver: int) -> Iterable[Frame | bytes]:
        door = self._process.door
        told = (frame,) if door is None else door.rewrite(frame, receiver)
        return tuple(
            item
            for item in told
            if isinstance(item, bytes) or not self._stage.is_swallowed(self._process, item, receiver)
        )

    def answer(self, frame: Frame, sender: int) -> Iterable[Frame | bytes] | None:
        door = self._process.door
        answers = None if door is None else door.answer(frame, sender)
        if answers is None:
            return None
        return tuple(
            item
            for item in answers
            if isinstance(item, bytes) or not self._stage.is_swallowed(self._process, item, sender)
        )


def _get_body_place(node: FullNode | None, block_hash: bytes) -> tuple[int, int]:
    header = None if node is None else node.chain.get_header(block_hash)
    return (0, 0) if header is None else (header.epoch, header.view)
