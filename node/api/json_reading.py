"""Reading JSON strictly: what is not exactly a transaction is refused, with the field's name and the mend.

Floats, NaN, integers beyond 2^53 - 1, names given twice, unknown and missing fields have no place in
a transaction. A bad value spoils only the transaction it stands in: the parser leaves a mark in its
place, and whoever reads that field refuses it. Text that is no JSON at all is refused whole.
Source: RFC 8259; RFC 7493 (I-JSON) for numbers and names. Left out: whether the ledger would take it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger.report import decode_payload
from consensus.transaction import KIND_REPORT, PAYLOAD_BYTES_MAX, Transaction, decode_transaction
from node.api.json_forms import KINDS_BY_NAME


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
    return BadValue(f'"{_shorten(twice)}" is given twice')


def _mark_float(text: str) -> BadValue:
    return BadValue(f"{_shorten(text)} is not an integer")


_decoder = json.JSONDecoder(
    object_pairs_hook=_make_object, parse_float=_mark_float, parse_constant=_mark_float, strict=True
)


def read_json(body: bytes) -> Any:
    """The value of a JSON text (UTF-8); BadValue in place of what is not allowed. Raises Rejected "json"."""
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


FIELDS: Final = frozenset(
    {
        *("id", "kind", "sender", "receiver", "amount", "fee", "nonce", "timestamp_ms", "expires_ms"),
        *("public_key", "signature", "payload", "reported", "chain_id"),
    }
)
# In the order of the canonical encoding, with the type each has in JSON.
_INTEGERS: Final = ("nonce", "amount", "fee", "timestamp_ms", "expires_ms")


def read_transaction(value: Any, chain_id: str) -> bytes:
    """The canonical bytes of the transaction that a JSON object describes. Raises Rejected.

    id, sender, payload, reported and chain_id may be left out; all but payload say again what follows from
    the others (or from the chain), and are compared when given.
    Ranges that JSON does not set, and whether it may happen, are for the node to judge.
    """
    fields = _check_object(value)
    kind = _read_kind(fields)
    numbers = [_read_int(fields, name) for name in _INTEGERS]
    public_key = _read_hex(fields, "public_key", crypto.KEY_BYTES)
    raw = codec.encode(
        (
            kind,
            public_key,
            numbers[0],
            _read_hex(fields, "receiver", crypto.ADDRESS_BYTES),
            *numbers[1:],
            _read_payload(fields),
            _read_hex(fields, "signature", crypto.SIGNATURE_BYTES),
        )
    )
    _check_chain(fields, chain_id)
    if "sender" in fields:
        sender = crypto.compute_address(public_key)
        if _read_hex(fields, "sender", crypto.ADDRESS_BYTES) != sender:
            raise Rejected(
                f"is not the address of public_key, which is 0x{sender.hex()}",
                field="sender",
                code="sender_mismatch",
                mend="send the address of the signing key, or leave it out",
            )
    if "reported" in fields:
        _check_reported(fields, kind)
    if "id" in fields:
        computed = crypto.hash_bytes(raw)
        if _read_hex(fields, "id", crypto.HASH_BYTES) != computed:
            raise Rejected(
                f"does not match the fields, whose id is 0x{computed.hex()}",
                field="id",
                code="id_mismatch",
                mend="send the id of these very fields, or leave it out",
            )
    return raw


def read_draft(value: Any, chain_id: str, clock_ms: int, fee_units: int) -> Transaction:
    """A transaction to be scored: signed or not. sender or public_key, receiver and amount are needed.

    The rest is filled in (timestamp_ms: the chain's clock; fee: what the chain asks at least). Given a sender alone the draft carries
    that address and no usable key: it can be judged, never sent.
    """
    fields = dict(_check_object(value))
    _check_chain(fields, chain_id)
    fields.setdefault("kind", "transfer")
    fields.setdefault("timestamp_ms", clock_ms)
    fields.setdefault("nonce", 0)
    fields.setdefault("fee", fee_units)
    fields.setdefault("expires_ms", _read_int(fields, "timestamp_ms") + 1)
    fields.setdefault("signature", "0x" + bytes(crypto.SIGNATURE_BYTES).hex())
    fields.pop("id", None)  # of a draft it says nothing
    if "public_key" in fields:
        return decode_transaction(read_transaction(fields, chain_id))
    sender = _read_hex(fields, "sender", crypto.ADDRESS_BYTES)
    del fields["sender"]
    fields["public_key"] = "0x02" + bytes(crypto.KEY_BYTES - 1).hex()
    draft = decode_transaction(read_transaction(fields, chain_id))
    object.__setattr__(draft, "sender", sender)  # ours alone: not yet seen by anyone, not cached anywhere
    return draft


def _check_object(value: Any) -> Mapping[str, Any]:
    if type(value) is BadValue:
        raise Rejected(value.problem, field="transaction", code="value", mend="correct it")
    if type(value) is not dict:
        raise Rejected("must be an object", field="transaction", code="type")
    if not value.keys() <= FIELDS:
        name = next(name for name in value if name not in FIELDS)
        raise Rejected(
            "is not a field of a transaction", field=_shorten(name), code="unknown_field", mend="remove it"
        )
    return value


def _check_chain(fields: Mapping[str, Any], chain_id: str) -> None:
    if "chain_id" in fields and fields["chain_id"] != chain_id:
        given = fields["chain_id"]
        words = f'"{_shorten(given)}"' if type(given) is str else "not text"
        raise Rejected(
            f'is {words}, this node\'s chain is "{chain_id}"',
            field="chain_id",
            code="wrong_chain",
            mend="sign for this chain, or send it to a node of yours",
        )


def _check_reported(fields: Mapping[str, Any], kind: int) -> None:
    if kind != KIND_REPORT:
        raise Rejected("only a fraud_report has it", field="reported", code="unknown_field", mend="remove it")
    reported = decode_payload(_read_payload(fields)).reported.id
    if _read_hex(fields, "reported", crypto.HASH_BYTES) != reported:
        raise Rejected(
            f"is not the id of the transaction in the payload, which is 0x{reported.hex()}",
            field="reported",
            code="reported_mismatch",
            mend="leave it out",
        )


def _get(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise Rejected("is missing", field=name, code="missing_field", mend="add it")
    value = fields[name]
    if type(value) is BadValue:
        raise Rejected(
            value.problem, field=name, code="type", mend="send an integer, without fraction or exponent"
        )
    return value


def _read_int(fields: Mapping[str, Any], name: str) -> int:
    value = _get(fields, name)
    if type(value) is not int:
        raise Rejected(
            f"must be an integer, not {_name_type(value)}", field=name, code="type", mend="send a JSON number"
        )
    if not 0 <= value <= codec.MONEY_MAX:
        raise Rejected(
            f"{_shorten(str(value))} is out of range",
            field=name,
            code="range",
            mend=f"use 0 to {codec.MONEY_MAX} (2^53 - 1)",
        )
    return value


def _read_kind(fields: Mapping[str, Any]) -> int:
    value = _get(fields, "kind")
    kind = KINDS_BY_NAME.get(value) if type(value) is str else None
    if kind is None:
        names = ", ".join(KINDS_BY_NAME)
        raise Rejected("is not a kind of transaction", field="kind", code="kind", mend=f"use one of: {names}")
    return kind


def _read_payload(fields: Mapping[str, Any]) -> bytes:
    if "payload" not in fields:
        return b""
    payload = read_hex(_get(fields, "payload"), "payload")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Rejected(
            f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} allowed", field="payload", code="size"
        )
    return payload


def _read_hex(fields: Mapping[str, Any], name: str, length: int) -> bytes:
    return read_hex(_get(fields, name), name, length)


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


def _shorten(text: str) -> str:
    """At most 40 printable characters of what a stranger sent."""
    shown = text if len(text) <= 40 else text[:37] + "..."
    return shown.encode("ascii", "backslashreplace").decode() if shown.isprintable() else ascii(shown)[1:-1]
