"""Calls about reports: reported transfers with who reported and disputes them, and who may report."""

from __future__ import annotations

from aiohttp import web

from node.api import report_forms
from node.api.route import Arguments, Context
from node.api.transactions import answer, not_found


async def get_reports(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    page = context.door.get_cases(
        arguments["after"] or b"", arguments["limit"], is_disputed=arguments["disputed"]
    )
    after = None if page.after is None else "0x" + page.after.hex()
    return answer({"reports": [report_forms.form_case(case) for case in page.cases], "after": after})


async def get_reporters(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    record = context.door.get_reporters()
    return answer(
        {
            "reporting": record.reporting,
            "reporters": [report_forms.form_reporter(entry) for entry in record.reporters],
            "cut": record.is_cut,
        }
    )


async def get_reporter(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = context.door.get_reporter(arguments["address"])
    if record is None:
        raise not_found("reporter")
    return answer(report_forms.form_reporter(record))
