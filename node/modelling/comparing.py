"""`assay model compare`: a model that scores along beside those that judge, on what came since."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node.client.node_client import NodeClient

Json = dict[str, Any]


def compare_models(args: argparse.Namespace) -> int:
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.display import print_json

    document = run_with_client(find_urls(args), lambda client: _ask(client, args.digest))
    if args.json:
        print_json(document)
    else:
        show_comparison(document)
    return 0


async def _ask(client: NodeClient, text: str) -> Json:
    from consensus.errors import Rejected
    from node.modelling.deciding import find_digest

    models = await client.get_json("/v1/models")
    digest = find_digest(text, models["published"])
    try:
        return await client.get_json(f"/v1/models/{digest}/comparison")
    except Rejected as error:
        if error.code != "not_found":
            raise
        raise Rejected(
            "this node has not scored along with it yet",
            field=digest,
            mend="wait for transfers, or ask a node whose `shadows` setting is above 0",
            code="not_found",
        ) from None


def show_comparison(document: Json) -> None:
    """The document of /v1/models/{digest}/comparison, for people."""
    from node.display import print_fields, print_table

    transfers = document["transfers"]
    print_fields(
        [
            ("model", document["digest"]),
            ("scores along", "yes" if document["running"] else "no more"),
            ("blocks", f"{document['first_height']} to {document['last_height']}"),
            ("transfers", f"{transfers}, of them reported since {document['reported']}"),
            ("both say the same", f"{document['agreeing']} ({document['agreeing'] / transfers:.2%})"),
            ("score", f"{document['mean_difference']} above the chain's, on average"),
        ]
    )
    print()
    outcomes = document["outcomes"]
    print_table(
        ("the chain says", *(f"it: {name}" for name in outcomes)),
        [(chain, *(row[name] for name in outcomes)) for chain, row in outcomes.items()],
    )
    if document["chain"] is not None:
        print()
        print_table(
            ("by the reports that came", "average precision", "ROC AUC"),
            [
                (words, document[name]["average_precision"], document[name]["roc_auc"])
                for words, name in (("the chain", "chain"), ("it", "shadow"))
            ],
        )
