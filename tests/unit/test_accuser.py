"""The accuser: a lie that this node saw becomes one transaction of its validator, until it is punished."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from consensus import crypto
from consensus.bft.evidence import encode_evidence
from consensus.ledger import staking
from consensus.transaction import KIND_EVIDENCE, Transaction, decode_transaction, is_signed
from node.duties import accuser
from node.duties.accuser import RETRY_BLOCKS, Accuser
from node.duties.own_account import OwnAccount
from node.mempool.receipts import Outcome, Receipt
from tests.staking_chain import OPERATORS, StakingChain, make_staking_genesis

CHAIN_ID = "staking-test"


class Office:
    """An accuser of operator 0 over a chain, with what it submitted; `waiting` is its mempool."""

    def __init__(self, key: crypto.PrivateKey | None = OPERATORS[0], **parameters: Any) -> None:
        settings: dict[str, Any] = {"unbonding_epochs": 20, "churn_bp_max": 100, **parameters}
        self.chain = StakingChain(make_staking_genesis(**settings))
        self.sent: list[Transaction] = []
        self.waiting: dict[bytes, Transaction] = {}
        self.outcome = Outcome.ACCEPTED
        mempool: Any = SimpleNamespace(
            get=self.waiting.get, get_pending=lambda _: list(self.waiting.values())
        )
        clock: Any = SimpleNamespace(now_ms=lambda: self.chain.now_ms)
        rules, door = self.chain.rules, self._as_chain()
        account = key and OwnAccount(rules, door, mempool, clock, key, self._submit, self._run)
        self.accuser = Accuser(rules, door, account)

    def _as_chain(self) -> Any:
        office = self

        class Door:
            @property
            def final_view(self) -> Any:
                return office.chain.view

            @property
            def finalized(self) -> Any:
                return office.chain.view.header

        return Door()

    async def _submit(self, raws: Sequence[bytes]) -> list[Receipt]:
        (tx,) = (decode_transaction(raw) for raw in raws)
        self.sent.append(tx)
        if self.outcome is Outcome.ACCEPTED:
            self.waiting[tx.id] = tx
        return [Receipt(tx.id, self.outcome, "unfunded", "has no money")]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def grow(self, blocks: int, *candidates: Transaction) -> None:
        for _ in range(blocks):
            self.chain.grow(*candidates)
            candidates = ()
            self.accuser.retry()


def test_a_lie_becomes_one_accusation_that_the_chain_takes() -> None:
    office = Office()
    lie = office.chain.lie(2, 0)
    office.accuser.on_evidence(lie)
    office.accuser.on_evidence(lie)
    office.accuser.on_evidence(office.chain.lie(2, 0, view=5))  # the same liar again
    (tx,) = office.sent
    assert (tx.kind, tx.receiver, tx.payload) == (KIND_EVIDENCE, OPERATORS[2].address, encode_evidence(lie))
    assert tx.sender == OPERATORS[0].address
    assert is_signed(tx, CHAIN_ID)
    office.grow(1, tx)
    assert office.chain.stake(2).status == staking.TOMBSTONED
    office.waiting.clear()
    office.grow(RETRY_BLOCKS + 1)
    assert len(office.sent) == 1


def test_what_was_turned_away_is_tried_again_and_what_waits_is_not() -> None:
    office = Office()
    office.outcome = Outcome.REJECTED
    office.accuser.on_evidence(office.chain.lie(1, 0))
    office.grow(RETRY_BLOCKS - 1)
    assert len(office.sent) == 1
    office.outcome = Outcome.ACCEPTED
    office.grow(1)
    assert len(office.sent) == 2
    office.grow(2 * RETRY_BLOCKS)
    assert len(office.sent) == 2
    office.waiting.clear()  # it expired
    office.grow(1)
    assert len(office.sent) == 3


def test_a_second_liar_is_accused_with_the_next_nonce() -> None:
    office = Office()
    office.accuser.on_evidence(office.chain.lie(1, 0))
    office.accuser.on_evidence(office.chain.lie(2, 0))
    assert [tx.nonce for tx in office.sent] == [office.sent[0].nonce, office.sent[0].nonce + 1]
    built = office.chain.grow(*office.sent)
    assert len(built.block.transactions) == 2


def test_nobody_is_accused_twice_by_two_nodes_nor_too_late() -> None:
    office = Office(unbonding_epochs=4, churn_bp_max=100)
    office.outcome = Outcome.REJECTED
    lie = office.chain.lie(1, 0)
    office.accuser.on_evidence(lie)
    office.grow(1, office.chain.accuse(1, lie))  # somebody else was first
    office.grow(2 * RETRY_BLOCKS)
    assert len(office.sent) == 1
    office.accuser.on_evidence(office.chain.lie(2, office.chain.epoch))
    office.grow(40)
    count = len(office.sent)
    office.grow(40)
    assert len(office.sent) == count  # the set that the lie speaks of is forgotten


def test_observers_and_chains_without_epochs_accuse_nobody() -> None:
    lie = StakingChain().lie(1, 0)
    for office in (Office(None), Office(epoch_blocks=0)):
        office.accuser.on_evidence(lie)
        assert office.sent == []


def test_cases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuser, "WAITING_MAX", 2)
    office = Office()
    for number in (1, 2, 3):
        office.accuser.on_evidence(office.chain.lie(number, 0))
    assert [tx.receiver for tx in office.sent] == [OPERATORS[1].address, OPERATORS[2].address]
