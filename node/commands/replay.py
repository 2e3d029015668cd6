"""`assay replay`: a workload through a running network, measured."""

from __future__ import annotations

import argparse

HELP = "replay a workload (CSV or CSV.gz) through a network, and measure pace, latency and quality"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workload", metavar="WORKLOAD", help="CSV or CSV.gz: t, sender, receiver, amount[, label]"
    )
    parser.add_argument("--home", metavar="DIR", help="a running local network's folder")
    parser.add_argument(
        "--api",
        action="append",
        default=[],
        metavar="URL",
        help="a node's base URL; may be given several times",
    )
    parser.add_argument("--key", metavar="FILE", help="key file of the account that funds (and may report)")
    parser.add_argument("--rate", type=int, default=0, metavar="N", help="at most N rows a second")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the workload's accounts (default 0)"
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="t=A,sender=B,…",
        help="the file's names for t, sender, receiver, amount, label",
    )
    parser.add_argument(
        "--label-delay",
        type=int,
        default=7,
        metavar="DAYS",
        help="days of the workload after which a label is reported on chain (default 7)",
    )
    parser.add_argument("--report", metavar="FILE", help="also write the report as JSON to FILE")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    from node.replay import command

    return command.run_replay(args)
