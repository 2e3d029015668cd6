"""`assay explain`: why one transaction was accepted, flagged or refused, in words and numbers.

The contributions add up to the margin exactly; the command checks that before it shows them.
"""

from __future__ import annotations

import argparse
from typing import Any

from node.client.endpoints import add_api_arguments

HELP = "the verdict on one transaction, in words and numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="TXID", help="the transaction's id (0x and 64 hex digits)")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from consensus import crypto  # imports wait until the command is chosen
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_urls
    from node.client.node_client import NodeClient, run_with_client
    from node.display import print_json

    read_hex(args.id, "TXID", crypto.HASH_BYTES)

    async def fetch(client: NodeClient) -> dict[str, Any]:
        path = f"/v1/transactions/{args.id}"
        verdict = await client.get_json(f"{path}/verdict", everywhere=True)
        # The node that answered is asked first again, so these are of one mind.
        record = await client.get_json(path, everywhere=True)
        models = await client.get_json("/v1/models")
        return {**verdict, "status": record["status"], "transaction": record["transaction"], **models}

    document = run_with_client(find_urls(args), fetch)
    check_sums(document)
    if args.json:
        print_json(document)
    else:
        print_verdict(document)
    return 0


def check_sums(document: dict[str, Any]) -> None:
    """Raises Fault unless every module's contributions add up to its margin."""
    from consensus.errors import Fault

    for module in document["modules"]:
        total = module["base"] + sum(c["contribution"] for c in module["contributions"])
        if total != module["margin"]:
            raise Fault(
                f"the contributions add up to {total}, the margin is {module['margin']}",
                field=module["name"],
                mend="run `assay audit` on that node",
            )


def print_verdict(document: dict[str, Any]) -> None:
    """For people: the verdict, then each module's reasons, largest first."""
    from node.display import describe_score, print_fields, print_table

    tx = document["transaction"]
    print_fields(
        [
            ("transaction", document["id"]),
            ("status", document["status"]),
            ("sends", f"{tx['amount']} from {tx['sender']} to {tx['receiver']}"),
            ("score", describe_score(document["score"], document["outcome"])),
            ("judged on", f"the state after block {document['height']}"),
        ]
    )
    thresholds = {model["name"]: model for model in document["models"]}
    for module in document["modules"]:
        print()
        model = thresholds.get(module["name"])
        limits = "" if model is None else f"; {_describe_thresholds(model)}"
        print(f"{module['name']}: {describe_score(module['score'], module['outcome'])}{limits}")
        rows = [
            (f"{c['contribution']:+d}", c["feature"], c["value"], c["words"]) for c in module["contributions"]
        ]
        base = (f"{module['base']:+d}", "base", "", "before anything is known")
        margin = (f"{module['margin']:+d}", "margin", "", "the sum, which the score follows from")
        print_table(("contribution", "feature", "value", "in words"), [*rows, base, margin])
        print_changes(module)


def print_changes(module: dict[str, Any]) -> None:
    """What would have to change for this module to accept; nothing for what it accepts."""
    if module["outcome"] == "accept":
        return
    changes = module.get("counterfactuals")
    if changes is None:
        print("what would have to change was not looked for: ask again, or POST it to /v1/score")
    elif not changes:
        print("no other amount and no later time alone would be accepted")
    for change in changes or ():
        print(f"would be accepted with {change['words']} (score {change['score']})")


def _describe_thresholds(model: dict[str, Any]) -> str:
    from consensus.ledger.scoring import REFUSE_NEVER

    flag, refuse = model["flag_score_min"], model["refuse_score_min"]
    parts = [f"flags from {flag}" if flag < REFUSE_NEVER else "never flags"]
    parts.append(f"refuses from {refuse}" if refuse < REFUSE_NEVER else "never refuses")
    return ", ".join(parts)
