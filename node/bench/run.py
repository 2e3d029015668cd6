"""The order of it all: which measurements, the raw rate around each, what fails, what is printed.

Every measurement stands between two raw measurements and is quoted by their mean: a machine that slows
down slows both. One that fails leaves its rows without a value and the others go on. Exit code 0 when
everything that was asked for could be measured (a budget that is missed informs, it fails nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final

from consensus.codec import check_int
from consensus.errors import AssayError, Fault, Rejected
from node import config
from node.bench import (
    catch_up,
    growth,
    idle,
    ledger_rows,
    long_run,
    network_rows,
    overload,
    simulation_rows,
    sweeps,
    table,
)
from node.bench.compare import compare_rows, describe_differences, form_differences, read_document
from node.bench.context import SMALL, Bench, Sizes, choose_folder, remove_leftovers
from node.bench.raw import RawRate
from node.bench.table import SPECS, Row, make_row

MINUTES_MAX: Final = 600.0


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that one measurement yields. is_default: part of the table; others are asked for by name."""

    name: str
    rows: tuple[str, ...]
    measure: Callable[[Bench], dict[str, float]]
    is_default: bool = True


def _list_rows(prefix: str) -> tuple[str, ...]:
    return tuple(spec.name for spec in SPECS if spec.name.startswith(prefix))


GROUPS: Final = (
    Group("score", ("score_us_per_tx",), ledger_rows.measure_scoring),
    Group("reexecution", ("reexecute", "reexecute_all_cores"), ledger_rows.measure_reexecution),
    Group("one_validator", ("one_validator_tps",), network_rows.measure_one_validator),
    Group(
        "four_validators",
        (
            "four_validator_tps",
            "latency_loaded_p50_ms",
            "latency_loaded_p99_ms",
            "load_us_per_tx",
            "store_bytes_per_tx",
        ),
        network_rows.measure_four_validators,
    ),
    Group(
        "latency_unloaded",
        ("latency_unloaded_p50_ms", "latency_unloaded_p99_ms"),
        network_rows.measure_unloaded_latency,
    ),
    Group("idle", ("idle_cpu_percent", "idle_rss_mb"), idle.measure_idle),
    Group("start", ("first_final_seconds", "all_up_seconds"), idle.measure_starts),
    Group("joiner", ("catch_up",), catch_up.measure_catch_up),
    Group(
        "growth",
        (
            "block_cost_growth",
            "million_accounts_rss_mb",
            "million_accounts_peak_mb",
            "block_us_per_tx",
            "block_us_per_tx_million",
        ),
        growth.measure_growth,
    ),
    Group("engines", ("simulate_engines",), simulation_rows.measure_engines),
    Group("nodes", ("simulate_nodes",), simulation_rows.measure_nodes),
    Group("overload", _list_rows("overload"), overload.measure_overload, is_default=False),
    Group("long_run", _list_rows("long_run"), long_run.measure_long_run, is_default=False),
)


def run_bench(args: argparse.Namespace) -> int:
    """The command. Raises Rejected for bad use."""
    if args.compare:
        return _compare(*args.compare, as_json=args.json)
    wanted = choose_rows(args.row)
    sizes = SMALL if args.quick else Sizes()
    if args.minutes is not None:
        if not 0 < args.minutes <= MINUTES_MAX:
            raise Rejected(
                f"{args.minutes:g} is out of range", field="--minutes", mend=f"use up to {MINUTES_MAX:.0f}"
            )
        sizes = replace(sizes, minutes=args.minutes)
    check_int(args.seed, "--seed", high=2**31 - 1)
    if args.output is not None and not Path(args.output).absolute().parent.is_dir():
        raise Rejected(
            "cannot be written there", field=f"--output {args.output}", mend="choose another place"
        )
    folder = choose_folder(args.home)
    prepare_folder(folder)
    profiles = None if args.profile is None else Path(args.profile).absolute()
    with _end_on_sigterm(), _Progress() as progress:
        bench = Bench(folder.absolute(), args.seed, sizes, progress.say, profiles)
        if args.sweep is not None:
            return sweeps.run_sweep(bench, args.sweep, args.output, as_json=args.json)
        raw_per_second, rows = measure_rows(bench, wanted, progress.enter)
    document = json.dumps(table.form_document(raw_per_second, rows), indent=1)
    if args.output is not None:
        config.write_file(Path(args.output), document + "\n")
    print(document if args.json else table.describe(raw_per_second, rows, bench.notes))
    if args.json:
        for note in bench.notes:
            print(f"assay bench: {note}", file=sys.stderr)
    return 1 if any(row.value is None for row in rows) else 0


def choose_rows(names: Sequence[str]) -> tuple[str, ...]:
    """Names of rows, or of measurements for all their rows, in the table's order; [] is the whole table."""
    if not names:
        chosen = {row for group in GROUPS if group.is_default for row in group.rows}
    else:
        by_name = {group.name: set(group.rows) for group in GROUPS}
        by_name.update({spec.name: {spec.name} for spec in SPECS})
        for name in names:
            if name not in by_name:
                known = ", ".join([*(group.name for group in GROUPS), *(spec.name for spec in SPECS)])
                raise Rejected(f'"{name}" is not a row', field="--row", mend=f"use one of {known}")
        chosen = {row for name in names for row in by_name[name]}
    return tuple(spec.name for spec in SPECS if spec.name in chosen)


def measure_rows(
    bench: Bench, wanted: Sequence[str], enter: Callable[[str], None]
) -> tuple[float, list[Row]]:
    """The mean raw rate and the wanted rows, in the table's order."""
    raw = RawRate(bench.sizes.raw_items)
    values: dict[str, tuple[float | None, float]] = {}
    before = raw.measure()
    for group in GROUPS:
        if not set(group.rows) & set(wanted):
            continue
        enter(group.name)
        found: dict[str, float] = {}
        try:
            found = group.measure(bench)
        except AssayError as error:
            bench.notes.append(f"{group.name} failed: {error}")
        except OSError as error:
            fault = Fault(f"the system refused ({error.strerror or error})", field=group.name)
            bench.notes.append(f"{group.name} failed: {fault}")
        after = raw.measure()
        for name in group.rows:
            values[name] = found.get(name), (before + after) / 2
        before = after
    mean = sum(raw.measurements) / len(raw.measurements)
    return mean, [make_row(name, *values[name]) for name in wanted]


def prepare_folder(folder: Path) -> None:
    """Raises Rejected unless it is ours to write in; what is in it was signed by us."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise Rejected(
            f"cannot be used ({error.strerror})", field=f"--home {folder}", mend="choose another folder"
        ) from None
    if owner != os.getuid():
        raise Rejected("belongs to somebody else", field=f"--home {folder}", mend="choose another folder")
    remove_leftovers(folder)


def _compare(old: str, new: str, *, as_json: bool) -> int:
    differences = compare_rows(read_document(Path(old)), read_document(Path(new)))
    print(
        json.dumps(form_differences(differences), indent=1) if as_json else describe_differences(differences)
    )
    return 0


@contextmanager
def _end_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that nobody is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


class _Progress:
    """One line on a terminal, nothing in a pipe."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._group = ""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def enter(self, group: str) -> None:
        self._group = group
        self.say("")

    def say(self, text: str) -> None:
        if self._is_shown:
            print(f"\r\x1b[K{self._group}{': ' if text else ''}{text}", end="", file=sys.stderr, flush=True)
