"""`assay validators`: who stakes and votes in this epoch."""

from __future__ import annotations

import argparse

from node.endpoints import add_api_arguments

HELP = "the validators of the current epoch and their stakes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from node.client import run_with_client  # imports wait until the command is chosen
    from node.display import print_json, print_table
    from node.endpoints import find_urls

    document = run_with_client(find_urls(args), lambda client: client.get_json("/v1/validators"))
    if args.json:
        print_json(document)
        return 0
    total = document["total_stake"]
    print(f"epoch {document['epoch']}: total stake {total}, a quorum is {document['quorum']}")
    print_table(
        ("index", "address", "stake", "share", "public key"),
        [
            (v["index"], v["address"], v["stake"], f"{100 * v['stake'] / total:.1f}%", v["public_key"])
            for v in document["validators"]
        ],
    )
    return 0
