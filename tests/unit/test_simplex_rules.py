"""Every rule of docs/consensus.md, one engine at a time. Validator (view - 1) % 4 leads; we are 3."""

from dataclasses import replace

import pytest

from consensus.bft.contract import (
    BlockBuilt,
    Broadcast,
    CancelTimer,
    CertificateRequest,
    FetchBlock,
    FetchCertificate,
    Halt,
    Judgement,
    Persist,
    Proposal,
    Received,
    ReportEvidence,
    Send,
    SetTimer,
    SigningAllowed,
    Timer,
    WorkWaiting,
)
from consensus.bft.follower import ANSWERS_MAX, RELAYS_MAX
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Vote
from node.simulation import toys
from tests.fakes.engine_bench import (
    GENESIS,
    PEER,
    Bench,
    broadcasts,
    builds,
    finals,
    is_halting,
    judges,
    of_type,
    votes,
)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.start()
    return made


def get_delays(effects: list) -> dict[Timer, int]:
    return {effect.timer: effect.delay_ms for effect in of_type(effects, SetTimer)}


# --- rule 1: entering views ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NOTARIZE, NULLIFY, FINALIZE])
def test_rule_1_every_kind_of_certificate_opens_the_next_view(bench: Bench, kind: int) -> None:
    bench.receive(bench.certificate(kind, 1, None if kind == NULLIFY else bench.block(1)))
    assert bench.engine.view == 2


def test_rule_1_a_higher_certificate_jumps_ahead(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 5000))
    assert bench.engine.view == 5001


def test_rule_1_an_old_certificate_changes_no_view(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 7), bench.certificate(NULLIFY, 3))
    assert bench.engine.view == 8


def test_rule_1_another_epochs_certificate_is_nothing(bench: Bench) -> None:
    good = bench.certificate(NULLIFY, 1)
    assert bench.receive(replace(good, subject=replace(good.subject, epoch=1))) == []
    assert bench.engine.view == 1


# --- rule 2: proposing ----------------------------------------------------------------------------


def test_rule_2_the_leader_builds_on_genesis_in_view_one() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    assert (build.view, build.parent, build.certificate) == (1, GENESIS, None)


def test_rule_2_the_proposal_carries_own_vote_parent_and_gap() -> None:
    bench = Bench(own=3)
    bench.start()
    parent = bench.notarize(1)
    bench.receive(bench.certificate(NULLIFY, 2))
    [build] = builds(bench.receive(bench.certificate(NULLIFY, 3)))
    block, effects = bench.build(build)
    [proposal] = broadcasts(effects, Proposal)
    assert proposal.block == block
    assert block.parent_hash == parent.hash
    assert proposal.vote == bench.vote(3, NOTARIZE, 4, block)
    assert proposal.parent_certificate is not None
    assert proposal.parent_certificate.subject.block_hash == parent.hash
    assert [certificate.subject.view for certificate in proposal.nullifications] == [2, 3]


def test_rule_2_the_proposal_is_persisted_before_it_is_sent() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    _, effects = bench.build(build)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Persist) < kinds.index(Broadcast)
    assert isinstance(effects[kinds.index(Persist)].record, Proposal)


def test_rule_2_a_leader_waits_for_a_parent_that_is_not_judged() -> None:
    bench = Bench(own=1)
    bench.start()
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    effects = bench.receive(bench.certificate(NOTARIZE, 1, block))
    assert builds(effects) == []
    assert votes(effects) == []  # above all: it nullifies nothing
    assert [build.parent for build in builds(bench.judge(block))] == [block]


def test_rule_2_a_leader_asks_for_a_gap_it_does_not_hold() -> None:
    bench = Bench(own=3)
    bench.start()
    parent = bench.notarize(1)
    effects = bench.receive(bench.certificate(NULLIFY, 3))  # view 2 was never heard of
    assert builds(effects) == []
    assert FetchCertificate in map(type, effects)
    [build] = builds(bench.receive(bench.certificate(NULLIFY, 2)))
    assert build.parent == parent


def test_rule_2_the_highest_validated_parent_is_taken() -> None:
    bench = Bench(own=3)
    bench.start()
    bench.notarize(1)
    second = bench.notarize(2, bench.block(1), bench.certificate(NOTARIZE, 1, bench.block(1)))
    [build] = builds(bench.receive(bench.certificate(NULLIFY, 3)))
    assert build.parent == second


def test_rule_2_a_build_that_failed_for_good_nullifies() -> None:
    bench = Bench(own=0)
    bench.start()
    assert votes(bench.step(BlockBuilt(1, None, b""))) == [(NULLIFY, 1)]


def test_rule_2_one_proposal_a_view_even_if_two_builds_answer() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    bench.build(build, salt=1)
    _, effects = bench.build(build, salt=2)
    assert broadcasts(effects, Proposal) == []


def test_rule_2_a_block_built_after_my_own_nullify_is_not_proposed() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    assert votes(bench.fire(Timer.LEADER)) == [(NULLIFY, 1)]
    _, effects = bench.build(build)
    assert effects == []


def test_rule_2_a_build_for_an_earlier_view_is_dropped() -> None:
    bench = Bench(own=0)
    [build] = builds(bench.start())
    bench.receive(bench.certificate(NULLIFY, 1))
    _, effects = bench.build(build)
    assert effects == []


def test_rule_2_at_most_sixteen_nullifications_travel_the_latest() -> None:
    bench = Bench(own=3)
    bench.start()
    bench.receive(*[bench.certificate(NULLIFY, view) for view in range(1, 20)])
    assert bench.engine.view == 20
    build = builds(bench.log)[-1]
    _, effects = bench.build(build)
    [proposal] = broadcasts(effects, Proposal)
    assert [certificate.subject.view for certificate in proposal.nullifications] == list(range(4, 20))


# --- rule 3: notarizing ---------------------------------------------------------------------------


def test_rule_3_a_valid_first_proposal_is_notarized(bench: Bench) -> None:
    assert votes(bench.accept(bench.block(1))) == [(NOTARIZE, 1)]


def test_rule_3_nothing_is_notarized_before_the_block_is_judged_valid(bench: Bench) -> None:
    block = bench.block(1)
    assert votes(bench.receive(bench.proposal(block))) == []
    assert votes(bench.judge(block, Judgement.NOT_YET)) == []
    assert votes(bench.judge(block)) == [(NOTARIZE, 1)]


def test_rule_3_only_the_current_view(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block), bench.certificate(NULLIFY, 1))
    assert votes(bench.judge(block)) == []


def test_rule_3_only_the_leader_proposes(bench: Bench) -> None:
    payload = toys.make_payload(GENESIS, 1, 2, 0)  # validator 2 in view 1
    block = toys.read_block(payload)
    bench.payloads[block.hash] = payload
    assert bench.receive(bench.proposal(block)) == []
    assert votes(bench.judge(block)) == []


def test_rule_3_the_second_proposal_of_a_view_gets_no_vote(bench: Bench) -> None:
    first, second = bench.block(1), bench.block(1, salt=1)
    bench.receive(bench.proposal(first), bench.proposal(second))
    assert votes(bench.judge(second)) == []
    assert votes(bench.judge(first)) == [(NOTARIZE, 1)]


def test_rule_3_one_notarize_vote_a_view(bench: Bench) -> None:
    block = bench.block(1)
    bench.accept(block)
    assert votes(bench.receive(bench.proposal(block)) + bench.judge(block)) == []


def test_rule_3_the_parent_must_be_certified() -> None:
    bench = Bench()
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 1))
    block = bench.block(2, bench.block(1))  # its parent has no certificate here
    effects = bench.accept(block, None)
    assert votes(effects) == []
    assert CertificateRequest(0, 1, NOTARIZE) in [
        effect.request for effect in of_type(effects, FetchCertificate)
    ]


def test_rule_3_every_view_of_the_gap_must_be_nullified(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 2))  # view 1 is missing
    block = bench.block(3)
    effects = bench.accept(block)
    assert votes(effects) == []
    requests = [effect.request for effect in of_type(effects, FetchCertificate)]
    assert requests == [CertificateRequest(0, 1, NULLIFY)]
    assert votes(bench.receive(bench.certificate(NULLIFY, 1))) == [(NOTARIZE, 3)]


def test_rule_3_no_vote_for_a_parent_below_the_last_final_view(bench: Bench) -> None:
    bench.receive(bench.certificate(FINALIZE, 2, bench.block(2)))
    effects = bench.accept(bench.block(3))  # on genesis
    assert votes(effects) == [(NULLIFY, 3)]  # it can never be voted for


def test_rule_3_a_parent_in_the_final_view_must_be_the_final_block(bench: Bench) -> None:
    bench.receive(bench.certificate(FINALIZE, 1, bench.block(1)))
    other = bench.block(1, salt=1)
    assert votes(bench.accept(bench.block(2, other))) == [(NULLIFY, 2)]


def test_rule_3_notarizing_after_my_own_nullify_is_allowed(bench: Bench) -> None:
    assert votes(bench.fire(Timer.LEADER)) == [(NULLIFY, 1)]
    assert votes(bench.accept(bench.block(1))) == [(NOTARIZE, 1)]


def test_rule_3_a_proposal_that_came_before_its_view_is_judged_when_the_view_opens(bench: Bench) -> None:
    block = bench.block(2)
    assert judges(bench.receive(bench.proposal(block))) == []
    assert judges(bench.receive(bench.certificate(NULLIFY, 1))) == [block.hash]
    assert votes(bench.judge(block)) == [(NOTARIZE, 2)]


def test_rule_3_a_height_that_skips_is_invalid(bench: Bench) -> None:
    payload = toys.make_payload(replace(GENESIS, height=5), 1, 0, 0)
    block = toys.read_block(payload)
    bench.payloads[block.hash] = payload
    assert votes(bench.receive(bench.proposal(block))) == [(NULLIFY, 1)]


# --- rule 4: nullifying ---------------------------------------------------------------------------


@pytest.mark.parametrize("timer", [Timer.LEADER, Timer.ADVANCE])
def test_rule_4_a_timer_nullifies(bench: Bench, timer: Timer) -> None:
    assert votes(bench.fire(timer)) == [(NULLIFY, 1)]
    assert votes(bench.fire(Timer.ADVANCE)) == []  # once


def test_rule_4_a_timer_of_an_earlier_view_is_stale(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 1))
    assert bench.fire(Timer.LEADER, 1) == []
    assert bench.fire(Timer.ADVANCE, 1) == []


def test_rule_4_a_proposal_cancels_the_leader_timer_but_not_the_advance_timer(bench: Bench) -> None:
    effects = bench.receive(bench.proposal(bench.block(1)))
    assert CancelTimer(Timer.LEADER) in effects
    assert votes(bench.fire(Timer.LEADER)) == []
    assert votes(bench.fire(Timer.ADVANCE)) == [(NULLIFY, 1)]


def test_rule_4_an_invalid_proposal_nullifies_at_once(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    assert votes(bench.judge(block, Judgement.INVALID)) == [(NULLIFY, 1)]


def test_rule_4_follows_a_leader_that_nullified(bench: Bench) -> None:
    assert votes(bench.receive(bench.vote(1, NULLIFY, 1))) == []
    assert votes(bench.receive(bench.vote(0, NULLIFY, 1))) == [(NULLIFY, 1)]


def test_rule_4_a_long_silent_leader_is_not_waited_for(bench: Bench) -> None:
    for view in range(1, 13):  # validator 0 never says a word
        signers = (1, 2, 3)
        effects = bench.receive(bench.certificate(NULLIFY, view, signers=signers))
    assert bench.engine.leader == 0
    assert (NULLIFY, 13) in votes(effects)


def test_rule_4_a_silent_leader_is_waited_for_when_nobody_else_is_heard_either(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 11, signers=(1, 2, 3)))  # a jump: we saw nothing of it
    assert votes(bench.receive(bench.certificate(NULLIFY, 12, signers=(1, 2, 3)))) == []


def test_rule_4_a_leader_that_votes_late_is_not_silent(bench: Bench) -> None:
    for view in range(1, 13):
        effects = bench.receive(
            bench.certificate(NULLIFY, view, signers=(1, 2, 3)), bench.vote(0, NULLIFY, view)
        )
    assert votes(effects) == []


# --- rule 5: finalizing ---------------------------------------------------------------------------


def test_rule_5_a_notarized_valid_block_gets_a_finalize_vote(bench: Bench) -> None:
    block = bench.block(1)
    bench.accept(block)
    assert votes(bench.receive(bench.certificate(NOTARIZE, 1, block))) == [(FINALIZE, 1)]


def test_rule_5_never_after_my_own_nullify(bench: Bench) -> None:
    bench.fire(Timer.LEADER)
    block = bench.block(1)
    bench.accept(block)
    assert votes(bench.receive(bench.certificate(NOTARIZE, 1, block)), FINALIZE) == []


def test_rule_5_not_before_the_block_is_validated_but_then_also_after_the_view(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    assert votes(bench.receive(bench.certificate(NOTARIZE, 1, block)), FINALIZE) == []
    bench.receive(bench.certificate(NULLIFY, 2))
    assert bench.engine.view == 3
    assert votes(bench.judge(block)) == [(FINALIZE, 1)]


def test_rule_5_not_at_or_below_the_last_final_view(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block), bench.certificate(NOTARIZE, 1, block))
    bench.receive(bench.certificate(FINALIZE, 2, bench.block(2, block)))
    assert votes(bench.judge(block)) == []


def test_rule_5_once(bench: Bench) -> None:
    block = bench.notarize(1)
    assert votes(bench.receive(bench.certificate(NOTARIZE, 1, block)) + bench.judge(block)) == []


def test_rule_4_never_nullify_what_i_finalized() -> None:
    # The finalize vote is in the journal, the notarization is not (that record was torn off).
    bench = Bench()
    bench.start([bench.vote(3, FINALIZE, 1, bench.block(1))])
    assert bench.engine.view == 1
    assert votes(bench.fire(Timer.ADVANCE)) == []


# --- rule 6: certificates ---------------------------------------------------------------------------


def test_rule_6_a_quorum_of_votes_is_formed_persisted_and_relayed(bench: Bench) -> None:
    bench.receive(bench.vote(0, NULLIFY, 1))  # the leader's own: we follow
    effects = bench.receive(bench.vote(2, NULLIFY, 1))
    certificate = bench.certificate(NULLIFY, 1, signers=(0, 2, 3))
    assert effects.index(Persist(certificate)) < effects.index(Broadcast(certificate, RELAYS_MAX))
    assert bench.engine.view == 2


def test_rule_6_a_certificate_never_goes_to_all() -> None:
    """It grows with the validators: sent to all of them by each, it would be quadratic for every node."""
    bench = Bench(own=1)
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 1, signers=(0, 2, 3)))
    block = bench.block(3)
    bench.receive(bench.certificate(NOTARIZE, 3, block, (0, 2, 3)))
    for timer in (Timer.LEADER, Timer.ADVANCE, Timer.RETRY, Timer.STANDSTILL):
        bench.fire(timer)
    bench.restart()
    told = [effect for effect in bench.log if isinstance(effect, Broadcast)]
    assert {effect.peers_max for effect in told if isinstance(effect.message, Certificate)} == {RELAYS_MAX}
    assert {effect.peers_max for effect in told if isinstance(effect.message, Vote)} == {None}
    assert sum(isinstance(effect.message, Certificate) for effect in told) > 3


def test_only_so_many_are_helped_ahead_in_a_view() -> None:
    """Whoever nullifies what we left gets a certificate: a view in which all do costs no more than linear."""
    bench = Bench(own=3, stakes=(1,) * 16)
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 1, signers=range(11)))
    laggards = [bytes((index,)) for index in range(16)]
    effects = [
        effect
        for signer, peer in enumerate(laggards)
        if signer != 3
        for effect in bench.step(Received(bench.vote(signer, NULLIFY, 1), peer))
    ]
    assert sum(isinstance(effect, Send) for effect in effects) == ANSWERS_MAX


def test_rule_6_one_unit_below_the_quorum_is_no_certificate() -> None:
    bench = Bench(own=None, stakes=(3, 3, 3, 1))  # a quorum is 7
    bench.start()
    bench.receive(bench.vote(0, NULLIFY, 1), bench.vote(1, NULLIFY, 1))
    assert bench.engine.view == 1
    bench.receive(bench.vote(3, NULLIFY, 1))
    assert bench.engine.view == 2


def test_rule_6_votes_for_different_blocks_do_not_add_up() -> None:
    bench = Bench(own=None)
    bench.start()
    first, second = bench.block(1), bench.block(1, salt=1)
    bench.receive(bench.vote(0, NOTARIZE, 1, first), bench.vote(1, NOTARIZE, 1, first))
    bench.receive(bench.vote(2, NOTARIZE, 1, second))
    assert bench.engine.view == 1


def test_rule_6_the_same_vote_counts_once() -> None:
    bench = Bench(own=None)
    bench.start()
    for _ in range(3):
        bench.receive(bench.vote(0, NULLIFY, 1))
    assert bench.engine.view == 1


def test_rule_6_relayed_on_first_receipt_alone_and_without_the_body(bench: Bench) -> None:
    certificate = bench.certificate(NOTARIZE, 1, bench.block(1))
    assert broadcasts(bench.receive(certificate), Certificate) == [certificate]
    assert broadcasts(bench.receive(certificate), Certificate) == []


def test_rule_6_another_certificate_of_the_same_subject_is_not_relayed_again(bench: Bench) -> None:
    bench.receive(bench.certificate(NULLIFY, 1, signers=(0, 1, 2)))
    assert bench.receive(bench.certificate(NULLIFY, 1, signers=(1, 2, 3))) == []


def test_own_votes_are_persisted_before_they_are_broadcast(bench: Bench) -> None:
    effects = bench.accept(bench.block(1))
    vote = bench.vote(3, NOTARIZE, 1, bench.block(1))
    assert effects.index(Persist(vote)) < effects.index(Broadcast(vote))


# --- rule 7: finalization -----------------------------------------------------------------------------


def test_rule_7_a_finalization_is_told_once_and_moves_the_final_view(bench: Bench) -> None:
    block = bench.notarize(1)
    certificate = bench.certificate(FINALIZE, 1, block)
    assert finals(bench.receive(certificate)) == [1]
    assert finals(bench.receive(certificate)) == []
    assert (bench.engine.finalized_view, bench.engine.finalized_hash) == (1, block.hash)


def test_rule_7_an_earlier_finalization_does_not_move_it_back(bench: Bench) -> None:
    bench.receive(bench.certificate(FINALIZE, 5, bench.block(5)))
    assert bench.receive(bench.certificate(FINALIZE, 3, bench.block(3))) == []
    assert bench.engine.finalized_view == 5


def test_rule_7_a_final_block_that_is_unknown_is_fetched_and_judged(bench: Bench) -> None:
    block = bench.block(5)
    [fetch] = of_type(bench.receive(bench.certificate(FINALIZE, 5, block)), FetchBlock)
    assert (fetch.block_hash, fetch.hint) == (block.hash, 0)  # the proposer first
    assert judges(bench.fetch(block)) == [block.hash]


def test_rule_7_rounds_below_the_final_view_are_forgotten(bench: Bench) -> None:
    for view in range(1, 50):
        bench.receive(bench.certificate(NULLIFY, view))
    bench.receive(bench.certificate(FINALIZE, 50, bench.block(50)))
    assert len(bench.engine._tally) <= 1
    assert len(bench.engine._blocks) == 0  # the final one is being fetched
    bench.receive(bench.vote(0, NULLIFY, 7), bench.certificate(NULLIFY, 7))
    assert len(bench.engine._tally) <= 1


# --- rule 8: standstill --------------------------------------------------------------------------------


def test_rule_8_everything_above_the_last_finalization_is_told_again(bench: Bench) -> None:
    first = bench.notarize(1)
    bench.receive(bench.certificate(FINALIZE, 1, first))
    bench.notarize(2, first, bench.certificate(NOTARIZE, 1, first))
    bench.receive(bench.certificate(NULLIFY, 3))
    effects = bench.fire(Timer.STANDSTILL)
    kinds = {(item.subject.kind, item.subject.view) for item in broadcasts(effects, Certificate)}
    assert kinds == {(FINALIZE, 1), (NOTARIZE, 2), (NULLIFY, 3)}
    assert set(votes(effects)) == {(NOTARIZE, 2), (FINALIZE, 2)}


def test_rule_8_intervals_grow_are_capped_and_fall_back_on_finalization(bench: Bench) -> None:
    delays = [get_delays(bench.fire(Timer.STANDSTILL))[Timer.STANDSTILL] for _ in range(6)]
    assert delays == [10_000, 20_000, 40_000, 40_000, 40_000, 40_000]
    effects = bench.receive(bench.certificate(FINALIZE, 1, bench.block(1)))
    assert get_delays(effects)[Timer.STANDSTILL] == 5_000


def test_rule_8_what_does_not_fit_comes_the_next_time() -> None:
    bench = Bench(own=None)
    bench.start()
    bench.receive(*[bench.certificate(NULLIFY, view) for view in range(1, 1001)])  # 280 bytes each
    told: set[int] = set()
    for _ in range(3):
        views = [item.subject.view for item in broadcasts(bench.fire(Timer.STANDSTILL), Certificate)]
        assert len(views) < 500
        told.update(views)
    assert told == set(range(1, 1001))


# --- rule 9: fetching -----------------------------------------------------------------------------------


def test_rule_9_a_request_gets_the_certificate_asked_for(bench: Bench) -> None:
    block = bench.notarize(1)
    bench.receive(bench.certificate(NULLIFY, 1))
    for kind, body in ((NOTARIZE, block), (NULLIFY, None)):
        assert bench.receive(CertificateRequest(0, 1, kind)) == [Send(PEER, bench.certificate(kind, 1, body))]


def test_rule_9_a_later_finalization_settles_any_request(bench: Bench) -> None:
    final = bench.certificate(FINALIZE, 9, bench.block(9))
    bench.receive(final)
    assert bench.receive(CertificateRequest(0, 4, NULLIFY)) == [Send(PEER, final)]


def test_rule_9_another_certificate_of_that_view_is_better_than_none(bench: Bench) -> None:
    nullification = bench.certificate(NULLIFY, 1)
    bench.receive(nullification)
    assert bench.receive(CertificateRequest(0, 1, NOTARIZE)) == [Send(PEER, nullification)]


def test_rule_9_what_is_not_held_is_not_answered(bench: Bench) -> None:
    assert bench.receive(CertificateRequest(0, 4, NULLIFY), CertificateRequest(3, 1, NULLIFY)) == []


def test_rule_9_fetches_repeat_with_the_retry_timer_and_backoff(bench: Bench) -> None:
    block = bench.block(1)
    effects = bench.receive(bench.certificate(NOTARIZE, 1, block))
    delays = [get_delays(effects)[Timer.RETRY]]
    for attempt in range(1, 6):
        effects = bench.fire(Timer.RETRY)
        assert [fetch.attempt for fetch in of_type(effects, FetchBlock)] == [attempt]
        delays.append(get_delays(effects)[Timer.RETRY])
    assert delays == [500, 1000, 2000, 4000, 4000, 4000]
    bench.fetch(block)
    assert of_type(bench.fire(Timer.RETRY), FetchBlock) == []


def test_rule_9_quick_views_do_not_starve_a_fetch(bench: Bench) -> None:
    bench.receive(bench.certificate(NOTARIZE, 1, bench.block(1)))
    for view in range(2, 6):
        effects = bench.receive(bench.certificate(NULLIFY, view))
        assert Timer.RETRY not in get_delays(effects)
        assert CancelTimer(Timer.RETRY) not in effects
    assert of_type(bench.fire(Timer.RETRY, 1), FetchBlock)


def test_rule_9_the_ancestors_of_a_certified_block_are_fetched_too(bench: Bench) -> None:
    first, second = bench.block(1), None
    second = bench.block(2, first)
    bench.receive(bench.certificate(NOTARIZE, 2, second))  # the notarization of view 1 never came
    wanted = [fetch.block_hash for fetch in of_type(bench.fetch(second), FetchBlock)]
    assert wanted == [first.hash]


# --- rules 10 and 11 -----------------------------------------------------------------------------------


def test_rule_10_a_missing_body_is_not_yet_and_the_view_may_time_out(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    assert votes(bench.judge(block, Judgement.NOT_YET)) == []
    assert votes(bench.fire(Timer.ADVANCE)) == [(NULLIFY, 1)]
    assert votes(bench.judge(block)) == [(NOTARIZE, 1)]  # it came after all


@pytest.mark.parametrize("kind", [NOTARIZE, FINALIZE])
def test_rule_11_a_certificate_for_a_block_judged_invalid_halts(bench: Bench, kind: int) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block))
    bench.judge(block, Judgement.INVALID)
    [halt] = of_type(bench.receive(bench.certificate(kind, 1, block)), Halt)
    assert halt.block_hash == block.hash


def test_rule_11_a_certified_block_judged_invalid_halts(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block), bench.certificate(NOTARIZE, 1, block))
    assert is_halting(bench.judge(block, Judgement.INVALID))


def test_rule_11_a_halted_engine_signs_nothing_and_goes_on_serving(bench: Bench) -> None:
    block = bench.block(1)
    bench.receive(bench.proposal(block), bench.certificate(NOTARIZE, 1, block))
    bench.judge(block, Judgement.INVALID)
    effects = bench.accept(bench.block(2, block)) + bench.fire(Timer.ADVANCE) + bench.fire(Timer.RETRY)
    assert votes(effects) == []
    assert bench.engine.is_halted
    assert of_type(bench.receive(CertificateRequest(0, 1, NOTARIZE)), Send)
    bench.receive(bench.certificate(NULLIFY, 2))
    assert bench.engine.view == 3


@pytest.mark.parametrize(("kind", "other"), [(NOTARIZE, NOTARIZE), (NULLIFY, FINALIZE), (NOTARIZE, FINALIZE)])
def test_rule_11_quorums_that_contradict_each_other_halt(bench: Bench, kind: int, other: int) -> None:
    first, second = bench.block(1), bench.block(1, salt=1)
    bench.receive(bench.certificate(kind, 1, None if kind == NULLIFY else first))
    assert is_halting(bench.receive(bench.certificate(other, 1, second)))


def test_rule_11_a_nullification_of_the_final_view_halts(bench: Bench) -> None:
    bench.receive(bench.certificate(FINALIZE, 1, bench.block(1)))
    assert is_halting(bench.receive(bench.certificate(NULLIFY, 1)))


# --- rule 12 ----------------------------------------------------------------------------------------------


def test_rule_12_votes_far_ahead_are_dropped_near_ones_kept(bench: Bench) -> None:
    for view in range(1, 10_000, 7):
        bench.receive(bench.vote(1, NULLIFY, view))
    assert len(bench.engine._tally) <= 66


def test_rule_12_a_proposal_far_ahead_is_dropped_unless_a_certificate_backs_it(bench: Bench) -> None:
    far = bench.block(1001)
    assert bench.receive(bench.proposal(far)) == []
    parent = bench.block(1000)
    block = bench.block(1001, parent)
    effects = bench.receive(bench.proposal(block, bench.certificate(NOTARIZE, 1000, parent)))
    assert bench.engine.view == 1001
    assert block.hash in judges(effects)


def test_rule_12_many_hashes_from_liars_cost_one_vote_each(bench: Bench) -> None:
    for salt in range(100):
        bench.receive(bench.vote(1, NOTARIZE, 1, bench.block(1, salt=salt)))
        bench.receive(bench.proposal(bench.block(1, salt=salt)))
    found = bench.engine._tally.open(1)
    assert len(found.votes[NOTARIZE]) == 2
    assert len(found.stakes) <= 2
    assert len(bench.engine._blocks) <= 2


# --- evidence ---------------------------------------------------------------------------------------------


def test_two_notarize_votes_are_reported_once(bench: Bench) -> None:
    first, second = (
        bench.vote(1, NOTARIZE, 1, bench.block(1)),
        bench.vote(1, NOTARIZE, 1, bench.block(1, salt=1)),
    )
    assert of_type(bench.receive(first), ReportEvidence) == []
    [report] = of_type(bench.receive(second), ReportEvidence)
    assert (report.evidence.first, report.evidence.second) == (first, second)
    assert of_type(bench.receive(second), ReportEvidence) == []


def test_nullify_with_finalize_is_reported_and_notarize_with_nullify_is_not(bench: Bench) -> None:
    block = bench.block(1)
    assert (
        of_type(bench.receive(bench.vote(1, NOTARIZE, 1, block), bench.vote(1, NULLIFY, 1)), ReportEvidence)
        == []
    )
    assert of_type(bench.receive(bench.vote(1, FINALIZE, 1, block)), ReportEvidence)


def test_a_signature_inside_a_certificate_is_evidence_too(bench: Bench) -> None:
    bench.receive(bench.vote(1, NOTARIZE, 1, bench.block(1, salt=1)))
    assert of_type(bench.receive(bench.certificate(NOTARIZE, 1, bench.block(1))), ReportEvidence)


# --- pacing -------------------------------------------------------------------------------------------------


def test_timers_are_the_interval_and_two_or_three_delta() -> None:
    bench = Bench(delta_ms=100, block_interval_ms=1000)
    delays = get_delays(bench.start())
    assert (delays[Timer.LEADER], delays[Timer.ADVANCE]) == (1200, 1300)


def test_delta_grows_with_unfinal_views_is_capped_and_resets_on_finalization_only() -> None:
    bench = Bench(delta_ms=100, delta_ms_max=1000, block_interval_ms=1000)
    bench.start()
    seen = []
    for view in range(1, 20):
        effects = bench.receive(bench.certificate(NOTARIZE, view, bench.block(view)))
        seen.append((get_delays(effects)[Timer.LEADER] - 1000) // 2)
    assert seen == [100] * 3 + [200] * 4 + [400] * 4 + [800] * 4 + [1000] * 4
    effects = bench.receive(bench.certificate(FINALIZE, 20, bench.block(20)))
    assert get_delays(effects)[Timer.LEADER] == 1200


def test_an_empty_block_waits_for_the_interval_work_does_not() -> None:
    bench = Bench(own=1)
    bench.start()
    block = bench.block(1)
    bench.accept(block)
    [build] = builds(bench.receive(bench.certificate(NOTARIZE, 1, block)))
    assert not build.is_empty_allowed
    [again] = builds(bench.step(WorkWaiting()))
    assert again == build
    [empty] = builds(bench.fire(Timer.INTERVAL, 2))
    assert empty.is_empty_allowed


def test_an_interval_of_zero_means_250_ms() -> None:
    bench = Bench(own=1, block_interval_ms=0)
    bench.start()
    effects = bench.receive(bench.certificate(NOTARIZE, 1, bench.block(1)))
    assert get_delays(effects)[Timer.INTERVAL] == 250


def test_the_first_block_and_one_after_an_empty_view_need_no_interval() -> None:
    bench = Bench(own=0)
    assert builds(bench.start())[0].is_empty_allowed
    other = Bench(own=1)
    other.start()
    assert builds(other.receive(other.certificate(NULLIFY, 1)))[0].is_empty_allowed


def test_each_retry_resends_nullify_and_the_certificate_by_which_the_view_was_entered(bench: Bench) -> None:
    entry = bench.certificate(NOTARIZE, 1, bench.block(1))
    bench.receive(entry)
    bench.fire(Timer.ADVANCE)
    for _ in range(3):
        effects = bench.fire(Timer.RETRY)
        assert votes(effects) == [(NULLIFY, 2)]
        assert broadcasts(effects, Certificate) == [entry]
        assert Timer.RETRY in get_delays(effects)


# --- observers ----------------------------------------------------------------------------------------------


def test_an_observer_follows_and_never_signs() -> None:
    bench = Bench(own=None)
    bench.start()
    block = bench.notarize(1)
    bench.receive(bench.certificate(FINALIZE, 1, block))
    for timer in (Timer.LEADER, Timer.ADVANCE, Timer.RETRY, Timer.STANDSTILL):
        bench.fire(timer)
    assert (bench.engine.view, bench.engine.finalized_view) == (2, 1)
    assert votes(bench.log) == []


def test_observe_only_signs_nothing_up_to_its_view() -> None:
    bench = Bench(observe_until_view=2)
    bench.start()
    first = bench.notarize(1)
    second = bench.notarize(2, first, bench.certificate(NOTARIZE, 1, first))
    bench.fire(Timer.ADVANCE, 2)
    assert votes(bench.log) == []
    effects = bench.accept(bench.block(3, second), bench.certificate(NOTARIZE, 2, second))
    assert votes(effects) == [(NOTARIZE, 3)]


def test_observe_only_without_a_view_lasts_until_it_is_lifted() -> None:
    bench = Bench(observe_until_view=None)
    bench.start()
    bench.receive(bench.certificate(NULLIFY, 1))
    bench.fire(Timer.ADVANCE)
    assert votes(bench.log) == []
    bench.step(SigningAllowed(2))
    assert votes(bench.log) == []
    assert not bench.engine.is_signing
    bench.receive(bench.certificate(NULLIFY, 2))
    assert votes(bench.fire(Timer.ADVANCE)) == [(NULLIFY, 3)]


# --- what a host may skip -------------------------------------------------------------------------------------


def test_known_certificates_need_no_check_and_contradictions_do(bench: Bench) -> None:
    block = bench.block(1)
    certificate = bench.certificate(NOTARIZE, 1, block)
    assert bench.engine.is_needed(certificate)
    bench.receive(certificate)
    assert not bench.engine.is_needed(bench.certificate(NOTARIZE, 1, block, signers=(1, 2, 3)))
    assert bench.engine.is_needed(bench.certificate(NOTARIZE, 1, bench.block(1, salt=1)))
    assert bench.engine.is_needed(bench.certificate(NULLIFY, 1))


def test_a_vote_is_needed_once_and_again_when_it_contradicts(bench: Bench) -> None:
    vote = bench.vote(1, NOTARIZE, 1, bench.block(1))
    assert bench.engine.is_needed(vote)
    bench.receive(vote)
    assert not bench.engine.is_needed(vote)
    assert bench.engine.is_needed(bench.vote(1, NOTARIZE, 1, bench.block(1, salt=1)))
    assert not bench.engine.is_needed(bench.vote(1, NOTARIZE, 1000, bench.block(1000)))


def test_a_repeated_nullify_is_needed_only_where_it_asks_for_help(bench: Bench) -> None:
    nullify = bench.vote(1, NULLIFY, 1)
    assert bench.engine.is_needed(nullify)
    bench.receive(nullify)
    assert not bench.engine.is_needed(nullify)
    assert bench.receive(nullify) == []
    finalize = bench.vote(1, FINALIZE, 1, bench.block(1))
    assert bench.engine.is_needed(finalize)
    assert of_type(bench.receive(finalize), ReportEvidence)
    bench.receive(bench.certificate(NOTARIZE, 1, bench.block(1)))
    assert bench.engine.is_needed(nullify)  # its signer may not know how to go on
    assert of_type(bench.receive(nullify), Send)


def test_who_is_accused_in_a_view_gets_no_more_contradictions_checked(bench: Bench) -> None:
    first, second, third = (bench.vote(1, NOTARIZE, 1, bench.block(1, salt=salt)) for salt in range(3))
    bench.receive(first)
    assert bench.engine.is_needed(second)
    assert of_type(bench.receive(second), ReportEvidence)
    for vote in (second, third):
        assert not bench.engine.is_needed(vote)
        assert bench.receive(vote) == []
    assert bench.engine.is_needed(bench.vote(1, FINALIZE, 1, bench.block(1)))  # it still counts
    assert bench.engine.is_needed(bench.vote(2, NOTARIZE, 1, bench.block(1, salt=2)))


def test_a_second_proposal_is_needed_as_evidence_once_and_again_when_a_quorum_certified_it(
    bench: Bench,
) -> None:
    first, second, third = (bench.block(1, salt=salt) for salt in range(3))
    bench.receive(bench.proposal(first))
    assert bench.engine.is_needed(bench.proposal(second))
    assert of_type(bench.receive(bench.proposal(second)), ReportEvidence)
    for block in (second, third):
        assert not bench.engine.is_needed(bench.proposal(block))
        assert bench.receive(bench.proposal(block)) == []
    bench.receive(bench.certificate(NOTARIZE, 1, second))
    assert bench.engine.is_needed(bench.proposal(second))
    assert judges(bench.receive(bench.proposal(second))) == [second.hash]
    assert not bench.engine.is_needed(bench.proposal(second))
    assert not bench.engine.is_needed(bench.proposal(third))


@pytest.mark.parametrize("view", [1, 2, 64])
def test_a_proposal_of_somebody_who_does_not_lead_its_view_is_not_needed(bench: Bench, view: int) -> None:
    leader = bench.block(view).proposer
    for proposer in range(4):
        block = replace(bench.block(view), proposer=proposer)
        proposal = replace(bench.proposal(bench.block(view)), block=block)
        assert bench.engine.is_needed(proposal) == (proposer == leader)


def test_a_proposal_from_far_ahead_is_needed_for_certificates_that_are_news(bench: Bench) -> None:
    parent = bench.block(1)
    certificate, gap = bench.certificate(NOTARIZE, 1, parent), bench.certificate(NULLIFY, 2)
    far = bench.proposal(bench.block(1_001, parent), certificate, [gap])
    assert bench.engine.is_needed(far)
    bench.receive(certificate)
    assert bench.engine.is_needed(far)
    bench.receive(far)
    assert bench.engine.view == 3
    assert not bench.engine.is_needed(far)
    assert bench.receive(far) == []


def test_what_is_not_needed_changes_nothing(bench: Bench) -> None:
    block = bench.notarize(1)
    items = [bench.proposal(block), bench.certificate(NOTARIZE, 1, block), bench.vote(0, NOTARIZE, 1, block)]
    bench.receive(*items)
    for item in items:
        assert not bench.engine.is_needed(item)
        assert bench.receive(item) == []


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (NOTARIZE, NOTARIZE),
        (NULLIFY, FINALIZE),
        (FINALIZE, NULLIFY),
        (FINALIZE, FINALIZE),
        (FINALIZE, NOTARIZE),
    ],
)
def test_rule_11_certificates_that_contradict_each_other_name_their_liars_and_stop_us_for_good(
    kind: int, other: int
) -> None:
    bench = Bench()
    bench.start()
    one, two = bench.block(1), bench.block(1, salt=1)
    first = bench.certificate(kind, 1, None if kind == NULLIFY else one)
    second = bench.certificate(other, 1, None if other == NULLIFY else two)
    bench.receive(first)
    assert bench.engine.is_needed(second)
    effects = bench.receive(second)
    assert is_halting(effects)
    liars = {effect.evidence.first.signer for effect in of_type(effects, ReportEvidence)}
    is_slashable = {kind, other} != {FINALIZE, NOTARIZE}  # that alone is no lie of whoever signed both
    assert liars == (set(first.signers) & set(second.signers) if is_slashable else set())
    assert second in [effect.record for effect in of_type(effects, Persist)]
    assert {first, second} <= set(bench.engine.list_records())
    assert not bench.engine.is_needed(second)
    bench.restart()
    assert bench.engine.is_halted
    assert not bench.engine.is_signing
    assert {first, second} <= set(bench.engine.list_records())
