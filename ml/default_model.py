"""Training the model that ships: `python -m ml.default_model` writes ml/models/fraud.model.

It learns from synthetic traces only: towns (ml/synthetic.py) and card payments (ml/cards.py), each by the
usual rules and by rules spread wide, so that it does not take one generator's habits for laws. Their seeds
are neither the demo's nor those of ml/variants.py. Their first days are trained on, too: a new chain has no
history, and must not refuse for that. Thresholds come from a fresh town and fresh cards by the usual rules, and
keep to the budget in each, on a chain that refuses as on one that does not.
Invariant: seed, sizes and library versions decide every byte.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import REFUSE_NEVER
from ml.calibration import choose_thresholds
from ml.cards import CardRules, generate_cards
from ml.dataset import Trace
from ml.definitions import DAY_MS, Bytes, Int64s
from ml.model import Model
from ml.playback import ON_TIME, play_features, schedule_reports
from ml.synthetic import TownRules, generate_workload
from ml.training import train_model

SEED: Final = 20_180_401
DAYS: Final = 60
TOWN_ACCOUNTS: Final = 4_000
WIDE_TOWN_ACCOUNTS: Final = 1_000
CUSTOMERS: Final = 3_000
WIDE_CUSTOMERS: Final = 800
FRESH_ACCOUNTS: Final = 2_500
FRESH_DAYS: Final = 45
TREES: Final = 128  # four populations need more than one

WIDE_TOWN: Final = TownRules(
    spell_days=(3, 31),
    spell_ratio=(2, 8),
    shop_days=(5, 36),
    burst_ms=1_200_000,
    mule_people=(3, 11),
)
WIDE_CARDS: Final = CardRules(
    terminals_per_myriad=6, terminal_days=(5, 40), spell_days=(4, 28), spell_ratio=(2, 7)
)


def hash_trace(trace: Trace) -> bytes:
    """SHA-256 over a trace's columns: what the card states when the data were never a file."""
    seen = sha256("\n".join(trace.names).encode())
    for column in (trace.time_ms, trace.sender, trace.receiver, trace.amount):
        seen.update(column.astype("<i8").tobytes())
    if trace.fraud is not None:
        seen.update(trace.fraud.tobytes())
    return seen.digest()


def join_traces(traces: Sequence[Trace]) -> Trace:
    """One labelled trace of accounts that never meet, in time order."""
    first = np.cumsum([0, *(len(trace.names) for trace in traces)])
    time = np.concatenate([trace.time_ms for trace in traces])
    order = np.argsort(time, kind="stable")
    sender, receiver = (
        np.concatenate([getattr(trace, side) + first[i] for i, trace in enumerate(traces)])
        for side in ("sender", "receiver")
    )
    amount = np.concatenate([trace.amount for trace in traces])
    fraud = np.concatenate(
        [np.zeros(len(trace), np.uint8) if trace.fraud is None else trace.fraud for trace in traces]
    )
    names = tuple(f"{i}/{name}" for i, trace in enumerate(traces) for name in trace.names)
    return Trace(time[order], sender[order], receiver[order], amount[order], fraud[order], names)


def set_thresholds(model: Model) -> Model:
    """`model` with thresholds that keep to the budget on traces it never saw, all played, and refusing by them."""
    fresh = (
        generate_workload(SEED + 10, FRESH_ACCOUNTS, FRESH_DAYS, FRESH_ACCOUNTS).trace,
        generate_cards(SEED + 11, FRESH_ACCOUNTS, FRESH_DAYS).trace,
    )
    seen: list[tuple[Bytes, Int64s]] = []
    for refusing in (False, True):
        limit = choose_thresholds(seen).refuse_score_min if refusing else REFUSE_NEVER

        def refuse(features: Bytes, limit: int = limit) -> NDArray[np.bool_]:
            return model.compute_scores(features) >= limit

        for trace in fresh:
            features = play_features(
                trace,
                schedule_reports(trace, ON_TIME, SEED),
                model.scale,
                refuse=refuse,
                definitions=model.definitions,
            )
            assert trace.fraud is not None
            seen.append((trace.fraud, model.compute_scores(features)))
    return replace(model, thresholds=choose_thresholds(seen))


def train_default_model() -> Model:
    trace = join_traces(
        [
            generate_workload(SEED, TOWN_ACCOUNTS, DAYS, TOWN_ACCOUNTS).trace,
            generate_workload(SEED + 1, WIDE_TOWN_ACCOUNTS, DAYS, WIDE_TOWN_ACCOUNTS, WIDE_TOWN).trace,
            generate_cards(SEED + 2, CUSTOMERS, DAYS).trace,
            generate_cards(SEED + 3, WIDE_CUSTOMERS, DAYS, WIDE_CARDS).trace,
        ]
    )
    first_day = int(trace.time_ms[0]) // DAY_MS
    days = (first_day, first_day + DAYS)
    return set_thresholds(train_model(trace, *days, SEED, (hash_trace(trace),), trees=TREES))


if __name__ == "__main__":
    path = Path(__file__).parent / "models" / "fraud.model"
    path.write_bytes(train_default_model().encode())
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")
