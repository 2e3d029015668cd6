"""Each checker objects to a made-up history that breaks its invariant, and to no sound one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.bft.contract import BlockRef
from consensus.bft.leader import LeaderSchedule
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Evidence
from node.simulation import toys
from node.simulation.checkers import LIVENESS_MS_MAX, LivenessChecker, SafetyChecker, Turns, Violation
from tests.fakes.engine_bench import GENESIS, Bench

BENCH = Bench(None)
FIRST, OTHER = BENCH.block(1), BENCH.block(1, salt=1)
SECOND = BENCH.block(2, FIRST)
THIRD = BENCH.block(3, FIRST)  # skips view 2


def make() -> SafetyChecker:
    return SafetyChecker(BENCH.validators, frozenset((0, 1, 2)), GENESIS, toys.CHAIN_ID, toys.verify)


def say(checker: SafetyChecker, node: int, kind: int, view: int, block: BlockRef | None = None) -> None:
    vote = BENCH.vote(node, kind, view, block)
    checker.hear(node, vote, is_body_durable=True, block=block)


def show(checker: SafetyChecker, kind: int, view: int, block: BlockRef | None = None) -> None:
    checker.hear(0, BENCH.certificate(kind, view, block), is_body_durable=True)


def test_a_sound_history_passes() -> None:
    checker = make()
    for node in (0, 1, 2):
        say(checker, node, NOTARIZE, 1, FIRST)
    show(checker, NOTARIZE, 1, FIRST)
    for node in (0, 1, 2):
        say(checker, node, FINALIZE, 1, FIRST)
        say(checker, node, NULLIFY, 2)
    show(checker, FINALIZE, 1, FIRST)
    show(checker, NULLIFY, 2)
    say(checker, 0, NOTARIZE, 3, THIRD)
    show(checker, NOTARIZE, 3, THIRD)
    checker.commit(0, FIRST)
    checker.commit(0, THIRD)
    checker.commit(1, FIRST)
    checker.check_final_votes()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((NOTARIZE, FIRST), (NOTARIZE, OTHER)),
        ((NULLIFY, None), (FINALIZE, FIRST)),
        ((FINALIZE, FIRST), (NULLIFY, None)),
    ],
)
def test_contradicting_votes(first: tuple[int, BlockRef | None], second: tuple[int, BlockRef | None]) -> None:
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    say(checker, 1, first[0], 1, first[1])
    say(checker, 1, first[0], 1, first[1])  # said twice is said once
    with pytest.raises(Violation, match="single votes"):
        say(checker, 1, second[0], 1, second[1])


def test_notarize_with_nullify_is_legal() -> None:
    checker = make()
    say(checker, 1, NULLIFY, 1)
    say(checker, 1, NOTARIZE, 1, FIRST)


def test_a_vote_for_a_block_that_is_not_durable_or_by_another_name() -> None:
    with pytest.raises(Violation, match="durable bodies"):
        make().hear(1, BENCH.vote(1, NOTARIZE, 1, FIRST), is_body_durable=False)
    with pytest.raises(Violation, match="own voice"):
        make().hear(1, BENCH.vote(2, NULLIFY, 1), is_body_durable=True)


def test_a_vote_on_an_uncertified_parent_across_a_gap_or_below_the_final_view() -> None:
    with pytest.raises(Violation, match="certified parents"):
        say(make(), 0, NOTARIZE, 2, SECOND)
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    with pytest.raises(Violation, match="gaps"):
        say(checker, 0, NOTARIZE, 3, THIRD)
    show(checker, NULLIFY, 2)
    checker.look_at(1, 3, 2)
    with pytest.raises(Violation, match="no way back"):
        say(checker, 1, NOTARIZE, 3, THIRD)


def test_a_vote_for_a_block_of_somebody_whose_turn_it_is_not() -> None:
    checker = make()
    checker.turns.named[1] = 2
    with pytest.raises(Violation, match="turns: node 1 notarized view 1 of validator 0"):
        say(checker, 1, NOTARIZE, 1, FIRST)


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=7), st.integers(1, 200))
def test_the_engines_and_the_checkers_turns_agree_though_each_is_reckoned_anew(
    stakes: list[int], view: int
) -> None:
    assert Turns(stakes).get_leader(view) == LeaderSchedule(toys.make_validators(tuple(stakes))).get_leader(
        view
    )


def test_a_final_vote_or_a_commit_of_what_is_not_notarized() -> None:
    with pytest.raises(Violation, match="final implies notarized"):
        say(make(), 0, FINALIZE, 1, FIRST)
    with pytest.raises(Violation, match="final implies notarized"):
        show(make(), FINALIZE, 1, FIRST)
    with pytest.raises(Violation, match="final implies notarized"):
        make().commit(0, FIRST)


def test_two_quorums_in_one_view() -> None:
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    with pytest.raises(Violation, match="agreement"):
        show(checker, NOTARIZE, 1, OTHER)
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    show(checker, FINALIZE, 1, FIRST)
    with pytest.raises(Violation, match="both nullified and final"):
        show(checker, NULLIFY, 1)


@pytest.mark.parametrize("signers", [(0, 1), (0, 0, 1), (0, 1, 1, 1)])
def test_a_certificate_that_is_none(signers: tuple[int, ...]) -> None:
    with pytest.raises(Violation, match="quorums"):
        make().hear(0, BENCH.certificate(NULLIFY, 1, None, signers), is_body_durable=True)
    full = BENCH.certificate(NULLIFY, 1)
    forged = Certificate(full.subject, (*full.signatures[:2], (2, bytes(64))))
    with pytest.raises(Violation, match="quorums"):
        make().hear(0, forged, is_body_durable=True)


def test_commits_that_leave_the_chain() -> None:
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    checker.commit(0, FIRST)
    with pytest.raises(Violation, match="another block at height 1"):
        checker.commit(1, OTHER)
    with pytest.raises(Violation, match="the next is 2"):
        checker.commit(0, FIRST)
    show(checker, NOTARIZE, 3, THIRD)
    with pytest.raises(Violation, match="gaps"):
        checker.commit(0, THIRD)


def test_a_final_block_beside_the_chain() -> None:
    checker = make()
    show(checker, NOTARIZE, 1, FIRST)
    show(checker, FINALIZE, 1, FIRST)
    show(checker, NOTARIZE, 2, SECOND)
    beside = BENCH.block(2, GENESIS)
    checker.chain.append(beside)
    with pytest.raises(Violation, match="not on it"):
        checker.check_final_votes()


def test_views_that_fall() -> None:
    checker = make()
    checker.look_at(0, 5, 3)
    for view, final_view in ((4, 3), (5, 2)):
        with pytest.raises(Violation, match="no way back"):
            checker.look_at(0, view, final_view)


def test_memory_beyond_the_window() -> None:
    bench = Bench()
    bench.start()
    checker = make()
    checker.weigh(0, bench.engine)
    for view in range(1, 80):
        bench.engine._tally.open(view)
    with pytest.raises(Violation, match="bounded memory"):
        checker.weigh(0, bench.engine)


def test_evidence_against_the_honest_or_that_proves_nothing() -> None:
    checker = make()
    for signer, complaint in ((0, "framing"), (3, "evidence")):
        votes = (BENCH.vote(signer, NULLIFY, 1), BENCH.vote(signer, NOTARIZE, 1, FIRST))
        with pytest.raises(Violation, match=complaint):
            checker.accuse(Evidence(*votes))
    checker.accuse(Evidence(BENCH.vote(3, NULLIFY, 1), BENCH.vote(3, FINALIZE, 1, FIRST)))
    assert checker.evidence == 1


def test_a_network_that_does_not_come_back() -> None:
    checker = LivenessChecker(1_000, 10)
    assert checker.check(2_000, {0: (12, 11), 1: (12, 11)})
    assert not checker.check(2_000, {0: (12, 11), 1: (12, 10)})
    with pytest.raises(Violation, match="liveness"):
        checker.check(2_000 + LIVENESS_MS_MAX, {0: (12, 11), 1: (12, 10)})
    with pytest.raises(Violation, match="liveness"):
        checker.check(2_000, {0: (60, 11), 1: (60, 10)})
