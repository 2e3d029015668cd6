"""Reading a transaction from JSON: what is not exactly one is refused, with the field's name and the mend.

Unknown fields have no place in it. Left out: whether the ledger would take it.
"""

from __future__ import annotations

from typing import Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.transaction import Transaction, decode_transaction
from node.api.json_reading import BadValue, Fields, get_field, read_bytes, read_int, shorten
from node.api.kind_forms import KINDS_BY_NAME, OWN_FIELDS, read_payload

FIELDS: Final = frozenset(
    {
        *("id", "kind", "sender", "receiver", "amount", "fee", "nonce", "timestamp_ms", "expires_ms"),
        *("public_key", "signature", "payload", "chain_id"),
        *OWN_FIELDS,
    }
)
# In the order of the canonical encoding, with the type each has in JSON.
_INTEGERS: Final = ("nonce", "amount", "fee", "timestamp_ms", "expires_ms")


def read_transaction(value: Any, chain_id: str) -> bytes:
    """The canonical bytes of the transaction that a JSON object describes. Raises Rejected.

    id, sender and chain_id may be left out: they say again what follows from the others (or from the chain),
    and are compared when given. So it is with the payload and the kind's own fields (`kind_forms`).
    Ranges that JSON does not set, and whether it may happen, are for the node to judge.
    """
    fields = _check_object(value)
    kind = _read_kind(fields)
    numbers = [read_int(fields, name) for name in _INTEGERS]
    public_key = read_bytes(fields, "public_key", crypto.KEY_BYTES)
    raw = codec.encode(
        (
            kind,
            public_key,
            numbers[0],
            read_bytes(fields, "receiver", crypto.ADDRESS_BYTES),
            *numbers[1:],
            read_payload(kind, fields),
            read_bytes(fields, "signature", crypto.SIGNATURE_BYTES),
        )
    )
    _check_chain(fields, chain_id)
    if "sender" in fields:
        sender = crypto.compute_address(public_key)
        if read_bytes(fields, "sender", crypto.ADDRESS_BYTES) != sender:
            raise Rejected(
                f"is not the address of public_key, which is 0x{sender.hex()}",
                field="sender",
                code="sender_mismatch",
                mend="send the address of the signing key, or leave it out",
            )
    if "id" in fields:
        computed = crypto.hash_bytes(raw)
        if read_bytes(fields, "id", crypto.HASH_BYTES) != computed:
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
    fields.setdefault("expires_ms", read_int(fields, "timestamp_ms") + 1)
    fields.setdefault("signature", "0x" + bytes(crypto.SIGNATURE_BYTES).hex())
    fields.pop("id", None)  # of a draft it says nothing
    if "public_key" in fields:
        return decode_transaction(read_transaction(fields, chain_id))
    sender = read_bytes(fields, "sender", crypto.ADDRESS_BYTES)
    del fields["sender"]
    fields["public_key"] = "0x02" + bytes(crypto.KEY_BYTES - 1).hex()
    draft = decode_transaction(read_transaction(fields, chain_id))
    object.__setattr__(draft, "sender", sender)  # ours alone: not yet seen by anyone, not cached anywhere
    return draft


def _check_object(value: Any) -> Fields:
    if type(value) is BadValue:
        raise Rejected(value.problem, field="transaction", code="value", mend="correct it")
    if type(value) is not dict:
        raise Rejected("must be an object", field="transaction", code="type")
    if not value.keys() <= FIELDS:
        name = next(name for name in value if name not in FIELDS)
        raise Rejected(
            "is not a field of a transaction", field=shorten(name), code="unknown_field", mend="remove it"
        )
    return value


def _check_chain(fields: Fields, chain_id: str) -> None:
    if "chain_id" in fields and fields["chain_id"] != chain_id:
        given = fields["chain_id"]
        words = f'"{shorten(given)}"' if type(given) is str else "not text"
        raise Rejected(
            f'is {words}, this node\'s chain is "{chain_id}"',
            field="chain_id",
            code="wrong_chain",
            mend="sign for this chain, or send it to a node of yours",
        )


def _read_kind(fields: Fields) -> int:
    value = get_field(fields, "kind")
    kind = KINDS_BY_NAME.get(value) if type(value) is str else None
    if kind is None:
        names = ", ".join(KINDS_BY_NAME)
        raise Rejected("is not a kind of transaction", field="kind", code="kind", mend=f"use one of: {names}")
    return kind
