"""`assay audit` on homes that a real network wrote: beside a running node, and after one byte was changed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.store.block_file import BODY, FINAL, HEAD_BYTES, BlockFile, Record
from node.store.disk import RealDisk
from tests.integration.network_process import NetworkProcess, assert_one_line, run_assay
from tests.integration.steady_load import SteadyLoad


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    with NetworkProcess(tmp_path_factory.mktemp("audit") / "net", "--no-refusals") as running:
        with SteadyLoad(running, 1) as load:
            load.wait_more(300)
            audit_clean(running.get_home(0))
            load.drain()
        yield running


@pytest.fixture(scope="module")
def written(network: NetworkProcess) -> Path:
    """node0's home after an orderly stop."""
    assert network.stop() == 0
    audit_clean(network.get_home(0))
    return network.get_home(0)


@pytest.fixture
def home(written: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "node0"
    shutil.copytree(written, copy)
    return copy


def audit_clean(home: Path) -> None:
    result = run_assay("audit", "--home", str(home), "--json")
    report = json.loads(result.stdout)
    assert report.keys() == {"blocks", "transactions", "ok", "first_bad_height", "problem", "seconds"}
    assert (result.returncode, report["ok"], report["first_bad_height"]) == (0, True, None), report
    assert report["blocks"] > 3
    assert report["transactions"] > 0


def read_records(home: Path) -> list[Record]:
    file = BlockFile.open(RealDisk(), home / "blocks.log", read_only=True)
    try:
        return [item for item in file.scan() if isinstance(item, Record)]
    finally:
        file.close()


def change_byte(path: Path, position: int, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def test_beside_running_nodes_everything_holds(network: NetworkProcess) -> None:
    for index in range(network.nodes):
        audit_clean(network.get_home(index))


Place = Callable[[Record, random.Random], int]
PLACES: dict[str, tuple[int, Place]] = {
    "head of a block": (BODY, lambda record, rng: record.offset + rng.randrange(HEAD_BYTES)),
    "payload of a block": (
        BODY,
        lambda record, rng: record.offset + HEAD_BYTES + rng.randrange(len(record.payload)),
    ),
    "checksum of a block": (BODY, lambda record, rng: record.offset + HEAD_BYTES + len(record.payload) + 3),
    "certificate": (
        FINAL,
        lambda record, rng: record.offset + HEAD_BYTES + rng.randrange(len(record.payload)),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_one_changed_byte_is_found_and_its_block_named(
    home: Path, name: str, seed: int, note_replay: Callable[[str], None]
) -> None:
    rng = random.Random(f"{seed} {name}")
    kind, place = PLACES[name]
    for _ in range(2):
        intact = (home / "blocks.log").read_bytes()
        record = rng.choice([record for record in read_records(home) if record.type == kind])
        position = place(record, rng)
        note_replay(f"byte {position} of blocks.log, in the record of block {record.height} ({name})")
        change_byte(home / "blocks.log", position, rng)
        result = run_assay("audit", "--home", str(home), "--json")
        report = json.loads(result.stdout)
        assert (result.returncode, report["ok"]) == (1, False)
        assert report["first_bad_height"] == record.height, report
        (home / "blocks.log").write_bytes(intact)


def test_a_node_does_not_start_on_a_changed_block_and_the_audit_names_it_in_words(
    home: Path, seed: int
) -> None:
    rng = random.Random(seed)
    record = rng.choice([record for record in read_records(home) if record.type == BODY])
    change_byte(home / "blocks.log", record.offset + HEAD_BYTES + 40, rng)
    result = run_assay("node", "--home", str(home))
    assert_one_line(result, 1, f"block {record.height}", "blocks.log")
    audit = run_assay("audit", "--home", str(home))
    assert audit.returncode == 1
    assert audit.stdout.startswith(f"block {record.height} does not hold: "), audit.stdout


def test_a_changed_checkpoint_is_found_and_named(home: Path, seed: int) -> None:
    rng = random.Random(seed)
    for path in (home / "checkpoints").iterdir():
        size, height = path.stat().st_size, int(path.name.partition("-")[0])
        for position in (rng.randrange(48), rng.randrange(48, size - 32), size - 1):
            intact = path.read_bytes()
            change_byte(path, position, rng)
            report = json.loads(run_assay("audit", "--home", str(home), "--json").stdout)
            assert (report["ok"], report["first_bad_height"]) == (False, height), (position, report)
            path.write_bytes(intact)
    audit_clean(home)


def test_the_index_is_believed_no_more_than_the_blocks(home: Path) -> None:
    other = home.with_name("other")
    shutil.copytree(home, other)
    (other / "blocks.log").unlink()
    result = run_assay("audit", "--home", str(other))
    assert (result.returncode, "blocks.log is missing" in result.stdout) == (1, True), result.stdout


def test_what_is_no_home_is_refused(tmp_path: Path) -> None:
    assert_one_line(run_assay("audit", "--home", str(tmp_path)), 2, "genesis.json", "does not exist")
