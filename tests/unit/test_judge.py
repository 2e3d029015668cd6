"""The judge: bodies found wherever they are, parents waited for, every block judged once and rightly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.bft.contract import BlockFetched, BlockJudged, Judgement
from consensus.block import Block, encode_block
from consensus.errors import Fault, Rejected
from consensus.genesis import Genesis
from consensus.parameters import Parameters
from consensus.transaction import sign_transaction
from consensus.vote import FINALIZE
from node.blocks import body_fetcher
from node.blocks import judge as judging
from node.blocks.body_fetcher import QUESTIONS_MAX, BodyFetcher, WantedBody
from node.blocks.compact_bodies import BODIES_MAX, BODIES_PROPOSER_MAX, CompactBodies, CompactBody
from node.network.frames import BlockBody, GetBlock, GetBodyTransactions
from tests.chain_factory import ChainFactory, forge
from tests.fakes.rooms import (
    Rooms,
    WrittenTransport,
    make_body_answer,
    make_compact,
    make_peer,
    make_stranger,
)

VALID, INVALID = Judgement.VALID, Judgement.INVALID


@pytest.fixture
def factory() -> ChainFactory:
    return ChainFactory()


@pytest.fixture
async def rooms(
    tmp_path: Path, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rooms]:
    monkeypatch.setattr(body_fetcher, "FETCH_SECONDS", 0.01)
    monkeypatch.setattr(judging, "NOT_YET_SECONDS", 0.01)
    rooms = Rooms(tmp_path / "home", factory, "ann", "bob", "cid")
    yield rooms
    await rooms.close()


def offer(rooms: Rooms, block: Block, source: str = "bob") -> None:
    rooms.judge.offer_body(block.header, make_compact(block), make_peer(source).node_key)


def deliver(rooms: Rooms, block: Block) -> None:
    rooms.judge.on_block_body(BlockBody(block.hash, encode_block(block)))


async def test_a_body_whose_transactions_are_pending_here_needs_no_frame(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    rooms.mempool |= {tx.id: tx for tx in block.transactions}
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}
    assert rooms.transport.sent == []
    assert rooms.store.get_block(block.hash) == block
    assert rooms.valid == [block.hash]


async def test_what_is_missing_is_asked_of_the_sender_of_the_proposal(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    rooms.mempool[block.transactions[0].id] = block.transactions[0]
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(lambda: rooms.transport.sent)
    assert rooms.transport.sent[0] == (make_peer("bob").node_key, GetBodyTransactions(block.hash, (1,)))
    rooms.judge.on_body_transactions(make_body_answer(block, 1), make_peer("bob").node_key)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_an_answer_of_somebody_who_was_not_asked_changes_nothing(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(lambda: rooms.transport.take(GetBodyTransactions))
    for frame in (make_body_answer(block), make_body_answer(block, 0)):
        rooms.judge.on_body_transactions(frame, make_peer("cid").node_key)
    assert block.hash in rooms.judge._bodies._compact
    assert rooms.judge._work[block.hash].liars == set()
    rooms.judge.on_body_transactions(make_body_answer(block, 0, 1), make_peer("bob").node_key)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_what_left_the_mempool_while_the_rest_was_on_its_way_is_asked_for_too(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_fetcher, "FETCH_SECONDS", 5.0)
    (block,) = factory.grow(1)
    rooms.mempool[block.transactions[0].id] = block.transactions[0]
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(lambda: rooms.transport.sent)
    bob = make_peer("bob").node_key
    rooms.mempool.clear()  # it expired, say
    rooms.judge.on_body_transactions(make_body_answer(block, 1), bob)
    await rooms.settle(lambda: len(rooms.transport.sent) == 2)
    asked = [frame.indices for _, frame in rooms.transport.take(GetBodyTransactions)]
    assert asked == [(1,), (0,)]
    rooms.judge.on_body_transactions(make_body_answer(block, 0), bob)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_a_source_that_lacks_what_its_body_names_is_asked_last(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_fetcher, "FETCH_SECONDS", 5.0)
    (block,) = factory.grow(1)
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(lambda: rooms.transport.take(GetBodyTransactions))
    monkeypatch.setattr(body_fetcher, "FETCH_SECONDS", 0.01)
    rooms.judge.on_body_transactions(make_body_answer(block, 0), make_peer("bob").node_key)
    asked: list[str] = []
    while len(asked) < 3:
        await rooms.settle(lambda: rooms.transport.sent)
        asked += [name for name, _ in rooms.transport.take(GetBlock)]
    assert asked == ["ann", "cid", "bob"]
    assert rooms.transport.take(GetBodyTransactions) == []  # it would say the same again


async def test_a_mempool_that_goes_on_losing_transactions_is_asked_about_a_few_times_only(
    factory: ChainFactory,
) -> None:
    (block,) = factory.grow(1)
    transport = WrittenTransport("bob")
    fetcher = BodyFetcher(lambda _: None, transport)
    bob = make_peer("bob").node_key
    fetcher.offer(CompactBody(block.header, make_compact(block), bob), None)
    work = WantedBody(block.header)
    for _ in range(10 * QUESTIONS_MAX):
        assert fetcher._assemble(block.hash, work, attempt=0) is None
        if work.asked:
            fetcher.take_transactions(make_body_answer(block, *work.asked), work, bob)
        work.answers.clear()  # as if others were missing each time
    assert len(transport.sent) == QUESTIONS_MAX


async def test_many_silent_strangers_keep_nobody_from_asking_a_configured_peer(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    strangers = [make_stranger(f"x{number}") for number in range(60)]
    rooms.transport.connected = [*strangers, make_peer("bob")]
    offer(rooms, block, "x7")
    rooms.judge.judge(block.hash, block.header)
    asked: list[str] = []
    while len(asked) < 4:
        await rooms.settle(lambda: any(isinstance(frame, GetBlock) for _, frame in rooms.transport.sent))
        asked += [name for name, _ in rooms.transport.take(GetBlock)]
    assert asked[:2].count("bob") == 1
    assert asked[2:4].count("bob") == 1
    assert len(set(asked)) == 3  # the strangers have their turns, too


async def test_when_the_sender_is_silent_the_whole_block_is_asked_of_the_others_in_turn(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    asked: list[str] = []
    while len(set(asked)) < 3:
        await rooms.settle(lambda: any(isinstance(frame, GetBlock) for _, frame in rooms.transport.sent))
        asked += [name for name, _ in rooms.transport.take(GetBlock)]
    deliver(rooms, block)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}
    assert rooms.transport.penalties == []


async def test_a_wrong_body_is_its_senders_fault_and_not_the_blocks(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    rooms.mempool |= {tx.id: tx for tx in block.transactions}
    frame = replace(make_compact(block), scores=(9, 9))
    rooms.judge.offer_body(block.header, frame, make_peer("ann").node_key)
    rooms.judge.judge(block.hash, block.header)
    await rooms.settle(lambda: rooms.transport.sent)
    assert rooms.transport.penalties[0][0] == make_peer("ann").node_key
    assert [name for name, _ in rooms.transport.take(GetBlock)] == ["bob"]  # not the liar
    assert rooms.judgements() == {}
    deliver(rooms, block)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_a_whole_block_with_another_body_is_refused_and_does_not_make_the_block_invalid(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    rooms.judge.judge(block.hash, block.header)
    hollow = replace(block, transactions=block.transactions[:1], scores=(0,), outcomes=b"\0")
    other = factory.build()
    with pytest.raises(Rejected):
        rooms.judge.on_block_body(BlockBody(block.hash, encode_block(hollow)))
    with pytest.raises(Rejected, match="not the block"):
        rooms.judge.on_block_body(BlockBody(block.hash, encode_block(other)))
    with pytest.raises(Rejected):
        rooms.judge.on_block_body(BlockBody(block.hash, b"\x95\xc4"))
    deliver(rooms, block)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_wrong_transactions_of_a_body_are_refused(rooms: Rooms, factory: ChainFactory) -> None:
    (block,) = factory.grow(1)
    offer(rooms, block)
    rooms.judge.judge(block.hash, block.header)
    swapped = replace(make_body_answer(block, 0, 1), raws=tuple(tx.raw for tx in block.transactions[::-1]))
    for bad in (
        swapped,
        replace(make_body_answer(block, 0), indices=(7,)),
        replace(make_body_answer(block, 0), raws=(b"\x00",)),
    ):
        with pytest.raises(Rejected):
            rooms.judge.on_body_transactions(bad, make_peer("bob").node_key)
    rooms.judge.on_body_transactions(make_body_answer(block, 0, 1), make_peer("bob").node_key)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}


async def test_a_block_waits_for_its_parent_and_the_parent_is_fetched(
    rooms: Rooms, factory: ChainFactory
) -> None:
    first, second, third = factory.grow(3)
    rooms.judge.judge(third.hash, third.header)
    deliver(rooms, third)
    await rooms.settle(lambda: any(GetBlock(second.hash) == frame for _, frame in rooms.transport.sent))
    deliver(rooms, second)
    await rooms.settle(lambda: any(GetBlock(first.hash) == frame for _, frame in rooms.transport.sent))
    assert rooms.judgements() == {}
    deliver(rooms, first)
    await rooms.settle(lambda: len(rooms.judgements()) == 3)
    assert list(rooms.judgements()) == [first.hash, second.hash, third.hash]
    assert rooms.count(BlockFetched) == 2


async def test_nothing_is_fetched_at_the_word_of_a_proposer_who_calls_its_block_an_epochs_first(
    rooms: Rooms, factory: ChainFactory
) -> None:
    """Such a block carries no certificate of its parent: anybody's turn would be enough to fill a node."""
    block = factory.grow(1)[0]
    for height in (2, 60):
        lie = replace(block, header=replace(block.header, height=height, parent_hash=b"?" * 32))
        offer(rooms, lie)
        rooms.judge.judge(lie.hash, lie.header)
        deliver(rooms, lie)
    await rooms.settle(lambda: not rooms.judge._work)
    assert rooms.transport.take(GetBlock) == []
    assert (rooms.judgements(), rooms.judge.invalid) == ({}, {})


async def test_a_fetched_block_of_an_epoch_that_is_not_known_here_is_left_alone(
    rooms: Rooms, factory: ChainFactory
) -> None:
    rooms.judge._read_block = rooms.chain.read_block
    block = factory.grow(1)[0]
    stranger = replace(block, header=replace(block.header, epoch=5))
    rooms.judge.fetch(stranger.hash)
    deliver(rooms, stranger)
    await rooms.settle(lambda: not rooms.judge._work)
    assert rooms.faults == []
    assert rooms.posted == []


async def test_an_invalid_block_is_named_with_its_difference_and_its_children_are_invalid_too(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    bad = forge(block, state_root=b"\x01" * 32)
    child = forge(factory.build(), parent_hash=bad.hash)
    rooms.judge.judge(child.hash, child.header)
    deliver(rooms, child)
    rooms.judge.judge(bad.hash, bad.header)
    deliver(rooms, bad)
    await rooms.settle(lambda: len(rooms.judgements()) == 2)
    assert rooms.judgements() == {bad.hash: INVALID, child.hash: INVALID}
    assert "state_root" in rooms.judge.invalid[bad.hash].reason
    assert "parent" in rooms.judge.invalid[child.hash].reason
    assert rooms.store.get_block(bad.hash) is None


async def test_a_block_with_a_wrong_signature_in_it_is_invalid(rooms: Rooms, factory: ChainFactory) -> None:
    tx = factory.transfer(0, 1)
    stranger = sign_transaction(
        factory.keys[0],
        "another-chain",
        nonce=tx.nonce,
        receiver=tx.receiver,
        amount=tx.amount,
        fee=tx.fee,
        timestamp_ms=tx.timestamp_ms,
        expires_ms=tx.expires_ms,
    )
    block = factory.build((stranger,))  # the ledger leaves signatures to its callers
    rooms.judge.judge(block.hash, block.header)
    deliver(rooms, block)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: INVALID}
    assert "signature" in rooms.judge.invalid[block.hash].reason


async def test_a_refused_block_that_is_wanted_later_is_told_with_its_header(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    bad = forge(block, state_root=b"\x01" * 32)
    rooms.judge.refuse(bad.header, "differs")
    rooms.posted.clear()
    rooms.judge.fetch(bad.hash)
    assert [type(event) for event in rooms.posted] == [BlockFetched, BlockJudged]
    assert rooms.judgements() == {bad.hash: INVALID}


async def test_what_was_judged_is_answered_from_memory(rooms: Rooms, factory: ChainFactory) -> None:
    (block,) = factory.grow(1)
    await rooms.judge_all(block)
    checked = rooms.verifier.checked
    rooms.posted.clear()
    rooms.judge.judge(block.hash, block.header)
    assert rooms.judgements() == {block.hash: VALID}
    assert rooms.verifier.checked == checked
    assert rooms.valid == [block.hash]


async def test_a_final_block_is_valid_and_an_abandoned_one_is_left_alone(
    rooms: Rooms, factory: ChainFactory
) -> None:
    other = factory.build(skipped_views=1)
    first, second = factory.grow(2)
    await rooms.judge_all(first, second)
    rooms.finality.finalize(factory.finalizations[1])
    rooms.posted.clear()
    rooms.judge.judge(first.hash, first.header)
    rooms.judge.judge(other.hash, other.header)
    rooms.judge.fetch(b"?" * 32, height=2)
    await rooms.pause()
    assert rooms.judgements() == {first.hash: VALID}
    assert rooms.judge._work == {}


async def test_a_block_that_becomes_final_another_way_while_it_is_judged_is_told_valid(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    rooms.judge.judge(block.hash, block.header)  # its body never comes
    await rooms.pause()
    rooms.chain.add(block, rooms.rules.check_block(rooms.chain.final_view, block, None))
    rooms.finality.finalize(factory.finalizations[0])
    await rooms.settle(lambda: not rooms.judge._work)
    assert rooms.judgements() == {block.hash: VALID}


async def test_the_search_for_a_block_ends_when_the_final_chain_is_past_it(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(2)
    rooms.judge.fetch(b"a" * 32, view=2)
    rooms.judge.fetch(b"b" * 32, height=1)
    await rooms.judge_all(*blocks)
    assert set(rooms.judge._work) == {b"a" * 32, b"b" * 32}
    rooms.finality.finalize(factory.finalizations[0])
    rooms.finality.finalize(factory.finalizations[1])
    await rooms.settle(lambda: not rooms.judge._work)


async def test_a_block_on_an_abandoned_branch_is_dropped_without_a_word(
    rooms: Rooms, factory: ChainFactory
) -> None:
    """A quorum may have notarized it before its view was nullified: to call it invalid would halt us."""
    (block,) = factory.grow(1)
    await rooms.judge_all(block)
    rooms.finality.finalize(factory.finalizations[0])
    rooms.posted.clear()
    orphan = forge(factory.build(), parent_hash=b"\x05" * 32)
    rooms.judge.judge(orphan.hash, orphan.header)
    deliver(rooms, orphan)
    await rooms.settle(lambda: not rooms.judge._work)
    assert rooms.judgements() == {}
    assert rooms.transport.take(GetBlock) == []


async def test_a_block_that_waits_for_its_time_outlives_the_branch_it_was_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of an abandoned branch is unusable (a Fault): it must be asked for anew after every wait."""
    monkeypatch.setattr(judging, "NOT_YET_SECONDS", 0.01)
    factory = ChainFactory(genesis=_use_wall_clock(ChainFactory().rules.genesis))
    rooms = Rooms(tmp_path / "home", factory, "ann")
    other, block = factory.build(skipped_views=1), factory.build()
    await rooms.judge_all(other, block)
    view = rooms.chain.get_view(other.hash)
    assert view is not None
    child = factory.rules.build_block(
        view,
        (),
        epoch=0,
        view_number=9,
        proposer_key=factory.validator_keys[0].public_key,
        now_ms=other.header.timestamp_ms + 10,
        certificate=factory.certify(other.header),
    ).block
    rooms.clock.set_wall(0)
    rooms.judge.judge(child.hash, child.header)
    deliver(rooms, child)
    await rooms.pause()
    rooms.finality.finalize(factory.certify(block.header, FINALIZE))
    await rooms.settle(lambda: not rooms.judge._work)
    assert child.hash not in rooms.judgements()
    await rooms.close()


def _use_wall_clock(genesis: Genesis) -> Genesis:
    return replace(genesis, parameters=Parameters())


async def test_a_wall_clock_block_is_judged_when_our_clock_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "NOT_YET_SECONDS", 0.01)
    factory = ChainFactory(genesis=_use_wall_clock(ChainFactory().rules.genesis))
    rooms = Rooms(tmp_path / "home", factory, "ann")
    rooms.clock.set_wall(0)
    block = factory.build()
    rooms.judge.judge(block.hash, block.header)
    deliver(rooms, block)
    await rooms.pause(0.03)
    assert rooms.judgements() == {}
    rooms.clock.set_wall(block.header.timestamp_ms)
    await rooms.settle(rooms.judgements)
    assert rooms.judgements() == {block.hash: VALID}
    await rooms.close()


async def test_a_fault_of_the_store_goes_to_the_node_and_not_into_the_void(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = factory.grow(1)

    def fail() -> None:
        raise Fault("cannot make it durable", field="disk")

    monkeypatch.setattr(rooms.store, "sync", fail)
    rooms.judge.judge(block.hash, block.header)
    deliver(rooms, block)
    await rooms.settle(lambda: rooms.faults)
    assert [type(fault) for fault in rooms.faults] == [Fault]
    assert rooms.judgements() == {}
    assert rooms.chain.get_block(block.hash) is None
    rooms.faults.clear()


async def test_nothing_is_kept_of_blocks_once_they_are_judged(rooms: Rooms, factory: ChainFactory) -> None:
    blocks = factory.grow(5)
    for block in blocks:
        offer(rooms, block)
    await rooms.judge_all(*blocks)
    await rooms.pause()
    assert rooms.judge._work == {}
    assert len(rooms.judge._bodies._compact) == 0
    for number in range(3 * judging.INVALID_MAX):
        rooms.judge.refuse(forge(blocks[0], view=1_000 + number).header, "wrong")
    assert len(rooms.judge.invalid) == judging.INVALID_MAX


def test_a_proposer_of_many_proposals_displaces_only_its_own_bodies(factory: ChainFactory) -> None:
    block = factory.build()
    bodies = CompactBodies()
    frame, source = make_compact(block), make_peer("bob").node_key

    def offer_from(proposer: int, view: int) -> bool:
        key = factory.validator_keys[0].public_key[:-2] + proposer.to_bytes(2, "big")
        header = forge(block, proposer=key, view=view).header
        return bodies.offer(CompactBody(header, frame, source))

    assert offer_from(1, 5)
    kept = next(iter(bodies._bodies))
    for view in range(10 * BODIES_PROPOSER_MAX):
        offer_from(2, view + 1)
    assert len(bodies) == BODIES_PROPOSER_MAX + 1
    assert kept in bodies
    for proposer in range(2 * BODIES_MAX):
        offer_from(3 + proposer, 1)
    assert len(bodies) == BODIES_MAX


def test_of_one_view_and_proposer_the_first_body_counts(factory: ChainFactory) -> None:
    bodies = CompactBodies()
    first, second = factory.build(), factory.build((factory.transfer(0, 1),))
    source = make_peer("bob").node_key
    assert bodies.offer(CompactBody(first.header, make_compact(first), source))
    assert not bodies.offer(CompactBody(second.header, make_compact(second), source))
    assert first.hash in bodies
    assert second.hash not in bodies
    bodies.prune(first.header)
    assert len(bodies) == 0
