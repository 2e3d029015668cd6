"""`assay status`: a node's head, finality, peers and model."""

from __future__ import annotations

import argparse

from node.client.endpoints import add_api_arguments

HELP = "what one node says of itself and of its chain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client  # imports wait until the command is chosen
    from node.display import describe_time, print_fields, print_json

    status = run_with_client(find_urls(args), lambda client: client.get_json("/v1/status"))
    if args.json:
        print_json(status)
        return 0
    final, head, mempool, model = status["finalized"], status["head"], status["mempool"], status["model"]
    print_fields(
        [
            ("chain", status["chain_id"]),
            ("genesis", status["genesis_hash"]),
            ("node", f"{status['node']['name']} {status['node']['address']}"),
            ("version", status["node"]["version"]),
            ("head", f"{head['height']}  {head['hash']}"),
            ("finalized", f"{final['height']}  {final['hash']}"),
            ("state root", final["state_root"]),
            ("clock", describe_time(status["clock_ms"])),
            ("view", f"{status['view']} of epoch {status['epoch']}"),
            ("peers", status["peers"]),
            ("syncing", "yes" if status["syncing"] else "no"),
            ("mempool", f"{mempool['transactions']} transactions, {mempool['bytes']} bytes"),
            ("model", "none" if model is None else f"{model['name']} {model['digest']}"),
        ]
    )
    return 0
