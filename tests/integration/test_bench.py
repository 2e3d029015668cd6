"""`assay bench` as a person runs it, in small sizes: what it prints, what it leaves behind (nothing)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.network_process import (
    ASSAY,
    assert_one_line,
    find_processes,
    run_assay,
    run_here,
    wait_for,
)


def test_rows_asked_for_are_measured_and_written_as_promised(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    done = run_assay(
        *("bench", "--quick", "--home", str(tmp_path / "bench"), "--json", "--output", str(output)),
        *("--row", "reexecute", "--row", "latency_unloaded", "--row", "score_us_per_tx"),
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert json.loads(output.read_text()) == document
    assert document["raw_verify_per_second"] > 0
    names = [row["name"] for row in document["rows"]]
    assert names == ["reexecute", "latency_unloaded_p50_ms", "latency_unloaded_p99_ms", "score_us_per_tx"]
    assert all(row["value"] > 0 for row in document["rows"])
    assert document["rows"][0]["ratio_to_raw"] > 0
    left = [path.name for path in (tmp_path / "bench").iterdir()]
    assert len(left) == 1, left
    assert left[0].startswith("signed-")
    compared = run_assay("bench", "--compare", str(output), str(output))
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("same") == len(names)


def test_a_network_under_load_is_measured_or_the_row_says_why_not(tmp_path: Path) -> None:
    done = run_assay(
        *("bench", "--quick", "--home", str(tmp_path / "bench"), "--json", "--row", "one_validator_tps"),
        timeout=110,
    )
    (row,) = json.loads(done.stdout)["rows"]
    # On a machine that is busy with other tests too few blocks may come in a window of seconds.
    reason = re.search(r"one_validator failed: (window: only \d blocks|backlog: grew )", done.stderr)
    assert (row["value"] or 0) > 0 or (done.returncode == 1 and reason), done.stderr


def test_a_sweep_writes_points_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "messages.svg"
    done = run_assay(
        *("bench", "--quick", "--home", str(tmp_path / "bench"), "--sweep", "message_size"),
        *("--output", str(picture)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_text().startswith("<svg")
    points = json.loads(picture.with_suffix(".json").read_text())["points"]
    assert [point["x"] for point in points] == [100, 1_000]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_it_leaves_nobody_behind(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "bench"
    bench = subprocess.Popen(
        [*ASSAY, "bench", "--quick", "--home", str(home), "--row", "idle"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for("the network", lambda: list(home.glob("run-*/net/localnet.json")))
        bench.send_signal(number)
        out, _ = bench.communicate(timeout=60)
    finally:
        if bench.poll() is None:
            bench.kill()
            bench.wait()
    wait_for("the end of all its processes", lambda: not find_processes(home))
    if number is not signal.SIGKILL:
        assert (bench.returncode, out.splitlines()[-1:]) == (130, ["assay: interrupted"])
        assert not list(home.glob("run-*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--row", "speed"], ("--row", '"speed" is not a row', "four_validator_tps")),
        (["--compare", "absent.json", "gone.json"], ("absent.json", "cannot be read")),
        (["--minutes", "0"], ("--minutes",)),
        (["--seed", "-1"], ("--seed",)),
        (["--sweep", "colours"], ("--sweep",)),
        (["--output", "/absent/bench.json"], ("--output", "cannot be written")),
    ],
)
def test_bad_use_is_one_line(
    arguments: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(run_here(capsys, "bench", "--home", str(tmp_path / "bench"), *arguments), 2, *words)


def test_a_home_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    result = run_here(capsys, "bench", "--home", str(tmp_path / "file"), "--row", "score")
    assert_one_line(result, 2, "--home", "choose another folder")
