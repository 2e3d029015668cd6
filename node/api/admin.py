"""Admin calls: faults injected into one node of a development network, and its orderly stop.

These routes exist only on a node that was given an `AdminDoor`; elsewhere they are a 404 like any other
path. Each call carries the node's token as `Authorization: Bearer …` (RFC 6750), compared in constant
time before anything of the body is read. Leaves out: what a fault does (`node/admin.py`).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiohttp import web

from consensus.errors import Rejected
from node.admin import SKEW_MS_MAX, Faults
from node.api.json_reading import read_json
from node.api.route import Arguments, Context, Handler, Json, Route
from node.api.transactions import answer
from node.network.links import DIRECTIONS, Direction

SCHEME: Final = "adminToken"  # its name in the OpenAPI document
BODY_BYTES_MAX: Final = 16_384  # a hundred peers by key

_CUT: Final[Json] = {"type": "object", "additionalProperties": {"enum": list(DIRECTIONS)}}
_SKEW: Final[Json] = {"type": "integer", "minimum": -SKEW_MS_MAX, "maximum": SKEW_MS_MAX}
SCHEMAS: Final[Json] = {
    "Links": {
        "type": "object",
        "properties": {"cut": {**_CUT, "description": "by name or node key; all others are healed"}},
        "required": ["cut"],
        "additionalProperties": False,
    },
    "Skew": {
        "type": "object",
        "properties": {"skew_ms": {**_SKEW, "description": "wall time is so much ahead; 0 is right again"}},
        "required": ["skew_ms"],
        "additionalProperties": False,
    },
    "Nothing": {"type": "object", "properties": {}, "additionalProperties": False},
    "Faults": {
        "type": "object",
        "properties": {"cut": _CUT, "skew_ms": _SKEW},
        "required": ["cut", "skew_ms"],
    },
}


class AdminDoor(Protocol):
    """What the admin calls ask of a node."""

    @property
    def token(self) -> str:
        """What a caller must know."""
        ...

    def get_faults(self) -> Faults: ...

    def set_links(self, cut: Mapping[str, Direction]) -> None: ...

    def set_skew(self, skew_ms: int) -> None: ...

    def stop(self) -> None: ...


def build_admin_routes(door: AdminDoor) -> tuple[Route, ...]:
    """The routes, each behind the door's token."""

    async def get_faults(_: Context, __: web.Request, ___: Arguments) -> web.StreamResponse:
        return _answer_faults(door)

    async def set_links(_: Context, request: web.Request, __: Arguments) -> web.StreamResponse:
        door.set_links(_read_cut(await _read_field(request, "cut")))
        return _answer_faults(door)

    async def set_skew(_: Context, request: web.Request, __: Arguments) -> web.StreamResponse:
        skew_ms = await _read_field(request, "skew_ms")
        if type(skew_ms) is not int:
            raise Rejected("must be a whole number", field="skew_ms", code="value")
        door.set_skew(skew_ms)
        return _answer_faults(door)

    async def stop(_: Context, request: web.Request, __: Arguments) -> web.StreamResponse:
        await _read_object(request, frozenset())
        door.stop()
        return answer({})

    def build(method: Any, path: str, name: str, summary: str, handler: Handler, body: str = "") -> Route:
        answers = "Nothing" if body == "Nothing" else "Faults"
        guarded = _ask_for_token(door.token, handler)
        return Route(method, path, name, summary, guarded, answers, body=body, errors=(401,), security=SCHEME)

    return (
        build("GET", "/v1/admin/faults", "faults", "The faults in force on this node", get_faults),
        build("POST", "/v1/admin/links", "cut_links", "Cut these links, heal all others", set_links, "Links"),
        build("POST", "/v1/admin/clock", "skew_clock", "Set this node's wall clock wrong", set_skew, "Skew"),
        build("POST", "/v1/admin/stop", "stop", "End this node in order", stop, "Nothing"),
    )


def _ask_for_token(token: str, handler: Handler) -> Handler:
    expected = f"Bearer {token}".encode()

    async def guarded(context: Context, request: web.Request, arguments: Arguments) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Rejected(
                "is not this node's",
                field="Authorization",
                code="token",
                mend="send `Bearer` and the token in the node's admin.token",
            )
        return await handler(context, request, arguments)

    return guarded


def _answer_faults(door: AdminDoor) -> web.Response:
    faults = door.get_faults()
    return answer({"cut": dict(faults.cut), "skew_ms": faults.skew_ms})


async def _read_object(request: web.Request, names: frozenset[str]) -> dict[str, Any]:
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise Rejected(f"more than {BODY_BYTES_MAX} bytes", field="body", code="body_size")
    value = read_json(await request.read())
    if type(value) is not dict or value.keys() != names:
        words = f"must be an object with {', '.join(sorted(names))}" if names else "must be {}"
        raise Rejected(f"{words} and nothing else", field="body", code="value")
    return value


async def _read_field(request: web.Request, name: str) -> Any:
    return (await _read_object(request, frozenset({name})))[name]


def _read_cut(value: Any) -> dict[str, Direction]:
    if type(value) is not dict:
        raise Rejected(
            "must be an object", field="cut", code="value", mend='write {"node1": "both", "node2": "in"}'
        )
    for direction in value.values():
        if direction not in DIRECTIONS:
            raise Rejected("must be in, out or both", field="cut", code="value")
    return value
