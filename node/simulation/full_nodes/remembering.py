"""A validation module asked once for all nodes of a run: its answer depends on what it is shown alone.

Four nodes judge the same transactions on the same rows, at the door, in building and in judging. Whoever
shows the module anything else, be it one byte of a row, has it computed for real.

Invariant: answers are the module's own, and nobody's changes reach another's copy. The world's checkers
ask the module itself. Leaves out: whether a module is deterministic; the conformance tests ask that.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import (
    Explanation,
    ModuleView,
    ReportColumns,
    TransferColumns,
    ValidationModule,
    Verdicts,
    get_rows_key,
)

ANSWERS_MAX: Final = 4_096  # a few runs' worth, a few MB

_Key = tuple[bytes, ...]


class RememberingModule:
    """A ValidationModule in front of another one."""

    def __init__(self, module: ValidationModule) -> None:
        self.name = module.name
        self.digest = module.digest
        self.row_bytes = module.row_bytes
        self.rows_key = get_rows_key(module)
        self._module = module
        self._answers: dict[_Key, tuple[Verdicts, NDArray[np.uint8]]] = {}
        self._explanations: dict[_Key, Explanation] = {}

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        key = (*_read_columns(transactions), b"", *_read_columns(reports), b"", *_read_view(view))
        answer = self._answers.get(key)
        if answer is None:
            answer = self._module.evaluate(transactions, reports, view)
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            self._answers[key] = answer
        verdicts, rows = answer
        memo = None if verdicts.memo is None else verdicts.memo.copy()
        return Verdicts(verdicts.score.copy(), verdicts.outcome.copy(), memo), rows.copy()

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        key = (*_read_columns(transactions), b"", *_read_view(view), index.to_bytes(4, "big"))
        explanation = self._explanations.get(key)
        if explanation is None:
            explanation = self._module.explain(transactions, view, index)
            if len(self._explanations) >= ANSWERS_MAX:
                self._explanations.clear()
            self._explanations[key] = explanation
        return explanation


def _read_columns(columns: TransferColumns | ReportColumns) -> list[bytes]:
    return [getattr(columns, name).tobytes() for name in columns.__slots__]


def _read_view(view: ModuleView) -> _Key:
    thresholds = view.thresholds
    return (
        view.rows.tobytes(),
        thresholds.flag_score_min.to_bytes(4, "big"),
        thresholds.refuse_score_min.to_bytes(4, "big"),
    )
