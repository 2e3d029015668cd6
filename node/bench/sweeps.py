"""One dimension after another, from small to large: points as JSON, curves as a picture.

Each answers one question: does what a transaction costs grow with the number of accounts, the size of a
block, the validators on one machine, what waits in the mempool, the length of the history, the size of a
message? Invariant: a point is a median of several measurements, none of them the first. A point that
cannot be measured is left out and said so. Not part of the table: some take minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from consensus.errors import AssayError, Fault
from node import config
from node.bench import network_rows, scales
from node.bench.context import Bench
from node.bench.offspring import run_apart
from node.bench.plot import Curve, draw_curves

Values = Mapping[str, float]  # what was measured at one point, by name

VALIDATOR_SWEEP_S: Final = (
    8.0  # for each number of validators, and what many need to settle and to be counted
)
VALIDATOR_WAITING: Final = (
    40_000  # all mempools together: some seconds of what the machine makes final for all
)


@dataclass(frozen=True, slots=True)
class Sweep:
    """title and x_name: for the picture. points: what is stepped through. measure: one point."""

    title: str
    x_name: str
    y_name: str
    points: tuple[int, ...]
    measure: Callable[[Bench, int], Values]


def _measure_apart(work: Callable[..., Values]) -> Callable[[Bench, int], Values]:
    """In a fresh process: no point inherits another one's memory."""

    def measure(bench: Bench, point: int) -> Values:
        found: Values = run_apart(work, bench.seed, point, bench.sizes.growth_blocks)
        return found

    return measure


def _measure_validators(bench: Bench, nodes: int) -> Values:
    """As the table's rows, but many on one machine are given longer, and less waits: each does all of the work."""
    sizes = bench.sizes
    if not sizes.is_small:
        sizes = replace(
            sizes,
            ramp_s=max(sizes.ramp_s, nodes),
            window_s=max(VALIDATOR_SWEEP_S, 2 * nodes),
            waiting_max=min(sizes.waiting_max, VALIDATOR_WAITING // nodes),
        )
    one = Bench(bench.folder, bench.seed, sizes, bench.say)
    return {"final on all, tx/s": network_rows.measure_sustained(one, nodes)}


SWEEPS: Final[Mapping[str, Sweep]] = {
    "accounts": Sweep(
        "A block of 1,000, by accounts in the state",
        "accounts",
        "per transaction, us; resident, MB",
        (1_000, 10_000, 100_000, 1_000_000),
        _measure_apart(scales.measure_accounts),
    ),
    "block_size": Sweep(
        "A transaction, by transactions in its block (100,000 accounts)",
        "transactions in a block",
        "per transaction, us",
        (10, 100, 1_000, 10_000),
        _measure_apart(scales.measure_block_size),
    ),
    "validators": Sweep(
        "Sustained rate, by validators on this machine",
        "validators",
        "tx/s",
        (1, 2, 4, 8, 16, 32),
        _measure_validators,
    ),
    "mempool": Sweep(
        "A transaction's way through the mempool, by how many wait there",
        "waiting transactions",
        "per transaction, us",
        (1_000, 10_000, 100_000),
        _measure_apart(scales.measure_mempool),
    ),
    "history": Sweep(
        "A chain of blocks of one transaction, by its length",
        "blocks",
        "see the legend",
        (1_000, 10_000, 100_000),
        _measure_apart(scales.measure_history),
    ),
    "message_size": Sweep(
        "A frame to a peer and its answer, by size",
        "bytes",
        "ms",
        (100, 1_000, 10_000, 100_000, 1_000_000),
        _measure_apart(scales.measure_messages),
    ),
}


def run_sweep(bench: Bench, name: str, output: str | None, *, as_json: bool) -> int:
    """Measure a sweep's points, write picture and points, print them. The exit code."""
    sweep = SWEEPS[name]
    steps = sweep.points[:2] if bench.sizes.is_small else sweep.points
    points: list[dict[str, float]] = []
    for step in steps:
        bench.say(f"{sweep.x_name}: {step:,}")
        try:
            points.append({"x": step, **sweep.measure(bench, step)})
        except AssayError as error:
            bench.notes.append(f"{sweep.x_name} {step:,} failed: {error}")
    if not points:
        raise Fault("; ".join(bench.notes), field=name)
    document = json.dumps({"sweep": name, "x": sweep.x_name, "y": sweep.y_name, "points": points}, indent=1)
    if output is not None:
        picture = Path(output)
        config.write_file(picture.with_suffix(".json"), document + "\n")
        curves = make_curves(points)
        config.write_file(
            picture.with_suffix(".svg"), draw_curves(sweep.title, sweep.x_name, sweep.y_name, curves)
        )
    if as_json:
        print(document)
    else:
        for point in points:
            told = "  ".join(f"{key} {value:,.4g}" for key, value in point.items() if key != "x")
            print(f"{sweep.x_name} {point['x']:>9,}:  {told}")
        print("\n".join(bench.notes))
    return 1 if bench.notes else 0


def make_curves(points: list[dict[str, float]]) -> list[Curve]:
    """One curve for each name, over the points that have it."""
    names = [name for name in points[0] if name != "x"]
    return [
        Curve(name, tuple((point["x"], point[name]) for point in points if point.get(name, 0) > 0))
        for name in names
    ]
