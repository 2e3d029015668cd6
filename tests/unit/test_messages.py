"""Messages and journal records as bytes, and the checks on them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec, crypto
from consensus.bft import messages
from consensus.bft.contract import CertificateRequest, Message, Proposal
from consensus.block import Header
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Certificate, Subject, Vote
from node.simulation import toys
from tests.fakes.engine_bench import GENESIS, Bench

BENCH = Bench()
views = st.integers(1, codec.MONEY_MAX)
hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
subjects = st.one_of(
    st.builds(Subject, st.integers(0, 9), st.sampled_from([NOTARIZE, FINALIZE]), views, hashes),
    st.builds(Subject, st.integers(0, 9), st.just(NULLIFY), views, st.just(NO_BLOCK)),
)
vote_values = st.builds(Vote, subjects, st.integers(0, 1023), signatures)
certificates = st.builds(
    Certificate, subjects, st.lists(st.tuples(st.integers(0, 1023), signatures), max_size=5).map(tuple)
)
requests = st.builds(CertificateRequest, st.integers(0, 9), views, st.integers(0, 2))


@st.composite
def draw_proposal(draw: st.DrawFn) -> Proposal:
    view = draw(st.integers(1, 1000))
    payload = toys.make_payload(GENESIS, view, draw(st.integers(0, 3)), draw(st.integers(0, 99)))
    ref = toys.read_block(payload)
    vote = Vote(Subject(ref.epoch, NOTARIZE, view, ref.hash), ref.proposer, draw(signatures))
    gap = draw(st.lists(certificates, max_size=3).map(tuple))
    return Proposal(ref, payload, vote, draw(st.none() | certificates), gap)


all_messages = st.one_of(vote_values, certificates, requests, draw_proposal())


@given(all_messages)
def test_a_message_comes_back_from_its_bytes(message: Message) -> None:
    assert messages.decode_message(messages.encode_message(message), toys.read_block) == message


@given(st.one_of(vote_values, certificates, draw_proposal()))
def test_a_journal_record_comes_back_without_a_host(record: Vote | Certificate | Proposal) -> None:
    assert messages.decode_record(messages.encode_record(record)) == record


@given(all_messages, st.data())
def test_no_other_bytes_mean_the_same_message(message: Message, data: st.DataObject) -> None:
    raw = bytearray(messages.encode_message(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        other = messages.decode_message(bytes(raw), toys.read_block)
    except Rejected:
        return
    assert other != message
    assert messages.encode_message(other) == bytes(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(raw: bytes) -> None:
    try:
        message = messages.decode_message(raw, toys.read_block)
    except Rejected:
        return
    assert messages.encode_message(message) == raw


def test_a_request_is_no_journal_record() -> None:
    with pytest.raises(Rejected, match="no record"):
        messages.decode_record(messages.encode_message(CertificateRequest(0, 1, NOTARIZE)))


def test_more_nullifications_than_allowed_are_refused_by_count() -> None:
    block = BENCH.block(40)
    proposal = BENCH.proposal(block, None, [BENCH.certificate(NULLIFY, view) for view in range(1, 18)])
    with pytest.raises(Rejected, match="at most 16"):
        messages.decode_message(messages.encode_message(proposal), toys.read_block)


def test_the_block_of_a_real_proposal_is_read_from_its_header() -> None:
    key = BENCH.validators.validators[2].public_key
    header = Header(0, 7, 5, 6, bytes(32), key, 1, 0, *[bytes(32)] * 7)
    ref = messages.make_block_reader(BENCH.validators)(header.raw)
    assert (ref.hash, ref.view, ref.height, ref.parent_view, ref.proposer) == (header.hash, 7, 5, 6, 2)


def test_a_header_of_a_stranger_is_refused() -> None:
    key = crypto.PrivateKey.from_seed(b"stranger").public_key
    header = Header(0, 7, 5, 6, bytes(32), key, 1, 0, *[bytes(32)] * 7)
    with pytest.raises(Rejected, match="not a validator"):
        messages.make_block_reader(BENCH.validators)(header.raw)


# --- check_message ---------------------------------------------------------------------------------


def check(message: Message) -> None:
    messages.check_message(message, BENCH.validators, toys.CHAIN_ID, toys.verify)


def make_good_proposal() -> Proposal:
    parent = BENCH.block(2)
    block = BENCH.block(5, parent)
    gap = [BENCH.certificate(NULLIFY, view) for view in (3, 4)]
    return BENCH.proposal(block, BENCH.certificate(NOTARIZE, 2, parent), gap)


def test_good_messages_pass() -> None:
    check(make_good_proposal())
    check(BENCH.proposal(BENCH.block(1)))
    check(BENCH.vote(0, NULLIFY, 3))
    check(BENCH.certificate(FINALIZE, 3, BENCH.block(3)))
    check(CertificateRequest(0, 3, NOTARIZE))


def spoil_signature(proposal: Proposal) -> Proposal:
    return replace(proposal, vote=replace(proposal.vote, signature=bytes(64)))


def lend_vote(proposal: Proposal) -> Proposal:
    other = (proposal.block.proposer + 1) % 4
    return replace(proposal, vote=BENCH.vote(other, NOTARIZE, proposal.block.view, proposal.block))


def vote_for_another(proposal: Proposal) -> Proposal:
    other = BENCH.block(proposal.block.view, salt=9)
    return replace(proposal, vote=BENCH.vote(other.proposer, NOTARIZE, other.view, other))


def name_wrong_parent(proposal: Proposal) -> Proposal:
    return replace(proposal, parent_certificate=BENCH.certificate(NOTARIZE, 2, BENCH.block(2, salt=9)))


def leave_parent_out(proposal: Proposal) -> Proposal:
    return replace(proposal, parent_certificate=None)


def justify_by_nullification(proposal: Proposal) -> Proposal:
    return replace(proposal, parent_certificate=BENCH.certificate(NULLIFY, 2))


def weaken_gap(proposal: Proposal) -> Proposal:
    weak = BENCH.certificate(NULLIFY, 3, signers=(0, 1))
    return replace(proposal, nullifications=(weak, proposal.nullifications[1]))


def turn_gap_around(proposal: Proposal) -> Proposal:
    return replace(proposal, nullifications=proposal.nullifications[::-1])


def widen_gap(proposal: Proposal) -> Proposal:
    return replace(proposal, nullifications=(BENCH.certificate(NULLIFY, 5),))


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (spoil_signature, "signature"),
        (lend_vote, "proposal.vote"),
        (vote_for_another, "proposal.vote"),
        (name_wrong_parent, "parent_certificate"),
        (leave_parent_out, "parent_certificate"),
        (justify_by_nullification, "parent_certificate"),
        (weaken_gap, "signers"),
        (turn_gap_around, "nullifications"),
        (widen_gap, "nullifications"),
    ],
)
def test_a_spoiled_proposal_is_refused(spoil, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        check(spoil(make_good_proposal()))
    assert field in caught.value.field


def test_a_block_below_its_parent_is_refused() -> None:
    parent = BENCH.block(9)
    block = BENCH.block(5, parent)
    with pytest.raises(Rejected, match="below the block's view"):
        check(BENCH.proposal(block, BENCH.certificate(NOTARIZE, 9, parent)))
