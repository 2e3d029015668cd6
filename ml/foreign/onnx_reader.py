"""ONNX tree ensembles: TreeEnsembleClassifier and -Regressor (ai.onnx.ml 1 to 3), TreeEnsemble (5).

Source: the operator specifications of ai.onnx.ml. A classifier must have two classes; its leaves vote for
both (probabilities, added) or for one (log-odds, with post_transform LOGISTIC). A regressor's sum is read as
log-odds (and may have no post_transform: runtimes differ). Leaves out: graphs that compute anything else before or after (but casts and class tables), and
splits that ask for equality: refused. Needs the package `onnx`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from consensus.errors import Rejected
from ml.definitions import Bytes
from ml.foreign.forest import (
    Floats,
    Link,
    SourceForest,
    SourceTree,
    find_library,
    floor_threshold,
    import_library,
)

LIBRARY: Final = "onnxruntime"
FILE_BYTES_MAX: Final = 64 * 1024 * 1024  # far beyond any forest that an artifact can hold
ENSEMBLES: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")
AROUND: Final = frozenset({"Cast", "Identity", "ZipMap", "ArrayFeatureExtractor", "Squeeze", "Reshape"})
OURS: Final = "assay.margin"  # the output of exported models that holds the ensemble's sum
MODES: Final = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")  # by their number in TreeEnsemble


def read_onnx(data: bytes) -> SourceForest:
    """The forest in an ONNX file's bytes. Raises Rejected."""
    onnx = import_library("onnx", "onnx")
    if len(data) > FILE_BYTES_MAX:
        raise Rejected(f"{len(data)} bytes, at most {FILE_BYTES_MAX} allowed", field="source", code="size")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises its own
        raise Rejected(f"is not an ONNX model ({type(error).__name__})", field="source") from None
    nodes = list(model.graph.node)
    found = [node for node in nodes if node.op_type in ENSEMBLES and node.domain == "ai.onnx.ml"]
    if len(found) != 1:
        raise Rejected(f"holds {len(found)} tree ensembles", field="source", mend="export one forest")
    ours = any(output.name == OURS for output in model.graph.output)
    others = {node.op_type for node in nodes} - AROUND - {found[0].op_type}
    if others and not ours:
        raise Rejected(f"computes {sorted(others)[0]} too", field="source", mend="export the forest alone")
    values = {a.name: onnx.helper.get_attribute_value(a) for a in found[0].attribute}
    shape = model.graph.input[0].type.tensor_type.shape.dim
    features = shape[-1].dim_value if len(shape) == 2 else 0
    base = 0.0
    link: Link = "log_odds"
    try:
        if found[0].op_type == "TreeEnsemble":
            trees = _read_version_5(values, onnx.numpy_helper.to_array)
            logistic = False
        else:
            trees, base, link, logistic = _read_versions_1_to_3(values, found[0].op_type, onnx)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Rejected(f"is not well-formed ({type(error).__name__} {error})", field="source") from None
    if ours:
        scale = 2.0 ** -_get_scale_bits(model)
        trees = [_scale_tree(tree, scale) for tree in trees]
    most = max((max(tree.feature, default=0) for tree in trees), default=0)
    predict = _make_predictor(data, link, logistic, ours)
    return SourceForest(LIBRARY, (), max(features, most + 1), tuple(trees), base, link, predict)


def _get_scale_bits(model: Any) -> int:
    for pair in model.metadata_props:
        if pair.key == "assay.leaf_scale_bits" and pair.value.isdecimal():
            return min(int(pair.value), 64)
    return 0


def _scale_tree(tree: SourceTree, scale: float) -> SourceTree:
    value = [v * scale for v in tree.value]
    return SourceTree(tree.feature, tree.threshold, tree.left, tree.right, value, tree.weight)


def _read_split(mode: str, threshold: float, true: int, false: int) -> tuple[int, int, int]:
    """threshold, left, right so that `x <= threshold` goes left."""
    if mode in {"BRANCH_LEQ", "BRANCH_LT"}:
        return floor_threshold(threshold, mode == "BRANCH_LT"), true, false
    if mode in {"BRANCH_GTE", "BRANCH_GT"}:
        return floor_threshold(threshold, mode == "BRANCH_GTE"), false, true
    raise Rejected(f"splits by {mode}", field="source", mend="use BRANCH_LEQ, _LT, _GTE or _GT")


def _read_versions_1_to_3(
    values: dict[str, Any], kind: str, onnx: Any
) -> tuple[list[SourceTree], float, Link, bool]:
    def read_floats(name: str) -> list[float]:
        if f"{name}_as_tensor" in values:
            return [float(v) for v in onnx.numpy_helper.to_array(values[f"{name}_as_tensor"]).tolist()]
        return [float(v) for v in values.get(name, ())]

    part = "class" if kind == "TreeEnsembleClassifier" else "target"
    votes = list(
        zip(
            values[f"{part}_treeids"],
            values[f"{part}_nodeids"],
            values[f"{part}_ids"],
            read_floats(f"{part}_weights"),
            strict=True,
        )
    )
    targets = {vote[2] for vote in votes}
    bases = read_floats("base_values")
    transform = values.get("post_transform", b"NONE").decode()
    aggregate = values.get("aggregate_function", b"SUM").decode()
    labels = values.get("classlabels_int64s") or values.get("classlabels_strings") or (0, 1)
    if transform not in {"NONE", "LOGISTIC"} or aggregate != "SUM" or len(labels) != 2:
        raise Rejected(f"is a {kind} of {len(labels)} classes with {transform}, {aggregate}", field="source")
    if part == "target" and transform == "LOGISTIC":  # onnxruntime adds up and leaves it at that
        raise Rejected(
            "is a regressor with LOGISTIC, which runtimes read differently",
            field="source",
            mend="export a classifier, or post_transform NONE",
        )
    link: Link = "log_odds"
    if part == "class" and transform == "NONE":
        link = "probability"
    if len(targets) > 1:
        if part != "class" or link != "probability" or targets != {0, 1}:
            raise Rejected("adds up more than one target", field="source", mend="export one target")
        votes = [vote for vote in votes if vote[2] == 1]
        bases = bases[1:]
    base = bases[-1] if bases else 0.0

    weight_of: dict[tuple[int, int], float] = defaultdict(float)
    for tree, node, _, weight in votes:
        weight_of[tree, node] += weight
    modes = [mode.decode() for mode in values["nodes_modes"]]
    thresholds = read_floats("nodes_values")
    places: dict[int, dict[int, int]] = defaultdict(dict)  # of each tree's node ids, in order of appearance
    rows = list(
        zip(
            values["nodes_treeids"],
            values["nodes_nodeids"],
            values["nodes_featureids"],
            values["nodes_truenodeids"],
            values["nodes_falsenodeids"],
            modes,
            thresholds,
            strict=True,
        )
    )
    for tree, node, *_ in rows:
        places[tree].setdefault(node, len(places[tree]))
    built: dict[int, list[list[Any]]] = defaultdict(lambda: [[], [], [], [], []])
    for tree, node, feature, true, false, mode, threshold in rows:
        at, columns = places[tree], built[tree]
        split = (0, -1, -1)
        if mode != "LEAF":
            split = _read_split(mode, threshold, at[true], at[false])
        for column, value in zip(columns, (feature, *split, weight_of[tree, node]), strict=True):
            column.append(value)
    trees = [
        SourceTree(feature, threshold, left, right, value, [1.0] * len(feature))
        for _, (feature, threshold, left, right, value) in sorted(built.items())
    ]
    return trees, base, link, transform == "LOGISTIC"


def _read_version_5(values: dict[str, Any], to_array: Callable[[Any], Any]) -> list[SourceTree]:
    if values.get("aggregate_function", 1) != 1 or values.get("post_transform", 0) != 0:
        raise Rejected("does more than add up its trees", field="source")
    if values.get("n_targets", 1) != 1 or any(values["leaf_targetids"]):
        raise Rejected("has more than one target", field="source", mend="export one target")
    splits = to_array(values["nodes_splits"]).astype(np.float64).tolist()
    modes = [MODES[mode] if mode < len(MODES) else f"mode {mode}" for mode in to_array(values["nodes_modes"])]
    weights = to_array(values["leaf_weights"]).astype(np.float64).tolist()
    count = len(splits)  # leaves follow the splits in every tree's arrays, which all trees share
    feature = list(values["nodes_featureids"])
    threshold, left, right = [0] * count, [0] * count, [0] * count
    for node in range(count):
        true, false = (
            child + (count if is_leaf else 0)
            for child, is_leaf in (
                (values["nodes_truenodeids"][node], values["nodes_trueleafs"][node]),
                (values["nodes_falsenodeids"][node], values["nodes_falseleafs"][node]),
            )
        )
        threshold[node], left[node], right[node] = _read_split(modes[node], splits[node], true, false)
    return [_cut_tree(root, feature, threshold, left, right, weights, count) for root in values["tree_roots"]]


def _cut_tree(
    root: int,
    feature: list[int],
    threshold: list[int],
    left: list[int],
    right: list[int],
    weights: list[float],
    count: int,
) -> SourceTree:
    """The tree at `root` of arrays that all trees share, by itself."""
    order, place = [root], {root: 0}
    for node in order:
        if node < count:
            for child in (left[node], right[node]):
                if child not in place:
                    place[child] = len(order)
                    order.append(child)
    return SourceTree(
        feature=[feature[n] if n < count else 0 for n in order],
        threshold=[threshold[n] if n < count else 0 for n in order],
        left=[place[left[n]] if n < count else -1 for n in order],
        right=[place[right[n]] if n < count else -1 for n in order],
        value=[0.0 if n < count else weights[n - count] for n in order],
        weight=[1.0] * len(order),
    )


def _make_predictor(data: bytes, link: Link, logistic: bool, ours: bool) -> Callable[[Bytes], Floats] | None:
    runtime = find_library(LIBRARY)
    if runtime is None:
        return None

    def predict(features: Bytes) -> Floats:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        asked = session.get_inputs()[0]
        form = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
        table = features.astype(form.get(asked.type, np.float32))
        if ours:
            margin = session.run([OURS], {asked.name: table})[0]
            return np.asarray(margin, dtype=np.float64).reshape(-1) / 2.0**16
        values = session.run(None, {asked.name: table})[-1]
        if isinstance(values, list):  # a table per row, by class
            values = np.array([row[max(row)] for row in values])
        seen = np.asarray(values, dtype=np.float64).reshape(len(features), -1)[:, -1]
        if link == "log_odds" and logistic:
            seen = np.clip(seen, 1e-15, 1 - 1e-15)
            seen = np.log(seen / (1 - seen))
        return seen

    return predict
