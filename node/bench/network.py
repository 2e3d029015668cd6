"""A local network for a measurement: laid out here, run by `assay localnet` as a person would run it.

The bench's accounts stand in its genesis, nothing is refused (what is measured must not depend on what a
model thinks of random payments; all of it is scored all the same), chain id and keys follow from the
seed. Invariant: the child and its nodes end with the block that started them (offspring.py).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consensus.genesis import Genesis, write_genesis
from node import config, home, localnet
from node.bench import workload
from node.bench.offspring import run_child, wait_until
from node.bench.stopwatch import monotonic_s


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node of a running network. api: its base URL; pid: its process, whose children check signatures."""

    name: str
    home: Path
    api: str
    pid: int


@dataclass(frozen=True, slots=True)
class RunningNetwork:
    """A network that serves. up_s: seconds from the command until every node answered."""

    folder: Path
    pid: int
    nodes: tuple[RunningNode, ...]
    up_s: float

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(node.api for node in self.nodes)


def lay_out(folder: Path, nodes: int, seed: int, block_interval_ms: int) -> home.Network:
    """The homes of a new network whose genesis holds the bench's accounts."""
    plan = home.NetworkPlan(
        nodes=nodes,
        base_port=localnet.find_base_port(nodes),
        block_interval_ms=block_interval_ms,
        refuses=False,
        timestamp_ms=workload.START_MS,
    )
    network = home.create_network(folder, plan, random.Random(f"bench/network/{seed}").randbytes)
    genesis = config.read_genesis(network.homes[0])
    text = write_genesis(extend_genesis(genesis, seed))
    for place in network.homes:
        config.write_file(place / "genesis.json", text)
    return network


def extend_genesis(genesis: Genesis, seed: int) -> Genesis:
    """With the chain id and the accounts of a seed's transactions."""
    accounts = workload.make_accounts(workload.make_keys(seed))
    return replace(genesis, chain_id=workload.make_chain_id(seed), accounts=genesis.accounts + accounts)


@contextmanager
def run_network(folder: Path, profiles: Path | None = None) -> Iterator[RunningNetwork]:
    """The network in `folder`, up. profiles: run each node under cProfile and write its figures there.

    Raises Fault when it does not come up.
    """
    module = ["node"] if profiles is None else ["node.bench.profiled", str(profiles)]
    command = [sys.executable, "-m", *module, "localnet", "--home", str(folder)]
    with run_child(command, folder / "localnet.log") as (child, started_s):
        path = folder / "localnet.json"
        wait_until("the network", path.exists, child, folder / "localnet.log")
        up_s = monotonic_s() - started_s
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        nodes = tuple(
            RunningNode(entry["name"], Path(entry["home"]), entry["api"], entry["pid"])
            for entry in document["nodes"]
        )
        yield RunningNetwork(folder, child.pid, nodes, up_s)
