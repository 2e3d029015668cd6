"""A network over HTTP: one client a node, so that the replay decides which node is asked.

Finality is heard from the event stream of the node that is followed, and asked for when that is silent.
Blocks come as their canonical bytes. Invariant: whatever says "not now" (down, 429, 503, 5xx, an answer cut
short) is NodeAway; what says "never" is Rejected, and an error of this program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from consensus import codec
from consensus.errors import AssayError, Fault, NotYet, Rejected
from consensus.parameters import Parameters
from node.client.node_client import PACKED_BLOCK_BYTES_MAX, NodeClient
from node.replay.network import ITEMS_MAX, Answer, Explained, Holding, NodeAway, NodeStatus, Reason

BUSY_MS: Final = 500  # what 429 and 503 are answered with: half a block interval
UNREACHABLE_CODES: Final = frozenset({"unreachable", "timeout"})
MENDABLE_CODES: Final = frozenset({"not_found", "not_a_node", "rate", "internal"})  # another node may do
HASHES_PAGE: Final = 100  # the API's longest page
REASONS_MAX: Final = 4  # of a verdict; the rest moves it little
STREAM_RETRY_S: Final = 0.5

# Codes of answers that time mends: the same bytes may fare better after so many ms.
RETRY_MS_BY_CODE: Final = {
    "backing_off": 500,
    "pool_full": 500,
    "sender_full": 1_000,
    "nonce_gap": 300,
    "report_anchor": 300,
}


class PackedClient(NodeClient):
    """A client that can also hand out a block's bytes without decoding its transactions."""

    async def get_packed_block(self, height: int) -> bytes:
        """A final block as `encode_block` writes it. Raises NotYet while it is not final there."""
        headers = {"Accept": "application/msgpack"}
        body = await self._request("GET", f"/v1/blocks/{height}", None, headers, everywhere=False)
        value = codec.decode(body, what="answer", bytes_max=PACKED_BLOCK_BYTES_MAX, items_max=ITEMS_MAX)
        raw, is_final, _, _ = codec.check_fields(value, 4, "answer")
        if not is_final:
            raise NotYet(f"block {height} is not final there yet", field=self.url)
        return codec.check_bytes(raw, "block", length_max=PACKED_BLOCK_BYTES_MAX)


class HttpNetwork:
    """Implements `NetworkClient`. An async context manager. `parameters`: used when no node tells them."""

    def __init__(self, urls: Sequence[str], parameters: Parameters | None = None) -> None:
        self._clients = [PackedClient([url]) for url in urls]
        self._parameters = parameters
        self._heights = [-1] * len(urls)
        self._moved = [asyncio.Event() for _ in urls]
        self._streams: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> HttpNetwork:
        for client in self._clients:
            await client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._streams.values():
            task.cancel()
        await asyncio.gather(*self._streams.values(), return_exceptions=True)
        for client in self._clients:
            await client.__aexit__(kind, error, trace)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(client.url for client in self._clients)

    async def get_status(self, node: int) -> NodeStatus:
        try:
            document = await self._clients[node].get_json("/v1/status")
        except AssayError as error:
            raise _away(error) from None
        told = document.get("parameters")
        parameters = Parameters(**told) if isinstance(told, dict) else self._parameters
        if parameters is None:
            raise Fault("does not tell the chain's parameters", field=self.names[node], mend="use --home")
        return NodeStatus(
            document["chain_id"],
            bytes.fromhex(document["genesis_hash"].removeprefix("0x")),
            document["finalized"]["height"],
            document["clock_ms"],
            parameters,
        )

    async def submit(self, node: int, raws: Sequence[bytes]) -> list[Answer]:
        try:
            receipts = await self._clients[node].submit(raws)
        except AssayError as error:
            raise _away(error) from None
        return [
            Answer(r.outcome, r.code, r.reason, r.score, RETRY_MS_BY_CODE.get(r.code, 0)) for r in receipts
        ]

    async def wait_final(self, node: int, above: int, timeout_ms: int) -> int:
        if node not in self._streams or self._streams[node].done():
            self._streams[node] = asyncio.create_task(self._listen(node))
        if self._heights[node] <= above:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_ms / 1000):
                    while self._heights[node] <= above:
                        self._moved[node].clear()
                        await self._moved[node].wait()
        if self._heights[node] <= above:
            self._heights[node] = (await self.get_status(node)).final_height
        return self._heights[node]

    async def _listen(self, node: int) -> None:
        """Final heights of a node as it tells them, for as long as it does."""
        client = self._clients[node]
        self._heights[node] = -1
        try:
            async for event in client.follow_events(["finalized"]):
                if event.name == "finalized":
                    self._heights[node] = max(self._heights[node], event.data["height"])
                    self._moved[node].set()
        except (NotYet, Fault, Rejected):
            await asyncio.sleep(STREAM_RETRY_S)

    async def watch_refusals(self, node: int, on_refusal: Callable[[bytes, int], None]) -> None:
        try:
            async for event in self._clients[node].follow_events(["verdict"]):
                if event.name == "verdict" and event.data["outcome"] == "refuse":
                    on_refusal(bytes.fromhex(event.data["id"].removeprefix("0x")), event.data["score"])
        except AssayError as error:
            raise _away(error) from None

    async def get_block(self, node: int, height: int) -> bytes:
        try:
            return await self._clients[node].get_packed_block(height)
        except AssayError as error:
            raise _away(error) from None

    async def get_block_hashes(self, node: int, first: int, end: int) -> list[bytes]:
        limit = min(end - first, HASHES_PAGE)
        try:
            query: dict[str, str | int] = {"from": first, "limit": limit, "transactions": "false"}
            document = await self._clients[node].get_json("/v1/blocks", query)
        except AssayError as error:
            raise _away(error) from None
        hashes = [bytes.fromhex(item["hash"].removeprefix("0x")) for item in document["blocks"]]
        if not hashes:
            raise NodeAway(f"has no block {first}")
        return hashes

    async def get_account(self, node: int, address: bytes) -> Holding:
        try:
            account = await self._clients[node].get_account(address)
        except AssayError as error:
            raise _away(error) from None
        return Holding(account.balance, account.nonce)

    async def explain(self, node: int, transaction_id: bytes) -> Explained | None:
        try:
            path = f"/v1/transactions/0x{transaction_id.hex()}/verdict"
            return _read_verdict(await self._clients[node].get_json(path))
        except AssayError as error:
            if error.code == "not_found":
                return None
            raise _away(error) from None


def _read_verdict(document: dict[str, Any]) -> Explained:
    contributions = [item for module in document["modules"] for item in module["contributions"]]
    contributions.sort(key=lambda item: -item["contribution"])
    return Explained(
        document["score"],
        document["outcome"],
        tuple(
            Reason(item["words"], item["contribution"])
            for item in contributions[:REASONS_MAX]
            if item["contribution"] > 0
        ),
    )


def _away(error: AssayError) -> AssayError:
    """NodeAway for what time or another node may mend; a Rejected stays what it is."""
    if isinstance(error, NodeAway):
        return error
    if isinstance(error, NotYet):
        return NodeAway(str(error), retry_ms=0 if error.code in UNREACHABLE_CODES else BUSY_MS)
    if error.code in MENDABLE_CODES:
        return NodeAway(str(error))
    return error
