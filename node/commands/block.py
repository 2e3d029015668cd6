"""`assay block`: one block with its transactions and their scores."""

from __future__ import annotations

import argparse

from node.client.endpoints import add_api_arguments

HELP = "one block: header, transactions with scores, certificate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "block",
        nargs="?",
        default="finalized",
        metavar="BLOCK",
        help="a height, a hash, head or finalized (default)",
    )
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from node.api.route import BLOCK_KEY  # imports wait until the command is chosen
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.display import describe_time, print_fields, print_json, print_table, shorten

    BLOCK_KEY.read(args.block)  # before it becomes part of a URL
    document = run_with_client(
        find_urls(args), lambda client: client.get_json(f"/v1/blocks/{args.block}", everywhere=True)
    )
    if args.json:
        print_json(document)
        return 0
    header, certificate = document["header"], document["certificate"]
    signers = "none yet"
    if certificate is not None:
        indices = ", ".join(str(entry["signer"]) for entry in certificate["signatures"])
        signers = f"{certificate['kind']} of view {certificate['view']} by validators {indices}"
    print_fields(
        [
            ("block", header["height"]),
            ("hash", document["hash"]),
            ("parent", header["parent_hash"]),
            ("final", "yes" if document["final"] else "no"),
            ("view", f"{header['view']} of epoch {header['epoch']}"),
            ("proposer", header["proposer"]),
            ("time", describe_time(header["timestamp_ms"])),
            ("state root", header["state_root"]),
            ("modules", header["modules_digest"]),
            ("certificate", signers),
            ("transactions", header["transaction_count"]),
        ]
    )
    if document["transactions"]:
        print()
        print_table(
            ("index", "transaction", "kind", "sender", "receiver", "amount", "score", "outcome"),
            [
                (
                    index,
                    tx["id"],
                    tx["kind"],
                    shorten(tx["sender"], 12),
                    shorten(tx["receiver"], 12),
                    tx["amount"],
                    tx["score"],
                    tx["outcome"],
                )
                for index, tx in enumerate(document["transactions"])
            ],
        )
    return 0
