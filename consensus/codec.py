"""One canonical byte form: msgpack arrays of integers, byte strings, text, booleans and None.

Invariant: decode(encode(x)) == x, and no other bytes decode to x. msgpack-python writes every value
in its shortest form, so the check is to encode again and compare. Maps, floats and extensions have
no place here: fields are positional, amounts are integers.

Sizes are bounded before decoding and counts while decoding: an empty array costs an attacker one byte
and us sixty, so `items_max` bounds how many values one message may hold at all depths together.
Source: msgpack specification (2013-08). Leaves out: schemas; each noun checks its own fields.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from consensus.errors import Rejected

MONEY_MAX: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact; bounds the supply
TIME_MS_MAX: Final = 2**48 - 1  # the year 10889; keeps sums of times far below 2^63
UINT64_MAX: Final = 2**64 - 1

_TYPES: Final = frozenset((tuple, int, bytes, str, bool, type(None)))

_UNREADABLE: Final = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def encode(value: Any) -> bytes:
    """The canonical bytes of a tuple of integers, bytes, text, booleans, None and such tuples."""
    data: bytes = _pack(value)
    return data


def decode_flat(data: bytes, *, what: str, bytes_max: int, count: int) -> tuple[Any, ...]:
    """The array of exactly `count` values that `data` is the canonical form of; raises as `decode` does.

    Half the cost of `decode`, for nouns that come by the thousand; the caller checks every value's type,
    so that nothing nested, no float and no map passes. Memory stays below 64 * bytes_max.
    """
    if len(data) > bytes_max:
        raise Rejected(f"{len(data)} bytes, at most {bytes_max} allowed", field=what, code="size")
    try:
        value = msgpack.unpackb(
            data, raw=False, use_list=False, max_array_len=count, max_map_len=0, max_ext_len=0
        )
        canonical = _pack(value) == data
    except _UNREADABLE as error:
        raise _refuse_form(what, error) from None
    if not canonical:
        raise _refuse_spelling(what)
    return check_fields(value, count, what)


def decode(data: bytes, *, what: str, bytes_max: int, items_max: int = 4096) -> Any:
    """The tuple that `data` is the canonical form of. Raises Rejected (code "encoding" or "size").

    `what` names the thing in errors; at most `items_max` values are made of it, at all depths. msgpack
    makes room for an array when it reads its header, and nests at most 1,024 deep: headers without
    contents cost at most 1,024 * items_max pointers, mostly untouched pages, until they are refused.
    """
    if len(data) > bytes_max:
        raise Rejected(f"{len(data)} bytes, at most {bytes_max} allowed", field=what, code="size")
    left = items_max

    def freeze(items: list[Any]) -> tuple[Any, ...]:
        nonlocal left
        left -= len(items) + 1
        if left < 0:
            raise Rejected(f"more than {items_max} values in one message", field=what, code="size")
        if not _TYPES.issuperset(map(type, items)):
            raise _refuse_type(what)
        return tuple(items)

    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            list_hook=freeze,
            max_array_len=min(items_max, len(data)),
            max_map_len=0,
            max_ext_len=0,
            max_bin_len=bytes_max,
            max_str_len=bytes_max,
        )
        canonical = _pack(value) == data
    except Rejected:
        raise
    except _UNREADABLE as error:
        raise _refuse_form(what, error) from None
    if type(value) not in _TYPES:
        raise _refuse_type(what)
    if not canonical:
        raise _refuse_spelling(what)
    return value


def _refuse_form(what: str, error: Exception) -> Rejected:
    reason = f"{type(error).__name__} {error}".strip()
    return Rejected(
        f"is not well-formed msgpack ({reason})",
        field=what,
        code="encoding",
        mend="encode it as an array of integers and byte strings",
    )


def _refuse_spelling(what: str) -> Rejected:
    return Rejected(
        "is not in canonical form",
        field=what,
        code="encoding",
        mend="write every value in its shortest msgpack form",
    )


def _refuse_type(what: str) -> Rejected:
    return Rejected(
        "holds a map, a float or an extension",
        field=what,
        code="encoding",
        mend="use arrays of integers, byte strings, text, booleans and nil",
    )


def check_fields(value: Any, count: int, what: str) -> tuple[Any, ...]:
    """`value` if it is an array of exactly `count` fields; raises Rejected otherwise."""
    if type(value) is not tuple or len(value) != count:
        raise Rejected(f"must be an array of {count} fields", field=what, code="encoding")
    return value


def check_int(value: Any, what: str, *, low: int = 0, high: int = MONEY_MAX) -> int:
    """`value` if it is an integer (not a boolean) in low..high; raises Rejected otherwise."""
    if type(value) is not int:
        raise Rejected(f"must be an integer, not {type(value).__name__}", field=what, code="type")
    if not low <= value <= high:
        raise Rejected(f"{value} is out of range", field=what, code="range", mend=f"use {low} to {high}")
    return value


def check_bytes(value: Any, what: str, *, length: int | None = None, length_max: int = 0) -> bytes:
    """`value` if it is a byte string of `length` (or of at most `length_max`) bytes."""
    if type(value) is not bytes:
        raise Rejected(f"must be a byte string, not {type(value).__name__}", field=what, code="type")
    if length is not None and len(value) != length:
        raise Rejected(f"must be {length} bytes, not {len(value)}", field=what, code="size")
    if length is None and len(value) > length_max:
        raise Rejected(f"{len(value)} bytes, at most {length_max} allowed", field=what, code="size")
    return value


def check_str(value: Any, what: str, *, length_max: int) -> str:
    """`value` if it is printable ASCII text of 1..length_max characters."""
    if type(value) is not str or not 0 < len(value) <= length_max:
        raise Rejected(f"must be text of 1 to {length_max} characters", field=what, code="type")
    if not (value.isascii() and value.isprintable()):
        raise Rejected("must be printable ASCII", field=what, code="type")
    return value
