"""Leaves and heads of refusal logs: one byte form, no nonsense, and what two heads of one proposer prove."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec, merkle
from consensus.block import Header
from consensus.errors import Rejected
from consensus.refusal import (
    EMPTY_LOG,
    ENTRY_BYTES_MAX,
    REASON_CHARS_MAX,
    REASONS_MAX,
    LogBeginning,
    LogEntry,
    LogHead,
    RefusalEntry,
    check_head,
    decode_entry,
    encode_entry,
    get_head,
    judge_leaves,
    trim_reasons,
    verify_entry,
    verify_extension,
)
from tests.chain_factory import ChainFactory

HASH = st.binary(min_size=32, max_size=32)
TIME = st.integers(0, codec.TIME_MS_MAX)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=REASON_CHARS_MAX)
REFUSALS = st.builds(
    RefusalEntry,
    HASH,
    st.integers(0, 10_000),
    HASH,
    st.lists(WORDS, max_size=REASONS_MAX).map(tuple),
    TIME,
    TIME,
)
BEGINNINGS = st.builds(
    LogBeginning, st.builds(LogHead, st.integers(1, 2**53 - 1), HASH), HASH, st.integers(1, 2**40), TIME
)
ENTRIES: st.SearchStrategy[LogEntry] = REFUSALS | BEGINNINGS

ENTRY = RefusalEntry(b"i" * 32, 9_000, b"m" * 32, ("amount is 5 times the mean",), 1_000, 7)


def make_leaf(number: int) -> bytes:
    return encode_entry(replace(ENTRY, time_ms=number))


def make_head(leaves: list[bytes]) -> LogHead:
    return LogHead(len(leaves), merkle.compute_root(leaves))


@given(ENTRIES)
def test_an_entry_has_one_byte_form_within_its_bound(entry: LogEntry) -> None:
    data = encode_entry(entry)
    assert decode_entry(data) == entry
    assert len(data) <= ENTRY_BYTES_MAX


@given(ENTRIES, st.data())
def test_no_changed_byte_reads_as_the_same_entry(entry: LogEntry, data: st.DataObject) -> None:
    raw = bytearray(encode_entry(entry))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Rejected):
        assert decode_entry(bytes(raw)) != entry


@given(st.binary(max_size=80))
def test_nonsense_is_rejected_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Rejected):
        decode_entry(data)


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, transaction_id=b"short"),
        replace(ENTRY, score=10_001),
        replace(ENTRY, score=-1),
        replace(ENTRY, modules_digest=b""),
        replace(ENTRY, reasons=("x",) * (REASONS_MAX + 1)),
        replace(ENTRY, reasons=("x" * (REASON_CHARS_MAX + 1),)),
        replace(ENTRY, reasons=("",)),
        replace(ENTRY, reasons=("naïve",)),
        replace(ENTRY, time_ms=-1),
        replace(ENTRY, height=2**48),
        LogBeginning(LogHead(0, b"r" * 32), b"b" * 32, 3, 5),
        LogBeginning(LogHead(1, b"r"), b"b" * 32, 3, 5),
        LogBeginning(LogHead(1, b"r" * 32), b"b" * 32, 0, 5),
    ],
)
def test_an_entry_that_could_not_be_read_is_not_written(entry: LogEntry) -> None:
    with pytest.raises(Rejected):
        encode_entry(entry)


def test_reasons_are_cut_to_what_an_entry_takes() -> None:
    trimmed = trim_reasons(["", "naïve\n", "x" * 500, *"abcdefghij"])
    assert trimmed[:2] == ("na?ve?", "x" * REASON_CHARS_MAX)
    assert len(trimmed) == REASONS_MAX
    encode_entry(replace(ENTRY, reasons=trimmed))


def test_the_empty_root_is_the_empty_logs_alone() -> None:
    check_head(EMPTY_LOG)
    check_head(LogHead(1, b"r" * 32))
    for head in (LogHead(0, b"r" * 32), LogHead(1, merkle.EMPTY_ROOT)):
        with pytest.raises(Rejected) as caught:
            check_head(head)
        assert caught.value.code == "refusals"


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=30), st.data())
def test_a_proof_shows_its_leaf_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    head, proof = make_head(leaves), merkle.prove_inclusion(leaves, index)
    assert verify_entry(head, leaves[index], index, proof)
    assert not verify_entry(head, leaves[index] + b"!", index, proof)
    bit = data.draw(st.integers(0, 255))
    root = bytearray(head.root)
    root[bit // 8] ^= 1 << bit % 8
    assert not verify_entry(LogHead(head.count, bytes(root)), leaves[index], index, proof)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytearray(proof[place])
        flipped[bit // 8] ^= 1 << bit % 8
        assert not verify_entry(
            head, leaves[index], index, (*proof[:place], bytes(flipped), *proof[place + 1 :])
        )


@given(st.lists(st.binary(max_size=6), max_size=30), st.data())
def test_every_later_log_extends_every_earlier_one(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(leaves)))
    proof = merkle.prove_consistency(leaves, first) if first else ()
    assert verify_extension(make_head(leaves[:first]), make_head(leaves), proof)
    if first > 0:
        other = [b"other", *leaves[1:first]]
        if other != leaves[:first]:
            assert not verify_extension(make_head(other), make_head(leaves), proof)


class TwoBlocks:
    """Two headers of one proposer, with these heads."""

    def __init__(self, earlier: LogHead, later: LogHead) -> None:
        header = ChainFactory().head
        self.earlier = self._put(replace(header, height=3), earlier)
        self.later = self._put(replace(header, height=7), later)

    @staticmethod
    def _put(header: Header, head: LogHead) -> Header:
        return replace(header, refusal_count=head.count, refusal_root=head.root)


def test_all_leaves_tell_a_log_that_grew_from_one_that_was_rewritten() -> None:
    leaves = [make_leaf(number) for number in range(5)]
    grown = TwoBlocks(make_head(leaves[:3]), make_head(leaves))
    assert get_head(grown.earlier) == make_head(leaves[:3])
    assert judge_leaves(grown.earlier, grown.later, leaves) == "extends"
    changed = [leaves[0], make_leaf(99), *leaves[2:]]
    rewritten = TwoBlocks(make_head(leaves[:3]), make_head(changed))
    assert judge_leaves(rewritten.earlier, rewritten.later, changed) == "rewritten"
    shorter = TwoBlocks(make_head(leaves[:3]), make_head(leaves[:2]))
    assert judge_leaves(shorter.earlier, shorter.later, leaves[:2]) == "rewritten"
    emptied = TwoBlocks(make_head(leaves[:3]), EMPTY_LOG)
    assert judge_leaves(emptied.earlier, emptied.later, []) == "rewritten"
    with pytest.raises(Rejected) as caught:
        judge_leaves(rewritten.earlier, rewritten.later, leaves)
    assert caught.value.code == "hidden"


def test_a_lost_log_is_told_from_a_rewritten_one_by_its_first_leaf() -> None:
    leaves = [make_leaf(number) for number in range(3)]
    old = make_head(leaves)
    earlier = TwoBlocks(old, EMPTY_LOG).earlier

    def judge(lost: LogHead, block_hash: bytes) -> str:
        anew = [encode_entry(LogBeginning(lost, block_hash, 3, 5)), make_leaf(9)]
        return judge_leaves(earlier, TwoBlocks(old, make_head(anew)).later, anew)

    assert judge(old, earlier.hash) == "lost"
    assert judge(old, b"x" * 32) == "rewritten"
    assert judge(LogHead(2, b"x" * 32), earlier.hash) == "rewritten"
