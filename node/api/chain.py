"""Calls that read the chain and the node: blocks, accounts, validators, peers, mempool, models, status."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from consensus import codec, vote
from consensus.block import encode_block
from node.api import json_forms, model_forms
from node.api.door import BlockRecord
from node.api.route import Arguments, Context
from node.api.transactions import MSGPACK_TYPE, answer, not_found

UNSHOWN_SHARE: Final = 4  # decoding a transaction takes a quarter of what showing it does
HEADER_TRANSACTIONS: Final = 8  # reading a header, with the body behind it, takes as long as showing so many


async def get_status(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return answer(json_forms.form_status(context.door.get_status()))


async def get_block(context: Context, request: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = context.door.get_block(arguments["block"])
    if record is None:
        raise not_found("block")
    if MSGPACK_TYPE in request.headers.get("Accept", ""):
        return web.Response(body=pack_block(record), content_type=MSGPACK_TYPE)
    return answer(json_forms.form_block(record))


def pack_block(record: BlockRecord) -> bytes:
    """block | is final | certificate (b"" for none) | headers up to the certificate's block; canonical."""
    certificate = record.certificate
    return codec.encode(
        (
            encode_block(record.block),
            record.is_final,
            b"" if certificate is None else vote.encode_certificate(certificate),
            tuple(header.raw for header in record.headers),
        )
    )


async def get_blocks(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    """Rising heights. A page ends at its limit or at page_transactions_max transactions.

    What is not shown was read and decoded too, and so were the headers that lead to a certificate.
    """
    limit: int = arguments["limit"]
    first = arguments["from"]
    if first is None:
        first = max(0, context.door.get_status().head.height - limit + 1)
    blocks: list[json_forms.Json] = []
    left = context.limits.page_transactions_max
    with_transactions: bool = arguments["transactions"]
    next_height = None
    for record in context.door.get_blocks(first, limit + 1):
        count = len(record.block.transactions)
        left -= count if with_transactions else count // UNSHOWN_SHARE
        left -= HEADER_TRANSACTIONS * len(record.headers)
        if len(blocks) == limit or (blocks and left < 0):
            next_height = record.block.header.height
            break
        blocks.append(json_forms.form_block(record, transactions=with_transactions))
    return answer({"blocks": blocks, "next": next_height})


async def get_account(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    form = json_forms.form_account(context.door.get_account(arguments["address"]))
    if arguments["proof"]:
        proof = context.door.prove_account(arguments["address"])
        form["proof"] = None if proof is None else json_forms.form_account_proof(proof)
    return answer(form)


async def get_account_history(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    page = context.door.get_account_history(arguments["address"], arguments["before"], arguments["limit"])
    before = None if page.before is None else f"{page.before[0]}.{page.before[1]}"
    return answer(
        {"transactions": [json_forms.form_record(record) for record in page.records], "before": before}
    )


async def get_validators(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return answer(json_forms.form_validators(context.door.get_validators()))


async def get_validator(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    validator = context.door.get_validator(arguments["address"])
    if validator is None:
        raise not_found("validator")
    return answer(json_forms.form_validator(validator, context.door.get_validators().total_stake))


async def get_peers(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return answer({"peers": [json_forms.form_peer(peer) for peer in context.door.get_peers()]})


async def get_mempool(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    return answer(json_forms.form_mempool(context.door.get_mempool(arguments["limit"])))


async def get_models(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return answer(model_forms.form_models(context.door.get_models()))


async def compare_model(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = await context.door.compare_model(arguments["digest"])
    if record is None:
        raise not_found("comparison")
    return answer(model_forms.form_comparison(record))
