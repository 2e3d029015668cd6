"""Calls about transactions: submit, score, look up, explain.

A batch is answered item by item, so that a bad one never spoils its neighbours; one single transaction
that cannot even be read is a problem document (422) that carries the same members as a receipt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgpack
from aiohttp import web

from consensus.errors import Rejected
from consensus.transaction import TRANSACTION_BYTES_MAX, decode_transaction
from node.api import json_forms, json_reading, transaction_reading
from node.api.door import Receipt
from node.api.problems import build_problem_of
from node.api.report_forms import form_case
from node.api.route import Arguments, Context

JSON_TYPE: Final = "application/json"
MSGPACK_TYPE: Final = "application/msgpack"
ARRAY_HEADS: Final = frozenset(bytes((head,)) for head in (*range(0x90, 0xA0), 0xDC, 0xDD))
BODY_TIMEOUT_S: Final = 20.0  # the largest body on a line of 4 Mbit/s


def answer(value: Any) -> web.Response:
    """JSON, status 200."""
    return web.Response(body=json_forms.write_json(value), content_type=JSON_TYPE)


def not_found(what: str) -> Rejected:
    return Rejected(f"this node knows no such {what}", code="not_found", mend="check it, or ask another node")


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise Rejected(
            f"did not arrive within {BODY_TIMEOUT_S:.0f} s",
            field="body",
            code="body_timeout",
            mend="send smaller batches",
        ) from None


async def submit(context: Context, request: web.Request, _: Arguments) -> web.StreamResponse:
    _check_pressure(context)  # before the body is read: to say "later" must cost next to nothing
    body = await _read_body(request)
    if request.content_type == MSGPACK_TYPE:
        return await _submit_msgpack(context, body)
    value = json_reading.read_json(body)
    chain_id = context.door.get_status().chain_id
    if type(value) is not list:
        try:
            raw = transaction_reading.read_transaction(value, chain_id)
            decode_transaction(raw)
        except Rejected as error:
            return _refuse_single(context, error)
        return answer(json_forms.form_receipt((await _pass_on(context, [raw]))[0]))
    _check_count(len(value), context)
    raws: list[bytes] = []
    receipts: list[Receipt | None] = []  # None: the next one of the door's
    for item in value:
        try:
            raws.append(transaction_reading.read_transaction(item, chain_id))
            receipts.append(None)
        except Rejected as error:
            receipts.append(Receipt(None, "rejected", error.code, str(error)))
    context.metrics.count_transactions("rejected", len(receipts) - len(raws))
    passed = iter(await _pass_on(context, raws) if raws else ())
    return answer([json_forms.form_receipt(receipt or next(passed)) for receipt in receipts])


def _unpack(context: Context, body: bytes) -> Any:
    """A byte string or an array of them; nothing is made of arrays in arrays, which one byte each would swell."""
    limits = context.limits
    unpacker = msgpack.Unpacker(
        raw=False,
        max_buffer_size=limits.body_bytes_max,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
        max_str_len=0,
        max_bin_len=limits.body_bytes_max,
    )
    unpacker.feed(body)
    if body[:1] in ARRAY_HEADS:
        count = unpacker.read_array_header()
        _check_count(count, context)
        value: Any = [unpacker.unpack() for _ in range(count)]
    else:
        value = unpacker.unpack()
    if unpacker.tell() != len(body):
        raise ValueError("there is more behind it")
    return value


async def _submit_msgpack(context: Context, body: bytes) -> web.Response:
    """One byte string, or an array of them: canonical transactions."""
    try:
        value = _unpack(context, body)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Rejected(
            f"is not msgpack ({type(error).__name__})",
            field="body",
            code="msgpack",
            mend="send one byte string or an array of byte strings, each a canonical transaction",
        ) from None
    if type(value) is bytes:
        try:
            decode_transaction(value)
        except Rejected as error:
            return _refuse_single(context, error)
        return answer(json_forms.form_receipt((await _pass_on(context, [value]))[0]))
    if type(value) is not list or not all(type(item) is bytes for item in value):
        raise Rejected(
            "must be one byte string or an array of byte strings",
            field="body",
            code="msgpack",
            mend="pack each transaction's canonical bytes as msgpack bin",
        )
    _check_count(len(value), context)
    return answer([json_forms.form_receipt(receipt) for receipt in await _pass_on(context, value)])


def _check_pressure(context: Context) -> None:
    wait_ms = context.door.get_wait_ms()
    if wait_ms:
        raise Rejected(
            "more transactions wait than become final in some seconds",
            code="busy",
            mend=f"send them again in {wait_ms} ms",
        )


async def _pass_on(context: Context, raws: Sequence[bytes]) -> list[Receipt]:
    _check_pressure(context)  # again: others came in while this body was read
    receipts = await context.door.submit(raws)
    assert len(receipts) == len(raws)
    if rejected := sum(1 for receipt in receipts if receipt.outcome == "rejected"):
        context.metrics.count_transactions("rejected", rejected)
    return receipts


def _refuse_single(context: Context, error: Rejected) -> web.Response:
    context.metrics.count_transactions("rejected")
    return build_problem_of(error, outcome="rejected", reason=str(error))


def _check_count(count: int, context: Context) -> None:
    high = context.limits.batch_transactions_max
    if not 0 < count <= high:
        words = "holds no transaction" if count == 0 else f"holds more than {high} transactions"
        raise Rejected(words, field="body", code="batch", mend=f"send 1 to {high}")


async def score(context: Context, request: web.Request, _: Arguments) -> web.StreamResponse:
    body = await _read_body(request)
    status = context.door.get_status()
    if request.content_type == MSGPACK_TYPE:
        draft = decode_transaction(_read_bin(body))
    else:
        draft = transaction_reading.read_draft(
            json_reading.read_json(body), status.chain_id, status.clock_ms, status.parameters.fee_units_min
        )
    return answer(json_forms.form_verdict(await context.door.score(draft)))


def _read_bin(body: bytes) -> bytes:
    try:
        value = msgpack.unpackb(
            body, raw=False, max_array_len=0, max_map_len=0, max_bin_len=TRANSACTION_BYTES_MAX
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        value = None
    if type(value) is not bytes:
        raise Rejected("must be one byte string", field="body", code="msgpack", mend="pack it as msgpack bin")
    return value


async def get_transaction(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = context.door.get_transaction(arguments["id"])
    if record is None:
        raise not_found("transaction")
    form = json_forms.form_record(record)
    case = context.door.get_case(record.transaction)
    form["report"] = None if case is None else form_case(case)
    if arguments["proof"]:
        proof = context.door.prove_transaction(arguments["id"])
        form["proof"] = None if proof is None else json_forms.form_transaction_proof(proof)
    return answer(form)


async def explain(context: Context, _: web.Request, arguments: Arguments) -> web.StreamResponse:
    record = await context.door.explain(arguments["id"])
    if record is None:
        raise not_found("transaction")
    return answer(json_forms.form_verdict(record))
