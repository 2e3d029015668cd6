"""A route: what a call takes, what it answers and who handles it. One table drives it all.

The server registers the routes, reads their parameters and counts by them; the OpenAPI document is
built from them. So a parameter cannot be read without being documented, nor the other way round.

Invariant: a handler sees only parameters that were read by their `Parameter`; unknown query
parameters are refused (a misspelt `?limt=` would otherwise answer something else than was asked).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import web

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger.records import KEY_BYTES_MAX
from node.api.door import EVENT_NAMES, NodeDoor
from node.api.json_reading import read_hex
from node.api.limits import Limits
from node.metrics import NodeMetrics

Json = dict[str, Any]
Arguments = Mapping[str, Any]


@dataclass(slots=True)
class Streams:
    """Open event streams: one task each, by client address."""

    tasks: dict[Any, str] = field(default_factory=dict)  # asyncio.Task -> address


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers have at hand. `document` is the OpenAPI document as JSON."""

    door: NodeDoor
    limits: Limits
    metrics: NodeMetrics
    document: bytes
    streams: Streams


Handler = Callable[[Context, web.Request, Arguments], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One path or query parameter. `read` takes its text and raises Rejected (code path or query)."""

    name: str
    where: Literal["path", "query"]
    description: str
    schema: Json
    read: Callable[[str], Any]
    default: Any = None


@dataclass(frozen=True, slots=True)
class Route:
    """body: name of the request's schema, "" for none. answers: schema name by status."""

    method: Literal["GET", "POST"]
    path: str
    name: str  # operationId
    summary: str
    handler: Handler
    answer: str  # schema name, or a media type for what is not JSON
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    accepts_msgpack: bool = False
    answers_msgpack: bool = False
    errors: tuple[int, ...] = ()
    is_limited: bool = True  # counts against the client's rate
    security: str = ""  # name of the scheme that a caller must satisfy; "" for none


def read_arguments(route: Route, request: web.Request) -> Arguments:
    """The parameters of a request, read and with defaults. Raises Rejected naming the parameter."""
    arguments: dict[str, Any] = {}
    query = request.rel_url.query
    known = {parameter.name for parameter in route.parameters if parameter.where == "query"}
    for name in query:
        if name not in known:
            mend = f"use one of: {', '.join(sorted(known))}" if known else "leave it out"
            raise Rejected(
                "is not a parameter of this call", field=ascii(name)[1:-1][:40], code="query", mend=mend
            )
        if len(query.getall(name)) > 1:
            raise Rejected("is given twice", field=name, code="query", mend="give it once")
    for parameter in route.parameters:
        if parameter.where == "path":
            arguments[parameter.name] = parameter.read(request.match_info[parameter.name])
        elif parameter.name in query:
            arguments[parameter.name] = parameter.read(query[parameter.name])
        else:
            arguments[parameter.name] = parameter.default
    return arguments


# --- parameters that several routes take -------------------------------------------------------------


def _hex_schema(length: int) -> Json:
    return {"type": "string", "pattern": f"^0x[0-9a-f]{{{2 * length}}}$"}


HASH_SCHEMA: Final = _hex_schema(crypto.HASH_BYTES)
ADDRESS_SCHEMA: Final = _hex_schema(crypto.ADDRESS_BYTES)
KEY_SCHEMA: Final = _hex_schema(crypto.KEY_BYTES)
SIGNATURE_SCHEMA: Final = _hex_schema(crypto.SIGNATURE_BYTES)

TRANSACTION_ID: Final = Parameter(
    "id",
    "path",
    "The transaction's id.",
    HASH_SCHEMA,
    lambda text: read_hex(text, "id", crypto.HASH_BYTES, code="path"),
)
MODEL_DIGEST: Final = Parameter(
    "digest",
    "path",
    "A model's digest.",
    HASH_SCHEMA,
    lambda text: read_hex(text, "digest", crypto.HASH_BYTES, code="path"),
)
ADDRESS: Final = Parameter(
    "address",
    "path",
    "An account's address.",
    ADDRESS_SCHEMA,
    lambda text: read_hex(text, "address", crypto.ADDRESS_BYTES, code="path"),
)


def _read_block_key(text: str) -> int | bytes | str:
    if text in ("head", "finalized"):
        return text
    if text.startswith("0x"):
        return read_hex(text, "block", crypto.HASH_BYTES, code="path")
    return _read_number(text, "block", 0, codec.MONEY_MAX, "path", "use a height, a hash, head or finalized")


BLOCK_KEY: Final = Parameter(
    "block",
    "path",
    "A height, a hash, `head` or `finalized`.",
    {"type": "string", "pattern": "^([0-9]{1,16}|0x[0-9a-f]{64}|head|finalized)$"},
    _read_block_key,
)


def _read_final_height(text: str) -> int | None:
    mend = "use a height, or finalized"
    return None if text == "finalized" else _read_number(text, "height", 0, codec.MONEY_MAX, "path", mend)


FINAL_HEIGHT: Final = Parameter(
    "height",
    "path",
    "The height of a final block, or `finalized`.",
    {"type": "string", "pattern": "^([0-9]{1,16}|finalized)$"},
    _read_final_height,
)
BLOCK_HEIGHT: Final = Parameter(
    "block_height",
    "path",
    "The height of a final block.",
    {"type": "integer", "minimum": 0, "maximum": codec.MONEY_MAX},
    lambda text: _read_number(text, "block_height", 0, codec.MONEY_MAX, "path", "use a height"),
)


def _read_record_key(text: str) -> bytes:
    key = read_hex(text, "key", code="path")
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise Rejected(f"must be 1 to {KEY_BYTES_MAX} bytes, not {len(key)}", field="key", code="path")
    return key


RECORD_KEY: Final = Parameter(
    "key",
    "path",
    "The record's key, its namespace first (docs/ledger.md, State).",
    {"type": "string", "pattern": f"^0x([0-9a-f]{{2}}){{1,{KEY_BYTES_MAX}}}$"},
    _read_record_key,
)


def _read_case_place(text: str) -> bytes:
    return read_hex(text, "after", CASE_PLACE_BYTES, code="query")


CASE_PLACE_BYTES: Final = 36  # a day and a transaction's id, as the records are kept by
AFTER_CASE: Final = Parameter(
    "after",
    "query",
    "Only reports above this place; the `after` of the last page.",
    {"type": "string", "pattern": "^0x[0-9a-f]{72}$"},
    _read_case_place,
)


def build_flag(name: str, description: str, *, default: bool = False) -> Parameter:
    """A query parameter that is true or false."""

    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise Rejected("must be true or false", field=name, code="query")
        return text == "true"

    return Parameter(name, "query", description, {"type": "boolean", "default": default}, read, default)


def build_number(name: str, description: str, *, low: int, high: int, default: int | None) -> Parameter:
    """A query parameter that is an integer in low..high."""
    schema: Json = {"type": "integer", "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default

    def read(text: str) -> int:
        return _read_number(text, name, low, high, "query", f"use {low} to {high}")

    return Parameter(name, "query", description, schema, read, default)


def _read_number(text: str, name: str, low: int, high: int, code: str, mend: str) -> int:
    # isdecimal alone would let other scripts' digits through; 16 digits hold 2^53.
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise Rejected("must be a whole number", field=name, code=code, mend=mend)
    number = int(text)
    if not low <= number <= high:
        # A page that is too long breaks a stated limit: 422, as the document says.
        limit_code = "limit" if code == "query" else code
        raise Rejected(f"{number} is out of range", field=name, code=limit_code, mend=mend)
    return number


HEIGHT_MAX: Final = 2**48 - 1  # as the index keeps places
INDEX_MAX: Final = 2**16 - 1
ANCHOR: Final = build_number(
    "anchor",
    "The later block's height; left out: the last final one.",
    low=1,
    high=codec.MONEY_MAX,
    default=None,
)


def _read_position(text: str) -> tuple[int, int]:
    height, dot, index = text.partition(".")
    mend = "use the `before` of the last page"
    if not dot:
        raise Rejected("must be HEIGHT.INDEX", field="before", code="query", mend=mend)
    return (
        _read_number(height, "before", 0, HEIGHT_MAX, "query", mend),
        _read_number(index, "before", 0, INDEX_MAX, "query", mend),
    )


BEFORE: Final = Parameter(
    "before",
    "query",
    "Only transactions below this place; the `before` of the last page.",
    {"type": "string", "pattern": "^[0-9]{1,16}\\.[0-9]{1,16}$"},
    _read_position,
)


def _read_event_names(text: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    for name in names:
        if name not in EVENT_NAMES:
            raise Rejected(
                f'"{name[:40]}" is not an event',
                field="events",
                code="query",
                mend=f"use some of: {','.join(EVENT_NAMES)}",
            )
    return names


EVENTS: Final = Parameter(
    "events",
    "query",
    "Only these events, comma-separated (a gap is always told).",
    {"type": "string", "examples": ["finalized,verdict"]},
    _read_event_names,
    frozenset(EVENT_NAMES),
)
