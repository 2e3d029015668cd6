"""The story of docs/reports.md, run: a shop is reported falsely, a payment to it refused; it asks why, and appeals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.network_process import NetworkProcess, get_json, run_assay

pytestmark = pytest.mark.timeout(600)  # its own waits end it before that, and say what they waited for

PAYERS, LIAR, SHOP, VICTIM, STRANGER = (0, 2, 3, 4, 5, 6), 8, 7, 1, 9


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path / "net", "--block-interval", "250ms") as running:
        yield running


class Story:
    """The commands as people type them, each with its own key file."""

    def __init__(self, network: NetworkProcess) -> None:
        self.network = network
        self.api = network.get_api(0)
        accounts = json.loads((network.home / "localnet.json").read_text())["accounts"]
        self.addresses = [account["address"] for account in accounts]
        self.keys: list[Path] = []
        for number, account in enumerate(accounts):
            path = network.home.parent / f"account{number}.key"
            path.write_text(account["private_key"] + "\n")
            path.chmod(0o600)
            self.keys.append(path)

    def assay(self, *arguments: str) -> dict[str, Any]:
        done = run_assay(*arguments, "--api", self.api, "--json")
        assert done.returncode in (0, 1), (arguments, done.stdout, done.stderr)
        return dict(json.loads(done.stdout))

    def pay(self, sender: int, receiver: int, amount: int) -> dict[str, Any]:
        to, key = self.addresses[receiver], str(self.keys[sender])
        return self.assay("send", "--to", to, "--amount", str(amount), "--key", key, "--wait")

    def report(self, *arguments: str, key: Path) -> None:
        sent = self.assay("report", *arguments, "--key", str(key), "--wait")
        assert sent["status"] == "final", (arguments, sent)


def test_a_refused_payment_is_explained_appealed_and_made(network: NetworkProcess) -> None:
    story = Story(network)
    paid = [story.pay(payer, SHOP, 500)["id"] for payer in PAYERS]
    story.pay(STRANGER, LIAR, 1)  # another block above theirs
    for transaction_id in paid:
        story.report("file", transaction_id, key=story.keys[LIAR])
    for _ in range(3):
        story.pay(VICTIM, STRANGER, 500)

    refused = story.pay(VICTIM, SHOP, 2_500)
    assert (refused["status"], refused["outcome"] or "refuse") == ("refused", "refuse")
    verdict = story.assay("explain", refused["id"])
    words = json.dumps(verdict)
    assert "the receiver has 6 unexplained reports within 40 days" in words
    (model,) = get_json(story.api + "/v1/models")["models"]
    shipped = run_assay("model", "inspect", "--json")
    assert model["digest"] in shipped.stdout

    listed = story.assay("report", "list")["reports"]
    assert {case["id"] for case in listed} == set(paid)
    assert {filing["reporter"] for case in listed for filing in case["filings"]} == {story.addresses[LIAR]}
    for transaction_id in paid:
        story.report("dispute", transaction_id, key=story.keys[SHOP])
        for index in range(3):
            key = network.get_home(index) / "validator.key"
            story.report("vote", transaction_id, "--false", key=key)
    cleared = story.assay("report", "list")["reports"]
    assert {(case["finding"], case["told_height"]) for case in cleared} == {("false", None)}
    status = story.assay("report", "status", story.addresses[LIAR])
    assert (status["status"], status["may_report"]) == ("struck off", False)

    made = story.pay(VICTIM, SHOP, 2_500)
    assert made["status"] == "final"
    assert made["score"] < refused["score"]
    record = get_json(f"{story.api}/v1/transactions/{paid[0]}")
    assert record["report"]["finding"] == "false"
    # The nodes' homes stay open to the audit while they run.
    audited = run_assay("audit", "--home", str(network.get_home(1)), "--json")
    assert json.loads(audited.stdout)["ok"]
