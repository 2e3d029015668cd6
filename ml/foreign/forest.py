"""What the forests of other libraries have in common, and how one becomes an integer forest.

On integer features a float threshold is the integer below it, so every row takes the same path as in the
source; leaves are rounded to 2^-16 of a unit, so a margin differs by at most half of that a tree.
`log_odds`: the margin is the source's raw score. `probability` (averaging forests): the margin rises from
-16 to 16 as the probability goes from 0 to 1, and the calibration is a straight line.

Invariant: what `convert_forest` returns passes every check that a decoded artifact passes. Refused, with the
reason: leaves that could overflow, unknown features, too many leaves or trees, cycles, categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Fault, Rejected
from ml.definitions import BYTE_MAX, Bytes, Definitions
from ml.forest import LEAF, LEAF_SCALE_BITS, LEAVES_MAX, VALUE_MAX, Forest, Tree
from ml.model import KNOT_MAX, KNOTS, MARGIN_CLIP, Calibration, make_sigmoid

Link = Literal["log_odds", "probability"]
PROBABILITY_SPAN: Final = 2 * MARGIN_CLIP >> LEAF_SCALE_BITS  # margins -16 to 16
PROOF_ROWS: Final = 4_096  # drawn evenly from all bytes, each feature's edges among them
PROOF_SEED: Final = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SourceTree:
    """Nodes in any order, the root first. A node is a leaf if its `left` is -1.

    threshold: a split sends `feature <= threshold` left, integers that may lie outside a byte.
    weight: how many training rows came by (1 where the source does not say): what means are weighted by.
    """

    feature: Sequence[int]
    threshold: Sequence[int]
    left: Sequence[int]
    right: Sequence[int]
    value: Sequence[float]
    weight: Sequence[float]


@dataclass(frozen=True)
class SourceForest:
    """A forest as its library has it: `base` plus the sum of the trees' leaves is the raw score.

    names: of the features, () where the source knows only their numbers; features: how many there are.
    predict: uint8[n, features] to the library's own float64[n] raw score (or probability); None if the
    library is not installed.
    """

    library: str
    names: tuple[str, ...]
    features: int
    trees: tuple[SourceTree, ...]
    base: float
    link: Link
    predict: Callable[[Bytes], Floats] | None


def floor_threshold(threshold: float, strict: bool = False) -> int:
    """The integer t such that `x <= t` says of integers what `x <= threshold` (strict: `<`) says."""
    if math.isnan(threshold):
        raise Rejected("a split's threshold is not a number", field="source")
    bounded = min(max(threshold, -1.0), BYTE_MAX + 1.0)  # beyond a byte all is alike
    return math.ceil(bounded) - 1 if strict else math.floor(bounded)


def convert_forest(source: SourceForest, definitions: Definitions) -> Forest:
    """The integer forest over `definitions`' features. Raises Rejected with what cannot be taken over."""
    columns = _map_features(source, definitions)
    if not source.trees:
        raise Rejected("holds no tree", field="source")
    scale = PROBABILITY_SPAN if source.link == "probability" else 1
    base = source.base * scale - (PROBABILITY_SPAN / 2 if source.link == "probability" else 0)
    trees = [
        _convert_tree(tree, columns, scale, f"source.trees[{number}]")
        for number, tree in enumerate(source.trees)
    ]
    if round(base * 2**LEAF_SCALE_BITS):
        trees.append(Tree((LEAF,), (0,), (_round_leaf(base, "source.base"),)))
    return Forest.from_fields(Forest(len(definitions), tuple(trees)).to_fields())


def make_calibration(link: Link) -> Calibration:
    """The score that says what the source says: its probability, in hundredths of a per cent."""
    if link == "probability":
        return Calibration(tuple(KNOT_MAX * number // (KNOTS - 1) for number in range(KNOTS)))
    return make_sigmoid(1.0, 0.0)


def check_equal_to_source(source: SourceForest, forest: Forest, definitions: Definitions) -> float:
    """How far margins lie from the source library's own, at most, on drawn bytes, in log-odds (or sixteenths
    of a probability's half); Fault beyond rounding. Raises Rejected if the library is not installed."""
    if source.predict is None:
        raise Rejected(
            f"{source.library} is not installed", field="proof", mend=f"install {source.library} and repeat"
        )
    random = np.random.Generator(np.random.PCG64(PROOF_SEED))
    features = random.integers(0, BYTE_MAX + 1, (PROOF_ROWS, source.features)).astype(np.uint8)
    features[: PROOF_ROWS // 8] >>= 5  # small counts are what most rows hold
    columns = _map_features(source, definitions)
    ours = np.zeros((PROOF_ROWS, len(definitions)), dtype=np.uint8)
    ours[:, columns] = features
    expected = source.predict(features)
    if source.link == "probability":
        expected = (2 * expected - 1) * (PROBABILITY_SPAN / 2)
    margins = forest.compute_margins(ours) / 2**LEAF_SCALE_BITS
    apart = float(np.abs(margins - expected).max())
    rounding = (len(forest.trees) + 1) / 2 / 2**LEAF_SCALE_BITS
    single = 2.0**-22 * float(np.abs(expected).max() + PROBABILITY_SPAN)  # sources that add in 32-bit floats
    if apart > rounding + single * max(len(forest.trees), 1) ** 0.5:
        row = int(np.abs(margins - expected).argmax())
        raise Fault(
            f"the integer forest differs from {source.library} by {apart} on {features[row].tolist()}"
        )
    return apart


def _map_features(source: SourceForest, definitions: Definitions) -> list[int]:
    """The place in `definitions` of each of the source's features: by name, or else by number."""
    if not source.names:
        if source.features != len(definitions):
            raise Rejected(
                f"takes {source.features} unnamed features, the definitions have {len(definitions)}",
                field="source",
                mend="train it on the columns of `assay model features`",
            )
        return list(range(source.features))
    known = {name: number for number, name in enumerate(definitions.names)}
    for name in source.names:
        if name not in known:
            raise Rejected(
                f"refers to an unknown feature {name[:40]!r}",
                field="source",
                mend=f"known are {', '.join(known)}",
            )
    if len(set(source.names)) != len(source.names):
        raise Rejected("two features have one name", field="source")
    return [known[name] for name in source.names]


def _round_leaf(value: float, what: str) -> int:
    if not math.isfinite(value) or abs(value) * 2**LEAF_SCALE_BITS > VALUE_MAX:
        raise Rejected(
            f"a leaf of {value} could overflow",
            field=what,
            mend=f"leaves must lie within {VALUE_MAX >> LEAF_SCALE_BITS} of 0",
        )
    return round(value * 2**LEAF_SCALE_BITS)


def _convert_tree(tree: SourceTree, columns: list[int], scale: float, what: str) -> Tree:
    """Preorder, without the splits that no byte takes both ways of. Iterative: files may nest deeply."""
    feature: list[int] = []
    threshold: list[int] = []
    value: list[int] = []
    ends: list[list[int]] = []  # for each split written: its place and what is still to be known of it
    nodes, seen, leaves = [0], 0, 0
    while nodes:
        node = nodes.pop()
        if not 0 <= node < len(tree.left) or seen > len(tree.left):
            raise Rejected("its nodes form no tree", field=what)
        seen += 1
        if tree.left[node] == -1:
            leaves += 1
            if leaves > LEAVES_MAX:
                raise Rejected(
                    f"has more than {LEAVES_MAX} leaves",
                    field=what,
                    mend=f"limit the leaves of a tree to {LEAVES_MAX} in training",
                    code="size",
                )
            feature.append(LEAF)
            threshold.append(0)
            value.append(_round_leaf(tree.value[node] * scale, what))
            weight = max(round(tree.weight[node]), 1) if math.isfinite(tree.weight[node]) else 1
            _close(ends, value, value[-1] * weight, weight)
            continue
        if not 0 <= tree.feature[node] < len(columns):
            raise Rejected(f"refers to an unknown feature {tree.feature[node]}", field=what)
        if tree.threshold[node] < 0:
            nodes.append(tree.right[node])
        elif tree.threshold[node] >= BYTE_MAX:
            nodes.append(tree.left[node])
        else:
            ends.append([len(feature), 2, 0, 0])
            feature.append(columns[tree.feature[node]])
            threshold.append(tree.threshold[node])
            value.append(0)
            nodes += [tree.right[node], tree.left[node]]
    return Tree(tuple(feature), tuple(threshold), tuple(value))


def _close(ends: list[list[int]], value: list[int], total: int, weight: int) -> None:
    """A subtree is whole: add it to the split above, and close what is whole by that."""
    while ends:
        ends[-1][1] -= 1
        ends[-1][2] += total
        ends[-1][3] += weight
        if ends[-1][1]:
            return
        place, _, total, weight = ends.pop()
        value[place] = total // weight


def find_library(name: str) -> Any:
    """The module `name`, or None if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def import_library(name: str, extra: str) -> Any:
    """The module `name`; raises Rejected with the mend if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Rejected(
            f"needs {name} ({error})", field=name, mend=f"pip install 'assay-node[{extra}]'"
        ) from None
