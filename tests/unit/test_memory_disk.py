"""The simulated world's disk: as hostile as a real one, and no more."""

from __future__ import annotations

import random
from concurrent.futures import Executor
from itertools import count
from pathlib import Path
from unittest.mock import sentinel

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault, Rejected
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import EndedProcessError, ProcessDisk
from tests.chain_factory import ChainFactory

LOG, OTHER, WHOLE = Path("home/log"), Path("home/other"), Path("home/checkpoints/whole")
NO_EXECUTOR: Executor = sentinel.executor


@given(garbles=st.booleans(), seed=st.integers(0, 2**32))
def test_a_crash_leaves_what_was_synced_and_of_the_rest_no_more_than_was_written(
    garbles: bool, seed: int
) -> None:
    disk, rng = MemoryDisk(garbles=garbles), random.Random(seed)
    written = dict.fromkeys((LOG, OTHER), b"")
    for path in written:
        log = disk.open_log(path)
        log.append(b"durable")
        log.sync()
        for _ in range(rng.randrange(4)):
            log.append(rng.randbytes(rng.randrange(1, 20)))
        written[path] = log.read(0, 1_000)
    disk.crash(rng)
    for path, data in written.items():
        left = bytes(disk.get_data(path))
        assert left.startswith(b"durable")
        assert len(left) <= len(data)
        assert garbles or data.startswith(left)
        assert disk.get_durable_bytes(path) == len(left)


def test_a_crash_garbles_in_every_way_that_it_can() -> None:
    """Nothing, a part, a part and zeros, a part and noise: each comes up in a hundred crashes."""
    tail, seen = bytes(range(1, 101)), set()
    for seed in range(100):
        disk = MemoryDisk(garbles=True)
        disk.open_log(LOG).append(tail)
        disk.crash(random.Random(seed))
        left = bytes(disk.get_data(LOG))
        is_whole = len(left) == len(tail)
        seen.add((bool(left), is_whole, is_whole and left.endswith(b"\0")))
    assert seen == {
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    }


def test_a_full_disk_takes_nothing_of_an_append_and_keeps_a_file_that_was_to_be_replaced() -> None:
    disk = MemoryDisk()
    log = disk.open_log(LOG)
    log.append(b"one")
    disk.write_file(WHOLE, [b"old"])
    disk.bytes_left = 2
    for write in (lambda: log.append(b"two"), lambda: disk.write_file(WHOLE, [b"n", b"ew"])):
        with pytest.raises(Fault, match="disk is full") as caught:
            write()
        assert caught.value.code == "disk"
    assert log.read(0, 10) == b"one"
    assert disk.read_file(WHOLE) == b"old"
    disk.mend()
    assert log.append(b"two") == 3


def test_after_a_failed_sync_a_log_answers_nothing_but_faults() -> None:
    disk = MemoryDisk()
    process = ProcessDisk(disk)
    log = process.open_log(LOG)
    log.append(b"one")
    disk.is_sync_failing = True
    with pytest.raises(Fault, match="durable"):
        log.sync()
    with pytest.raises(Fault, match="durable"):
        process.write_file(WHOLE, [b"new"])
    disk.mend()
    for act in (log.sync, lambda: log.append(b"two"), lambda: log.truncate(0)):
        with pytest.raises(Fault, match="durable"):
            act()
    assert disk.get_durable_bytes(LOG) == 0
    assert disk.read_file(WHOLE) is None


def test_a_flipped_bit_is_one_bit_in_the_first_quarter_of_a_long_enough_file() -> None:
    disk = MemoryDisk()
    disk.write_file(LOG, [bytes(8_000)])
    assert not disk.flip_bit(LOG, random.Random(1), 10_000)
    assert disk.flip_bit(LOG, random.Random(1))
    assert not disk.flip_bit(OTHER, random.Random(1))
    data = disk.get_data(LOG)
    assert sum(byte.bit_count() for byte in data) == 1
    assert not any(data[2_000:])


def test_a_deleted_store_is_gone_with_its_index_and_nothing_else_is() -> None:
    factory = ChainFactory()
    factory.grow(1)
    disk = MemoryDisk()
    process = ProcessDisk(disk)
    disk.write_file(LOG, [b"log"])
    disk.write_file(WHOLE, [b"checkpoint"])
    process.open_index(Path("home/index"), b"chain", NO_EXECUTOR).add_block(factory.blocks[0])
    for path in (Path("home/index"), Path("home/checkpoints")):
        disk.remove_all(path)
    assert disk.list_names(WHOLE.parent) == ()
    assert disk.read_file(LOG) == b"log"
    assert process.open_index(Path("home/index"), b"chain", NO_EXECUTOR).last == (0, b"")


def test_a_lock_is_one_process_and_no_longer_than_its_life() -> None:
    disk = MemoryDisk()
    first, second = ProcessDisk(disk), ProcessDisk(disk)
    lock = first.acquire_lock(Path("home/lock"))
    with pytest.raises(Rejected, match="locked"):
        second.acquire_lock(Path("home/lock"))
    first.end()
    second.acquire_lock(Path("home/lock"))
    lock.release()  # by a coroutine of the dead process
    with pytest.raises(Rejected, match="locked"):
        ProcessDisk(disk).acquire_lock(Path("home/lock"))
    disk.crash(random.Random(1))
    ProcessDisk(disk).acquire_lock(Path("home/lock"))


def test_nothing_of_an_ended_process_reaches_its_disk() -> None:
    factory = ChainFactory()
    factory.grow(1)
    disk = MemoryDisk()
    process = ProcessDisk(disk)
    log, index = process.open_log(LOG), process.open_index(Path("index"), b"chain", NO_EXECUTOR)
    log.append(b"one")
    process.end()
    acts = (
        lambda: log.append(b"two"),
        log.sync,
        lambda: log.truncate(0),
        lambda: log.read(0, 1),
        lambda: log.size,
        lambda: process.open_log(OTHER),
        lambda: process.write_file(WHOLE, [b"late"]),
        lambda: process.read_file(LOG),
        lambda: process.remove(LOG),
        lambda: process.list_names(LOG.parent),
        lambda: index.add_block(factory.blocks[0]),
        lambda: index.last,
        index.clear,
    )
    for act in acts:
        with pytest.raises(EndedProcessError):
            act()
    log.close()
    index.close()
    index.abandon()
    assert disk.get_durable_bytes(LOG) == 0
    assert disk.read_file(LOG) == b"one"
    assert disk.read_file(OTHER) is disk.read_file(WHOLE) is None


def write_all(disk: ProcessDisk) -> None:
    """Five effects."""
    log = disk.open_log(LOG)
    log.append(b"one")
    log.sync()
    disk.write_file(WHOLE, [b"whole"])
    disk.remove(WHOLE)
    log.truncate(0)


def end_before(effect: int) -> MemoryDisk:
    """What a process leaves that is ended before its n-th effect."""
    disk, effects = MemoryDisk(), count(1)

    def at_effect() -> None:
        if next(effects) == effect:
            process.end()

    process = ProcessDisk(disk, at_effect)
    with pytest.raises(EndedProcessError):
        write_all(process)
    return disk


def test_a_process_can_be_ended_before_each_effect_on_its_disk() -> None:
    disks = [end_before(effect) for effect in range(1, 6)]
    assert [(disk.read_file(LOG), disk.get_durable_bytes(LOG), disk.read_file(WHOLE)) for disk in disks] == [
        (b"", 0, None),
        (b"one", 0, None),
        (b"one", 3, None),
        (b"one", 3, b"whole"),
        (b"one", 3, None),
    ]


@given(stored=st.integers(0, 12), seed=st.integers(0, 2**32))
def test_a_crash_leaves_the_index_of_the_first_blocks(
    stored: int, seed: int, twelve_blocks: ChainFactory
) -> None:
    disk = MemoryDisk()
    blocks = twelve_blocks.blocks[:stored]
    index = ProcessDisk(disk).open_index(Path("index"), b"chain", NO_EXECUTOR)
    for block in blocks:
        index.add_block(block)
    disk.crash(random.Random(seed))
    index = ProcessDisk(disk).open_index(Path("index"), b"chain", NO_EXECUTOR)
    height, last_hash = index.last
    assert height == 0 or blocks[height - 1].hash == last_hash
    for block in blocks:
        is_left = block.header.height <= height
        assert (index.find_block(block.hash) == block.header.height) == is_left
        for place, tx in enumerate(block.transactions):
            assert index.find_transaction(tx.id) == ((block.header.height, place) if is_left else None)


@pytest.fixture(scope="module")
def twelve_blocks() -> ChainFactory:
    factory = ChainFactory()
    factory.grow(12)
    return factory
