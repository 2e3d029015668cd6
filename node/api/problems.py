"""Errors on the wire: problem details for HTTP APIs.

Every answer of 400 and above is `application/problem+json` with type, title, status and detail, and
where there is one the field, the mend and a stable `code` for machines.
Source: RFC 9457. Invariant: a Fault's or a bug's own words stay in the log; the client learns only
that it was ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from consensus.errors import AssayError, NotYet, Rejected

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1  # what is "not yet" settles within a block interval or two

# Codes whose status is not 422 (well-formed, but not acceptable).
STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "json": HTTPStatus.BAD_REQUEST,
    "msgpack": HTTPStatus.BAD_REQUEST,
    "query": HTTPStatus.BAD_REQUEST,
    "path": HTTPStatus.BAD_REQUEST,
    "token": HTTPStatus.UNAUTHORIZED,
    "host": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "method": HTTPStatus.METHOD_NOT_ALLOWED,
    "body_timeout": HTTPStatus.REQUEST_TIMEOUT,
    "body_size": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "rate": HTTPStatus.TOO_MANY_REQUESTS,
    "busy": HTTPStatus.TOO_MANY_REQUESTS,
    "streams": HTTPStatus.TOO_MANY_REQUESTS,
}
HEADERS_OF_STATUS: Final[Mapping[int, Mapping[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},  # RFC 9110 section 11.6.1 asks for it
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": str(RETRY_AFTER_S)},
}


def build_problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> web.Response:
    """A problem document as a response; `members` are extension members (RFC 9457 section 3.2)."""
    document = {
        "type": f"urn:assay:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        **{name: value for name, value in members.items() if value is not None},
    }
    return web.Response(
        status=status,
        body=json.dumps(document, separators=(",", ":")).encode(),
        content_type=CONTENT_TYPE,
        headers=headers,
    )


def build_problem_of(error: AssayError, **members: Any) -> web.Response:
    """The problem document of one of our errors: whose fault it is decides the status."""
    members = {"field": error.field or None, "mend": error.mend or None, **members}
    match error:
        case Rejected():
            status = STATUS_OF_CODE.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
            return build_problem(
                status, error.code, str(error), headers=HEADERS_OF_STATUS.get(status), **members
            )
        case NotYet():
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return build_problem(
                HTTPStatus.SERVICE_UNAVAILABLE, error.code, str(error), headers=headers, **members
            )
        case _:
            return build_internal()


def build_internal() -> web.Response:
    """Our own fault, without its words."""
    return build_problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        "the node failed to answer; its log says why",
    )


def build_problem_of_http(error: web.HTTPException, path: str) -> web.Response:
    """The framework's own errors (404, 405, 413 ...) in the same form."""
    status = error.status
    match error:
        case web.HTTPNotFound():
            return build_problem(status, "not_found", f"there is no {path}", mend="see /v1/openapi.json")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return build_problem(
                status,
                "method",
                f"{error.method} is not allowed on {path}; use {allowed}",
                headers={"Allow": allowed},
            )
        case web.HTTPRequestEntityTooLarge():
            return build_problem(
                status,
                "body_size",
                "the body is too large",
                mend="send smaller batches; see /v1/openapi.json",
            )
        case _:
            return build_problem(status, "http", error.reason)
