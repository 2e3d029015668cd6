"""Refusals answered by a running node: why, what would have to change, and the same after a restart."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import NotYet
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import ACCEPT, REFUSE, Counterfactual
from consensus.refusal import get_head, verify_entry
from consensus.transaction import Transaction, sign_transaction
from node.desks import explainer
from node.full_node import FullNode
from node.home import NetworkPlan, create_network
from node.mempool import refusals
from node.network.memory_transport import MemoryNetwork
from node.node_files import read_node_files

LARGE = 5_000_000


class World:
    """One node whose chain refuses what scores as a large payment between strangers does."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        plan = NetworkPlan(1, 20_000, block_interval_ms=10, refuses=False, module_names=("fraud", "velocity"))
        self.network = create_network(folder, plan, self.rng.randbytes)
        files = read_node_files(self.network.homes[0])
        modules, genesis = files.rules.modules, files.rules.genesis
        self.rules = files.rules
        view = self.rules.create_genesis_state().view()
        score = int(self.rules.evaluate(view, (self.sign(0, LARGE),)).score[0])
        assert score > 0
        fraud = replace(genesis.modules[0], flag_score_min=score, refuse_score_min=score)
        self.rules = Rules(replace(genesis, modules=(fraud, *genesis.modules[1:])), modules)
        self.files = replace(files, rules=self.rules, settings=replace(files.settings, worker=False))
        self.node: FullNode

    def sign(self, sender: int, amount: int, nonce: int = 0) -> Transaction:
        return sign_transaction(
            self.network.accounts[sender],
            self.rules.chain_id,
            nonce=nonce,
            receiver=self.network.accounts[sender + 1].address,
            amount=amount,
            fee=1,
            timestamp_ms=10,
            expires_ms=10_000,
        )

    async def start(self) -> None:
        links = MemoryNetwork()
        self.node = FullNode(
            self.files,
            rng=self.rng,
            make_network=lambda identity, handler: links.add(identity.key.public_key),
            serves_api=False,
        )
        await self.node.start()

    async def stop(self) -> None:
        await self.node.close()
        assert self.node.fault is None

    async def refuse(self, sender: int) -> Transaction:
        tx = self.sign(sender, LARGE)
        (receipt,) = await self.node.desk.submit([tx.raw])
        assert (receipt.outcome, receipt.code) == ("refused", "refused"), receipt
        return tx

    async def wait_height(self, height: int) -> None:
        async with asyncio.timeout(20):
            while self.node.chain.finalized.height < height:  # noqa: ASYNC110 - the node has no event for it
                await asyncio.sleep(0.005)

    def get_changes(self, verdict: Any) -> tuple[Counterfactual, ...] | None:
        assert [module.module for module in verdict.modules] == ["fraud", "velocity"]
        assert verdict.modules[1].counterfactuals in ((), None)  # that module offers none
        changes: tuple[Counterfactual, ...] | None = verdict.modules[0].counterfactuals
        return changes


@pytest.fixture
async def world(tmp_path: Path, seed: int) -> AsyncIterator[World]:
    world = World(tmp_path / "net", seed)
    await world.start()
    yield world
    await world.stop()


async def test_a_score_that_is_no_acceptance_says_what_would_have_to_change(world: World) -> None:
    verdict = await world.node.desk.score(world.sign(0, LARGE))
    assert verdict.outcome == REFUSE
    changes = world.get_changes(verdict)
    assert changes
    for change in changes:
        if change.what == "amount":
            again = await world.node.desk.score(world.sign(0, change.value))
            assert (again.outcome, again.modules[0].explanation.score) == (ACCEPT, change.score)
            assert world.get_changes(again) == ()
    assert any(change.what == "amount" and change.value < LARGE for change in changes)


async def test_changes_are_looked_for_beside_the_loop_and_by_few_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    threads: list[int] = []

    def find(*_: object) -> tuple[()]:
        threads.append(threading.get_ident())
        assert gate.wait(20)
        return ()

    monkeypatch.setattr(type(world.rules.modules[0]), "find_counterfactuals", find)
    monkeypatch.setattr(explainer, "WAITING_MAX", 2)
    tx = world.sign(0, LARGE)
    waiting = [asyncio.create_task(world.node.desk.score(tx)) for _ in range(2)]
    height = world.node.chain.finalized.height
    await world.wait_height(height + 3)  # blocks go on
    assert world.get_changes(await world.node.desk.score(tx)) is None  # a third is answered without
    gate.set()
    assert [world.get_changes(await task) for task in waiting] == [(), ()]
    assert threading.get_ident() not in threads


async def test_only_so_many_wait_for_verdicts_of_the_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explainer, "REBUILDS_MAX", 2)
    made = world.node.desk._explainer
    tx = world.sign(0, 1)
    (receipt,) = await world.node.desk.submit([tx.raw])
    assert receipt.outcome == "accepted"
    await world.wait_height(world.node.chain.finalized.height + 3)
    await made._rebuilding.acquire()
    waiting = [asyncio.create_task(world.node.desk.explain(tx.id)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NotYet, match="ask again in a moment"):
        await world.node.desk.explain(tx.id)
    made._rebuilding.release()
    for answer in waiting:
        assert await answer is not None
    assert made._rebuilds == 0


async def test_a_refusal_is_answered_for_after_a_restart(world: World) -> None:
    tx = await world.refuse(0)
    told, verdict = world.node.desk.get_transaction(tx.id), await world.node.desk.explain(tx.id)
    assert told is not None
    assert verdict is not None
    assert world.get_changes(verdict)
    assert told.status == "refused"
    await world.wait_height(verdict.height + 4)
    await world.stop()
    await world.start()
    assert world.node.refusals.get(tx.id) is None  # that was memory
    again = world.node.desk.get_transaction(tx.id)
    assert again is not None
    assert (again.status, again.transaction, again.score) == ("refused", tx, told.score)
    assert again.reasons == tuple(reason[:120] for reason in told.reasons[:8])
    explained = await world.node.desk.explain(tx.id)
    assert explained is not None
    assert (explained.score, explained.modules) == (verdict.score, verdict.modules)


async def test_a_refusal_is_proven_by_the_nodes_own_block(world: World) -> None:
    tx = await world.refuse(0)
    height = world.node.chain.finalized.height
    await world.wait_height(height + 4)
    record = world.node.desk.get_refusal(tx.id)
    assert record is not None
    assert record.logged is not None
    assert record.proof is not None
    assert record.proof.certificate is not None
    header, logged = record.proof.header, record.logged
    assert world.node.store.get_header(header.height) == header
    assert verify_entry(get_head(header), logged.leaf, logged.index, record.proof.siblings)
    page = world.node.desk.get_refusals(0, 10)
    assert page.entries == (logged,)
    assert page.head == get_head(header)
    await world.refuse(2)
    proof = world.node.desk.prove_refusals(1, None)
    assert (proof.first, proof.second.count) == (page.head, 2)


async def test_the_same_transaction_again_fills_no_log(world: World) -> None:
    tx = await world.refuse(0)
    for _ in range(5):
        await world.node.desk.submit([tx.raw])
    assert len(world.node.refusal_keeper.log) == 1


async def test_changes_of_old_refusals_are_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "CHANGES_KEPT", 1)
    first, second = await world.refuse(0), await world.refuse(2)
    old, new = await world.node.desk.explain(first.id), await world.node.desk.explain(second.id)
    assert old is not None
    assert old.modules[0].counterfactuals is None
    assert new is not None
    assert new.modules[0].counterfactuals
