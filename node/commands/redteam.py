"""`assay redteam`: fraudsters who know the model, and what they get past it."""

from __future__ import annotations

import argparse

HELP = "play fraudsters' strategies against the model, offline or on a running network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="a model file (default: the one that ships)")
    parser.add_argument(
        "--strategy",
        metavar="A,B",
        help="only these (and the naive one), e.g. splitting,slow-drip (default: all)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first town (default 1)")
    parser.add_argument("--seeds", type=int, metavar="N", help="towns (default 5; 1 on a running network)")
    for name, default, words in (
        ("accounts", 400, "of a town"),
        ("per-day", 400, "payments of a town"),
        ("history-days", 35, "before the campaign"),
        ("days", 28, "that a campaign may last"),
        ("victims", 12, "in each town"),
        ("goal-means", 10, "usual payments wanted of each victim"),
        ("delay-days", 7, "until a victim's report comes"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{words} (default {default})"
        )
    parser.add_argument("--home", metavar="DIR", help="strike a running local network instead")
    parser.add_argument(
        "--api", action="append", default=[], metavar="URL", help="strike these nodes; needs --key"
    )
    parser.add_argument("--key", metavar="FILE", help="key file of the account that funds (and may report)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from node.redteam import command

    return command.run_redteam(args)
