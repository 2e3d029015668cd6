"""`assay account`: one account's balance, next nonce, stake and latest transactions."""

from __future__ import annotations

import argparse
from typing import Any

from node.client.endpoints import add_api_arguments

HELP = "one account: balance, next nonce, stake, history"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="0x and 40 hex digits")
    parser.add_argument("--history", type=int, default=0, metavar="N", help="also the latest N transactions")
    parser.add_argument(
        "--proof", action="store_true", help="also the proof against the state root (as JSON)"
    )
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from consensus import crypto  # imports wait until the command is chosen
    from consensus.codec import check_int
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_urls
    from node.client.node_client import NodeClient, run_with_client
    from node.display import print_fields, print_json, print_table

    read_hex(args.address, "ADDRESS", crypto.ADDRESS_BYTES)
    check_int(args.history, "--history", high=100)

    async def fetch(client: NodeClient) -> dict[str, Any]:
        query = {"proof": "true"} if args.proof else {}
        account = await client.get_json(f"/v1/accounts/{args.address}", query)
        if args.history:
            path = f"/v1/accounts/{args.address}/transactions"
            account["transactions"] = (await client.get_json(path, {"limit": args.history}))["transactions"]
        return account

    account = run_with_client(find_urls(args), fetch)
    if args.json:
        print_json(account)
        return 0
    print_fields(
        [
            ("address", account["address"]),
            ("balance", account["balance"]),
            ("nonce", f"{account['nonce']} (next unused)"),
            ("stake", account["stake"]),
            ("as of", f"block {account['height']}"),
            *(
                (f"{module['name']} {name}", value)
                for module in account["modules"]
                for name, value in module["values"].items()
            ),
        ]
    )
    if args.history:
        print()
        print_table(
            ("height", "transaction", "", "other side", "amount", "score", "outcome"),
            [
                (
                    record["height"],
                    record["id"],
                    "to" if record["transaction"]["sender"] == args.address else "from",
                    record["transaction"][
                        "receiver" if record["transaction"]["sender"] == args.address else "sender"
                    ],
                    record["transaction"]["amount"],
                    record["score"],
                    record["outcome"],
                )
                for record in account["transactions"]
            ],
        )
    if args.proof:
        print_json(account["proof"])
    return 0
