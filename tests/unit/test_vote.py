"""Votes, certificates and evidence: what a quorum is, and that nobody honest can be framed."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import crypto, vote
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Evidence, Vote
from node.simulation import toys
from tests.fakes.engine_bench import Bench

BENCH = Bench()
BLOCK, OTHER = BENCH.block(3), BENCH.block(3, salt=1)


def check(certificate: Certificate, bench: Bench = BENCH) -> None:
    vote.check_certificate(certificate, bench.validators, toys.CHAIN_ID, toys.verify)


@pytest.mark.parametrize(
    ("stakes", "quorum"),
    [((1,), 1), ((1, 1), 2), ((1, 1, 1), 3), ((1, 1, 1, 1), 3), ((2, 2, 2), 5), ((10, 1), 8)],
)
def test_a_quorum_is_more_than_two_thirds(stakes: tuple[int, ...], quorum: int) -> None:
    assert toys.make_validators(stakes).quorum == quorum


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=9).map(tuple))
def test_two_quorums_share_more_than_a_third_and_a_third_cannot_block(stakes: tuple[int, ...]) -> None:
    validators = toys.make_validators(stakes)
    assert 3 * (2 * validators.quorum - validators.total) > validators.total
    faulty = (validators.total - 1) // 3  # the largest stake below a third
    assert validators.total - faulty >= validators.quorum


def test_a_certificate_of_exactly_a_quorum_passes() -> None:
    check(BENCH.certificate(NOTARIZE, 3, BLOCK))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6).map(tuple))
def test_a_certificate_passes_exactly_from_the_quorum_on(stakes: tuple[int, ...]) -> None:
    bench = Bench(None, stakes)
    block = bench.block(1)
    for size in range(1, len(stakes) + 1):
        for signers in combinations(range(len(stakes)), size):
            certificate = bench.certificate(NOTARIZE, 1, block, signers)
            if 3 * sum(stakes[signer] for signer in signers) > 2 * sum(stakes):
                check(certificate, bench)
            else:
                with pytest.raises(Rejected, match="a quorum is"):
                    check(certificate, bench)


def test_one_signer_counts_once() -> None:
    good = BENCH.certificate(NOTARIZE, 3, BLOCK)
    twice = replace(good, signatures=(good.signatures[0], good.signatures[0], good.signatures[1]))
    with pytest.raises(Rejected, match="each signer once"):
        check(twice)


def test_signers_stand_in_rising_order() -> None:
    good = BENCH.certificate(NOTARIZE, 3, BLOCK)
    with pytest.raises(Rejected, match="must rise"):
        check(replace(good, signatures=good.signatures[::-1]))


def test_a_signer_outside_the_set_is_refused() -> None:
    good = BENCH.certificate(NOTARIZE, 3, BLOCK)
    stranger = (4, bytes(64))
    with pytest.raises(Rejected, match="not all in the validator set"):
        check(replace(good, signatures=(*good.signatures, stranger)))


@pytest.mark.parametrize(
    "change", [{"view": 4}, {"epoch": 1}, {"kind": FINALIZE}, {"block_hash": OTHER.hash}]
)
def test_signatures_hold_for_their_own_subject_alone(change: dict[str, object]) -> None:
    good = BENCH.certificate(NOTARIZE, 3, BLOCK)
    with pytest.raises(Rejected, match="does not verify"):
        check(replace(good, subject=replace(good.subject, **change)))


def test_a_vote_for_another_chain_does_not_verify() -> None:
    with pytest.raises(Rejected, match="does not verify"):
        vote.check_vote(BENCH.vote(0, NULLIFY, 3), BENCH.validators, "another", toys.verify)


def test_real_signatures_make_and_break_a_vote() -> None:
    keys = [crypto.PrivateKey.from_seed(b"vote %d" % index) for index in range(2)]
    validators = vote.ValidatorSet(tuple(vote.Validator(key.public_key, 1) for key in keys))
    subject = vote.Subject(0, NULLIFY, 1, vote.NO_BLOCK)
    signature = keys[0].sign(subject.compute_digest("chain"))
    vote.check_vote(Vote(subject, 0, signature), validators, "chain", crypto.verify)
    with pytest.raises(Rejected, match="does not verify"):
        vote.check_vote(Vote(subject, 1, signature), validators, "chain", crypto.verify)


LEGAL = [
    (NOTARIZE, BLOCK, NULLIFY, None),
    (NOTARIZE, BLOCK, FINALIZE, BLOCK),
    (NOTARIZE, BLOCK, NOTARIZE, BLOCK),
    (NULLIFY, None, NULLIFY, None),
]
SLASHABLE = [
    (NOTARIZE, BLOCK, NOTARIZE, OTHER),
    (FINALIZE, BLOCK, FINALIZE, OTHER),
    (NULLIFY, None, FINALIZE, BLOCK),
    (FINALIZE, BLOCK, NULLIFY, None),
]


@pytest.mark.parametrize(("kind", "block", "other_kind", "other_block"), LEGAL)
def test_what_an_honest_validator_may_sign_is_no_evidence(kind, block, other_kind, other_block) -> None:
    first, second = BENCH.vote(1, kind, 3, block), BENCH.vote(1, other_kind, 3, other_block)
    with pytest.raises(Rejected, match="do not conflict"):
        vote.check_evidence(Evidence(first, second), BENCH.validators, toys.CHAIN_ID, toys.verify)


@pytest.mark.parametrize(("kind", "block", "other_kind", "other_block"), SLASHABLE)
def test_each_slashable_pair_is_evidence(kind, block, other_kind, other_block) -> None:
    first, second = BENCH.vote(1, kind, 3, block), BENCH.vote(1, other_kind, 3, other_block)
    vote.check_evidence(Evidence(first, second), BENCH.validators, toys.CHAIN_ID, toys.verify)


def test_votes_of_two_validators_or_two_views_are_no_evidence() -> None:
    first = BENCH.vote(1, NOTARIZE, 3, BLOCK)
    assert not vote.is_conflict(first, BENCH.vote(2, NOTARIZE, 3, OTHER))
    assert not vote.is_conflict(first, BENCH.vote(1, NOTARIZE, 4, OTHER))


@given(
    st.lists(st.tuples(st.sampled_from([NOTARIZE, NULLIFY, FINALIZE]), st.integers(1, 3)), max_size=8),
    st.integers(0, 3),
    st.binary(min_size=64, max_size=64),
)
def test_nobody_honest_can_be_framed(said: list[tuple[int, int]], view_shift: int, forged: bytes) -> None:
    """Whatever is made of an honest validator's votes, and of bytes it never signed, proves nothing."""
    blocks = {view: BENCH.block(view) for view in range(1, 10)}
    honest = {}
    for kind, view in said:  # one vote a kind and view, never nullify with finalize
        if kind == NOTARIZE or (FINALIZE + NULLIFY - kind, view) not in honest:
            honest[kind, view] = BENCH.vote(1, kind, view, None if kind == NULLIFY else blocks[view])
    signed = list(honest.values())
    moved = [
        replace(item, subject=replace(item.subject, view=item.subject.view + view_shift)) for item in signed
    ]
    renamed = [
        replace(item, subject=replace(item.subject, block_hash=OTHER.hash))
        for item in signed
        if item.subject.kind != NULLIFY
    ]
    made_up = [Vote(item.subject, 1, forged) for item in [*renamed, *signed]]
    lent = [replace(BENCH.vote(2, NOTARIZE, 1, OTHER), signer=1)]
    for first, second in combinations([*signed, *moved, *renamed, *made_up, *lent], 2):
        with pytest.raises(Rejected):
            vote.check_evidence(Evidence(first, second), BENCH.validators, toys.CHAIN_ID, toys.verify)
