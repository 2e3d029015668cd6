"""XGBoost's model files (JSON or UBJSON, as `booster.save_model` writes them), read without XGBoost.

Splits are `x < condition` in 32-bit floats; `base_score` is a probability, whose log-odds are added.
Source: XGBoost's "Introduction to Model IO" and its JSON schema; UBJSON draft 12 as far as XGBoost uses it.
Leaves out: linear boosters, several classes, categorical splits: refused. DART's tree weights are applied.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from consensus.errors import Rejected
from ml.definitions import Bytes
from ml.foreign.forest import Floats, SourceForest, SourceTree, find_library, floor_threshold

LIBRARY: Final = "xgboost"
OBJECTIVES: Final = ("binary:logistic", "binary:logitraw", "reg:logistic")
DEPTH_MAX: Final = 64  # of nested UBJSON; models nest some ten deep


def read_xgboost(data: bytes) -> SourceForest:
    """The forest in a model file's bytes. Raises Rejected."""
    try:
        document = json.loads(data) if data[:2] != b"{L" else _UbjsonReader(data).read()
        learner = document["learner"]
        objective = learner["objective"]["name"]
        parameters = learner["learner_model_param"]
        booster = learner["gradient_booster"]
        kind = booster["name"]
        if objective not in OBJECTIVES or kind not in {"gbtree", "dart"} or int(parameters["num_class"]) > 1:
            raise Rejected(
                f"is a {kind} for {objective}",
                field="source.objective",
                mend=f"train a gbtree for {OBJECTIVES[0]}",
            )
        weights = booster.get("weight_drop", [])
        model = booster["gbtree"]["model"] if kind == "dart" else booster["model"]
        trees = tuple(
            _read_tree(tree, float(weights[number]) if weights else 1.0, f"source.trees[{number}]")
            for number, tree in enumerate(model["trees"])
        )
        score = float(str(parameters["base_score"]).strip("[]"))
        names = tuple(str(name) for name in learner.get("feature_names", ()))
        features = int(parameters["num_feature"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise Rejected(
            f"is not an XGBoost model ({type(error).__name__} {error})",
            field="source",
            mend="booster.save_model('model.json')",
        ) from None
    base = score
    if objective != "binary:logitraw":  # whose base is written as it is added
        if not 0 < score < 1:
            raise Rejected(f"base_score {score} is not a probability", field="source.base_score")
        base = math.log(score / (1 - score))
    return SourceForest(LIBRARY, names, features, trees, base, "log_odds", _find_predictor(data))


def _read_tree(tree: dict[str, Any], weight: float, what: str) -> SourceTree:
    if any(tree.get("split_type", ())) or any(tree.get("categories_nodes", ())):
        raise Rejected("splits categories", field=what, mend="train without categorical features")
    left = [int(child) for child in tree["left_children"]]
    conditions = [float(np.float32(c)) for c in tree["split_conditions"]]  # of leaves: their value
    inner = [child != -1 for child in left]
    lists = (tree["right_children"], tree["split_indices"], conditions, tree["sum_hessian"])
    if {len(values) for values in lists} != {len(left)}:
        raise Rejected("lists of its nodes differ in length", field=what)
    return SourceTree(
        feature=[int(f) for f in tree["split_indices"]],
        threshold=[
            floor_threshold(c, strict=True) if is_split else 0
            for c, is_split in zip(conditions, inner, strict=True)
        ],
        left=left,
        right=[int(child) for child in tree["right_children"]],
        value=[0.0 if is_split else c * weight for c, is_split in zip(conditions, inner, strict=True)],
        # Hessians weigh rows as training did; scaled so that they do not all round to one
        weight=[1000 * float(w) for w in tree["sum_hessian"]],
    )


def _find_predictor(data: bytes) -> Callable[[Bytes], Floats] | None:
    xgboost = find_library(LIBRARY)
    if xgboost is None:
        return None

    def predict(features: Bytes) -> Floats:
        booster = xgboost.Booster()
        booster.load_model(bytearray(data))
        matrix = xgboost.DMatrix(features.astype(np.float32), feature_names=booster.feature_names)
        return np.asarray(booster.predict(matrix, output_margin=True), dtype=np.float64)

    return predict


class _UbjsonReader:
    """The values of one UBJSON document; raises ValueError where it is none."""

    _NUMBERS: Final = {"i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
    _WORDS: Final = {"T": True, "F": False, "Z": None}

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read(self, depth: int = 0) -> Any:
        return self._read_value(self._take(1).decode("ascii"), depth)

    def _take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("it ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def _read_number(self, kind: str) -> Any:
        form = self._NUMBERS[kind]
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _read_length(self) -> int:
        return int(self._read_number(self._take(1).decode("ascii")))

    def _read_text(self) -> str:
        return self._take(self._read_length()).decode()

    def _read_value(self, kind: str, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise ValueError("it nests too deeply")
        if kind in self._WORDS:
            return self._WORDS[kind]
        if kind in self._NUMBERS:
            return self._read_number(kind)
        if kind == "S":
            return self._read_text()
        if kind == "[":
            return self._read_array(depth)
        if kind == "{":
            pairs = {}
            while self.data[self.at : self.at + 1] != b"}":
                name = self._read_text()
                pairs[name] = self.read(depth + 1)
            self.at += 1
            return pairs
        raise ValueError(f"a value of kind {kind!r}")

    def _read_array(self, depth: int) -> list[Any]:
        kind, count = "", -1
        if self.data[self.at : self.at + 1] == b"$":
            self.at += 1
            kind = self._take(1).decode("ascii")
        if self.data[self.at : self.at + 1] == b"#":
            self.at += 1
            count = self._read_length()
        if kind in self._NUMBERS and count >= 0:
            form = np.dtype(self._NUMBERS[kind])
            values: list[Any] = np.frombuffer(self._take(count * form.itemsize), dtype=form).tolist()
            return values
        items: list[Any] = []
        while len(items) != count:
            if count < 0 and self.data[self.at : self.at + 1] == b"]":
                self.at += 1
                break
            items.append(self._read_value(kind, depth + 1) if kind else self.read(depth + 1))
        return items
