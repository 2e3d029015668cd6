"""What would have to change for a transaction to be accepted: the nearest amount, and the nearest later time.

Amount: a score is constant between the amounts at which a byte changes, and a payment's own amount moves only
the features that read it; so all candidates are scored at once, and the answer is exact. Time: the payment
is placed at every later span of its first day and at every later day, until the longest window is over.

Invariant: what is answered was evaluated, by the same code as a verdict. "Later" supposes that nothing else
happens: no report, no payment by or to the two. Leaves out: other receivers, and changes of two things.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import MONEY_MAX, TIME_MS_MAX
from consensus.ledger.scoring import (
    ACCEPT,
    Counterfactual,
    ModuleView,
    ReportColumns,
    TransferColumns,
    Verdicts,
)
from ml.definitions import DAY_MS, Bytes, Int64s
from ml.features import RATIO_EDGES, RATIO_UNKNOWN_64, Observation, compute_ratios, observe
from ml.model import Model

SPANS_MAX: Final = 12  # tried within the first day: a burst is over after one

_NONE: Final = np.zeros(0, dtype=np.int64)
_NO_REPORTS: Final = ReportColumns(_NONE, _NONE, _NONE, _NONE, _NONE)


def find_counterfactuals(
    model: Model, transactions: TransferColumns, view: ModuleView, index: int
) -> tuple[Counterfactual, ...]:
    """The nearest smaller amount, the nearest larger one and the nearest later time at which transactions[index]
    would be accepted, of those that exist; () if it is accepted as it is."""
    before = TransferColumns(
        transactions.sender[: index + 1],
        transactions.receiver[: index + 1],
        transactions.amount[: index + 1],
        transactions.timestamp_ms[: index + 1],
    )
    seen = observe(before, _NO_REPORTS, view.rows, model.scale, model.definitions)
    score = model.compute_scores(seen.features[-1:])
    if Verdicts.from_scores(score, view.thresholds).outcome[0] == ACCEPT:
        return ()
    found = _find_amounts(model, view, int(before.amount[-1]), seen)
    return found + _find_time(model, before, view)


def _find_amounts(
    model: Model, view: ModuleView, amount: int, seen: Observation
) -> tuple[Counterfactual, ...]:
    mean_16 = int(seen.mean_16[-1])
    known = mean_16 > 0 or int(seen.ratio_64[-1]) != RATIO_UNKNOWN_64  # a known mean may round to 0
    candidates = _list_amounts(model, mean_16, known)
    features = np.repeat(seen.features[-1:], len(candidates), axis=0)
    ratio = compute_ratios(candidates, mean_16, known)
    for number, feature in enumerate(model.definitions.features):
        if feature.kind == "amount":
            features[:, number] = np.searchsorted(model.scale.edges, candidates, side="right")
        elif feature.kind == "amount_over_mean":
            features[:, number] = np.searchsorted(RATIO_EDGES, ratio, side="right")
    accepted, score = _accept(model, view, features)
    answers = []
    for chosen, words in ((candidates < amount, "up to"), (candidates > amount, "from")):
        places = np.flatnonzero(chosen & accepted)
        if len(places):
            place = int(places[-1] if words == "up to" else places[0])
            value = int(candidates[place])
            text = f"an amount {words} {value:,} instead of {amount:,}"
            answers.append(Counterfactual("amount", value, int(score[place]), text))
    return tuple(answers)


def _list_amounts(model: Model, mean_16: int, known: bool) -> Int64s:
    """Both sides of every amount at which a byte changes, rising."""
    edges = [model.scale.edges]
    if known:
        edges.append(-(-RATIO_EDGES * max(mean_16, 1) // 1024))  # the least amount that reaches each ratio
    first = np.concatenate(edges)
    return np.unique(np.clip(np.concatenate((first, first - 1)), 1, MONEY_MAX))


def _find_time(model: Model, before: TransferColumns, view: ModuleView) -> tuple[Counterfactual, ...]:
    rules, now = model.definitions.rules, int(before.timestamp_ms[-1])
    spans = [(now // rules.lately_ms + n) * rules.lately_ms for n in range(1, SPANS_MAX + 1)]
    days = [(now // DAY_MS + n) * DAY_MS for n in range(1, max(rules.ring_days, rules.evidence_days) + 2)]
    for time in sorted(time for time in {*spans, *days} if time <= TIME_MS_MAX):
        later = before.timestamp_ms.copy()
        later[-1] = time
        moved = TransferColumns(before.sender, before.receiver, before.amount, later)
        seen = observe(moved, _NO_REPORTS, view.rows, model.scale, model.definitions)
        accepted, score = _accept(model, view, seen.features[-1:])
        if accepted[0]:
            words = f"the same payment {_describe_wait(time - now)} later, if nothing else happens"
            return (Counterfactual("time_ms", time, int(score[0]), words),)
    return ()


def _accept(model: Model, view: ModuleView, features: Bytes) -> tuple[NDArray[np.bool_], Int64s]:
    score = model.compute_scores(features)
    return Verdicts.from_scores(score, view.thresholds).outcome == ACCEPT, score


def _describe_wait(wait_ms: int) -> str:
    for size, name in ((DAY_MS, "day"), (3_600_000, "hour"), (60_000, "minute")):
        if wait_ms > size:
            count = -(-wait_ms // size)
            return f"{count} {name}s" if count > 1 else f"1 {name}"
    return "1 minute"
