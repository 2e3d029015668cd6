"""What `assay redteam` does around the campaigns: arguments, the model, the table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from consensus.codec import check_int
from consensus.errors import Rejected
from consensus.ledger.judging import Seat
from consensus.parameters import Parameters
from ml.fraud import FraudModule, load, read_default_artifact
from node import config
from node.clock import SystemClock
from node.modules import make_rules, read_model_file
from node.redteam.campaign import Result, Sizes, prepare_stage, run_all, run_campaign, summarize
from node.redteam.live import build_plan, check_clock, is_dated, strike
from node.redteam.scene import Strategy
from node.redteam.strategies import STRATEGIES
from node.replay.command import find_target
from node.replay.display import Display

SEEDS_DEFAULT: Final = 5
SEEDS_MAX: Final = 1_000
HEADS: Final = (
    "strategy",
    "gets past",
    "spread",
    "x naive",
    "of it marked",
    "payments",
    "refused",
    "fees",
    "accounts",
    "days",
)

Json = dict[str, Any]


def run_redteam(args: argparse.Namespace) -> int:
    """Exit code 0 whatever gets past: it is a measurement. Raises Rejected."""
    sizes = Sizes(
        accounts=args.accounts,
        per_day=args.per_day,
        history_days=args.history_days,
        days=args.days,
        victims=args.victims,
        goal_means=args.goal_means,
        delay_days=args.delay_days,
    )
    strategies = choose_strategies(args.strategy)
    is_live = args.home is not None or bool(args.api)
    count = args.seeds if args.seeds is not None else (1 if is_live else SEEDS_DEFAULT)
    check_int(count, "--seeds", low=1, high=SEEDS_MAX)
    check_int(args.seed, "--seed", high=2**31)
    seeds = range(args.seed, args.seed + count)
    begun = time.perf_counter()
    model: Json = {}
    if is_live:
        results, planned = _run_live(args, strategies, sizes, seeds, model)
    else:
        module = _load_model(args.model)
        model |= {"name": module.name, "digest": "0x" + module.digest.hex()}
        seat = Seat(module, module.thresholds, slice(0, module.row_bytes))
        results, planned = run_all(strategies, (seat,), sizes, seeds, Parameters(), _show), []
    rows = summarize(results)
    document = {
        "model": model,
        "live": is_live,
        "sizes": {name: getattr(sizes, name) for name in Sizes.__slots__},
        "seeds": list(seeds),
        "strategies": rows,
        "planned": summarize(planned),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    print(json.dumps(document) if args.json else describe(document, strategies))
    return 0


def choose_strategies(names: str | None) -> tuple[Strategy, ...]:
    """By names with commas between; the naive one is always among them, as what the others are measured by."""
    if names is None:
        return STRATEGIES
    known = {strategy.name.replace(" ", "-"): strategy for strategy in STRATEGIES}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise Rejected(
                f'"{name}" is no strategy', field="--strategy", mend=f"use some of {', '.join(known)}"
            )
    return tuple(s for name, s in known.items() if name in wanted or s is STRATEGIES[0])


def _load_model(path: str | None) -> FraudModule:
    return load(read_default_artifact() if path is None else read_model_file(Path(path)))


def _run_live(
    args: argparse.Namespace, strategies: Sequence[Strategy], sizes: Sizes, seeds: Sequence[int], model: Json
) -> tuple[list[Result], list[Result]]:
    """What became final, and what was planned."""
    target = find_target(args.home, args.api, args.key)
    check_clock(target)
    if args.home is not None:
        home = Path(args.home) / "node0"
        genesis = config.read_genesis(home)
        rules = make_rules(genesis, home)
        seats = rules.find_panel(rules.create_genesis_state().view()).seats
        parameters = genesis.parameters
    else:
        module = _load_model(args.model)
        seats, parameters = (Seat(module, module.thresholds, slice(0, module.row_bytes)),), Parameters()
    model["modules"] = [{"name": s.module.name, "digest": "0x" + s.module.digest.hex()} for s in seats]
    run = str(SystemClock().now_ms())
    results, planned = [], []
    for seed in seeds:
        stage = prepare_stage(seats, sizes, seed)
        for strategy in strategies:
            result = run_campaign(strategy, stage, sizes, parameters)
            if is_dated(result):
                print(
                    f"  {strategy.name}: offline only, for a replay's rows go forward in time",
                    file=sys.stderr,
                )
                continue
            planned.append(result)
            print(f"  {strategy.name}, seed {seed} …", file=sys.stderr)
            plan = build_plan(stage, planned[-1], sizes, run)
            with Display() as display:
                results.append(strike(target, plan, planned[-1], sizes, display.show))
    return results, planned


def _show(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {what} {done} of {total}\033[K", end="" if done < total else "\r\033[K", file=sys.stderr)


def describe(document: Mapping[str, Any], strategies: Sequence[Strategy]) -> str:
    """The table for people: shares of what the fraudsters were after."""
    sizes = document["sizes"]
    table = [list(HEADS)]
    for row in document["strategies"]:
        marked = row["flagged"] / row["past"] if row["past"] else 0.0
        table.append(
            [
                row["strategy"],
                f"{row['share_past']:.1%}",
                f"± {row['share_past_spread']:.1%}",
                "" if row["times_naive"] is None else f"{row['times_naive']:.1f}",
                f"{marked:.0%}",
                f"{row['payments']:.0f}",
                f"{row['payments_refused']:.0f}",
                f"{row['fees']:.0f}",
                f"{row['accounts']:.0f}",
                f"{row['days']:.1f}",
            ]
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
    who = f"{sizes['victims']} victims in each of {len(document['seeds'])} towns"
    what = f"{sizes['goal_means']} usual payments of each are wanted within {sizes['days']} days"
    lines = [f"  {who}; {what}", ""]
    for line in table:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        lines.append(f"  {first.strip():{widths[0]}}  {'  '.join(rest)}")
    lines.append("")
    width = max(len(strategy.name) for strategy in strategies)
    lines += [f"  {strategy.name:{width}}  {strategy.words}" for strategy in strategies]
    if document["planned"]:
        lines += ["", "  as planned offline:"]
        lines += [f"  {row['strategy']:{width}}  {row['share_past']:.1%}" for row in document["planned"]]
    honest = {row["strategy"]: row["honest_refused"] for row in document["strategies"]}
    lines += ["", f"  the town's honest payments refused meanwhile: {next(iter(honest.values())):.0f} a town"]
    return "\n".join(lines)
