"""The same strategies against a running chain: planned offline, then struck.

A model is public, so a fraudster plans its waves on a copy of it, in a town of its own making. Here the whole
plan (the town's history, its payments beside the campaign, the waves, those included that the copy
refused) is replayed through the chain's nodes, thefts reported when the label delay is over.
Invariant: what is counted is what became final on the chain. Every strategy has accounts of its own, new in
every run. Leaves out: chains on wall time (a campaign of weeks takes weeks there); payments dated back (a
replay's rows go forward in time).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from consensus.codec import encode
from consensus.crypto import hash_bytes
from consensus.errors import Rejected
from consensus.ledger.scoring import FLAG
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS
from ml.dataset import Trace
from node.client.node_client import run_with_client
from node.redteam.campaign import OWN_ACCOUNTS_MAX, Result, Sizes, Stage
from node.redteam.scene import Payment
from node.replay.command import Target, play
from node.replay.http_network import HttpNetwork
from node.replay.outcomes import FAILED, FINAL, REFUSED
from node.replay.session import Replay
from node.replay.settings import ReplayOptions, Watch

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A replayable campaign: `rows[i]` is the trace's row of payments[i]."""

    trace: Trace
    payments: tuple[Payment, ...]
    rows: tuple[int, ...]


def check_clock(target: Target) -> None:
    """Raises Rejected on a chain that goes by real time."""
    document = run_with_client(target.urls, lambda client: client.get_status())
    if document.parameters.get("clock") != CLOCK_WORKLOAD:
        raise Rejected(
            "this chain goes by real time: a campaign of weeks would take weeks",
            field="--home",
            mend="use a `localnet` without --epoch-blocks, or leave out --home and --api to play offline",
        )


def is_dated(result: Result) -> bool:
    """Whether its payments carry other times than those at which they are handed in."""
    return any(payment.timestamp_ms is not None for wave in result.waves for payment in wave.payments)


def build_plan(stage: Stage, result: Result, sizes: Sizes, run: str) -> Plan:
    """The town and the waves of a result as one trace, in the order in which they are handed in.

    Of results that are not `is_dated`.
    """
    town = stage.world.trace
    pairs = [(wave.time_ms, payment) for wave in result.waves for payment in wave.payments]
    when = np.array([time_ms for time_ms, _ in pairs], dtype=np.int64)
    end = int(np.searchsorted(town.time_ms, stage.start_ms + sizes.days * DAY_MS))
    order = np.argsort(np.concatenate((town.time_ms[:end], when)), kind="stable")

    def join(ours: Any, theirs: Sequence[int]) -> Any:
        return np.concatenate((ours[:end], np.array(theirs, dtype=ours.dtype)))[order]

    assert town.fraud is not None  # a synthetic town is labelled
    prefix = f"redteam/{run}/{result.strategy}/{result.seed}/"
    trace = Trace(
        time_ms=join(town.time_ms, [time_ms for time_ms, _ in pairs]),
        sender=join(town.sender, [p.sender for _, p in pairs]),
        receiver=join(town.receiver, [p.receiver for _, p in pairs]),
        amount=join(town.amount, [p.amount for _, p in pairs]),
        fraud=join(town.fraud, [int(p.is_theft) for _, p in pairs]),
        names=tuple(
            prefix + hash_bytes(encode(number)).hex()[:12]
            for number in range(sizes.accounts + OWN_ACCOUNTS_MAX)
        ),
    )
    place = np.argsort(order, kind="stable")
    return Plan(trace, tuple(p for _, p in pairs), tuple(int(place[end + i]) for i in range(len(pairs))))


def strike(target: Target, plan: Plan, planned: Result, sizes: Sizes, watch: Watch) -> Result:
    """Replay a plan; the result as the chain has it. Raises Rejected, Fault."""
    found: list[Replay] = []

    async def keep(_network: HttpNetwork, replay: Replay) -> None:
        found.append(replay)

    options = ReplayOptions(seed=planned.seed, label_delay_ms=sizes.delay_days * DAY_MS)
    report: Json = asyncio.run(play(target, plan.trace, options, watch, keep))
    if report["interrupted"]:
        raise KeyboardInterrupt
    outcomes = found[0].outcomes
    past = flagged = refused = count_refused = 0
    robbed: set[int] = set()
    for payment, row in zip(plan.payments, plan.rows, strict=True):
        state = outcomes.state[row]
        if state == FINAL:
            past += payment.amount * payment.is_home
            flagged += payment.amount * (payment.is_theft and int(outcomes.outcome[row]) == FLAG)
            if payment.is_theft:
                robbed.add(payment.sender)
        elif state in (REFUSED, FAILED):
            refused += payment.amount
            count_refused += 1
    town = np.ones(len(plan.trace), dtype=bool)
    town[list(plan.rows)] = False
    assert plan.trace.fraud is not None
    start_ms = int(plan.trace.time_ms[0]) // DAY_MS * DAY_MS + sizes.history_days * DAY_MS
    campaign = (plan.trace.time_ms >= start_ms) & town & (plan.trace.fraud == 0)
    return replace(
        planned,
        past=past,
        flagged=min(past, flagged),
        refused=refused,
        victims_robbed=len(robbed),
        payments_refused=count_refused,
        fees=planned.fees + planned.payments_refused - count_refused,
        honest_refused=int(np.count_nonzero(campaign & (outcomes.state == REFUSED))),
    )
