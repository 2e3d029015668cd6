"""Transactions: one encoding each, every field in bounds, signatures bound to one chain."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec, transaction
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.secp256k1 import GROUP_ORDER
from consensus.transaction import (
    PAYLOAD_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
    Transaction,
    decode_transaction,
    is_signed,
    sign_transaction,
)

KEY = PrivateKey.from_seed(b"sender")
FIELDS: dict[str, Any] = {
    "nonce": 3,
    "receiver": b"r" * 20,
    "amount": 1_000,
    "fee": 2,
    "timestamp_ms": 1_700_000_000_000,
    "expires_ms": 1_700_000_060_000,
}
MONEY = st.integers(0, codec.MONEY_MAX)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    timestamp_ms = draw(st.integers(0, codec.TIME_MS_MAX - 1))
    return Transaction(
        draw(st.integers(0, 127)),
        draw(st.binary(min_size=33, max_size=33)),
        draw(MONEY),
        draw(st.binary(min_size=20, max_size=20)),
        draw(MONEY),
        draw(MONEY),
        timestamp_ms,
        draw(st.integers(timestamp_ms + 1, codec.TIME_MS_MAX)),
        draw(st.binary(max_size=300)),
        draw(st.binary(min_size=64, max_size=64)),
    )


def encode_fields(tx: Transaction, **changed: object) -> bytes:
    names = ("kind", "public_key", "nonce", "receiver", "amount", "fee", "timestamp_ms", "expires_ms")
    return codec.encode(
        tuple(changed.get(name, getattr(tx, name)) for name in (*names, "payload", "signature"))
    )


@given(transactions())
def test_what_is_encoded_decodes_to_itself(tx: Transaction) -> None:
    decoded = decode_transaction(tx.raw)
    assert decoded == tx
    assert (decoded.raw, decoded.id, decoded.sender) == (tx.raw, tx.id, tx.sender)
    assert encode_fields(tx) == tx.raw
    assert all(getattr(decoded, name) == getattr(tx, name) for name in Transaction.__slots__)
    assert decode_transaction(tx.raw, tx.id) == tx


EDGES = st.sampled_from(
    [
        *(
            -1,
            0,
            1,
            126,
            127,
            128,
            codec.MONEY_MAX,
            codec.MONEY_MAX + 1,
            codec.TIME_MS_MAX,
            codec.TIME_MS_MAX + 1,
        ),
        *(True, None, 0.5, "text"),
        *(bytes(count) for count in (0, 19, 20, 21, 32, 33, 34, 63, 64, 65)),
        *(bytes(PAYLOAD_BYTES_MAX), bytes(PAYLOAD_BYTES_MAX + 1)),
    ]
)


@given(transactions(), st.dictionaries(st.integers(0, 9), EDGES, max_size=3))
def test_the_quick_look_at_fields_and_the_one_that_names_them_agree(
    tx: Transaction, changes: dict[int, Any]
) -> None:
    fields: list[Any] = list(codec.decode(tx.raw, what="tx", bytes_max=TRANSACTION_BYTES_MAX))
    for place, value in changes.items():
        fields[place] = value
    try:
        transaction._check_fields(tuple(fields))
    except Rejected:
        assert not transaction._are_sound(tuple(fields))
    else:
        assert transaction._are_sound(tuple(fields))


def test_a_decoded_transaction_is_frozen_like_any_other() -> None:
    tx = decode_transaction(sign_transaction(KEY, "chain", **FIELDS).raw)
    assert type(tx) is Transaction
    with pytest.raises(dataclasses.FrozenInstanceError):
        tx.nonce = 7  # type: ignore[misc]


@given(transactions(), st.data())
def test_no_other_bytes_decode_to_it(tx: Transaction, data: st.DataObject) -> None:
    raw = bytearray(tx.raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_transaction(bytes(raw))
    except Rejected:
        return
    assert other != tx
    assert other.id != tx.id
    assert other.raw == bytes(raw)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("kind", 128, "range"),
        ("kind", -1, "range"),
        ("nonce", -1, "range"),
        ("amount", -1, "range"),
        ("amount", codec.MONEY_MAX + 1, "range"),
        ("amount", "5", "type"),
        ("amount", True, "type"),
        ("fee", -5, "range"),
        ("fee", 2**64 - 1, "range"),
        ("timestamp_ms", codec.TIME_MS_MAX + 1, "range"),
        ("expires_ms", FIELDS["timestamp_ms"], "expires"),
        ("receiver", b"r" * 19, "size"),
        ("receiver", "r" * 20, "type"),
        ("public_key", b"\x04" + b"p" * 64, "size"),
        ("signature", b"s" * 63, "size"),
        ("signature", b"", "size"),
        ("payload", b"p" * (PAYLOAD_BYTES_MAX + 1), "size"),
        ("payload", None, "type"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name(name: str, value: object, code: str) -> None:
    tx = sign_transaction(KEY, "chain", **FIELDS)
    with pytest.raises(Rejected) as caught:
        decode_transaction(encode_fields(tx, **{name: value}))
    assert (caught.value.field, caught.value.code) == (name, code)


def test_an_oversized_transaction_is_refused_before_decoding() -> None:
    with pytest.raises(Rejected) as caught:
        decode_transaction(b"\x9a" + bytes(TRANSACTION_BYTES_MAX))
    assert caught.value.code == "size"


@pytest.mark.parametrize("count", [9, 11])
def test_another_number_of_fields_is_refused(count: int) -> None:
    with pytest.raises(Rejected):
        decode_transaction(codec.encode((0,) * count))


def test_the_largest_transaction_fits_its_bound() -> None:
    tx = sign_transaction(
        KEY,
        "chain",
        nonce=codec.MONEY_MAX,
        receiver=b"r" * 20,
        amount=codec.MONEY_MAX,
        fee=codec.MONEY_MAX,
        timestamp_ms=codec.TIME_MS_MAX - 1,
        expires_ms=codec.TIME_MS_MAX,
        payload=b"p" * PAYLOAD_BYTES_MAX,
    )
    assert decode_transaction(tx.raw) == tx


def test_a_signature_holds_for_its_chain_alone() -> None:
    tx = sign_transaction(KEY, "chain", **FIELDS)
    assert is_signed(tx, "chain")
    assert not is_signed(tx, "another-chain")


@pytest.mark.parametrize("name", ["nonce", "amount", "fee", "timestamp_ms", "expires_ms"])
def test_a_signature_covers_every_field(name: str) -> None:
    tx = sign_transaction(KEY, "chain", **FIELDS)
    changed = decode_transaction(encode_fields(tx, **{name: getattr(tx, name) + 1}))
    assert not is_signed(changed, "chain")


def test_the_high_s_twin_of_a_signature_is_no_signature() -> None:
    tx = sign_transaction(KEY, "chain", **FIELDS)
    high = GROUP_ORDER - int.from_bytes(tx.signature[32:], "big")
    twin = decode_transaction(encode_fields(tx, signature=tx.signature[:32] + high.to_bytes(32, "big")))
    assert not is_signed(twin, "chain")


def test_signing_refuses_what_cannot_be_decoded() -> None:
    with pytest.raises(Rejected):
        sign_transaction(KEY, "chain", **{**FIELDS, "amount": -1})
