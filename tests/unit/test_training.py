"""Training on a small town: equality with LightGBM, reproducibility, what cannot be trained on."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from consensus.errors import Fault, Rejected
from ml.calibration import Budget, fit_calibration
from ml.definitions import DAY_MS, DEFAULT_DEFINITIONS
from ml.forest import Forest, Tree
from ml.metrics import compute_at_fpr
from ml.model import MARGIN_CLIP, decode_model
from ml.playback import ReportPlan, iterate_blocks, play_features, schedule_reports
from ml.synthetic import START_DAY, generate_workload
from ml.training import (
    AMOUNT_EDGE_MAX,
    PARAMETERS,
    check_equal,
    export_forest,
    learn_scale,
    train_model,
)

FEATURES = len(DEFAULT_DEFINITIONS)
TOWN = generate_workload(21, accounts=300, days=20, per_day=300).trace
DAYS = (START_DAY + 2, START_DAY + 20)


def test_the_integer_forest_equals_the_trained_one_on_unseen_rows():
    lightgbm = pytest.importorskip("lightgbm")
    random = np.random.Generator(np.random.PCG64(5))
    features = random.integers(0, 256, (4_000, FEATURES)).astype(np.uint8)
    fraud = (features[:, 0] > 200) & (features[:, 3] < 90) | (random.integers(0, 50, 4_000) == 0)
    booster = lightgbm.train(
        {**PARAMETERS, "min_data_in_leaf": 5, "seed": 1}, lightgbm.Dataset(features, fraud.astype(float)), 30
    )
    forest, places = export_forest(booster.dump_model())
    unseen = random.integers(0, 256, (20_000, FEATURES)).astype(np.uint8)
    check_equal(booster, forest, places, unseen)
    raw = booster.predict(unseen, raw_score=True) * 2**16
    assert np.abs(raw - forest.compute_margins(unseen)).max() <= len(forest.trees) / 2 + 0.01

    root = forest.trees[0]
    moved = Tree(root.feature, (root.threshold[0] - 20, *root.threshold[1:]), root.value)
    with pytest.raises(Fault, match="tree 0: the integer forest differs"):
        check_equal(booster, Forest(FEATURES, (moved, *forest.trees[1:])), places, unseen)


def test_training_twice_gives_the_same_artifact_and_says_what_it_saw(monkeypatch):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr("ml.training.TREES", 12)  # quick, and all there is to see
    shown = []
    model = train_model(TOWN, *DAYS, 3, (b"\x01" * 32,), lambda *step: shown.append(step))
    again = train_model(TOWN, *DAYS, 3, (b"\x01" * 32,))
    assert model.encode() == again.encode()
    assert decode_model(model.encode()) == model
    rows = (TOWN.time_ms >= DAYS[0] * DAY_MS) & (TOWN.time_ms < DAYS[1] * DAY_MS)
    assert model.card.rows == rows.sum()
    assert TOWN.fraud is not None
    assert model.card.positives == TOWN.fraud[rows].sum()
    assert dict(model.card.metrics)["average_precision"] > 500  # chance: 200
    assert 0 < model.thresholds.flag_score_min <= model.thresholds.refuse_score_min
    assert {what for what, _, _ in shown} == {"features", "trees"}
    assert all(0 < done <= total for _, done, total in shown)


def test_without_lightgbm_training_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(Rejected, match=r"pip install 'assay-node\[train\]'"):
        train_model(TOWN, *DAYS, 1, ())


@pytest.mark.parametrize(
    ("trace", "days", "message"),
    [
        (replace(TOWN, fraud=None), DAYS, "no labels"),
        (TOWN, (5, 9), f"holds days {START_DAY} to"),
        (replace(TOWN, fraud=np.zeros_like(TOWN.fraud)), DAYS, "0 of"),
        (replace(TOWN, fraud=np.ones_like(TOWN.fraud)), DAYS, "clean rows"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(trace, days, message):
    pytest.importorskip("lightgbm")
    with pytest.raises(Rejected, match=message):
        train_model(trace, *days, 1, ())


def test_the_scale_finds_the_amount_above_which_nearly_all_is_fraud():
    amount = np.arange(1, 1_001)
    fraud = (amount > 900).astype(np.uint8)
    scale = learn_scale(amount, fraud)
    assert 885 < scale.large_amount <= 901
    assert 1 < len(scale.amount_edges) <= 255
    assert learn_scale(amount, (amount % 2).astype(np.uint8)).large_amount == AMOUNT_EDGE_MAX


@pytest.mark.xfail(
    strict=True,
    reason="of rows of one amount learn_scale counts the latest alone; the mend moves the shipped model's limit"
    " from 40,950 to 41,000, so that it waits for the next model",
)
def test_an_amount_that_most_clean_rows_have_explains_no_report_wherever_its_frauds_stand():
    amount = np.full(1_000, 500)
    fraud = (np.arange(1_000) >= 990).astype(np.uint8)
    assert learn_scale(amount, fraud).large_amount == AMOUNT_EDGE_MAX
    amount[-10:] = 501
    assert learn_scale(amount, fraud).large_amount == 501


def test_the_chain_that_thresholds_are_chosen_on_refuses_by_the_budget(monkeypatch):
    pytest.importorskip("lightgbm")
    shares = []

    def note(fraud, margins, share):
        shares.append(share)
        return compute_at_fpr(fraud, margins, share)

    monkeypatch.setattr("ml.training.compute_at_fpr", note)
    train_model(TOWN, *DAYS, 3, (), budget=Budget(refuse_fpr=0.002), trees=3)
    assert shares == [0.002]


def test_calibration_finds_the_true_risk_and_survives_margins_that_tell_nothing():
    random = np.random.Generator(np.random.PCG64(1))
    margins = random.integers(-4 * 2**16, 4 * 2**16, 40_000)
    risk = 1 / (1 + np.exp(-(0.5 * margins / 2**16 - 1)))
    fraud = (random.random(40_000) < risk).astype(np.uint8)
    calibration = fit_calibration(margins, fraud, np.ones(40_000))
    assert calibration.compute_scores(np.array([2 * 2**16]))[0] == pytest.approx(5_000, abs=150)
    flat = fit_calibration(np.zeros(10, dtype=np.int64), np.ones(10, dtype=np.uint8), np.ones(10))
    assert (np.diff(flat.knots) >= 0).all()
    assert 0 <= flat.compute_scores(np.array([MARGIN_CLIP]))[0] <= 10_000


def test_reports_come_as_late_as_often_and_as_wrongly_as_planned():
    assert TOWN.fraud is not None
    frauds = int(TOWN.fraud.sum())
    on_time = schedule_reports(TOWN, ReportPlan(), 1)
    assert (on_time.due_ms - TOWN.time_ms[on_time.row] == 7 * DAY_MS).all()
    assert len(on_time.row) == frauds
    late = schedule_reports(TOWN, ReportPlan((7, 21), 0.7, 0.1), 1)
    wait = late.due_ms - TOWN.time_ms[late.row]
    assert 7 * DAY_MS <= wait.min() < wait.max() <= 21 * DAY_MS
    assert (np.diff(late.due_ms) >= 0).all()
    wrong = TOWN.fraud[late.row] == 0
    assert wrong.mean() == pytest.approx(0.1, abs=0.01)
    assert (~wrong).sum() == pytest.approx(0.7 * frauds, rel=0.15)


def test_a_block_carries_the_reports_that_fell_due_by_its_end_and_no_others():
    schedule = schedule_reports(TOWN, ReportPlan(), 1)
    seen = 0
    for block in iterate_blocks(TOWN, schedule, 250):
        due = schedule.due_ms[seen : seen + len(block.reported)]
        assert (due <= TOWN.time_ms[block.end - 1]).all()
        seen += len(block.reported)
        assert block.accounts[block.reports.sender].tolist() == TOWN.sender[block.reported].tolist()
        assert block.accounts[block.transactions.receiver].tolist() == (
            TOWN.receiver[block.start : block.end].tolist()
        )
    assert seen == (schedule.due_ms <= TOWN.time_ms[-1]).sum()


def test_what_a_chain_refuses_leaves_no_trace_in_its_state():
    assert TOWN.fraud is not None
    scale = learn_scale(TOWN.amount, TOWN.fraud)
    schedule = schedule_reports(TOWN, ReportPlan(), 1)
    nothing = play_features(TOWN, schedule, scale, refuse=lambda seen: np.ones(len(seen), dtype=bool))
    blank = play_features(TOWN, schedule, scale, end=1)[0]
    assert (nothing[::1000, 4:] == blank[4:]).all()  # receivers look as on the first day
    everything = play_features(TOWN, schedule, scale, refuse=lambda seen: np.zeros(len(seen), dtype=bool))
    assert (everything == play_features(TOWN, schedule, scale)).all()


@pytest.mark.parametrize(
    "plan", [((9, 7), 1.0, 0.0), ((7, 7), 1.1, 0.0), ((7, 7), 1.0, 1.0), ((7, 7), float("nan"), 0)]
)
def test_plans_that_make_no_sense_are_refused(plan):
    with pytest.raises(Rejected):
        ReportPlan(*plan)
