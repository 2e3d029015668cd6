"""The refusal log on disk: append-only, the same after any crash, and damage is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import merkle
from consensus.errors import Fault, Rejected
from consensus.refusal import EMPTY_LOG, LogBeginning, LogHead, RefusalEntry, verify_entry, verify_extension
from consensus.transaction import Transaction
from node.simulation.memory_disk import MemoryDisk
from node.store.disk import RealDisk
from node.store.refusal_log import Logged, RefusalLog, Searched
from tests.chain_factory import ChainFactory

HOME = Path("home")
CHAIN = b"g" * 32
PATH = HOME / "refusals-0.log"
TRANSACTION: Transaction = ChainFactory().transfer(0, 1)


def make_entry(number: int, *, modules: bytes = b"m" * 32) -> RefusalEntry:
    reasons = ("amount is 5 times the mean",) * (number % 3)
    return RefusalEntry(merkle.hash_leaf(bytes([number])), 9_000, modules, reasons, 1_000 + number, number)


def open_log(disk: MemoryDisk) -> RefusalLog:
    return RefusalLog.open(disk, HOME, CHAIN)


def fill(disk: MemoryDisk, count: int) -> RefusalLog:
    log = open_log(disk)
    for number in range(count):
        assert log.append(make_entry(number), TRANSACTION) == number
    log.sync()
    return log


def read_all(log: RefusalLog) -> list[Logged]:
    return [log.get(index) for index in range(len(log))]


def test_an_empty_log_has_the_empty_root() -> None:
    log = open_log(MemoryDisk())
    assert (len(log), log.get_head(), log.find(b"x" * 32)) == (0, EMPTY_LOG, ())
    assert log.holds(EMPTY_LOG)
    with pytest.raises(IndexError):
        log.get(0)


@given(st.integers(1, 40), st.data())
@settings(max_examples=40)
def test_any_log_proves_every_entry_and_every_earlier_self(count: int, data: st.DataObject) -> None:
    log = fill(MemoryDisk(), count)
    size = data.draw(st.integers(1, count))
    index = data.draw(st.integers(0, size - 1))
    head, proof = log.get_head(size), log.prove_inclusion(index, size)
    assert verify_entry(head, log.get(index).leaf, index, proof)
    assert not verify_entry(head, log.get(index).leaf[:-1], index, proof)
    assert verify_extension(head, log.get_head(), log.prove_consistency(size, count))
    assert log.holds(head)
    assert not log.holds(LogHead(size, b"x" * 32))
    assert not log.holds(LogHead(count + 1, head.root))


def test_a_restart_gives_the_same_log(tmp_path: Path) -> None:
    log = RefusalLog.open(RealDisk(), tmp_path, CHAIN)
    for number in range(300):  # more than a tile
        log.append(make_entry(number % 250), TRANSACTION)
    log.mark(Searched(12, 9))
    head, entries = log.get_head(), read_all(log)
    log.close()
    again = RefusalLog.open(RealDisk(), tmp_path, CHAIN)
    assert (again.get_head(), read_all(again), again.searched) == (head, entries, Searched(12, 9))
    assert again.find(make_entry(3).transaction_id) == (again.get(3), again.get(253))
    assert again.get(3).transaction == TRANSACTION
    assert verify_entry(head, again.get(3).leaf, 3, again.prove_inclusion(3, 300))
    again.close()


def test_a_torn_tail_is_cut_off_at_every_byte() -> None:
    disk = MemoryDisk()
    log = fill(disk, 2)
    whole, head = bytes(disk.get_data(PATH)), log.get_head()
    log.append(make_entry(2), TRANSACTION)
    last = bytes(disk.get_data(PATH))[len(whole) :]
    for kept in range(len(last)):
        for rest in (b"", bytes(len(last) - kept)):  # a file may be longer than what reached it
            data = disk.get_data(PATH)
            data[:] = whole + last[:kept] + rest
            again = open_log(disk)
            is_whole = kept + len(rest) == len(last) and last[kept:] == rest
            assert len(again) == 2 + is_whole, kept
            assert again.get_head(2) == head
            again.append(make_entry(2), TRANSACTION)
            assert len(open_log(disk)) == 3 + is_whole


def test_a_file_torn_in_its_first_record_begins_again() -> None:
    disk = MemoryDisk()
    open_log(disk)
    first = bytes(disk.get_data(PATH))
    for kept in range(len(first)):
        disk.get_data(PATH)[:] = first[:kept]
        assert len(open_log(disk)) == 0
        assert bytes(disk.get_data(PATH)) == first


def test_damage_before_the_end_says_what_to_do(seed: int) -> None:
    disk = MemoryDisk()
    fill(disk, 6)
    whole = bytes(disk.get_data(PATH))
    sizes = [open_log(disk)._offsets[index] for index in range(6)]
    rng = random.Random(seed)
    for _ in range(200):
        data = disk.get_data(PATH)
        data[:] = whole
        place = rng.randrange(8 * sizes[5])
        data[place // 8] ^= 1 << place % 8
        with pytest.raises(Fault, match="damaged at byte") as caught:
            open_log(disk)
        assert "move refusals-0.log away" in caught.value.mend


def test_another_chains_log_is_refused() -> None:
    disk = MemoryDisk()
    fill(disk, 1)
    with pytest.raises(Rejected, match="another chain"):
        RefusalLog.open(disk, HOME, b"h" * 32)


def test_a_new_log_begins_with_what_was_lost_and_the_old_file_stays() -> None:
    disk = MemoryDisk()
    log = fill(disk, 3)
    log.mark(Searched(40, 38))
    beginning = LogBeginning(log.get_head(), b"b" * 32, 38, 5)
    anew = log.begin_anew(beginning)
    assert [logged.entry for logged in read_all(anew)] == [beginning]
    assert anew.get(0).transaction is None
    assert disk.list_names(HOME) == ("refusals-0.log", "refusals-1.log")
    again = open_log(disk)
    assert (again.number, again.get_head(), again.searched) == (1, anew.get_head(), Searched(40, 38))


def test_what_sync_returned_for_survives_a_crash(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        disk = MemoryDisk(garbles=True)
        log = fill(disk, rng.randrange(1, 5))
        head = log.get_head()
        for number in range(rng.randrange(4)):
            log.append(make_entry(100 + number), TRANSACTION)
        disk.crash(rng)
        again = open_log(disk)
        assert again.holds(head)
        assert [logged.index for logged in read_all(again)] == list(range(len(again)))


def test_a_full_disk_leaves_the_log_as_it_was() -> None:
    disk = MemoryDisk()
    log = fill(disk, 2)
    head = log.get_head()
    disk.bytes_left = 3
    with pytest.raises(Fault, match="full"):
        log.append(make_entry(2), TRANSACTION)
    assert log.get_head() == head
    disk.mend()
    assert log.append(make_entry(2), TRANSACTION) == 2
