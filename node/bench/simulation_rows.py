"""Rows of the deterministic world: runs a second, of engines alone and of whole nodes, on all cores."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from consensus.errors import Fault
from node.bench.context import Bench
from node.bench.stopwatch import measure_s
from node.simulation.config import SimulationConfig
from node.simulation.runs import run_many


def measure_engines(bench: Bench) -> dict[str, float]:
    return {"simulate_engines": _measure(bench, SimulationConfig(), bench.sizes.engine_runs)}


def measure_nodes(bench: Bench) -> dict[str, float]:
    options: dict[str, Any] = {"full_nodes": True}
    if "full_nodes" not in {field.name for field in fields(SimulationConfig)}:
        raise Fault("the world has engines alone, so far", field="simulate_nodes")
    return {"simulate_nodes": _measure(bench, SimulationConfig(**options), bench.sizes.node_runs)}


def _measure(bench: Bench, config: SimulationConfig, runs: int) -> float:
    """Runs a second. Raises Fault when one breaks an invariant."""
    bench.say(f"{runs} runs")
    violations: list[str] = []

    def run() -> None:
        outcomes = run_many(config, range(1, runs + 1), 0)
        violations.extend(f"seed {found.seed}: {found.violation}" for found in outcomes if found.violation)

    seconds = measure_s(run)
    if violations:
        raise Fault(violations[0], field="simulation", mend="replay it with `assay simulate --seed`")
    return runs / seconds
