"""Snapshots and account proofs: everything in them is bound to a state root."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import Fault, Rejected
from consensus.ledger.proofs import AccountProof, prove_account, verify_account_proof
from consensus.ledger.snapshot import dump_state, load_state
from consensus.parameters import MODULE_ROOM_BYTES_MAX
from tests.ledger_chain import KEYS, STRANGERS, VALIDATORS, Chain, make_genesis


def make_chain() -> Chain:
    chain = Chain()
    chain.grow(chain.transfer(KEYS[2], STRANGERS[0]), chain.transfer(KEYS[3], STRANGERS[1]))
    chain.grow(chain.transfer(KEYS[2], KEYS[4]))
    chain.grow(chain.report(1, 0))
    return chain


CHAIN = make_chain()
DUMP = b"".join(dump_state(CHAIN.state))
PEOPLE = (*KEYS, *STRANGERS[:2], *VALIDATORS)


def seal(body: bytes) -> bytes:
    return body + sha256(body).digest()


def test_a_dump_loads_to_the_same_state() -> None:
    state = load_state(CHAIN.rules, memoryview(DUMP))
    assert state.root == CHAIN.state.root
    assert b"".join(dump_state(state)) == DUMP
    view = state.view()
    for person in PEOPLE:
        assert view.get_row(person.address) == CHAIN.view.get_row(person.address)


def test_a_loaded_state_goes_on_like_the_one_it_was_made_of() -> None:
    chain = make_chain()
    state = load_state(chain.rules, bytearray(DUMP))
    built = chain.grow(chain.transfer(KEYS[0], STRANGERS[2]), chain.transfer(KEYS[1], KEYS[0]))
    state.commit(chain.rules.check_block(state.view(), built.block, None))
    assert b"".join(dump_state(state)) == b"".join(dump_state(chain.state))


@given(st.integers(0, len(DUMP) - 1), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_noticed(place: int, change: int) -> None:
    data = bytearray(DUMP)
    data[place] ^= change
    with pytest.raises(Rejected):
        load_state(CHAIN.rules, data)


@given(st.integers(0, len(DUMP) - 33), st.integers(1, 255))
def test_a_changed_byte_is_noticed_even_with_a_checksum_that_fits(place: int, change: int) -> None:
    data = bytearray(DUMP[:-32])
    data[place] ^= change
    try:
        state = load_state(CHAIN.rules, seal(bytes(data)))
    except Rejected:
        return
    # Header fields that the state does not know (proposer, view ...) make another header, never this one.
    assert state.header.hash != CHAIN.state.header.hash
    assert state.root == CHAIN.state.root


@pytest.mark.parametrize("length", [0, 1, 20, 60, 400, len(DUMP) - 1])
def test_a_dump_cut_short_is_refused(length: int) -> None:
    for data in (DUMP[:length], seal(DUMP[:length])):
        with pytest.raises(Rejected):
            load_state(CHAIN.rules, data)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(Rejected):
        load_state(CHAIN.rules, seal(DUMP[:-32] + b"\x00"))


def test_a_dump_of_another_chain_is_refused() -> None:
    other = Chain(make_genesis(fee_units_min=2))
    with pytest.raises(Rejected) as caught:
        load_state(other.rules, DUMP)
    assert caught.value.code == "chain"


def test_a_state_that_changes_while_it_is_dumped_is_a_fault() -> None:
    chain = make_chain()
    chunks = dump_state(chain.state)
    next(chunks)
    chain.grow()
    with pytest.raises(Fault):
        list(chunks)


# --- proofs for accounts ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(PEOPLE)))
def test_every_account_is_proven_against_the_state_root(number: int) -> None:
    proof = prove_account(CHAIN.view, PEOPLE[number].address)
    assert verify_account_proof(proof, CHAIN.view.root)
    assert not verify_account_proof(proof, b"x" * 32)
    assert proof.account == CHAIN.view.get_account(PEOPLE[number].address)


def test_a_proof_over_unfinal_blocks_is_against_their_root() -> None:
    chain = make_chain()
    chain.grow(chain.transfer(KEYS[0], STRANGERS[3]), commit=False)
    chain.grow(chain.transfer(KEYS[0], STRANGERS[3]), commit=False)
    proof = prove_account(chain.view, STRANGERS[3].address)
    assert verify_account_proof(proof, chain.view.root)
    assert not verify_account_proof(proof, chain.state.root)


def test_the_widest_row_can_be_proven() -> None:
    chain = Chain(make_genesis(module_room_bytes=MODULE_ROOM_BYTES_MAX))
    proof = prove_account(chain.view, KEYS[0].address)
    assert verify_account_proof(proof, chain.view.root)


def test_a_proof_decodes_to_itself() -> None:
    proof = prove_account(CHAIN.view, KEYS[0].address)
    data = codec.encode(proof.as_tuple())
    assert AccountProof.from_tuple(codec.decode(data, what="proof", bytes_max=1 << 16)) == proof


@given(st.data())
def test_a_proof_with_one_changed_byte_proves_nothing(data: st.DataObject) -> None:
    raw = bytearray(codec.encode(prove_account(CHAIN.view, KEYS[0].address).as_tuple()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        proof = AccountProof.from_tuple(codec.decode(bytes(raw), what="proof", bytes_max=1 << 16))
    except Rejected:
        return
    assert not verify_account_proof(proof, CHAIN.view.root)


def test_nonsense_as_a_proof_is_false_and_raises_nothing() -> None:
    proof = prove_account(CHAIN.view, KEYS[0].address)
    for wrong in (
        replace(proof, slot=-1),
        replace(proof, slot=2**70),
        replace(proof, siblings=()),
        replace(proof, siblings=proof.siblings[:5]),
        replace(proof, siblings=(b"",) * 6),
        replace(proof, records_root=b""),
        replace(proof, history_size=-1),
        replace(proof, account_count=0),
        replace(proof, account=replace(proof.account, balance=-1)),
        replace(proof, account=replace(proof.account, balance=2**64)),
        replace(proof, account=replace(proof.account, address=b"short")),
        replace(proof, module_rows=proof.module_rows + b"\x00"),
        replace(proof, module_rows=bytes(10_000)),
    ):
        assert not verify_account_proof(wrong, CHAIN.view.root)


def test_there_is_no_proof_without_an_account() -> None:
    with pytest.raises(Rejected) as caught:
        prove_account(CHAIN.view, STRANGERS[3].address)
    assert caught.value.code == "account_unknown"


# --- reading ----------------------------------------------------------------------------------------


def test_a_view_reads_what_is_there_and_none_for_the_rest() -> None:
    view = CHAIN.view
    assert view.get_account(STRANGERS[3].address) is None
    assert view.get_row(STRANGERS[3].address) is None
    assert view.get_module_rows(STRANGERS[3].address) is None
    assert view.is_reporter(KEYS[0].address)
    assert not view.is_reporter(KEYS[5].address)
    validator = view.get_account(VALIDATORS[1].address)
    assert validator is not None
    assert (validator.balance, view.get_bonded_units(VALIDATORS[1].address)) == (0, 500)


def test_rows_of_the_state_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        CHAIN.state.rows[0, 0] = 1
