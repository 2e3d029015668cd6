"""Forests of other libraries: equal to the library's own prediction, or refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from consensus.errors import Fault, Rejected
from ml.definitions import DEFAULT_DEFINITIONS
from ml.foreign.exchange import make_model, read_source
from ml.foreign.forest import (
    SourceForest,
    SourceTree,
    check_equal_to_source,
    convert_forest,
    floor_threshold,
)
from ml.foreign.lightgbm_text import read_lightgbm
from ml.foreign.sklearn_estimator import read_sklearn
from ml.foreign.xgboost_model import read_xgboost
from ml.forest import LEAVES_MAX
from ml.fraud import FraudModule, read_default_artifact
from ml.model import decode_model

FEATURES = len(DEFAULT_DEFINITIONS)
SHIPPED = decode_model(read_default_artifact())
RANDOM = np.random.Generator(np.random.PCG64(8))
TABLE = RANDOM.integers(0, 256, (3_000, FEATURES)).astype(np.uint8)
LABEL = ((TABLE[:, 0] > 200) & (TABLE[:, 3] < 90) | (TABLE[:, 5] < 4)).astype(int)
UNSEEN = RANDOM.integers(0, 256, (5_000, FEATURES)).astype(np.uint8)


def prove(source: SourceForest) -> None:
    """Margins equal the library's on thousands of rows, and the model that comes of it is a module."""
    forest = convert_forest(source, DEFAULT_DEFINITIONS)
    check_equal_to_source(source, forest, DEFAULT_DEFINITIONS)
    model = make_model(source, SHIPPED)
    assert decode_model(model.encode()) == model
    assert FraudModule(model.encode()).digest != FraudModule(read_default_artifact()).digest
    seen = source.predict(UNSEEN)
    risk = seen if source.link == "probability" else 1 / (1 + np.exp(-seen))
    assert np.abs(model.compute_scores(UNSEEN) - 10_000 * risk).max() < 3  # the score says what it says


def test_lightgbm_is_taken_over_from_its_text():
    lightgbm = pytest.importorskip("lightgbm")
    table = lightgbm.Dataset(TABLE, LABEL, feature_name=list(reversed(DEFAULT_DEFINITIONS.names)))
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 31}, table, 25)
    source = read_lightgbm(booster.model_to_string())
    assert source.names[0] == DEFAULT_DEFINITIONS.names[-1]  # mapped by name, whatever the order
    prove_by_names = convert_forest(source, DEFAULT_DEFINITIONS)
    check_equal_to_source(source, prove_by_names, DEFAULT_DEFINITIONS)
    plain = lightgbm.train(
        {"objective": "binary", "verbose": -1, "sigmoid": 1.5}, lightgbm.Dataset(TABLE, LABEL), 10
    )
    prove(read_lightgbm(plain.model_to_string()))


@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"max_depth": 6, "base_score": 0.03},
        {"booster": "dart", "rate_drop": 0.3, "max_depth": 3},
        {"num_parallel_tree": 3, "max_depth": 4},
        {"objective": "binary:logitraw", "max_depth": 4},
    ],
)
def test_xgboost_is_taken_over_from_its_model_files(form, parameters):
    xgboost = pytest.importorskip("xgboost", reason="xgboost (or xgboost-cpu) is not installed")
    parameters = {"objective": "binary:logistic", "nthread": 1, **parameters}
    booster = xgboost.train(parameters, xgboost.DMatrix(TABLE, LABEL), 12)
    prove(read_xgboost(bytes(booster.save_raw(form))))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandomForestClassifier", {"n_estimators": 20, "max_leaf_nodes": 32}),
        ("ExtraTreesClassifier", {"n_estimators": 15, "max_leaf_nodes": 64}),
        ("GradientBoostingClassifier", {"n_estimators": 15}),
        ("HistGradientBoostingClassifier", {"max_iter": 15}),
    ],
)
def test_scikit_learns_estimators_are_taken_over_from_memory(name, arguments):
    ensemble = pytest.importorskip("sklearn.ensemble")
    prove(read_sklearn(getattr(ensemble, name)(random_state=1, **arguments).fit(TABLE, LABEL)))


def test_a_single_tree_is_a_forest_of_one():
    tree = pytest.importorskip("sklearn.tree")
    prove(read_sklearn(tree.DecisionTreeClassifier(max_depth=5, random_state=1).fit(TABLE, LABEL)))


def test_an_exported_model_gives_the_exact_margin_and_score_in_another_runtime():
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from ml.foreign.onnx_writer import write_onnx

    session = runtime.InferenceSession(write_onnx(SHIPPED), providers=["CPUExecutionProvider"])
    margin, score = session.run(["assay.margin", "assay.score"], {"features": UNSEEN})
    assert (margin == SHIPPED.forest.compute_margins(UNSEEN)).all()
    assert (score == SHIPPED.compute_scores(UNSEEN)).all()


def test_what_was_exported_comes_back_split_for_split():
    pytest.importorskip("onnx", reason="onnx is not installed")
    from ml.foreign.onnx_reader import read_onnx
    from ml.foreign.onnx_writer import write_onnx

    again = convert_forest(read_onnx(write_onnx(SHIPPED)), DEFAULT_DEFINITIONS)
    assert [t.feature for t in again.trees] == [t.feature for t in SHIPPED.forest.trees]
    assert [t.threshold for t in again.trees] == [t.threshold for t in SHIPPED.forest.trees]
    assert (again.compute_margins(UNSEEN) == SHIPPED.forest.compute_margins(UNSEEN)).all()


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"])
def test_the_older_onnx_operators_are_read_whatever_way_they_split(mode):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from ml.foreign.onnx_reader import read_onnx

    helper = onnx.helper
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[0.25],
        nodes_treeids=[0] * 5,
        nodes_nodeids=list(range(5)),
        nodes_featureids=[2, 0, 7, 0, 0],
        nodes_values=[100.5, 0.0, 40.0, 0.0, 0.0],
        nodes_modes=[mode, "LEAF", mode, "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 3, 0, 0],
        nodes_falsenodeids=[2, 0, 4, 0, 0],
        target_treeids=[0] * 3,
        target_nodeids=[1, 3, 4],
        target_ids=[0] * 3,
        target_weights=[-1.5, 0.75, 2.0],
    )
    graph = helper.make_graph(
        [node],
        "old",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    source = read_onnx(model.SerializeToString())
    check_equal_to_source(source, convert_forest(source, DEFAULT_DEFINITIONS), DEFAULT_DEFINITIONS)
    node.attribute.append(helper.make_attribute("post_transform", "LOGISTIC"))
    model.graph.node[0].CopyFrom(node)
    with pytest.raises(Rejected, match="which runtimes read differently"):
        read_onnx(model.SerializeToString())


def stump(**changes: object) -> SourceForest:
    tree = SourceTree([0, 0, 0], [9, 0, 0], [1, -1, -1], [2, -1, -1], [0.0, -1.0, 1.0], [0, 1, 1])
    made = replace(tree, **{k: v for k, v in changes.items() if k in SourceTree.__slots__})
    forest = SourceForest("test", (), FEATURES, (made,), 0.0, "log_odds", None)
    return replace(forest, **{k: v for k, v in changes.items() if k not in SourceTree.__slots__})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": [0.0, 300.0, 1.0]}, "could overflow"),
        ({"value": [0.0, float("nan"), 1.0]}, "could overflow"),
        ({"base": 1e9}, "could overflow"),
        ({"names": ("amount", "phase_of_moon")}, "unknown feature 'phase_of_moon'"),
        ({"names": ("amount", "amount")}, "one name"),
        ({"features": 5}, "takes 5 unnamed features"),
        ({"feature": [77, 0, 0]}, "unknown feature 77"),
        ({"left": [0, -1, -1]}, "form no tree"),
        ({"left": [9, -1, -1]}, "form no tree"),
        ({"trees": ()}, "holds no tree"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_its_reason(changes, message):
    with pytest.raises(Rejected, match=message):
        convert_forest(stump(**changes), DEFAULT_DEFINITIONS)


def test_trees_of_too_many_leaves_and_forests_of_too_many_trees_are_refused():
    splits = LEAVES_MAX  # a chain of splits has one leaf more
    chain = SourceTree(
        feature=[n % FEATURES for n in range(splits)] + [0] * (splits + 1),
        threshold=[200 - n for n in range(splits)] + [0] * (splits + 1),
        left=[n + 1 for n in range(splits - 1)] + [splits] + [-1] * (splits + 1),
        right=[splits + 1 + n for n in range(splits)] + [-1] * (splits + 1),
        value=[0.0] * (2 * splits + 1),
        weight=[1.0] * (2 * splits + 1),
    )
    with pytest.raises(Rejected, match=f"more than {LEAVES_MAX} leaves"):
        convert_forest(stump(trees=(chain,)), DEFAULT_DEFINITIONS)
    tree = stump().trees[0]
    with pytest.raises(Rejected, match="1 to 512 trees"):
        convert_forest(stump(trees=(tree,) * 513), DEFAULT_DEFINITIONS)


def test_splits_that_no_byte_takes_both_ways_of_disappear():
    always_left, always_right = stump(threshold=[255, 0, 0]), stump(threshold=[-1, 0, 0])
    for source, value in ((always_left, -1.0), (always_right, 1.0)):
        forest = convert_forest(source, DEFAULT_DEFINITIONS)
        assert (forest.compute_margins(UNSEEN) == value * 2**16).all()
        assert len(forest.trees[0].feature) == 1


def test_thresholds_say_of_integers_what_they_said_of_floats():
    for threshold in (-0.5, 0.0, 1e-30, 3.0, 3.5, 254.999, 255.0, 1e30):
        for strict in (False, True):
            floored = floor_threshold(threshold, strict)
            for x in range(256):
                assert (x <= floored) == (x < threshold if strict else x <= threshold)


def test_a_forest_that_differs_from_its_library_is_a_fault():
    honest = stump(predict=lambda table: np.where(table[:, 0] <= 9, -1.0, 1.0))
    forest = convert_forest(honest, DEFAULT_DEFINITIONS)
    check_equal_to_source(honest, forest, DEFAULT_DEFINITIONS)
    other = replace(honest, predict=lambda table: np.where(table[:, 0] <= 10, -1.0, 1.0))
    with pytest.raises(Fault, match="differs from test"):
        check_equal_to_source(other, forest, DEFAULT_DEFINITIONS)
    with pytest.raises(Rejected, match="not installed"):
        check_equal_to_source(replace(honest, predict=None), forest, DEFAULT_DEFINITIONS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"hello", "not a LightGBM text model"),
        ("a.txt", b"\xff\xfe", "not text"),
        ("a.txt", b"tree\nobjective=regression\nnum_class=1\n\n", "predicts regression"),
        ("a.txt", b"tree\nobjective=binary\nnum_class=1\n\n", "max_feature_idx: is not a number"),
        ("a.txt", b"tree\nobjective=binary sigmoid:x\nnum_class=1\n\n", "objective: is not a number"),
        ("a.json", b"{}", "not an XGBoost model"),
        ("a.json", b"[" * 100_000, "not an XGBoost model"),
        ("a.ubj", b"{L\x00\x00", "not an XGBoost model"),
        ("a.joblib", b"", "runs code as it loads"),
        ("a.model", b"", "names no library"),
    ],
)
def test_files_that_hold_no_forest_are_refused(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(Rejected, match=message) as caught:
        read_source(path)
    assert "\n" not in str(caught.value)


def test_an_xgboost_model_of_other_kinds_is_refused():
    learner = {
        "objective": {"name": "multi:softprob"},
        "learner_model_param": {"num_class": "3", "num_feature": "12", "base_score": "0.5"},
        "gradient_booster": {"name": "gbtree", "model": {"trees": []}},
    }
    with pytest.raises(Rejected, match="gbtree for multi:softprob"):
        read_xgboost(json.dumps({"learner": learner}).encode())


def test_damaged_onnx_is_refused():
    pytest.importorskip("onnx", reason="onnx is not installed")
    from ml.foreign.onnx_reader import read_onnx

    with pytest.raises(Rejected):
        read_onnx(b"\x08\xff")
    with pytest.raises(Rejected, match="0 tree ensembles"):
        read_onnx(b"")
