"""The HTTP server of a node: one aiohttp application over a `NodeDoor`.

Every request passes one middleware: Host header (DNS rebinding), rate, form of the request, then the
route's handler; whatever goes wrong leaves as a problem document. It holds no key and changes nothing
but through `door.submit`. No CORS: a page of another origin reads nothing here.

Left out: TLS and accounts. It binds to loopback by default; who opens it to a network puts a proxy before it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as get_version
from typing import Final

from aiohttp import web

from consensus.errors import AssayError, Fault, Rejected
from node.api import problems
from node.api.admin import AdminDoor, build_admin_routes
from node.api.door import NodeDoor
from node.api.json_forms import write_json
from node.api.limits import Limits, RateLimiter
from node.api.openapi import build_document
from node.api.protocol import ProblemRunner, answer_expectation
from node.api.route import Context, Route, Streams, read_arguments
from node.api.routes import build_routes
from node.api.telemetry import EVENT_STREAM_TYPE
from node.metrics import NodeMetrics

LOG: Final = logging.getLogger("assay.api")

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADER_BYTES_MAX: Final = 8_190  # of one header line; no call of ours needs more than two hundred
SHUTDOWN_S: Final = 1.0  # requests in flight get this long when the node stops
KEEPALIVE_S: Final = 75.0
BACKLOG: Final = 128

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Port 0 takes a free one. host_names: further names this node may be called by (Host header)."""

    host: str = "127.0.0.1"
    port: int = 0
    host_names: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


class ApiServer:
    """Serves a door, and admin calls if it is given their door. `start` binds, `stop` ends streams and closes."""

    def __init__(
        self,
        door: NodeDoor,
        settings: ApiSettings,
        metrics: NodeMetrics,
        monotonic_ms: Callable[[], int],
        admin: AdminDoor | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._monotonic_ms = monotonic_ms
        self._limiter = RateLimiter(settings.limits)
        self._routes = build_routes(settings.limits)
        if admin is not None:
            self._routes += build_admin_routes(admin)
        self._names = LOOPBACK_NAMES | {settings.host.lower(), f"[{settings.host.lower()}]"}
        self._names |= {name.lower() for name in settings.host_names}
        # Whoever opens a node to all interfaces is reached by address; a literal one cannot be rebound.
        self._is_wildcard = settings.host in ("", "0.0.0.0", "::")
        self._streams = Streams()
        self._context = Context(
            door,
            settings.limits,
            metrics,
            write_json(build_document(self._routes, settings.limits, _find_version())),
            self._streams,
        )
        self._runner: ProblemRunner | None = None
        self._port = settings.port

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    @property
    def url(self) -> str:
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Bind and listen. Raises Rejected when the port is taken or the host is not ours."""
        runner = ProblemRunner(
            self._build_application(),
            access_log=None,
            handle_signals=False,
            auto_decompress=False,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._settings.host, self._settings.port, backlog=BACKLOG)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise self._explain_bind(error) from None
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def stop(self) -> None:
        """End open streams, give requests in flight a moment, close."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _explain_bind(self, error: OSError) -> AssayError:
        place = f"{self._settings.host}:{self._settings.port}"
        if error.errno == errno.EADDRINUSE:
            return Rejected(
                f"{place} is in use",
                field="api port",
                code="port_in_use",
                mend="stop what listens there, or choose another port",
            )
        return Rejected(f"cannot listen on {place} ({error.strerror})", field="api host", code="bind")

    def _build_application(self) -> web.Application:
        application = web.Application(
            middlewares=[self._guard], client_max_size=self._settings.limits.body_bytes_max
        )
        for route in self._routes:
            handle = _Endpoint(self._context, route).handle
            # A stream has no end to measure, so it has no HEAD.
            head = ["HEAD"] if route.method == "GET" and route.answer != EVENT_STREAM_TYPE else []
            for method in (route.method, *head):
                application.router.add_route(method, route.path, handle, expect_handler=answer_expectation)
        application.on_response_prepare.append(_set_headers)
        application.on_shutdown.append(self._end_streams)
        return application

    async def _end_streams(self, _: web.Application) -> None:
        tasks = list(self._streams.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        loop = asyncio.get_running_loop()  # its clock is finer than a millisecond
        started_s = loop.time()
        endpoint = getattr(request.match_info.handler, "__self__", None)
        route = endpoint.route if isinstance(endpoint, _Endpoint) else None
        try:
            self._check_host(request)
            self._check_rate(request, route)
            if request.method == "POST" and route is not None:  # else 404 or 405 says more
                _check_body_form(request, route, self._settings.limits.body_bytes_max)
            response = await handler(request)
        except AssayError as error:
            if isinstance(error, Fault):
                LOG.error("fault while answering %s %s", request.method, request.path, exc_info=error)
            response = problems.build_problem_of(error)
        except web.HTTPException as error:
            response = problems.build_problem_of_http(error, request.path[:200])
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            LOG.error("bug while answering %s %s", request.method, request.path, exc_info=error)
            response = problems.build_internal()
        name = "none" if route is None else route.name
        self._metrics.http_requests.labels(name, str(response.status)).inc()
        if route is not None and route.name != "events":
            self._metrics.http_request_seconds.observe(loop.time() - started_s)
        return response

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        # A browser that was lured to a name which resolves to us says that name here.
        name = host.rpartition(":")[0] if _has_port(host) else host
        if name.lower() not in self._names and not (self._is_wildcard and _is_address(name)):
            raise Rejected(
                f"{name[:80]!a} is not a name of this node",
                field="Host",
                code="host",
                mend="use localhost, or add the name to api_host_names in node.json",
            )

    def _check_rate(self, request: web.Request, route: Route | None) -> None:
        if route is not None and not route.is_limited:
            return
        wait_ms = self._limiter.take(request.remote or "", self._monotonic_ms())
        if wait_ms:
            raise Rejected("too many requests", code="rate", mend=f"wait {wait_ms} ms, or send batches")


class _Endpoint:
    """A route's handler as aiohttp calls it."""

    __slots__ = ("context", "route")

    def __init__(self, context: Context, route: Route) -> None:
        self.context = context
        self.route = route

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await self.route.handler(self.context, request, read_arguments(self.route, request))


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "assay"  # which versions run below is nobody's business
    response.headers["X-Content-Type-Options"] = "nosniff"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _has_port(host: str) -> bool:
    # "[::1]" and "[::1]:80", but not a bare "::1" (not a legal Host anyway)
    return ":" in host.rpartition("]")[2]


def _check_body_form(request: web.Request, route: Route, bytes_max: int) -> None:
    """Before a byte of the body is read. Raises Rejected (415, 413)."""
    if (request.content_length or 0) > bytes_max:
        raise Rejected(
            f"more than {bytes_max} bytes", field="body", code="body_size", mend="send smaller batches"
        )
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None:
        raise Rejected(
            "is not taken, whatever it is",
            field="Content-Encoding",
            code="media_type",
            mend="send the body plain",
        )
    allowed = ["application/json", *(["application/msgpack"] if route.accepts_msgpack else [])]
    # Without the header aiohttp says application/octet-stream, which is refused like any other.
    if request.content_type not in allowed:
        raise Rejected(
            f"{request.content_type[:80]!a} is not taken here",
            field="Content-Type",
            code="media_type",
            mend=f"use {' or '.join(allowed)}",
        )
    charset = request.charset
    if charset is not None and charset.lower() not in ("utf-8", "utf8"):
        raise Rejected("only UTF-8 is taken", field="Content-Type", code="media_type", mend="send UTF-8")


def _find_version() -> str:
    try:
        return get_version("assay-node")
    except PackageNotFoundError:
        return "0"
