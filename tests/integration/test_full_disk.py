"""A disk that fills up: the node stops with one clear line, and goes on once there is space.

On a tmpfs of a few megabytes, mounted for the test; skipped where mounting is not permitted.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.network_process import (
    NetworkProcess,
    find_base_port,
    find_processes,
    run_assay,
    wait_for,
)
from tests.integration.running_node import RunningNode

DISK_BYTES = 8_000_000
LEFT_BYTES = 100_000  # a few dozen blocks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left_bytes: int) -> Path:
    """A file that leaves this much of the disk."""
    usage = os.statvfs(folder)
    filler = folder / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, usage.f_bavail * usage.f_frsize - left_bytes))
    return filler


def test_a_node_on_a_full_disk_stops_with_one_line_and_goes_on_with_space(
    small_disk: Path, tmp_path: Path
) -> None:
    home, port = small_disk / "home", find_base_port(1)
    made = run_assay(
        *("init", "--home", str(home), "--block-interval", "0"),
        *("--p2p-port", str(port), "--api-port", str(port + 1)),
    )
    assert made.returncode == 0, made.stderr
    log = tmp_path / "node.log"
    with RunningNode(home, log) as node:
        wait_for("some blocks", lambda: node.get_height() >= 5)
        filler = fill(small_disk, LEFT_BYTES)
        assert node.wait_end() == 1
    lines = log.read_text().splitlines()
    assert lines[-1].startswith("assay: "), lines[-5:]
    assert "the disk is full" in lines[-1]
    assert "free space" in lines[-1]
    assert find_processes(home) == []
    # Still full: it says so again, or runs until it is; nothing is damaged by trying.
    again = run_assay("node", "--home", str(home))
    assert again.returncode == 1, again.stderr
    assert "the disk is full" in again.stderr.splitlines()[-1]
    filler.unlink()
    with RunningNode(home, log) as node:
        wait_for("the old height", lambda: node.get_height() >= 5)
        top = node.get_height()
        wait_for("more blocks", lambda: node.get_height() > top + 3)
        assert node.stop() == 0
    audit = run_assay("audit", "--home", str(home))
    assert audit.returncode == 0, audit.stdout


def test_a_local_network_on_a_full_disk_names_the_disk_and_goes_on_with_space(small_disk: Path) -> None:
    with NetworkProcess(small_disk / "net", "--block-interval", "0") as network:
        network.wait_height(3)
        filler = fill(small_disk, LEFT_BYTES)
        for index in range(4):
            wait_for(f"the end of node {index}", lambda index=index: network.get_status(index) is None)
        assert network.stop() == 1
        assert "Traceback" not in network.output, network.output
        assert network.output.count("the disk is full") == 4
        filler.unlink()
        network.start()
        height = network.get_height(0)
        network.wait_height(height + 3)
        assert network.stop() == 0
    for index in range(4):
        audit = run_assay("audit", "--home", str(small_disk / "net" / f"node{index}"))
        assert audit.returncode == 0, audit.stdout
