"""A few runs from a seed that nobody tried before, another each time; the report's head tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from consensus.parameters import CLOCK_WORKLOAD
from node.commands.simulate import format_replay
from node.simulation.config import FULL_NODES, SimulationConfig
from node.simulation.engine_world import simulate
from node.simulation.full_nodes.world import simulate_nodes

ENGINE_RUNS = 150
NODE_RUNS = 3
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a workload's clock": {"clock": CLOCK_WORKLOAD, "model_switches": 1},
    "epochs": {"epoch_blocks": 4},
    "epochs on a workload's clock": {"epoch_blocks": 3, "clock": CLOCK_WORKLOAD, "unrest": 0.5},
}


def test_engines_hold(fresh_seed: int, note_replay: Callable[[str], None]) -> None:
    for seed in range(fresh_seed, fresh_seed + ENGINE_RUNS):
        violation = simulate(SimulationConfig(), seed).violation
        if violation:
            note_replay(format_replay(SimulationConfig(), seed))
        assert not violation, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_whole_nodes_hold(kind: str, fresh_seed: int, note_replay: Callable[[str], None]) -> None:
    config = replace(FULL_NODES, **KINDS[kind])
    for seed in range(fresh_seed, fresh_seed + NODE_RUNS):
        violation = simulate_nodes(config, seed).violation
        if violation:
            note_replay(format_replay(config, seed))
        assert not violation, f"seed {seed}"
