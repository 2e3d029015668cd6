"""A late joiner: a node without a chain, beside four that have one, and how fast it gets there.

The four start with a chain of full blocks in their stores; the fifth, an observer, with genesis alone. It
fetches, checks every signature and score, executes and stores. The clock runs from when it serves to when
its last final block is the one the others had; what it had by then is not counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp

from consensus import crypto
from consensus.errors import Fault
from node import config, home, localnet, modules
from node.bench import chains, network, offspring, workload
from node.bench.context import NODES, Bench
from node.bench.stopwatch import compute_median, monotonic_s

POLL_S: Final = 0.02
SECONDS_MAX: Final = 60.0


def measure_catch_up(bench: Bench) -> dict[str, float]:
    """Transactions a second."""
    sizes = bench.sizes
    count = sizes.chain_blocks * sizes.block_transactions
    path = workload.provide_transactions(bench.folder, bench.seed, count)
    with bench.make_folder() as folder:
        laid_out = network.lay_out(folder / "net", NODES, bench.seed, 1_000)
        bench.say(f"building {sizes.chain_blocks} blocks of {sizes.block_transactions}")
        raws = workload.read_transactions(path, 0, count)
        height = chains.store_chain(laid_out.homes, raws, sizes.block_transactions)
        rates = []
        with network.run_network(folder / "net"):
            for number in range(sizes.repeats):
                bench.say(f"joiner {number + 1} of {sizes.repeats}")
                joiner = lay_out_joiner(folder / f"joiner{number}", laid_out, bench.seed + number)
                rates.append(asyncio.run(_time_joiner(joiner, height, count, sizes.block_transactions)))
        for number in range(sizes.repeats):
            bench.check_chain(folder / f"joiner{number}")
    return {"catch_up": compute_median(rates)}


def lay_out_joiner(folder: Path, net: home.Network, seed: int) -> Path:
    """The home of an observer of this network."""
    chain = config.read_genesis(net.homes[0])
    rng = random.Random(f"bench/joiner/{seed}")
    settings = [config.read_config(place) for place in net.homes]
    peers = tuple(
        config.PeerConfig(
            told.name, f"ws://{told.p2p_host}:{told.p2p_port}", "0x" + _read_public_key(place).hex()
        )
        for told, place in zip(settings, net.homes, strict=True)
    )
    port = localnet.find_base_port(1)
    own = replace(settings[0], name="joiner", p2p_port=port, api_port=port + 1, peers=peers)
    artifacts = modules.find_artifacts(chain)
    key = crypto.PrivateKey.from_seed(rng.randbytes(32))
    home.write_home(folder, chain, own, key, None, artifacts)
    return folder


def _read_public_key(place: Path) -> bytes:
    return config.read_key(place / "node.key").public_key


async def _time_joiner(joiner: Path, height: int, count: int, per_block: int) -> float:
    """Transactions a second of a node that starts now."""
    settings = config.read_config(joiner)
    url = f"http://{settings.api_host}:{settings.api_port}"
    command = [sys.executable, "-m", "node", "node", "--home", str(joiner)]
    log = joiner / "output.log"
    with offspring.run_child(command, log) as (child, started_s):
        async with aiohttp.ClientSession() as session:
            up_s, had = 0.0, 0
            while monotonic_s() < started_s + SECONDS_MAX:
                if child.poll() is not None:
                    raise Fault(f"ended ({offspring.read_tail(log)})", field="joiner")
                found = await _ask_height(session, url)
                if found is not None and not up_s:
                    up_s, had = monotonic_s(), found
                if found is not None and found >= height:
                    left = count - min(had, height) * per_block
                    if left <= count // 2:
                        raise Fault("had most of the chain before it served", field="joiner")
                    return left / (monotonic_s() - up_s)
                await asyncio.sleep(POLL_S)
    raise Fault(f"was not there after {SECONDS_MAX:.0f} s", field="joiner")


async def _ask_height(session: aiohttp.ClientSession, url: str) -> int | None:
    """Its final height; None while it does not answer."""
    try:
        async with session.get(url + "/v1/status") as response:
            document: Any = json.loads(await response.read())
            return int(document["finalized"]["height"])
    except (aiohttp.ClientConnectionError, ValueError, KeyError):
        return None
