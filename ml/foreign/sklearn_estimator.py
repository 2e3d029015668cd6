"""scikit-learn's tree estimators, as objects in memory.

Random forests, extra trees and single trees average probabilities; gradient boosters add log-odds. Their
files are pickles, which run code as they load: `load_pickle` is for files that one made oneself.
Source: `sklearn.tree._tree.Tree` (children, threshold, value) and `HistGradientBoosting`'s node records.
Leaves out: several classes, categories, an `init` of one's own: refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from consensus.errors import Rejected
from ml.definitions import Bytes
from ml.foreign.forest import Floats, Link, SourceForest, SourceTree, floor_threshold, import_library

LIBRARY: Final = "scikit-learn"
AVERAGING: Final = ("RandomForestClassifier", "ExtraTreesClassifier")


def load_pickle(path: Path) -> Any:
    """The estimator in a pickle or joblib file; loading it runs whatever code the file holds."""
    joblib = import_library("joblib", "train")
    try:
        return joblib.load(path)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror or error})", field=str(path)) from None
    except Exception as error:  # unpickling raises anything
        raise Rejected(f"is no pickled estimator ({type(error).__name__} {error})", field=str(path)) from None


def read_sklearn(estimator: Any) -> SourceForest:
    """The forest of a fitted classifier of two classes. Raises Rejected."""
    kind = type(estimator).__name__
    classes = getattr(estimator, "classes_", None)
    if classes is None or len(classes) != 2:
        raise Rejected(
            "is not fitted to two classes", field=f"source ({kind})", mend="fit it on labels 0 and 1"
        )
    link: Link = "log_odds"
    base = 0.0
    if kind == "DecisionTreeClassifier":
        trees, link = [_read_probabilities(estimator.tree_, 1)], "probability"
    elif kind in AVERAGING:
        members = estimator.estimators_
        trees, link = [_read_probabilities(member.tree_, len(members)) for member in members], "probability"
    elif kind == "GradientBoostingClassifier":
        members = [row[0].tree_ for row in estimator.estimators_]
        trees = [_read_steps(tree, float(estimator.learning_rate)) for tree in members]
        raw = float(estimator.decision_function(np.zeros((1, estimator.n_features_in_)))[0])
        zero = sum(_walk_zeros(tree) for tree in trees)
        base = raw - zero
        if estimator.init is not None and estimator.init != "zero":
            raise Rejected(
                "starts from an estimator of its own", field="source.init", mend="leave `init` out"
            )
        if estimator.loss != "log_loss":
            raise Rejected(f"was trained for {estimator.loss}", field="source.loss", mend="use log_loss")
    elif kind == "HistGradientBoostingClassifier":
        trees = [_read_records(row[0].nodes) for row in estimator._predictors]
        base = float(np.ravel(estimator._baseline_prediction)[0])
        if getattr(estimator, "is_categorical_", None) is not None:
            raise Rejected("splits categories", field="source", mend="train without categorical features")
    else:
        raise Rejected(
            f"is a {kind}",
            field="source",
            mend=f"use {', '.join(AVERAGING)}, GradientBoostingClassifier or HistGradientBoostingClassifier",
        )
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    features = int(estimator.n_features_in_)
    predict = _make_predictor(estimator, link)
    return SourceForest(LIBRARY, names, features, tuple(trees), base, link, predict)


def _make_predictor(estimator: Any, link: Link) -> Callable[[Bytes], Floats]:
    def predict(features: Bytes) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of columns that come without their names
            if link == "probability":
                values = estimator.predict_proba(features.astype(np.float64))[:, 1]
            else:
                values = estimator.decision_function(features.astype(np.float64))
        return np.asarray(values, dtype=np.float64)

    return predict


def _read_nodes(tree: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """feature, threshold, left, right of a sklearn.tree.Tree: `feature <= threshold` goes left."""
    left = [int(child) for child in tree.children_left]
    threshold = [
        floor_threshold(float(t)) if child != -1 else 0 for t, child in zip(tree.threshold, left, strict=True)
    ]
    return [int(f) for f in tree.feature], threshold, left, [int(child) for child in tree.children_right]


def _read_probabilities(tree: Any, members: int) -> SourceTree:
    counts = tree.value[:, 0, :]
    shares = counts[:, 1] / counts.sum(axis=1) / members
    return SourceTree(*_read_nodes(tree), shares.tolist(), tree.weighted_n_node_samples.tolist())


def _read_steps(tree: Any, rate: float) -> SourceTree:
    steps = tree.value[:, 0, 0] * rate
    return SourceTree(*_read_nodes(tree), steps.tolist(), tree.weighted_n_node_samples.tolist())


def _read_records(nodes: Any) -> SourceTree:
    is_leaf = nodes["is_leaf"].astype(bool)
    if nodes["is_categorical"].any():
        raise Rejected("splits categories", field="source", mend="train without categorical features")
    return SourceTree(
        feature=nodes["feature_idx"].astype(int).tolist(),
        threshold=[
            0 if leaf else floor_threshold(float(t))
            for t, leaf in zip(nodes["num_threshold"], is_leaf, strict=True)
        ],
        left=np.where(is_leaf, -1, nodes["left"].astype(int)).tolist(),
        right=np.where(is_leaf, -1, nodes["right"].astype(int)).tolist(),
        value=nodes["value"].astype(float).tolist(),
        weight=nodes["count"].astype(float).tolist(),
    )


def _walk_zeros(tree: SourceTree) -> float:
    """The leaf that a row of zeros ends in."""
    node = 0
    while tree.left[node] != -1:
        node = tree.left[node] if tree.threshold[node] >= 0 else tree.right[node]
    return tree.value[node]
