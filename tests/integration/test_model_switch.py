"""The story of docs/scoring.md, run under load: models take over at one height everywhere, and go back.

A validator is killed across the first switch; an observer joins after it; the audit walks over all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml.definitions import RowRules
from ml.fraud import load, read_default_artifact
from ml.model import decode_model, make_sigmoid
from node.localnet import find_base_port
from tests.integration.network_process import NetworkProcess, get_json, run_assay, wait_for
from tests.integration.running_node import RunningNode
from tests.integration.steady_load import SteadyLoad

pytestmark = pytest.mark.timeout(600)  # its own waits end it before that, and say what they waited for

AHEAD = 60  # blocks from the decision to the switch: some ten seconds under load
WAIT_S = 60.0  # below the limit of a whole test, so that what hangs is named


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path / "net", "--no-refusals", "--block-interval", "250ms") as running:
        yield running


def make_models(folder: Path) -> tuple[Path, Path]:
    """One that scores otherwise on the same rows, and one that keeps other rows."""
    shipped = decode_model(read_default_artifact())
    steeper = replace(shipped, calibration=make_sigmoid(0.8, 0.5))
    rules = RowRules(lately_ms=900_000)
    assert rules != shipped.definitions.rules
    other = replace(steeper, definitions=replace(shipped.definitions, rules=rules))
    paths = (folder / "steeper.model", folder / "other.model")
    for path, model in zip(paths, (steeper, other), strict=True):
        path.write_bytes(model.encode())
    return paths


class Life:
    """The commands as a person types them."""

    def __init__(self, network: NetworkProcess) -> None:
        self.network = network

    def assay(self, *arguments: str) -> dict[str, Any]:
        done = run_assay(*arguments, "--json", timeout=WAIT_S)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return dict(json.loads(done.stdout))

    def publish(self, path: Path) -> str:
        key = str(self.network.get_home(0) / "validator.key")
        report = self.assay("model", "publish", str(path), "--key", key, "--api", self.network.get_api(0))
        assert report["status"] == "sound"
        return str(report["digest"])

    def decide(self, *arguments: str) -> int:
        """All four approve; the height from which it holds."""
        at = str(self.network.get_height(0) + AHEAD)
        home = str(self.network.home)
        report = self.assay("model", *arguments, "--at", at, "--all-validators", "--home", home)
        assert report["decided_height"] is not None, report
        return int(at)

    def get_judging(self, index: int) -> list[str]:
        return [seat["digest"] for seat in get_json(f"{self.network.get_api(index)}/v1/models")["models"]]


def get_header(api: str, height: int) -> dict[str, Any]:
    return dict(get_json(f"{api}/v1/blocks/{height}")["header"])


def join(network: NetworkProcess, home: Path) -> None:
    """The home of an observer that knows all four."""
    port = find_base_port(1)
    peers: dict[str, dict[str, str]] = {}
    for index in range(4):
        settings = json.loads((network.get_home(index) / "node.json").read_text())
        peers |= {peer["name"]: peer for peer in settings["peers"]}
    made = run_assay(
        *("init", "--home", str(home), "--genesis", str(network.get_home(0) / "genesis.json")),
        *("--p2p-port", str(port), "--api-port", str(port + 1), "--name", "observer"),
        *(word for p in peers.values() for word in ("--peer", f"{p['name']},{p['url']},{p['node_key']}")),
    )
    assert made.returncode == 0, made.stderr


def test_models_take_over_under_load_at_one_height_on_every_node(
    network: NetworkProcess, tmp_path: Path, seed: int
) -> None:
    steeper, other = make_models(tmp_path)
    life = Life(network)
    genesis_model = life.get_judging(0)
    with SteadyLoad(network, seed) as load_:
        digest = life.publish(steeper)
        assert digest == "0x" + load(steeper.read_bytes()).digest.hex()
        height = life.decide("approve", digest)
        wait_for("the eve of the switch", lambda: network.get_height(0) >= height - 8, WAIT_S)
        network.kill(3)
        load_.skipped.add(3)
        assert network.get_height(0) < height
        wait_for("the switch", lambda: network.get_height(0) >= height + 5, WAIT_S)
        network.restart(3)
        load_.skipped.discard(3)
        network.wait_height(height + 5, WAIT_S)
        for index in range(4):
            api = network.get_api(index)
            before, after = get_header(api, height - 1), get_header(api, height)
            assert before["modules_digest"] != after["modules_digest"]
            assert life.get_judging(index) == [digest]
            history = get_json(f"{api}/v1/models")["history"]
            assert [era["height"] for era in history] == [1, height]
            assert history[1]["modules_digest"] == after["modules_digest"]
            assert [entry["outcome"] for entry in history[1]["decisions"]] == ["done"]

        second = life.publish(other)
        height = life.decide("approve", second[:12])
        wait_for("the second switch", lambda: network.get_height(0) >= height, WAIT_S)
        join(network, tmp_path / "observer")
        height = life.decide("rollback")
        with RunningNode(tmp_path / "observer") as observer:
            wait_for("the way back", lambda: network.get_height(0) >= height + 3, WAIT_S)
            wait_for("catching up", lambda: observer.get_height() >= height + 3, WAIT_S)
            for api in (network.get_api(2), observer.api):
                assert get_header(api, height) == get_header(network.get_api(0), height)
            models = get_json(observer.api + "/v1/models")
            assert [seat["digest"] for seat in models["models"]] == [digest]
            assert len(models["history"]) == 4
        load_.drain()
    network.wait_height(network.get_height(0), WAIT_S)
    assert genesis_model != [digest]
    for home in (network.get_home(3), tmp_path / "observer"):
        audited = run_assay("audit", "--home", str(home), timeout=WAIT_S)
        assert audited.returncode == 0, (audited.stdout, audited.stderr)
