"""Reporters who lie: how far they get honest receivers refused and bad ones past the model, by the defaults.

`python -m ml.poisoning` plays them over synthetic card payments (ml/cards.py) through the module's own features
and prints means over seeds; with --data also what each default costs in accuracy there. docs/reports.md
has the tables. An honest reporter is the bank of the sender: it reports each fraud after the label delay.

Invariant: a pure function of seeds and trace. Leaves out: bonds, fees and votes, whose effect is told as "after
so many days it is withdrawn".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import ValidationModule
from ml.cards import TERMINAL, generate_cards
from ml.dataset import Trace, read_trace
from ml.definitions import DAY_MS
from ml.evaluation import select_rows
from ml.fraud import FraudModule, read_default_artifact
from ml.metrics import compute_average_precision
from ml.playback import LABEL_DELAY_DAYS
from ml.reporting import PAIR_MS, Filing, add_payments, count_filings, play_tellings
from ml.training import find_rows

CUSTOMERS: Final = 1_000
DAYS: Final = 70
ATTACK_DAY: Final = 35  # half of the trace warms up the state
WATCHED_DAYS: Final = 28  # how long the attacked receivers are looked at
TARGETS: Final = 40
BANKS: Final = 10  # honest reporters
LIAR: Final = 1_000  # the first lying reporter's number

Rows = NDArray[np.int64]


def file_honestly(trace: Trace, skipped_banks: int = 0) -> list[Filing]:
    """Each fraud after the label delay by its sender's bank; the first `skipped_banks` report nothing."""
    assert trace.fraud is not None
    rows = np.flatnonzero(trace.fraud)
    banks = trace.sender[rows] % BANKS
    return [
        Filing(int(trace.time_ms[row]) + LABEL_DELAY_DAYS * DAY_MS, int(row), int(bank))
        for row, bank in zip(rows, banks, strict=True)
        if bank >= skipped_banks
    ]


# --- an honest receiver -----------------------------------------------------------------------------------


def choose_targets(trace: Trace, seed: int) -> Rows:
    """Receivers that never saw a fraud and are paid at least once a day or so."""
    assert trace.fraud is not None
    start = int(trace.time_ms[0]) // DAY_MS * DAY_MS + ATTACK_DAY * DAY_MS
    later = trace.time_ms >= start
    counts = np.bincount(trace.receiver[later], minlength=len(trace.names))
    bad = np.zeros(len(trace.names), dtype=bool)
    bad[trace.receiver[trace.fraud == 1]] = True
    fit = np.flatnonzero(~bad & (counts >= WATCHED_DAYS))
    random = np.random.Generator(np.random.PCG64(seed))
    return np.sort(random.choice(fit, min(TARGETS, len(fit)), replace=False))


def file_falsely(
    trace: Trace,
    targets: Rows,
    count: int,
    *,
    liars: int,
    is_one_customer: bool = False,
    withdrawn_after_days: int | None = None,
) -> list[Filing]:
    """Of each target `count` honest payments from the attack's day on, a day apart, each by all liars."""
    start = int(trace.time_ms[0]) // DAY_MS * DAY_MS + ATTACK_DAY * DAY_MS
    filings: list[Filing] = []
    for target in targets.tolist():
        rows = np.flatnonzero((trace.receiver == target) & (trace.time_ms >= start - 10 * DAY_MS))
        if is_one_customer:
            senders, seen = np.unique(trace.sender[rows], return_counts=True)
            rows = rows[trace.sender[rows] == senders[seen.argmax()]]
        chosen: list[int] = []
        for row in rows.tolist():
            day = int(trace.time_ms[row]) // DAY_MS
            if len(chosen) < count and (not chosen or day > int(trace.time_ms[chosen[-1]]) // DAY_MS):
                chosen.append(row)
        for row in chosen:
            filed_ms = max(start, int(trace.time_ms[row]) + 3_600_000)
            for liar in range(LIAR, LIAR + liars):
                filings.append(Filing(filed_ms, row, liar))
                if withdrawn_after_days is not None:
                    back_ms = filed_ms + withdrawn_after_days * DAY_MS
                    filings.append(Filing(back_ms, row, liar, is_withdrawal=True))
    return filings


def measure_refused(
    trace: Trace,
    module: FraudModule,
    targets: Rows,
    lies: Iterable[Filing],
    *,
    reports_min: int = 1,
    pair_ms: int = PAIR_MS,
) -> tuple[float, float]:
    """Shares of the targets' honest payments that are refused, and flagged or refused, from the attack on.

    Honest reports count at once, whatever `reports_min`: what is asked is what lies add.
    """
    honest = [
        replace(filing, reporter=filing.reporter + 100 * voice)
        for filing in file_honestly(trace)
        for voice in range(reports_min)
    ]
    told = count_filings(trace, [*honest, *lies], reports_min, pair_ms)
    score = play_tellings(trace, told, module)
    start = int(trace.time_ms[0]) // DAY_MS * DAY_MS + ATTACK_DAY * DAY_MS
    watched = (trace.time_ms >= start) & (trace.time_ms < start + WATCHED_DAYS * DAY_MS)
    hit = score[watched & np.isin(trace.receiver, targets)]
    limits = module.thresholds
    return float((hit >= limits.refuse_score_min).mean()), float((hit >= limits.flag_score_min).mean())


def attack_honest(module: FraudModule, seeds: Sequence[int]) -> list[tuple[str, ...]]:
    """Rows of a table: false reports, defence, refused, flagged or refused."""
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("no lie", {"count": 0, "liars": 1}, {}),
        ("1 lie", {"count": 1, "liars": 1}, {}),
        ("2 lies", {"count": 2, "liars": 1}, {}),
        ("5 lies", {"count": 5, "liars": 1}, {}),
        ("10 lies", {"count": 10, "liars": 1}, {}),
        ("5 lies of one customer, no pair rule", {"count": 5, "liars": 1, "is_one_customer": True}, {"pair_ms": 0}),
        ("5 lies of one customer, 28 days", {"count": 5, "liars": 1, "is_one_customer": True}, {}),
        ("5 lies by 1 liar, 2 must agree", {"count": 5, "liars": 1}, {"reports_min": 2}),
        ("5 lies by 2 liars, 2 must agree", {"count": 5, "liars": 2}, {"reports_min": 2}),
        ("5 lies by 2 liars, 3 must agree", {"count": 5, "liars": 2}, {"reports_min": 3}),
        ("5 lies, each withdrawn after 1 day", {"count": 5, "liars": 1, "withdrawn_after_days": 1}, {}),
        ("5 lies, each withdrawn after 3 days", {"count": 5, "liars": 1, "withdrawn_after_days": 3}, {}),
        ("5 lies, each withdrawn after 7 days", {"count": 5, "liars": 1, "withdrawn_after_days": 7}, {}),
    ]  # fmt: skip
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in cases}
    for seed in seeds:
        trace = generate_cards(seed, CUSTOMERS, DAYS).trace
        targets = choose_targets(trace, seed)
        for name, lies, rules in cases:
            figures[name].append(
                measure_refused(trace, module, targets, file_falsely(trace, targets, **lies), **rules)
            )
            _note(f"seed {seed}: {name}")
    return [
        (name, *(_percent(np.mean(column)) for column in zip(*figures[name], strict=True)))
        for name, _, _ in cases
    ]


# --- a bad receiver ---------------------------------------------------------------------------------------


def wash_bad(module: FraudModule, seeds: Sequence[int]) -> list[tuple[str, ...]]:
    """Rows of a table: what washers do, refused share of the frauds at compromised terminals, AP of all rows."""
    cases = [
        (f"{banks} of {BANKS} banks silent or taking back, {paid} clean payments a day", banks, paid)
        for banks, paid in ((0, 0), (1, 0), (3, 0), (5, 0), (8, 0), (0, 1), (0, 3), (0, 10), (3, 3))
    ]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in cases}
    for seed in seeds:
        workload = generate_cards(seed, CUSTOMERS, DAYS)
        trace = replace(workload.trace, pattern=workload.pattern)
        for name, banks, paid in cases:
            figures[name].append(_measure_wash(trace, module, banks, paid))
            _note(f"seed {seed}: {name}")
    return [(name, _percent(np.mean(column[0])), f"{np.mean(column[1]):.3f}") for name in figures for column in [tuple(zip(*figures[name], strict=True))]]  # fmt: skip


def _measure_wash(trace: Trace, module: FraudModule, banks: int, paid: int) -> tuple[float, float]:
    assert trace.pattern is not None
    played, is_own = trace, np.zeros(len(trace), dtype=bool)
    bad = np.unique(trace.receiver[trace.pattern == TERMINAL])
    if paid:
        days = np.unique(trace.time_ms // DAY_MS)
        place = np.tile(np.repeat(bad, paid), len(days))
        hour_ms = DAY_MS // (paid + 1) * (1 + np.arange(len(place)) % paid)
        time_ms = np.repeat(days, paid * len(bad)) * DAY_MS + hour_ms
        amount = np.full(len(place), 2_000)
        played, is_own = add_payments(trace, time_ms, place, amount, payers=20 * len(bad))
    told = count_filings(played, file_honestly(played, banks))
    score = play_tellings(played, told, module)
    assert played.pattern is not None
    assert played.fraud is not None
    start = int(trace.time_ms[0]) // DAY_MS * DAY_MS + ATTACK_DAY * DAY_MS
    late = (played.time_ms >= start) & ~is_own
    caught = score[late & (played.pattern == TERMINAL)] >= module.thresholds.refuse_score_min
    return float(caught.mean()), compute_average_precision(played.fraud[late], score[late])


# --- what defaults cost -----------------------------------------------------------------------------------


def measure_cost(
    trace: Trace, module: ValidationModule, days: tuple[int, int], *, is_handbook: bool, seed: int = 1
) -> list[tuple[str, ...]]:
    """Rows of a table: parameters, how many frauds two reporters see, AP on those days."""
    assert trace.fraud is not None
    _, end = find_rows(trace, *days)
    rows = select_rows(trace, *days, is_handbook)
    random = np.random.Generator(np.random.PCG64(seed))
    draw = dict(
        zip(np.flatnonzero(trace.fraud).tolist(), random.random(int(trace.fraud.sum())).tolist(), strict=True)
    )
    table: list[tuple[str, ...]] = []
    for reports_min, share, pair_ms in ((1, 1.0, 0), (1, 1.0, PAIR_MS), (2, 1.0, PAIR_MS), (2, 0.7, PAIR_MS), (2, 0.5, PAIR_MS), (2, 0.2, PAIR_MS)):  # fmt: skip
        filings = file_honestly(trace)
        filings += [replace(f, reporter=BANKS + f.reporter) for f in filings if draw[f.row] < share]
        told = count_filings(trace, filings, reports_min, pair_ms)
        score = play_tellings(trace, told, module, end)
        precision = compute_average_precision(trace.fraud[rows], score[rows])
        seen = "any" if reports_min == 1 else f"{share:.0%}"
        table.append((f"{reports_min}", f"{pair_ms // DAY_MS} days", seen, f"{precision:.3f}"))
        _note(f"reports_min {reports_min}, {share:.0%} seen twice")
    return table


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f} %"


def _note(words: str) -> None:
    if sys.stderr.isatty():
        print(words, file=sys.stderr)


def _print(title: str, head: tuple[str, ...], table: Sequence[tuple[str, ...]]) -> None:
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in table:
        print("| " + " | ".join(row) + " |")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ml.poisoning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many traces (default 3)")
    parser.add_argument("--data", nargs="+", metavar="FILE", help="CSV: what the defaults cost there")
    parser.add_argument("--from", dest="first", type=int, default=129, metavar="DAY")
    parser.add_argument("--to", dest="end", type=int, default=136, metavar="DAY")
    parser.add_argument("--protocol", choices=("handbook",))
    args = parser.parse_args(arguments)
    module = FraudModule(read_default_artifact())
    if args.data:
        head = ("reporters that must agree", "pair rule", "frauds seen by two", "AP")
        trace = read_trace(args.data)
        cost = measure_cost(trace, module, (args.first, args.end), is_handbook=args.protocol is not None)
        _print("What defaults cost", head, cost)
        return 0
    seeds = range(1, args.seeds + 1)
    lied = ("lies about each of 40 honest receivers", "refused", "flagged or refused")
    _print("Honest receivers", lied, attack_honest(module, seeds))
    washed = ("washers of compromised terminals", "their frauds refused", "AP of all")
    _print("Bad receivers", washed, wash_bad(module, seeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
