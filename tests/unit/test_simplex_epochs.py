"""The engine at an epoch's edges: tails, the end of signing, the first block of the next, fair turns across."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from consensus import codec
from consensus.bft.contract import BlockRef, Broadcast, Timer
from consensus.bft.leader import LeaderSchedule, compute_offset
from consensus.bft.messages import make_genesis_ref
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate
from node.simulation import toys
from tests.fakes.engine_bench import GENESIS, Bench, builds, finals, votes
from tests.staking_chain import StakingChain, make_staking_genesis

BOUNDARY = 2  # the height of the second block is the epoch's last


def make_block(bench: Bench, view: int, parent: BlockRef, height: int) -> BlockRef:
    payload = codec.encode((view, height, parent.view, parent.hash, (view - 1) % 4, 0, toys.EPOCH))
    ref = toys.read_block(payload)
    bench.payloads[ref.hash] = payload
    return ref


def notarize(bench: Bench, block: BlockRef, parent: Certificate | None) -> Certificate:
    bench.accept(block, parent)
    certificate = bench.certificate(NOTARIZE, block.view, block)
    bench.receive(certificate)
    return certificate


def reach_boundary(own: int = 3) -> tuple[Bench, BlockRef, Certificate]:
    """Two blocks are notarized, the second at the boundary; none is final."""
    bench = Bench(own, height_max=BOUNDARY)
    bench.start()
    first = make_block(bench, 1, GENESIS, 1)
    certificate = notarize(bench, first, None)
    second = make_block(bench, 2, first, 2)
    return bench, second, notarize(bench, second, certificate)


def test_past_the_boundary_blocks_keep_its_height() -> None:
    bench, boundary, certificate = reach_boundary()
    tail = make_block(bench, 3, boundary, BOUNDARY)
    assert (NOTARIZE, 3) in votes(bench.accept(tail, certificate))
    assert not bench.engine.is_ended


def test_a_block_above_the_boundary_is_no_block_of_this_epoch() -> None:
    bench, boundary, certificate = reach_boundary()
    too_high = make_block(bench, 3, boundary, BOUNDARY + 1)
    assert votes(bench.accept(too_high, certificate)) == [(NULLIFY, 3)]


def test_below_the_boundary_heights_must_rise() -> None:
    bench = Bench(3, height_max=BOUNDARY)
    bench.start()
    first = make_block(bench, 1, GENESIS, 1)
    certificate = notarize(bench, first, None)
    assert votes(bench.accept(make_block(bench, 2, first, 1), certificate)) == [(NULLIFY, 2)]


def test_when_the_boundary_is_final_nothing_more_is_signed() -> None:
    bench, boundary, certificate = reach_boundary()
    assert finals(bench.receive(bench.certificate(FINALIZE, 2, boundary))) == [2]
    assert bench.engine.is_ended
    tail = make_block(bench, 3, boundary, BOUNDARY)
    effects = bench.accept(tail, certificate) + bench.fire(Timer.ADVANCE) + bench.fire(Timer.LEADER)
    assert votes(effects) == []
    assert bench.fire(Timer.RETRY) == []
    told = [effect.message for effect in bench.fire(Timer.STANDSTILL) if isinstance(effect, Broadcast)]
    assert bench.engine.finalization in told


def test_a_final_tail_ends_the_epoch_too() -> None:
    bench, boundary, certificate = reach_boundary()
    tail = make_block(bench, 3, boundary, BOUNDARY)
    notarize(bench, tail, certificate)
    bench.receive(bench.certificate(FINALIZE, 3, tail))
    assert bench.engine.is_ended
    assert bench.engine.finalized_hash == tail.hash


def test_an_epoch_that_ended_stays_so_whatever_tail_becomes_final_later() -> None:
    bench, boundary, _ = reach_boundary()
    bench.receive(bench.certificate(FINALIZE, 2, boundary))
    unknown = make_block(bench, 4, boundary, BOUNDARY)
    bench.receive(bench.certificate(FINALIZE, 4, unknown))
    assert bench.engine.is_ended
    assert votes(bench.fire(Timer.ADVANCE) + bench.fire(Timer.RETRY)) == []


def test_while_the_final_block_is_unknown_nothing_is_signed_for_it_may_be_the_last() -> None:
    """Seed 5504462 of engines with epochs of 3 blocks: it came back without the block, and nullified past the end."""
    bench = Bench(3, height_max=BOUNDARY)
    bench.start()
    first = make_block(bench, 1, GENESIS, 1)
    bench.receive(bench.certificate(FINALIZE, 1, first))
    assert votes(bench.fire(Timer.ADVANCE)) == []
    effects = bench.fetch(first)
    assert votes(effects) == [(NULLIFY, 2)]  # it was not the last: the view that ran out is given up now


def test_the_end_is_known_after_a_restart() -> None:
    bench, boundary, _ = reach_boundary()
    bench.receive(bench.certificate(FINALIZE, 2, boundary))
    assert votes(bench.restart()) == []
    bench.fetch(boundary)
    assert bench.engine.is_ended


def test_the_leader_proposes_a_tail_on_the_boundary() -> None:
    bench, boundary, _ = reach_boundary(own=2)
    bench.fire(Timer.INTERVAL)
    (build,) = builds(bench.log)[-1:]
    assert (build.view, build.parent) == (3, boundary)
    assert build.certificate is not None


def test_an_epoch_begins_at_view_one_on_the_boundary_block() -> None:
    chain = StakingChain(make_staking_genesis())
    chain.reach(1)
    boundary = chain.view.header
    genesis = make_genesis_ref(boundary, 1)
    assert (genesis.epoch, genesis.view, genesis.height, genesis.hash) == (1, 0, 3, boundary.hash)
    opening = chain.build().block.header
    config = EngineConfig(
        chain_id=toys.CHAIN_ID,
        epoch=1,
        validators=toys.make_validators((1, 1, 1, 1)),
        own_index=0,
        genesis=genesis,
        height_max=6,
    )
    engine = SimplexEngine(config, lambda digest: digest * 2)
    (build,) = builds(engine.start(()))
    assert (build.view, build.parent, build.certificate) == (1, genesis, None)
    assert (opening.view, opening.parent_view, opening.parent_hash) == (1, genesis.view, genesis.hash)


def test_a_body_carries_every_signature_that_came_in_time() -> None:
    """Rewards and participation are counted from it: the slowest quarter must not starve."""
    bench = Bench(own=1)
    bench.start()
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    bench.receive(*(bench.vote(signer, NOTARIZE, 1, block) for signer in (0, 2)))
    bench.judge(block)
    bench.receive(bench.vote(3, NOTARIZE, 1, block))  # after the quorum
    bench.fire(Timer.INTERVAL)
    (build,) = builds(bench.log)[-1:]
    assert build.certificate is not None
    assert build.certificate.signers == (0, 1, 2, 3)


def test_a_body_on_a_final_parent_carries_its_notarizations() -> None:
    bench = Bench(own=1)
    bench.start()
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    bench.judge(block)
    bench.receive(*(bench.vote(signer, NOTARIZE, 1, block) for signer in (0, 2, 3)))
    bench.receive(bench.certificate(FINALIZE, 1, block, (0, 2, 3)))
    bench.fire(Timer.INTERVAL)
    (build,) = builds(bench.log)[-1:]
    assert build.certificate is not None
    assert build.certificate.subject.kind == NOTARIZE
    assert build.certificate.signers == (0, 1, 2, 3)


def test_what_belongs_to_another_epoch_counts_nowhere_else() -> None:
    """The same signatures, told of another epoch: a host sorts them out first, the engine does not rely on it."""
    bench = Bench(own=3)
    bench.start()
    block = bench.block(1)
    for epoch in (toys.EPOCH + 1, toys.EPOCH + 2):
        for signer in (0, 1, 2):
            vote = bench.vote(signer, NOTARIZE, 1, block)
            bench.receive(replace(vote, subject=replace(vote.subject, epoch=epoch)))
        for kind in (NULLIFY, FINALIZE):
            certificate = bench.certificate(kind, 1, None if kind == NULLIFY else block)
            bench.receive(replace(certificate, subject=replace(certificate.subject, epoch=epoch)))
    assert (bench.engine.view, bench.engine.finalized_view) == (1, 0)
    bench.receive(*(bench.vote(signer, NOTARIZE, 1, block) for signer in (0, 1, 2)))
    assert bench.engine.view == 2  # nor does it stand in the way of what does count


# --- leaders ----------------------------------------------------------------------------------------


def test_turns_go_on_from_epoch_to_epoch_exactly() -> None:
    stakes, blocks = (5, 3, 1, 1), 7
    validators = toys.make_validators(stakes)
    turns: Counter[int] = Counter()
    for epoch in range(sum(stakes) * 3):
        schedule = LeaderSchedule(validators, compute_offset(epoch, blocks))
        turns.update(schedule.get_leader(view) for view in range(1, blocks + 1))
    assert [turns[index] for index in range(4)] == [stake * blocks * 3 for stake in stakes]


def test_a_validator_with_a_hundredth_of_a_turn_an_epoch_leads_in_its_time() -> None:
    validators = toys.make_validators((499, 500, 1))
    led = [
        epoch
        for epoch in range(100)
        for view in range(1, 11)
        if LeaderSchedule(validators, compute_offset(epoch, 10)).get_leader(view) == 2
    ]
    assert len(led) == 1


def test_under_changing_sets_turns_stay_in_proportion(seed: int) -> None:
    """Stakes drift as far as a cap lets them; after a thousand epochs everybody's turns are its due, nearly."""
    blocks, due = 20, [0.0] * 5
    stakes = [400, 300, 200, 80, 20]
    turns: Counter[int] = Counter()
    state = seed
    for epoch in range(1_000):
        schedule = LeaderSchedule(toys.make_validators(tuple(stakes)), compute_offset(epoch, blocks))
        turns.update(schedule.get_leader(view) for view in range(1, blocks + 1))
        total = sum(stakes)
        due = [owed + blocks * stake / total for owed, stake in zip(due, stakes, strict=True)]
        for index in range(5):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            step = max(1, stakes[index] // 50)
            stakes[index] = max(10, stakes[index] + (step if state >> 63 else -step))
    for index, owed in enumerate(due):
        assert abs(turns[index] - owed) < 0.02 * owed + 20, (index, turns[index], owed)
