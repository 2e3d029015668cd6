"""Calls about the service itself: events, health, metrics, and its own description.

Events are server-sent events (WHATWG HTML, section 9.2): every event has an id, and a client that
reconnects with Last-Event-ID goes on after it; a "gap" event says that some are lost for good.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web

from consensus import codec
from consensus.errors import Rejected
from node import metrics
from node.api import json_forms
from node.api.door import Event
from node.api.problems import build_problem
from node.api.route import Arguments, Context
from node.api.transactions import answer

HEARTBEAT_S: Final = 15.0  # below the 30 to 60 s after which proxies drop a silent connection
HEARTBEAT: Final = b": still here\n\n"
EVENT_STREAM_TYPE: Final = "text/event-stream"


def encode_event(event: Event) -> bytes:
    """id, event and data lines, and the empty line that ends them; compact JSON holds no line break."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.id,
        event.name.encode(),
        json_forms.write_json(event.data),
    )


async def stream_events(context: Context, request: web.Request, arguments: Arguments) -> web.StreamResponse:
    last = _read_last_id(request)
    _check_streams(context, request.remote or "")
    task = asyncio.current_task()
    events = context.door.subscribe(last)
    response = web.StreamResponse(
        headers={"Content-Type": EVENT_STREAM_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    context.streams.tasks[task] = request.remote or ""
    context.metrics.event_streams.set(len(context.streams.tasks))
    pending: asyncio.Future[Event] | None = None
    try:
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")  # and the headers are out, before anything happens
        loop = asyncio.get_running_loop()
        written_s = loop.time()
        while True:
            pending = asyncio.ensure_future(anext(events))
            await asyncio.wait({pending}, timeout=max(0.0, written_s + HEARTBEAT_S - loop.time()))
            while not pending.done():
                await response.write(HEARTBEAT)
                written_s = loop.time()
                await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            event = pending.result()
            if event.name in arguments["events"] or event.name == "gap":
                await response.write(encode_event(event))
            elif loop.time() >= written_s + HEARTBEAT_S or _is_gone(request):
                await response.write(HEARTBEAT)  # only who writes learns that the reader went away
            else:
                continue
            written_s = loop.time()
    except StopAsyncIteration:  # the node stops
        return response
    except ConnectionError:  # the reader went away
        return response
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            with suppress(asyncio.CancelledError):
                await pending
        context.streams.tasks.pop(task, None)
        context.metrics.event_streams.set(len(context.streams.tasks))


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _read_last_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= codec.MONEY_MAX):
        raise Rejected("must be the id of an event", field="Last-Event-ID", code="query", mend="leave it out")
    return int(text)


def _check_streams(context: Context, address: str) -> None:
    streams, limits = context.streams.tasks, context.limits
    own = sum(1 for other in streams.values() if other == address)
    if len(streams) >= limits.streams_max or own >= limits.streams_per_client_max:
        raise Rejected(
            "too many event streams are open", code="streams", mend="close one, or ask another node"
        )


async def get_health(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    """Live, because it answers; ready, if it serves current state."""
    if context.door.is_ready():
        return answer({"live": True, "ready": True})
    return build_problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "not_ready",
        "the node is alive but not up to date yet",
        headers={"Retry-After": "1"},
        live=True,
        ready=False,
    )


async def get_metrics(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return web.Response(body=context.metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


async def get_document(context: Context, _: web.Request, __: Arguments) -> web.StreamResponse:
    return web.Response(body=context.document, content_type="application/json")
