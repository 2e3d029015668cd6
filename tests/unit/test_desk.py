"""The desk: what the node answers about a small real chain that it made itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from consensus import block as blocks
from consensus import codec, crypto, genesis, light, merkle, vote
from consensus.errors import NotYet
from consensus.ledger import records as rec
from consensus.ledger.proofs import AccountProof, verify_account_proof
from consensus.ledger.record_proofs import RecordProof
from consensus.ledger.scoring import REFUSE
from consensus.transaction import KIND_BOND, Transaction, sign_transaction
from node.desks import desk
from node.desks.desk import Desk
from node.full_node import FullNode
from node.home import NetworkPlan, create_network
from node.mempool.refusals import Judged
from node.network.memory_transport import MemoryNetwork
from node.node_files import read_node_files

TRANSFERS = 12


class World:
    def __init__(self, folder: Path, seed: int) -> None:
        rng = random.Random(seed)
        # The model finds accounts that begin like these odd; here they shall only be flagged for it.
        names = ("fraud", "velocity")
        plan = NetworkPlan(1, 20_000, block_interval_ms=10, refuses=False, module_names=names)
        self.network = create_network(folder, plan, rng.randbytes)
        files = read_node_files(self.network.homes[0])
        links = MemoryNetwork()
        self.node = FullNode(
            replace(files, settings=replace(files.settings, worker=False)),
            rng=rng,
            make_network=lambda identity, handler: links.add(identity.key.public_key),
            serves_api=False,
        )
        self.desk: Desk = self.node.desk
        self.final: list[Transaction] = []

    def transfer(self, sender: int, nonce: int, amount: int = 100) -> Transaction:
        accounts = self.network.accounts
        return sign_transaction(
            accounts[sender],
            self.node.rules.chain_id,
            nonce=nonce,
            receiver=accounts[sender + 1].address,
            amount=amount,
            fee=1,
            timestamp_ms=10 + nonce,
            expires_ms=10_000,
        )

    async def grow(self) -> None:
        """Some transfers, each wave final before the next."""
        for nonce in range(TRANSFERS // 4):
            wave = [self.transfer(sender, nonce) for sender in range(4)]
            receipts = await self.desk.submit([tx.raw for tx in wave])
            assert [receipt.outcome for receipt in receipts] == ["accepted"] * 4
            async for _ in self._ticks():
                if all(self.node.store.find_transaction(tx.id) for tx in wave):
                    break
            self.final += wave

    async def _ticks(self) -> AsyncIterator[None]:
        async with asyncio.timeout(10):
            while True:
                yield
                await asyncio.sleep(0.002)


@pytest.fixture
async def world(tmp_path: Path, seed: int) -> AsyncIterator[World]:
    world = World(tmp_path / "net", seed)
    await world.node.start()
    await world.grow()
    yield world
    await world.node.close()
    assert world.node.fault is None


async def test_a_final_transaction_is_told_with_its_place_and_found_there(world: World) -> None:
    for tx in world.final:
        record = world.desk.get_transaction(tx.id)
        assert record is not None
        assert record.status == "final"
        assert record.height is not None
        assert record.index is not None
        block = world.desk.get_block(record.height)
        assert block is not None
        assert block.is_final
        assert block.block.transactions[record.index] == tx == record.transaction
        assert (record.score, record.outcome) == (
            block.block.scores[record.index],
            block.block.outcomes[record.index],
        )
    assert world.desk.get_transaction(b"?" * 32) is None


async def test_explaining_a_final_transaction_executes_again_and_says_what_the_block_says(
    world: World,
) -> None:
    for tx in world.final[::5]:
        record, verdict = world.desk.get_transaction(tx.id), await world.desk.explain(tx.id)
        assert record is not None
        assert record.height is not None
        assert verdict is not None
        assert (verdict.score, verdict.outcome) == (record.score, record.outcome)
        assert verdict.height == record.height - 1
        assert [module.module for module in verdict.modules] == ["fraud", "velocity"]
        assert max(module.explanation.score for module in verdict.modules) == record.score
        for module in verdict.modules:
            parts = module.explanation.contributions
            assert (
                module.explanation.base + sum(part.contribution for part in parts)
                == module.explanation.margin
            )
    assert await world.desk.explain(b"?" * 32) is None


async def test_a_transaction_can_be_scored_without_being_sent(world: World) -> None:
    tx = world.transfer(5, 0)
    verdict = await world.desk.score(tx)
    assert verdict.transaction == tx
    assert verdict.score == max(module.explanation.score for module in verdict.modules)
    assert world.desk.get_transaction(tx.id) is None


async def test_a_rejected_transaction_gets_its_reason(world: World) -> None:
    again, unfunded = world.transfer(0, 0, amount=99), world.transfer(5, 0, amount=2**52)
    receipts = await world.desk.submit([again.raw, unfunded.raw, b"\x00", world.final[0].raw])
    assert [(receipt.outcome, receipt.code) for receipt in receipts[:2]] == [
        ("rejected", "nonce_used"),
        ("rejected", "unfunded"),
    ]
    assert receipts[2].outcome == "rejected"
    assert receipts[3].outcome == "accepted"  # it is final already


async def test_blocks_are_found_by_height_hash_and_name(world: World) -> None:
    top = world.desk.get_block("finalized")
    assert top is not None
    assert top.is_final
    for key in (top.block.header.height, top.block.hash):
        assert world.desk.get_block(key) == top
    head, genesis = world.desk.get_block("head"), world.desk.get_block(0)
    assert head is not None
    assert head.block.header.height >= top.block.header.height
    assert genesis is not None
    assert genesis.certificate is None
    assert world.desk.get_block(10**6) is None
    assert world.desk.get_block(b"?" * 32) is None
    raw = world.desk.get_raw_block(1)
    assert raw is not None
    assert blocks.decode_block(raw) == world.desk.get_block(1).block  # type: ignore[union-attr]
    first, second = world.desk.get_blocks(1, 2)
    assert second.block.header.parent_hash == first.block.hash
    assert list(world.desk.get_blocks(10**6, 5)) == []


async def test_a_final_block_comes_with_what_makes_it_final(world: World) -> None:
    record = world.desk.get_block(1)
    assert record is not None
    assert record.certificate is not None
    last = record.headers[-1].hash if record.headers else record.block.hash
    assert record.certificate.subject.block_hash == last
    rules = world.node.rules
    vote.check_certificate(record.certificate, rules.validators, rules.chain_id, crypto.verify)


async def test_an_account_is_told_with_its_history_page_by_page(world: World) -> None:
    address = world.network.accounts[1].address
    account = world.desk.get_account(address)
    view = world.node.chain.final_view
    assert account.balance == view.get_account(address).balance  # type: ignore[union-attr]
    assert account.nonce == TRANSFERS // 4
    seen, before = [], None
    while True:
        page = world.desk.get_account_history(address, before, 2)
        seen += [record.transaction.id for record in page.records]
        before = page.before
        if before is None:
            break
    mine = {tx.id for tx in world.final if address in (tx.sender, tx.receiver)}
    assert set(seen) == mine
    assert len(seen) == len(mine)
    stranger = world.desk.get_account(b"\5" * 20)
    assert (stranger.balance, stranger.nonce) == (0, 0)


async def test_proofs_of_a_transaction_and_an_account_hold(world: World) -> None:
    for tx in world.final:
        proof = world.desk.prove_transaction(tx.id)
        assert proof is not None
        record = world.desk.get_transaction(tx.id)
        assert record is not None
        leaf = blocks.compute_leaf(tx.id, record.score or 0, record.outcome or 0)
        root = proof.header.transactions_root
        assert merkle.verify_inclusion(
            merkle.hash_leaf(leaf), proof.index, proof.tree_size, proof.siblings, root
        )
        anchor = world.node.store.get_header(proof.anchor_height)
        assert anchor is not None
        if proof.header.height < proof.anchor_height:
            assert merkle.verify_inclusion(
                merkle.hash_leaf(proof.header.hash),
                proof.header.height,
                proof.anchor_height,
                proof.history_proof,
                anchor.history_root,
            )
    assert world.desk.prove_transaction(b"?" * 32) is None
    address = world.network.accounts[2].address
    account = world.desk.prove_account(address)
    assert account is not None
    proof_of_account = AccountProof.from_tuple(codec.decode(account.proof, what="proof", bytes_max=100_000))
    assert verify_account_proof(proof_of_account, account.header.state_root)
    assert world.desk.prove_account(b"\5" * 20) is None


async def test_the_history_for_proofs_is_read_little_by_little_after_a_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    height = world.node.chain.finalized.height
    assert len(world.desk._history) == height + 1  # every block that became final here
    fresh = Desk(world.node)
    fresh.grow_history(1)
    assert len(fresh._history) == 2
    fresh.on_final(world.node.chain.finalized)  # not next in line: what lies between is read first
    assert len(fresh._history) == 2
    with monkeypatch.context() as patch:
        patch.setattr(desk, "HISTORY_ASKED_MAX", 0)
        with pytest.raises(NotYet, match="blocks are read since the start"):
            fresh.prove_transaction(world.final[0].id)
    assert fresh.prove_transaction(world.final[0].id) == world.desk.prove_transaction(world.final[0].id)


async def test_the_status_validators_models_and_peers_are_told(world: World) -> None:
    status = world.desk.get_status()
    assert status.chain_id == world.node.rules.chain_id
    assert status.finalized.height >= 1
    assert status.clock_ms == status.finalized.timestamp_ms  # the workload's clock
    assert not status.syncing
    assert world.desk.is_ready()
    (validator,) = world.desk.get_validators().validators
    assert validator.is_self
    assert [model.name for model in world.desk.get_models().models] == ["fraud", "velocity"]
    assert status.model == world.desk.get_models().models[0]
    assert world.desk.get_peers() == ()
    world.node.on_fault(RuntimeError("ours"))
    assert not world.desk.is_ready()
    world.node.failed.clear()
    world.node.fault = None


async def test_what_is_pending_or_was_refused_is_told_too(world: World) -> None:
    node = world.node
    node.runtime.stop()  # nothing becomes final from here on
    tx = world.transfer(6, 0)
    await world.desk.submit([tx.raw])
    record = world.desk.get_transaction(tx.id)
    assert record is not None
    assert record.status == "pending"
    page = world.desk.get_mempool(10)
    assert [entry.transaction for entry in page.entries] == [tx]
    refused = world.transfer(7, 0)
    node.entrance.note_refusal(Judged(refused, 9_999, node.chain.final_view, ()))
    record = world.desk.get_transaction(refused.id)
    assert record is not None
    assert (record.status, record.score, record.outcome) == ("refused", 9_999, REFUSE)
    verdict = await world.desk.explain(refused.id)
    assert verdict is not None
    assert verdict.score == 9_999


async def test_a_light_client_gets_headers_sets_history_and_records(world: World) -> None:
    desk, rules = world.desk, world.node.rules
    update = desk.get_update(None)
    assert update is not None
    assert update.validators.validators.digest == update.header.validators_digest
    assert update.next_validators.validators.digest == update.header.next_validators_digest
    assert update.certificate is not None
    top = update.header.height
    start, first = desk.get_update(0), desk.get_update(1)
    assert start is not None
    assert (start.header.parent_hash, start.certificate) == (rules.genesis.digest, None)
    assert first is not None
    assert desk.get_update(top + 1_000) is None
    proof = desk.prove_history(1, top)
    assert proof is not None
    assert light.verify_ancestor(update.header, proof.header, proof.siblings)
    assert desk.prove_history(top, top) is None
    assert desk.prove_history(1, top + 1_000) is None
    key = rec.NAMESPACE_PARAMETER + rec.PARAMETER_GENESIS
    record = desk.prove_record(key)
    shown = RecordProof.from_tuple(codec.decode(record.proof, what="proof", bytes_max=10_000))
    assert light.verify_record(record.header, shown, key) == rules.genesis.digest == record.value
    assert genesis.read_genesis(desk.get_genesis().decode()).digest == rules.genesis.digest


async def test_a_chain_without_epochs_answers_staking_with_its_code(world: World) -> None:
    key = world.network.accounts[0]
    bond = sign_transaction(
        key,
        world.node.rules.chain_id,
        kind=KIND_BOND,
        nonce=50,
        receiver=key.address,
        amount=5,
        fee=1,
        timestamp_ms=20,
        expires_ms=10_000,
    )
    (receipt,) = await world.desk.submit([bond.raw])
    assert (receipt.outcome, receipt.code) == ("rejected", "staking_off")
    assert "epoch_blocks" in receipt.reason
    told = world.desk.get_validators()
    assert (told.boundary_height, told.validators[0].is_self) == (None, True)
    assert world.desk.get_validator(told.validators[0].address) == told.validators[0]
    world.desk.update_metrics()
    assert b'assay_validator_status{status="bonded"} 1.0' in world.node.metrics.render()
