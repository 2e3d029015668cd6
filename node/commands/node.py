"""`assay node`: run one node from its home, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse

HELP = "run one node from its home (one that `init` or `localnet` made), until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", required=True, metavar="DIR", help="the node's home folder")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="form of the log on stderr")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from node import process

    def report(url: str) -> None:
        print(f"{args.home} serves {url}", flush=True)

    return process.run_node(Path(args.home), report, log_form=args.log)
