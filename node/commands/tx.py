"""`assay tx`: where one transaction stands, its score, and on request the proof."""

from __future__ import annotations

import argparse
from typing import Any

from node.client.endpoints import add_api_arguments

HELP = "where one transaction stands: pending, final, refused or expired"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="TXID", help="the transaction's id (0x and 64 hex digits)")
    parser.add_argument(
        "--proof", action="store_true", help="also the Merkle proof and certificate (as JSON)"
    )
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from consensus import crypto  # imports wait until the command is chosen
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.display import describe_score, describe_time, print_fields, print_json

    read_hex(args.id, "TXID", crypto.HASH_BYTES)
    path = f"/v1/transactions/{args.id}"
    query = {"proof": "true"} if args.proof else {}
    record = run_with_client(find_urls(args), lambda client: client.get_json(path, query, everywhere=True))
    if args.json:
        print_json(record)
        return 0
    tx = record["transaction"]
    place = None if record["height"] is None else f"block {record['height']}, index {record['index']}"
    print_fields(
        [
            ("transaction", record["id"]),
            ("status", record["status"]),
            ("place", place),
            ("score", describe_score(record["score"], record["outcome"])),
            *(("reason", reason) for reason in record["reasons"]),
            ("kind", tx["kind"]),
            ("sender", tx["sender"]),
            ("receiver", tx["receiver"]),
            ("amount", tx["amount"]),
            ("fee", tx["fee"]),
            ("nonce", tx["nonce"]),
            ("time", describe_time(tx["timestamp_ms"])),
            ("expires", describe_time(tx["expires_ms"])),
            *_describe_report(record.get("report")),
        ]
    )
    if args.proof:
        print_json(record["proof"])
    return 0


def _describe_report(case: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What was reported about it, in words."""
    if case is None:
        return []
    known = "the modules know" if case["told_height"] else "the modules do not count it"
    lines = [("reports", f"{case['standing']} stand, {known}")]
    if case["finding"] != "none":
        lines.append(("finding", "the reports are " + case["finding"]))
    if case["dispute"] is not None:
        lines.append(("disputed", f"by {case['dispute']['disputer']}"))
    return lines
