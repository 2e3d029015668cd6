"""Training the model that ships: `python -m ml.default_model` writes ml/models/fraud.model.

It learns from a synthetic town only (ml/synthetic.py), of another seed than the demo's and ten times
its size. Its first days are trained on, too: a new chain has no history, and must not refuse for that.
Invariant: seed, sizes and library versions decide every byte.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from ml.dataset import Trace
from ml.features import DAY_MS
from ml.model import Model
from ml.synthetic import generate_workload
from ml.training import train_model

SEED: Final = 20_180_401
ACCOUNTS: Final = 4_000
DAYS: Final = 60
PER_DAY: Final = 4_000


def hash_trace(trace: Trace) -> bytes:
    """SHA-256 over a trace's columns: what the card states when the data were never a file."""
    seen = sha256("\n".join(trace.names).encode())
    for column in (trace.time_ms, trace.sender, trace.receiver, trace.amount):
        seen.update(column.astype("<i8").tobytes())
    if trace.fraud is not None:
        seen.update(trace.fraud.tobytes())
    return seen.digest()


def train_default_model() -> Model:
    trace = generate_workload(SEED, ACCOUNTS, DAYS, PER_DAY).trace
    first_day = int(trace.time_ms[0]) // DAY_MS
    return train_model(trace, first_day, first_day + DAYS, SEED, (hash_trace(trace),))


if __name__ == "__main__":
    path = Path(__file__).parent / "models" / "fraud.model"
    path.write_bytes(train_default_model().encode())
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")
