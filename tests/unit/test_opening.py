"""The end of a block file after a power cut: cut off when nobody can miss it, and only then."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.bft.restore import Record
from consensus.errors import Fault
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Subject, Vote
from node.engine.journal import Journal
from node.recovery import JOURNAL_NAME, MARK_NAME, Recovery, recover
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import ProcessDisk
from node.store import opening
from node.store.block_file import HEAD_BYTES
from node.store.store import BLOCKS_NAME, Store
from tests.chain_factory import ChainFactory

HOME = Path("home")
FINAL = 3  # blocks that are final; two more are durable above them
LENGTH = FINAL + 2


@pytest.fixture(scope="module")
def factory() -> ChainFactory:
    made = ChainFactory()
    made.grow(LENGTH)
    return made


class Machine:
    """A disk with a store on it: three final blocks and two above them. `last` is where the last body begins."""

    def __init__(self, factory: ChainFactory) -> None:
        self.factory = factory
        self.disk = MemoryDisk()
        store = self.open_store()
        for height, block in enumerate(factory.blocks, start=1):
            self.last = self.size
            store.put_block(block)
            store.sync()
            if height <= FINAL:
                store.put_final(factory.finalizations[height - 1], (block,))
                store.sync()
        store.close()

    @property
    def data(self) -> bytearray:
        return self.disk.get_data(HOME / BLOCKS_NAME)

    @property
    def size(self) -> int:
        return len(self.data)

    def open_store(
        self, list_vouched: Callable[[], Collection[tuple[int, bytes]] | None] = lambda: None
    ) -> Store:
        disk = ProcessDisk(self.disk)
        return Store.open(
            HOME, self.factory.rules, disk=disk, open_index=disk.open_index, list_vouched=list_vouched
        )

    def vote(self, *records: Record) -> None:
        """What the journal holds of this validator's, and of quorums'."""
        journal, _, _ = Journal.open(HOME / JOURNAL_NAME, mark_path=HOME / MARK_NAME, disk=self.disk)
        journal.append(records)
        journal.sync()
        journal.close()

    def recover(self) -> Recovery:
        disk = ProcessDisk(self.disk)
        return recover(HOME, self.factory.rules, disk=disk, open_index=disk.open_index)


@pytest.fixture
def machine(factory: ChainFactory) -> Machine:
    return Machine(factory)


def make_vote(factory: ChainFactory, height: int, kind: int = NOTARIZE) -> Vote:
    """Validator 0's. `height` is the block's; a nullification is of the view after it."""
    header = factory.blocks[height - 1].header
    subject = Subject(0, kind, header.view, header.hash)
    if kind == NULLIFY:
        subject = Subject(0, kind, header.view + 1, NO_BLOCK)
    return Vote(subject, 0, factory.validator_keys[0].sign(subject.compute_digest(factory.rules.chain_id)))


def blacken(machine: Machine, start: int) -> None:
    """From here on the length reached the disk and the bytes did not; the record's head did."""
    place = start + HEAD_BYTES + 2
    machine.data[place:] = b"\xaa" * (machine.size - place)


def test_a_damaged_last_body_that_nobody_was_promised_is_cut_off(
    machine: Machine, factory: ChainFactory, caplog: pytest.LogCaptureFixture
) -> None:
    blacken(machine, machine.last)
    with caplog.at_level(logging.WARNING):
        recovery = machine.recover()
    assert "damaged end cut off" in caplog.text
    assert recovery.state.header == factory.blocks[FINAL - 1].header
    assert recovery.unfinal == (factory.blocks[FINAL],)
    assert machine.size == machine.last
    recovery.store.put_block(factory.blocks[-1])
    recovery.store.sync()
    recovery.journal.close()
    recovery.store.close()
    assert machine.recover().unfinal == tuple(factory.blocks[FINAL:])


@pytest.mark.parametrize("kind", [NOTARIZE, FINALIZE])
def test_a_damaged_last_body_that_a_vote_vouches_for_stops_the_start_every_time(
    kind: int, machine: Machine, factory: ChainFactory
) -> None:
    machine.vote(make_vote(factory, LENGTH, kind))
    blacken(machine, machine.last)
    before = bytes(machine.data)
    for _ in range(2):
        with pytest.raises(Fault, match=f"block {LENGTH}: the checksum"):
            machine.recover()
        assert machine.data == before


def test_votes_for_what_is_still_there_do_not_keep_the_damaged_end(
    machine: Machine, factory: ChainFactory
) -> None:
    votes = [make_vote(factory, height) for height in range(1, LENGTH)]
    machine.vote(*votes, make_vote(factory, LENGTH - 1, NULLIFY), factory.certify(factory.blocks[-1].header))
    blacken(machine, machine.last)
    assert machine.recover().unfinal == (factory.blocks[FINAL],)


def test_a_vote_below_the_final_chain_needs_no_body(machine: Machine, factory: ChainFactory) -> None:
    """Its block was abandoned, or is final and here under another vote's name."""
    old = Subject(0, NOTARIZE, 1, bytes(32))
    machine.vote(Vote(old, 0, factory.validator_keys[0].sign(old.compute_digest(factory.rules.chain_id))))
    blacken(machine, machine.last)
    assert machine.recover().store.finalized_height == FINAL


def test_without_a_sound_journal_the_damaged_end_stays(machine: Machine, factory: ChainFactory) -> None:
    blacken(machine, machine.last)
    machine.vote(make_vote(factory, 1))
    journal = machine.disk.get_data(HOME / JOURNAL_NAME)
    sound = bytes(journal)
    journal[4] ^= 1  # of the first record: sound ones follow
    with pytest.raises(Fault, match=f"block {LENGTH}"):
        machine.recover()
    machine.disk.remove(HOME / JOURNAL_NAME)  # and the mark beside the key says that it has voted
    with pytest.raises(Fault, match=f"block {LENGTH}"):
        machine.recover()
    machine.disk.write_file(HOME / JOURNAL_NAME, [sound])
    assert machine.recover().store.finalized_height == FINAL


def test_damage_with_a_sound_record_after_it_is_never_cut_off(machine: Machine) -> None:
    machine.data[machine.last - 3] ^= 1
    with pytest.raises(Fault, match=f"block {FINAL + 1}"):
        machine.open_store(lambda: ())


def test_an_end_too_long_for_one_write_is_never_cut_off(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "UNSYNCED_BYTES_MAX", 100)
    blacken(machine, machine.last)
    with pytest.raises(Fault, match=f"block {LENGTH}"):
        machine.open_store(lambda: ())


@given(synced=st.integers(1, LENGTH), seed=st.integers(0, 2**32))
def test_whatever_a_power_cut_leaves_of_the_last_writes_the_node_starts(
    synced: int, seed: int, factory: ChainFactory
) -> None:
    """It voted for all that was synced, as a validator does; of the rest anything may be there."""
    rng = random.Random(seed)
    disk = MemoryDisk(garbles=True)
    process = ProcessDisk(disk)
    store = Store.open(HOME, factory.rules, disk=process, open_index=process.open_index)
    for height, block in enumerate(factory.blocks, start=1):
        store.put_block(block)
        if height <= synced:
            store.sync()
        if rng.random() < 0.5:
            store.put_final(
                factory.finalizations[height - 1], factory.blocks[store.finalized_height : height]
            )
    journal, _, _ = Journal.open(HOME / JOURNAL_NAME, mark_path=HOME / MARK_NAME, disk=process)
    journal.append([make_vote(factory, height) for height in range(1, synced + 1)])
    journal.sync()
    process.end()
    disk.crash(rng)
    process = ProcessDisk(disk)
    recovery = recover(HOME, factory.rules, disk=process, open_index=process.open_index)
    store = recovery.store
    assert recovery.state.header == store.finalized
    assert all(store.get_block(block.hash) == block for block in factory.blocks[:synced])
    assert store.find_transaction(factory.blocks[-1].transactions[0].id) in (None, (LENGTH, 0))
