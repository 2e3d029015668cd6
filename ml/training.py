"""Training: play a trace under six kinds of life, grow trees with LightGBM, export them to integers.

Punctual labels are a trap: a model that saw only complete, punctual reports falls apart when they come
late or not at all. So every row is trained on five times, as MIXTURE says, and once as a refusing chain
sees it. What is learned from amounts (FeatureScale) uses only the training rows.

Export: thresholds are floored (lossless on integer features), leaves scaled by 2^16 and rounded. It is
checked on every training row (reported on time) that both forests leave each tree by the same leaf and
that margins differ by no more than the rounding. Calibration and thresholds come from scores out of
fold (each half of the senders scored by trees that saw the other half).
Invariant: same trace, range, seed and library versions give the same artifact.
Leaves out: any use on the vote path; floats end here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Fault, Rejected
from ml.calibration import BUDGET, Budget, choose_thresholds, fit_calibration, measure_scores
from ml.dataset import Trace
from ml.definitions import BYTE_MAX, DAY_MS, DEFAULT_DEFINITIONS, Definitions, FeatureScale
from ml.forest import LEAF, LEAF_SCALE_BITS, Forest, Tree
from ml.metrics import compute_at_fpr
from ml.model import AMOUNT_EDGE_MAX, Model, ModelCard, get_version
from ml.playback import ON_TIME, Progress, ReportPlan, ignore_progress, play_features, schedule_reports

TREES: Final = 64
LEAVES: Final = 16  # a tree; 32 gained nothing
CHECK_ROWS: Final = 65_536  # compared at a time
POSITIVES_MIN: Final = 20  # fewer frauds teach nothing that holds
LARGE_PRECISION: Final = (9, 10)  # an amount explains a report if 9 of 10 such amounts are frauds
LARGE_ROWS_MIN: Final = 10
# How labels may arrive, and the weight of each in training (tenths).
LATE: Final = (7, 21)
MIXTURE: Final[tuple[tuple[ReportPlan, int], ...]] = (
    (ON_TIME, 10),
    (ReportPlan(delay_days=LATE), 3),
    (ReportPlan(share=0.7), 3),
    (ReportPlan(delay_days=LATE, share=0.7), 3),
    (ReportPlan(false=0.01), 3),
)

REFUSING_WEIGHT: Final = 10  # of the rows as a refusing chain sees them

PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": BYTE_MAX,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,  # fixed: sums of floats depend on it
    "verbose": -1,
}

Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is trained on: uint8[n, F], 0/1 labels, weights, and each row's sender."""

    features: Bytes
    fraud: Bytes
    weight: NDArray[np.float64]
    sender: Int64s
    names: tuple[str, ...]  # of the features
    trees: int  # to grow on them


def train_model(
    trace: Trace,
    day_start: int,
    day_end: int,
    seed: int,
    data_sha256: tuple[bytes, ...],
    progress: Progress = ignore_progress,
    definitions: Definitions = DEFAULT_DEFINITIONS,
    budget: Budget = BUDGET,
    trees: int | None = None,
) -> Model:
    """A model trained on the rows of days [day_start, day_end); earlier rows warm the state up.

    trees: how many to grow (None: TREES).
    Raises Rejected if the trace has no labels, or too few rows or frauds in the range, or if LightGBM is
    not installed; Fault if the exported forest is not equal to the trained one.
    """
    import_lightgbm()  # before the long work
    if trace.fraud is None:
        raise Rejected("has no labels", field="data", mend="add a column `label` or `fraud` of 0 and 1")
    first, end = find_rows(trace, day_start, day_end)
    fraud = trace.fraud[first:end]
    positives = int(fraud.sum())
    if positives < POSITIVES_MIN or positives == len(fraud):
        raise Rejected(
            f"{positives} of {len(fraud)} rows of days {day_start} to {day_end} are frauds",
            field="data",
            mend=f"choose days with at least {POSITIVES_MIN} frauds, and clean rows",
        )
    scale = learn_scale(trace.amount[first:end], fraud)
    on_time, rows = _play_mixture(
        trace, first, end, scale, definitions, seed, progress, TREES if trees is None else trees
    )
    rows = _add_refusals(rows, trace, first, end, scale, definitions, seed, progress, budget)

    booster = _grow(rows, seed, progress)
    forest, leaf_places = export_forest(booster.dump_model())
    check_equal(booster, forest, leaf_places, rows.features[on_time])

    margins = _score_out_of_fold(rows, seed, progress)
    calibration = fit_calibration(margins, rows.fraud, rows.weight)
    scores = calibration.compute_scores(margins[on_time])
    refusing_scores = calibration.compute_scores(margins[-len(fraud) :])  # as _add_refusals appended them
    thresholds = choose_thresholds([(fraud, scores), (fraud, refusing_scores)], budget)
    card = ModelCard(
        data_sha256=data_sha256,
        day_start=day_start,
        day_end=day_end,
        rows=len(fraud),
        positives=positives,
        seed=seed,
        code_version=f"assay {get_version('assay-node')}, lightgbm {get_version('lightgbm')}",
        metrics=measure_scores(fraud, scores, budget),
    )
    return Model(definitions, forest, scale, calibration, thresholds, card)


def find_rows(trace: Trace, day_start: int, day_end: int) -> tuple[int, int]:
    """The rows [first, end) of days [day_start, day_end); raises Rejected if there are none."""
    first, end = np.searchsorted(trace.time_ms, (day_start * DAY_MS, day_end * DAY_MS)).tolist()
    if first == end:
        last_day = int(trace.time_ms[-1]) // DAY_MS
        raise Rejected(
            f"no rows on days {day_start} to {day_end} (exclusive)",
            field="days",
            mend=f"the data holds days {int(trace.time_ms[0]) // DAY_MS} to {last_day}",
        )
    return first, end


def learn_scale(amount: Int64s, fraud: Bytes) -> FeatureScale:
    """Edges at quantiles of all amounts and of the frauds', and the amount that explains a report.

    That is the least amount at and above which 9 of 10 rows, and at least 10, are frauds; where many rows have
    that very amount, its latest rows alone count (the shipped model was learned so).
    """
    halves = ((amount, BYTE_MAX // 2 + 1), (amount[fraud == 1], BYTE_MAX // 2))
    edges: set[int] = set()
    for values, count in halves:
        ordered = np.sort(values)
        edges.update(ordered[np.arange(count) * (len(ordered) - 1) // (count - 1)].tolist())
    order = np.argsort(amount, kind="stable")
    frauds_from = np.cumsum(fraud[order][::-1], dtype=np.int64)[::-1]
    rows_from = np.arange(len(amount), 0, -1)
    part, whole = LARGE_PRECISION
    usable = np.flatnonzero((frauds_from * whole >= rows_from * part) & (rows_from >= LARGE_ROWS_MIN))
    large = int(amount[order][usable[0]]) if len(usable) else AMOUNT_EDGE_MAX
    return FeatureScale(tuple(sorted(edges)), max(large, 1))


def _play_mixture(
    trace: Trace,
    first: int,
    end: int,
    scale: FeatureScale,
    definitions: Definitions,
    seed: int,
    progress: Progress,
    trees: int,
) -> tuple[slice, _Rows]:
    """Every row once per kind of reporting; the slice holds those whose reports came on time."""
    assert trace.fraud is not None
    parts = []
    for number, (plan, _) in enumerate(MIXTURE):

        def report(what: str, done: int, total: int, number: int = number) -> None:
            progress(what, number * total + done, len(MIXTURE) * total)

        schedule = schedule_reports(trace, plan, seed + number)
        parts.append(play_features(trace, schedule, scale, end, report, definitions=definitions)[first:])
    n = end - first
    return slice(0, n), _Rows(
        features=np.concatenate(parts),
        fraud=np.tile(trace.fraud[first:end], len(MIXTURE)),
        weight=np.repeat([weight / 10 for _, weight in MIXTURE], n),
        sender=np.tile(trace.sender[first:end], len(MIXTURE)),
        names=definitions.names,
        trees=trees,
    )


def _add_refusals(
    rows: _Rows,
    trace: Trace,
    first: int,
    end: int,
    scale: FeatureScale,
    definitions: Definitions,
    seed: int,
    progress: Progress,
    budget: Budget,
) -> _Rows:
    """The rows, and each once more as it looks on a chain that refuses by a first model.

    There a stained receiver gets no clean transaction any more; a model that never saw this goes on
    refusing long after the fraud is over (Ross, Gordon, Bagnell 2011: train on what your own acts cause).
    """
    n = end - first
    forest, _ = export_forest(_grow(rows, seed, progress).dump_model())
    margins = forest.compute_margins(rows.features[:n])
    _, _, limit = compute_at_fpr(rows.fraud[:n], margins, budget.refuse_fpr)
    schedule = schedule_reports(trace, ON_TIME, seed)
    refusing = play_features(
        trace,
        schedule,
        scale,
        end,
        progress,
        lambda seen: forest.compute_margins(seen) >= limit,
        definitions,
    )
    return _Rows(
        features=np.concatenate((rows.features, refusing[first:])),
        fraud=np.concatenate((rows.fraud, rows.fraud[:n])),
        weight=np.concatenate((rows.weight, np.full(n, REFUSING_WEIGHT / 10))),
        sender=np.concatenate((rows.sender, rows.sender[:n])),
        names=rows.names,
        trees=rows.trees,
    )


def import_lightgbm() -> Any:
    """The lightgbm package; raises Rejected with the mend if it is not installed."""
    try:
        import lightgbm
    except ImportError as error:
        raise Rejected(
            f"training needs LightGBM ({error})", field="lightgbm", mend="pip install 'assay-node[train]'"
        ) from None
    return lightgbm


def _grow(rows: _Rows, seed: int, progress: Progress) -> Any:
    lightgbm = import_lightgbm()
    data = lightgbm.Dataset(
        rows.features,
        rows.fraud.astype(np.float64),
        weight=rows.weight,
        feature_name=list(rows.names),
        params={"verbose": -1, "max_bin": BYTE_MAX},
    )
    callback: Callable[[Any], None] = lambda env: progress("trees", env.iteration + 1, rows.trees)  # noqa: E731
    return lightgbm.train(
        {**PARAMETERS, "seed": seed % 2**31}, data, num_boost_round=rows.trees, callbacks=[callback]
    )


def export_forest(dump: dict[str, Any]) -> tuple[Forest, list[list[int]]]:
    """LightGBM's dumped model in integer form, and per tree the place of each of LightGBM's leaves."""
    trees, places = [], []
    for info in dump["tree_info"]:
        feature: list[int] = []
        threshold: list[int] = []
        value: list[int] = []
        leaves: list[int] = []

        def walk(
            node: dict[str, Any],
            feature: list[int] = feature,
            threshold: list[int] = threshold,
            value: list[int] = value,
            leaves: list[int] = leaves,
        ) -> tuple[int, int]:
            """Append the subtree in preorder; (sum of its leaves' values by rows, rows)."""
            place = len(feature)
            if "leaf_value" in node:
                count = max(int(node.get("leaf_count", 1)), 1)
                feature.append(LEAF)
                threshold.append(0)
                value.append(round(node["leaf_value"] * 2**LEAF_SCALE_BITS))
                leaves.append(int(node.get("leaf_index", 0)))
                return value[place] * count, count
            if node["decision_type"] != "<=" or node["missing_type"] != "None":
                raise Fault(f"LightGBM made a split of another kind: {node['decision_type']}")
            feature.append(int(node["split_feature"]))
            threshold.append(math.floor(node["threshold"]))
            value.append(0)
            left, right = walk(node["left_child"]), walk(node["right_child"])
            total, count = left[0] + right[0], left[1] + right[1]
            value[place] = total // count
            return total, count

        walk(info["tree_structure"])
        trees.append(Tree(tuple(feature), tuple(threshold), tuple(value)))
        places.append([leaves.index(number) for number in range(len(leaves))])
    forest = Forest(int(dump["max_feature_idx"]) + 1, tuple(trees))
    return Forest.from_fields(forest.to_fields()), places  # through every check that a decoded one passes


def check_equal(booster: Any, forest: Forest, leaf_places: list[list[int]], features: Bytes) -> None:
    """Raise Fault unless both forests take each row of `features` to the same leaf of each tree, with
    margins apart by at most half a unit of 2^-16 a tree (the leaves' rounding)."""
    for low in range(CHECK_ROWS, len(features), CHECK_ROWS):  # leaf numbers of all rows would fill the memory
        check_equal(booster, forest, leaf_places, features[low : low + CHECK_ROWS])
    features = features[:CHECK_ROWS]
    expected = booster.predict(features, pred_leaf=True).reshape(len(features), -1)
    leaves = forest.compute_leaves(features)
    for number, places in enumerate(leaf_places):
        differing = np.flatnonzero(np.array(places)[expected[:, number]] != leaves[:, number])
        if len(differing):
            raise Fault(f"tree {number}: the integer forest differs on row {differing[0]}")
    margins = booster.predict(features, raw_score=True) * 2**LEAF_SCALE_BITS
    apart = float(np.abs(margins - forest.compute_margins(features)).max(initial=0.0))
    if apart > len(forest.trees) / 2 + 0.01:
        raise Fault(f"margins of the integer forest are {apart} apart")


def _score_out_of_fold(rows: _Rows, seed: int, progress: Progress) -> Int64s:
    margins = np.zeros(len(rows.fraud), dtype=np.int64)
    half = np.unique(rows.sender, return_inverse=True)[1] % 2
    for fold in (0, 1):
        seen, held = half != fold, half == fold
        if rows.fraud[seen].sum() in (0, seen.sum()):
            seen = np.ones(len(half), dtype=bool)  # too few senders to hold any out
        part = _Rows(
            rows.features[seen],
            rows.fraud[seen],
            rows.weight[seen],
            rows.sender[seen],
            rows.names,
            rows.trees,
        )
        forest, _ = export_forest(_grow(part, seed, progress).dump_model())
        margins[held] = forest.compute_margins(rows.features[held])
    return margins
