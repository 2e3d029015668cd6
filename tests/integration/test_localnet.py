"""`assay localnet` as a person meets it: starts, stops, goes on, and what it refuses to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.localnet import find_base_port
from tests.integration.network_process import (
    NetworkProcess,
    assert_one_line,
    find_processes,
    get_json,
    run_assay,
    run_here,
    wait_for,
)

RECEIVER = "0x" + "ab" * 20


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path_factory.mktemp("localnet") / "net", "--block-interval", "250ms") as running:
        yield running


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole home of four nodes that never ran."""
    from node import home

    folder = tmp_path_factory.mktemp("stopped") / "net"
    home.create_network(folder, home.NetworkPlan(4, find_base_port(4), 1_000), os.urandom)
    return folder


def test_the_description_is_complete_and_only_its_owner_may_read_it(network: NetworkProcess) -> None:
    document = network.description
    assert stat.S_IMODE((network.home / "localnet.json").stat().st_mode) == 0o600
    assert document.keys() == {"chain_id", "genesis_hash", "nodes", "accounts"}
    assert [node["name"] for node in document["nodes"]] == ["node0", "node1", "node2", "node3"]
    for index, node in enumerate(document["nodes"]):
        assert node.keys() == {"name", "home", "api", "p2p", "pid", "address"}
        assert node["api"] == network.get_api(index)
        assert node["p2p"].endswith(f":{network.base_port + 10 * index}")
        status = get_json(node["api"] + "/v1/status")
        assert (status["chain_id"], status["genesis_hash"]) == (
            document["chain_id"],
            document["genesis_hash"],
        )
        assert (status["node"]["name"], status["node"]["address"]) == (node["name"], node["address"])
        os.kill(node["pid"], 0)  # raises unless it is there
    for account in document["accounts"]:
        assert account.keys() >= {"address", "private_key", "balance"}
        seen = get_json(f"{network.get_api(0)}/v1/accounts/{account['address']}")
        assert seen["balance"] <= account["balance"]


def test_empty_blocks_come_by_the_block_interval(network: NetworkProcess) -> None:
    start = network.get_height(0)
    network.wait_height(start + 5)
    blocks = get_json(f"{network.get_api(0)}/v1/blocks?from={start + 1}&limit=5")["blocks"]
    assert [block["header"]["height"] for block in blocks] == list(range(start + 1, start + 6))


@pytest.mark.parametrize("index", range(4))
def test_a_transfer_given_to_any_node_is_final_on_all_four(network: NetworkProcess, index: int) -> None:
    key_file = network.home / f"key{index}"
    key_file.write_text(network.description["accounts"][index]["private_key"])
    key_file.chmod(0o600)
    sent = run_assay(
        *("send", "--api", network.get_api(index), "--key", str(key_file)),
        *("--to", RECEIVER, "--amount", "7", "--wait", "--json"),
    )
    assert sent.returncode == 0, sent.stderr
    report = json.loads(sent.stdout)
    network.wait_height(report["height"])
    answers = [
        get_json(f"{network.get_api(other)}/v1/transactions/{report['id']}") for other in range(network.nodes)
    ]
    assert {(answer["status"], answer["height"], answer["index"]) for answer in answers} == {
        ("final", report["height"], report["index"])
    }
    roots = {
        get_json(f"{network.get_api(other)}/v1/blocks/{report['height']}")["header"]["state_root"]
        for other in range(network.nodes)
    }
    assert len(roots) == 1


def test_a_second_localnet_on_the_same_home_is_refused(network: NetworkProcess) -> None:
    assert_one_line(run_assay("localnet", "--home", str(network.home)), 2, "locked by process")
    assert_one_line(run_assay("localnet", "--home", str(network.home), "--fresh"), 2, "locked by process")
    assert (network.home / "localnet.json").exists(), "the description of the running network is gone"
    assert_one_line(run_assay("node", "--home", str(network.get_home(0))), 2, "locked by process")


def test_a_port_in_use_starts_nothing(stopped: Path) -> None:
    port = json.loads((stopped / "node2" / "node.json").read_text())["api_port"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert_one_line(run_assay("localnet", "--home", str(stopped)), 2, f"port {port}")
        assert not (stopped / "node0" / "blocks.log").exists()
        alone = run_assay("node", "--home", str(stopped / "node2"))  # its log comes on stderr too
        assert (alone.returncode, "Traceback" in alone.stderr) == (2, False), alone.stderr
        assert f"{port} is in use" in alone.stderr.splitlines()[-1]
    assert find_processes(stopped) == []


def test_ctrl_c_stops_everything_and_the_same_folder_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "net"
    with NetworkProcess(home, "--block-interval", "250ms") as network:
        network.wait_height(3)
        genesis_hash, pids = network.description["genesis_hash"], find_processes(home)
        assert len(pids) == 9, "the parent, four nodes, and a signature worker of each"
        height = min(network.get_height(index) for index in range(4))
        block_hash = network.get_block_hash(0, 2)
        assert network.stop() == 0
        assert find_processes(home) == []
        assert not (home / "localnet.json").exists()
        network.start()
        assert network.description["genesis_hash"] == genesis_hash
        assert min(network.get_height(index) for index in range(4)) >= height
        assert network.get_block_hash(3, 2) == block_hash
        network.wait_height(height + 2)
        assert network.stop() == 0
        network.start("--fresh", "--base-port", str(network.base_port))
        assert network.description["genesis_hash"] != genesis_hash
        network.wait_height(1)


START_AND_WAIT = """
import os, sys
from pathlib import Path
from node import home, localnet, process

def never_ready(folder, report_ready, lifeline):
    os.write(1, b"begun\\n")
    os.read(lifeline, 1)  # until the parent is gone

local = localnet.LocalNetwork(home.open_network(Path(sys.argv[1])), never_ready)
with process.stop_signals() as stop:
    local.start()
    print(local.wait_ready(stop), flush=True)
    local.stop(stop.pause)
print(sorted({node.exit_code for node in local.processes}))
"""


def test_ctrl_c_is_heard_while_nodes_still_start(stopped: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(stopped)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(4)] == ["begun\n"] * 4
        parent.send_signal(signal.SIGINT)
        assert parent.stdout.read() == f"False\n[{-signal.SIGTERM}]\n"
    assert parent.returncode == 0


def test_nodes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with NetworkProcess(tmp_path / "net") as network:
        network.wait_height(1)
        os.kill(network.pid, signal.SIGKILL)
        wait_for(
            "the end of every node", lambda: set(find_processes(network.home)) <= {network.pid}, seconds=20
        )
        assert "who started this node is gone" in network.read_log(0)
        network.stop()
        network.start()
        network.wait_height(2)


def test_a_home_of_another_chain_is_refused(stopped: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(stopped, mixed)
    genesis = json.loads((mixed / "node1" / "genesis.json").read_text())
    genesis["chain_id"] = "another"
    (mixed / "node1" / "genesis.json").write_text(json.dumps(genesis))
    assert_one_line(run_assay("localnet", "--home", str(mixed)), 2, "different genesis")


def test_a_broken_network_can_be_made_anew(stopped: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(stopped, broken)
    (broken / "accounts.key").unlink()
    assert_one_line(run_assay("localnet", "--home", str(broken)), 2, "holds no local network", "--fresh")
    with NetworkProcess(broken, "--fresh") as network:
        network.wait_height(1)


def test_a_genesis_without_stake_is_refused(stopped: Path, tmp_path: Path) -> None:
    genesis = json.loads((stopped / "node0" / "genesis.json").read_text())
    path = tmp_path / "genesis.json"
    for validators in ([], [{**entry, "stake": 0} for entry in genesis["validators"]]):
        path.write_text(json.dumps({**genesis, "validators": validators}))
        result = run_assay("init", "--home", str(tmp_path / "home"), "--genesis", str(path))
        assert_one_line(result, 2, "stake" if validators else "validators")
    assert not (tmp_path / "home").exists()


def test_a_model_file_cut_short_is_refused(stopped: Path, tmp_path: Path) -> None:
    copy = tmp_path / "net"
    shutil.copytree(stopped, copy)
    (model,) = (copy / "node0" / "models").iterdir()
    model.write_bytes(model.read_bytes()[:-100])
    for result in (
        run_assay("localnet", "--home", str(copy)),
        run_assay("node", "--home", str(copy / "node0")),
    ):
        assert_one_line(result, 2)
    assert find_processes(copy) == []


def test_a_block_file_of_another_chain_is_refused(network: NetworkProcess, tmp_path: Path) -> None:
    home = tmp_path / "other"
    port = find_base_port(1)
    made = run_assay("init", "--home", str(home), "--p2p-port", str(port), "--api-port", str(port + 1))
    assert made.returncode == 0, made.stderr
    network.wait_height(1)
    shutil.copyfile(network.get_home(0) / "blocks.log", home / "blocks.log")
    assert_one_line(
        run_assay("node", "--home", str(home)), 2, network.description["chain_id"], "genesis.json says"
    )
    audit = run_assay("audit", "--home", str(home))
    assert audit.returncode == 1
    assert network.description["chain_id"] in audit.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "0"], ["--nodes", "0", "1 to 64"]),
        (["--nodes", "65"], ["--nodes", "65", "64"]),
        (["--nodes", "four"], ["--nodes", "four"]),
        (["--block-interval", "1"], ["--block-interval", '"1"']),
        (["--block-interval", "soon"], ["--block-interval", "soon"]),
        (["--block-interval", "11m"], ["--block-interval"]),
        (["--base-port", "0"], ["--base-port"]),
        (["--base-port", "65530"], ["--base-port"]),
        (["--stakes", "1,two"], ["--stakes"]),
        (["--stakes", "0,0"], ["stake"]),
        (["--nodes", "3", "--stakes", "1,2"], ["--stakes", "2 stakes for 3 nodes"]),
        (["--modules", "nothing"], ["nothing"]),
        (["--modules", ""], ["--modules", '"none"']),
        (["--modules", "fraud,"], ["--modules", '"none"']),
        (["--sharding"], ["--sharding"]),
    ],
)
def test_bad_options_are_one_line_and_make_nothing(
    tmp_path: Path,
    options: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "fork")  # nothing must come as far as starting a node
    result = run_here(capsys, "localnet", "--home", str(tmp_path / "net"), *options)
    assert_one_line(result, 2, *words)
    assert list(tmp_path.iterdir()) == []


def test_what_a_network_was_made_with_does_not_change(stopped: Path) -> None:
    for options in (["--nodes", "3"], ["--stakes", "1,1,1,1"], ["--no-refusals"]):
        assert_one_line(run_assay("localnet", "--home", str(stopped), *options), 2, options[0], "--fresh")


def test_a_folder_that_is_no_network_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for options in ([], ["--fresh"]):
        result = run_assay("localnet", "--home", str(tmp_path), *options)
        assert_one_line(result, 2, "holds no local network")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert_one_line(run_assay("localnet"), 2, "--home")
