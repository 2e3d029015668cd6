"""The velocity module: an allowance a day, counted across blocks, never given back."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import Rejected
from consensus.ledger.scoring import SCORE_MAX, ModuleView, ReportColumns, Thresholds, TransferColumns
from ml.velocity import LIMIT_DEFAULT, load

DAY = 86_400_000
NONE = np.zeros(0, dtype=np.int64)
NO_REPORTS = ReportColumns(NONE, NONE, NONE, NONE, NONE)
REFUSE_ABOVE = Thresholds(SCORE_MAX, SCORE_MAX)


def evaluate(module, rows, *times, sender=0):
    columns = TransferColumns(*np.array([[sender, 1, 5, time] for time in times]).T)
    view = ModuleView(rows, REFUSE_ABOVE)
    verdicts, after = module.evaluate(columns, NO_REPORTS, view)
    return verdicts, after, [module.explain(columns, view, i) for i in range(len(times))]


def test_only_transactions_above_the_limit_are_refused():
    module, rows = load(b"3"), np.zeros((2, 8), dtype=np.uint8)
    verdicts, _, why = evaluate(module, rows, 1, 2, 3, 4, 5)
    assert verdicts.outcome.tolist() == [0, 0, 0, 2, 2]
    assert [w.score for w in why] == verdicts.score.tolist()
    assert "3 transactions a day" in why[4].contributions[0].words


def test_the_count_goes_on_in_the_next_block_and_ends_with_the_day():
    module, rows = load(b"2"), np.zeros((2, 8), dtype=np.uint8)
    _, rows, _ = evaluate(module, rows, 1, 2)
    verdicts, rows, _ = evaluate(module, rows, 3, DAY)
    assert verdicts.outcome.tolist() == [2, 0]


def test_a_late_transaction_counts_on_the_newest_day():
    module, rows = load(b"1"), np.zeros((2, 8), dtype=np.uint8)
    verdicts, _, _ = evaluate(module, rows, 5 * DAY, DAY)
    assert verdicts.outcome.tolist() == [0, 2]


def test_other_senders_do_not_count():
    module, rows = load(b"1"), np.zeros((2, 8), dtype=np.uint8)
    _, rows, _ = evaluate(module, rows, 1)
    verdicts, _, _ = evaluate(module, rows, 2, sender=1)
    assert verdicts.outcome.tolist() == [0]


def test_limits_are_told_apart_by_digest_and_nonsense_is_refused():
    assert load(b"").limit == LIMIT_DEFAULT
    assert load(b"5").digest != load(b"6").digest
    for artifact in (b"0", b"-1", b"many", b"10000000", b"1.5"):
        with pytest.raises(Rejected, match="is not a limit"):
            load(artifact)
