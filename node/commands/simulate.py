"""`assay simulate`: consensus in the deterministic world; every run is replayed by its seed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.simulation.config import SimulationConfig
    from node.simulation.faults import Partition
    from node.simulation.runs import Summary, Task
    from node.simulation.timeline import Timeline
    from node.simulation.world import World

HELP = "run consensus in a deterministic world of faults, and check that it holds"

# Option, type, what it says; the default is SimulationConfig's own.
OPTIONS: tuple[tuple[str, type, str], ...] = (
    ("nodes", int, "how many validators"),
    ("loss", float, "share of messages lost"),
    ("duplication", float, "share of messages delivered twice"),
    ("slow-share", float, "share of messages that take ten times as long"),
    ("latency-ms-max", int, "the longest that an ordinary message takes"),
    ("crashes", float, "chance of a crash at each boundary between effects"),
    ("crash-at", int, "crash whoever stands at the boundary of this number"),
    ("blackouts", float, "chance, each 400 ms, that all crash at once"),
    ("partitions", float, "chance, each 400 ms, of a new cut through the network"),
    ("slow-links", float, "chance, each 400 ms, that all that one node says becomes slow"),
    ("flipped-bits", float, "share of crashes that flip a bit of the journal"),
    ("full-disks", float, "chance, each 400 ms, that a disk is full"),
    ("failed-syncs", float, "chance, each 400 ms, that a disk fails to sync"),
    ("epoch-blocks", int, "blocks in an epoch; the next one's validators differ (default 0: no epochs)"),
    (
        "leader-election",
        str,
        "whole nodes with epochs: round_robin (default), or onion: drawn from what is revealed",
    ),
    ("joiners", int, "whole nodes, with epochs: nodes besides that bond and come from outside"),
    (
        "unrest",
        float,
        "whole nodes, with epochs: share of runs in which the absent are jailed and some leave",
    ),
    ("equivocators", int, "validators that show two faces"),
    ("absent", int, "validators that stay down after the world has healed"),
    ("lost-journals", float, "chance, each 400 ms, that a node goes down and its journal is gone"),
    ("restarts", float, "whole nodes: chance, each 400 ms, that one stops in order and comes back"),
    ("pauses", float, "whole nodes: chance, each 400 ms, that a process stands still for a while"),
    ("clock-skews", float, "whole nodes: chance, each 400 ms, that a wall clock is set, mostly wrong"),
    ("lost-stores", float, "whole nodes: chance, each 400 ms, that one goes down and loses all its blocks"),
    ("model-switches", int, "whole nodes: how often, at least, validators decide on models (default 0)"),
    ("clock", str, "whole nodes: wall (default), or workload: a block's time is its latest transaction's"),
    ("faulty-ms", int, "how long the faults last, in simulated ms"),
)
ALIASES = {"duplication": ("--duplicate",)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--full-nodes",
        action="store_true",
        help="whole nodes with clients, stores, gossip and sync instead of engines alone; every kind of "
        "fault is on, unless its option says otherwise",
    )
    for name, kind, text in OPTIONS:
        parser.add_argument(f"--{name}", *ALIASES.get(name, ()), type=kind, metavar="N", help=text)
    parser.add_argument("--stakes", metavar="N,N,…", help="the validators' stakes (default: all 1)")
    parser.add_argument(
        "--villain",
        action="append",
        default=[],
        metavar="NAME[@NODE]",
        help="a validator that lies; repeatable. A wrong name prints them all",
    )
    parser.add_argument(
        "--partition",
        action="append",
        default=[],
        metavar="A,B|C,D[@FROM-UNTIL]",
        help="sides that do not hear each other, from and until these ms (default: while the faults last)",
    )
    parser.add_argument(
        "--scenario", metavar="FILE", help="act out a scenario file instead, or one by its name"
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of the first run (default 1, or the scenario's)"
    )
    parser.add_argument(
        "--runs", type=int, default=1, metavar="K", help="runs, with seeds S, S + 1, … (default 1)"
    )
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--trace",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write what happened in the first run, line by line",
    )
    parser.add_argument("--html", metavar="FILE", help="draw the first run as a space-time diagram")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    import json

    from node.clock import SystemClock
    from node.simulation.runs import Summary, run_many

    task, seed = make_task(args)
    clock = SystemClock()
    started_ms = clock.monotonic_ms()
    summary = Summary()
    with _show_progress(args.runs) as show:
        for outcome in run_many(task, range(seed, seed + args.runs), args.jobs):
            summary.add(outcome)
            if outcome.violation:
                print(f"seed {outcome.seed}: {outcome.violation}", file=sys.stderr)
                print(f"  replay: {_format_replay(args, task, outcome.seed)}", file=sys.stderr)
            show(summary)
    seconds = max(1, clock.monotonic_ms() - started_ms) / 1000
    # A picture of what went wrong, if anything did.
    _write_pictures(args, task, summary.bad[0].seed if summary.bad else seed)
    report = {
        "runs": args.runs,
        "violations": len(summary.bad),
        "seed": seed,
        "trace_hash": summary.trace_hash,
        "views": summary.views,
        "finalized": summary.finalized,
        "runs_per_second": round(args.runs / seconds, 2),
    }
    if args.json:
        print(json.dumps(report))
    elif args.trace != "-":
        extra = {
            "epochs": summary.epochs,
            "crashes": summary.crashes,
            "evidence": summary.evidence,
            "simulated_seconds": round(summary.simulated_ms / 1000, 1),
            "simulated_seconds_per_second": round(summary.simulated_ms / 1000 / seconds, 1),
        }
        for name, value in (report | extra).items():
            print(f"{name.replace('_', ' '):29} {value}")
    return 1 if summary.bad else 0


def make_task(args: argparse.Namespace) -> tuple[Task, int]:
    """What to run, and the first seed. Raises Rejected."""
    from consensus.errors import Rejected
    from node.simulation.runs import ScenarioText

    if args.runs < 1:
        raise Rejected(f"{args.runs} runs are none", field="--runs", mend="use 1 or more")
    if args.jobs < 0:
        raise Rejected(
            f"{args.jobs} processes are none", field="--jobs", mend="use 1 or more, or 0 for all cores"
        )
    if args.trace == "-" and args.json:
        raise Rejected("both want the standard output", field="--trace", mend="name a file: --trace FILE")
    if args.scenario is None:
        return make_config(args), 1 if args.seed is None else args.seed
    given = [name for name, _, _ in OPTIONS if getattr(args, name.replace("-", "_")) is not None]
    if given or args.stakes or args.villain or args.partition or args.full_nodes:
        raise Rejected(
            "a scenario says all of that itself", field="--scenario", mend="leave the other options out"
        )
    from node.simulation.scenarios import load_scenario, parse_scenario

    text = load_scenario(args.scenario)
    scenario = parse_scenario(text)
    return ScenarioText(text), scenario.seed if args.seed is None else args.seed


def make_config(args: argparse.Namespace) -> SimulationConfig:
    """The configuration that the options describe. Raises Rejected."""
    from consensus.errors import Rejected
    from node.simulation.config import FULL_NODES, SimulationConfig

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
    faults = tuple(map(parse_partition, args.partition))
    plain = FULL_NODES if args.full_nodes else SimulationConfig()
    return replace(plain, **chosen, villains=tuple(args.villain), faults=faults)


def parse_partition(text: str) -> Partition:
    """ "0,1|2,3@500-1500" as a fault. Raises Rejected."""
    from consensus.errors import Rejected
    from node.simulation.faults import Partition

    sides, at, times = text.partition("@")
    first, _, last = times.partition("-")
    words = [side.split(",") for side in sides.split("|")]
    numbers = [word.strip() for side in words for word in side] + ([first, last] if at else [])
    if not all(number.isdecimal() for number in numbers):
        raise Rejected(
            f'"{text}" is no partition', field="--partition", mend='use e.g. "0,1|2,3" or "0|1,2@500-900"'
        )
    members = tuple(tuple(map(int, side)) for side in words)
    return Partition(members, int(first), int(last)) if at else Partition(members)


def format_replay(config: SimulationConfig, seed: int) -> str:
    """The one command that replays a run."""
    from node.simulation.config import FULL_NODES, SimulationConfig
    from node.simulation.faults import Partition

    plain = FULL_NODES if config.full_nodes else SimulationConfig()
    words = ["assay simulate --full-nodes" if config.full_nodes else "assay simulate"]
    for name, _, _ in OPTIONS:
        value = getattr(config, name.replace("-", "_"))
        if name == "nodes" or value != getattr(plain, name.replace("-", "_")):
            words.append(f"--{name} {value}")
    if config.stakes:
        words.append("--stakes " + ",".join(map(str, config.stakes)))
    words += [f"--villain {villain}" for villain in config.villains]
    for fault in config.faults:
        if isinstance(fault, Partition):
            sides = "|".join(",".join(map(str, side)) for side in fault.sides)
            times = "" if fault == Partition(fault.sides) else f"@{fault.from_ms}-{fault.until_ms}"
            words.append(f'--partition "{sides}{times}"')
    return " ".join([*words, f"--seed {seed}"])


def _format_replay(args: argparse.Namespace, task: Task, seed: int) -> str:
    from node.simulation.config import SimulationConfig

    if isinstance(task, SimulationConfig):
        return format_replay(task, seed)
    return f"assay simulate --scenario {args.scenario} --seed {seed}"


def _write_pictures(args: argparse.Namespace, task: Task, seed: int) -> None:
    """Run one seed again, with a timeline, for --trace and --html. Raises Rejected for a bad file."""
    if args.trace is None and args.html is None:
        return
    from node.simulation.diagram import draw_diagram
    from node.simulation.trace import format_trace

    config, timeline = watch(task, seed)
    if args.trace is not None:
        _write(args.trace, "\n".join(format_trace(timeline, config, seed)) + "\n", "--trace")
    if args.html is not None:
        replay = f"{_format_replay(args, task, seed)} --html {args.html}"
        _write(args.html, draw_diagram(timeline, config, seed, replay), "--html")


def watch(task: Task, seed: int) -> tuple[SimulationConfig, Timeline]:
    """Run one seed and keep what happens."""
    from node.simulation.config import SimulationConfig
    from node.simulation.engine_world import EngineWorld
    from node.simulation.timeline import Timeline

    timeline = Timeline()
    world: World
    if isinstance(task, SimulationConfig) and task.full_nodes:
        from node.simulation.full_nodes.world import NodeWorld

        world = NodeWorld(task, seed, timeline=timeline)
    elif isinstance(task, SimulationConfig):
        world = EngineWorld(task, seed, timeline=timeline)
    else:
        from node.simulation.scenarios import parse_scenario
        from node.simulation.scenarios.acting import make_stage

        world = make_stage(parse_scenario(task.text), seed)
        world.timeline = timeline
    world.run()
    return world.config, timeline


def _write(path: str, text: str, option: str) -> None:
    from consensus.errors import Rejected

    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Rejected(
            f'"{path}" cannot be written ({type(error).__name__})', field=option, mend="name another file"
        ) from None


class _Progress:
    """Shows how far it is, on a terminal."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._is_shown = sys.stderr.isatty()

    def __call__(self, summary: Summary) -> None:
        if self._is_shown:
            told = (
                f"\r{summary.runs} of {self._runs} runs, {summary.views} views, {len(summary.bad)} violations"
            )
            print(told, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._is_shown:
            print(file=sys.stderr)


@contextmanager
def _show_progress(runs: int) -> Iterator[_Progress]:
    progress = _Progress(runs)
    try:
        yield progress
    finally:
        progress.close()
