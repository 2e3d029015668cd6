"""The journal: durable before audible, and honest about what it lost."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.bft.contract import Proposal
from consensus.errors import Fault, Rejected
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Vote
from node.engine.journal import Journal, JournalStatus, check_single_votes, read_journal
from node.simulation.memory_disk import MemoryDisk
from node.store.disk import RealDisk
from tests.fakes.engine_bench import Bench

BENCH = Bench()
PATH, MARK = Path("journal"), Path("keys/validator.voted")
VOTES = [BENCH.vote(3, NULLIFY, view) for view in range(1, 9)]


def open_on(
    disk: MemoryDisk, epoch: int = 0
) -> tuple[Journal, list[Vote | Certificate | Proposal], JournalStatus]:
    journal, records, status = Journal.open(PATH, mark_path=MARK, epoch=epoch, disk=disk)
    return journal, list(records), status


def write(disk: MemoryDisk, *records: Vote | Certificate | Proposal) -> Journal:
    journal, _, _ = open_on(disk)
    for record in records:
        journal.append([record])
    journal.sync()
    return journal


def change(disk: MemoryDisk, offset: int) -> None:
    data = bytearray(disk.read_file(PATH) or b"")
    data[offset] ^= 1
    disk.write_file(PATH, [bytes(data)])


def test_a_new_journal_is_empty_and_free_to_sign() -> None:
    _, records, status = open_on(MemoryDisk())
    assert (records, status.observe_until_view, status.problem) == ([], 0, "")


def test_records_of_every_kind_come_back_in_order() -> None:
    disk = MemoryDisk()
    block = BENCH.block(9)
    mixed = [
        VOTES[0],
        BENCH.certificate(NULLIFY, 1),
        BENCH.proposal(block),
        BENCH.vote(3, NOTARIZE, 9, block),
    ]
    write(disk, *mixed)
    assert open_on(disk)[1] == mixed


def test_it_lives_on_a_real_disk_too(tmp_path: Path) -> None:
    path, mark = tmp_path / "data" / "journal", tmp_path / "keys" / "voted"
    path.parent.mkdir()
    journal, _, _ = Journal.open(path, mark_path=mark)
    journal.append(VOTES)
    journal.sync()
    assert list(read_journal(path)) == VOTES  # while it is in use
    journal.close()
    assert list(Journal.open(path, mark_path=mark)[1]) == VOTES
    assert mark.exists()


def test_space_reserved_ahead_is_no_record_and_no_damage(tmp_path: Path) -> None:
    path, mark = tmp_path / "journal", tmp_path / "voted"
    journal, _, _ = Journal.open(path, mark_path=mark)
    journal.append(VOTES)
    journal.sync()
    # Killed here: the file still has its reserve.
    assert path.stat().st_size > 1_000_000 > journal.size_bytes
    again, records, status = Journal.open(path, mark_path=mark)
    assert (list(records), status.problem, status.is_torn) == (VOTES, "", False)
    again.append(VOTES[:1])
    again.sync()
    data = bytearray(path.read_bytes())
    data[again.size_bytes - 9 : again.size_bytes] = bytes(9)  # the last write reached the disk in part
    path.write_bytes(data)
    torn, records, status = Journal.open(path, mark_path=mark)
    assert (list(records), status.problem, status.is_torn) == (VOTES, "", True)
    torn.append(VOTES[:1])
    torn.close()
    assert path.stat().st_size == torn.size_bytes
    again.close()


def test_a_journal_closed_in_order_has_no_reserve(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    again, _, _ = Journal.open(path, mark_path=tmp_path / "voted")
    again.append(VOTES)
    again.close()
    assert path.stat().st_size == again.size_bytes


def test_what_was_not_synced_may_be_lost_what_was_is_not() -> None:
    for seed in range(30):
        disk = MemoryDisk()
        journal = write(disk, *VOTES[:3])
        journal.append(VOTES[3:])
        disk.crash(random.Random(seed))
        _, records, status = open_on(disk)
        assert records[:3] == VOTES[:3]
        assert records == VOTES[: len(records)]
        assert status.problem == ""


@given(st.integers(1, 700))
def test_a_torn_tail_is_cut_off_and_the_rest_is_kept(cut: int) -> None:
    disk = MemoryDisk()
    write(disk, *VOTES)
    data = disk.read_file(PATH) or b""
    disk.write_file(PATH, [data[: max(60, len(data) - cut)]])
    journal, records, status = open_on(disk)
    assert records == VOTES[: len(records)]
    assert status.problem == ""
    journal.append(VOTES[-1:])
    journal.sync()
    assert open_on(disk)[1] == [*records, VOTES[-1]]


def test_damage_before_the_tail_means_observe_only_and_what_is_left_binds() -> None:
    disk = MemoryDisk()
    write(disk, *VOTES)
    change(disk, len(disk.read_file(PATH) or b"") // 2)
    _, records, status = open_on(disk)
    assert status.observe_until_view is None
    assert "damaged record" in status.problem
    assert [vote for vote in VOTES if vote in records] == records
    assert len(records) == len(VOTES) - 1
    assert any(name.startswith("journal.damaged") for name in disk.list_names(Path()))


def test_a_damaged_length_is_found_as_well() -> None:
    disk = MemoryDisk()
    write(disk, *VOTES)
    frame = (len(disk.read_file(PATH) or b"")) // (len(VOTES) + 1)
    change(disk, 4 * frame)
    assert open_on(disk)[2].observe_until_view is None


def test_a_journal_missing_beside_a_marked_key_means_observe_only() -> None:
    disk = MemoryDisk()
    write(disk, VOTES[0])
    disk.remove(PATH)
    _, records, status = open_on(disk)
    assert records == []
    assert status.observe_until_view is None
    assert "missing" in status.problem


def test_a_journal_missing_beside_a_key_that_never_voted_is_simply_new() -> None:
    disk = MemoryDisk()
    write(disk, BENCH.certificate(NULLIFY, 1))  # a certificate is no vote
    disk.remove(PATH)
    assert open_on(disk)[2].observe_until_view == 0


def test_a_restored_backup_means_observe_only() -> None:
    disk = MemoryDisk()
    write(disk, VOTES[0])
    backup = disk.read_file(PATH) or b""
    write(disk, VOTES[1])
    disk.write_file(PATH, [backup])
    status = open_on(disk)[2]
    assert status.observe_until_view is None
    assert "backup" in status.problem


def test_observe_only_survives_restarts_until_it_is_lifted() -> None:
    disk = MemoryDisk()
    write(disk, VOTES[0])
    disk.remove(PATH)
    open_on(disk)
    journal, _, status = open_on(disk)
    assert status.observe_until_view is None
    assert status.problem
    journal.allow_signing(77)
    status = open_on(disk)[2]
    assert (status.observe_until_view, status.problem) == (77, "")


def test_the_mark_is_there_before_the_first_vote_and_not_earlier() -> None:
    disk = MemoryDisk()
    journal, _, _ = open_on(disk)
    journal.append([BENCH.certificate(NULLIFY, 1)])
    assert disk.read_file(MARK) is None
    journal.append([BENCH.proposal(BENCH.block(1))])  # it carries a vote
    assert disk.read_file(MARK) is not None


def test_compaction_keeps_what_binds_and_drops_the_rest() -> None:
    disk = MemoryDisk()
    final_block, block = BENCH.block(50), BENCH.block(52)
    binding = [
        BENCH.certificate(FINALIZE, 50, final_block),
        BENCH.certificate(NULLIFY, 51),
        BENCH.proposal(block),
        BENCH.vote(3, NULLIFY, 53),
    ]
    journal = write(disk, *[BENCH.vote(3, NULLIFY, view) for view in range(1, 50)], *binding)
    before = journal.size_bytes
    journal.compact()
    assert journal.size_bytes < before / 5
    journal.append([BENCH.vote(3, NULLIFY, 54)])
    journal.sync()
    assert open_on(disk)[1] == [*binding, BENCH.vote(3, NULLIFY, 54)]


def test_the_file_stays_bounded_while_views_become_final() -> None:
    disk = MemoryDisk()
    journal, _, _ = open_on(disk)
    largest = 0
    for view in range(1, 4_000):
        block = BENCH.block(view)
        journal.append(
            [BENCH.certificate(FINALIZE, view, block, (0, 1, 2)), BENCH.vote(3, FINALIZE, view, block)]
        )
        journal.sync()
        largest = max(largest, journal.size_bytes)
    assert largest < 1_100_000
    open_on(disk)  # opening compacts as well
    assert len(open_on(disk)[1]) <= 3


def test_records_of_lower_epochs_are_dropped_those_of_higher_ones_bind() -> None:
    disk = MemoryDisk()
    later = replace(VOTES[0], subject=replace(VOTES[0].subject, epoch=2))
    write(disk, VOTES[0], later)
    # A store that was deleted starts at epoch 0 again: nothing newer is thrown away for that.
    assert open_on(disk, epoch=0)[1] == [VOTES[0], later]
    assert open_on(disk, epoch=1)[1] == [later]


def test_a_finalization_of_one_epoch_drops_nothing_of_another() -> None:
    disk = MemoryDisk()
    later = replace(VOTES[0], subject=replace(VOTES[0].subject, epoch=1))
    journal = write(disk, later, BENCH.certificate(FINALIZE, 99, BENCH.block(99)))
    journal.compact()
    assert later in open_on(disk)[1]


def test_a_full_disk_is_a_fault_that_says_so() -> None:
    disk = MemoryDisk()
    journal, _, _ = open_on(disk)
    journal.append(VOTES[:1])
    disk.bytes_left = 10
    with pytest.raises(Fault, match="disk is full"):
        journal.append(VOTES)


def test_a_failed_sync_is_fatal_and_never_retried() -> None:
    disk = MemoryDisk()
    journal, _, _ = open_on(disk)
    journal.append(VOTES[:1])
    disk.is_sync_failing = True
    with pytest.raises(Fault):
        journal.sync()
    disk.is_sync_failing = False
    with pytest.raises(Fault):
        journal.sync()
    with pytest.raises(Fault):
        journal.append(VOTES[1:2])


def test_a_full_disk_while_compacting_leaves_the_old_file() -> None:
    disk = MemoryDisk()
    journal = write(disk, *VOTES)
    disk.bytes_left = 10
    with pytest.raises(Fault):
        journal.compact()
    disk.bytes_left = None
    assert open_on(disk)[1] == VOTES


def test_a_closed_journal_takes_nothing() -> None:
    journal = write(MemoryDisk(), VOTES[0])
    journal.close()
    with pytest.raises(Fault, match="closed"):
        journal.append(VOTES)


def test_reading_a_journal_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        list(read_journal(tmp_path / "journal", disk=RealDisk()))


def test_the_check_for_second_votes_finds_them() -> None:
    block, other = BENCH.block(4), BENCH.block(4, salt=1)
    good = [BENCH.vote(3, NOTARIZE, 4, block), BENCH.vote(3, NULLIFY, 4), BENCH.vote(3, NOTARIZE, 4, block)]
    check_single_votes(good)
    with pytest.raises(Fault, match="signed both"):
        check_single_votes([*good, BENCH.vote(3, NOTARIZE, 4, other)])
    with pytest.raises(Fault, match="signed both"):
        check_single_votes([BENCH.proposal(block), BENCH.vote(block.proposer, NOTARIZE, 4, other)])
    with pytest.raises(Fault, match="signed both"):
        check_single_votes([BENCH.vote(3, FINALIZE, 4, block), BENCH.vote(3, NULLIFY, 4)])


# --- epochs -----------------------------------------------------------------------------------------------


def cast(epoch: int, view: int) -> Vote:
    vote = BENCH.vote(3, NULLIFY, view)
    return replace(vote, subject=replace(vote.subject, epoch=epoch))


def test_entering_an_epoch_drops_what_bound_below_and_keeps_what_binds_in_it_and_above() -> None:
    disk = MemoryDisk()
    later = [cast(1, 1), cast(2, 1)]
    journal = write(disk, cast(0, 1), BENCH.certificate(FINALIZE, 2, BENCH.block(2)), *later)
    journal.enter_epoch(1)
    journal.compact()
    assert list(read_journal(PATH, disk=disk)) == later


def test_nothing_is_signed_again_below_an_epoch_that_was_entered() -> None:
    """A store that was lost sends the node back to epochs whose votes the journal has dropped."""
    disk = MemoryDisk()
    write(disk, cast(0, 1)).enter_epoch(3)
    journal, _, status = open_on(disk)
    assert (status.epoch, status.problem) == (3, "")
    assert [journal.compute_observe_until(epoch) for epoch in (0, 2, 3, 4)] == [None, None, 0, 0]
    journal.enter_epoch(1)  # on its way back
    assert journal.compute_observe_until(2) is None


def test_what_was_allowed_in_one_epoch_says_nothing_of_those_below_and_all_of_those_above() -> None:
    disk = MemoryDisk()
    write(disk, cast(0, 1))
    disk.remove(PATH)
    journal, _, _ = open_on(disk)
    journal.enter_epoch(5)
    assert journal.compute_observe_until(5) is None  # by itself an epoch ends no observing
    journal.allow_signing(7, 5)
    journal, _, _ = open_on(disk)
    assert [journal.compute_observe_until(epoch) for epoch in (4, 5, 6)] == [None, 7, 0]
