"""Rows of a network that nobody asks anything: how soon it is up, and what it costs while nothing happens.

A validator is its node process and its signature worker together; the one that costs most counts. What is
resident is counted once where both share it, and what all nodes share (they are forks of one parent) once
per node: the node's own resident set and what the worker has beside it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from consensus.errors import Fault
from node import localnet
from node.bench import network, offspring, stopwatch
from node.bench.context import NODES, Bench
from node.bench.stopwatch import compute_median, monotonic_s, pause

SETTLE_S: Final = 3.0  # peers find each other, a few blocks, what start-up allocated is in place
POLL_S: Final = 0.01
START_SECONDS_MAX: Final = 30.0


def measure_idle(bench: Bench) -> dict[str, float]:
    """CPU in percent of a core and resident megabytes of a validator, 1 s blocks, nothing to do."""
    stopwatch.check_proc()
    with bench.make_folder() as folder:
        network.lay_out(folder / "net", NODES, bench.seed, 1_000)
        with network.run_network(folder / "net") as running:
            pause(SETTLE_S)
            bench.say(f"idle for {bench.sizes.idle_s:.0f} s")
            families = [stopwatch.list_family(node.pid) for node in running.nodes]
            before = [sum(map(stopwatch.read_cpu_seconds, family)) for family in families]
            start_s = monotonic_s()
            pause(bench.sizes.idle_s)
            seconds = monotonic_s() - start_s
            after = [sum(map(stopwatch.read_cpu_seconds, family)) for family in families]
            resident = [read_validator_bytes(family) for family in families]
        bench.check_chain(folder / "net" / "node0")
    shares = [(late - early) / seconds for early, late in zip(before, after, strict=True)]
    return {"idle_cpu_percent": 100 * max(shares), "idle_rss_mb": max(resident) / 1e6}


def read_validator_bytes(family: Sequence[int]) -> int:
    """Resident bytes of a node and what its workers have for themselves."""
    node, *workers = family
    return stopwatch.read_resident_bytes(node) + sum(map(stopwatch.read_own_bytes, workers))


def measure_starts(bench: Bench) -> dict[str, float]:
    """From `assay localnet` in an empty folder: until all four serve, and until all have a final block."""
    found = []
    for number in range(bench.sizes.starts):
        bench.say(f"start {number + 1} of {bench.sizes.starts}")
        found.append(_time_start(bench))
    return {
        "first_final_seconds": compute_median(final for _, final in found),
        "all_up_seconds": compute_median(up for up, _ in found),
    }


def _time_start(bench: Bench) -> tuple[float, float]:
    with bench.make_folder() as folder:
        home, port = folder / "net", localnet.find_base_port(NODES)
        command = [sys.executable, "-m", "node", "localnet", "--home", str(home)]
        command += ["--nodes", str(NODES), "--base-port", str(port)]
        urls = [f"http://127.0.0.1:{port + 10 * i + 1}" for i in range(NODES)]
        with offspring.run_child(command, folder / "localnet.log") as (child, started_s):
            moments = asyncio.run(_wait_all(urls))
            if child.poll() is not None:
                raise Fault(f"ended ({offspring.read_tail(folder / 'localnet.log')})", field="localnet")
        bench.check_chain(home / "node0")
        return max(up for up, _ in moments) - started_s, max(final for _, final in moments) - started_s


async def _wait_all(urls: Sequence[str]) -> list[tuple[float, float]]:
    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(_wait_one(session, url) for url in urls)))


async def _wait_one(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """When a node first answered, and when it first told of a final block."""
    deadline_s = monotonic_s() + START_SECONDS_MAX
    up_s = 0.0
    while monotonic_s() < deadline_s:
        try:
            async with session.get(url + "/v1/status") as response:
                document: Any = await response.json()
                up_s = up_s or monotonic_s()
                if document["finalized"]["height"] > 0:
                    return up_s, monotonic_s()
        except aiohttp.ClientConnectionError:
            pass  # it does not listen yet
        await asyncio.sleep(POLL_S)
    raise Fault(f"no final block within {START_SECONDS_MAX:.0f} s", field=url)
