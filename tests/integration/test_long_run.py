"""Three minutes of steady load on four validators: what must not grow does not. `assay bench` has it in hours.

First so many transactions that whatever remembers a bounded number of them is full.
"""

import asyncio
from pathlib import Path

import pytest

from node.audit import audit_home
from node.bench import network, workload
from node.bench.driver import Load, LoadRun, drive
from node.bench.load import OPEN
from node.bench.long_run import compute_rows, run_steadily
from node.bench.network import RunningNetwork
from node.bench.sampling import Samples
from node.bench.window import compute_mean_backlog
from node.verification import VERIFIED_IDS_MAX

REMEMBERED_MAX = VERIFIED_IDS_MAX  # the longest of a node's memories
FILL_BATCH, FILL_WAITING = 250, 8_000
FILL_SECONDS_MAX = 240
SECONDS = 180
RATE = 400  # a tenth of what two idle cores sustain: other tests run beside this one
BATCH = 100  # two processes submit twice a second each
FIRST = REMEMBERED_MAX + 10_000
END = FIRST + RATE * SECONDS
RAMP_S = 10
WAITING_SECONDS_MAX = 3  # of load, on average: whoever submits is answered for within about that


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_grows_under_a_steady_load(tmp_path: Path, seed: int) -> None:
    path = workload.provide_transactions(tmp_path, seed, END)
    network.lay_out(tmp_path / "net", 4, seed, 1_000)
    with network.run_network(tmp_path / "net") as running:
        run, samples = asyncio.run(fill_and_go_on(running, path))
    assert (run.accepted, run.lost) == (END - FIRST, 0)
    assert_that_nothing_grew(run, samples)
    report = audit_home(tmp_path / "net" / "node0")
    assert (report.ok, report.problem, report.transactions) == (True, None, END)


async def fill_and_go_on(running: RunningNetwork, path: Path) -> tuple[LoadRun, Samples]:
    fill = Load(path, 0, FIRST, FILL_BATCH, 2, waiting_max=FILL_WAITING)
    assert (await drive(running.urls, fill, FILL_SECONDS_MAX)).accepted == FIRST
    return await run_steadily(running, Load(path, FIRST, END, BATCH, 2, OPEN, RATE), SECONDS + 30)


def assert_that_nothing_grew(run: LoadRun, samples: Samples) -> None:
    rows = compute_rows(run, samples, RAMP_S, SECONDS)
    assert rows["long_run_rss_growth"] <= 1.15, rows
    assert rows["long_run_slowdown"] <= 1.5, rows
    final = run.watch.all_times_s, run.watch.all_totals
    end_s = run.started_s + SECONDS
    waiting = compute_mean_backlog(run.list_due(), final, end_s - SECONDS / 3, end_s)
    assert waiting <= WAITING_SECONDS_MAX * RATE
