"""`assay module`: what is installed, and whether a module keeps its contract."""

from __future__ import annotations

import argparse

HELP = "list installed modules; hold one against its contract"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = commands.add_parser("list", help="installed consensus and policy modules")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    check = commands.add_parser("check", help="try determinism, bounds, purity, explanations and cost")
    check.add_argument("name", metavar="NAME", help="an installed module, or package.module:function")
    check.add_argument(
        "--artifact", metavar="FILE", help="of a consensus module (default: what ships for it, or none)"
    )
    check.add_argument("--policy", action="store_true", help="NAME is a policy module")
    check.add_argument(
        "--config", metavar="CONFIG", help="a policy module's settings: a JSON file or key=value,…"
    )
    check.add_argument("--seed", type=int, default=1, metavar="S", help="of what it is tried on (default 1)")
    check.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Exit code 1 when a check failed. Raises Rejected for a module that is not there."""
    from node.conformance import command

    return command.list_installed(args) if args.action == "list" else command.check_module(args)
