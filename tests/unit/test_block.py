"""Headers, blocks and certificates: one encoding each, and a body that its header commits to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.block import (
    Block,
    Header,
    check_body,
    compute_certificate_digest,
    decode_block,
    decode_header,
    encode_block,
)
from consensus.errors import Rejected
from consensus.vote import (
    FINALIZE,
    NULLIFY,
    Certificate,
    Subject,
    decode_certificate,
    encode_certificate,
)
from tests.ledger_chain import KEYS, Chain, alter, alter_body

HASH = st.binary(min_size=32, max_size=32)
NUMBER = st.integers(0, codec.TIME_MS_MAX)
HEADERS = st.builds(
    Header,
    epoch=NUMBER,
    view=NUMBER,
    height=NUMBER,
    parent_view=NUMBER,
    parent_hash=HASH,
    proposer=st.binary(min_size=33, max_size=33),
    timestamp_ms=NUMBER,
    transaction_count=st.integers(0, 10_000),
    transactions_root=HASH,
    state_root=HASH,
    history_root=HASH,
    modules_digest=HASH,
    validators_digest=HASH,
    next_validators_digest=HASH,
    certificate_digest=HASH,
    reveal=st.sampled_from((b"", b"r" * 32)),
    refusal_count=st.integers(0, codec.MONEY_MAX),
    refusal_root=HASH,
)


@st.composite
def certificates(draw: st.DrawFn) -> Certificate:
    kind = draw(st.integers(0, FINALIZE))
    block_hash = b"" if kind == NULLIFY else draw(HASH)
    subject = Subject(draw(NUMBER), kind, draw(st.integers(1, codec.TIME_MS_MAX)), block_hash)
    signature = st.binary(min_size=64, max_size=64)
    pairs = draw(st.lists(st.tuples(st.integers(0, 1023), signature), max_size=4))
    return Certificate(subject, tuple(pairs))


def make_block() -> Block:
    chain = Chain()
    chain.grow(chain.transfer())
    return chain.build(chain.transfer(KEYS[0]), chain.transfer(KEYS[1], KEYS[2], amount=25_000)).block


@given(HEADERS)
def test_a_header_decodes_to_itself(header: Header) -> None:
    decoded = decode_header(header.raw)
    assert (decoded, decoded.hash) == (header, header.hash)


@given(HEADERS, st.data())
def test_no_other_bytes_decode_to_a_header(header: Header, data: st.DataObject) -> None:
    raw = bytearray(header.raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_header(bytes(raw))
    except Rejected:
        return
    assert (other.raw, other == header, other.hash == header.hash) == (bytes(raw), False, False)


@given(certificates())
def test_a_certificate_decodes_to_itself(certificate: Certificate) -> None:
    assert decode_certificate(encode_certificate(certificate)) == certificate


@given(certificates(), st.data())
def test_no_other_bytes_decode_to_a_certificate(certificate: Certificate, data: st.DataObject) -> None:
    raw = bytearray(encode_certificate(certificate))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_certificate(bytes(raw))
    except Rejected:
        return
    assert other != certificate
    assert encode_certificate(other) == bytes(raw)


def test_a_block_decodes_to_itself() -> None:
    block = make_block()
    assert block.parent_certificate is not None
    assert decode_block(encode_block(block)) == block


@given(st.data())
def test_no_other_bytes_decode_to_a_block(data: st.DataObject) -> None:
    block = BLOCK
    raw = bytearray(encode_block(block))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_block(bytes(raw))
    except Rejected:
        return
    assert other.hash != block.hash
    assert encode_block(other) == bytes(raw)


BLOCK = make_block()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_block_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(Rejected):
        decode_block(encode_block(BLOCK)[:cut])


@pytest.mark.parametrize(
    "block",
    [
        replace(BLOCK, scores=(0, 1)),
        replace(BLOCK, scores=(0,)),
        replace(BLOCK, outcomes=b"\x00\x00"),
        replace(BLOCK, transactions=BLOCK.transactions[::-1]),
        replace(BLOCK, transactions=BLOCK.transactions[:1]),
        replace(BLOCK, parent_certificate=None),
        alter(BLOCK, transaction_count=1),
        alter(BLOCK, certificate_digest=compute_certificate_digest(None)),
        alter_body(BLOCK, outcomes=b"\x00\x02"),
        alter_body(BLOCK, scores=(10_001, 0)),
    ],
)
def test_a_body_that_the_header_does_not_commit_to_is_refused(block: Block) -> None:
    with pytest.raises(Rejected):
        check_body(block)
    with pytest.raises(Rejected):
        decode_block(encode_block(block))


def test_a_changed_body_does_not_inherit_the_root_that_was_remembered() -> None:
    block = make_block()
    assert block.compute_transactions_root() == block.header.transactions_root
    other = replace(block, scores=tuple(score + 1 for score in block.scores))
    assert other.compute_transactions_root() != block.header.transactions_root
    with pytest.raises(Rejected, match="does not match the body"):
        check_body(other)
