"""A model as ONNX: bytes of features in, the exact integer margin and score out.

One TreeEnsemble (ai.onnx.ml 5) in doubles adds up integer leaves: sums stay below 2^33 and so are exact in
any order. Calibration is integer arithmetic after it, as in ml/model.py. So a runtime that keeps to the
specification gives the very score that validators compute. Features come from ml/features.py; ONNX has no
account rows. Needs the package `onnx`. Leaves out: thresholds and card (they go as metadata).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ml.foreign.forest import import_library
from ml.foreign.onnx_reader import OURS
from ml.forest import LEAF, LEAF_SCALE_BITS, Tree
from ml.model import KNOT_BITS, KNOT_SCALE_BITS, MARGIN_CLIP, Model

SCORE: Final = "assay.score"
INPUT: Final = "features"
ML_OPSET: Final = 5  # TreeEnsemble
OPSET: Final = 18
IR_VERSION: Final = 10


def write_onnx(model: Model) -> bytes:
    """The ONNX file: input `features` uint8[n, F], outputs int64[n] `assay.margin` and `assay.score`."""
    onnx = import_library("onnx", "onnx")
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array

    def constant(name: str, values: Any) -> Any:
        return tensor(np.array(values, dtype=np.int64), name)

    nodes = [
        helper.make_node("Cast", [INPUT], ["doubles"], to=onnx.TensorProto.DOUBLE),
        helper.make_node(
            "TreeEnsemble",
            ["doubles"],
            ["sum"],
            domain="ai.onnx.ml",
            **_list_arrays(model.forest.trees, tensor),
        ),
        helper.make_node("Cast", ["sum"], ["sums"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["sums", "flat"], [OURS]),
        # Model.calibration.compute_scores, step by step; nothing is negative after the first sum
        helper.make_node("Max", [OURS, "lowest"], ["raised"]),
        helper.make_node("Min", ["raised", "highest"], ["clipped"]),
        helper.make_node("Add", ["clipped", "clip"], ["offset"]),
        helper.make_node("Div", ["offset", "knot"], ["index"]),
        helper.make_node("Mul", ["index", "knot"], ["whole"]),
        helper.make_node("Sub", ["offset", "whole"], ["part"]),
        helper.make_node("Add", ["index", "one"], ["next"]),
        helper.make_node("Gather", ["knots", "index"], ["low"]),
        helper.make_node("Gather", ["knots", "next"], ["high"]),
        helper.make_node("Sub", ["high", "low"], ["rise"]),
        helper.make_node("Mul", ["rise", "part"], ["above"]),
        helper.make_node("Mul", ["low", "knot"], ["floor"]),
        helper.make_node("Add", ["floor", "above"], ["height"]),
        helper.make_node("Div", ["height", "unit"], [SCORE]),
    ]
    constants = [
        constant("flat", [-1]),
        constant("lowest", -MARGIN_CLIP),
        constant("highest", MARGIN_CLIP - 1),
        constant("clip", MARGIN_CLIP),
        constant("knot", 1 << KNOT_BITS),
        constant("one", 1),
        constant("knots", model.calibration.knots),
        constant("unit", 1 << (KNOT_BITS + KNOT_SCALE_BITS)),
    ]
    integer = onnx.TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "assay",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["n", len(model.definitions)])],
        [
            helper.make_tensor_value_info(OURS, integer, ["n"]),
            helper.make_tensor_value_info(SCORE, integer, ["n"]),
        ],
        initializer=constants,
    )
    document = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        producer_name="assay",
        ir_version=IR_VERSION,
    )
    helper.set_model_props(
        document,
        {
            "assay.features": ",".join(model.definitions.names),
            "assay.leaf_scale_bits": str(LEAF_SCALE_BITS),
            "assay.flag_score_min": str(model.thresholds.flag_score_min),
            "assay.refuse_score_min": str(model.thresholds.refuse_score_min),
            "assay.trained_by": model.card.code_version,
        },
    )
    onnx.checker.check_model(document)
    data: bytes = document.SerializeToString(deterministic=True)
    return data


def _list_arrays(trees: tuple[Tree, ...], tensor: Any) -> dict[str, Any]:
    """The attributes of one TreeEnsemble: splits and leaves of all trees, numbered through."""
    arrays: dict[str, list[Any]] = {
        name: []
        for name in (
            "tree_roots",
            "nodes_featureids",
            "nodes_truenodeids",
            "nodes_trueleafs",
            "nodes_falsenodeids",
            "nodes_falseleafs",
            "leaf_targetids",
        )
    }
    splits: list[float] = []
    weights: list[float] = []

    def add_split(feature: int, threshold: int) -> int:
        splits.append(float(threshold))
        arrays["nodes_featureids"].append(feature)
        for side in ("true", "false"):
            arrays[f"nodes_{side}nodeids"].append(0)
            arrays[f"nodes_{side}leafs"].append(0)
        return len(splits) - 1

    for tree in trees:
        root = len(splits)
        arrays["tree_roots"].append(root)
        open_ends: list[tuple[int, str]] = []
        if tree.feature[0] == LEAF:  # the operator knows no tree without a split: both ways lead to one leaf
            open_ends = [(add_split(0, 0), "false"), (root, "true")]
        for feature, threshold, value in zip(tree.feature, tree.threshold, tree.value, strict=True):
            is_leaf = feature == LEAF
            place = len(weights) if is_leaf else add_split(feature, threshold)
            ends = [open_ends.pop()] if open_ends else []
            if len(tree.feature) == 1:
                ends += open_ends
            for parent, side in ends:
                arrays[f"nodes_{side}nodeids"][parent] = place
                arrays[f"nodes_{side}leafs"][parent] = int(is_leaf)
            if is_leaf:
                weights.append(float(value))
                arrays["leaf_targetids"].append(0)
            else:
                open_ends += [(place, "false"), (place, "true")]
    return {
        **arrays,
        "n_targets": 1,
        "aggregate_function": 1,  # SUM
        "post_transform": 0,  # NONE
        "nodes_modes": tensor(np.zeros(len(splits), dtype=np.uint8), "nodes_modes"),  # BRANCH_LEQ
        "nodes_splits": tensor(np.array(splits, dtype=np.float64), "nodes_splits"),
        "leaf_weights": tensor(np.array(weights, dtype=np.float64), "leaf_weights"),
    }
