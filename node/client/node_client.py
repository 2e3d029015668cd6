"""A client of the HTTP API, for commands and for replay: several nodes, one of which will do.

A request goes to the node that answered last; if it is gone or not ready the next one is asked, and so
on once round. Submitting twice is harmless (an id enters a chain once), so that every call may move on.

Errors: a problem document becomes Rejected (4xx), NotYet (429, 503, nobody answers) or Fault (5xx), with the
node's own words. Leaves out: keys and signing (`consensus.transaction`), and patience: the caller decides
how long to try again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgpack

from consensus import block, codec, vote
from consensus.errors import AssayError, Fault, NotYet, Rejected
from node.api.door import BlockRecord, Event, Receipt
from node.api.json_reading import BadValue, read_hex, read_json

TIMEOUT_S: Final = 30.0  # a full batch on a busy machine takes a second or two
CONNECT_TIMEOUT_S: Final = 3.0  # a node that is up accepts at once
STREAM_SILENCE_S: Final = 45.0  # three heartbeats of an event stream
PACKED_BLOCK_BYTES_MAX: Final = 2 * block.BLOCK_BYTES_MAX

Json = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """What a sender needs of /v1/status. Hashes are 32 bytes."""

    chain_id: str
    genesis_hash: bytes
    clock_ms: int
    head_height: int
    finalized_height: int
    finalized_hash: bytes
    state_root: bytes
    mempool_transactions: int
    is_syncing: bool
    parameters: Mapping[str, Any]  # as consensus.parameters.Parameters


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What a sender needs of an account: its balance and free nonces, beside those that wait and at all."""

    balance: int
    nonce: int
    nonce_pending: int


@dataclass(frozen=True, slots=True)
class TransactionStanding:
    """Where a transaction stands: pending, final, refused or expired; score and outcome once judged."""

    status: str
    height: int | None
    index: int | None
    score: int | None
    outcome: str | None
    reasons: tuple[str, ...]


class NodeClient:
    """An async context manager over one connection pool. `urls` are base URLs, the preferred one first."""

    def __init__(self, urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        if not urls:
            raise Rejected("no node is given", field="--api", mend="give a node's URL")
        self._urls = [check_url(url) for url in urls]
        self._current = 0
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> NodeClient:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def url(self) -> str:
        """The node that answered last."""
        return self._urls[self._current]

    # --- typed calls ------------------------------------------------------------------------------

    async def get_status(self) -> ChainStatus:
        return _read_answer(read_status, await self.get_json("/v1/status"))

    async def get_account(self, address: bytes) -> AccountStatus:
        document = await self.get_json(f"/v1/accounts/0x{address.hex()}")
        return _read_answer(lambda d: AccountStatus(d["balance"], d["nonce"], d["nonce_pending"]), document)

    async def get_transaction(self, transaction_id: bytes) -> TransactionStanding | None:
        """None when no node that answers has seen it."""
        try:
            document = await self.get_json(f"/v1/transactions/0x{transaction_id.hex()}", everywhere=True)
        except Rejected as error:
            if error.code == "not_found":
                return None
            raise
        return _read_answer(read_standing, document)

    async def submit(self, raws: Sequence[bytes]) -> list[Receipt]:
        """Submit encoded transactions in one msgpack batch; a receipt each, in order."""
        body = msgpack.packb(list(raws), use_bin_type=True)
        headers = {"Content-Type": "application/msgpack"}
        answer = json.loads(await self._request("POST", "/v1/transactions", body, headers, everywhere=False))
        receipts = _read_answer(lambda items: [_read_receipt(item) for item in items], answer)
        if len(receipts) != len(raws):
            raise Fault(f"{self.url} answered {len(raws)} transactions with {len(receipts)} receipts")
        return receipts

    async def get_block(self, key: int | str | bytes) -> BlockRecord | None:
        """A block by height, hash, "head" or "finalized", from its canonical bytes; None if there is none."""
        text = f"0x{key.hex()}" if isinstance(key, bytes) else str(key)
        headers = {"Accept": "application/msgpack"}
        try:
            body = await self._request("GET", f"/v1/blocks/{text}", None, headers, everywhere=True)
        except Rejected as error:
            if error.code == "not_found":
                return None
            raise
        value = codec.decode(body, what="answer", bytes_max=PACKED_BLOCK_BYTES_MAX)
        raw, is_final, certificate, headers_raw = codec.check_fields(value, 4, "answer")
        return BlockRecord(
            block.decode_block(raw),
            is_final,
            vote.decode_certificate(certificate) if certificate else None,
            tuple(block.decode_header(header) for header in headers_raw),
        )

    async def follow_events(self, names: Sequence[str] = ()) -> AsyncIterator[Event]:
        """Events from now on, for ever: over lost connections and, after a "gap", over lost nodes.

        Raises NotYet when no node answers.
        """
        last_id: int | None = None
        while True:
            try:
                async for event in self._read_stream(names, last_id):
                    last_id = event.id
                    yield event
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            node = self.url
            await self.get_json("/health")  # moves on to a node that answers, or raises
            if self.url != node and last_id is not None:
                last_id = None  # ids are each node's own
                yield Event(0, "gap", {})

    async def _read_stream(self, names: Sequence[str], last_id: int | None) -> AsyncIterator[Event]:
        headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        query = {"events": ",".join(names)} if names else None
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=STREAM_SILENCE_S)
        async with self._get_session().get(
            f"{self.url}/v1/events", headers=headers, params=query, timeout=timeout
        ) as response:
            if response.status != HTTPStatus.OK:
                raise _read_problem(self.url, response.status, await response.read())
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                    fields = {}

    # --- requests ---------------------------------------------------------------------------------

    async def get_json(
        self, path: str, query: Mapping[str, str | int] | None = None, *, everywhere: bool = False
    ) -> Json:
        """The document at `path`. everywhere: a 404 of one node is not the last word, ask the others."""
        body = await self._request("GET", path, None, {}, everywhere=everywhere, query=query)
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if type(document) is not dict:
            raise _not_a_node(self.url)
        return document

    async def get_text(self, path: str) -> str:
        """The text at `path`, for what is read strictly elsewhere."""
        try:
            return (await self._request("GET", path, None, {}, everywhere=False)).decode()
        except UnicodeDecodeError:
            raise _not_a_node(self.url) from None

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        everywhere: bool,
        query: Mapping[str, str | int] | None = None,
    ) -> bytes:
        session = self._get_session()
        error: AssayError | None = None
        for step in range(len(self._urls)):
            place = (self._current + step) % len(self._urls)
            url = self._urls[place]
            try:
                async with session.request(
                    method, url + path, data=body, headers=headers, params=query
                ) as response:
                    answer = await response.read()
                    if response.status < HTTPStatus.BAD_REQUEST:
                        self._current = place
                        return answer
                    problem = _read_problem(url, response.status, answer)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as failure:
                problem = _explain_failure(url, failure, self._timeout.total)
            is_last_word = isinstance(problem, Rejected) and not (everywhere and problem.code == "not_found")
            if is_last_word:
                self._current = place
                raise problem
            # A node that does not know is a better last word than one that does not answer.
            if error is None or isinstance(problem, Rejected):
                error = problem
        assert error is not None
        raise error

    def _get_session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the client in `async with`"
        return self._session


def run_with_client(urls: Sequence[str], work: Callable[[NodeClient], Awaitable[Result]]) -> Result:
    """Run one coroutine with a client, for commands that know no event loop."""

    async def run() -> Result:
        async with NodeClient(urls) as client:
            return await work(client)

    return asyncio.run(run())


def check_url(text: str) -> str:
    """A base URL without its last slash. Raises Rejected unless it is http(s)://host[:port]."""
    mend = "write it like http://127.0.0.1:26601"
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
        (parts.hostname or "").encode("idna")  # as the resolver will have it: no empty or endless label
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or parts.path.strip("/"):
        raise Rejected(f'"{text[:80]}" is not a node\'s URL', field="--api", code="url", mend=mend)
    return text.rstrip("/")


def read_status(document: Json) -> ChainStatus:
    final = document["finalized"]
    return ChainStatus(
        document["chain_id"],
        read_hex(document["genesis_hash"], "genesis_hash"),
        document["clock_ms"],
        document["head"]["height"],
        final["height"],
        read_hex(final["hash"], "finalized.hash"),
        read_hex(final["state_root"], "finalized.state_root"),
        document["mempool"]["transactions"],
        document["syncing"],
        document["parameters"],
    )


def read_standing(document: Json) -> TransactionStanding:
    return TransactionStanding(
        document["status"],
        document["height"],
        document["index"],
        document["score"],
        document["outcome"],
        tuple(document["reasons"]),
    )


def _read_receipt(item: Json) -> Receipt:
    text = item["id"]
    return Receipt(
        None if text is None else bytes.fromhex(text[2:]),
        item["outcome"],
        item["code"] or "",
        item["reason"] or "",
        item["score"],
        item["retry_ms"] or 0,
    )


def _read_answer(read: Callable[[Any], Result], document: Any) -> Result:
    try:
        return read(document)
    except (KeyError, TypeError, ValueError, Rejected) as error:
        raise Fault(
            f"a node's answer cannot be read ({type(error).__name__}: {error})",
            mend="check that node and client are of one version",
        ) from None


def _read_problem(url: str, status: int, body: bytes) -> AssayError:
    """The error that a response of 400 and above stands for, in the node's own words."""
    try:
        document = read_json(body)
    except Rejected:
        document = None
    if type(document) is not dict or isinstance(document.get("detail"), BadValue | None):
        return _not_a_node(url)
    detail, code = str(document["detail"]), str(document.get("code", ""))
    field, mend = str(document.get("field", "")), str(document.get("mend", ""))
    detail = detail.removeprefix(f"{field}: ") if field else detail
    detail = detail.removesuffix(f"; {mend}") if mend else detail
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return NotYet(detail, field=field or url, mend=mend or "try again", code=code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Fault(detail, field=url, code=code)
    return Rejected(detail, field=field, mend=mend, code=code)


def _not_a_node(url: str) -> Rejected:
    return Rejected(
        "what answers there is not a node of this kind", field=url, code="not_a_node", mend="check the URL"
    )


def _explain_failure(url: str, failure: Exception, timeout_s: float | None) -> AssayError:
    if isinstance(failure, TimeoutError):
        return NotYet(
            f"gave no answer within {timeout_s:.0f} s", field=url, code="timeout", mend="try again later"
        )
    if isinstance(failure, aiohttp.ClientConnectorError):
        number = failure.os_error.errno  # asyncio's own text repeats the address
        reason = os.strerror(number) if number is not None and number > 0 else str(failure.os_error)
        return NotYet(
            f"no node answers ({reason})", field=url, code="unreachable", mend="start it, or check the URL"
        )
    if isinstance(failure, aiohttp.ClientResponseError):
        return _not_a_node(url)
    return NotYet(f"the connection broke ({failure})", field=url, code="unreachable", mend="try again")
