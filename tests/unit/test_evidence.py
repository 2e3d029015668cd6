"""Evidence: one byte form, a proof for anybody, and nobody honest can be framed."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec, crypto
from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Broadcast,
    Build,
    Effect,
    Judgement,
    Persist,
    Proposal,
    Received,
    Send,
    Timer,
    TimerFired,
)
from consensus.bft.evidence import EVIDENCE_BYTES_MAX, compute_offence, decode_evidence, encode_evidence
from consensus.bft.tally import Tally
from consensus.errors import Rejected
from consensus.vote import (
    FINALIZE,
    NO_BLOCK,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Evidence,
    Subject,
    Validator,
    ValidatorSet,
    Vote,
    check_evidence,
    is_conflict,
)
from node.simulation import toys
from tests.fakes.engine_bench import PEER, Bench

CHAIN = "evidence-test"
KEYS = [crypto.PrivateKey.from_seed(b"evidence %d" % index) for index in range(3)]
VALIDATORS = ValidatorSet(tuple(Validator(key.public_key, 1) for key in KEYS))
HASHES = (bytes([1]) * 32, bytes([2]) * 32)
# The three slashable acts: (kind, hash) twice.
ACTS = (
    ((NOTARIZE, HASHES[0]), (NOTARIZE, HASHES[1])),
    ((FINALIZE, HASHES[0]), (FINALIZE, HASHES[1])),
    ((NULLIFY, NO_BLOCK), (FINALIZE, HASHES[0])),
)


def sign(signer: int, kind: int, block_hash: bytes, view: int = 5, epoch: int = 2) -> Vote:
    subject = Subject(epoch, kind, view, block_hash)
    return Vote(subject, signer, KEYS[signer].sign(subject.compute_digest(CHAIN)))


def check(evidence: Evidence) -> None:
    check_evidence(evidence, VALIDATORS, CHAIN, crypto.verify)


@pytest.mark.parametrize("act", ACTS)
def test_each_slashable_act_is_proven_by_its_bytes_and_the_validator_set_alone(
    act: tuple[tuple[int, bytes], tuple[int, bytes]],
) -> None:
    evidence = Evidence(*(sign(1, kind, block_hash) for kind, block_hash in act))
    told = decode_evidence(encode_evidence(evidence))
    check(told)
    assert told == evidence
    assert compute_offence(told) == (2, 5, 1)


@pytest.mark.parametrize("act", ACTS)
def test_either_order_of_the_votes_gives_the_same_bytes(
    act: tuple[tuple[int, bytes], tuple[int, bytes]],
) -> None:
    first, second = (sign(1, kind, block_hash) for kind, block_hash in act)
    data = encode_evidence(Evidence(second, first))
    assert data == encode_evidence(Evidence(first, second))
    assert len(data) <= EVIDENCE_BYTES_MAX


def test_a_second_encoding_is_refused() -> None:
    data = encode_evidence(Evidence(*(sign(1, *said) for said in ACTS[2])))
    epoch, view, signer, first, second = codec.decode(data, what="it", bytes_max=EVIDENCE_BYTES_MAX)
    others = [
        codec.encode((epoch, view, signer, second, first)),
        codec.encode((epoch, view, signer, first, first)),
        codec.encode((epoch, view, signer, first, second, 0)),
        codec.encode([epoch, view, signer, (*first, b""), second]),
        data + b"\x00",
        data[:-1],
        data.replace(bytes([2, 5, 1]), bytes([2, 0xCC, 5, 1]), 1),  # a longer form of the view
        codec.encode((epoch, 0, signer, first, second)),
        codec.encode((epoch, view, 1024, first, second)),
        b"",
    ]
    for other in others:
        with pytest.raises(Rejected):
            decode_evidence(other)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_have_one_form(data: bytes) -> None:
    try:
        evidence = decode_evidence(data)
    except Rejected:
        return
    assert encode_evidence(evidence) == data


def test_votes_that_do_not_conflict_have_no_form() -> None:
    honest = [sign(1, NOTARIZE, HASHES[0]), sign(1, NULLIFY, NO_BLOCK), sign(1, NOTARIZE, HASHES[0], view=6)]
    honest += [
        sign(2, NOTARIZE, HASHES[1]),
        sign(1, NOTARIZE, HASHES[1], epoch=3),
        sign(1, FINALIZE, HASHES[0], 6),
    ]
    for first in honest:
        for second in honest:
            with pytest.raises(Rejected):
                encode_evidence(Evidence(first, second))


@pytest.mark.parametrize("act", ACTS)
def test_tampered_evidence_proves_nothing(act: tuple[tuple[int, bytes], tuple[int, bytes]]) -> None:
    first, second = (sign(1, kind, block_hash) for kind, block_hash in act)
    check(Evidence(first, second))
    for vote, other in ((first, second), (second, first)):
        subject = vote.subject
        tampered = [
            replace(vote, signer=0),
            replace(vote, signer=3),
            replace(vote, signature=other.signature),
            replace(vote, signature=vote.signature[:-1] + bytes([vote.signature[-1] ^ 1])),
            replace(vote, subject=replace(subject, view=subject.view + 1)),
            replace(vote, subject=replace(subject, epoch=subject.epoch + 1)),
            replace(vote, subject=replace(subject, kind=FINALIZE, block_hash=bytes(32))),
        ]
        for lie in tampered:
            with pytest.raises(Rejected):
                check(Evidence(lie, other))
    # Both moved together conflict as before, but nobody signed that.
    moved = [replace(vote, subject=replace(vote.subject, view=9)) for vote in (first, second)]
    both = [replace(vote, signer=0) for vote in (first, second)]
    for pair in (moved, both):
        with pytest.raises(Rejected, match="verify"):
            check(Evidence(*pair))
    with pytest.raises(Rejected, match="verify"):
        check_evidence(Evidence(first, second), VALIDATORS, "another-chain", crypto.verify)


# --- nobody honest can be framed -----------------------------------------------------------------


OTHERS = (0, 2, 3)  # a quorum without the victim


class Victim:
    """An honest engine whose every peer is against it, and which crashes wherever they like.

    `heard`: its votes that anybody ever heard, from all its lives.
    """

    OWN = 1

    def __init__(self) -> None:
        self.bench = Bench(self.OWN)
        self.records: list[Vote | Certificate | Proposal] = []
        self.heard: list[Vote] = []
        self.asked: list[Build] = []
        self.blocks: list[BlockRef] = [toys.GENESIS]
        self.perform(self.bench.engine.start(()), None)

    def perform(self, effects: tuple[Effect, ...], crash_at: int | None) -> None:
        """Records first and durable together, then the rest in order; at `crash_at` it goes down."""
        self.asked += [effect for effect in effects if isinstance(effect, Build)]
        if crash_at == 0:
            self.restart()
            return
        self.records += [effect.record for effect in effects if isinstance(effect, Persist)]
        said = [effect.message for effect in effects if isinstance(effect, Broadcast | Send)]
        for message in said if crash_at is None else said[: crash_at - 1]:
            self.hear(message)
        if crash_at is not None:
            self.restart()

    def hear(self, message: object) -> None:
        if isinstance(message, Proposal):
            self.hear(message.vote)
        elif isinstance(message, Certificate):
            for signer, signature in message.signatures:
                self.hear(Vote(message.subject, signer, signature))
        elif isinstance(message, Vote) and message.signer == self.OWN and message not in self.heard:
            self.heard.append(message)

    def restart(self) -> None:
        self.bench.engine = self.bench.make_engine()
        self.asked.clear()
        self.perform(self.bench.engine.start(tuple(self.records)), None)

    def propose(self, view: int, parent: int, salt: int) -> Proposal:
        """The leader's block, on one that this engine holds a certificate of, or on anything."""
        bench, engine = self.bench, self.bench.engine
        held = [known for known in self.blocks if known.view < view and self.is_certified(known)]
        base = (held or [toys.GENESIS])[-1 - parent % len(held or [1])]
        block = bench.block(view, base, salt)
        if block not in self.blocks:
            self.blocks.append(block)
        certificate = bench.certificate(NOTARIZE, base.view, base, OTHERS) if base.view else None
        gap = [bench.certificate(NULLIFY, skipped, None, OTHERS) for skipped in range(base.view + 1, view)]
        assert engine.view >= 1
        return bench.proposal(block, certificate, gap[-16:])

    def is_certified(self, block: BlockRef) -> bool:
        engine = self.bench.engine
        held = engine.get_certificate(block.view, NOTARIZE)
        is_notarized = held is not None and held.subject.block_hash == block.hash
        return is_notarized or block.hash == engine.finalized_hash

    def suffer(self, act: int, near: int, choice: int, crash_at: int | None) -> None:
        bench = self.bench
        view = max(1, bench.engine.view + near)
        about = self.blocks[-1 - choice % min(3, len(self.blocks))]
        kind = choice % 3
        subject = (kind, view, None) if kind == NULLIFY else (kind, max(1, about.view), about)
        match act:
            case 0:
                events = [Received(bench.vote(OTHERS[choice % 3], *subject), PEER)]
            case 1:
                events = [Received(bench.certificate(*subject, OTHERS), PEER)]
            case 2 if view % 4 != self.OWN + 1:  # nobody else signs the victim's own proposals
                events = [Received(self.propose(view, choice // 2, choice % 2), PEER)]
            case 3:
                events = [TimerFired(list(Timer)[choice % len(Timer)], view)]
            case 4 if self.asked:
                asked = self.asked[-1]
                built = bench.block(asked.view, asked.parent, choice)
                self.blocks.append(built)
                events = [BlockBuilt(asked.view, built, bench.payloads[built.hash])]
            case 5 if about.view:
                events = [BlockFetched(about, bench.payloads[about.hash])]
            case _:
                verdict = Judgement.INVALID if choice == 7 else Judgement.VALID
                events = [BlockJudged(about.hash, verdict)]
        for event in events:
            self.perform(bench.engine.step(event), crash_at)


ACT = st.tuples(
    st.integers(0, 5),
    st.integers(-2, 1),
    st.integers(0, 7),
    st.one_of(st.none(), st.none(), st.integers(0, 3)),
)


@settings(max_examples=150)
@given(st.lists(ACT, min_size=20, max_size=120))
def test_whatever_all_others_do_an_honest_validator_signs_nothing_that_proves_a_lie(
    acts: list[tuple[int, int, int, int | None]],
) -> None:
    victim = Victim()
    for act in acts:
        victim.suffer(*act)
    heard = victim.heard
    assert not [(a, b) for index, a in enumerate(heard) for b in heard[:index] if is_conflict(a, b)]
    # And as others would find out: by counting.
    tally = Tally(victim.bench.validators)
    assert [evidence for vote in heard if (evidence := tally.add_vote(vote)[1]) is not None] == []


@given(st.lists(ACT, min_size=40, max_size=80), st.integers(0, 50), st.binary(min_size=64, max_size=64))
@settings(max_examples=40)
def test_from_an_honest_validators_votes_no_evidence_can_be_made(
    acts: list[tuple[int, int, int, int | None]], chosen: int, noise: bytes
) -> None:
    victim = Victim()
    for act in acts:
        victim.suffer(*act)
    if not victim.heard:
        return
    vote = victim.heard[chosen % len(victim.heard)]
    subject = vote.subject
    contrary = [
        replace(subject, kind=NOTARIZE, block_hash=noise[:32]),
        replace(subject, kind=FINALIZE, block_hash=noise[:32]),
        replace(subject, kind=NULLIFY, block_hash=NO_BLOCK),
    ]
    signatures = [noise, vote.signature, *(other.signature for other in victim.heard[:5])]
    for subject in contrary:
        for signature in signatures:
            lie = Vote(subject, vote.signer, signature)
            if lie in victim.heard:
                continue
            with pytest.raises(Rejected):
                check_evidence(Evidence(vote, lie), victim.bench.validators, toys.CHAIN_ID, toys.verify)


def test_the_schedules_above_do_make_an_engine_sign_all_three_kinds(seed: int) -> None:
    rng, kinds = random.Random(seed), set()
    for _ in range(20):
        victim = Victim()
        for _ in range(100):
            victim.suffer(rng.randint(0, 7), rng.choice([-1, 0, 0, 0, 1]), rng.randint(0, 7), None)
        kinds |= {vote.subject.kind for vote in victim.heard}
    assert kinds == {NOTARIZE, NULLIFY, FINALIZE}
