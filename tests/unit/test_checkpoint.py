"""Checkpoints: whole or passed over, and few enough."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault, Rejected
from node.simulation.memory_disk import MemoryDisk
from node.store.checkpoint import (
    CHECKPOINTS_MAX,
    NEWEST_KEPT,
    CheckpointFolder,
    CheckpointName,
    choose_kept,
    compute_digest,
)
from node.store.disk import RealDisk
from node.store.reserved_log import ReservingDisk

FOLDER = Path("checkpoints")
NAME = CheckpointName(500, bytes(range(32)))


def write_one(dump: bytes = b"a state") -> tuple[MemoryDisk, CheckpointFolder]:
    disk = MemoryDisk()
    folder = CheckpointFolder(disk, FOLDER)
    folder.write(NAME, [dump[:3], dump[3:]])
    return disk, folder


def test_a_checkpoint_is_read_back_under_its_name() -> None:
    _, folder = write_one()
    assert folder.list_names() == (NAME,)
    checkpoint = folder.read(NAME)
    assert checkpoint is not None
    assert bytes(checkpoint.dump) == b"a state"
    assert checkpoint.digest == compute_digest(NAME, [b"a state"])


@given(st.data())
def test_any_flipped_byte_is_found(data: st.DataObject) -> None:
    disk, folder = write_one()
    content = disk.get_data(FOLDER / NAME.file_name)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Rejected, match="checkpoint 500"):
        folder.read(NAME)


@given(st.integers(0, 86))
def test_any_truncation_is_found(length: int) -> None:
    disk, folder = write_one()
    del disk.get_data(FOLDER / NAME.file_name)[length:]
    with pytest.raises(Rejected, match="checkpoint 500"):
        folder.read(NAME)


def test_a_checkpoint_under_another_name_is_found() -> None:
    disk, folder = write_one()
    other = CheckpointName(501, NAME.block_hash)
    disk.write_file(FOLDER / other.file_name, [bytes(disk.get_data(FOLDER / NAME.file_name))])
    with pytest.raises(Rejected, match="another block"):
        folder.read(other)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "12.state", "000000000012-zz.state", NAME.file_name + ".new"):
        (tmp_path / name).write_bytes(b"?")
    assert CheckpointFolder(RealDisk(), tmp_path).list_names() == ()


def test_what_a_killed_process_left_half_written_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    half = tmp_path / (CheckpointName(400, bytes(32)).file_name + ".new")
    half.write_bytes(b"half")
    other = tmp_path / "notes.new"
    other.write_bytes(b"mine")
    CheckpointFolder(RealDisk(), tmp_path).write(NAME, [b"a state"])
    assert not half.exists()
    assert other.exists()


def test_a_file_system_that_became_read_only_is_a_fault_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    log = ReservingDisk().open_log(tmp_path / "log")
    log.append(b"some")
    with monkeypatch.context() as patch:
        for name in ("fsync", "ftruncate", "unlink"):
            patch.setattr(os, name, refuse)
        with pytest.raises(Fault, match="Read-only"):
            RealDisk().write_file(tmp_path / "file", [b"data"])
        log.close()


def test_a_full_disk_leaves_the_earlier_checkpoints() -> None:
    disk, folder = write_one()
    disk.bytes_left = 10
    with pytest.raises(Fault, match="full"):
        folder.write(CheckpointName(900, bytes(32)), [b"more"])
    assert folder.list_names() == (NAME,)


@given(st.integers(1, 400), st.integers(1, 50))
def test_kept_checkpoints_stay_few_and_reach_back(count: int, step: int) -> None:
    kept: frozenset[int] = frozenset()
    for number in range(1, count + 1):
        kept = choose_kept([*kept, number * step])
    assert len(kept) <= CHECKPOINTS_MAX
    newest = [number * step for number in range(max(1, count - NEWEST_KEPT + 1), count + 1)]
    assert set(newest) <= kept
    for back in range(NEWEST_KEPT, count):
        asked = (count - back) * step
        assert asked - max(height for height in kept if height <= asked) <= 3 * back * step
