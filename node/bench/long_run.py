"""The long run: a network at half of what it sustains, for minutes or hours. Asked for by name.

What counts is what grows: memory, what waits, and the CPU that a transaction costs. Invariant: as in
network_rows, and every transaction of the load is accepted in the end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from node.bench import driver, network, network_rows, stopwatch, workload
from node.bench.context import NODES, Bench
from node.bench.driver import Load, LoadRun
from node.bench.load import OPEN
from node.bench.network import RunningNetwork
from node.bench.sampling import Samples, compute_growth, compute_slowdown, sample
from node.store.store import BLOCKS_NAME

TICK_S: Final = 0.1  # as programs submit that collect payments; smaller batches cost more than they tell


def measure_long_run(bench: Bench) -> dict[str, float]:
    stopwatch.check_proc()
    with bench.make_folder() as folder:
        rows = asyncio.run(_run_long(bench, folder / "net"))
        bench.say("auditing its chain")
        node_home = folder / "net" / "node0"
        count = bench.check_chain(node_home)
        rows["long_run_store_bytes_per_tx"] = (node_home / BLOCKS_NAME).stat().st_size / count
        return rows


async def _run_long(bench: Bench, folder: Path) -> dict[str, float]:
    sizes = bench.sizes
    seconds = 60 * sizes.minutes
    path = workload.provide_transactions(bench.folder, bench.seed, sizes.signed_max)
    network.lay_out(folder, NODES, bench.seed, 1_000)
    with network.run_network(folder, bench.choose_profiles(NODES)) as running:
        bench.say("what four sustain")
        calm = await network_rows.measure_closed(bench, running, path)
        rate = calm.cut_window(sizes.ramp_s, sizes.window_s).rate / 2
        first = network_rows.find_end(calm)
        end = first + round(rate * seconds)
        bench.say(f"signing up to {end:,} transactions (kept for the next run)")
        workload.provide_transactions(bench.folder, bench.seed, end)
        batch = max(1, round(rate * TICK_S / sizes.load_processes))
        load = Load(path, first, end, batch, sizes.load_processes, OPEN, rate)
        bench.say(f"{rate:,.0f} transactions a second for {sizes.minutes:g} minutes")
        run, samples = await run_steadily(running, load, seconds)
    ramp_s = min(sizes.ramp_s, seconds / 4)
    bench.notes.append(describe_backlog(run, ramp_s, seconds))
    bench.say(bench.notes[-1])
    return compute_rows(run, samples, ramp_s, seconds)


async def run_steadily(running: RunningNetwork, load: Load, seconds: float) -> tuple[LoadRun, Samples]:
    """The load from its start to the last transaction final; then all nodes hold one block. Raises Fault."""
    samples = Samples()
    run = await driver.drive(running.urls, load, seconds, lambda _: sample(running, samples))
    await network_rows.check_agreement(running)
    return run, samples


def describe_backlog(run: LoadRun, ramp_s: float, seconds: float) -> str:
    """Due and not final, on average in each tenth of the run: growth that stops reads otherwise than growth that goes on."""
    tenths = run.list_backlogs(run.cut_window(ramp_s, seconds), 10)
    return "the long run's transactions due and not final, by tenths of it: " + ", ".join(
        f"{waiting:,.0f}" for waiting in tenths
    )


def compute_rows(run: LoadRun, samples: Samples, ramp_s: float, seconds: float) -> dict[str, float]:
    """What the run shows from `ramp_s` on."""
    part = run.cut_window(ramp_s, seconds)
    return {
        "long_run_tps": part.rate,
        "long_run_lost": run.lost,
        "long_run_rss_mb": max(samples.resident) / 1e6,
        "long_run_own_mb": max(samples.own) / 1e6,
        "long_run_rss_growth": compute_growth(samples.own),
        "long_run_backlog_growth": run.compute_backlog_growth(part),
        "long_run_slowdown": compute_slowdown(samples, run),
    }
