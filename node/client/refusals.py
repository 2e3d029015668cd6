"""Checking a node's word on a refusal: that it is in the log its blocks commit to, and that the log only grew.

The newest final block of the node's own is shown to hold the refusal. Earlier blocks of the same proposer are
taken from the chain, not from the node's word on itself: headers hash-linked up to a trusted one. Each of their heads
must begin the newest log. Where one does not, all leaves decide: a log that was lost and says so, or a rewritten
one, whose two headers are the proof.
Errors: Rejected; `Rewritten` with both headers. Leaves out: refusals that were never logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus import crypto, light
from consensus.block import Header
from consensus.errors import AssayError, Rejected
from consensus.refusal import (
    LogBeginning,
    LogHead,
    RefusalEntry,
    decode_entry,
    get_head,
    judge_leaves,
    verify_entry,
    verify_extension,
)
from node.api import light_forms, refusal_forms
from node.api.json_reading import get_field
from node.api.refusal_forms import ShownRefusal
from node.client.light import LightClient, LightNode

LOOK_BACK_BLOCKS: Final = 200  # two pages of headers; a day and more can be asked for (--since)
PAGE_BLOCKS: Final = 100
HEADERS_MAX: Final = 100_000  # 60 MB of JSON in a thousand pages: a minute
LEAVES_MAX: Final = 100_000  # fetched only to tell a lost log from a rewritten one


class Rewritten(Rejected):
    """A proposer's log dropped or changed what an earlier final block of its own commits to."""

    def __init__(self, earlier: Header, later: Header) -> None:
        self.earlier = earlier
        self.later = later
        super().__init__(
            f"of 0x{later.proposer.hex()} was rewritten: {earlier.refusal_count} entries of block "
            f"{earlier.height} are not the beginning of the {later.refusal_count} of block {later.height}",
            field="refusal log",
            code="rewritten",
            mend="keep both headers: they are the proof",
        )


@dataclass(frozen=True, slots=True)
class CheckedRefusal:
    """entry: number `index` of the log that `header`, final, commits to.

    compared: how many earlier heads of the proposer begin that log, back to block since_height. beginning: what the log
    says it follows, with the block that was lost sight of there, if an earlier head does not.
    """

    entry: RefusalEntry
    index: int
    header: Header
    compared: int
    since_height: int
    beginning: LogBeginning | None


async def find_refuser(nodes: Sequence[LightNode], transaction_id: bytes) -> list[LightNode]:
    """The same nodes, one that says it refused this transaction first: a refusal is each node's own."""
    for node in nodes if len(nodes) > 1 else ():
        try:
            await node.get(f"/v1/refusals/0x{transaction_id.hex()}")
        except AssayError:
            continue  # not this one, or it is down: the next one may know
        return [node, *(other for other in nodes if other is not node)]
    return list(nodes)


async def verify_refusal(
    client: LightClient, transaction_id: bytes, since_height: int | None = None
) -> CheckedRefusal:
    """since_height: where to begin comparing; None: LOOK_BACK_BLOCKS before the committing block."""
    name = f"0x{transaction_id.hex()}"
    shown = refusal_forms.read_refusal(await client.node.get(f"/v1/refusals/{name}"))
    entry = decode_entry(shown.leaf)
    if not isinstance(entry, RefusalEntry) or entry.transaction_id != transaction_id:
        raise Rejected("is about another transaction", field="entry.leaf", code="proof", mend="ask again")
    header = await _trust_header(client, shown)
    if not verify_entry(get_head(header), shown.leaf, shown.index, shown.siblings):
        raise Rejected("does not show this entry", field="proof", code="proof", mend="ask again")
    since = header.height - LOOK_BACK_BLOCKS if since_height is None else since_height
    since = min(max(1, since), header.height)
    compared, beginning = await _compare(client.node, header, since)
    return CheckedRefusal(entry, shown.index, header, compared, since, beginning)


async def _trust_header(client: LightClient, shown: ShownRefusal) -> Header:
    """The proof's header, in the final chain."""
    header = shown.header
    trust = await client.follow(await client.node.fetch(None))
    siblings: tuple[bytes, ...] = ()
    if header.height < trust.header.height:
        _, siblings = await client.node.fetch_history(header.height, trust.header.height)
    if not light.verify_ancestor(trust.header, header, siblings):
        raise Rejected("is not in the final chain", field="proof.header", code="proof", mend="ask again")
    return header


async def _compare(node: LightNode, newest: Header, since: int) -> tuple[int, LogBeginning | None]:
    """How many earlier heads the newest log extends, and its beginning where it does not go back further."""
    seen = {get_head(newest)}
    compared = 0
    for earlier in reversed(await _fetch_headers(node, newest, since)):
        head = get_head(earlier)
        if earlier.proposer != newest.proposer or earlier.hash == newest.hash:
            continue
        if head not in seen and not await _extends(node, head, get_head(newest)):
            return compared, await _judge_break(node, earlier, newest)
        seen.add(head)
        compared += 1
    return compared, None


async def _fetch_headers(node: LightNode, newest: Header, since: int) -> list[Header]:
    """Those of heights since .. newest, rising and linked by their hashes. Raises Rejected."""
    if newest.height - since >= HEADERS_MAX:
        raise Rejected(
            f"{newest.height - since} blocks, at most {HEADERS_MAX} are compared",
            field="--since",
            mend="begin later",
        )
    headers: list[Header] = []
    while len(headers) <= newest.height - since:
        first = since + len(headers)
        limit = min(PAGE_BLOCKS, newest.height - first + 1)
        query: dict[str, str | int] = {"from": first, "limit": limit, "transactions": "false"}
        document = await node.get("/v1/blocks", query)
        page = light_forms.read_list(get_field(document, "blocks"), "blocks", limit)
        headers += [
            light_forms.read_header(get_field(light_forms.read_object(item, "block"), "header"))
            for item in page
        ]
        if not page:
            break
    linked = [header.hash for header in headers] == [
        *(header.parent_hash for header in headers[1:]),
        newest.hash,
    ]
    if not linked:
        raise Rejected(
            "do not lead to the final block", field="blocks", code="proof", mend="ask again, or another node"
        )
    return headers


async def _extends(node: LightNode, earlier: LogHead, later: LogHead) -> bool:
    if not 0 < earlier.count <= later.count:
        return earlier.count == 0 and verify_extension(earlier, later, ())
    try:
        query: dict[str, str | int] = {"first": earlier.count, "second": later.count}
        document = await node.get("/v1/refusals/consistency", query)
    except Rejected:
        return False  # it shows none; its leaves decide
    return verify_extension(earlier, later, refusal_forms.read_consistency(document))


async def _judge_break(node: LightNode, earlier: Header, newest: Header) -> LogBeginning:
    """The newest log's first leaf, which names what was lost. Raises Rewritten, or Rejected when the node hides it."""
    leaves = await _fetch_leaves(node, newest.refusal_count)
    verdict = judge_leaves(earlier, newest, leaves)
    if verdict == "rewritten":
        raise Rewritten(earlier, newest)
    first = decode_entry(leaves[0])
    if verdict == "extends" or not isinstance(first, LogBeginning):
        raise Rejected("holds no proof of consistency that it could show", field=node.url, code="proof")
    return first


async def _fetch_leaves(node: LightNode, count: int) -> Sequence[bytes]:
    if count > LEAVES_MAX:
        raise Rejected(f"{count} entries, at most {LEAVES_MAX} are fetched", field="refusals", code="size")
    leaves: list[bytes] = []
    while len(leaves) < count:
        limit = min(PAGE_BLOCKS, count - len(leaves))
        document = await node.get("/v1/refusals", {"from": len(leaves), "limit": limit})
        page = refusal_forms.read_page(document)
        if not page:
            break
        leaves += [leaf for _, leaf in page[:limit]]
    return leaves


def describe(checked: CheckedRefusal) -> dict[str, Any]:
    """For the command's report."""
    entry, header, beginning = checked.entry, checked.header, checked.beginning
    return {
        "id": "0x" + entry.transaction_id.hex(),
        "score": entry.score,
        "outcome": "refuse",
        "reasons": list(entry.reasons),
        "modules_digest": "0x" + entry.modules_digest.hex(),
        "judged_after_block": entry.height,
        "refused_ms": entry.time_ms,
        "index": checked.index,
        "refusals": header.refusal_count,
        "height": header.height,
        "block_hash": "0x" + header.hash.hex(),
        "proposer": "0x" + crypto.compute_address(header.proposer).hex(),
        "earlier_heads_compared": checked.compared,
        "compared_since_height": checked.since_height,
        "log_lost_after": []
        if beginning is None
        else [{"height": beginning.height, "refusals": beginning.lost.count}],
    }
