"""`assay verify`: check what a node says, trusting only a checkpoint or one's own genesis file.

Exit 0 when everything holds, 1 when something does not, 2 for bad use, a checkpoint that is too old among
it. Where two nodes show blocks that exclude each other, or a validator's log of refusals was rewritten, the
proof is written to a file.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from node.client.endpoints import add_api_arguments

if TYPE_CHECKING:
    from node.client.light import LightClient
    from node.client.refusals import Rewritten

HELP = (
    "check a node's word against a checkpoint: the head, an account, a transaction with its score, a refusal"
)

ACTIONS = {
    "head": "the last final block, its state root and the modules that judge",
    "account": "an account's balance and nonce by Merkle proof",
    "transaction": "that a transaction is final, and with which score, by Merkle proof",
    "refusal": "that this node refused a transaction, and that its log of refusals only grew",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    for name, words in ACTIONS.items():
        own = actions.add_parser(name, help=words, description=words)
        if name == "account":
            own.add_argument("address", metavar="ADDRESS", help="0x and 40 hex digits")
        if name in ("transaction", "refusal"):
            own.add_argument("id", metavar="TXID", help="0x and 64 hex digits")
        if name == "refusal":
            own.add_argument(
                "--since",
                type=int,
                metavar="HEIGHT",
                help="compare the log with that of the proposer's blocks from here on (default: the last 200 blocks)",
            )
        own.add_argument("--checkpoint", metavar="HASH@HEIGHT", help="a final block, from somebody you trust")
        own.add_argument(
            "--genesis", metavar="FILE", help="the chain's genesis.json (default: that of --home)"
        )
        own.add_argument(
            "--evidence",
            metavar="FILE",
            help="where proofs of lies go (default: evidence-HEIGHT.json, rewritten-HEIGHT.json)",
        )
        add_api_arguments(own, several="of several the first that answers is asked, and the others compared")


def run(args: argparse.Namespace) -> int:
    import asyncio  # imports wait until the command is chosen
    import sys

    from consensus import crypto
    from consensus.errors import Rejected
    from node import config
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_urls
    from node.client.light import parse_checkpoint
    from node.display import print_fields, print_json

    subject = b""
    if args.action != "head":
        name, length = (
            ("ADDRESS", crypto.ADDRESS_BYTES) if args.action == "account" else ("TXID", crypto.HASH_BYTES)
        )
        subject = read_hex(args.address if args.action == "account" else args.id, name, length)
    since = getattr(args, "since", None)
    if since is not None and since < 1:
        raise Rejected(f"is {since}", field="--since", mend="name a height from 1 on")
    checkpoint = None if args.checkpoint is None else parse_checkpoint(args.checkpoint)
    path = _find_genesis(args)
    if path is None and checkpoint is None:
        raise Rejected(
            "nothing to trust",
            field="--checkpoint",
            mend="give --checkpoint HASH@HEIGHT, or --genesis FILE of a chain younger than its unbonding period",
        )
    genesis = None if path is None else config.read_genesis_file(path)
    urls = find_urls(args)
    try:
        report = asyncio.run(_verify(urls, genesis, checkpoint, args.action, subject, since))
    except Rejected as problem:
        if problem.code == "checkpoint_age" or problem.field.startswith("--"):
            raise
        report = {"ok": False, "problem": str(problem), "code": problem.code}
    if "fork" in report:
        report = _write_fork(report, args.evidence)
    if "rewritten" in report:
        report = _write_rewritten(report, args.evidence)
    if args.json:
        print_json(report)
    elif report["ok"]:
        print_fields((name.replace("_", " "), _say(value)) for name, value in report.items() if name != "ok")
    if not report["ok"]:
        print(f"assay: does not hold: {report['problem']}", file=sys.stderr)
    return 0 if report["ok"] else 1


def _write_fork(report: dict[str, Any], path: str | None) -> dict[str, Any]:
    """Keep what two nodes said of one height: proofs of lies outlive the nodes that told them."""
    import json
    from pathlib import Path

    from node.config import write_file

    document = report["fork"]
    file = Path(path or f"evidence-{document['height']}.json")
    write_file(file, json.dumps(document, indent=1) + "\n")
    count = len(document["evidence"])
    words = f"evidence against {count} validators" if count else "both certificates"
    proves = document["proves"]
    told = f"; {proves['words']}" if proves is not None else ""
    return {
        "ok": False,
        "problem": f"{report['problem']}{told}; {words}: {file}",
        "code": "fork",
        "file": str(file),
        "proves": proves,
        "accused": [item["operator"] for item in document["evidence"]],
    }


def _write_rewritten(report: dict[str, Any], path: str | None) -> dict[str, Any]:
    """Keep both headers of one proposer, with what makes them final."""
    import json
    from pathlib import Path

    from node.config import write_file

    document = report["rewritten"]
    file = Path(path or f"rewritten-{document['height']}.json")
    write_file(file, json.dumps(document, indent=1) + "\n")
    return {
        "ok": False,
        "problem": f"{report['problem']}; both headers: {file}",
        "code": "rewritten",
        "file": str(file),
        "accused": [document["proposer"]],
    }


def _say(value: Any) -> str:
    if isinstance(value, list):
        items = (" ".join(map(str, item.values())) if isinstance(item, dict) else str(item) for item in value)
        return ", ".join(items) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _find_genesis(args: argparse.Namespace) -> Any:
    from pathlib import Path

    if args.genesis is not None:
        return Path(args.genesis)
    if args.home is None:
        return None
    home = Path(args.home)
    found = [path for path in (home / "genesis.json", home / "node0" / "genesis.json") if path.is_file()]
    return found[0] if found else None


async def _verify(
    urls: list[str], genesis: Any, checkpoint: Any, action: str, subject: bytes, since: int | None
) -> dict[str, Any]:
    from contextlib import AsyncExitStack

    from consensus.errors import NotYet
    from consensus.forks import Fork
    from node.client.light import LightNode, open_client
    from node.client.node_client import NodeClient
    from node.client.refusals import Rewritten, find_refuser
    from node.clock import SystemClock

    async with AsyncExitStack() as stack:
        nodes = [LightNode(await stack.enter_async_context(NodeClient([url]))) for url in urls]
        if action == "refusal":
            nodes = await find_refuser(nodes, subject)
        unreachable: list[str] = []
        while True:
            try:
                client = await open_client(nodes[0], genesis, checkpoint, SystemClock())
                break
            except NotYet:
                if len(nodes) == 1:
                    raise
                unreachable.append(nodes.pop(0).url)
        start = client.trust.header
        try:
            report = await _ask(client, action, subject, since)
            top = client.trust.header
            compared = []
            for node in nodes[1:]:
                try:
                    compared.append({"api": node.url, "height": await client.compare(node)})
                except NotYet:
                    unreachable.append(node.url)
        except Fork as fork:
            return {"problem": str(fork), "fork": client.describe_fork(fork)}
        except Rewritten as lie:
            return {"problem": str(lie), "rewritten": await _describe_rewritten(client, lie)}
    return {
        "ok": True,
        **report,
        "chain_id": client.genesis.chain_id,
        "node": nodes[0].url,
        "trusted_height": start.height,
        "final_height": top.height,
        "final_hash": "0x" + top.hash.hex(),
        "epoch": top.epoch,
        "validators": len(client.trust.validators),
        "compared": compared,
        "unreachable": unreachable,
        "age_checked": client.is_aged,
    }


async def _describe_rewritten(client: LightClient, lie: Rewritten) -> dict[str, Any]:
    """Both headers; each with its certificate, as far as the node still knows the validators of its epoch."""
    from consensus import crypto
    from consensus.errors import AssayError
    from node.api import light_forms
    from node.api.json_forms import form_header

    blocks = []
    for header in (lie.earlier, lie.later):
        shown = {"hash": "0x" + header.hash.hex(), "header": form_header(header)}
        try:
            final = (await client.node.fetch(header.height)).update.final
            if final.header == header:
                shown = light_forms.form_final(final)
        except AssayError:  # a liar does not keep this from being told by not answering
            pass  # the hash chain to the trusted header stands without it
        blocks.append(shown)
    return {
        "chain_id": client.genesis.chain_id,
        "height": lie.later.height,
        "proposer": "0x" + crypto.compute_address(lie.later.proposer).hex(),
        "blocks": blocks,
    }


async def _ask(client: LightClient, action: str, subject: bytes, since: int | None) -> dict[str, Any]:
    from consensus.ledger.scoring import OUTCOME_NAMES
    from node.client.refusals import describe, verify_refusal

    if action == "refusal":
        return describe(await verify_refusal(client, subject, since))
    if action == "account":
        trust, account = await client.verify_account(subject)
        return {
            "address": "0x" + account.address.hex(),
            "balance": account.balance,
            "nonce": account.nonce_next,
            "height": trust.header.height,
        }
    if action == "transaction":
        _, header, proof = await client.verify_transaction(subject)
        return {
            "id": "0x" + proof.transaction_id.hex(),
            "height": header.height,
            "index": proof.index,
            "score": proof.score,
            "outcome": OUTCOME_NAMES[proof.outcome],
        }
    trust, seating = await client.verify_head()
    return {
        "height": trust.header.height,
        "state_root": "0x" + trust.header.state_root.hex(),
        "modules": [
            {"name": seat.name, "digest": "0x" + seat.digest.hex(), "weight": seat.weight}
            for seat in seating.seats
        ],
    }
