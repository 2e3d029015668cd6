"""Rows of running networks: what one and four validators sustain, and how long a payment takes.

Sustained is what becomes final on every node, every transaction scored, in a window after the ramp while
two full blocks wait; the backlog must not grow in it. Under load, latency counts from
the moment a payment was due to the moment the node it was given to tells that it is final. Invariant: each
chain made here passes the audit, all nodes agree on it, and nothing accepted is lost, or the row fails.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgpack

from consensus import crypto
from consensus.errors import Fault
from node.bench import driver, network, workload
from node.bench.context import NODES, Bench
from node.bench.driver import Load, LoadRun
from node.bench.load import HEADERS, OPEN
from node.bench.network import RunningNetwork
from node.bench.stopwatch import monotonic_s
from node.bench.watch import Watch
from node.bench.window import compute_percentile
from node.clock import SystemClock
from node.replay.agreement import compare_nodes
from node.replay.http_network import HttpNetwork
from node.replay.network import read_final_block
from node.store.store import BLOCKS_NAME

BACKLOG_GROWTH_MAX: Final = 1.5  # noise of a backlog that is bounded anyway; one that runs away doubles
PROBE_SECONDS_MAX: Final = 20.0
PROBE_PAUSE_S: Final = (0.02, 0.12)  # at any moment between two empty blocks


def measure_one_validator(bench: Bench) -> dict[str, float]:
    """What a network of one sustains."""
    return {"one_validator_tps": measure_sustained(bench, 1)}


def measure_sustained(bench: Bench, nodes: int) -> float:
    """Transactions a second that a network of so many sustains."""
    with bench.make_folder() as folder:
        rate, _, _ = asyncio.run(_sustain(bench, folder / "net", nodes))
        bench.say("auditing its chain")
        bench.check_chain(folder / "net" / "node0")
        return rate


def measure_four_validators(bench: Bench) -> dict[str, float]:
    """What four sustain, and the latency at half of that."""
    with bench.make_folder() as folder:
        rate, load_us, latencies_ms = asyncio.run(_sustain(bench, folder / "net", NODES, with_latency=True))
        home = folder / "net" / "node0"
        bench.say("auditing its chain")
        count = bench.check_chain(home)
        return {
            "four_validator_tps": rate,
            "latency_loaded_p50_ms": compute_percentile(latencies_ms, 50),
            "latency_loaded_p99_ms": compute_percentile(latencies_ms, 99),
            "load_us_per_tx": load_us,
            "store_bytes_per_tx": (home / BLOCKS_NAME).stat().st_size / count,
        }


async def _sustain(
    bench: Bench, folder: Path, nodes: int, *, with_latency: bool = False
) -> tuple[float, float, list[float]]:
    """Transactions a second, the load's own microseconds a transaction, latencies at half the rate in ms."""
    sizes = bench.sizes
    bench.say(f"signing up to {sizes.signed_max:,} transactions (kept for the next run)")
    path = workload.provide_transactions(bench.folder, bench.seed, sizes.signed_max)
    network.lay_out(folder, nodes, bench.seed, 1_000)
    with network.run_network(folder, bench.choose_profiles(nodes)) as running:
        bench.say(f"what {nodes} sustain{'s' if nodes == 1 else ''}, {sizes.window_s:.0f} s")
        run = await measure_closed(bench, running, path)
        rate = run.cut_window(sizes.ramp_s, sizes.window_s).rate
        latencies_ms: list[float] = []
        if with_latency:
            bench.say(f"latency at {rate / 2:,.0f} transactions a second, {sizes.latency_s:.0f} s")
            latencies_ms, _ = await measure_open(
                bench, running, path, find_end(run), rate / 2, sizes.latency_s
            )
        await check_agreement(running)
        return rate, run.cpu_us_per_tx, latencies_ms


async def measure_closed(bench: Bench, running: RunningNetwork, path: Path, first: int = 0) -> LoadRun:
    """As fast as it goes for ramp and window. Raises Fault when something was lost or the backlog grew."""
    sizes = bench.sizes
    load = Load(
        path, first, sizes.signed_max, sizes.batch, sizes.load_processes, waiting_max=sizes.waiting_max
    )
    run = await driver.drive(running.urls, load, sizes.ramp_s + sizes.window_s)
    check_complete(run)
    growth = run.compute_backlog_growth(run.cut_window(sizes.ramp_s, sizes.window_s))
    if growth > BACKLOG_GROWTH_MAX:
        raise Fault(f"grew {growth:.1f} times in the window", field="backlog")
    return run


async def measure_open(
    bench: Bench, running: RunningNetwork, path: Path, first: int, rate: float, seconds: float
) -> tuple[list[float], LoadRun]:
    """Latencies in ms at a fixed rate."""
    sizes = bench.sizes
    processes = sizes.load_processes
    batch = max(1, round(rate * sizes.latency_tick_s / processes))
    end = first + round(rate * seconds)
    workload.provide_transactions(bench.folder, bench.seed, end)
    load = Load(path, first, end, batch, processes, OPEN, rate)
    run = await driver.drive(running.urls, load, seconds)
    check_complete(run)
    return await find_latencies(running, path, run), run


async def find_latencies(running: RunningNetwork, path: Path, run: LoadRun) -> list[float]:
    """From when each transaction was due to when the node it was given to told of its block, in ms."""
    heights = await _find_heights(running.urls, run.watch)
    sent = [item for report in run.reports for item in report.sent]
    if not sent:
        raise Fault("nothing was sent", field="latency")
    first = min(start for (start, _), _, _ in sent)
    raws = workload.read_transactions(path, first, max(end for (_, end), _, _ in sent))
    latencies_ms = []
    for (start, end), node, due_s in sent:
        for raw in raws[start - first : end - first]:
            told_s = run.watch.series[node].get_time(heights[crypto.hash_bytes(raw)])
            assert told_s is not None, "the block holds a transaction that was sent while all were watched"
            latencies_ms.append(1_000 * (told_s - due_s))
    return latencies_ms


async def _find_heights(urls: Sequence[str], watch: Watch) -> dict[bytes, int]:
    """The block of every transaction that became final during the watch."""
    heights: dict[bytes, int] = {}
    series = watch.series[0]
    async with HttpNetwork(urls) as client:
        before = 0
        for height, total in zip(series.heights, series.totals, strict=True):
            if total > before:
                block = read_final_block(await client.get_block(0, height))
                heights.update(dict.fromkeys(block.ids, height))
            before = total
    return heights


def find_end(run: LoadRun) -> int:
    """The first transaction after all that a run has sent."""
    return max(end for report in run.reports for (_, end), _, _ in report.sent)


def check_complete(run: LoadRun) -> None:
    if run.lost:
        raise Fault(f"{run.lost} accepted transactions did not become final", field="load")


async def check_agreement(running: RunningNetwork) -> None:
    """Raises Fault unless all nodes hold one block at one height."""
    async with HttpNetwork(running.urls) as client:
        height = (await client.get_status(0)).final_height
        agreement = await compare_nodes(client, SystemClock(), height)
    if agreement.differing or agreement.unreachable:
        names = ", ".join((*agreement.differing, *agreement.unreachable))
        raise Fault(f"the nodes do not agree at height {height} ({names})", field="chain")


def measure_unloaded_latency(bench: Bench) -> dict[str, float]:
    """One payment at a time, to each node in turn, block interval 0."""
    sizes = bench.sizes
    path = workload.provide_transactions(bench.folder, bench.seed, sizes.probes)
    with bench.make_folder() as folder:
        network.lay_out(folder / "net", NODES, bench.seed, 0)
        with network.run_network(folder / "net") as running:
            bench.say(f"{sizes.probes} payments, one at a time")
            raws = workload.read_transactions(path, 0, sizes.probes)
            latencies_ms = asyncio.run(probe(running.urls, raws, random.Random(bench.seed)))
        bench.check_chain(folder / "net" / "node0")
    return {
        "latency_unloaded_p50_ms": compute_percentile(latencies_ms, 50),
        "latency_unloaded_p99_ms": compute_percentile(latencies_ms, 99),
    }


async def probe(urls: Sequence[str], raws: Sequence[bytes], rng: random.Random) -> list[float]:
    """Submit one, wait until all nodes have it final, pause, and so on; milliseconds at the node asked."""
    latencies_ms = []
    async with Watch(urls) as watch, aiohttp.ClientSession() as session:
        for number, raw in enumerate(raws):
            node = number % len(urls)
            await asyncio.sleep(rng.uniform(*PROBE_PAUSE_S))
            start_s = monotonic_s()
            receipt = await submit_one(session, urls[node], raw)
            if receipt.get("outcome") != "accepted":
                raise Fault(f"was not accepted ({receipt})", field=f"payment {number}")
            if not await watch.wait_total(number + 1, PROBE_SECONDS_MAX):
                raise Fault(f"was not final after {PROBE_SECONDS_MAX:.0f} s", field=f"payment {number}")
            series = watch.series[node]
            latencies_ms.append(1_000 * (series.times_s[series.totals.index(number + 1)] - start_s))
    return latencies_ms


async def submit_one(session: aiohttp.ClientSession, url: str, raw: bytes) -> dict[str, Any]:
    """The receipt of one transaction, or the problem document that came instead."""
    async with session.post(url + "/v1/transactions", data=msgpack.packb(raw), headers=HEADERS) as response:
        answer: dict[str, Any] = json.loads(await response.read())
        return answer
