"""`assay simulate`: consensus in the deterministic world; every run is replayed by its seed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.simulation.world import Outcome, SimulationConfig

HELP = "run consensus in a deterministic world of faults, and check that it holds"

# Option, type, what it says; the default is SimulationConfig's own.
OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("nodes", int, "how many validators"),
    ("loss", float, "share of messages lost"),
    ("duplication", float, "share of messages delivered twice"),
    ("crashes", float, "chance of a crash at each boundary between effects"),
    ("crash-at", int, "crash whoever stands at the boundary of this number"),
    ("blackouts", float, "chance, each second, that all crash at once"),
    ("partitions", float, "chance, each second, of a new cut through the network"),
    ("equivocators", int, "validators that show two faces"),
    ("absent", int, "validators that stay down after the world has healed"),
    ("faulty-ms", int, "how long the faults last, in simulated ms"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, kind, text in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    parser.add_argument("--stakes", metavar="N,N,…", help="the validators' stakes (default: all 1)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first run (default 1)")
    parser.add_argument(
        "--runs", type=int, default=1, metavar="K", help="runs, with seeds S, S + 1, … (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    import hashlib
    import json
    import sys

    from consensus.errors import Rejected
    from node.clock import SystemClock
    from node.simulation.world import simulate

    if args.runs < 1:
        raise Rejected(f"{args.runs} runs are none", field="--runs", mend="use 1 or more")
    config = make_config(args)
    clock = SystemClock()
    started_ms = clock.monotonic_ms()
    hashes = hashlib.sha256()
    views = finalized = 0
    bad: list[Outcome] = []
    outcome = None
    for number in range(args.runs):
        outcome = simulate(config, args.seed + number)
        hashes.update(bytes.fromhex(outcome.trace_hash))
        views += outcome.views
        finalized += outcome.finalized
        if outcome.violation:
            bad.append(outcome)
            print(f"seed {outcome.seed}: {outcome.violation}", file=sys.stderr)
            print(f"  replay: {format_replay(config, outcome.seed)}", file=sys.stderr)
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {args.runs} runs, {len(bad)} violations", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    assert outcome is not None
    seconds = max(1, clock.monotonic_ms() - started_ms) / 1000
    report = {
        "runs": args.runs,
        "violations": len(bad),
        "seed": args.seed,
        # Of one run its own; of several the hash over theirs, in order.
        "trace_hash": outcome.trace_hash if args.runs == 1 else hashes.hexdigest(),
        "views": views,
        "finalized": finalized,
        "runs_per_second": round(args.runs / seconds, 2),
    }
    if args.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name.replace('_', ' '):16} {value}")
    return 1 if bad else 0


def make_config(args: argparse.Namespace) -> SimulationConfig:
    """The configuration that the options describe. Raises Rejected."""
    from consensus.errors import Rejected
    from node.simulation.world import SimulationConfig

    names = [name.replace("-", "_") for name, _, _ in OPTIONS]
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.stakes is not None:
        words = args.stakes.split(",")
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            raise Rejected(
                f'"{args.stakes}" is not a list of stakes', field="--stakes", mend="use e.g. 3,2,2,1"
            )
        chosen["stakes"] = tuple(map(int, words))
        chosen.setdefault("nodes", len(words))
    return SimulationConfig(**chosen)


def format_replay(config: SimulationConfig, seed: int) -> str:
    """The one command that replays a run."""
    from node.simulation.world import SimulationConfig

    plain = SimulationConfig()
    words = ["assay simulate"]
    for name, _, _ in OPTIONS:
        value = getattr(config, name.replace("-", "_"))
        if name == "nodes" or value != getattr(plain, name.replace("-", "_")):
            words.append(f"--{name} {value}")
    if config.stakes:
        words.append("--stakes " + ",".join(map(str, config.stakes)))
    return " ".join([*words, f"--seed {seed}"])
