"""The demo and a replay as a person runs them: real processes, a report that adds up, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml.dataset import write_trace
from ml.synthetic import generate_workload
from node.engine.journal import check_single_votes, read_journal
from tests.integration.network_process import ASSAY, NetworkProcess, run_assay, wait_for

pytestmark = pytest.mark.timeout(600)  # its own waits end it before that, and say what they waited for


def check_sums(report: dict[str, Any], rows: int) -> None:
    assert report["submitted"] == rows
    assert report["submitted"] == report["final"] + report["refused"] + report["failed"]
    assert report["failed"] == 0
    assert report["nodes_agree"] is True


def test_the_demo_shows_what_it_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run_assay("demo", "--report", str(path), timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    check_sums(report, 9_117)
    assert report["quality"]["confusion"]["refused"]["fraud"] > 50
    assert report["quality"]["average_precision"] > 0.45
    assert report["reports"]["final"] > 50
    for words in (
        "validators are up",
        "refused, and why",
        "all 4 nodes hold state root",
        "recall",
        "latency",
    ):
        assert words in done.stdout
    assert done.stdout.count("score 9") >= 3  # three refused ones, explained


def test_a_replay_loses_nothing_when_the_node_it_sends_to_is_killed(
    tmp_path: Path, seed: int, note_replay: Callable[[str], None]
) -> None:
    note_replay(f"ASSAY_SEED={seed} scripts/test tests/integration/test_demo.py")
    workload = generate_workload(seed, accounts=200, days=20, per_day=200)
    csv, path = tmp_path / "town.csv", tmp_path / "report.json"
    write_trace(csv, workload.trace)
    with NetworkProcess(tmp_path / "net") as network:
        replay = subprocess.Popen(
            [*ASSAY, "replay", str(csv), "--home", str(network.home), "--report", str(path), "--rate", "400"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            height = network.get_height(1)
            wait_for("rows in blocks", lambda: network.get_height(1) > height + 10)
            network.kill(0)
            wait_for("the others going on", lambda: network.get_height(1) > height + 20)
            network.restart(0)
            out, err = replay.communicate(timeout=120)
        finally:
            if replay.poll() is None:
                replay.send_signal(signal.SIGKILL)
                replay.wait()
        assert replay.returncode == 0, out + err
        check_sums(json.loads(path.read_text(encoding="utf-8")), len(workload.trace))
        roots = {network.get_status(index)["finalized"]["height"] for index in range(4)}
        assert min(roots) > height + 20
    check_single_votes(read_journal(tmp_path / "net" / "node0" / "journal"))
    for index in range(4):
        audit = run_assay("audit", "--home", str(tmp_path / "net" / f"node{index}"))
        assert audit.returncode == 0, audit.stdout + audit.stderr
