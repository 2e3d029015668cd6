"""The light desk: sets of epochs that the state has forgotten are still told, as many as are remembered."""

from types import SimpleNamespace
from typing import Any

import pytest

from consensus.ledger import epochs
from node import light_desk
from node.light_desk import LightDesk
from tests.staking_chain import StakingChain, make_staking_genesis


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

        door: Any = Door()
        store: Any = SimpleNamespace(get_header=lambda height: self.chain.blocks[height - 1].header)
        history: Any = self.chain.history
        self.desk = LightDesk(self.chain.rules, door, store, lambda _: (None, ()), lambda _: history)

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
    monkeypatch.setattr(light_desk, "SETS_MAX", 5)
    shelf = Shelf()
    shelf.grow_to(12)
    assert shelf.desk.get_update(3 * 3 + 1) is None
    assert shelf.desk.get_update(3 * 8 + 1) is not None
    assert shelf.desk.get_update(1) is not None  # of genesis


def test_sets_that_stay_the_same_are_one() -> None:
    shelf = Shelf(reward_units=0)
    shelf.grow_to(4)
    assert len(shelf.desk._sets) == 5
    assert len({id(found) for found in shelf.desk._sets.values()}) == 1
