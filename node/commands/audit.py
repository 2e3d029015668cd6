"""`assay audit`: re-execute a node's chain from its home and check everything in it."""

from __future__ import annotations

import argparse

HELP = "re-execute the chain in a node's home and check every signature, certificate, score and root"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", required=True, metavar="DIR", help="the node's home; it may be running")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    import json
    import sys
    from dataclasses import asdict
    from pathlib import Path

    from node.audit import audit_home

    is_shown = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if done % 16 == 0 or done == total:  # a terminal shows no more than that
            print(f"\rblock {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    report = audit_home(Path(args.home), show if is_shown else None)
    if is_shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        counts = f"{report.blocks:,} blocks, {report.transactions:,} transactions, {report.seconds:.1f} s"
        if report.ok:
            print(f"everything holds: {counts}")
        else:
            print(f"block {report.first_bad_height} does not hold: {report.problem}")
            print(f"before it, all holds: {counts}")
    return 0 if report.ok else 1
