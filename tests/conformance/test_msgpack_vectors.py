"""kawanet/msgpack-test-suite: of all encodings of a value ours accepts the shortest, and no other types."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus import codec
from consensus.errors import Rejected

SharedPath = Callable[[str], Path]


def read_vectors(shared_path: SharedPath) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    document = json.loads(shared_path("vectors/msgpack/msgpack-test-suite.json").read_text("utf-8"))
    for group in document.values():
        for vector in group:
            yield vector, [bytes.fromhex(text.replace("-", "")) for text in vector["msgpack"]]


def freeze(value: Any) -> Any:
    return tuple(freeze(item) for item in value) if isinstance(value, list) else value


def read_value(vector: dict[str, Any]) -> Any:
    """The Python value, or NotImplemented for a type that the codec does not have."""
    if "binary" in vector:
        return bytes.fromhex(vector["binary"].replace("-", ""))
    if "bignum" in vector:
        return int(vector["bignum"])
    for name in ("nil", "bool", "number", "string", "array"):
        if name in vector:
            value = vector[name]
            return NotImplemented if holds_other(value) else freeze(value)
    return NotImplemented


def holds_other(value: Any) -> bool:
    if isinstance(value, list):
        return any(holds_other(item) for item in value)
    return isinstance(value, (dict, float))


def is_accepted(data: bytes) -> bool:
    try:
        codec.decode(data, what="vector", bytes_max=1 << 16)
    except Rejected:
        return False
    return True


def test_of_every_supported_value_exactly_one_encoding_is_accepted(shared_path: SharedPath) -> None:
    supported = 0
    for vector, encodings in read_vectors(shared_path):
        value = read_value(vector)
        if value is NotImplemented:
            continue
        supported += 1
        canonical = codec.encode(value)
        assert canonical in encodings
        assert codec.decode(canonical, what="vector", bytes_max=1 << 16) == value
        assert [data for data in encodings if is_accepted(data)] == [canonical]
    assert supported > 40


def test_no_encoding_of_any_other_type_is_accepted(shared_path: SharedPath) -> None:
    refused = 0
    for vector, encodings in read_vectors(shared_path):
        if read_value(vector) is NotImplemented:
            refused += 1
            assert not any(is_accepted(data) for data in encodings)
    assert refused > 25


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91", b"\xc4\x02\x00", b"\xa1\xff", b"\x00\x00", b"\x92\x00"]
)
def test_bytes_that_are_no_msgpack_are_refused(data: bytes) -> None:
    assert not is_accepted(data)
