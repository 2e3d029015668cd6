"""The canonical form: one encoding of each value, bounded before and while decoding."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import Rejected

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5).map(tuple), max_leaves=20)


def decode(data: bytes, **limits: int) -> Any:
    return codec.decode(data, what="test", **{"bytes_max": 1 << 20, **limits})


@given(VALUES)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    assert decode(codec.encode(value)) == value


@given(VALUES, st.data())
def test_changed_bytes_decode_to_another_value_or_not_at_all(value: Any, data: st.DataObject) -> None:
    raw = bytearray(codec.encode(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw))
    except Rejected:
        return
    assert codec.encode(other) == bytes(raw) != codec.encode(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_are_the_encoding_of_what_they_decode_to(data: bytes) -> None:
    try:
        value = decode(data)
    except Rejected:
        return
    assert codec.encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\xcc\x01",  # 1 in two bytes
        b"\xd0\x01",
        b"\xdc\x00\x01\x01",  # an array of one with a long header
        b"\xd9\x01a",
        b"\xc5\x00\x01a",
        b"\x80",  # a map
        b"\x91\x81\x01\x02",
        b"\xca\x3f\x80\x00\x00",  # a float
        b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xc7\x00\x05",  # an empty extension
        b"\xd4\x01\x10",
        b"\x01\x01",  # something left over
        b"\x91",  # something missing
        b"\xa2\xc3\x28",  # text that is no UTF-8
    ],
)
def test_every_other_encoding_and_type_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        decode(data)
    assert caught.value.code == "encoding"


def test_size_is_bounded_before_decoding() -> None:
    with pytest.raises(Rejected) as caught:
        decode(codec.encode(b"x" * 100), bytes_max=50)
    assert caught.value.code == "size"


def test_many_empty_arrays_are_refused_while_they_are_decoded() -> None:
    with pytest.raises(Rejected, match="more than 64 values"):
        decode(codec.encode(((),) * 40), items_max=64)


def test_deep_nesting_is_refused_without_a_traceback() -> None:
    with pytest.raises(Rejected):
        decode(b"\x91" * 100_000 + b"\x00")


def test_an_array_header_without_contents_is_refused() -> None:
    with pytest.raises(Rejected):
        decode(b"\xdd\x00\xff\xff\xff")


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, codec.MONEY_MAX + 1])
def test_check_int_takes_only_integers_in_range(value: Any) -> None:
    with pytest.raises(Rejected):
        codec.check_int(value, "amount")


@pytest.mark.parametrize("value", ["", "a\nb", "ä", 5, "x" * 65])
def test_check_str_takes_only_short_printable_ascii(value: Any) -> None:
    with pytest.raises(Rejected):
        codec.check_str(value, "name", length_max=64)
