"""Nodes that come late or lost something: an observer from genesis, a deleted store, a deleted journal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.engine.journal import check_single_votes, read_journal
from node.localnet import find_base_port
from tests.integration.network_process import (
    NetworkProcess,
    get_json,
    hold_for,
    run_assay,
    wait_for,
)
from tests.integration.own_views import get_own_views, read_own_views
from tests.integration.running_node import RunningNode
from tests.integration.steady_load import SteadyLoad

SILENCE_SECONDS = 2.5  # more than a leader's and an advance timer of the default settings


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path / "net", "--no-refusals", "--block-interval", "250ms") as running:
        yield running


def get_root(api: str, height: int) -> Any:
    block = get_json(f"{api}/v1/blocks/{height}")
    return block and (block["hash"], block["header"]["state_root"])


def test_an_observer_catches_up_from_genesis_and_follows(
    network: NetworkProcess, tmp_path: Path, seed: int
) -> None:
    with SteadyLoad(network, seed) as load:
        load.wait_more(200)
        port = find_base_port(1)
        home = tmp_path / "observer"
        peers = []
        for index in range(4):
            settings = json.loads((network.get_home((index + 1) % 4) / "node.json").read_text())
            peers += [peer for peer in settings["peers"] if peer["name"] == f"node{index}"]
        made = run_assay(
            *("init", "--home", str(home), "--genesis", str(network.get_home(0) / "genesis.json")),
            *("--p2p-port", str(port), "--api-port", str(port + 1), "--name", "observer"),
            *(word for p in peers for word in ("--peer", f"{p['name']},{p['url']},{p['node_key']}")),
        )
        assert made.returncode == 0, made.stderr
        top = network.get_height(0)
        with RunningNode(home) as observer:
            wait_for("catching up", lambda: observer.get_height() >= top)
            for height in range(1, top + 1):
                assert get_root(observer.api, height) == get_root(network.get_api(0), height)
            load.wait_more(50)
            later = network.get_height(0)
            wait_for("following", lambda: observer.get_height() >= later)
            assert get_root(observer.api, later) == get_root(network.get_api(1), later)
            validators = get_json(observer.api + "/v1/validators")["validators"]
            assert len(validators) == 4
            address = network.description["accounts"][0]["address"]
            load.drain()
            settled = network.get_height(0)
            wait_for("the end of the load", lambda: observer.get_height() >= settled)
            seen, known = (
                get_json(f"{api}/v1/accounts/{address}") for api in (observer.api, network.get_api(2))
            )
            assert (seen["balance"], seen["nonce"]) == (known["balance"], known["nonce"])
            assert observer.stop() == 0
        own = get_own_views(list(read_journal(home / "journal")))
        assert own == [], "an observer signed something"
        audit = run_assay("audit", "--home", str(home))
        assert audit.returncode == 0, audit.stdout


def test_a_deleted_store_is_fetched_again_and_no_view_is_voted_in_twice(
    network: NetworkProcess, seed: int
) -> None:
    with SteadyLoad(network, seed) as load:
        load.wait_more(100)
        network.kill(1)
        home = network.get_home(1)
        before = list(read_journal(home / "journal"))
        (home / "blocks.log").unlink()
        shutil.rmtree(home / "index")
        shutil.rmtree(home / "checkpoints", ignore_errors=True)
        network.restart(1)
        top = network.get_height(0)
        wait_for("catching up", lambda: network.get_height(1) >= top)
        highest = max(get_own_views(before))
        wait_for("new votes", lambda: max(read_own_views(network, 1), default=0) > highest + 4)
        check_single_votes([*before, *read_journal(home / "journal")])
        load.drain()
        network.wait_height(max(network.get_height(index) for index in range(4)))
        load.check_places()


def test_a_validator_that_lost_its_journal_observes_first(network: NetworkProcess, seed: int) -> None:
    with SteadyLoad(network, seed) as load:
        load.wait_more(100)
        network.kill(2)
        home = network.get_home(2)
        before = list(read_journal(home / "journal"))
        highest = max(get_own_views(before))
        (home / "journal").unlink()
        network.restart(2)
        assert "only observing: not signing" in network.read_log(2)
        assert "the journal of a key that has voted is missing" in network.read_log(2)
        top = network.get_height(0)
        wait_for("following", lambda: network.get_height(2) >= top)
        wait_for("signing again", lambda: "signing again" in network.read_log(2))
        line = next(line for line in network.read_log(2).splitlines() if "signing again" in line)
        above = int(line.rpartition("above_view=")[2])
        assert above > highest
        wait_for("a vote", lambda: read_own_views(network, 2))
        assert min(read_own_views(network, 2)) > above
        check_single_votes([*before, *read_journal(home / "journal")])
        # It takes part for good: without another validator the quorum needs it.
        network.kill(0)
        load.wait_more(20)
        # And a restart in the meantime forgets neither the permission nor its bound.
        network.kill(2)
        network.restart(2)
        load.wait_more(20)
        check_single_votes([*before, *read_journal(home / "journal")])


def test_a_validator_that_lost_its_journal_stays_silent_without_a_quorum_of_others(
    network: NetworkProcess,
) -> None:
    network.wait_height(3)
    network.kill_all()
    (network.get_home(3) / "journal").unlink()
    for index in (1, 2, 3):
        network.restart(index)
    # What the others hold among them may still become final; then it needs the third vote.
    network.wait_connected(3, 2)
    wait_for("one height", lambda: len({network.get_height(index) for index in (1, 2, 3)}) == 1)
    heights = [network.get_height(index) for index in (1, 2, 3)]
    hold_for("silence", lambda: read_own_views(network, 3) == [], SILENCE_SECONDS)
    assert [network.get_height(index) for index in (1, 2, 3)] == heights
    network.restart(0)
    wait_for("signing again", lambda: "signing again" in network.read_log(3))
    wait_for("a vote", lambda: read_own_views(network, 3))
