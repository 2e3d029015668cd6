"""The fraud module through its contract: verdicts, explanations, digest, and how it does on the demo's town."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import Rejected
from consensus.ledger.scoring import (
    MODULE_ROW_BYTES_MAX,
    OUTCOME_NAMES,
    REFUSE_NEVER,
    SCORE_MAX,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
)
from ml.cards import generate_cards
from ml.definitions import DEFAULT_DEFINITIONS
from ml.discovery import list_modules, load_module
from ml.fraud import FraudModule, load, read_default_artifact
from ml.metrics import compute_average_precision
from ml.playback import ON_TIME, ReportPlan, iterate_blocks, play_scores, schedule_reports
from ml.synthetic import generate_workload

MODULE = load(read_default_artifact())
TOWN = generate_workload(11)
NONE = np.zeros(0, dtype=np.int64)
NO_REPORTS = ReportColumns(NONE, NONE, NONE, NONE, NONE)


@pytest.fixture(scope="module")
def played():
    return play_scores(TOWN.trace, schedule_reports(TOWN.trace, ON_TIME, 0), MODULE)


def test_the_shipped_model_refuses_half_of_the_frauds_of_a_town_it_never_saw(played):
    fraud = TOWN.trace.fraud == 1
    refused = played.score >= MODULE.thresholds.refuse_score_min
    assert refused[fraud].mean() > 0.4
    assert fraud[refused].mean() > 0.85
    assert refused[~fraud].mean() < 0.002  # twice the budget it was chosen for
    flagged = played.score >= MODULE.thresholds.flag_score_min
    assert flagged[~fraud].mean() < 0.01


def test_patterns_are_caught_more_often_than_not_except_the_captured_shop_and_the_probe(played):
    flagged = played.score >= MODULE.thresholds.flag_score_min
    town = generate_workload(12, accounts=1_000, per_day=1_000)
    score = play_scores(town.trace, schedule_reports(town.trace, ON_TIME, 0), MODULE).score
    flagged = score >= MODULE.thresholds.flag_score_min
    recall = [flagged[town.pattern == number].mean() for number in range(1, 7)]
    assert min(recall[:1] + recall[2:5]) > 0.5
    assert recall[5] > 0.3  # tiny payments look like anybody's
    assert recall[1] > 0.2  # ordinary payments; only reports tell, a week late


def test_the_shipped_model_knows_card_payments_it_never_saw():
    cards = generate_cards(31, customers=600, days=40)
    score = play_scores(cards.trace, schedule_reports(cards.trace, ON_TIME, 0), MODULE).score
    assert cards.trace.fraud is not None
    assert compute_average_precision(cards.trace.fraud, score) > 0.6
    assert (score[cards.pattern == 0] >= MODULE.thresholds.refuse_score_min).mean() < 0.001


def test_scores_are_the_same_whatever_the_blocks():
    schedule = schedule_reports(TOWN.trace, ReportPlan(share=0.0), 0)
    scores = []
    for block_rows in (1, 37, 1000):
        state = np.zeros((len(TOWN.trace.names), MODULE.row_bytes), dtype=np.uint8)
        score = []
        for block in iterate_blocks(TOWN.trace, schedule, block_rows, end=600):
            view = ModuleView(state[block.accounts], MODULE.thresholds)
            verdicts, state[block.accounts] = MODULE.evaluate(block.transactions, block.reports, view)
            score += verdicts.score.tolist()
        scores.append(score)
    assert scores[0] == scores[1] == scores[2]


def test_explanations_add_up_and_give_the_score_that_evaluate_gives():
    schedule = schedule_reports(TOWN.trace, ON_TIME, 0)
    state = np.zeros((len(TOWN.trace.names), MODULE.row_bytes), dtype=np.uint8)
    explained = 0
    for block in iterate_blocks(TOWN.trace, schedule, 500):
        view = ModuleView(state[block.accounts], MODULE.thresholds)
        verdicts, state[block.accounts] = MODULE.evaluate(block.transactions, block.reports, view)
        chosen = {0, int(np.argmax(verdicts.score))}
        for index in sorted(chosen):
            why = MODULE.explain(block.transactions, view, index)
            assert why.score == verdicts.score[index]
            assert why.outcome == verdicts.outcome[index]
            assert why.base + sum(c.contribution for c in why.contributions) == why.margin
            sizes = [abs(c.contribution) for c in why.contributions]
            assert sizes == sorted(sizes, reverse=True)
            assert {c.feature for c in why.contributions} == set(DEFAULT_DEFINITIONS.names)
            assert all(c.words for c in why.contributions)
            explained += 1
    assert explained > 20


def test_words_carry_the_accounts_own_numbers():
    rows = np.zeros((2, MODULE.row_bytes), dtype=np.uint8)
    day = 86_400_000
    calm = TransferColumns(*np.array([[0, 1, 1_000, d * day] for d in range(10)]).T)
    _, rows = MODULE.evaluate(calm, NO_REPORTS, ModuleView(rows, MODULE.thresholds))
    jump = TransferColumns(*np.array([[0, 1, 5_140, 11 * day]]).T)
    why = MODULE.explain(jump, ModuleView(rows, MODULE.thresholds), 0)
    words = {c.feature: c.words for c in why.contributions}
    values = {c.feature: c.value for c in why.contributions}
    assert words["amount_over_mean"] == "the amount is 5.1 times the sender's mean (1,000)"
    assert values["amount"] == 5_140
    assert values["amount_over_mean"] == 512  # in 64ths before it became hundredths
    assert words["run_reports"] == "the receiver has no unexplained reports since its last clean day"
    assert words["clean_age_days"] == "the receiver's last clean day is 8 days old"


def test_a_first_payment_says_that_nothing_is_known():
    rows = np.zeros((2, MODULE.row_bytes), dtype=np.uint8)
    first = TransferColumns(*np.array([[0, 1, 1_000, 0]]).T)
    why = MODULE.explain(first, ModuleView(rows, Thresholds(0, REFUSE_NEVER)), 0)
    assert OUTCOME_NAMES[why.outcome] == "flag"
    assert any("no earlier amounts" in c.words for c in why.contributions)


def test_an_empty_block_has_no_verdicts_and_changes_no_row():
    rows = np.zeros((0, MODULE.row_bytes), dtype=np.uint8)
    empty = TransferColumns(NONE, NONE, NONE, NONE)
    verdicts, after = MODULE.evaluate(empty, NO_REPORTS, ModuleView(rows, MODULE.thresholds))
    assert len(verdicts.score) == len(verdicts.outcome) == 0
    assert after.shape == rows.shape


def test_the_largest_amounts_and_times_get_a_score_like_any_other():
    rows = np.zeros((1, MODULE.row_bytes), dtype=np.uint8)
    extreme = TransferColumns(*np.array([[0, 0, 2**53 - 1, 2**48 - 1], [0, 0, 0, 0]]).T)
    verdicts, _ = MODULE.evaluate(extreme, NO_REPORTS, ModuleView(rows, MODULE.thresholds))
    assert ((verdicts.score >= 0) & (verdicts.score <= SCORE_MAX)).all()


def test_the_digest_covers_artifact_definitions_and_code(monkeypatch):
    artifact = read_default_artifact()
    assert load(artifact).digest == MODULE.digest
    monkeypatch.setattr("ml.features.EVIDENCE_ONE_MAX", 254)  # code that computes something else
    assert load(artifact).digest != MODULE.digest
    monkeypatch.undo()
    monkeypatch.setattr("ml.fraud.FEATURES_VERSION", 99)
    assert load(artifact).digest != MODULE.digest


def test_modules_are_found_by_entry_point_and_by_dotted_name():
    assert {"fraud", "velocity"} <= set(list_modules())
    for name in ("fraud", "ml.fraud:load"):
        assert load_module(name, read_default_artifact()).digest == MODULE.digest
    assert load_module("velocity", b"").row_bytes <= MODULE_ROW_BYTES_MAX


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "is not installed.*fraud"),
        ("ml.nowhere:load", "cannot be imported"),
        ("ml.fraud:nothing", "cannot be imported"),
        ("ml.definitions:FEATURES_MAX", "is not a function"),
        ("hashlib:sha256", "digest"),
        (":load", "cannot be imported"),
    ],
)
def test_what_is_no_module_is_refused_by_name(name, message):
    with pytest.raises(Rejected, match=message) as caught:
        load_module(name, b"")
    assert name in str(caught.value)


def test_a_damaged_artifact_is_refused():
    with pytest.raises(Rejected, match="damaged or cut short"):
        FraudModule(read_default_artifact()[:-40])
