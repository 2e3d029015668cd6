"""Catching up: who is asked and when, what a liar gains (nothing), and that a batch is applied whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from consensus import vote
from consensus.bft.contract import BlockRef, FetchBlock, Halt, Judge, Judgement, Received
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.block import decode_header, encode_block
from consensus.vote import NOTARIZE
from node.blocks import catch_up
from node.blocks.catch_up import DISTRUSTED_MAX, GAP_BLOCKS, LIE_POINTS
from node.network.frames import FINAL_BLOCKS_MAX, FinalBlocks, Frame, GetFinalBlocks, Status
from tests.chain_factory import ChainFactory, forge
from tests.fakes.rooms import Rooms, make_batch, make_peer, make_stranger


@pytest.fixture
def factory() -> ChainFactory:
    return ChainFactory()


@pytest.fixture
async def rooms(tmp_path: Path, factory: ChainFactory) -> AsyncIterator[Rooms]:
    rooms = Rooms(tmp_path / "home", factory, "ann", "bob")
    yield rooms
    await rooms.close()


def claim(rooms: Rooms, name: str, height: int) -> None:
    rooms.catch_up.on_status(make_peer(name), Status(0, height, height, height, b"?" * 32))


def asked(rooms: Rooms) -> list[tuple[str, int]]:
    return [(name, frame.from_height) for name, frame in rooms.transport.take(GetFinalBlocks)]


def answer(rooms: Rooms, name: str, frame: FinalBlocks) -> None:
    rooms.catch_up.on_final_blocks(make_peer(name), frame)


async def test_a_small_gap_is_left_to_the_ordinary_way_and_a_large_one_is_asked_for(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(rooms, "ann", GAP_BLOCKS - 1)
    assert asked(rooms) == []
    assert not rooms.catch_up.is_syncing
    claim(rooms, "ann", GAP_BLOCKS + 1)
    assert asked(rooms) == [("ann", 1)]
    assert rooms.catch_up.is_syncing
    assert rooms.catch_up.get_height(make_peer("ann").node_key) == GAP_BLOCKS + 1


async def test_a_small_gap_that_does_not_close_is_asked_for_after_a_while(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(rooms, "ann", 1)
    monkeypatch.setattr(catch_up, "STALL_SECONDS", 0.0)
    rooms.catch_up.check()
    assert asked(rooms) == [("ann", 1)]


async def test_a_batch_is_checked_executed_and_told_to_the_engine(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(6)
    claim(rooms, "ann", 6)
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)
    await rooms.settle(lambda: rooms.count(Received))
    assert rooms.finals == blocks
    assert rooms.state.root == factory.state.root
    assert rooms.store.finalized_height == 6
    assert rooms.transport.penalties == []
    assert not rooms.catch_up.is_syncing


async def test_one_request_at_a_time_and_the_next_one_follows_at_once(
    rooms: Rooms, factory: ChainFactory
) -> None:
    factory.grow(8)
    for _ in range(3):
        claim(rooms, "ann", 8)
        claim(rooms, "bob", 8)
    assert len(asked(rooms)) == 1
    answer(rooms, "ann", make_batch(factory, 1, 4))
    await rooms.settle(lambda: rooms.transport.sent)
    ((_, from_height),) = asked(rooms)
    assert from_height == 5


async def test_the_next_batch_is_asked_for_and_proven_while_the_last_one_is_executed(
    rooms: Rooms, factory: ChainFactory
) -> None:
    factory.grow(12)
    claim(rooms, "ann", 12)
    asked(rooms)
    executed_before: list[int] = []
    send = rooms.transport.send

    def note(node_key: bytes, frame: Frame) -> bool:
        if isinstance(frame, GetFinalBlocks):
            executed_before.append(rooms.chain.finalized.height)
        return send(node_key, frame)

    rooms.transport.send = note  # type: ignore[method-assign]
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: executed_before)
    assert executed_before == [0]
    assert asked(rooms) == [("ann", 7)]
    answer(rooms, "ann", make_batch(factory, 7, 12))
    await rooms.settle(lambda: rooms.chain.finalized.height == 12)
    assert rooms.state.root == factory.state.root
    assert rooms.transport.penalties == []


async def test_a_lie_about_the_next_batch_costs_its_sender_and_not_the_batch_before(
    rooms: Rooms, factory: ChainFactory
) -> None:
    factory.grow(12)
    claim(rooms, "ann", 12)
    asked(rooms)
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: rooms.transport.sent)
    asked(rooms)
    whole = make_batch(factory, 7, 12)
    answer(rooms, "ann", replace(whole, raws=whole.raws[1:]))
    claim(rooms, "bob", 12)
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)
    assert [penalty[:2] for penalty in rooms.transport.penalties] == [(make_peer("ann").node_key, LIE_POINTS)]
    await rooms.settle(lambda: rooms.transport.sent)
    assert asked(rooms) == [("bob", 7)]
    answer(rooms, "bob", whole)
    await rooms.settle(lambda: rooms.chain.finalized.height == 12)


async def test_closing_between_two_batches_leaves_only_what_is_durable_in_order(
    tmp_path: Path, factory: ChainFactory
) -> None:
    rooms = Rooms(tmp_path / "closed", factory, "ann")
    factory.grow(12)
    claim(rooms, "ann", 12)
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: len(asked(rooms)) == 1 or rooms.chain.finalized.height)
    answer(rooms, "ann", make_batch(factory, 7, 12))
    await rooms.settle(lambda: rooms.chain.finalized.height >= 2)
    await rooms.catch_up.close()
    assert rooms.store.finalized_height == 6  # the first batch, whole; the second was only proven
    await rooms.close()


async def test_a_certificate_of_a_descendant_proves_a_batch_through_links(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(6)
    claim(rooms, "ann", 6)
    batch = replace(
        make_batch(factory, 1, 6),
        raws=tuple(encode_block(block) for block in blocks[:4]),
        links=tuple(block.header.raw for block in blocks[4:]),
    )
    answer(rooms, "ann", batch)
    await rooms.settle(lambda: rooms.chain.finalized.height == 4)
    found = rooms.store.get_certificate(4)
    assert found == (factory.finalizations[5], 6)


def _skip_one(factory: ChainFactory) -> FinalBlocks:
    whole = make_batch(factory, 1, 5)
    return replace(whole, raws=whole.raws[1:])


def _swap_certificate(factory: ChainFactory) -> FinalBlocks:
    return replace(make_batch(factory, 1, 5), certificate=vote.encode_certificate(factory.finalizations[2]))


def _notarize_only(factory: ChainFactory) -> FinalBlocks:
    certificate = factory.certify(factory.blocks[4].header, NOTARIZE)
    return replace(make_batch(factory, 1, 5), certificate=vote.encode_certificate(certificate))


def _sign_wrongly(factory: ChainFactory) -> FinalBlocks:
    certificate = factory.finalizations[4]
    first, *rest = certificate.signatures
    forged = replace(certificate, signatures=((first[0], bytes(63) + b"\1"), *rest))
    return replace(make_batch(factory, 1, 5), certificate=vote.encode_certificate(forged))


def _forge_block(factory: ChainFactory) -> FinalBlocks:
    """A block of the liar's own making on top, with a certificate that is not for it."""
    whole = make_batch(factory, 1, 5)
    forged = encode_block(forge(factory.blocks[4], state_root=b"\1" * 32))
    return replace(whole, raws=(*whole.raws[:4], forged))


def _cut_a_block_short(factory: ChainFactory) -> FinalBlocks:
    whole = make_batch(factory, 1, 5)
    return replace(whole, raws=(*whole.raws[:4], whole.raws[4][:-1]))


def _change_a_body(factory: ChainFactory) -> FinalBlocks:
    whole = make_batch(factory, 1, 5)
    block = factory.blocks[4]
    hollow = replace(block, transactions=block.transactions[:1], scores=(0,), outcomes=b"\0")
    return replace(whole, raws=(*whole.raws[:4], encode_block(hollow)))


@pytest.mark.parametrize(
    "lie",
    [
        _skip_one,
        _swap_certificate,
        _notarize_only,
        _sign_wrongly,
        _forge_block,
        _cut_a_block_short,
        _change_a_body,
    ],
)
async def test_a_liar_is_penalised_changes_nothing_and_somebody_else_is_asked(
    rooms: Rooms, factory: ChainFactory, lie: Callable[[ChainFactory], FinalBlocks]
) -> None:
    factory.grow(5)
    claim(rooms, "ann", 5)
    claim(rooms, "bob", 5)
    asked(rooms)
    answer(rooms, "ann", replace(lie(factory), from_height=1))
    await rooms.settle(lambda: rooms.transport.sent)
    assert [penalty[:2] for penalty in rooms.transport.penalties] == [(make_peer("ann").node_key, LIE_POINTS)]
    assert rooms.store.finalized_height == 0
    assert asked(rooms) == [("bob", 1)]
    answer(rooms, "bob", make_batch(factory, 1, 5))
    await rooms.settle(lambda: rooms.chain.finalized.height == 5)


async def test_what_a_quorum_made_final_and_we_refuse_stops_us_and_not_the_peer(
    rooms: Rooms, factory: ChainFactory
) -> None:
    """The certificate then reaches an engine that knows the block as invalid, and halts (rule 11)."""
    good, block = factory.grow(2)
    bad = forge(block, state_root=b"\1" * 32)
    certificate = factory.certify(bad.header, vote.FINALIZE)
    claim(rooms, "ann", 9)
    asked(rooms)
    raws = (encode_block(good), encode_block(bad))
    answer(rooms, "ann", FinalBlocks(1, raws, vote.encode_certificate(certificate), ()))
    await rooms.settle(lambda: rooms.count(Received))
    assert rooms.judgements() == {bad.hash: Judgement.INVALID}
    assert "state_root" in rooms.judge.invalid[bad.hash].reason
    assert rooms.chain.finalized.height == 1
    assert rooms.transport.penalties == []
    assert asked(rooms) == [("ann", 3)]  # before it was known
    answer(rooms, "ann", make_batch(factory, 1, 2))
    rooms.catch_up.check()
    assert asked(rooms) == []


async def test_an_engine_halts_when_the_chain_it_follows_is_one_that_we_refuse(
    rooms: Rooms, factory: ChainFactory
) -> None:
    (block,) = factory.grow(1)
    bad = forge(block, state_root=b"\1" * 32)
    certificate = factory.certify(bad.header, vote.FINALIZE)
    genesis = factory.rules.create_genesis_state().header
    ref = BlockRef(genesis.hash, 0, 0, 0, 0, genesis.parent_hash, 0)
    validators = factory.rules.validators
    key = factory.validator_keys[0]
    own = validators.get_index(key.public_key)
    engine = SimplexEngine(EngineConfig(factory.rules.chain_id, 0, validators, own, ref), key.sign)
    engine.start(())
    claim(rooms, "ann", 9)
    answer(rooms, "ann", FinalBlocks(1, (encode_block(bad),), vote.encode_certificate(certificate), ()))
    await rooms.settle(lambda: rooms.count(Received))
    halts: list[Halt] = []
    while rooms.posted:
        for effect in engine.step(rooms.posted.pop(0)):
            match effect:
                case FetchBlock():
                    rooms.judge.fetch(effect.block_hash, view=effect.view)
                case Judge():
                    rooms.judge.judge(effect.block.hash, decode_header(effect.payload))
                case Halt():
                    halts.append(effect)
    assert [halt.block_hash for halt in halts] == [bad.hash]
    assert engine.is_halted


async def test_a_silent_peer_is_passed_over_and_its_late_answer_ignored(
    rooms: Rooms, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.grow(5)
    monkeypatch.setattr(catch_up, "ANSWER_SECONDS", 0.0)
    claim(rooms, "ann", 5)
    assert asked(rooms) == [("ann", 1)]
    monkeypatch.setattr(catch_up, "ANSWER_SECONDS", 5.0)
    claim(rooms, "bob", 5)
    assert asked(rooms) == [("bob", 1)]
    answer(rooms, "ann", make_batch(factory, 1, 5))
    await rooms.pause()
    assert rooms.chain.finalized.height == 0
    assert rooms.transport.penalties == []
    answer(rooms, "bob", make_batch(factory, 1, 5))
    await rooms.settle(lambda: rooms.chain.finalized.height == 5)


async def test_who_claims_more_than_it_delivers_keeps_nobody_syncing(rooms: Rooms) -> None:
    claim(rooms, "ann", 2**50)
    assert asked(rooms) == [("ann", 1)]
    answer(rooms, "ann", FinalBlocks(1, (), b"", ()))
    assert not rooms.catch_up.is_syncing
    claim(rooms, "ann", 2**50 + 1)
    assert not rooms.catch_up.is_syncing
    claim(rooms, "bob", 5)
    asked(rooms)
    assert rooms.catch_up.is_syncing  # bob is still believed
    rooms.catch_up.on_disconnected(make_peer("bob"))
    rooms.catch_up.on_disconnected(make_peer("ann"))
    claim(rooms, "ann", 2**50)
    assert not rooms.catch_up.is_syncing  # to come again makes nobody believed


async def test_a_stranger_that_leaves_owing_an_answer_is_not_believed_when_it_comes_again(
    rooms: Rooms,
) -> None:
    stranger = make_stranger("mal")
    rooms.transport.connected.append(stranger)
    status = Status(0, 2**50, 2**50, 2**50, b"?" * 32)
    rooms.catch_up.on_status(stranger, status)
    assert asked(rooms) == [("mal", 1)]
    assert rooms.catch_up.find_epoch() is None
    rooms.catch_up.on_disconnected(stranger)
    rooms.catch_up.on_status(stranger, status)
    assert not rooms.catch_up.is_syncing
    assert rooms.catch_up.find_epoch() is None  # nobody else has said anything
    claim(rooms, "ann", 1)
    assert rooms.catch_up.find_epoch() == 0


async def test_a_configured_peer_that_was_slow_still_says_how_far_the_epochs_are(
    tmp_path: Path, factory: ChainFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lost its journal signs again by this answer: too low a one would have it vote twice."""
    rooms = Rooms(tmp_path / "epochs", factory, "ann", "bob")
    monkeypatch.setattr(rooms.chain, "epoch_blocks", 10)
    rooms.transport.connected.append(make_stranger("mal"))
    claim(rooms, "ann", 25)
    claim(rooms, "bob", 1)
    rooms.catch_up.on_status(make_stranger("mal"), Status(0, 95, 95, 95, b"?" * 32))
    for name in ("ann", "mal"):
        assert asked(rooms) == [(name, 1)]
        assert rooms.catch_up.find_epoch() is None
        answer(rooms, name, FinalBlocks(1, (), b"", ()))
    assert not rooms.catch_up.is_syncing
    assert rooms.catch_up.find_epoch() == 2
    await rooms.close()


async def test_who_delivers_is_believed_again(rooms: Rooms, factory: ChainFactory) -> None:
    factory.grow(12)
    claim(rooms, "ann", 12)
    answer(rooms, "ann", FinalBlocks(1, (), b"", ()))
    asked(rooms)
    assert not rooms.catch_up.is_syncing
    rooms.catch_up.check()
    assert asked(rooms) == [("ann", 1)]  # nobody else is ahead
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)
    assert rooms.catch_up.is_syncing


async def test_those_distrusted_are_forgotten_when_they_become_too_many(rooms: Rooms) -> None:
    for number in range(2 * DISTRUSTED_MAX):
        stranger = make_stranger(f"x{number}")
        rooms.catch_up.on_status(stranger, Status(0, 99, 99, 99, b"?" * 32))
        rooms.catch_up.on_final_blocks(stranger, FinalBlocks(1, (), b"", ()))
        rooms.catch_up.on_disconnected(stranger)
    distrusted = list(rooms.catch_up._distrusted)
    newest = range(DISTRUSTED_MAX, 2 * DISTRUSTED_MAX)
    assert distrusted == [make_peer(f"x{number}").node_key for number in newest]


async def test_a_configured_peer_is_asked_before_any_stranger(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers = [make_stranger(f"x{number}") for number in range(60)]
    rooms.transport.connected[:] = [*strangers, make_peer("ann")]
    rooms.catch_up.on_status(strangers[0], Status(0, 99, 99, 99, b"?" * 32))
    assert asked(rooms) == [("x0", 1)]  # nobody else has told anything yet
    monkeypatch.setattr(catch_up, "ANSWER_SECONDS", 0.0)
    for stranger in strangers[1:]:
        rooms.catch_up.on_status(stranger, Status(0, 99, 99, 99, b"?" * 32))
    claim(rooms, "ann", 9)
    assert asked(rooms) == []
    answer_nothing = FinalBlocks(1, (), b"", ())
    rooms.catch_up.on_final_blocks(strangers[0], answer_nothing)
    assert asked(rooms) == [("ann", 1)]


async def test_a_peer_that_leaves_is_not_waited_for(rooms: Rooms) -> None:
    claim(rooms, "ann", 9)
    claim(rooms, "bob", 9)
    assert asked(rooms) == [("ann", 1)]
    rooms.catch_up.on_disconnected(make_peer("ann"))
    assert asked(rooms) == [("bob", 1)]
    rooms.catch_up.on_disconnected(make_peer("bob"))
    assert asked(rooms) == []
    assert not rooms.catch_up.is_syncing


async def test_blocks_that_became_final_meanwhile_are_skipped(rooms: Rooms, factory: ChainFactory) -> None:
    blocks = factory.grow(6)
    claim(rooms, "ann", 6)
    await rooms.judge_all(*blocks[:2])
    rooms.finality.finalize(factory.finalizations[1])
    answer(rooms, "ann", make_batch(factory, 1, 6))
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)
    assert rooms.finals == blocks


async def test_a_batch_is_applied_whole_although_its_sender_left(rooms: Rooms, factory: ChainFactory) -> None:
    """The connection's task ends with the connection: a batch half applied would leave the store ahead."""
    factory.grow(6)
    claim(rooms, "ann", 6)

    async def read_frame() -> None:
        answer(rooms, "ann", make_batch(factory, 1, 6))
        await asyncio.sleep(0)

    connection = asyncio.get_running_loop().create_task(read_frame())
    await asyncio.sleep(0)
    connection.cancel()
    rooms.catch_up.on_disconnected(make_peer("ann"))
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)


async def test_a_certificate_that_comes_while_a_batch_is_applied_is_committed_after_it(
    rooms: Rooms, factory: ChainFactory
) -> None:
    blocks = factory.grow(6)
    await rooms.judge_all(*blocks)
    claim(rooms, "ann", 5)
    answer(rooms, "ann", make_batch(factory, 1, 5))
    rooms.finality.finalize(factory.finalizations[5])
    assert rooms.chain.finalized.height == 0
    await rooms.settle(lambda: rooms.chain.finalized.height == 6)
    assert rooms.finals == blocks


async def test_no_more_is_asked_for_than_a_frame_may_hold(rooms: Rooms) -> None:
    claim(rooms, "ann", 10_000)
    ((_, frame),) = rooms.transport.take(GetFinalBlocks)
    assert frame.count == FINAL_BLOCKS_MAX
