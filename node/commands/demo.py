"""`assay demo`: the main job in one command."""

from __future__ import annotations

import argparse

HELP = "four validators on this machine, a labelled workload replayed through them, a report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", metavar="DIR", help="keep the network here (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of the workload (default 7)")
    parser.add_argument(
        "--transactions", type=int, default=9_000, metavar="N", help="about as many rows (default 9000)"
    )
    parser.add_argument("--report", metavar="FILE", help="also write the report as JSON to FILE")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    from node import demo

    return demo.run_demo(args)
