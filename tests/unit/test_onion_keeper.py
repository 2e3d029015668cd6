"""The onion keeper: commits once an era, reveals what the state asks for, and needs no memory of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consensus import crypto
from consensus.ledger import beacon
from consensus.ledger.state import View
from consensus.transaction import KIND_COMMIT, Transaction, decode_transaction
from node.blocks.chain import Chain
from node.duties import onion_keeper
from node.duties.onion_keeper import (
    ERA_EPOCHS_MIN,
    RETRY_BLOCKS,
    OnionKeeper,
    compute_era_epochs,
    compute_secret,
)
from node.duties.own_account import OwnAccount
from node.mempool.receipts import Outcome, Receipt
from tests.staking_chain import OPERATORS, PEOPLE, StakingChain, make_staking_genesis

EPOCH_BLOCKS = 3


class House:
    """The keeper of operator 0 over a chain whose blocks are all its own where `build` makes them."""

    def __init__(self, key: crypto.PrivateKey | None = OPERATORS[0], **parameters: Any) -> None:
        settings: dict[str, Any] = {"leader_election": "onion", "fee_units_min": 0, **parameters}
        self.chain = StakingChain(make_staking_genesis(**settings))
        self.sent: list[Transaction] = []
        self.waiting: dict[bytes, Transaction] = {}
        self.outcome = Outcome.ACCEPTED
        self.is_behind = False
        self.keeper = self.open(key)

    def open(self, key: crypto.PrivateKey | None = OPERATORS[0]) -> OnionKeeper:
        """A keeper as a node has it after a start."""
        mempool: Any = SimpleNamespace(
            get=self.waiting.get, get_pending=lambda _: list(self.waiting.values())
        )
        clock: Any = SimpleNamespace(now_ms=lambda: self.chain.now_ms)
        rules, door = self.chain.rules, cast("Chain", _Door(self.chain))
        account = key and OwnAccount(rules, door, mempool, clock, key, self._submit, self._run)
        return OnionKeeper(rules, door, account, lambda: self.is_behind)

    async def _submit(self, raws: Sequence[bytes]) -> list[Receipt]:
        (tx,) = (decode_transaction(raw) for raw in raws)
        self.sent.append(tx)
        if self.outcome is Outcome.ACCEPTED:
            self.waiting[tx.id] = tx
        return [Receipt(tx.id, self.outcome, "unfunded", "has no money")]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def build(self, view: View | None = None, keeper: OnionKeeper | None = None) -> Any:
        """The next block, by operator 0, which reveals what its keeper says."""
        view = view or self.chain.view
        epoch = self.chain.epoch
        return self.chain.rules.build_block(
            view,
            (),
            epoch=epoch,
            view_number=view.header.view + 1 if epoch == view.header.epoch else 1,
            proposer_key=OPERATORS[0].public_key,
            now_ms=self.chain.now_ms + 100,
            certificate=self.chain.certify(view, epoch),
            reveal=(keeper or self.keeper).find_reveal(view, epoch),
        )

    def grow(self, blocks: int = 1) -> None:
        """Blocks with all that waits, after each of which the keeper looks."""
        for _ in range(blocks):
            waiting = tuple(self.waiting.values())
            self.waiting.clear()
            if waiting:
                self.chain.grow(*waiting)
            else:
                self.chain.add(self.build().block)
            self.keeper.retry()


class _Door:
    def __init__(self, chain: StakingChain) -> None:
        self._chain = chain

    @property
    def final_view(self) -> View:
        return self._chain.view

    @property
    def finalized(self) -> Any:
        return self._chain.view.header

    @property
    def epoch(self) -> int:
        return self._chain.epoch


def get_tip(house: House) -> bytes:
    return beacon.get_tip(house.chain.view.records, OPERATORS[0].address, house.chain.epoch)


def test_a_validator_commits_by_itself_and_reveals_from_two_epochs_on() -> None:
    house = House()
    house.keeper.retry()
    (tx,) = house.sent
    assert (tx.kind, tx.sender, tx.receiver) == (KIND_COMMIT, OPERATORS[0].address, OPERATORS[0].address)
    house.grow(2 * EPOCH_BLOCKS - 1)
    assert house.build().block.header.reveal == b""
    house.grow()
    assert len(house.build().block.header.reveal) == 32
    house.grow(3 * RETRY_BLOCKS)
    assert len(house.sent) == 1


def test_each_era_has_its_onion_before_the_last_one_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onion_keeper, "ERA_BLOCKS", 1)
    monkeypatch.setattr(onion_keeper, "RETRY_BLOCKS", 1)
    house = House()
    house.keeper.retry()
    era_blocks = ERA_EPOCHS_MIN * EPOCH_BLOCKS
    house.grow(4 * era_blocks)
    tips = [beacon.decode_tip(tx.payload) for tx in house.sent]
    assert len(tips) == len(set(tips)) == 5
    headers = [block.header for block in house.chain.blocks]
    silent = [header.height for header in headers if header.epoch >= 2 and not header.reveal]
    # What a commitment stands in is somebody else's block here, and reveals nothing.
    assert len(silent) == len(house.sent) - 1


def test_a_proposal_that_failed_is_followed_by_the_same_layer() -> None:
    house = House()
    house.keeper.retry()
    house.grow(2 * EPOCH_BLOCKS)
    failed = house.build().block.header.reveal
    assert failed == house.build().block.header.reveal
    house.grow()
    assert beacon.compute_layer_above(house.build().block.header.reveal) == failed


def test_on_a_branch_the_state_of_the_branch_counts() -> None:
    house = House()
    house.keeper.retry()
    house.grow(2 * EPOCH_BLOCKS)
    below = house.build()
    view = house.chain.view.extend(below.delta)
    above = house.build(view).block.header.reveal
    assert beacon.compute_layer_above(above) == below.block.header.reveal


def test_whoever_has_the_key_has_the_onions() -> None:
    house = House()
    house.keeper.retry()
    house.grow(2 * EPOCH_BLOCKS + 1)
    again = house.open()
    assert again.find_reveal(house.chain.view, house.chain.epoch) == house.keeper.find_reveal(
        house.chain.view, house.chain.epoch
    )
    house.keeper = again
    house.grow(RETRY_BLOCKS)
    assert len(house.sent) == 1  # it saw that it had committed
    secrets = {
        compute_secret(key, chain, era) for key in OPERATORS[:2] for chain in ("a", "b") for era in (0, 1)
    }
    assert len(secrets) == 8


def test_a_tail_reveals_nothing() -> None:
    house = House()
    house.keeper.retry()
    house.grow(3 * EPOCH_BLOCKS)
    assert house.keeper.find_reveal(house.chain.view, 2) == b""
    assert house.keeper.find_reveal(house.chain.view, 3) != b""


def test_an_onion_of_another_key_is_not_guessed_at() -> None:
    house = House()
    tip = beacon.Onion(b"o" * 32, 5).tip
    house.chain.grow(
        house.chain.make(KIND_COMMIT, OPERATORS[0], OPERATORS[0].address, beacon.encode_tip(tip))
    )
    house.chain.reach(2)
    assert get_tip(house) == tip
    assert house.keeper.find_reveal(house.chain.view, 2) == b""
    house.keeper.retry()
    assert len(house.sent) == 1  # and replaces it


def test_while_it_is_behind_it_commits_to_nothing() -> None:
    house = House()
    house.is_behind = True
    house.keeper.retry()
    assert house.sent == []
    house.is_behind = False
    house.keeper.retry()
    assert len(house.sent) == 1


def test_what_was_turned_away_is_tried_again() -> None:
    house = House()
    house.outcome = Outcome.REJECTED
    house.keeper.retry()
    house.grow(RETRY_BLOCKS)
    assert len(house.sent) == 2


def test_observers_the_seatless_and_other_chains_commit_to_nothing() -> None:
    for house in (House(None), House(PEOPLE[0]), House(OPERATORS[7]), House(leader_election="round_robin")):
        house.keeper.retry()
        house.grow(2 * EPOCH_BLOCKS)
        assert house.sent == []
        assert house.keeper.find_reveal(house.chain.view, house.chain.epoch) == b""


def test_an_onion_lasts_for_every_block_of_its_era() -> None:
    assert compute_era_epochs(8) * 8 >= onion_keeper.ERA_BLOCKS - 8
    assert compute_era_epochs(100_000) == ERA_EPOCHS_MIN
