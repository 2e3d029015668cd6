"""The shadow log: what a published model would have said of final transfers, beside what the chain said.

One file a model in the home, `shadows/<digest>.log`, of records of 16 bytes:

    kind (1) | subject (8) | chain's score (2) | outcome (1) | shadow's score (2) | outcome (1) | zero (1)

START: the subject is a height; from there on the shadow's rows are whole. BLOCK: a height, all its transfers
stand before. TRANSFER and REPORT: the first 8 bytes of the transfer's id. Integers are big-endian.

Invariant: the file only grows, and is turned over when it is full: it and one before it are kept. A record cut short by a
crash is cut off. It is this node's own; nothing of it is in the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import OUTCOME_NAMES
from ml.metrics import compute_average_precision, compute_roc_auc

RECORD: Final = np.dtype(
    [
        ("kind", "u1"),
        ("subject", ">u8"),
        ("chain_score", ">u2"),
        ("chain_outcome", "u1"),
        ("shadow_score", ">u2"),
        ("shadow_outcome", "u1"),
        ("zero", "u1"),
    ]
)
START: Final = 1
BLOCK: Final = 2
TRANSFER: Final = 3
REPORT: Final = 4
FILE_BYTES_MAX: Final = 16 << 20  # a million transfers; with the one before it, two
OUTCOMES: Final = len(OUTCOME_NAMES)

Entries = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same transfers.

    outcomes[i][j]: transfers with outcome i on the chain and j by the shadow. reported: how many of them were
    reported since. The figures of quality take those for frauds and all others for clean.
    """

    first_height: int
    last_height: int
    transfers: int
    outcomes: tuple[tuple[int, ...], ...]
    mean_difference: float
    reported: int
    chain_average_precision: float
    shadow_average_precision: float
    chain_roc_auc: float
    shadow_roc_auc: float

    @property
    def agreeing(self) -> int:
        """Transfers of which both say the same."""
        return sum(self.outcomes[number][number] for number in range(OUTCOMES))


def make_entries(kind: int, subjects: Sequence[int]) -> Entries:
    """Records of one kind, without scores."""
    entries = np.zeros(len(subjects), dtype=RECORD)
    entries["kind"] = kind
    entries["subject"] = subjects
    return entries


def read_subject(transaction_id: bytes) -> int:
    return int.from_bytes(transaction_id[:8], "big")


class ShadowLog:
    """One model's file. Not for several writers."""

    def __init__(self, folder: Path, digest: bytes, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = folder / f"{digest.hex()}.log"
        self._old_path = folder / f"{digest.hex()}.log.1"
        self._bytes_max = bytes_max

    def append(self, parts: Sequence[Entries]) -> None:
        """Adds records; not synced, for a crash may cost the last of them. Raises OSError."""
        self._path.parent.mkdir(exist_ok=True)
        size = self._path.stat().st_size if self._path.exists() else 0
        if size >= self._bytes_max:
            self._path.replace(self._old_path)
            size = 0
        with self._path.open("ab") as file:
            if size % RECORD.itemsize:
                file.truncate(size - size % RECORD.itemsize)
            file.write(
                b"".join(entries.tobytes() for entries in parts)
            )  # concatenating would turn bytes round

    def read(self) -> Entries:
        """All that is kept, oldest first. Raises OSError."""
        parts = [path.read_bytes() for path in (self._old_path, self._path) if path.exists()]
        whole = b"".join(part[: len(part) - len(part) % RECORD.itemsize] for part in parts)
        return np.frombuffer(whole, dtype=RECORD)

    def find_last_height(self) -> int:
        """Of the last block in it; 0 when there is none."""
        heights = self.read()
        heights = heights["subject"][heights["kind"] == BLOCK]
        return int(heights[-1]) if len(heights) else 0


def compare(entries: Entries) -> Comparison | None:
    """What both models said since the shadow's rows were last whole; None when there is nothing."""
    starts = np.flatnonzero(entries["kind"] == START)
    entries = entries[starts[-1] :] if len(starts) else entries
    heights = entries["subject"][entries["kind"] == BLOCK]
    transfers = entries[entries["kind"] == TRANSFER]
    if not len(heights) or not len(transfers):
        return None
    reports = entries["subject"][entries["kind"] == REPORT]
    fraud = np.isin(transfers["subject"], reports).astype(np.uint8)
    chain, shadow = (transfers[name].astype(np.int64) for name in ("chain_score", "shadow_score"))
    matrix = np.zeros((OUTCOMES, OUTCOMES), dtype=np.int64)
    np.add.at(matrix, (transfers["chain_outcome"], transfers["shadow_outcome"]), 1)
    return Comparison(
        int(heights[0]),
        int(heights[-1]),
        len(transfers),
        tuple(tuple(row) for row in matrix.tolist()),
        float((shadow - chain).mean()),
        int(fraud.sum()),
        compute_average_precision(fraud, chain),
        compute_average_precision(fraud, shadow),
        compute_roc_auc(fraud, chain),
        compute_roc_auc(fraud, shadow),
    )
