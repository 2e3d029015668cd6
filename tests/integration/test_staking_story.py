"""The story of docs/staking.md, run: one joins, one leaves with its money, one is jailed, one lies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node import config
from node.localnet import find_base_port
from tests.integration.network_process import NetworkProcess, get_json, run_assay, wait_for
from tests.integration.running_node import RunningNode

pytestmark = pytest.mark.timeout(600)  # its own waits end it before that, and say what they waited for

EPOCH_BLOCKS = 8  # two seconds of a network with nothing to do
BOND = 1_200_000
EPOCHS_WAIT_S = 40.0  # several epochs on a busy machine


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkProcess]:
    options = ("--epoch-blocks", str(EPOCH_BLOCKS), "--block-interval", "250ms", "--modules", "none")
    with NetworkProcess(tmp_path / "net", *options) as running:
        yield running


class Story:
    """The commands as a person types them. Whatever is told is asked of node 0."""

    def __init__(self, network: NetworkProcess) -> None:
        self.network = network
        self.api = network.get_api(0)
        self.fifth = network.home.parent / "fifth"

    def assay(self, *arguments: str) -> Any:
        done = run_assay(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def stake(self, home: Path, *arguments: str) -> dict[str, Any]:
        report = self.assay("stake", *arguments, "--home", str(home), "--wait")
        assert report["status"] == "final", report
        return dict(report)

    def get_address(self, home: Path) -> str:
        return "0x" + config.read_key(home / "validator.key").address.hex()

    def get_validator(self, home: Path, api: str = "") -> dict[str, Any]:
        return get_json(f"{api or self.api}/v1/validators/{self.get_address(home)}") or {}

    def get_epoch(self) -> int:
        return int(get_json(self.api + "/v1/validators")["epoch"])

    def get_balance(self, home: Path) -> int:
        return int(get_json(f"{self.api}/v1/accounts/{self.get_address(home)}")["balance"])

    def count_sent(self, home: Path) -> int:
        """Transactions of this operator that are final."""
        return int(get_json(f"{self.api}/v1/accounts/{self.get_address(home)}")["nonce"])

    def wait_validator(self, what: str, home: Path, **wanted: Any) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            found = self.get_validator(home)
            return found if found and all(found[name] == value for name, value in wanted.items()) else None

        return dict(wait_for(what, ask, EPOCHS_WAIT_S))

    def list_blocks(self, first: int) -> list[dict[str, Any]]:
        query = f"from={first}&limit=100"
        return list((get_json(f"{self.api}/v1/blocks?{query}") or {"blocks": []})["blocks"])

    # --- chapters -----------------------------------------------------------------------------------

    def make_fifth_home(self) -> None:
        peers: dict[str, dict[str, str]] = {}
        for index in range(4):
            settings = json.loads((self.network.get_home(index) / "node.json").read_text())
            peers |= {peer["name"]: peer for peer in settings["peers"]}
        port = find_base_port(1)
        made = run_assay(
            *("init", "--home", str(self.fifth), "--name", "fifth", "--block-interval", "250ms"),
            *("--genesis", str(self.network.get_home(0) / "genesis.json")),
            *("--p2p-port", str(port), "--api-port", str(port + 1)),
            *(word for p in peers.values() for word in ("--peer", f"{p['name']},{p['url']},{p['node_key']}")),
        )
        assert made.returncode == 0, made.stderr

    def join(self) -> None:
        """The fifth bonds, sits two epochs on, and proposes."""
        address = self.get_address(self.fifth)
        sent = self.assay(
            *(
                "send",
                "--to",
                address,
                "--amount",
                str(BOND + 10_000),
                "--home",
                str(self.network.home),
                "--wait",
            )
        )
        assert sent["status"] == "final", sent
        before = self.get_epoch()
        self.stake(self.fifth, "bond", "--amount", str(BOND), "--commission", "500")
        assert self.get_validator(self.fifth)["index"] is None
        found = self.wait_validator("the fifth's seat", self.fifth, stake=BOND)
        assert found["index"] is not None
        assert self.get_epoch() >= before + 2
        key, first = found["public_key"], self.network.get_height(0)
        wait_for(
            "a block of the fifth's",
            lambda: any(block["header"]["proposer"] == key for block in self.list_blocks(first)),
        )

    def leave(self, home: Path) -> int:
        """One unbonds all and loses its seat; its balance then."""
        self.stake(home, "unbond", "--all")
        (claim,) = self.assay("stake", "status", "--home", str(home))["unbonding"]
        assert (claim["units"] >= 1_000_000, claim["ripe"]) == (True, False)
        self.wait_validator("the end of a seat", home, index=None, stake=0)
        return self.get_balance(home)

    def be_absent(self, index: int) -> None:
        """One is stopped, jailed, comes back and unjails."""
        home = self.network.get_home(index)
        os.kill(self.network.get_pid(index), signal.SIGTERM)
        self.network.wait_ended(index)
        self.wait_validator("jail", home, status="jailed", index=None)
        self.network.restart(index)
        jailed_until = self.get_validator(home)["jailed_until"]
        wait_for("the end of the sentence", lambda: self.get_epoch() >= jailed_until, EPOCHS_WAIT_S)
        wait_for("catching up", lambda: self.network.get_height(index) >= self.network.get_height(0) - 1)
        self.stake(home, "unjail")
        found = self.wait_validator("the seat again", home, status="bonded", index=self._find_seat(home))
        assert found["stake"] > 0

    def _find_seat(self, home: Path) -> int:
        return int(wait_for("a seat", lambda: _say_seat(self.get_validator(home)), EPOCHS_WAIT_S)) - 1

    def lie(self, index: int) -> None:
        """One votes twice in a view: within two epochs it is tombstoned on every node, and a phone sees why."""
        home = self.network.get_home(index)
        stake = self.get_validator(home)["bonded"]
        os.kill(self.network.get_pid(index), signal.SIGTERM)
        self.network.wait_ended(index)
        first, epoch = self.network.get_height(0), self.get_epoch()
        with open(home / "node.log", "ab") as log:
            liar = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.double_voter", str(home)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.wait_validator("the tombstone", home, status="tombstoned")
            evidence = wait_for("the evidence", lambda: self._find_evidence(first, self.get_address(home)))
            assert evidence["header"]["epoch"] <= epoch + 2
            for other in (self.network.get_api(0), self.network.get_api(2), self._get_fifth_api()):
                wait_for("the tombstone everywhere", partial(self._is_tombstoned, home, other))
            assert self.get_validator(home)["bonded"] < stake
            (tx,) = (tx for tx in evidence["transactions"] if tx["kind"] == "evidence")
            verified = self.verify("transaction", tx["id"])
            assert verified["height"] == evidence["header"]["height"]
            self.wait_validator("the end of the liar's seat", home, index=None)
        finally:
            liar.terminate()
            liar.wait(timeout=30)

    def _is_tombstoned(self, home: Path, api: str) -> bool:
        return bool(self.get_validator(home, api).get("status") == "tombstoned")

    def _find_evidence(self, first: int, operator: str) -> dict[str, Any] | None:
        for block in self.list_blocks(first):
            if any(tx["kind"] == "evidence" and tx["receiver"] == operator for tx in block["transactions"]):
                return block
        return None

    def _get_fifth_api(self) -> str:
        return f"http://127.0.0.1:{json.loads((self.fifth / 'node.json').read_text())['api_port']}"

    def verify(self, *arguments: str) -> Any:
        genesis = str(self.network.get_home(0) / "genesis.json")
        apis = ("--api", self.api, "--api", self._get_fifth_api())
        return self.assay("verify", *arguments, "--genesis", genesis, *apis)

    def verify_late(self) -> None:
        """Genesis is older than the unbonding period by now: only a newer checkpoint is trusted."""
        genesis = str(self.network.get_home(0) / "genesis.json")
        late = run_assay("verify", "head", "--genesis", genesis, "--api", self.api)
        assert late.returncode == 2
        assert "its validators may have unbonded" in late.stderr
        final = self.network.get_status(0)["finalized"]
        checkpoint = f"{final['hash']}@{final['height']}"
        wait_for("two more epochs", lambda: self.network.get_height(0) > final["height"] + 2 * EPOCH_BLOCKS)
        apis = ("--api", self._get_fifth_api(), "--api", self.api)
        head = self.assay("verify", "head", "--checkpoint", checkpoint, *apis)
        assert head["ok"]
        assert head["epoch"] > final["height"] // EPOCH_BLOCKS


def _say_seat(found: dict[str, Any]) -> int:
    """Its index and one, so that the first seat is true too; 0 for none."""
    return 0 if found.get("index") is None else int(found["index"]) + 1


def test_the_story_of_stake(network: NetworkProcess) -> None:
    story = Story(network)
    story.make_fifth_home()
    with RunningNode(story.fifth):
        story.join()
        leaver = network.get_home(3)
        balance = story.leave(leaver)
        sent = story.count_sent(leaver)
        story.be_absent(2)
        story.lie(1)

        def is_out() -> bool:
            account = get_json(f"{story.api}/v1/accounts/{story.get_address(leaver)}")
            return bool(account["unbonding"][0]["ripe"])

        wait_for("the end of the unbonding period", is_out, 120.0)
        story.stake(leaver, "withdraw")
        # Its node went on watching, and may have paid for telling the chain of the lie.
        fees = story.count_sent(leaver) - sent
        assert fees in (1, 2)
        assert story.get_balance(leaver) >= balance + 1_000_000 - fees
        story.verify_late()
