"""`assay` with each node of a local network under cProfile: python -m node.bench.profiled DIR localnet …

From when a node serves to its end, CPU time of its main thread (waiting counts nothing, nor does what
others do on the machine). When it ends, DIR/<node>.prof holds the figures (pstats), DIR/<node>.txt what
each file of ours costs a transaction, what it calls in libraries and in C included, and the functions that
cost most by themselves. The signature worker is a process of its own and is not in it. cProfile makes
Python code about twice as slow: read shares, not times.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from node import __main__, process

SHOWN: Final = 40
ROOT: Final = Path(process.__file__).parent.parent
TAKEN_IN: Final = ("node/mempool/mempool.py", "_take")  # called once for each transaction that comes in
# Where a transaction's way leads, with all that is called there; a door that no longer exists is left out.
DOORS: Final = (
    ("node/api/transactions.py", "submit"),
    ("node/mempool/mempool.py", "prepare"),
    ("node/mempool/mempool.py", "admit"),
    ("node/verification.py", "_submit"),
    ("node/verification.py", "_finish"),
    ("node/network/gossip.py", "push"),
    ("node/network/gossip.py", "_flush_pushes"),
    ("node/network/wire.py", "encode_frame"),
    ("node/network/wire.py", "decode_frame"),
    ("node/mempool/mempool.py", "select"),
    ("node/blocks/proposer.py", "build"),
    ("consensus/ledger/building.py", "build_block"),
    ("node/blocks/judge.py", "_run"),
    ("consensus/ledger/execution.py", "check_block"),
    ("node/blocks/finality.py", "commit"),
    ("node/mempool/mempool.py", "on_final"),
    ("node/store/store.py", "put_final"),
    ("node/herald.py", "on_final"),
)
PASSES: Final = 12  # as deep as libraries call one another below our code; the rest stays theirs

Function = tuple[str, int, str]  # file, line, name


def profile_nodes(folder: Path) -> None:
    """From now on a node that this process (or a child of it) runs is profiled."""
    run_node = process.run_node

    def run_profiled(home: Path, report_ready: Callable[[str], None], *args: Any, **kwargs: Any) -> int:
        profile = cProfile.Profile(time.thread_time)

        def report(url: str) -> None:
            report_ready(url)
            profile.enable()

        try:
            return run_node(home, report, *args, **kwargs)
        finally:
            profile.disable()
            profile.dump_stats(folder / f"{home.name}.prof")
            with (folder / f"{home.name}.txt").open("w", encoding="utf-8") as stream:
                stats = pstats.Stats(profile, stream=stream)
                stream.write(describe_files(stats.stats))  # type: ignore[attr-defined]
                stream.write(describe_doors(stats.stats))  # type: ignore[attr-defined]
                stats.sort_stats("tottime").print_stats(SHOWN)

    process.run_node = run_profiled


def describe_files(stats: Mapping[Function, Any]) -> str:
    """A line for each file: its share, and microseconds a transaction where any came in."""
    costs = attribute(stats)
    total = sum(costs.values()) or 1.0
    taken_in = sum(
        entry[1] for function, entry in stats.items() if (name_file(function), function[2]) == TAKEN_IN
    )
    lines = [f"{total:.2f} s of CPU, {taken_in:,} transactions came in", ""]
    for name, seconds in sorted(costs.items(), key=lambda item: -item[1])[:SHOWN]:
        each = f"{1e6 * seconds / taken_in:8.2f} us" if taken_in else ""
        lines.append(f"{seconds / total:7.1%} {each}  {name}")
    return "\n".join(lines) + "\n\n"


def describe_doors(stats: Mapping[Function, Any]) -> str:
    """What passes through each door costs, all that is called behind it included: they overlap."""
    found = {(name_file(function), function[2]): entry for function, entry in stats.items()}
    total = sum(entry[2] for entry in stats.values()) or 1.0
    doors = [(found[door][3], *door) for door in DOORS if door in found]
    lines = [f"{seconds / total:7.1%}  {name} in {file}, all told" for seconds, file, name in doors]
    return "\n".join(lines) + "\n\n"


def attribute(stats: Mapping[Function, Any]) -> dict[str, float]:
    """Seconds by file of ours; what is not ours is charged to who called it, up to PASSES calls deep."""
    costs: dict[str, float] = defaultdict(float)
    foreign: dict[Function, float] = {}
    for function, (_, _, own, _, _) in stats.items():
        name = name_file(function)
        if name:
            costs[name] += own
        else:
            foreign[function] = own
    for _ in range(PASSES):
        passed: dict[Function, float] = defaultdict(float)
        for function, seconds in foreign.items():
            # (calls, primitive calls, own, cumulative) of this function as each caller called it
            callers = {who: numbers[2] for who, numbers in stats[function][4].items() if who in stats}
            whole = sum(callers.values())
            if not whole:
                costs[name_library(function)] += seconds
                continue
            for who, own in callers.items():
                name = name_file(who)
                if name:
                    costs[name] += seconds * own / whole
                else:
                    passed[who] += seconds * own / whole
        foreign = passed
    for function, seconds in foreign.items():
        costs[name_library(function)] += seconds
    return dict(costs)


def name_file(function: Function) -> str:
    """Its file within the project; "" for what is not ours."""
    path = Path(function[0])
    if not path.is_relative_to(ROOT) or ".venv" in path.parts:
        return ""
    return path.relative_to(ROOT).as_posix()


def name_library(function: Function) -> str:
    """What it belongs to: a package, or C."""
    parts = Path(function[0]).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "event loop and library" if function[0] != "~" else "C, called by the event loop"


def main(arguments: list[str]) -> int:
    folder, *rest = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)
    profile_nodes(Path(folder))
    return __main__.main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
