"""The light desk: sets of epochs that the state has forgotten are still told, as many as are remembered."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.ledger import epochs
from node.desks.light import LightDesk
from node.simulation.memory_disk import MemoryDisk
from node.store import set_shelf
from node.store.set_shelf import SetShelf
from tests.staking_chain import StakingChain, make_staking_genesis

PATH = Path("/home/sets.log")


class Shelf:
    """A desk over a growing chain; every header is told as final."""

    def __init__(self, **parameters: Any) -> None:
        self.chain = StakingChain(make_staking_genesis(fee_units_min=0, participation_bp_min=0, **parameters))
        shelf = self

        class Door:
            @property
            def final_view(self) -> Any:
                return shelf.chain.view

            @property
            def finalized(self) -> Any:
                return shelf.chain.view.header

            @property
            def epoch(self) -> int:
                return shelf.chain.epoch

        door: Any = Door()
        store: Any = SimpleNamespace(get_header=lambda height: self.chain.blocks[height - 1].header)
        history: Any = self.chain.history
        self._make = lambda shelf: LightDesk(
            self.chain.rules, door, store, shelf, lambda _: (None, ()), lambda _: history
        )
        self.disk = MemoryDisk()
        self.open()

    def open(self) -> None:
        """The desk as a node has it after a start."""
        self.shelf = SetShelf.open(PATH, self.disk)
        self.desk = self._make(self.shelf)

    def grow_to(self, epoch: int) -> None:
        while self.chain.epoch < epoch:
            self.chain.grow()
            self.desk.remember(self.chain.view.header.epoch)


def test_the_sets_of_epochs_that_the_state_forgot_are_told() -> None:
    shelf = Shelf()
    shelf.grow_to(9)
    assert epochs.find_set(shelf.chain.view.records, 3) is None
    for block in shelf.chain.blocks:
        update = shelf.desk.get_update(block.header.height)
        assert update is not None
        assert update.validators.validators.digest == block.header.validators_digest
        assert update.next_validators.validators.digest == block.header.next_validators_digest


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_shelf, "SETS_MAX", 5)
    shelf = Shelf()
    shelf.grow_to(12)
    assert shelf.desk.get_update(3 * 3 + 1) is None
    assert shelf.desk.get_update(3 * 8 + 1) is not None
    assert shelf.desk.get_update(1) is not None  # of genesis


def test_sets_that_stay_the_same_are_one() -> None:
    shelf = Shelf(reward_units=0)
    shelf.grow_to(4)
    assert len(shelf.shelf) == 5
    assert len({id(found) for found in shelf.shelf._sets.values()}) == 1


def check_told(shelf: Shelf) -> None:
    for block in shelf.chain.blocks:
        assert shelf.desk.get_update(block.header.height) is not None


def test_a_node_that_starts_again_tells_the_sets_that_the_state_forgot() -> None:
    shelf = Shelf()
    shelf.grow_to(9)
    shelf.open()
    check_told(shelf)
    shelf.grow_to(12)
    shelf.open()
    check_told(shelf)


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_what_a_crash_tore_off_is_taken_from_the_state(cut: int) -> None:
    shelf = Shelf()
    shelf.grow_to(9)
    data = shelf.disk.read_file(PATH) or b""
    shelf.disk.write_file(PATH, [data[:-cut]])
    shelf.open()
    check_told(shelf)
    shelf.open()
    check_told(shelf)


def test_damage_costs_the_old_sets_and_nothing_else() -> None:
    shelf = Shelf()
    shelf.grow_to(9)
    shelf.disk.write_file(PATH, [b"damage"])
    shelf.open()
    assert shelf.desk.get_update(3 * 3 + 1) is None
    assert shelf.desk.get_update(3 * 8 + 1) is not None


def test_a_shelf_of_another_chain_tells_nothing_wrong() -> None:
    other, shelf = Shelf(), Shelf(reward_units=7)
    other.grow_to(9)
    shelf.grow_to(9)
    shelf.disk.write_file(PATH, [other.disk.read_file(PATH) or b""])
    shelf.open()
    for block in shelf.chain.blocks:
        update = shelf.desk.get_update(block.header.height)
        assert update is None or update.validators.validators.digest == block.header.validators_digest


def test_the_file_is_written_anew_when_most_of_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_shelf, "SETS_MAX", 5)
    shelf = Shelf()
    shelf.grow_to(14)
    size = len(shelf.disk.read_file(PATH) or b"")
    shelf.open()
    assert 2 * len(shelf.disk.read_file(PATH) or b"") < size
    assert len(SetShelf.open(PATH, shelf.disk)) == 5
