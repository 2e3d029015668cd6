"""A disk that fills up: the node stops with one clear line, and goes on once there is space.

On a tmpfs of a few megabytes, mounted for the test; skipped where mounting is not permitted.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.localnet import find_base_port
from tests.integration.network_process import (
    NetworkProcess,
    find_processes,
    run_assay,
    wait_for,
)
from tests.integration.running_node import RunningNode

DISK_BYTES = 8_000_000


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


def fill(folder: Path) -> None:
    """Let a file grow until nothing is left of the disk."""
    with open(folder / "filler", "ab") as file:
        while True:
            usage = os.statvfs(folder)
            size = usage.f_bavail * usage.f_frsize
            if size <= 0:
                return
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise  # else a node took some of it in between


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

        def is_gone() -> bool:
            fill(small_disk)  # what the kernel counts as free lags behind
            return node.get_status() is None

        wait_for("the end of the node", is_gone)
        assert node.wait_end() == 1
    lines = log.read_text().splitlines()
    assert lines[-1].startswith("assay: "), lines[-5:]
    assert "the disk is full" in lines[-1]
    assert "free space" in lines[-1]
    assert "Traceback" not in log.read_text()
    assert find_processes(home) == []
    fill(small_disk)  # a start may free a little of its own
    again = run_assay("node", "--home", str(home))
    assert again.returncode == 1, again.stderr
    assert "space" in again.stderr.splitlines()[-1]
    (small_disk / "filler").unlink()
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

        def are_two_gone() -> bool:
            fill(small_disk)  # what the kernel counts as free lags behind
            return [network.get_status(index) for index in range(4)].count(None) >= 2

        # Two are enough: without a quorum the others have nothing to write.
        wait_for("the end of two", are_two_gone)
        assert network.stop() == 1
        assert "Traceback" not in network.output, network.output
        assert network.output.count("the disk is full") >= 2, network.output
        (small_disk / "filler").unlink()
        network.start()
        height = network.get_height(0)
        network.wait_height(height + 3)
        assert network.stop() == 0
    for index in range(4):
        audit = run_assay("audit", "--home", str(small_disk / "net" / f"node{index}"))
        assert audit.returncode == 0, audit.stdout
