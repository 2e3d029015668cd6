"""LightGBM's text model (`booster.save_model("model.txt")`), read without LightGBM.

Source: LightGBM's `Tree::ToString` and `decision_type` bits (0: categorical; 2 and 3: how missing values
are told). Leaves out: categorical and linear trees, several classes, zeros that mean missing: refused.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Final, TypeVar

import numpy as np

from consensus.errors import Rejected
from ml.definitions import Bytes
from ml.foreign.forest import Floats, SourceForest, SourceTree, find_library, floor_threshold

LIBRARY: Final = "lightgbm"
OBJECTIVES: Final = ("binary", "cross_entropy")

_Number = TypeVar("_Number", int, float)


def read_lightgbm(text: str) -> SourceForest:
    """The forest in a text model. Raises Rejected."""
    blocks = [list(lines) for blank, lines in groupby(text.splitlines(), lambda line: not line) if not blank]
    if not blocks or not blocks[0] or blocks[0][0] != "tree":
        raise Rejected("is not a LightGBM text model", field="source", mend="booster.save_model('model.txt')")
    head = _read_pairs(blocks[0])
    objective, *options = head.get("objective", "").split() or [""]
    if objective not in OBJECTIVES or head.get("num_class") != "1" or "average_output" in blocks[0]:
        raise Rejected(
            f"predicts {objective or 'an unstated objective'}, of {head.get('num_class')} classes",
            field="source.objective",
            mend=f"train with objective {' or '.join(OBJECTIVES)} and gradient boosting",
        )
    slope = 1.0
    for option in options:
        if option.startswith("sigmoid:"):
            slope = _read_number(float, option[8:], "source.objective")
    names = tuple(head.get("feature_names", "").split())
    features = _read_number(int, head.get("max_feature_idx", ""), "source.max_feature_idx") + 1
    if len(names) == features and names == tuple(f"Column_{i}" for i in range(features)):
        names = ()  # LightGBM's own, of columns without names
    trees: list[SourceTree] = []
    for block in blocks[1:]:
        if block[0].startswith("Tree="):
            trees.append(_read_tree(_read_pairs(block), slope, f"source.trees[{len(trees)}]"))
        elif block[0].startswith("end of trees"):
            break
    return SourceForest(LIBRARY, names, features, tuple(trees), 0.0, "log_odds", _find_predictor(text, slope))


def _read_number(kind: Callable[[str], _Number], text: str, field: str) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise Rejected(f'is not a number: "{text}"', field=field, mend="save the model again") from None


def _read_pairs(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _read_tree(pairs: dict[str, str], slope: float, what: str) -> SourceTree:
    if pairs.get("is_linear", "0") != "0" or pairs.get("num_cat", "0") != "0":
        raise Rejected("holds categories or linear leaves", field=what, mend="train without them")

    def read(name: str) -> list[str]:
        return pairs.get(name, "").split()

    try:
        leaf_value = [float(v) * slope for v in read("leaf_value")]
        leaf_count = [float(v) for v in read("leaf_count")] or [1.0] * len(leaf_value)
        splits = len(leaf_value) - 1  # splits come first, then leaves; a child -1 - k is leaf k
        kinds = [int(v) for v in read("decision_type")]
        left, right = (
            [child if child >= 0 else splits - 1 - child for child in map(int, read(side))]
            for side in ("left_child", "right_child")
        )
        feature = [int(v) for v in read("split_feature")]
        threshold = [floor_threshold(float(v)) for v in read("threshold")]
    except ValueError as error:
        raise Rejected(f"is not well-formed ({error})", field=what) from None
    if splits < 0 or {len(kinds), len(left), len(right), len(feature), len(threshold)} != {splits}:
        raise Rejected("lists of its nodes differ in length", field=what)
    if any(kind & 1 or kind >> 2 == 1 for kind in kinds):
        raise Rejected("treats zeros as missing, or splits categories", field=what, mend="train without that")
    none = [0] * len(leaf_value)
    return SourceTree(
        feature=feature + none,
        threshold=threshold + none,
        left=left + [-1] * len(leaf_value),
        right=right + [-1] * len(leaf_value),
        value=[0.0] * splits + leaf_value,
        weight=[0.0] * splits + leaf_count,
    )


def _find_predictor(text: str, slope: float) -> Callable[[Bytes], Floats] | None:
    lightgbm = find_library(LIBRARY)
    if lightgbm is None:
        return None

    def predict(features: Bytes) -> Floats:
        raw = lightgbm.Booster(model_str=text).predict(features, raw_score=True)
        return np.asarray(raw, dtype=np.float64) * slope

    return predict
