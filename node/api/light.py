"""Calls for light clients: headers with what makes them final and the sets they name, and proofs.

Nothing here has to be believed: `assay verify`, and anybody's program, checks it (`consensus/light.py`).
Sizes are bounded by the sets: 1,024 validators each at most, some 200 kB.
"""

from __future__ import annotations

from aiohttp import web

from node.api import light_forms
from node.api.route import Arguments, Context
from node.api.transactions import answer, not_found


async def get_genesis(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return web.Response(body=context.door.get_genesis(), content_type="application/json")


async def get_update(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = context.door.get_update(arguments["height"])
    if record is None:
        raise not_found("final block, or its validators are forgotten")
    return answer(light_forms.form_update(record))


async def get_history(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    anchor = arguments["anchor"]
    if anchor is None:
        anchor = context.door.get_status().finalized.height
    proof = context.door.prove_history(arguments["block_height"], anchor)
    if proof is None:
        raise not_found("final block below a final one")
    return answer(light_forms.form_history_proof(proof))


async def get_record(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    key: bytes = arguments["key"]
    return answer(light_forms.form_record_proof(key, context.door.prove_record(key)))
