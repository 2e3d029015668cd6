"""The demo: a network of four on free ports, a synthetic town's payments through it, what was caught and why.

Everything is real: the nodes are those of `localnet`, the replay is that of `assay replay`, labels reach
the chain as reports a week late. Nodes are forked before any loop or thread exists and end with this
process, however it ends. Invariant: exit code 0 only if transactions became final, some were flagged and
refused, three refusals could be explained, nothing failed, and all nodes hold one state root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from consensus import crypto
from consensus.codec import check_int
from consensus.ledger.scoring import FLAG
from consensus.parameters import DAY_MS
from ml import synthetic
from node import home, localnet, process
from node.clock import SystemClock
from node.replay import command
from node.replay.display import Display
from node.replay.http_network import HttpNetwork
from node.replay.network import Explained, NodeAway
from node.replay.outcomes import FINAL, REFUSED, Outcomes
from node.replay.session import Replay
from node.replay.settings import ReplayOptions
from node.replay.summary import describe

NODES: Final = 4
DAYS: Final = 30  # labels come a week late: three weeks are left to learn from them
ACCOUNTS: Final = 400
FUNDING_DAYS: Final = 30  # of the chain's clock before the workload begins; funding moves it a little
BLOCK_INTERVAL_MS: Final = 1_000
TRANSACTIONS_MIN: Final = 1_000
EXPLAINED: Final = 3

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A refused row and why. pattern: the generator's name for it, "clean" for an honest one."""

    row: int
    transaction_id: bytes
    sender: str
    receiver: str
    amount: int
    pattern: str
    verdict: Explained


def run_demo(args: argparse.Namespace) -> int:
    check_int(args.transactions, "--transactions", low=TRANSACTIONS_MIN, high=synthetic.ROWS_MAX)
    check_int(args.seed, "--seed", high=2**63 - 1)
    command.check_report_path(args.report)
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    workload = synthetic.generate_workload(args.seed, ACCOUNTS, DAYS, -(-args.transactions // DAYS))
    with ExitStack() as stack:
        folder = _choose_folder(args.home, stack)
        first_day = int(workload.trace.time_ms[0]) // DAY_MS
        plan = home.NetworkPlan(
            nodes=NODES,
            base_port=localnet.find_base_port(NODES),
            block_interval_ms=BLOCK_INTERVAL_MS,
            timestamp_ms=(first_day - FUNDING_DAYS) * DAY_MS,
        )
        network = home.create_network(folder, plan, os.urandom)
        local = localnet.LocalNetwork(network, partial(process.run_node, log_to_file=True))
        stack.callback(_stop, local)
        with process.stop_signals() as stop:
            local.start()
            if not local.wait_ready(stop):
                raise KeyboardInterrupt
        local.write_description(folder)
        stack.callback((folder / "localnet.json").unlink, missing_ok=True)
        say = _make_speaker(quiet=args.json)
        say(f"{NODES} validators are up after {(clock.monotonic_ms() - began_ms) / 1000:.1f} s")
        say(
            f"replaying {len(workload.trace):,} payments of {DAYS} days, {int(_labels(workload).sum()):,} of them fraud"
        )
        report, outcomes, examples = _replay(folder, workload)
    report["patterns"] = count_patterns(workload, outcomes)
    report["explained"] = [_form_example(example) for example in examples]
    report["demo_seconds"] = round((clock.monotonic_ms() - began_ms) / 1000, 3)
    problems = find_problems(report)
    report["problems"] = problems
    command.write_report(report, args.report)
    if args.json:
        print(json.dumps(report))
    else:
        print(describe_demo(report, examples, [f"node{i}" for i in range(NODES)]))
        if args.home:
            print(f"\n  the network is kept in {args.home}: assay localnet --home {args.home}")
    if report["interrupted"]:
        return command.INTERRUPTED
    return 1 if problems else 0


def _replay(folder: Path, workload: synthetic.Workload) -> tuple[Json, Outcomes, list[Example]]:
    target = command.read_localnet(folder)
    examples: list[Example] = []
    kept: list[Outcomes] = []

    async def after(network: HttpNetwork, replay: Replay) -> None:
        kept.append(replay.outcomes)
        examples.extend(await explain_refusals(network, workload, replay.outcomes))

    with Display() as display:
        report = asyncio.run(command.play(target, workload.trace, ReplayOptions(), display.show, after))
    outcomes = kept[0] if kept else Outcomes(len(workload.trace), workload.trace.fraud)
    return report, outcomes, examples


async def explain_refusals(
    network: HttpNetwork, workload: synthetic.Workload, outcomes: Outcomes
) -> list[Example]:
    """Up to three refused rows in words, frauds of different patterns first, then by score."""
    trace, pattern = workload.trace, workload.pattern
    rows = sorted(outcomes.refused_raws, key=lambda row: -int(outcomes.score[row]))
    rows.sort(key=lambda row: pattern[row] == synthetic.CLEAN)
    firsts = list({int(pattern[row]): row for row in reversed(rows)}.values())
    firsts.sort(key=lambda row: (pattern[row] == synthetic.CLEAN, -int(outcomes.score[row])))
    examples: list[Example] = []
    for row in [*firsts, *(row for row in rows if row not in firsts)]:
        if len(examples) == EXPLAINED:
            break
        raw = outcomes.refused_raws[row]
        transaction_id = crypto.hash_bytes(raw)
        verdict = await _explain(network, transaction_id)
        if verdict is not None and verdict.reasons:
            names = trace.names[trace.sender[row]], trace.names[trace.receiver[row]]
            word = synthetic.PATTERNS[pattern[row]]
            examples.append(Example(row, transaction_id, *names, int(trace.amount[row]), word, verdict))
    return examples


async def _explain(network: HttpNetwork, transaction_id: bytes) -> Explained | None:
    """From whichever node refused it: a refusal is a node's own."""
    for node in range(len(network.names)):
        try:
            verdict = await network.explain(node, transaction_id)
        except NodeAway:
            continue
        if verdict is not None and verdict.outcome == "refuse":
            return verdict
    return None


def count_patterns(workload: synthetic.Workload, outcomes: Outcomes) -> Json:
    """Per pattern: rows, how many were refused and flagged, and the share of both (recall)."""
    table: Json = {}
    flagged = (outcomes.state == FINAL) & (outcomes.outcome == FLAG)
    for number, name in enumerate(synthetic.PATTERNS):
        rows = workload.pattern == number
        count, refusals = int(rows.sum()), int(np.count_nonzero(rows & (outcomes.state == REFUSED)))
        flags = int(np.count_nonzero(rows & flagged))
        share = round((refusals + flags) / count, 4) if count else None
        table[name] = {"rows": count, "refused": refusals, "flagged": flags, "caught": share}
    return table


def find_problems(report: Json) -> list[str]:
    """What keeps the demo from having shown all it should."""
    checks = {
        "nothing became final": report["final"] > 0,
        "nothing was refused": report["refused"] > 0,
        "nothing was flagged": report["flagged"] > 0,
        f"{report['failed']} transactions failed": report["failed"] == 0,
        "the nodes do not agree": report["nodes_agree"],
        f"fewer than {EXPLAINED} refusals could be explained": len(report["explained"]) == EXPLAINED,
        "no fraud was reported on chain": report["reports"]["final"] > 0,
    }
    return [problem for problem, is_good in checks.items() if not is_good]


def describe_demo(report: Json, examples: list[Example], names: list[str]) -> str:
    lines = ["", describe(report, names), "", "  caught, by kind of fraud (refused or flagged)"]
    for name, row in report["patterns"].items():
        if row["rows"]:
            words = "honest payments stopped or flagged" if name == "clean" else f"{name} frauds"
            lines.append(f"    {row['caught']:>6.1%}  of {row['rows']:,} {words}")
    if examples:
        lines += ["", "  refused, and why"]
    for example in examples:
        kind = "an honest payment" if example.pattern == "clean" else f"fraud ({example.pattern})"
        lines.append(
            f"    {example.sender} pays {example.receiver} {example.amount / 100:,.2f}: "
            f"score {example.verdict.score / 100:.1f} of 100; by its label {kind}"
        )
        lines += [f"      - {reason.words}" for reason in example.verdict.reasons]
    lines += [f"  NOT SHOWN: {problem}" for problem in report["problems"]]
    lines.append(f"\n  all of it took {report['demo_seconds']:.0f} s")
    return "\n".join(lines)


def _choose_folder(given: str | None, stack: ExitStack) -> Path:
    if given is not None:
        return Path(given)
    folder = Path(tempfile.mkdtemp(prefix="assay-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _stop(local: localnet.LocalNetwork) -> None:
    with process.stop_signals() as stop:  # a second Ctrl-C must not leave anybody behind
        local.stop(stop.pause)


def _make_speaker(*, quiet: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not quiet:
            print(f"  {text}", flush=True)

    return say


def _labels(workload: synthetic.Workload) -> np.ndarray[Any, np.dtype[np.uint8]]:
    fraud = workload.trace.fraud
    assert fraud is not None  # the generator labels every row
    return fraud


def _form_example(example: Example) -> Json:
    return {
        "row": example.row,
        "id": "0x" + example.transaction_id.hex(),
        "sender": example.sender,
        "receiver": example.receiver,
        "amount": example.amount,
        "pattern": example.pattern,
        "score": example.verdict.score,
        "reasons": [reason.words for reason in example.verdict.reasons],
    }
