"""Many runs, over several processes: the same outcomes and the same hash, whatever the number of processes.

Invariant: outcomes come in the order of their seeds; the hash over several runs is that of their trace
hashes in this order.
"""

from __future__ import annotations

import gc
import hashlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Final

from node.simulation.config import Outcome, SimulationConfig
from node.simulation.engine_world import simulate

BATCH_RUNS: Final = (
    10  # a tenth of a second: little enough to show progress, enough to outweigh the hand-over
)
GC_BATCHES: Final = 4  # a run leaves a world of cycles behind: collected once in so many batches


@dataclass(frozen=True, slots=True)
class ScenarioText:
    """A scenario is run from its text, so that it can be handed to another process."""

    text: str


Task = SimulationConfig | ScenarioText


def run_task(task: Task, seed: int) -> Outcome:
    """One run. What a scenario expected and did not get counts as a violation."""
    if isinstance(task, SimulationConfig):
        if task.full_nodes:
            from node.simulation.full_nodes.world import simulate_nodes

            return simulate_nodes(task, seed)
        return simulate(task, seed)
    from node.simulation.scenarios import run_scenario

    outcome = run_scenario(task.text, seed)
    return replace(outcome.run, violation="; ".join(outcome.failures))


def run_many(task: Task, seeds: range, jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, in order. `jobs` processes; 0: one for each core."""
    batches = [seeds[place : place + BATCH_RUNS] for place in range(0, len(seeds), BATCH_RUNS)]
    jobs = min(jobs or os.cpu_count() or 1, len(batches))
    if jobs <= 1:
        for seed in seeds:
            yield run_task(task, seed)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        try:
            for outcomes in pool.map(partial(_run_batch, task), batches):
                yield from outcomes
        finally:
            pool.shutdown(cancel_futures=True)  # whoever stops listening waits for no more than is begun


_batches_done = 0


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows the progress
    gc.disable()


def _run_batch(task: Task, seeds: range) -> list[Outcome]:
    global _batches_done  # noqa: PLW0603 - of this worker process
    _batches_done += 1
    outcomes = [run_task(task, seed) for seed in seeds]
    is_heavy = isinstance(task, SimulationConfig) and task.full_nodes  # some MB a run
    if is_heavy or _batches_done % GC_BATCHES == 0:
        gc.collect()
    return outcomes


@dataclass
class Summary:
    """What many runs came to."""

    runs: int = 0
    views: int = 0
    finalized: int = 0
    simulated_ms: int = 0
    crashes: int = 0
    epochs: int = 0
    evidence: int = 0
    bad: list[Outcome] = field(default_factory=list)
    _hashes: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.views += outcome.views
        self.finalized += outcome.finalized
        self.simulated_ms += outcome.simulated_ms
        self.crashes += outcome.crashes
        self.epochs += outcome.epochs
        self.evidence += outcome.evidence
        self._hashes.append(outcome.trace_hash)
        if outcome.violation:
            self.bad.append(outcome)

    @property
    def trace_hash(self) -> str:
        """Of one run its own; of several the hash over theirs, in order."""
        if self.runs == 1:
            return self._hashes[0]
        return hashlib.sha256(b"".join(map(bytes.fromhex, self._hashes))).hexdigest()
