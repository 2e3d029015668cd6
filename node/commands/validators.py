"""`assay validators`: who stakes and votes in this epoch, and who will in the next."""

from __future__ import annotations

import argparse

from node.client.endpoints import add_api_arguments

HELP = "the validators of this epoch and the next: stake, commission, participation, jail"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client  # imports wait until the command is chosen
    from node.display import describe_bp, print_json, print_table

    document = run_with_client(find_urls(args), lambda client: client.get_json("/v1/validators"))
    if args.json:
        print_json(document)
        return 0
    boundary = document["boundary_height"]
    until = "" if boundary is None else f" until block {boundary}"
    print(
        f"epoch {document['epoch']}{until}: total stake {document['total_stake']}, "
        f"a quorum is {document['quorum']}; block {document['height']}"
    )
    print_table(
        ("index", "address", "stake", "share", "next", "bonded", "commission", "signed", "status"),
        [
            (
                v["index"],
                v["address"],
                v["stake"],
                describe_bp(v["share_bp"]),
                v["next_stake"],
                v["bonded"],
                describe_bp(v["commission_bp"]),
                describe_bp(v["participation_bp"]),
                v["status"] if v["jailed_until"] is None else f"jailed until epoch {v['jailed_until']}",
            )
            for v in document["validators"]
        ],
    )
    if document["more"]:
        print("more without a seat exist; ask for one with `assay stake status ADDRESS`")
    return 0
