"""Acts a scenario out among engines alone.

Invariant: as `script.py`. Leaves out: whole nodes (`node_stage.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from consensus.bft.contract import Message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from node.simulation import toys
from node.simulation.engine_world import EngineWorld, MakeSimulated
from node.simulation.host import Host
from node.simulation.scenarios import plan
from node.simulation.scenarios.expectations import Facts
from node.simulation.scenarios.plan import SECOND, Scenario
from node.simulation.scenarios.script import Scripted, make_config
from node.simulation.villains import DoubleIdentity, Means, Villain
from node.simulation.villains.villain import get_epoch, get_view
from node.simulation.world import Crash


class Stage(Scripted, EngineWorld):
    """A world of engines whose faults are scripted."""

    def __init__(self, scenario: Scenario, seed: int, make_engine: MakeSimulated = SimplexEngine) -> None:
        self._prepare(scenario)
        self._slow_ms = dict(scenario.slow_ms)

        def make(engine_config: EngineConfig, sign: Callable[[bytes], bytes]) -> Any:
            return self._instruct(make_engine(engine_config, sign), engine_config)

        EngineWorld.__init__(self, make_config(scenario), seed, make)
        self._begin()

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        engine: SimplexEngine = self._instruct(super().make_disguised(config, sign), config)
        return engine

    def make_villain(self, means: Means) -> Villain:
        if self.name_villain(means) != "double-identity":
            return super().make_villain(means)
        own = means.name_peer(means.index)[0]

        def split(machine: int, peer: int, view: int) -> bool:
            other = means.name_peer(peer)[0] if peer >= 0 else peer
            return not self._is_cut(own + machine * SECOND, other, means.epoch, view)

        return DoubleIdentity(means, split)

    def draw_judge_ms(self, node: int) -> int:
        return self._slow_ms.get(node) or super().draw_judge_ms(node)

    # --- the network --------------------------------------------------------------------------------

    def send(self, sender: int, receiver: int, message: Message) -> None:
        epoch, view = get_epoch(message), get_view(message)
        self._note_place(epoch, view)
        is_double = "double-identity" in (self.villains.get(sender), self.villains.get(receiver))
        # A double identity's two machines are told apart inside it; see make_villain.
        if not is_double and self._is_cut(sender, receiver, epoch, view):
            return
        if not self._is_lost(plan.name_message(message), sender, receiver, epoch, view):
            super().send(sender, receiver, message)

    def request_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        payload = self.hosts[peer].bodies.get(block_hash)
        block = toys.GENESIS if payload is None else toys.read_block(payload)
        if self._is_lost(plan.BODIES, peer, asker, block.epoch, block.view):
            return
        place = block.epoch, block.view
        if not self._is_cut(asker, peer, *place) and not self._is_cut(peer, asker, *place):
            super().request_body(asker, peer, block_hash)

    def hear(self, host: Host, message: Message) -> None:
        super().hear(host, message)
        if self._take_said(host.index, message):
            raise Crash

    def gather_facts(self, violation: str) -> Facts:
        return replace(super().gather_facts(violation), tails=self.tails_final)
