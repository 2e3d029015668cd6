"""`assay`: finds the command, runs it, turns errors into one line and an exit code.

Invariant: 0 when the command did what it says, 2 for bad use, 1 for a failed run; bad input never
shows a traceback. A command's module is imported only when it is the one asked for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from consensus.errors import AssayError, Rejected

# In the order a newcomer meets them. Each is `node/commands/<name>.py`; the line is shown by --help
# here, so that help needs no import of the stack (0.4 s).
COMMANDS: Final = {
    "demo": "four validators, a labelled workload replayed through them, a report",
    "localnet": "start a local network in the foreground",
    "replay": "replay a workload (CSV) through a network and measure it",
    "explain": "why one transaction was accepted, flagged or refused",
    "status": "a node's head, finality, peers and model",
    "send": "send a transfer",
    "tx": "one transaction: its place, score and proof",
    "account": "one account: balance, nonce, history",
    "block": "one block: header, transactions with scores, certificate",
    "validators": "who stakes and votes",
    "stake": "bond, delegate, unbond, withdraw, unjail; where one's stake stands",
    "report": "report a fraud, take it back, contradict it, vote about it; who may report",
    "verify": "check a node's word against a checkpoint, by proofs",
    "audit": "re-execute a node's chain and check everything",
    "model": "train, evaluate and inspect the fraud model",
    "module": "list installed modules; hold one against its contract",
    "redteam": "play fraudsters' strategies against the model, and count what gets past it",
    "init": "make the home of one node by hand",
    "node": "run one node from its home",
    "simulate": "consensus in a deterministic world, with faults",
    "bench": "measure the performance budget, every row beside the raw rate of signature checks",
}

PATH_SHOWN_MAX: Final = 120  # characters of a path that is too long to be one


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Rejected(message, mend=f"see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the bare command; a command's own arguments are added when it is chosen."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{words}" for name, words in COMMANDS.items()]
    parser = _Parser(
        prog="assay",
        description="A proof-of-stake node that scores every transaction before it is final.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nassay COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="assay COMMAND [options]",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below")
    return parser


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line. Raises AssayError; returns the exit code."""
    parser = build_parser()
    if not arguments or arguments[0].startswith("-"):
        options = parser.parse_args(arguments)
        if options.version:
            from importlib.metadata import version

            print(f"assay {version('assay-node')}")
            return 0
        parser.print_help()
        return 2
    name, *rest = arguments
    if name not in COMMANDS:
        raise Rejected(f'"{name}" is not a command', mend="see `assay --help`")
    command = importlib.import_module(f"node.commands.{name}")
    own = _Parser(prog=f"assay {name}", description=command.HELP)
    command.add_arguments(own)
    code: int = command.run(own.parse_args(rest))
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """The console entry point: exit code 0, 1 (a failed run) or 2 (bad use)."""
    try:
        return run_command(sys.argv[1:] if arguments is None else arguments)
    except Rejected as error:
        print(f"assay: {error}", file=sys.stderr)
        return 2
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("assay: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`assay … | head`): nothing left to say, and no traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:  # no path of the user's: an error of ours, shown whole
            raise
        reason = (error.strerror or type(error).__name__).lower()
        told = Rejected(reason, field=str(error.filename)[:PATH_SHOWN_MAX], mend="check the path")
        print(f"assay: {told}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
