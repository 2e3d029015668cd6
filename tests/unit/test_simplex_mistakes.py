"""Mistakes that others made, each shown not to happen here (docs/consensus.md names them)."""

import pytest

from consensus.bft.contract import (
    Broadcast,
    CertificateRequest,
    FetchBlock,
    FetchCertificate,
    Judgement,
    Message,
    Persist,
    Proposal,
    Send,
    SetTimer,
    Timer,
)
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Vote, check_vote
from node.simulation import toys
from tests.fakes.cluster import Cluster
from tests.fakes.engine_bench import Bench, broadcasts, builds, judges, of_type, votes


def drop_votes(sender: int, receiver: int, message: Message) -> bool:
    return isinstance(message, Vote)


def test_half_hold_the_notarization_half_nullified_and_the_network_goes_on() -> None:
    cluster = Cluster(10)
    late = set(range(5, 10))

    def drop_from_late(sender: int, receiver: int, message: Message) -> bool:
        # View 1: votes and certificates reach only the first half, so it alone holds the notarization;
        # and nothing of view 2 is heard by anybody.
        if isinstance(message, Proposal):
            return message.block.view > 1
        return receiver in late

    cluster.drop = drop_from_late
    cluster.start()
    cluster.run(50)
    assert cluster.views[:5] == [2] * 5
    assert cluster.views[5:] == [1] * 5
    cluster.drop = lambda sender, receiver, message: True
    cluster.run(500)
    assert cluster.views == [2] * 5 + [1] * 5
    assert all(
        node.engine._tally.open(1).has_vote(NULLIFY, index)
        for index, node in enumerate(cluster.nodes)
        if index in late
    )
    cluster.drop = lambda sender, receiver, message: False
    cluster.run(10_000)
    assert min(cluster.final_views) > 1
    assert not cluster.has_conflicting_votes()


def test_all_crash_right_after_nullify_and_none_counts_its_own_vote_again() -> None:
    cluster = Cluster(4)
    cluster.drop = lambda sender, receiver, message: True
    cluster.start()
    cluster.run(1_000)
    cluster.crash(0, 1, 2, 3)
    for _ in range(3):  # crash loops: own votes are restored and resent each time
        cluster.restart(0, 1, 2, 3)
        cluster.crash(0, 1, 2, 3)
    cluster.restart(0, 1, 2, 3)
    cluster.run(500)
    assert cluster.views == [1] * 4  # one vote each is no quorum, however often it is restored
    assert all(node.engine._tally.open(1).stakes[NULLIFY, b""] == 1 for node in cluster.nodes)
    cluster.drop = lambda sender, receiver, message: False
    cluster.run(5_000)
    assert min(cluster.final_views) > 1


def test_the_own_tally_is_seeded_again_after_a_restart() -> None:
    bench = Bench()
    bench.start()
    bench.fire(Timer.ADVANCE)
    bench.restart()
    bench.receive(bench.vote(0, NULLIFY, 1), bench.vote(1, NULLIFY, 1))
    assert bench.engine.view == 2  # two others and my own vote of before


def test_a_full_restart_keeps_blocks_that_were_notarized_and_not_yet_final() -> None:
    cluster = Cluster(4)
    cluster.drop = lambda sender, receiver, message: (
        isinstance(message, Vote) and message.subject.kind == FINALIZE
    )
    cluster.start()
    cluster.run(600)
    assert max(cluster.final_views) == 0
    notarized = {view: cluster.nodes[0].engine.get_certificate(view, NOTARIZE) for view in (1, 2)}
    assert notarized[1] is not None
    cluster.crash(0, 1, 2, 3)
    cluster.drop = lambda sender, receiver, message: False
    cluster.restart(0, 1, 2, 3)
    cluster.run(3_000)
    assert min(cluster.final_views) > 2
    final_view = cluster.nodes[0].engine.finalized_view
    ref = cluster.nodes[0].engine._blocks.get(cluster.nodes[0].engine.finalized_hash).ref
    while ref.view > 1:  # the chain that became final goes through the block of view 1
        ref = toys.read_block(cluster.payloads[ref.parent_hash])
    assert ref.hash == notarized[1].subject.block_hash
    assert final_view > 2


def test_a_block_that_had_to_wait_for_its_parent_is_looked_at_again() -> None:
    bench = Bench()
    bench.start()
    first = bench.block(1)
    second = bench.block(2, first)
    bench.receive(bench.proposal(second, bench.certificate(NOTARIZE, 1, first)))
    assert votes(bench.judge(second, Judgement.NOT_YET)) == []
    bench.fetch(first)
    assert votes(bench.judge(first), NOTARIZE) == []
    assert votes(bench.judge(second), NOTARIZE) == [(NOTARIZE, 2)]


def test_a_gap_certificate_that_comes_last_is_enough_to_vote() -> None:
    bench = Bench()
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 2))
    assert votes(bench.accept(bench.block(3))) == []
    assert votes(bench.receive(bench.certificate(NULLIFY, 1))) == [(NOTARIZE, 3)]


def test_a_view_is_started_once() -> None:
    bench = Bench(own=1)
    bench.start()
    block = bench.block(1)
    bench.accept(block)
    effects = bench.receive(bench.certificate(NOTARIZE, 1, block))
    again = bench.receive(
        bench.certificate(NOTARIZE, 1, block, signers=(1, 2, 3)),
        bench.certificate(NULLIFY, 1),
        bench.vote(0, NOTARIZE, 1, block),
        bench.proposal(block),
    )
    assert len(builds(effects)) == 1
    assert builds(again) == []
    assert of_type(again, SetTimer) == []


def test_a_restarted_leader_proposes_what_it_logged_and_builds_nothing_new() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    _, effects = bench.build(build)
    [proposal] = broadcasts(effects, Proposal)
    effects = bench.restart()
    assert builds(effects) == []
    assert broadcasts(effects, Proposal) == [proposal]
    assert judges(effects) == [proposal.block.hash]
    assert votes(bench.judge(proposal.block)) == []  # its vote was cast


def test_the_timer_of_an_empty_vote_survives_a_restart() -> None:
    bench = Bench()
    bench.start()
    bench.fire(Timer.ADVANCE)
    effects = bench.restart()
    timers = {effect.timer for effect in of_type(effects, SetTimer)}
    assert Timer.RETRY in timers
    assert votes(bench.fire(Timer.RETRY)) == [(NULLIFY, 1)]


def test_a_restart_before_any_vote_re_arms_the_view_timers() -> None:
    bench = Bench()
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 1))
    timers = {effect.timer for effect in of_type(bench.restart(), SetTimer)}
    assert {Timer.LEADER, Timer.ADVANCE, Timer.STANDSTILL} <= timers
    assert bench.engine.view == 2


def test_a_node_that_missed_certificates_asks_and_is_helped() -> None:
    bench = Bench()
    bench.start()
    bench.fire(Timer.ADVANCE)
    [fetch] = of_type(bench.fire(Timer.RETRY), FetchCertificate)
    assert fetch.request == CertificateRequest(0, 1, NOTARIZE)
    # And whoever hears its late nullify vote sends what leads ahead, unasked but once.
    ahead = Bench(own=2)
    ahead.start()
    ahead.receive(ahead.certificate(FINALIZE, 4, ahead.block(4)), ahead.certificate(NULLIFY, 5))
    sent = of_type(ahead.receive(bench.vote(3, NULLIFY, 1), bench.vote(3, NULLIFY, 1), sender=b"\x03"), Send)
    assert [(send.peer, send.message.subject.view) for send in sent] == [(b"\x03", 4), (b"\x03", 5)]


def test_a_node_cut_off_for_long_catches_up_within_a_few_views() -> None:
    cluster = Cluster(4)
    cluster.drop = lambda sender, receiver, message: 3 in (sender, receiver)
    cluster.start()
    cluster.run(20_000)
    assert cluster.views[3] == 1
    assert cluster.final_views[0] > 20
    cluster.drop = lambda sender, receiver, message: False
    cluster.run(4_000)
    assert min(cluster.final_views) >= max(cluster.final_views) - 2


def test_certificates_are_in_the_journal_too() -> None:
    bench = Bench()
    bench.start()
    first = bench.notarize(1)
    bench.receive(bench.certificate(NULLIFY, 2), bench.certificate(NULLIFY, 3))
    bench.restart()
    assert bench.engine.view == 4
    assert bench.engine.get_certificate(1, NOTARIZE) is not None
    assert bench.engine.get_certificate(2, NULLIFY) is not None
    [fetch] = of_type(bench.log[-30:], FetchBlock)
    assert fetch.block_hash == first.hash


def test_the_maximum_over_records_counts_not_the_last() -> None:
    bench = Bench()
    records = [
        bench.certificate(FINALIZE, 9, bench.block(9)),
        bench.vote(3, NULLIFY, 12),
        bench.certificate(FINALIZE, 4, bench.block(4)),
        bench.vote(3, NULLIFY, 5),
    ]
    bench.start(records)
    assert (bench.engine.finalized_view, bench.engine.view) == (9, 12)


@pytest.mark.parametrize("epoch", [1, 7])
def test_records_of_another_epoch_do_not_speak_for_this_one(epoch: int) -> None:
    from dataclasses import replace

    bench = Bench()
    vote = bench.vote(3, NULLIFY, 12)
    bench.start([replace(vote, subject=replace(vote.subject, epoch=epoch))])
    assert bench.engine.view == 1


def test_no_vote_contradicts_one_of_before_the_restart() -> None:
    bench = Bench()
    bench.start()
    block, other = bench.block(1), bench.block(1, salt=1)
    bench.accept(block)
    bench.restart()
    assert votes(bench.accept(other), NOTARIZE) == []
    bench.receive(bench.certificate(NOTARIZE, 1, block))
    bench.fetch(block)
    assert (FINALIZE, 1) in votes(bench.judge(block))
    bench.restart()
    assert votes(bench.fire(Timer.ADVANCE, 1), NULLIFY) == []


def test_a_nullify_vote_of_before_the_restart_forbids_finalizing() -> None:
    bench = Bench()
    bench.start()
    bench.fire(Timer.ADVANCE)
    bench.restart()
    block = bench.block(1)
    bench.accept(block)
    assert votes(bench.receive(bench.certificate(NOTARIZE, 1, block)), FINALIZE) == []


def test_unchecked_votes_never_reach_the_engine_and_so_make_nobody_active() -> None:
    bench = Bench()
    forged = Vote(bench.vote(0, NULLIFY, 8).subject, 0, bytes(64))
    with pytest.raises(Rejected):
        check_vote(forged, bench.validators, toys.CHAIN_ID, toys.verify)
    bench.start()
    bench.engine.is_needed(forged)  # the only thing a host does before checking: a pure read
    assert bench.engine._active == [0, 0, 0, 0]


def test_nobody_notarizes_a_body_that_is_not_durable_so_the_view_can_still_be_nullified() -> None:
    # A Byzantine leader shows its block's header and withholds the body; then all crash.
    cluster = Cluster(4)
    cluster.start()
    bench = cluster.nodes[0]
    block = bench.block(1, salt=7)
    cluster.withheld.add(block.hash)
    cluster.crash(0)
    for index in (1, 2, 3):
        cluster.nodes[index].payloads.update(bench.payloads)
        cluster._send(0, index, bench.proposal(block))
    cluster.run(100)
    assert not [vote for _, vote in cluster.said if vote.subject.kind == NOTARIZE]
    cluster.crash(1, 2, 3)
    cluster.restart(1, 2, 3)
    cluster.run(5_000)
    assert min(cluster.final_views[1:]) > 1


def test_a_leader_whose_parent_is_not_judged_yet_loses_no_view() -> None:
    # The slowest validator is often the next leader: the quorum of the other three forms before it has
    # judged. No view may be nullified for that.
    cluster = Cluster(4)
    judge = cluster.judge
    cluster.judge = lambda index, block_hash: cluster._later(40, lambda: judge(index, block_hash))  # type: ignore[method-assign]
    slow = 3

    def judge_slowly(index: int, block_hash: bytes) -> None:
        cluster._later(80 if index == slow else 0, lambda: judge(index, block_hash))

    cluster.judge = judge_slowly  # type: ignore[method-assign]
    cluster.start()
    cluster.run(6_000)
    assert min(cluster.final_views) > 10
    assert not [vote for _, vote in cluster.said if vote.subject.kind == NULLIFY]


def test_a_single_validator_is_a_network_of_its_own() -> None:
    cluster = Cluster(1)
    cluster.start()
    cluster.run(3_000)
    assert cluster.final_views[0] >= 8


def test_with_half_of_them_down_nothing_is_final_and_with_a_quorum_back_it_goes_on() -> None:
    cluster = Cluster(4)
    cluster.start()
    cluster.run(1_000)
    cluster.crash(2, 3)
    cluster.run(200)
    before = max(cluster.final_views[:2])
    cluster.run(10_000)
    assert max(cluster.final_views[:2]) == before
    cluster.restart(2)
    cluster.run(5_000)
    assert min(cluster.final_views[:3]) > before
    assert not cluster.has_conflicting_votes()


def test_a_dead_leaders_views_are_skipped_without_waiting_after_a_while() -> None:
    cluster = Cluster(4, delta_ms=500, delta_ms_max=4_000)
    cluster.start([0, 1, 2])
    cluster.crash(3)
    cluster.run(10_000)
    settled = min(cluster.final_views[:3])
    cluster.run(10_000)
    # A view takes 250 ms (the empty interval); waiting for the dead one would add 1,250 every fourth.
    assert min(cluster.final_views[:3]) - settled > 45


def test_every_message_said_has_its_record_before_it() -> None:
    bench = Bench(own=1)
    bench.start()
    first = bench.notarize(1)
    [build] = [build for build in builds(bench.log) if build.view == 2]
    second, _ = bench.build(build)
    bench.receive(bench.certificate(NOTARIZE, 2, second))
    bench.fire(Timer.ADVANCE)
    bench.receive(bench.certificate(FINALIZE, 1, first))
    persisted = []
    for effect in bench.log:
        if isinstance(effect, Persist):
            persisted.append(effect.record)
        elif isinstance(effect, Broadcast) and isinstance(effect.message, Vote | Certificate | Proposal):
            assert effect.message in persisted
