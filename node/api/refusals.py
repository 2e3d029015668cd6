"""Calls about refusals: one, pages of the log, and that the log only grew.

Nothing here has to be believed: `assay verify refusal`, and anybody's program, checks it (`consensus/refusal.py`).
"""

from __future__ import annotations

from aiohttp import web

from node.api import refusal_forms
from node.api.route import Arguments, Context
from node.api.transactions import answer, not_found


async def get_refusal(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = context.door.get_refusal(arguments["id"])
    if record is None:
        raise not_found("refusal")
    return answer(refusal_forms.form_refusal(record))


async def get_refusals(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    return answer(refusal_forms.form_page(context.door.get_refusals(arguments["from"], arguments["limit"])))


async def get_consistency(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    return answer(
        refusal_forms.form_consistency(context.door.prove_refusals(arguments["first"], arguments["second"]))
    )
