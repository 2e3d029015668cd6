"""The model that ships is made again byte for byte: seeds decide it, not the process or how many threads it has.

Small sizes here; the whole takes three minutes: `python -m ml.default_model` (docs/scoring.md).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightgbm", reason="training needs LightGBM: install assay-node[train]")

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
import sys
from hashlib import sha256
from ml import default_model as made
made.DAYS, made.FRESH_DAYS, made.FRESH_ACCOUNTS, made.TREES = 25, 8, 40, 2
made.TOWN_ACCOUNTS, made.WIDE_TOWN_ACCOUNTS, made.CUSTOMERS, made.WIDE_CUSTOMERS = 60, 30, 40, 20
model = made.train_default_model()
print(sha256(model.encode()).hexdigest(), len(model.forest.trees))
"""


def train(hash_seed: str, threads: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": hash_seed,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    done = subprocess.run(
        [sys.executable, "-c", SMALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_with_other_hash_seeds_and_threads_make_the_same_model() -> None:
    first = train("1", "1")
    assert first.split()[1] == "2"
    assert train("2", "3") == first
