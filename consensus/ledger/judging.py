"""Judging: what the chain's modules say about a block, and what they write.

A module sees the rows of the accounts that its columns name, nothing else; the ledger checks what it
answers (types, shapes, ranges). Of several modules the worst outcome and the highest score count, or the
weighted mean of their scores by thresholds of its own. A module of weight 0 watches: its rows go on, what
it says counts for nothing, and when it fails only its own answer is lost.

A module fails on a transaction when it raises or breaks its contract. That transaction is refused, with
the highest score, the same way on every node: the shortest failing beginning of the block is searched
by halving and its last transaction taken out, FAILURES_MAX times; then all that follow are refused.
Transfers come before reports in that order. Failing on an empty block is a Fault.

Invariant: the same columns and rows give the same answer on every node; a failure here is never local
(running out of memory is, and is a Fault).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Fault, Rejected
from consensus.ledger import scoring
from consensus.ledger.scoring import (
    AdvisingModule,
    Contribution,
    Counterfactual,
    Explanation,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    ValidationModule,
)
from consensus.ledger.state import Rows

_Columns = TypeVar("_Columns", TransferColumns, ReportColumns)

FAILURES_MAX: Final = 4  # each costs up to fourteen evaluations of the block

_Answer = tuple[scoring.Verdicts, Rows]


@dataclass(frozen=True, slots=True)
class Seat:
    """A module's place in the chain: its thresholds, and where its bytes lie in the module rows.

    The byte before `place` is their tag: rows of another generation read as zeros (seating.py).
    """

    module: ValidationModule
    thresholds: Thresholds
    place: slice
    weight: int = 1
    generation: int = 0

    def read_rows(self, rows: Rows) -> Rows:
        """uint8[k, row_bytes]: the module's own part of these module rows, read-only."""
        own: Rows
        if self.generation:
            # No row is newer than its slot, so that rows of generation 0 need not be looked at.
            is_own = rows[:, self.place.start - 1] == self.generation
            own = rows[:, self.place] * is_own[:, None]
        else:
            own = np.ascontiguousarray(rows[:, self.place])
        own.flags.writeable = False
        return own

    def write_rows(self, rows: Rows, written: Rows) -> None:
        """Puts the module's answer into its part of `rows`."""
        rows[:, self.place] = written
        if self.generation:
            rows[:, self.place.start - 1] = self.generation


@dataclass(frozen=True, slots=True)
class Panel:
    """Who judges one block. combined: thresholds of the weighted score; None: the worst counts."""

    seats: tuple[Seat, ...]
    combined: Thresholds | None
    digest: bytes  # what the block's header says of it

    def get_label(self, seat: Seat) -> str:
        """The module's name; where two have one name, with the beginning of its digest."""
        name = seat.module.name
        if sum(other.module.name == name for other in self.seats) == 1:
            return name
        return f"{name}@{seat.module.digest[:4].hex()}"


@dataclass(frozen=True, slots=True)
class Judgment:
    """score: int64[n], outcome: uint8[n] of the transfers. local: int64[j], the accounts that the columns
    named; rows: uint8[j, module row bytes], what the modules made of them. memos: uint8[m, modules], what
    they noted of each report. failed_reports: indices."""

    score: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    local: NDArray[np.int64]
    rows: Rows
    memos: Rows
    failed_reports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Opinion:
    """What one module says of the transfers. is_failed: bool[n], those that it fails on."""

    verdicts: scoring.Verdicts
    is_failed: NDArray[np.bool_]


class _Failure(Exception):
    """A module failed on these columns."""


def judge(
    panel: Panel,
    transfers: TransferColumns,
    reports: ReportColumns,
    rows: Rows,
    *,
    is_strict: bool,
    memos: Rows | None = None,
) -> Judgment:
    """All modules on one block. `rows`: uint8[k, module row bytes] of the accounts by local index.

    memos: uint8[m, modules] of the reports that are withdrawn; None: all 0 (`reports.memo` is not read).

    Strict (a block to check): a failing module raises Rejected, as what it fails on is refused.
    """
    named = np.concatenate([transfers.sender, transfers.receiver, reports.sender, reports.receiver])
    local, inverse = np.unique(named, return_inverse=True)
    count, report_count = len(transfers), len(reports)
    places = np.split(inverse.astype(np.int64), [count, 2 * count, 2 * count + report_count])
    transfers = TransferColumns(places[0], places[1], transfers.amount, transfers.timestamp_ms)
    named_reports = replace(reports, sender=places[2], receiver=places[3])
    new_memos = np.zeros((report_count, len(panel.seats)), dtype=np.uint8)
    old_rows = rows[local]
    new_rows = old_rows.copy()
    failed_reports: set[int] = set()
    opinions: list[tuple[int, _Opinion]] = []
    for number, seat in enumerate(panel.seats):
        reports = named_reports if memos is None else replace(named_reports, memo=memos[:, number].copy())
        view = ModuleView(seat.read_rows(old_rows), seat.thresholds)
        try:
            verdicts, written = _evaluate(seat.module, transfers, reports, view)
            opinion = _Opinion(verdicts, np.zeros(count, dtype=np.bool_))
        except _Failure as failure:
            if is_strict and seat.weight:
                raise Rejected(
                    f'module "{seat.module.name}" fails on its transactions ({failure})',
                    field="block.transactions",
                    code="refused",
                ) from None
            if seat.weight:
                opinion, written, failed = _evaluate_surviving(seat.module, transfers, reports, view)
                failed_reports |= failed
            else:
                opinion, written = _watch_surviving(seat.module, transfers, reports, view)
        seat.write_rows(new_rows, written)
        if opinion.verdicts.memo is not None:
            new_memos[:, number] = opinion.verdicts.memo
        if seat.weight:
            opinions.append((seat.weight, opinion))
    verdicts = _combine(opinions, panel.combined, count)
    failed_places = tuple(sorted(failed_reports))
    return Judgment(verdicts.score, verdicts.outcome, local, new_rows, new_memos, failed_places)


def explain(seat: Seat, transfers: TransferColumns, rows: Rows, place: int) -> Explanation:
    """Why transfers[place] gets the score that `judge` lets this module give it.

    rows: uint8[k, module row bytes] of the accounts that the columns name. Where the module raises, it is asked
    again without what it fails on, as it was when it judged. Raises Fault when out of memory.
    """
    module, view = seat.module, ModuleView(seat.read_rows(rows), seat.thresholds)
    try:
        return _explain(module, transfers, view, place)
    except _Failure as failure:
        words = f"the module cannot say why ({failure})"
    none = np.zeros(0, dtype=np.int64)
    no_reports = ReportColumns(none, none, none, none, none)
    try:
        verdicts = _evaluate(module, transfers, no_reports, view)[0]
    except _Failure as failure:
        opinion = _evaluate_surviving(module, transfers, no_reports, view)[0]
        verdicts, is_kept = opinion.verdicts, ~opinion.is_failed
        if not is_kept[place]:
            words = f"the module fails on it ({failure})"
        else:
            with suppress(_Failure):
                return _explain(module, _take(transfers, is_kept), view, int(is_kept[:place].sum()))
    score, outcome = int(verdicts.score[place]), int(verdicts.outcome[place])
    return Explanation(score, outcome, 0, score, (Contribution("failure", 1, score, words),))


def _explain(
    module: ValidationModule, transfers: TransferColumns, view: ModuleView, place: int
) -> Explanation:
    try:
        with np.errstate(all="ignore"):
            explanation = module.explain(transfers, view, place)
    except MemoryError as error:
        raise Fault(f'out of memory in module "{module.name}"', field="modules") from error
    except Exception as error:
        raise _Failure(f"{type(error).__name__}: {error}") from error
    if not isinstance(explanation, Explanation):
        raise _Failure(f"{type(explanation).__name__} is no Explanation")
    return explanation


def find_counterfactuals(
    module: ValidationModule, transfers: TransferColumns, view: ModuleView, place: int
) -> tuple[Counterfactual, ...]:
    """What the module says would have to change; () where it fails. Nothing depends on it."""
    try:
        return tuple(cast(AdvisingModule, module).find_counterfactuals(transfers, view, place))
    except MemoryError as error:
        raise Fault(f'out of memory in module "{module.name}"', field="modules") from error
    except Exception:  # advice of a package's own code: without it the verdict is told all the same
        return ()


def _combine(
    opinions: Sequence[tuple[int, _Opinion]], combined: Thresholds | None, count: int
) -> scoring.Verdicts:
    """(weight, opinion) of those that count; with none of them everything is accepted."""
    score = np.zeros(count, dtype=np.int64)
    outcome = np.zeros(count, dtype=np.uint8)
    if combined is None:
        for _, opinion in opinions:
            np.maximum(score, opinion.verdicts.score, out=score)
            np.maximum(outcome, opinion.verdicts.outcome, out=outcome)
        return scoring.Verdicts(score, outcome)
    total = sum(weight for weight, _ in opinions)
    if not total:
        return scoring.Verdicts(score, outcome)
    for weight, opinion in opinions:
        score += weight * opinion.verdicts.score  # below 8 * 10^4 * 10^4
    verdicts = scoring.Verdicts.from_scores(score // total, combined)
    for _, opinion in opinions:  # what a module fails on is refused, whatever the others say
        verdicts.score[opinion.is_failed] = scoring.SCORE_MAX
        verdicts.outcome[opinion.is_failed] = scoring.REFUSE
    return verdicts


def _evaluate(
    module: ValidationModule, transfers: TransferColumns, reports: ReportColumns, view: ModuleView
) -> _Answer:
    try:
        with np.errstate(all="ignore"):  # not as the process is set: the same on every node
            answer = module.evaluate(transfers, reports, view)
        verdicts, rows = answer
        score, outcome, memo = verdicts.score, verdicts.outcome, verdicts.memo
    except MemoryError as error:
        raise Fault(f'out of memory in module "{module.name}"', field="modules") from error
    except Exception as error:
        raise _Failure(f"{type(error).__name__}: {error}") from error
    count = len(transfers)
    for name, value, dtype, shape in (
        ("score", score, np.int64, (count,)),
        ("outcome", outcome, np.uint8, (count,)),
        ("rows", rows, np.uint8, view.rows.shape),
        ("memo", memo, np.uint8, (len(reports),)),
    ):
        if name == "memo" and value is None:
            continue
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
            raise _Failure(f"{name} is not {np.dtype(dtype).name}{list(shape)}")
    if count and not (score.min() >= 0 and score.max() <= scoring.SCORE_MAX):
        raise _Failure(f"a score is outside 0..{scoring.SCORE_MAX}")
    if count and outcome.max() > scoring.REFUSE:
        raise _Failure("an outcome is unknown")
    return verdicts, rows


def _evaluate_surviving(
    module: ValidationModule, transfers: TransferColumns, reports: ReportColumns, view: ModuleView
) -> tuple[_Opinion, Rows, set[int]]:
    """The answer with all that the module fails on refused, and the indices of the failed reports."""
    count = len(transfers)
    places = np.arange(count + len(reports))
    is_kept = np.ones(len(places), dtype=bool)

    def attempt(wanted: NDArray[np.bool_]) -> _Answer | None:
        try:
            return _evaluate(module, _take(transfers, wanted[:count]), _take(reports, wanted[count:]), view)
        except _Failure:
            return None

    start = 0
    answer: _Answer | None = None
    for _ in range(FAILURES_MAX):
        passing, failing = start, len(places)
        while failing - passing > 1:
            middle = (passing + failing) // 2
            if attempt(is_kept & (places < middle)) is None:
                failing = middle
            else:
                passing = middle
        is_kept[failing - 1 : failing] = False
        start = failing
        answer = attempt(is_kept)
        if answer is not None:
            break
    for refused_from in (start, 0):
        if answer is None:
            is_kept[refused_from:] = False
            answer = attempt(is_kept)
    if answer is None:
        raise Fault(
            f'module "{module.name}" fails on an empty block', field="modules", mend="install a fixed one"
        )
    verdicts, rows = answer
    score = np.full(count, scoring.SCORE_MAX, dtype=np.int64)
    outcome = np.full(count, scoring.REFUSE, dtype=np.uint8)
    score[is_kept[:count]] = verdicts.score
    outcome[is_kept[:count]] = verdicts.outcome
    memo = np.zeros(len(reports), dtype=np.uint8)
    if verdicts.memo is not None:
        memo[is_kept[count:]] = verdicts.memo
    failed = np.flatnonzero(~is_kept[count:]).tolist()
    return _Opinion(scoring.Verdicts(score, outcome, memo), ~is_kept[:count]), rows, set(failed)


def _watch_surviving(
    module: ValidationModule, transfers: TransferColumns, reports: ReportColumns, view: ModuleView
) -> tuple[_Opinion, Rows]:
    """What one that watches, and fails, answers without what it fails on; its rows as they were, if it fails on
    nothing at all."""
    try:
        return _evaluate_surviving(module, transfers, reports, view)[:2]
    except Fault as fault:
        if isinstance(fault.__cause__, MemoryError):
            raise
        none = scoring.Verdicts(
            np.zeros(len(transfers), dtype=np.int64), np.zeros(len(transfers), dtype=np.uint8)
        )
        return _Opinion(none, np.ones(len(transfers), dtype=np.bool_)), view.rows


def _take(columns: _Columns, wanted: NDArray[np.bool_]) -> _Columns:
    """The rows of `columns` that are wanted."""
    return type(columns)(*(getattr(columns, name)[wanted] for name in columns.__slots__))
