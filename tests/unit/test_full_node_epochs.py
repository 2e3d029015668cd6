"""Whole nodes through epochs: validators come and go, absentees catch up, restarts at a boundary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.bft import contract
from consensus.ledger import epochs
from consensus.vote import FINALIZE, Certificate, Vote
from node.audit import audit_home
from node.blocks import serving
from node.desks.stake import StakeDesk
from node.engine.host import EngineHost
from node.engine.voting_keys import make_voting_key
from node.network import wire
from tests.fakes.full_nodes import FullNodes

EPOCH_BLOCKS = 4
FOUNDER = 9  # a funded account that operates the fifth validator


@pytest.fixture
async def four(tmp_path: Path, seed: int) -> AsyncIterator[FullNodes]:
    nodes = FullNodes(tmp_path / "net", seed, block_interval_ms=20, epoch_blocks=EPOCH_BLOCKS)
    yield nodes
    await nodes.close()


def get_hashes(net: FullNodes, place: int, height: int) -> list[bytes]:
    headers = [net.get(place).store.get_header(at) for at in range(1, height + 1)]
    return [header.hash for header in headers if header is not None]


def check_one_chain(net: FullNodes) -> None:
    """All who run have the same blocks; each is of its height's epoch and proven by that epoch's set."""
    running = net.list_running()
    height = min(net.get(place).chain.finalized.height for place in running)
    chains = {tuple(get_hashes(net, place, height)) for place in running}
    assert len(chains) == 1
    assert len(next(iter(chains))) == height
    store = net.get(running[0]).store
    for at in range(1, height + 1):
        header, found = store.get_header(at), store.get_certificate(at)
        assert header is not None
        assert found is not None
        assert header.epoch == epochs.compute_epoch(at, EPOCH_BLOCKS)
        certified = (header, *store.get_links(at))[-1]
        subject = found[0].subject
        assert (subject.kind, subject.epoch, subject.view, subject.block_hash) == (
            FINALIZE,
            header.epoch,
            certified.view,
            certified.hash,
        )
    net.check()


async def test_nodes_go_through_epochs_without_a_pause(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    transactions = [four.transfer(sender) for sender in range(8)]
    await four.submit(0, transactions)
    await four.wait_final(5 * EPOCH_BLOCKS + 1)
    await four.wait_transactions(transactions)
    check_one_chain(four)
    assert {four.get(place).engines.epoch for place in range(4)} <= {5, 6}


async def test_a_newcomer_bonds_votes_and_proposes_and_who_unbonds_goes(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    fifth = four.add(block_interval_ms=20)
    await four.start(fifth)
    assert four.get(fifth).own_index is None
    await four.submit(0, [four.found(FOUNDER, fifth)])
    await four.wait("its seat", lambda: four.get(fifth).own_index is not None)
    key = four.get(fifth).engines.public_key
    await four.wait("a block of its own", lambda: _proposed(four, 0, key))
    await four.submit(0, [four.unbond(FOUNDER, four.network.accounts[FOUNDER].address)])
    await four.wait("that it has left", lambda: four.get(fifth).own_index is None)
    left_at = four.get(0).chain.finalized.height
    await four.wait_final(left_at + 2 * EPOCH_BLOCKS)
    check_one_chain(four)
    assert len(four.get_roots()) == 1


def _proposed(net: FullNodes, place: int, key: bytes) -> bool:
    store = net.get(place).store
    headers = [store.get_header(height) for height in range(1, store.finalized_height + 1)]
    return any(header is not None and header.proposer == key for header in headers)


async def test_a_node_that_was_away_for_epochs_catches_up_and_gets_out_of_jail(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    fifth = four.add(block_interval_ms=20)
    await four.wait_final(2)
    await four.start(fifth)
    await four.submit(1, [four.found(FOUNDER, fifth)])
    four.cut_off(3)
    left_at = four.get(3).chain.finalized.height
    await four.wait("the fifth's seat", lambda: four.get(fifth).own_index is not None)
    away = (0, 1, 2, fifth)
    await four.wait_final(left_at + 4 * EPOCH_BLOCKS, *away)
    assert four.get(3).chain.finalized.height <= left_at + 1
    four.join(3)
    await four.wait_final(four.get(0).chain.finalized.height + EPOCH_BLOCKS)
    await four.wait("that it is jailed", lambda: four.get(3).own_index is None)
    await four.submit(1, [four.sign(0, four.get(3).address, amount=10)])
    await four.wait(
        "its fee", lambda: four.get(1).chain.final_view.get_account(four.get(3).address) is not None
    )
    await four.submit(1, [four.unjail(3)])
    await four.wait("its votes", lambda: _signs(four, 3))
    check_one_chain(four)


def _signs(net: FullNodes, place: int) -> bool:
    """Whether the last finalization that node 0 holds was signed by this one too."""
    store, own = net.get(0).store, net.get(place).own_index
    found = store.get_certificate(store.finalized_height)
    if found is None or found[0].subject.epoch != net.get(place).engines.epoch:
        return False
    return own is not None and own in found[0].signers


async def test_all_stop_and_start_again_in_a_later_epoch(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    for round_ in range(1, 4):
        await four.wait_final(round_ * EPOCH_BLOCKS + round_)
        heights = [four.get(place).store.finalized_height for place in range(4)]
        for place in range(4):
            await four.stop(place)
        await four.start(0, 1, 2, 3)
        assert [four.get(place).chain.finalized.height for place in range(4)] >= heights
        await four.wait_final(max(heights) + EPOCH_BLOCKS)
    check_one_chain(four)


async def test_a_node_that_lost_its_store_signs_nothing_until_its_journals_epoch(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await four.wait_final(2 * EPOCH_BLOCKS + 1)
    await four.stop(3)
    entered = four.get(0).engines.epoch
    home = four.homes[3]
    for name in ("blocks.log", "index", "checkpoints"):
        path = home / name
        for file in sorted(path.rglob("*"), reverse=True) if path.is_dir() else [path]:
            file.unlink()
    await four.start(3)
    node = four.get(3)
    assert node.journal_status.epoch >= 2
    assert node.journal.compute_observe_until(0) is None
    await four.wait_final((entered + 2) * EPOCH_BLOCKS)
    assert node.journal.compute_observe_until(node.engines.epoch) is not None
    await four.wait("its votes", lambda: _signs(four, 3))
    check_one_chain(four)


async def test_a_node_that_lost_its_journal_signs_again_in_an_epoch_that_nobody_had_reached(
    four: FullNodes,
) -> None:
    await four.start(0, 1, 2, 3)
    await four.wait_final(EPOCH_BLOCKS + 1)
    await four.stop(3)
    (four.homes[3] / "journal").unlink()
    await four.start(3)
    node = four.get(3)
    assert node.journal.compute_observe_until(node.engines.epoch) is None
    await four.wait(
        "that it may sign", lambda: node.journal.compute_observe_until(node.engines.epoch) is not None
    )
    await four.wait("its votes", lambda: _signs(four, 3))
    check_one_chain(four)


async def test_the_audit_follows_the_sets_of_all_epochs(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    fifth = four.add(block_interval_ms=20)
    await four.start(fifth)
    await four.submit(0, [four.found(FOUNDER, fifth)])
    await four.wait("its seat", lambda: four.get(fifth).own_index is not None)
    await four.wait_final(four.get(0).chain.finalized.height + EPOCH_BLOCKS + 1)
    await four.stop(0)
    report = audit_home(four.homes[0], processes=0)
    assert (report.ok, report.problem) == (True, None)
    assert report.blocks > 3 * EPOCH_BLOCKS


async def test_an_epoch_may_end_through_more_tails_than_an_answer_holds_links(
    four: FullNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail names its boundary block: without finality for long, what proves that block final stays as small."""
    for module in (wire, serving):
        monkeypatch.setattr(module, "LINKS_MAX", 2)
    is_lost = False
    broadcast, send = EngineHost.broadcast, EngineHost.send

    def lose(host: EngineHost, message: contract.Message, peers_max: int | None) -> None:
        if not (is_lost and _is_finalizing(message)):
            broadcast(host, message, peers_max)

    def lose_one(host: EngineHost, peer: bytes, message: contract.Message) -> None:
        if not (is_lost and _is_finalizing(message)):
            send(host, peer, message)

    monkeypatch.setattr(EngineHost, "broadcast", lose)
    monkeypatch.setattr(EngineHost, "send", lose_one)
    await four.start(0, 1, 2)
    await four.wait_final(EPOCH_BLOCKS - 2)
    is_lost = True
    await four.wait("tails", lambda: all(four.get(place).engine.view >= 14 for place in range(3)))
    boundary = four.get(0).chain.get_head().height
    assert boundary % EPOCH_BLOCKS == 0
    is_lost = False
    await four.wait_final(boundary + 1)
    links = [len(four.get(place).store.get_links(boundary)) for place in range(3)]
    assert links == [1, 1, 1]
    await four.start(3)
    await four.wait_final(boundary + EPOCH_BLOCKS)
    await four.stop(0)
    await four.start(0)
    check_one_chain(four)
    await four.stop(0)
    assert audit_home(four.homes[0], processes=0).ok


def _is_finalizing(message: contract.Message) -> bool:
    return isinstance(message, Vote | Certificate) and message.subject.kind == FINALIZE


async def test_a_validator_rotates_its_key_and_its_running_node_changes_over_by_itself(
    four: FullNodes,
) -> None:
    """Twice, the second time with a restart between, and the first key that it rotated to deleted at last."""
    await four.start(0, 1, 2, 3)
    home = four.homes[3]
    first = four.get(3).engines.public_key
    path, second = make_voting_key(home, first, four.rng.randbytes)
    await four.submit(0, [four.rotate(3, second, 0)])
    await four.wait("the second key", lambda: four.get(3).engines.public_key == second.public_key)
    await four.wait("a block of it", lambda: _proposed(four, 0, second.public_key))
    await four.wait("its votes", lambda: _signs(four, 3))
    _, third = make_voting_key(home, second.public_key, four.rng.randbytes)
    await four.submit(0, [four.rotate(3, third, 1)])
    await four.wait_final(four.get(0).chain.finalized.height + 2)
    await four.stop(3)
    await four.start(3)
    await four.wait("the third key", lambda: four.get(3).engines.public_key == third.public_key)
    path.unlink()
    await four.stop(3)
    await four.start(3)
    assert four.get(3).engines.public_key == third.public_key
    await four.wait("its votes", lambda: _signs(four, 3))
    await four.wait_final(four.get(0).chain.finalized.height + EPOCH_BLOCKS)
    check_one_chain(four)
    assert all(not node.accuser._cases for node in four.nodes if node is not None)
    own = StakeDesk(
        four.get(3).chain.final_view, four.get(3).rules.parameters, four.get(3).address
    ).find_own()
    assert own is not None
    assert (own.is_self, own.voting_key) == (True, third.public_key)
