"""The store: what was said to be durable is there again, whatever ended the process."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.block import encode_block
from consensus.errors import Fault, Rejected
from node.simulation.memory_disk import MemoryDisk
from node.store import block_cache
from node.store import states as states_module
from node.store.store import Store
from tests.chain_factory import ChainFactory

LENGTH = 8


@pytest.fixture(scope="module")
def factory() -> ChainFactory:
    made = ChainFactory()
    made.grow(LENGTH)
    return made


@pytest.fixture
def home(factory: ChainFactory, tmp_path: Path) -> Path:
    return factory.write_home(tmp_path / "home")


def fill(store: Store, factory: ChainFactory, start: int = 1, stop: int = LENGTH) -> None:
    for height in range(start, stop + 1):
        block = factory.blocks[height - 1]
        store.put_block(block)
        store.sync()
        store.put_final(factory.finalizations[height - 1], (block,))
        store.sync()


@pytest.fixture
def filled(factory: ChainFactory, home: Path) -> Iterator[Store]:
    store = Store.open(home, factory.rules)
    fill(store, factory)
    yield store
    store.close()


def test_a_new_store_is_at_genesis(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    genesis = factory.rules.create_genesis_state().header
    assert store.finalized == genesis
    assert store.get_block_at(0) == store.get_block(genesis.hash)
    assert store.get_block_at(1) is None
    assert store.get_certificate(0) is None
    assert store.recover().state.root == genesis.state_root
    store.close()


def test_blocks_are_found_by_height_and_hash(filled: Store, factory: ChainFactory) -> None:
    for height, block in enumerate(factory.blocks, start=1):
        assert filled.get_block_at(height) == block
        assert filled.get_block(block.hash) == block
        assert filled.get_header(height) == block.header
        assert filled.get_raw_block(height) == filled.get_raw_block(block.hash) == encode_block(block)
    assert filled.get_block(bytes(32)) is None
    assert filled.get_raw_block(bytes(32)) is None
    assert filled.get_raw_block(LENGTH + 1) is None
    assert filled.finalized == factory.blocks[-1].header


def test_transactions_and_histories_are_found(filled: Store, factory: ChainFactory) -> None:
    block = factory.blocks[4]
    assert filled.find_transaction(block.transactions[1].id) == (5, 1)
    assert filled.find_transaction(bytes(32)) is None
    # Half of an id is what the index knows; the whole is compared.
    assert filled.find_transaction(block.transactions[1].id[:16] + bytes(16)) is None
    sender = block.transactions[1].sender
    assert (5, 1) in filled.get_history(sender)
    assert max(filled.get_history(sender, before=(5, 1))) < (5, 1)


def test_everything_is_there_after_reopening(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    fill(store, factory)
    store.close()
    store = Store.open(home, factory.rules)
    assert store.finalized == factory.blocks[-1].header
    recovered = store.recover()
    assert recovered.state.root == factory.state.root
    assert recovered.unfinal == ()
    assert store.get_block(factory.blocks[2].hash) == factory.blocks[2]
    assert store.find_transaction(factory.blocks[6].transactions[0].id) == (7, 0)
    store.close()


def test_durable_blocks_that_are_not_final_yet_are_recovered(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    fill(store, factory, 1, 3)
    for block in factory.blocks[3:6]:
        store.put_block(block)
    store.sync()
    store.close()
    store = Store.open(home, factory.rules)
    assert store.finalized_height == 3
    assert store.recover().unfinal == tuple(factory.blocks[3:6])
    assert store.get_block(factory.blocks[5].hash) == factory.blocks[5]
    store.put_final(factory.finalizations[5], factory.blocks[3:6])
    store.sync()
    assert store.finalized_height == 6
    store.close()


def test_a_body_is_stored_once(filled: Store, factory: ChainFactory, home: Path) -> None:
    size = (home / "blocks.log").stat().st_size
    filled.put_block(factory.blocks[0])
    filled.put_block(factory.blocks[-1])
    assert (home / "blocks.log").stat().st_size == size


def test_a_batch_is_final_by_the_certificate_of_its_last_block(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    store.put_final(factory.finalizations[4], factory.blocks[:5])
    store.sync()
    for height in range(1, 6):
        assert store.get_certificate(height) == (factory.finalizations[4], 5)
    assert store.get_certificate(6) is None
    store.close()


def test_a_batch_is_final_by_a_descendants_certificate_and_the_headers_between(
    factory: ChainFactory, home: Path
) -> None:
    store = Store.open(home, factory.rules)
    links = [block.header for block in factory.blocks[3:6]]
    with pytest.raises(Fault):
        store.put_final(factory.finalizations[5], factory.blocks[:3])
    with pytest.raises(Fault):
        store.put_final(factory.finalizations[5], factory.blocks[:3], links[1:])
    assert store.finalized_height == 0
    store.put_final(factory.finalizations[5], factory.blocks[:3], links)
    store.sync()
    assert store.get_certificate(2) == (factory.finalizations[5], 6)
    assert [store.get_header(height) for height in (4, 5, 6, 7)] == [*links, None]
    store.close()
    store = Store.open(home, factory.rules)
    assert store.finalized_height == 3
    assert store.get_certificate(3) == (factory.finalizations[5], 6)
    store.close()


def test_only_children_of_the_final_block_become_final(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    with pytest.raises(Fault):
        store.put_final(factory.finalizations[1], (factory.blocks[1],))
    with pytest.raises(Fault):  # a notarization makes nothing final
        store.put_final(factory.certify(factory.blocks[0].header), (factory.blocks[0],))
    assert store.finalized_height == 0
    fill(store, factory)
    assert store.finalized_height == LENGTH
    store.close()


def test_a_second_process_is_turned_away(filled: Store, factory: ChainFactory, home: Path) -> None:
    with pytest.raises(Rejected, match=r"is locked by process \d+; stop it or use another --home"):
        Store.open(home, factory.rules)


def test_the_home_of_another_chain_is_refused_and_left_as_it_was(factory: ChainFactory, home: Path) -> None:
    Store.open(home, factory.rules).close()
    before = (home / "blocks.log").read_bytes()
    with pytest.raises(Rejected, match="holds chain test-chain"):
        Store.open(home, ChainFactory("other-chain").rules)
    assert (home / "blocks.log").read_bytes() == before
    Store.open(home, factory.rules).close()  # and the lock was released


def test_a_missing_home_is_refused(factory: ChainFactory, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="is no home"):
        Store.open(tmp_path / "nowhere", factory.rules)


@given(data=st.data())
def test_any_truncation_recovers_to_a_prefix(
    data: st.DataObject, factory: ChainFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory)
    store.close()
    log = disk.get_data(home / "blocks.log")
    del log[data.draw(st.integers(0, len(log))) :]
    store = Store.open(home, factory.rules, disk=disk)
    height = store.finalized_height
    recovered = store.recover()
    assert recovered.state.header.height == height
    assert recovered.state.root == (
        factory.blocks[height - 1].header.state_root if height else store.finalized.state_root
    )
    assert all(block in factory.blocks for block in recovered.unfinal)
    fill(store, factory, height + 1)
    assert store.finalized == factory.blocks[-1].header
    assert store.find_transaction(factory.blocks[0].transactions[0].id) == (1, 0)
    store.close()


@given(durable=st.integers(0, LENGTH), rng=st.randoms(use_true_random=False))
def test_a_crash_loses_only_what_was_not_synced(
    durable: int, rng: random.Random, factory: ChainFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory, 1, durable)
    for height in range(durable + 1, LENGTH + 1):
        store.put_final(factory.finalizations[height - 1], (factory.blocks[height - 1],))
    store._index.abandon()  # the process dies: nothing of the store is closed in order
    disk.crash(rng)
    store = Store.open(home, factory.rules, disk=disk)
    assert store.finalized_height >= durable
    assert store.recover().state.header == store.finalized
    store.close()


def test_a_damaged_block_stops_the_start_and_is_named(factory: ChainFactory, home: Path) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory)
    store.close()
    log = disk.get_data(home / "blocks.log")
    log[log.index(factory.blocks[4].transactions[0].signature) + 10] ^= 1
    with pytest.raises(Fault, match=r"block 5: the checksum of its block record does not hold"):
        Store.open(home, factory.rules, disk=disk)


def test_a_full_disk_is_a_fault_and_the_next_start_goes_on(factory: ChainFactory, home: Path) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory, 1, 2)
    disk.bytes_left = 100
    with pytest.raises(Fault, match="disk is full"):
        store.put_block(factory.blocks[2])
    assert store.get_block(factory.blocks[2].hash) is None
    assert store.finalized_height == 2
    store.close()
    disk.bytes_left = None
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory, 3)
    assert store.recover().state.root == factory.state.root
    store.close()


def test_a_failed_sync_is_a_fault_for_good(factory: ChainFactory, home: Path) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    store.put_block(factory.blocks[0])
    disk.is_sync_failing = True
    with pytest.raises(Fault):
        store.sync()
    disk.is_sync_failing = False
    with pytest.raises(Fault):
        store.sync()
    store.close()


def test_what_a_killed_process_wrote_and_did_not_sync_is_durable_once_it_was_read(
    factory: ChainFactory, home: Path, filled: Store
) -> None:
    written = (home / "blocks.log").read_bytes()
    disk = MemoryDisk()
    disk.open_log(home / "other" / "blocks.log").append(written)
    assert disk.get_durable_bytes(home / "other" / "blocks.log") == 0
    store = Store.open(home / "other", factory.rules, disk=disk)
    assert store.get_block(factory.blocks[-1].hash) == factory.blocks[-1]
    assert disk.get_durable_bytes(home / "other" / "blocks.log") == len(written)
    store.close()


def checkpoints(home: Path) -> list[Path]:
    return sorted((home / "checkpoints").glob("*.state"))


def test_recovery_starts_from_the_newest_checkpoint(factory: ChainFactory, home: Path) -> None:
    store = Store.open(home, factory.rules)
    fill(store, factory, 1, 5)
    assert store.write_checkpoint(store.recover().state)
    fill(store, factory, 6)
    store.close()
    assert len(checkpoints(home)) == 1
    store = Store.open(home, factory.rules)
    seen: list[tuple[int, int]] = []
    state = store.recover(lambda done, total: seen.append((done, total))).state
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert state.root == factory.state.root
    assert store.rebuild_state(4).header == factory.blocks[3].header
    assert store.rebuild_state(5).root == factory.blocks[4].header.state_root
    store.close()


@pytest.mark.parametrize("how", ["flipped", "cut", "foreign"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    how: str, factory: ChainFactory, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(home, factory.rules)
    for height in (3, 6):
        fill(store, factory, store.finalized_height + 1, height)
        assert store.write_checkpoint(store.recover().state)
        store.close()
        store = Store.open(home, factory.rules)
    fill(store, factory, 7)
    store.close()
    newest = checkpoints(home)[-1]
    data = bytearray(newest.read_bytes())
    if how == "flipped":
        data[60] ^= 1
    elif how == "cut":
        del data[-40:]
    else:
        data = bytearray(checkpoints(home)[0].read_bytes())
    newest.write_bytes(data)
    store = Store.open(home, factory.rules)
    seen: list[int] = []
    with caplog.at_level(logging.WARNING):
        state = store.recover(lambda done, total: seen.append(total)).state
    assert "checkpoint passed over" in caplog.text
    assert seen[0] == LENGTH - 3
    assert state.root == factory.state.root
    store.close()


def test_a_checkpoint_comes_when_enough_was_executed(
    factory: ChainFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_module, "CHECKPOINT_WORK_MIN", 3 * (states_module.BLOCK_WORK + 2))
    store = Store.open(home, factory.rules)
    state = store.recover().state
    taken = []
    for height, block in enumerate(factory.blocks, start=1):
        fill(store, factory, height, height)
        state.commit(factory.rules.check_block(state.view(), block, None))
        if store.checkpoint_if_due(state):
            taken.append(height)
            store._states._future.result()  # type: ignore[union-attr]
    assert taken == [3, 6]
    store.close()
    assert len(checkpoints(home)) == 2


def test_a_checkpoint_that_cannot_be_written_is_no_end(
    factory: ChainFactory, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory)
    state = store.recover().state
    disk.bytes_left = 10
    with caplog.at_level(logging.ERROR):
        store.write_checkpoint(state)
        store.close()
    assert "checkpoint not written" in caplog.text
    assert not disk.list_names(home / "checkpoints")


def test_an_index_that_is_gone_or_behind_is_brought_up(factory: ChainFactory, home: Path) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory, 1, 4)
    store.close()
    for path in (home / "index").iterdir():
        path.unlink()
    store = Store.open(home, factory.rules, disk=disk)
    assert store.find_transaction(factory.blocks[3].transactions[0].id) == (4, 0)
    assert store.get_block(factory.blocks[0].hash) == factory.blocks[0]
    store.close()


def test_an_index_ahead_of_the_block_file_is_rebuilt(
    factory: ChainFactory, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryDisk()
    store = Store.open(home, factory.rules, disk=disk)
    fill(store, factory, 1, 4)
    middle = len(disk.get_data(home / "blocks.log"))
    fill(store, factory, 5)
    store.close()
    del disk.get_data(home / "blocks.log")[middle:]
    with caplog.at_level(logging.WARNING):
        store = Store.open(home, factory.rules, disk=disk)
    assert "does not match" in caplog.text
    assert store.find_transaction(factory.blocks[6].transactions[0].id) is None
    assert store.find_transaction(factory.blocks[3].transactions[0].id) == (4, 0)
    store.close()


def test_the_cache_of_decoded_blocks_is_bounded(
    factory: ChainFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "CACHE_TRANSACTIONS_MAX", 7)
    store = Store.open(home, factory.rules)
    fill(store, factory)
    for block in factory.blocks:
        assert store.get_block(block.hash) == block
    assert len(store._cache) == 2
    store.close()
