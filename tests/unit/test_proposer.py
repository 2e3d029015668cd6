"""The proposer: what it builds is stored, judged the same by others, and never built from nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.bft.contract import BlockBuilt, BlockRef, Build, Event
from consensus.bft.messages import make_block_reader
from consensus.block import Header
from consensus.errors import Rejected
from consensus.ledger.building import Built
from consensus.ledger.rules import Rules
from consensus.ledger.state import View
from consensus.transaction import Transaction
from node.blocks.budget import COUNT_FLOOR, COUNT_START, SAMPLE_TRANSACTIONS, BlockBudget
from node.blocks.chain import Chain
from node.blocks.proposer import UNFINAL_BLOCKS_MAX, Proposer
from node.clock import ManualClock
from node.mempool.mempool import Mempool
from node.mempool.refusals import Judged
from node.store.store import Store
from tests.chain_factory import ChainFactory


class Bench:
    def __init__(self, folder: Path) -> None:
        self.factory = ChainFactory()
        self.rules = self.factory.rules
        self.store = Store.open(self.factory.write_home(folder), self.rules)
        self.chain = Chain(self.store.recover().state)
        self.clock = ManualClock(now_ms=10**12)
        self.mempool = Mempool(self.rules, self.clock)
        self.posted: list[Event] = []
        self.built: list[Built] = []
        self.read_block = make_block_reader(self.rules.validators)
        self.key = self.factory.validator_keys[1]
        self.budget = BlockBudget(300)
        self.proposer = Proposer(
            self.rules,
            self.chain,
            self.store,
            self.mempool,
            self.clock,
            self.budget,
            lambda: self.key.public_key,
            lambda _view, _epoch: b"",
            self.read_block,
            self.posted.append,
            self._on_built,
        )

    def _on_built(self, built: Built, _refused: list[Judged]) -> None:
        self.built.append(built)
        self.mempool.on_built(built)

    def submit(self, *transactions: Transaction) -> None:
        batch = self.mempool.prepare([tx.raw for tx in transactions], self.chain.final_view, 0)
        receipts = self.mempool.admit(batch, [True] * len(batch.candidates), self.chain.final_view, 0)
        assert all(receipt.outcome.value == "accepted" for receipt in receipts), receipts

    def build(self, parent: Header, *, is_empty_allowed: bool = True) -> BlockBuilt | None:
        """The answer, if there was one."""
        self.posted.clear()
        ref = BlockRef(parent.hash, 0, parent.view, parent.height, parent.parent_view, parent.parent_hash, 0)
        certificate = self.factory.certify(parent) if parent.height else None
        self.proposer.build(Build(parent.view + 1, ref, certificate, is_empty_allowed))
        answers = [event for event in self.posted if isinstance(event, BlockBuilt)]
        assert len(answers) <= 1
        return answers[0] if answers else None

    def get_transactions(self, built: BlockBuilt | None) -> Sequence[Transaction]:
        assert built is not None
        assert built.block is not None
        block = self.chain.get_block(built.block.hash)
        assert block is not None
        return block.transactions


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "home")
    yield bench
    bench.store.close()


def test_what_it_builds_is_durable_and_every_judge_accepts_it(bench: Bench) -> None:
    transactions = [bench.factory.transfer(0, 1), bench.factory.transfer(2, 3)]
    bench.submit(*transactions)
    answer = bench.build(bench.chain.finalized)
    assert set(bench.get_transactions(answer)) == set(transactions)
    assert answer is not None
    assert answer.block is not None
    block = bench.store.get_block(answer.block.hash)
    assert block is not None
    assert block.header.raw == answer.payload
    assert block.header.proposer == bench.key.public_key
    bench.rules.check_block(bench.factory.state.view(), block, None)


def test_with_nothing_pending_it_answers_only_when_an_empty_block_may_come(bench: Bench) -> None:
    assert bench.build(bench.chain.finalized, is_empty_allowed=False) is None
    assert bench.proposer.is_waiting
    assert bench.get_transactions(bench.build(bench.chain.finalized)) == ()
    assert not bench.proposer.is_waiting


def test_what_waited_is_built_when_it_is_asked_again(bench: Bench) -> None:
    assert bench.build(bench.chain.finalized, is_empty_allowed=False) is None
    bench.submit(bench.factory.transfer(0, 1))
    assert len(bench.get_transactions(bench.build(bench.chain.finalized, is_empty_allowed=False))) == 1
    assert not bench.proposer.is_waiting


def test_transactions_of_unfinal_blocks_are_not_proposed_again(bench: Bench) -> None:
    bench.submit(bench.factory.transfer(0, 1))
    first = bench.build(bench.chain.finalized)
    assert len(bench.get_transactions(first)) == 1
    assert first is not None
    assert first.block is not None
    parent = bench.chain.get_header(first.block.hash)
    assert parent is not None
    assert bench.build(parent, is_empty_allowed=False) is None
    assert bench.proposer.is_waiting


def test_far_above_the_last_final_block_only_empty_blocks_are_proposed(bench: Bench) -> None:
    bench.submit(bench.factory.transfer(0, 1))
    parent = bench.chain.finalized
    for _ in range(UNFINAL_BLOCKS_MAX):
        bench.clock.advance(1_000)
        view = bench.chain.get_view(parent.hash)
        assert view is not None
        built = bench.rules.build_block(
            view,
            (),
            epoch=0,
            view_number=parent.view + 1,
            proposer_key=bench.key.public_key,
            now_ms=bench.clock.now_ms(),
            certificate=bench.factory.certify(parent) if parent.height else None,
        )
        bench.chain.add(built.block, built.delta)
        parent = built.block.header
    assert bench.get_transactions(bench.build(parent)) == ()
    assert len(bench.mempool) == 1


def test_what_turns_out_invalid_leaves_the_mempool_with_its_reason(bench: Bench) -> None:
    tx = bench.factory.transfer(0, 1)
    bench.submit(tx)
    # The same nonce became used in an unfinal block, which the mempool (on the final state) cannot know.
    bench.factory._nonces[0] = 0
    rival = bench.factory.append(bench.factory.build((bench.factory.transfer(0, 2, amount=9),)))
    bench.chain.add(rival, bench.rules.check_block(bench.chain.final_view, rival, None))
    assert bench.build(rival.header, is_empty_allowed=False) is None
    assert bench.proposer.is_waiting
    drop = bench.mempool.get_drop(tx.id)
    assert drop is not None
    assert drop.code == "nonce_used"
    assert len(bench.mempool) == 0


def test_what_turns_out_invalid_keeps_nothing_behind_it_from_the_block(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.proposer._budget, "get_count_max", lambda _: 1)
    bad, good = bench.factory.transfer(0, 1), bench.factory.transfer(1, 2)
    bench.submit(bad, good)
    bench.factory._nonces[0] = bench.factory._nonces[1] = 0
    rival = bench.factory.append(bench.factory.build((bench.factory.transfer(0, 2, amount=9),)))
    bench.chain.add(rival, bench.rules.check_block(bench.chain.final_view, rival, None))
    assert bench.get_transactions(bench.build(rival.header, is_empty_allowed=False)) == (good,)


def test_what_a_refused_one_held_up_is_built_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, deferred = bench.factory.transfer(0, 1), bench.factory.transfer(0, 2)
    bench.submit(refused, deferred)
    build_block = type(bench.rules).build_block

    def refuse(rules: Rules, view: View, candidates: Sequence[Transaction], **more: Any) -> Built:
        if refused not in candidates:
            return build_block(rules, view, candidates, **more)
        return replace(
            build_block(rules, view, (), **more), refused=((refused, 9_000),), deferred=(deferred,)
        )

    monkeypatch.setattr(type(bench.rules), "build_block", refuse)
    answer = bench.build(bench.chain.finalized, is_empty_allowed=False)
    assert bench.get_transactions(answer) == (deferred,)
    assert not bench.proposer.is_waiting


def test_a_parent_that_is_not_here_is_answered_as_a_failure(bench: Bench) -> None:
    stranger = ChainFactory(chain_id="elsewhere").head
    assert bench.build(stranger) == BlockBuilt(1, None, b"")


def test_a_build_that_fails_is_answered_as_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise Rejected("cannot be built", field="block")

    monkeypatch.setattr(type(bench.rules), "build_block", fail)
    assert bench.build(bench.chain.finalized) == BlockBuilt(1, None, b"")


def test_it_takes_no_more_than_the_budget_allows(bench: Bench) -> None:
    bench.submit(*(bench.factory.transfer(number % 4, 3 - number % 4) for number in range(COUNT_FLOOR + 20)))
    bench.budget.note_judged(SAMPLE_TRANSACTIONS, 10_000)
    assert len(bench.get_transactions(bench.build(bench.chain.finalized))) == COUNT_FLOOR


def test_a_block_of_its_own_that_was_nullified_halves_the_next(bench: Bench) -> None:
    parent = bench.chain.finalized
    bench.submit(*(bench.factory.transfer(number % 4, 3 - number % 4) for number in range(240)))
    assert len(bench.get_transactions(bench.build(parent))) == 240
    bench.budget.note_built(COUNT_START, 100)
    ref = BlockRef(parent.hash, 0, parent.view, parent.height, parent.parent_view, parent.parent_hash, 0)
    bench.proposer.build(Build(parent.view + 5, ref, None, True))  # the same parent, a later view
    answers = [event for event in bench.posted if isinstance(event, BlockBuilt)]
    assert len(bench.get_transactions(answers[-1])) == 120
