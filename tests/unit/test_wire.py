"""Frames: one byte form each, and nothing hostile is worth more than it costs to send."""

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.block import BLOCK_TRANSACTIONS_MAX
from consensus.codec import MONEY_MAX
from consensus.errors import Rejected
from node.network import frames
from node.network.frames import (
    ANNOUNCE_IDS_MAX,
    FRAME_BYTES_MAX,
    Announce,
    BlockBody,
    BodyTransactions,
    CompactProposal,
    EngineMessage,
    FinalBlocks,
    Frame,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
    GetTransactions,
    Goodbye,
    Hello,
    Proof,
    Status,
    Transactions,
    Welcome,
)
from node.network.transport import Priority, get_priority
from node.network.wire import _KINDS, decode_frame, encode_frame

HASH = bytes(range(32))
ONE_OF_EACH: list[Frame] = [
    Hello(1, "chain", HASH, 0, b"\x02" + HASH, HASH, "ws://127.0.0.1:1"),
    Proof(bytes(64)),
    Welcome(),
    Goodbye("full", "dial someone else"),
    Status(0, 9, 8, 7, HASH),
    EngineMessage(b"vote"),
    CompactProposal(b"proposal", (HASH, bytes(32)), (0, 10_000), b"\x00\x01", b"certificate"),
    GetBodyTransactions(HASH, (0, 3, 9_999)),
    BodyTransactions(HASH, (0, 3), (b"a", b"bc")),
    GetBlock(HASH),
    BlockBody(HASH, b"block"),
    Announce((HASH, bytes(32))),
    GetTransactions((HASH,)),
    Transactions((b"one", b"another")),
    GetFinalBlocks(5, 10),
    FinalBlocks(5, (b"block", b"block"), b"certificate", (b"header",)),
]

heights = st.integers(0, MONEY_MAX)
hashes = st.binary(min_size=32, max_size=32)
ids = st.lists(hashes, max_size=20, unique=True).map(tuple)
raws = st.lists(st.binary(min_size=1, max_size=300), max_size=20).map(tuple)
places = st.lists(st.integers(0, 65_535), max_size=20, unique=True).map(lambda x: tuple(sorted(x)))
text = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=32)


@st.composite
def proposals(draw: Any) -> CompactProposal:
    found = draw(ids)
    scores = draw(st.lists(st.integers(0, 10_000), min_size=len(found), max_size=len(found)))
    outcomes = draw(st.lists(st.integers(0, 2), min_size=len(found), max_size=len(found)))
    return CompactProposal(draw(st.binary()), found, tuple(scores), bytes(outcomes), draw(st.binary()))


@st.composite
def bodies(draw: Any) -> BodyTransactions:
    found = draw(raws)
    indices = draw(st.lists(st.integers(0, 9_999), min_size=len(found), max_size=len(found), unique=True))
    return BodyTransactions(draw(hashes), tuple(sorted(indices)), found)


@st.composite
def final_blocks(draw: Any) -> FinalBlocks:
    found = draw(raws)
    if not found:
        return FinalBlocks(draw(heights), (), b"", ())
    return FinalBlocks(draw(heights), found, draw(st.binary(min_size=1)), draw(raws))


any_frame = st.one_of(
    st.builds(
        Hello,
        st.integers(0, 65_535),
        text,
        hashes,
        st.integers(0, 1),
        st.binary(min_size=33, max_size=33),
        hashes,
        st.one_of(st.just(""), text),
    ),
    st.builds(Proof, st.binary(min_size=64, max_size=64)),
    st.just(Welcome()),
    st.builds(Goodbye, text, text),
    st.builds(Status, heights, heights, heights, heights, hashes),
    st.builds(EngineMessage, st.binary()),
    proposals(),
    st.builds(GetBodyTransactions, hashes, places),
    bodies(),
    st.builds(GetBlock, hashes),
    st.builds(BlockBody, hashes, st.binary()),
    st.builds(Announce, ids),
    st.builds(GetTransactions, ids),
    st.builds(Transactions, raws),
    st.builds(GetFinalBlocks, heights, st.integers(1, frames.FINAL_BLOCKS_MAX)),
    final_blocks(),
)


def test_the_examples_cover_every_frame() -> None:
    assert {type(frame) for frame in ONE_OF_EACH} == {kind.frame for kind in _KINDS.values()}
    assert {type(frame) for frame in ONE_OF_EACH} == set(Frame.__args__)


@given(any_frame)
@settings(max_examples=300)
def test_what_was_encoded_decodes_to_itself(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_no_other_bytes_decode_to_a_frame(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except Rejected:
        return
    assert encode_frame(frame) == data


@given(any_frame, st.data())
@settings(max_examples=300)
def test_a_changed_byte_gives_another_frame_or_none(frame: Frame, data: Any) -> None:
    encoded = bytearray(encode_frame(frame))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_frame(bytes(encoded))
    except Rejected:
        return
    assert changed != frame
    assert encode_frame(changed) == encoded


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_a_frame_cut_short_or_prolonged_is_rejected(frame: Frame) -> None:
    data = encode_frame(frame)
    for length in range(len(data)):
        with pytest.raises(Rejected):
            decode_frame(data[:length])
    with pytest.raises(Rejected):
        decode_frame(data + b"\x00")


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_a_longer_spelling_of_the_same_values_is_rejected(frame: Frame) -> None:
    data = encode_frame(frame)
    count = data[0] & 0x0F
    long_head = b"\xdc" + count.to_bytes(2, "big") + data[1:]  # array 16 where a fixarray fits
    long_type = data[:1] + b"\xcc" + data[1:]  # uint 8 where a fixint fits
    for other in (long_head, long_type):
        with pytest.raises(Rejected):
            decode_frame(other)


@pytest.mark.parametrize("number", sorted(_KINDS))
def test_a_frame_above_its_size_is_rejected_before_it_is_decoded(number: int) -> None:
    kind = _KINDS[number]
    assert kind.bytes_max <= FRAME_BYTES_MAX
    head = bytes([0x90 | (kind.fields + 1), number])
    with pytest.raises(Rejected, match="allowed"):
        decode_frame(head + bytes(kind.bytes_max))


@pytest.mark.parametrize("number", sorted(_KINDS))
def test_values_of_the_wrong_type_or_number_are_rejected(number: int) -> None:
    fields = _KINDS[number].fields
    values: list[Any] = [None, True, -1, 2**64 - 1, 1.5, [], [[]], {}]
    for value in values:
        if fields:
            with pytest.raises(Rejected):
                decode_frame(msgpack.packb([number, *[value] * fields]))
    with pytest.raises(Rejected):
        decode_frame(msgpack.packb([number, *[0] * (fields + 1)]))


def pack(number: int, *fields: Any) -> bytes:
    data: bytes = msgpack.packb([number, *fields])
    return data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (pack(6, b"p", HASH, b"\x00\x00", b"", b""), "differ in number"),
        (pack(6, b"p", HASH, b"\x00\x00\x00\x00", b"\x00", b""), "differ in number"),
        (pack(6, b"p", HASH, (10_001).to_bytes(2, "big"), b"\x00", b""), "score above"),
        (pack(6, b"p", HASH, b"\x00\x00", b"\x03", b""), "unknown outcome"),
        (pack(6, b"p", HASH + HASH, bytes(4), bytes(2), b""), "twice"),
        (pack(7, HASH, b"\x00\x05\x00\x05"), "must rise"),
        (pack(7, HASH, b"\x00\x05\x00\x04"), "must rise"),
        (pack(7, HASH, b"\x00\x05\x00"), "whole number"),
        (pack(8, HASH, b"\x00\x01\x00\x02", b"\x00\x00\x00\x01", b"x"), "differ in number"),
        (pack(11, HASH + HASH), "twice"),
        (pack(11, HASH + b"\x00"), "whole number"),
        (pack(13, b"\x00\x00\x00\x02", b"x"), "the lengths say"),
        (pack(13, b"\x00\x00\x00\x00", b""), "an item of 0 bytes"),
        (pack(13, (5000).to_bytes(4, "big"), bytes(5000)), "an item of 5000 bytes"),
        (pack(14, 1, 0), "out of range"),
        (pack(15, 1, b"\x00\x00\x00\x01", b"x", b"", b"", b""), "come together"),
        (pack(15, 1, b"", b"", b"", b"\x00\x00\x00\x01", b"x"), "come together"),
        (pack(3, "full", "two\nlines"), "printable"),
    ],
)
def test_fields_that_contradict_each_other_are_rejected(data: bytes, problem: str) -> None:
    with pytest.raises(Rejected, match=problem):
        decode_frame(data)


def test_an_own_frame_that_no_peer_would_take_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="EngineMessage"):
        encode_frame(EngineMessage(bytes(2_000_000)))


def make_hostile() -> list[bytes]:
    """What costs a decoder most per byte: nested and empty arrays, claims of size, and shortest items."""
    head = {n: bytes([0x90 | (k.fields + 1), n]) for n, k in _KINDS.items()}
    nested = b"\xdd\x00\x00\x27\x10" * 1000  # arrays that claim 10,000 values each
    return [
        *(h + nested for h in head.values()),
        *(h + b"\xdd\xff\xff\xff\xff" for h in head.values()),
        *(h + b"\xc6\xff\xff\xff\xff" for h in head.values()),
        head[13] + b"\x90" * 1_000_000,
        head[13] + b"\x91" * 1_000_000,
    ]


def measure_peak(data: bytes) -> int:
    tracemalloc.start()
    try:
        decode_frame(data)
    except Rejected:
        return tracemalloc.get_traced_memory()[1]
    else:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_hostile_frame_costs_little_more_memory_than_its_bytes() -> None:
    for data in make_hostile():
        assert measure_peak(data) < 3 * len(data) + 500_000


def test_the_densest_frames_cost_a_bounded_multiple_of_their_bytes() -> None:
    count = ANNOUNCE_IDS_MAX
    announce = encode_frame(Announce(tuple(n.to_bytes(32, "big") for n in range(count))))
    shortest = encode_frame(Transactions(tuple(b"xy" for _ in range(BLOCK_TRANSACTIONS_MAX))))
    for data in (announce, shortest):
        assert measure_peak(data) < 1_500_000


def test_every_frame_has_a_priority() -> None:
    assert {get_priority(frame) for frame in ONE_OF_EACH} == set(Priority)
