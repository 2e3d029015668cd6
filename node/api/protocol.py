"""A connection below the requests: what is not HTTP is answered in our form, who does not read is dropped.

A malformed request line or header never becomes a request, so no middleware sees it; aiohttp would log
a traceback and answer plain text. Bad input is no bug of ours: it is answered with a problem document
and logged as one quiet line. Uses aiohttp's two hooks for that (`_make_server`, `handle_error`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Final

from aiohttp import web

from node.api.problems import build_internal, build_problem

LOG: Final = logging.getLogger("assay.api")


# A client that reads nothing keeps its answer in our memory; the longest answer takes a second on a slow line.
UNREAD_MS_MAX: Final = 30_000
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)  # RFC 5482; not every system has it


class ProblemProtocol(web.RequestHandler):
    """One connection; its own errors leave as problem documents."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and _USER_TIMEOUT is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, UNREAD_MS_MAX)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to an error outside of every handler. ConnectionError if it is too late for one."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun; the connection is closed instead")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            LOG.error("bug while answering %s", request.remote, exc_info=exc)
            response = build_internal()
        else:
            words = (message or "").partition("\n")[0].strip()[:120] or "cannot be read"
            LOG.debug("malformed request from %s: %s", request.remote, words)
            response = build_problem(status, "http", f"the request is not well-formed HTTP: {words}")
        response.force_close()
        return response


class _ProblemServer(web.Server):
    """Makes a ProblemProtocol for every connection."""

    def __call__(self) -> web.RequestHandler:
        return ProblemProtocol(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """An AppRunner whose connections are ProblemProtocols."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ProblemServer(made.request_handler, request_factory=made.request_factory, **made._kwargs)


async def answer_expectation(request: web.Request) -> web.StreamResponse | None:
    """`Expect: 100-continue` gets its 100, anything else a 417 (RFC 9110 section 10.1.1)."""
    expectation = request.headers.get("Expect", "")
    if expectation.lower() != "100-continue":
        return build_problem(
            HTTPStatus.EXPECTATION_FAILED,
            "expect",
            f"Expect: {expectation[:40]!a} cannot be met",
            mend="leave it out",
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
    return None
