"""The index: what it answers, from the buffer or the file, and that it is never trusted too far."""

import errno
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault
from node.simulation.memory_disk import MemoryDisk
from node.simulation.process_disk import ProcessDisk
from node.store import index as index_module
from node.store import index_tables
from node.store.index import Index
from node.store.index_reader import IndexReader
from tests.chain_factory import ChainFactory

CHAIN = bytes(32)


class Inline(Executor):
    """Runs what is submitted at once."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def,override]
        future: Future[object] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Never(Executor):
    """Takes what is submitted and does nothing: a disk that is far behind."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def,override]
        return Future()


class Failing(Executor):
    """Answers every write with a full disk."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def,override]
        future: Future[None] = Future()
        future.set_exception(Fault("the disk is full", field="index"))
        return future


class FullEnvironment:
    """An LMDB environment whose commit finds the disk full, or what it is told to find."""

    def __init__(self, error: lmdb.Error | None = None) -> None:
        self._error = error or lmdb.DiskError("mdb_txn_commit: No space left on device")

    def begin(self, **_: object) -> object:
        raise self._error

    def reader_check(self) -> int:
        return 0

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def factory() -> ChainFactory:
    made = ChainFactory()
    made.grow(20, transactions=3)
    return made


def open_index(path: Path, executor: Executor | None = None) -> Index:
    return Index(path / "index", CHAIN, executor or Inline())


def expect_history(factory: ChainFactory, address: bytes) -> list[tuple[int, int]]:
    places = [
        (block.header.height, place)
        for block in factory.blocks
        for place, tx in enumerate(block.transactions)
        if address in (tx.sender, tx.receiver)
    ]
    return sorted(places, reverse=True)


@pytest.mark.parametrize("segment", [1, 7, 500_000])
@pytest.mark.parametrize("batch", [1, 7, 25, 10_000])
def test_everything_is_found_wherever_it_lies(
    batch: int, segment: int, factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", batch)
    monkeypatch.setattr(index_tables, "SEGMENT_TRANSACTIONS", segment)
    index = open_index(tmp_path)
    for block in factory.blocks:
        index.add_block(block)
    for block in factory.blocks:
        assert index.find_block(block.hash) == block.header.height
        for place, tx in enumerate(block.transactions):
            assert index.find_transaction(tx.id) == (block.header.height, place)
    for key in factory.keys:
        assert list(index.get_history(key.address, None, 1000)) == expect_history(factory, key.address)
    assert index.find_transaction(bytes(32)) is None
    assert index.find_block(bytes(32)) is None
    assert index.get_history(bytes(20), None, 10) == ()
    assert index.last == (20, factory.blocks[-1].hash)
    index.close()


@given(limit=st.integers(1, 9), cuts=st.sets(st.integers(0, 20)), segment=st.sampled_from([1, 10, 500_000]))
def test_pages_of_a_history_join_without_a_gap(
    limit: int, cuts: set[int], segment: int, factory: ChainFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    index = open_index(tmp_path_factory.mktemp("index"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_tables, "SEGMENT_TRANSACTIONS", segment)
        for number, block in enumerate(factory.blocks):
            if number in cuts:
                index.flush()
            index.add_block(block)
    address, found, before = factory.keys[1].address, [], None
    while page := index.get_history(address, before, limit):
        assert len(page) <= limit
        found += page
        before = page[-1]
    assert found == expect_history(factory, address)
    index.close()


@given(limit=st.integers(1, 9), before=st.tuples(st.integers(0, 21), st.integers(0, 3)))
def test_the_index_of_a_simulated_node_gives_the_same_answers(
    limit: int,
    before: tuple[int, int],
    factory: ChainFactory,
    filled: Index,
) -> None:
    simulated = ProcessDisk(MemoryDisk()).open_index(Path("index"), CHAIN, Inline())
    for block in factory.blocks:
        simulated.add_block(block)
    assert simulated.last == filled.last
    for key in factory.keys:
        for bound in (None, before):
            assert simulated.get_history(key.address, bound, limit) == filled.get_history(
                key.address, bound, limit
            )
    block = factory.blocks[before[0] % len(factory.blocks)]
    assert simulated.find_block(block.hash) == filled.find_block(block.hash) == block.header.height
    for tx in block.transactions:
        assert simulated.find_transaction(tx.id) == filled.find_transaction(tx.id) is not None


@pytest.fixture(scope="module")
def filled(factory: ChainFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = open_index(tmp_path_factory.mktemp("index"))
    for block in factory.blocks:
        index.add_block(block)
    index.flush()
    yield index
    index.close()


def test_it_goes_on_where_it_was_closed(factory: ChainFactory, tmp_path: Path) -> None:
    index = open_index(tmp_path)
    for block in factory.blocks:
        index.add_block(block)
    index.close()
    again = open_index(tmp_path)
    assert again.last == (20, factory.blocks[-1].hash)
    assert again.find_block(factory.blocks[3].hash) == 4
    again.close()


def test_reads_do_not_wait_for_a_disk_that_is_behind(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 10)
    index = Index(tmp_path / "index", CHAIN, Never())
    for block in factory.blocks:
        index.add_block(block)
    assert index.find_block(factory.blocks[0].hash) == 1
    assert list(index.get_history(factory.keys[2].address, None, 99)) == expect_history(
        factory, factory.keys[2].address
    )


def test_a_batch_that_could_not_be_written_is_a_fault_at_the_next_block(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 5)
    index = Index(tmp_path / "index", CHAIN, Failing())
    index.add_block(factory.blocks[0])
    with pytest.raises(Fault, match="disk is full"):
        index.add_block(factory.blocks[1])
    assert index.find_block(factory.blocks[0].hash) == 1


@pytest.mark.parametrize("error", [None, lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EDQUOT)}")])
def test_a_full_disk_that_lmdb_finds_is_told_in_the_same_words(
    error: lmdb.Error | None, factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 5)
    index = open_index(tmp_path)
    monkeypatch.setattr(index, "_env", FullEnvironment(error))
    index.add_block(factory.blocks[0])
    with pytest.raises(Fault, match="the disk is full"):
        index.add_block(factory.blocks[1])


def test_another_error_of_the_disk_is_named_and_no_space_is_asked_for(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 5)
    index = open_index(tmp_path)
    monkeypatch.setattr(index, "_env", FullEnvironment(lmdb.Error(f"mdb_txn: {os.strerror(errno.EIO)}")))
    index.add_block(factory.blocks[0])
    with pytest.raises(Fault, match=os.strerror(errno.EIO)) as caught:
        index.add_block(factory.blocks[1])
    assert "free" not in str(caught.value)
    assert caught.value.mend == "check the disk, or delete it: it is rebuilt"


def test_after_a_failed_write_nothing_is_written_above_the_hole(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 1)
    index = open_index(tmp_path)
    index.add_block(factory.blocks[0])
    index.flush()
    with monkeypatch.context() as full:
        full.setattr(index, "_env", FullEnvironment())
        index.add_block(factory.blocks[1])
        with pytest.raises(Fault, match="the disk is full"):
            index.add_block(factory.blocks[2])
    for _ in range(2):  # there is room again
        with pytest.raises(Fault, match="the disk is full"):
            index.flush()
    index.close()
    assert (tmp_path / "index" / "unclean").exists()
    again = open_index(tmp_path)
    assert again.last[0] == 1  # the rest comes again
    again.close()


def test_an_audit_that_was_killed_lets_the_index_use_its_pages_again(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []
    index = open_index(tmp_path)
    env = index._env

    class Watched:
        def __getattr__(self, name: str) -> object:
            checks.append(name)
            return getattr(env, name)

    monkeypatch.setattr(index, "_env", Watched())
    index.add_block(factory.blocks[0])
    index.flush()
    assert checks[:2] == ["reader_check", "begin"]
    index.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EACCES])
def test_an_index_that_cannot_be_opened_now_is_not_thrown_away(
    code: int, factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_index(tmp_path)
    index.add_block(factory.blocks[0])
    index.close()

    def fail(*_: object, **__: object) -> None:
        raise lmdb.Error(f"{tmp_path}: {os.strerror(code)}")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb, "open", fail)
        with pytest.raises(Fault, match="cannot be opened"):
            open_index(tmp_path)
    again = open_index(tmp_path)
    assert again.last[0] == 1
    again.close()


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file stands here")
    with pytest.raises(Fault, match="cannot be made"):
        open_index(tmp_path)


def test_a_thread_writes_while_blocks_come(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 10)
    with ThreadPoolExecutor(1) as executor:
        index = open_index(tmp_path, executor)
        for block in factory.blocks:
            index.add_block(block)
            assert index.find_block(block.hash) == block.header.height
            assert index.find_block(factory.blocks[0].hash) == 1
        index.close()
    again = open_index(tmp_path)
    assert again.last[0] == 20
    again.close()


def test_the_map_grows_when_it_is_full(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MAP_BYTES_START", 1 << 16)
    index = open_index(tmp_path)
    for block in factory.blocks:
        index.add_block(block)
        index.flush()
    assert index.find_transaction(factory.blocks[0].transactions[0].id) == (1, 0)
    assert index.find_transaction(factory.blocks[-1].transactions[2].id) == (20, 2)
    index.close()


def test_an_index_of_another_chain_is_rebuilt(
    factory: ChainFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path)
    index.add_block(factory.blocks[0])
    index.close()
    with caplog.at_level(logging.WARNING):
        other = Index(tmp_path / "index", b"\x01" * 32, Inline())
    assert "another chain" in caplog.text
    assert other.last == (0, b"")
    other.close()


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_index_is_rebuilt(
    size: int, factory: ChainFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path)
    index.add_block(factory.blocks[0])
    index.close()
    (tmp_path / "index" / "data.mdb").write_bytes(b"\xff" * size)
    with caplog.at_level(logging.WARNING):
        again = open_index(tmp_path)
    assert "rebuilding" in caplog.text
    assert again.last == (0, b"")
    again.add_block(factory.blocks[0])
    again.close()


def test_an_index_that_was_open_when_the_machine_went_down_is_rebuilt(
    factory: ChainFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path)
    index.add_block(factory.blocks[0])
    index.close()
    (tmp_path / "index" / "unclean").write_text("another boot")
    with caplog.at_level(logging.WARNING):
        again = open_index(tmp_path)
    assert "machine went down" in caplog.text
    assert again.last == (0, b"")
    again.close()


@pytest.mark.parametrize("segment", [1, 7, 500_000])
def test_a_reader_beside_the_writer_finds_what_differs(
    segment: int, factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tables, "SEGMENT_TRANSACTIONS", segment)
    index = open_index(tmp_path)
    for block in factory.blocks[:10]:
        index.add_block(block)
        if block.header.height % 2 == 0:
            index.flush()
    # A second handle in one process is not LMDB's way: the writer is closed first.
    index.close()
    reader = IndexReader(tmp_path / "index")
    assert reader.last_height == 10
    assert [reader.is_of(chain) for chain in (CHAIN, b"\x01" * 32)] == [True, False]
    assert all(reader.find_difference(block) is None for block in factory.blocks[:10])
    assert reader.find_difference(factory.blocks[10]) == "the block's hash is missing or elsewhere"
    reader.close()


def read_segments(path: Path) -> dict[int, int]:
    """Height of the first block and transactions of each segment."""
    with (
        lmdb.open(str(path / "index"), max_dbs=index_tables.TABLES_MAX, readonly=True) as env,
        env.begin(db=env.open_db(b"segments", create=False)) as transaction,
    ):
        return {
            int.from_bytes(key, "big"): int.from_bytes(value, "big") for key, value in transaction.cursor()
        }


def test_a_full_segment_is_left_alone_and_the_next_one_begun(
    factory: ChainFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tables, "SEGMENT_TRANSACTIONS", 13)
    index = open_index(tmp_path)
    for block in factory.blocks[:19]:  # three transactions in each
        index.add_block(block)
        if block.header.height in (2, 4, 6, 7, 8, 10, 12, 14, 16, 18):
            index.flush()
    index.close()
    assert read_segments(tmp_path) == {1: 18, 7: 18, 13: 18, 19: 3}
    again = open_index(tmp_path)  # goes on in the one that is not full
    again.add_block(factory.blocks[19])
    again.close()
    assert read_segments(tmp_path) == {1: 18, 7: 18, 13: 18, 19: 6}
