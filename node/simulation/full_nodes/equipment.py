"""What the world gives a simulated process to run with: a node's files, its engine's pace, a liar's means.

Invariant: settings that a user's home would hold come from the run's configuration alone.
Leaves out: clocks, disks and wires, which end with the process (`process.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus.bft.simplex import EngineConfig
from node.config import NodeConfig
from node.engine.host import MakeEngine, NodeEngine
from node.node_files import NodeFiles
from node.simulation.config import SimulationConfig
from node.simulation.full_nodes.chain import SimulatedChain
from node.simulation.full_nodes.liars import LiarMeans, make_liar
from node.simulation.full_nodes.process import HOME, NodeProcess
from node.simulation.full_nodes.wires import Door

if TYPE_CHECKING:
    from node.simulation.full_nodes.world import NodeWorld

LIARS_ACCOUNT: Final = 0  # the last payer's: what a liar signs with it, nobody may take


def make_files(config: SimulationConfig, chain: SimulatedChain, index: int) -> NodeFiles:
    """Node `index`'s, as a home would hold them."""
    settings = NodeConfig(
        name=f"node{index}",
        p2p_port=0,
        api_port=0,
        block_interval_ms=config.block_interval_ms,
        delta_ms=config.delta_ms,
        delta_ms_max=config.delta_ms_max,
        worker=False,
        shadows=0,
    )
    return NodeFiles(HOME, settings, chain.rules, chain.node_keys[index], chain.validator_keys[index])


def make_paced(config: SimulationConfig, make: MakeEngine) -> MakeEngine:
    """An engine that speaks up again within a run when nothing moves."""

    def make_one(engine_config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> NodeEngine:
        # A standstill of five seconds is longer than a run.
        paced = replace(
            engine_config,
            standstill_ms=config.standstill_ms,
            standstill_ms_max=config.standstill_ms_max,
        )
        return make(paced, sign)

    return make_one


def equip_liar(world: NodeWorld, process: NodeProcess, name: str) -> Door:
    """The liar of this name, for one life of its node."""
    index = process.index
    chain = world.chain
    means = LiarMeans(
        index=index,
        rules=chain.rules,
        validator_key=chain.validator_keys[index],
        account_key=chain.client_keys[LIARS_ACCOUNT],
        get_node=lambda: process.node,
        rng=random.Random(f"{world.seed}/liar {index}/{process.host.incarnation}"),
    )
    return make_liar(name, means)
