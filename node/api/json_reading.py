"""Reading JSON strictly: a field that is not exactly what it must be is refused, by name and with the mend.

Floats, NaN, integers beyond 2^53 - 1, names given twice and missing fields have no place in what is sent.
A bad value spoils only the item it stands in: the parser leaves a mark in its place, and whoever reads
that field refuses it. Text that is no JSON at all is refused whole.
Source: RFC 8259; RFC 7493 (I-JSON) for numbers and names. Left out: what is read (`transaction_reading`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from consensus import codec
from consensus.errors import Rejected

Fields = Mapping[str, Any]  # of a JSON object; a value may be a BadValue


@dataclass(frozen=True, slots=True)
class BadValue:
    """Stands where a value was that JSON allows and this API does not."""

    problem: str


def _make_object(pairs: list[tuple[str, Any]]) -> Any:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return BadValue(f'"{shorten(twice)}" is given twice')


def _mark_float(text: str) -> BadValue:
    return BadValue(f"{shorten(text)} is not an integer")


VALUES_MAX: Final = 200_000  # a thousand transactions of two hundred fields: a value takes up to 100 bytes

_decoder = json.JSONDecoder(
    object_pairs_hook=_make_object, parse_float=_mark_float, parse_constant=_mark_float, strict=True
)


def read_json(body: bytes) -> Any:
    """The value of a JSON text (UTF-8); BadValue in place of what is not allowed. Raises Rejected "json"."""
    if body.count(b",") + body.count(b"[") > VALUES_MAX:
        _refuse_text(f"holds more than {VALUES_MAX} values")
    try:
        return _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        _refuse_text(f"is not UTF-8 (byte {error.start})")
    except json.JSONDecodeError as error:
        _refuse_text(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse_text("is nested too deep")
    except ValueError:  # int() refuses more than 4300 digits
        _refuse_text("holds a number of thousands of digits")


def _refuse_text(problem: str) -> NoReturn:
    raise Rejected(problem, field="body", code="json", mend="send one JSON document")


def get_field(fields: Fields, name: str) -> Any:
    """The value of a field that must be there. Raises Rejected."""
    if name not in fields:
        raise Rejected("is missing", field=name, code="missing_field", mend="add it")
    value = fields[name]
    if type(value) is BadValue:
        raise Rejected(
            value.problem, field=name, code="type", mend="send an integer, without fraction or exponent"
        )
    return value


def read_int(fields: Fields, name: str, high: int = codec.MONEY_MAX) -> int:
    """An integer in 0..high. Raises Rejected."""
    value = get_field(fields, name)
    if type(value) is not int:
        raise Rejected(
            f"must be an integer, not {_name_type(value)}", field=name, code="type", mend="send a JSON number"
        )
    if not 0 <= value <= high:
        raise Rejected(
            f"{shorten(str(value))} is out of range",
            field=name,
            code="range",
            mend=f"use 0 to {high}{' (2^53 - 1)' if high == codec.MONEY_MAX else ''}",
        )
    return value


def read_bytes(fields: Fields, name: str, length: int) -> bytes:
    """A field of lower-case hex with 0x. Raises Rejected."""
    return read_hex(get_field(fields, name), name, length)


def read_hex(value: Any, name: str, length: int | None = None, *, code: str = "hex") -> bytes:
    """The bytes of lower-case hex with 0x; of exactly `length` bytes when given. Raises Rejected."""
    if type(value) is not str or value[:2] != "0x":
        raise Rejected("must be lower-case hex with 0x", field=name, code=code)
    try:
        data = bytes.fromhex(value[2:])
    except ValueError:
        raise Rejected("is not hex", field=name, code=code, mend="use digits 0-9a-f after 0x") from None
    # fromhex also takes capitals and blanks; one value has one spelling here.
    if data.hex() != value[2:]:
        raise Rejected("must be lower-case hex without blanks", field=name, code=code)
    if length is not None and len(data) != length:
        raise Rejected(
            f"must be {length} bytes ({2 * length} digits), not {len(data)}", field=name, code=code
        )
    return data


def _name_type(value: Any) -> str:
    names = {str: "text", bool: "true or false", dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def shorten(text: str) -> str:
    """At most 40 printable characters of what a stranger sent."""
    shown = text if len(text) <= 40 else text[:37] + "..."
    return shown.encode("ascii", "backslashreplace").decode() if shown.isprintable() else ascii(shown)[1:-1]
