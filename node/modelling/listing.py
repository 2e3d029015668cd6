"""`assay model list`: who judges, what is published, what is being decided, and what was."""

from __future__ import annotations

import argparse
from typing import Any

Json = dict[str, Any]


def list_models(args: argparse.Namespace) -> int:
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.display import print_json

    document = run_with_client(find_urls(args), lambda client: client.get_json("/v1/models"))
    if args.json:
        print_json(document)
    else:
        show_models(document)
    return 0


def show_models(document: Json) -> None:
    """The document of /v1/models, for people."""
    from node.display import describe_time, print_table, shorten

    room, used = document["room_bytes"], document["room_used_bytes"]
    print(f"after block {document['height']}; {used} of {room} bytes for models in a row are given away")
    print()
    print_table(
        ("judges", "digest", "flag", "refuse", "weight", "row", "since block"),
        [
            (
                seat["name"],
                seat["digest"],
                seat["flag_score_min"],
                seat["refuse_score_min"],
                seat["weight"] or "watches",
                seat["row_bytes"],
                seat["since"],
            )
            for seat in document["models"]
        ],
    )
    if document["published"]:
        print()
        print_table(
            ("known", "digest", "bytes", "chunks", "status", "judged from", "forgotten at"),
            [
                (
                    entry["name"],
                    entry["digest"],
                    entry["artifact_bytes"],
                    f"{entry['chunks_here']}/{entry['chunks']}",
                    entry["status"],
                    entry["since"],
                    None if entry["expires_ms"] is None else describe_time(entry["expires_ms"]),
                )
                for entry in document["published"]
            ],
        )
    decisions = [entry for era in document["history"] for entry in era["decisions"]]
    if document["motions"] or decisions:
        print()
        print_table(
            ("from block", "change", "digest", "in place of", "stake for it", "approvals", "state"),
            [
                (
                    entry["height"],
                    entry["change"],
                    entry["digest"],
                    shorten(entry.get("in_place_of") or "-"),
                    f"{entry['approved_stake']}/{entry['total_stake']}",
                    len(entry["approvers"]),
                    _describe_state(entry),
                )
                for entry in (*decisions, *document["motions"])
            ],
        )


def _describe_state(entry: Json) -> str:
    if entry["outcome"] is not None:
        return str(entry["outcome"]).replace("_", " ")
    decided = entry["decided_height"]
    return "open" if decided is None else f"decided in block {decided}"
