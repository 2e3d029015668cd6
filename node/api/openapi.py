"""The OpenAPI 3.1 document, built from the table of routes: nothing is said here that no route does."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from node.api.admin import SCHEMAS as ADMIN_SCHEMAS
from node.api.admin import SCHEME as ADMIN_SCHEME
from node.api.limits import Limits
from node.api.problems import CONTENT_TYPE
from node.api.route import Route
from node.api.schema_parts import refer
from node.api.schemas import build_schemas

Json = dict[str, Any]

ERRORS_OF_ALL: Final = (400, 403, 405, 429, 500, 503)
ERRORS_OF_POST: Final = (408, 413, 415, 422)

_DESCRIPTION: Final = """\
A proof-of-stake ledger in which every transaction is scored for fraud inside the protocol.

Byte strings are lower-case hex with 0x. Amounts are integers of the smallest unit, at most 2^53 - 1; times
are milliseconds since the epoch. In JSON that is sent, floats, larger integers, names given twice and unknown
fields are refused. Every error is a problem document (RFC 9457).

Limits: a body holds at most {body_bytes_max} bytes (413) and {batch_transactions_max} transactions (422); a page
at most {page_entries_max} entries (422), and a page of blocks ends at {page_transactions_max} transactions. One client
address may make {requests_per_second} requests a second with bursts of {requests_burst}, on loopback
{loopback_requests_per_second} and {loopback_requests_burst}, and hold {streams_per_client_max} of the node's
{streams_max} event streams open (429 with Retry-After). While more transactions wait than become final within
some seconds, no more are taken (429, code `busy`): nothing of that body was."""


def build_document(routes: Sequence[Route], limits: Limits, version: str) -> Json:
    """The whole document, ready for JSON."""
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _describe(route, limits)
    numbers = {name: getattr(limits, name) for name in limits.__slots__}
    components: Json = {
        "schemas": build_schemas(limits),
        "responses": {
            "Problem": {
                "description": "What is wrong, where, and what would mend it",
                "content": {CONTENT_TYPE: {"schema": refer("Problem")}},
            }
        },
    }
    if any(route.security == ADMIN_SCHEME for route in routes):
        components["schemas"] |= ADMIN_SCHEMAS
        components["securitySchemes"] = {
            ADMIN_SCHEME: {
                "type": "http",
                "scheme": "bearer",
                "description": "the token in the node's admin.token",
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "assay",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _DESCRIPTION.format(**numbers),
            "x-limits": numbers,
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def _describe(route: Route, limits: Limits) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.where,
                "required": parameter.where == "path",
                "description": parameter.description,
                "schema": parameter.schema,
            }
            for parameter in route.parameters
        ],
        "responses": {"200": {"description": HTTPStatus.OK.phrase, "content": _describe_answer(route)}},
    }
    if route.security:
        operation["security"] = [{route.security: []}]
    if route.body:
        content: Json = {"application/json": {"schema": refer(route.body)}}
        if route.accepts_msgpack:
            content["application/msgpack"] = {
                "schema": {"description": "canonical transaction bytes as bin, or an array of them"}
            }
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {limits.body_bytes_max} bytes.",
            "content": content,
        }
    errors = {*ERRORS_OF_ALL, *route.errors, *(ERRORS_OF_POST if route.body else ())}
    if not route.is_limited:
        errors.discard(429)
    for status in sorted(errors):
        operation["responses"][str(status)] = {"$ref": "#/components/responses/Problem"}
    return operation


def _describe_answer(route: Route) -> Json:
    if "/" in route.answer:
        return {route.answer: {"schema": {"type": "string"}}}
    if not route.answer:
        return {"application/json": {"schema": {"type": "object"}}}
    content: Json = {"application/json": {"schema": refer(route.answer)}}
    if route.answers_msgpack:
        content["application/msgpack"] = {
            "schema": {"description": "canonical array: block, is final, certificate, linking headers"}
        }
    return content
