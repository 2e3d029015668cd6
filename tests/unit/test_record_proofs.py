"""Proofs of records: present and absent, and nothing else passes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import decode, encode
from consensus.errors import Rejected
from consensus.ledger import epochs
from consensus.ledger import records as rec
from consensus.ledger.record_proofs import RecordProof, prove_record, verify_record_proof
from consensus.ledger.state import State, compute_state_root
from tests.staking_chain import StakingChain

CHAIN = StakingChain()
CHAIN.reach(2)
VIEW = CHAIN.view
PRESENT = dict(VIEW.records.walk())
KEYS = st.lists(st.sampled_from([0, 1, 16, 17, 255]), min_size=3, max_size=3).map(bytes)


def test_every_record_of_a_chain_can_be_proven() -> None:
    for key, value in PRESENT.items():
        proof = prove_record(VIEW, key)
        assert (proof.value, verify_record_proof(proof, VIEW.root)) == (value, True)
        assert RecordProof.from_tuple(decode(encode(proof.as_tuple()), what="p", bytes_max=10**6)) == proof


@given(st.sampled_from(sorted(PRESENT)), st.binary(min_size=0, max_size=50), st.integers(0, 50))
def test_what_is_not_there_can_be_proven_absent(near: bytes, noise: bytes, cut: int) -> None:
    key = (near[:cut] + noise)[: rec.KEY_BYTES_MAX]
    proof = prove_record(VIEW, key)
    assert proof.value == PRESENT.get(key)
    assert verify_record_proof(proof, VIEW.root)


@given(st.dictionaries(KEYS, st.binary(max_size=3), max_size=20), KEYS)
def test_presence_and_absence_over_any_map(content: dict[bytes, bytes], key: bytes) -> None:
    records = rec.Records()
    for name, value in content.items():
        records = records.put(name, value)
    state = State(44)
    state.records = records
    state.header = VIEW.header
    root = compute_state_root(0, state.tree.root, records.root, 0, state.history.root)
    proof = prove_record(state.view(), key)
    assert proof.value == content.get(key)
    assert verify_record_proof(proof, root)
    for lie in (b"lie!", None if key in content else b""):
        assert not verify_record_proof(replace(proof, value=lie), root)
    for name, value in content.items():
        if name != key:
            # What a neighbour's proof says of this key may be true of it.
            borrowed = replace(prove_record(state.view(), name), key=key)
            assert not verify_record_proof(borrowed, root) or content.get(key) == value
            assert not verify_record_proof(replace(proof, value=None, other=(name, value)), root) or (
                key not in content and proof.other == (name, value)
            )


def test_what_is_there_is_not_shown_absent_by_leaving_it_out() -> None:
    for key in PRESENT:
        assert not verify_record_proof(replace(prove_record(VIEW, key), value=None), VIEW.root)


@settings(max_examples=200)
@given(st.sampled_from(sorted(PRESENT)), st.data())
def test_a_changed_proof_does_not_hold(key: bytes, data: st.DataObject) -> None:
    proof = prove_record(VIEW, key)
    raw = bytearray(encode(proof.as_tuple()))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = RecordProof.from_tuple(decode(bytes(raw), what="p", bytes_max=10**6))
    except Rejected:
        return
    if verify_record_proof(changed, VIEW.root):
        # Neighbours on one branch can differ in a bit of their keys alone (the first two sets are equal): what
        # holds then is the neighbour's own proof, and true.
        assert changed == prove_record(VIEW, changed.key) != proof


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_proof_that_holds_for_a_neighbour_says_what_is_true_of_it(epoch: int) -> None:
    own, neighbour = (prove_record(VIEW, epochs.get_key(number)) for number in (epoch, 1 - epoch))
    assert own.value == neighbour.value
    assert replace(own, key=neighbour.key) == neighbour
    assert not verify_record_proof(replace(own, key=epochs.get_key(2)), VIEW.root)


def test_nonsense_is_answered_with_false() -> None:
    proof = prove_record(VIEW, b"\x00\x00")
    for fields in (
        {"key": "text"},
        {"branches": None},
        {"branches": ((b"",),)},
        {"branches": ((b"zz", bytes(512)),)},
        {"other": 5},
        {"value": 1.5},
        {"account_count": -1},
        {"history_root": b""},
    ):
        assert not verify_record_proof(replace(proof, **fields), VIEW.root)  # type: ignore[arg-type]
