"""`assay node`: run one node from its home, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse

HELP = "run one node from its home (one that `init` or `localnet` made), until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", required=True, metavar="DIR", help="the node's home folder")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="form of the log on stderr")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME[=CONFIG]",
        help="run this policy module too; CONFIG is a JSON file or key=value,…; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from node import process
    from node.policies.plan import parse_policy

    def report(url: str) -> None:
        print(f"{args.home} serves {url}", flush=True)

    policies = tuple(map(parse_policy, args.policy))
    return process.run_node(Path(args.home), report, log_form=args.log, policies=policies)
