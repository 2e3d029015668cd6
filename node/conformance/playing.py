"""Playing a stream through one module as the ledger would: its own judging, rows carried from block to block.

Invariant: a module that breaks its contract on any block raises NonConforming with the ledger's words.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import AssayError
from consensus.ledger.judging import Panel, Seat, judge
from consensus.ledger.scoring import Thresholds, ValidationModule
from node.conformance.stream import Stream

THRESHOLDS: Final = Thresholds(flag_score_min=2_000, refuse_score_min=8_000)


class NonConforming(Exception):
    """What a module does against the contract, for a person."""


@dataclass(frozen=True, slots=True)
class Played:
    """score: int64[n], outcome: uint8[n] of the stream's transfers in order; rows: uint8[accounts, row_bytes]."""

    score: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    rows: NDArray[np.uint8]

    @property
    def digest(self) -> bytes:
        return sha256(
            self.score.astype("<i8").tobytes() + self.outcome.tobytes() + self.rows.tobytes()
        ).digest()


def play(module: ValidationModule, stream: Stream, thresholds: Thresholds = THRESHOLDS) -> Played:
    """All blocks of a stream from rows of zeros. Nothing is left out for being refused."""
    seat = Seat(module, thresholds, slice(0, module.row_bytes))
    rows = np.zeros((stream.accounts, module.row_bytes), dtype=np.uint8)
    score = np.zeros(len(stream), dtype=np.int64)
    outcome = np.zeros(len(stream), dtype=np.uint8)
    start = 0
    for number, block in enumerate(stream.blocks):
        end = start + len(block.transfers)
        reports = stream.build_reports(block, score)
        try:
            judgment = judge(Panel((seat,), None, b""), block.transfers, reports, rows, is_strict=True)
        except AssayError as error:
            raise NonConforming(f"block {number}: {error}") from error
        score[start:end], outcome[start:end] = judgment.score, judgment.outcome
        rows[judgment.local] = judgment.rows
        start = end
    return Played(score, outcome, rows)


def compare(one: Played, other: Played, words: str) -> None:
    """Raises NonConforming at the first difference."""
    for name in ("score", "outcome"):
        places = np.flatnonzero(getattr(one, name) != getattr(other, name))
        if len(places):
            place = int(places[0])
            raise NonConforming(
                f"{words}: transfer {place} of the stream gets {name} {getattr(one, name)[place]} and "
                f"{getattr(other, name)[place]} ({len(places)} of {len(one.score)} differ)"
            )
    accounts = np.flatnonzero((one.rows != other.rows).any(axis=1))
    if len(accounts):
        raise NonConforming(
            f"{words}: the rows of {len(accounts)} accounts differ, first of account {accounts[0]}"
        )
