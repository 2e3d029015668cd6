"""Validators that die, freeze and come back under load: what was final stays, and finality resumes.

Each test prints how long finality took to resume (`pytest -s`). Seeded: `seed` decides the load, whom it
asks, and when the network is hit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.engine.journal import check_single_votes, read_journal
from tests.integration.network_process import NetworkProcess, get_json, hold_for, wait_for
from tests.integration.own_views import read_own_views
from tests.integration.steady_load import SteadyLoad

RESUME_SECONDS_MAX = 30.0  # of a busy machine; the printed figures are what to look at
FROZEN_SECONDS = 10.0
WITHOUT_QUORUM_SECONDS = 3.0  # several leader timeouts of the default settings


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path / "net", "--no-refusals") as running:
        yield running
        assert_nobody_contradicts_itself(running)


def assert_nobody_contradicts_itself(network: NetworkProcess) -> None:
    for index in range(network.nodes):
        records = list(read_journal(network.get_home(index) / "journal"))
        check_single_votes(records)
        for bad in ("contradicted itself", "signing stops", "Traceback", "stopped by a fault"):
            assert bad not in network.read_log(index), f"node {index}: {bad}"


def assert_same_root(network: NetworkProcess) -> None:
    """All four hold the same state at the highest height that all have."""
    height = max(network.get_height(index) for index in range(network.nodes))
    network.wait_height(height)
    roots = {
        get_json(f"{network.get_api(index)}/v1/blocks/{height}")["header"]["state_root"]
        for index in range(network.nodes)
    }
    assert len(roots) == 1, roots


def test_three_go_on_without_one_which_then_catches_up(network: NetworkProcess, seed: int) -> None:
    victim = random.Random(seed).randrange(4)
    with SteadyLoad(network, seed) as load:
        network.kill(victim)
        resumed = load.wait_more(50, RESUME_SECONDS_MAX)
        print(f"\nthree of four: 50 transfers final {resumed:.1f} s after the kill")
        height = max(network.get_height(index) for index in range(4))
        wait_for(
            "some blocks without it",
            lambda: max(network.get_height(index) for index in range(4)) > height + 5,
        )
        start = time.monotonic()
        network.restart(victim)
        top = max(network.get_height(index) for index in range(4))
        wait_for("catching up", lambda: network.get_height(victim) >= top)
        print(f"caught up {time.monotonic() - start:.1f} s after it was started again")
        load.wait_more(20, RESUME_SECONDS_MAX)
        load.drain()
        assert_same_root(network)
        load.check_places()
    status = network.get_status(victim)
    assert status is not None
    wait_for(
        "votes of the restarted one", lambda: max(read_own_views(network, victim), default=0) > status["view"]
    )


def test_without_a_quorum_nothing_is_final_and_nothing_is_lost(network: NetworkProcess, seed: int) -> None:
    with SteadyLoad(network, seed) as load:
        network.kill(3)
        network.kill(2)
        # What was on its way may still become final; then it stands still.
        heights = [network.get_height(0), network.get_height(1)]
        wait_for("waiting transfers", lambda: network.get_status(0)["mempool"]["transactions"] > 20)
        heights = [network.get_height(0), network.get_height(1)]
        waiting = {entry["id"] for entry in get_json(network.get_api(0) + "/v1/mempool?limit=100")["entries"]}
        count = len(load.places)
        hold_for(
            "standing still",
            lambda: [network.get_height(0), network.get_height(1)] == heights,
            WITHOUT_QUORUM_SECONDS,
        )
        assert len(load.places) == count
        for key in waiting:
            answer = get_json(f"{network.get_api(0)}/v1/transactions/{key}")
            assert answer["status"] == "pending", answer
        network.restart(2)
        resumed = load.wait_more(1, RESUME_SECONDS_MAX)
        print(
            f"\ntwo of four down for {WITHOUT_QUORUM_SECONDS:.0f} s: final {resumed:.1f} s after one was back"
        )
        wait_for("the waiting ones", lambda: waiting <= load.places.keys())
        network.restart(3)
        load.drain()
        assert_same_root(network)
        load.check_places()


def test_all_killed_at_once_go_on_from_the_last_final_block(network: NetworkProcess, seed: int) -> None:
    rng = random.Random(seed)
    with SteadyLoad(network, seed) as load:
        for number in range(3):
            count = rng.randrange(1, 150)
            load.wait_more(count)
            time.sleep(rng.random() / 5)  # the moment is drawn, so that every phase of a view is hit in time
            network.kill_all()
            height = load.seen_height
            start = time.monotonic()
            network.start()
            up = time.monotonic() - start
            assert min(network.get_height(index) for index in range(4)) >= 0
            resumed = load.wait_more(1, RESUME_SECONDS_MAX)
            print(
                f"\nkill {number} after {count} more, height {height}: up in {up:.1f} s, final {resumed:.1f} s later"
            )
            wait_for("the old height", lambda height=height: network.get_height(0) >= height)
            load.check_places()
        load.drain()
        assert_same_root(network)
        load.check_places()


def test_a_frozen_validator_catches_up_when_it_goes_on(network: NetworkProcess, seed: int) -> None:
    frozen = random.Random(seed).randrange(4)
    others = [index for index in range(4) if index != frozen]
    with SteadyLoad(network, seed) as load:
        load.skipped.add(frozen)
        os.kill(network.get_pid(frozen), signal.SIGSTOP)
        try:
            start, heights = time.monotonic(), []
            resumed = load.wait_more(50, RESUME_SECONDS_MAX)
            print(f"\none frozen: 50 transfers final {resumed:.1f} s later")
            # At least that long, and until the others were seen to go on; each wait, and their number, is bounded.
            while time.monotonic() - start < FROZEN_SECONDS or (
                len(set(heights)) <= 3 and len(heights) < 200
            ):
                load.wait_more(10, RESUME_SECONDS_MAX)
                heights.append(network.get_height(others[0]))
            assert len(set(heights)) > 3, heights
        finally:
            os.kill(network.get_pid(frozen), signal.SIGCONT)
        start, top = time.monotonic(), network.get_height(others[0])
        wait_for("catching up", lambda: network.get_height(frozen) >= top)
        print(f"caught up {time.monotonic() - start:.1f} s after it went on")
        load.skipped.discard(frozen)
        load.drain()
        assert_same_root(network)
        load.check_places()
