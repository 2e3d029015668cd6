"""`assay bench`: the table of budgets, measured beside the raw rate of signature checks."""

from __future__ import annotations

import argparse

HELP = "measure every row of the performance budget beside the raw rate of signature checks"
SWEEPS = ("accounts", "block_size", "validators", "mempool", "history", "message_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help="only this row, or all rows of one measurement; repeatable. Not in the table unless asked for: "
        "overload, long_run. A wrong name prints them all",
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("OLD", "NEW"), help="compare two files that --json wrote"
    )
    parser.add_argument(
        "--sweep", choices=SWEEPS, help="one dimension from small to large, as points and a plot"
    )
    parser.add_argument("--minutes", type=float, metavar="N", help="how long the long run lasts (default 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of keys and transactions (default 1)"
    )
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="where chains and signed transactions lie (default: a folder of yours in the temporary one)",
    )
    parser.add_argument(
        "--profile", metavar="DIR", help="run the validators under cProfile, figures into DIR"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="also write the JSON to FILE; of a sweep the plot, beside its .json"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    from node.bench.run import run_bench

    return run_bench(args)
