"""What the ledger does with a module that answers badly, and with more than one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from consensus.errors import Fault, Rejected
from consensus.genesis import ModuleEntry
from consensus.ledger.cases import Reported
from consensus.ledger.columns import build_memos, build_report_columns
from consensus.ledger.judging import Panel, Seat, judge
from consensus.ledger.scoring import (
    Counterfactual,
    Explanation,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from tests.ledger_chain import KEYS, STRANGERS, Chain, CountingModule, make_genesis

A, B, C, D, E, F = KEYS
Answer = tuple[Verdicts, NDArray[np.uint8]]


class Wrapped(CountingModule):
    """The counting module, with another answer where `spoil` gives one."""

    def __init__(self, spoil: Callable[[TransferColumns, ReportColumns, ModuleView, Answer], Any]) -> None:
        self._spoil = spoil

    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Answer:
        answer = super().evaluate(transactions, reports, view)
        return self._spoil(transactions, reports, view, answer)  # type: ignore[no-any-return]


def raise_on_13(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
    if (t.amount == 13).any():
        raise ZeroDivisionError("thirteen")
    return answer


def spoil_13(change: Callable[[Answer], Any]) -> Callable[..., Any]:
    return lambda t, r, v, answer: change(answer) if (t.amount == 13).any() else answer


BREACHES = {
    "raises": raise_on_13,
    "score too high": spoil_13(lambda a: (replace(a[0], score=a[0].score + 10_001), a[1])),
    "score negative": spoil_13(lambda a: (replace(a[0], score=a[0].score - 20_000), a[1])),
    "scores as floats": spoil_13(lambda a: (replace(a[0], score=a[0].score.astype(float)), a[1])),
    "one score missing": spoil_13(lambda a: (replace(a[0], score=a[0].score[1:]), a[1])),
    "unknown outcome": spoil_13(lambda a: (replace(a[0], outcome=a[0].outcome + np.uint8(3)), a[1])),
    "rows too wide": spoil_13(lambda a: (a[0], np.hstack([a[1], a[1]]))),
    "rows of integers": spoil_13(lambda a: (a[0], a[1].astype(np.int64))),
    "nothing": spoil_13(lambda a: None),
    "lists": spoil_13(lambda a: (a[0], a[1].tolist())),
    "writes to the view": lambda t, r, v, a: v.rows.fill(1) if (t.amount == 13).any() else a,
}


@pytest.mark.parametrize("name", BREACHES)
def test_what_a_module_fails_on_is_refused_and_nothing_else(name: str) -> None:
    chain = Chain(modules=(Wrapped(BREACHES[name]),))
    bad = chain.transfer(A, B, amount=13)
    shares = chain.transfer(B, C)
    good = [chain.transfer(D, E), chain.transfer(E, F)]
    built = chain.build(good[0], bad, shares, good[1])
    assert built.refused == ((bad, 10_000),)
    assert (built.block.transactions, built.deferred) == (tuple(good), (shares,))
    chain.add(built.block)
    verdicts = chain.rules.evaluate(chain.view, (bad, shares))
    assert (verdicts.score.tolist(), verdicts.outcome.tolist()) == ([10_000, 0], [2, 0])


@pytest.mark.parametrize("name", BREACHES)
def test_what_a_module_fails_on_is_explained_by_that_and_what_follows_it_as_it_was_judged(name: str) -> None:
    class Explaining(Wrapped):
        """As modules do it: by judging again, what makes one raise makes the other."""

        def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
            verdicts, _ = self.evaluate(transactions, build_report_columns(()), view)
            if (transactions.amount == 13).any():
                raise ZeroDivisionError("thirteen")
            return Explanation(int(verdicts.score[index]), 0, 0, len(transactions), ())

        def find_counterfactuals(
            self, transactions: TransferColumns, view: ModuleView, index: int
        ) -> tuple[Counterfactual, ...]:
            raise ZeroDivisionError("no advice")

    chain = Chain(modules=(Explaining(BREACHES[name]),))
    batch = (chain.transfer(A, B, amount=13), chain.transfer(B, C))
    ((_, bad),), ((_, good),) = (chain.rules.explain(chain.view, batch, index) for index in (0, 1))
    assert (bad.score, bad.outcome, bad.margin) == (10_000, 2, 10_000)
    assert "the module fails on it" in bad.contributions[0].words
    assert (good.score, good.margin) == (0, 1)  # of the one that the module does not fail on
    assert chain.rules.prepare_counterfactuals(chain.view, batch, 0)() == (("counting", ()),)


@pytest.mark.parametrize("answer", [None, ValueError("whatever")])
def test_a_module_that_cannot_explain_leaves_its_verdict_as_it_is(answer: Exception | None) -> None:
    class Silent(CountingModule):
        def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
            if answer is not None:
                raise answer
            return None  # type: ignore[return-value]

    chain = Chain(modules=(Silent(),))
    batch = (chain.transfer(A, B), chain.transfer(A, B))
    verdicts = chain.rules.evaluate(chain.view, batch)
    ((_, why),) = chain.rules.explain(chain.view, batch, 1)
    assert (why.score, why.outcome) == (int(verdicts.score[1]), int(verdicts.outcome[1]))
    assert "cannot say why" in why.contributions[0].words


@pytest.mark.parametrize("name", BREACHES)
def test_a_block_on_which_a_module_fails_is_refused(name: str) -> None:
    sound, broken = Chain(), Chain(modules=(Wrapped(BREACHES[name]),))
    block = sound.build(sound.transfer(A, B, amount=13)).block
    with pytest.raises(Rejected, match='module "counting" fails') as caught:
        broken.check(block)
    assert caught.value.code == "refused"


def test_several_failures_are_each_found_and_then_the_rest_is_refused() -> None:
    chain = Chain(modules=(Wrapped(raise_on_13),))
    candidates = [chain.transfer(A, B, amount=13 if place % 2 else 1) for place in range(20)]
    verdicts = chain.rules.evaluate(chain.view, candidates)
    # Four failures are searched (places 1, 3, 5, 7); from then on everything is refused.
    assert verdicts.outcome.tolist() == [0, 2, 0, 2, 0, 2, 0, 2] + [2] * 12


def test_a_module_that_fails_on_everything_leaves_an_empty_block() -> None:
    def fail(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        if len(t):
            raise ValueError("always")
        return answer

    chain = Chain(modules=(Wrapped(fail),))
    built = chain.build(*(chain.transfer(A, B) for _ in range(5)))
    assert built.block.transactions == ()
    assert len(built.refused) == 5
    chain.add(built.block)


def test_a_module_that_fails_on_nothing_at_all_is_a_fault() -> None:
    def fail(*_: object) -> Answer:
        raise ValueError("always")

    with pytest.raises(Fault):
        Chain(modules=(Wrapped(fail),)).build()


def test_running_out_of_memory_is_a_fault_and_no_verdict() -> None:
    def fail(*_: object) -> Answer:
        raise MemoryError

    chain = Chain(modules=(Wrapped(fail),))
    with pytest.raises(Fault, match="memory"):
        chain.build(chain.transfer())


def test_a_report_on_which_a_module_fails_is_refused() -> None:
    def fail(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        if (r.amount == 77).any():
            raise ValueError("seventy-seven")
        return answer

    chain = Chain(modules=(Wrapped(fail),))
    chain.grow(chain.transfer(C, D, amount=77), chain.transfer(E, F, amount=5))
    chain.grow()
    bad, good = chain.report(1, 0, A), chain.report(1, 1, B)
    built = chain.build(bad, good, chain.transfer(A, B))
    assert built.refused == ((bad, 10_000),)
    assert built.block.transactions == (good,)
    chain.add(built.block)


def test_a_module_whose_verdicts_depend_on_unrelated_ones_ends_in_an_empty_block() -> None:
    def lose_one(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        outcome = answer[0].outcome.copy()
        outcome[-1:] = 2  # always the last, whichever it is
        return replace(answer[0], outcome=outcome), answer[1]

    chain = Chain(modules=(Wrapped(lose_one),))
    pairs = [(A, B), (C, D), (E, F), *((STRANGERS[0], STRANGERS[0]),)]
    built = chain.build(*(chain.transfer(a, b) for a, b in pairs[:3]), chain.transfer(A, STRANGERS[1]))
    assert built.block.transactions == ()
    chain.add(built.block)


def test_a_module_sees_the_accounts_of_its_columns_and_no_others() -> None:
    seen = []

    def look(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        seen.append((len(v.rows), v.rows.flags.writeable, sorted({*t.sender, *t.receiver})))
        return answer

    chain = Chain(modules=(Wrapped(look),))
    chain.build(chain.transfer(A, B), chain.transfer(B, C), chain.transfer(STRANGERS[0], D))
    assert seen == [(3, False, [0, 1, 2])]


class Second(CountingModule):
    """Scores everything 3,000 in its own rows of two bytes."""

    name = "second"
    digest = b"s" * 32
    row_bytes = 2

    def evaluate(self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView) -> Answer:
        assert view.rows.shape[1] == 2
        score = np.full(len(transactions), 3_000, dtype=np.int64)
        return Verdicts.from_scores(score, view.thresholds), np.full_like(view.rows, 7)


def test_of_several_modules_the_highest_score_and_the_worst_outcome_count() -> None:
    genesis = make_genesis()
    entry = ModuleEntry("second", Second.digest, 10_000, 10_001)
    chain = Chain(replace(genesis, modules=(*genesis.modules, entry)), (CountingModule(), Second()))
    refused = chain.transfer(E, F, amount=60_000)
    built = chain.build(chain.transfer(A, B), chain.transfer(C, D, amount=40_000), refused)
    assert (built.block.scores, built.block.outcomes) == ((3_000, 4_000), b"\x00\x01")
    assert built.refused == ((refused, 6_000),)
    chain.add(built.block)
    assert chain.view.get_module_rows(A.address) == b"\x00\x00\x01\x00\x00\x00\x07\x07"
    assert chain.view.get_module_rows(F.address) == bytes(8)
    answers = chain.rules.explain(chain.view, built.block.transactions, 0)
    assert [name for name, _ in answers] == ["counting", "second"]


@pytest.mark.parametrize("memo", [np.zeros(2, np.uint8), np.zeros(1, np.int64), [1]])
def test_a_memo_that_breaks_the_contract_is_a_failure(memo: Any) -> None:
    def note(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        verdicts, rows = answer
        return (replace(verdicts, memo=memo), rows) if len(r) == 1 else answer

    chain = Chain(modules=(Wrapped(note),))
    chain.grow(chain.transfer(C, D))
    chain.grow()
    bad = chain.report(1, 0, A)
    assert chain.build(bad).refused == ((bad, 10_000),)


def test_memos_stay_with_their_reports_when_a_module_fails_on_one_of_them() -> None:
    def note(t: TransferColumns, r: ReportColumns, v: ModuleView, answer: Answer) -> Answer:
        if (r.amount == 77).any():
            raise ValueError("seventy-seven")
        verdicts, rows = answer
        return replace(verdicts, memo=r.amount.astype(np.uint8)), rows

    seat = Seat(Wrapped(note), Thresholds(2_000, 5_000), slice(0, 4))  # type: ignore[arg-type]
    none = np.zeros(0, dtype=np.int64)
    about = np.zeros(3, dtype=np.int64)
    reports = ReportColumns(about, about, np.array([5, 77, 6]), about, about)
    rows = np.zeros((1, 4), dtype=np.uint8)
    panel = Panel((seat,), None, b"")
    answer = judge(panel, TransferColumns(none, none, none, none), reports, rows, is_strict=False)
    assert answer.failed_reports == (1,)
    assert answer.memos[:, 0].tolist() == [5, 0, 6]


def test_what_was_noted_belongs_to_the_rows_it_was_noted_with() -> None:
    about = Reported(0, 1, 5, 0, 0, b"source", b"case", is_withdrawn=True, memos={(1, 0): 7, (6, 2): 9})
    thresholds = Thresholds(2_000, 5_000)

    def sit(start: int, generation: int) -> Seat:
        return Seat(Wrapped(None), thresholds, slice(start, start + 4), generation=generation)  # type: ignore[arg-type]

    panel = Panel((sit(1, 0), sit(6, 1), sit(6, 2), sit(11, 0)), None, b"")
    memos = build_memos((about, replace(about, memos={})), panel)
    assert memos is not None
    assert memos.tolist() == [[7, 0, 9, 0], [0, 0, 0, 0]]
    assert build_memos((replace(about, is_withdrawn=False),), panel) is None
