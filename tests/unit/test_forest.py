"""The integer forest: scores as a walk gives them, explanations that add up, one encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import decode, encode
from consensus.errors import Rejected
from ml.forest import FOREST_ITEMS_MAX, LEAF, LEAVES_MAX, VALUE_MAX, Forest, Tree

FEATURES = 4
values = st.integers(-VALUE_MAX, VALUE_MAX)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    leaves = draw(st.integers(1, LEAVES_MAX))
    feature, threshold, value = [], [], []

    def grow(count: int) -> None:
        value.append(draw(values))
        if count == 1:
            feature.append(LEAF)
            threshold.append(0)
            return
        feature.append(draw(st.integers(0, FEATURES - 1)))
        threshold.append(draw(st.integers(0, 254)))
        left = draw(st.integers(1, count - 1))
        grow(left)
        grow(count - left)

    grow(leaves)
    return Tree(tuple(feature), tuple(threshold), tuple(value))


forests = st.lists(trees(), min_size=1, max_size=5).map(lambda t: Forest(FEATURES, tuple(t)))
inputs = st.lists(st.lists(st.integers(0, 255), min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=8)


def walk(tree: Tree, features: list[int]) -> int:
    """The exit leaf's value, the slow way."""

    def end(node: int) -> int:
        return node + 1 if tree.feature[node] == LEAF else end(end(node + 1))

    node = 0
    while tree.feature[node] != LEAF:
        node = node + 1 if features[tree.feature[node]] <= tree.threshold[node] else end(node + 1)
    return tree.value[node]


@given(forests, inputs)
@settings(max_examples=80, deadline=None)
def test_masks_score_as_a_walk_down_every_tree(forest, rows):
    expected = [sum(walk(tree, row) for tree in forest.trees) for row in rows]
    assert forest.compute_margins(np.array(rows, dtype=np.uint8)).tolist() == expected


@given(forests, inputs)
@settings(max_examples=80, deadline=None)
def test_contributions_and_base_add_up_to_the_margin_exactly(forest, rows):
    features = np.array(rows, dtype=np.uint8)
    for row, margin in zip(features, forest.compute_margins(features).tolist(), strict=True):
        assert forest.base + int(forest.explain_margin(row).sum()) == margin


@given(forests)
@settings(max_examples=50, deadline=None)
def test_a_decoded_forest_is_the_encoded_one(forest):
    data = encode(forest.to_fields())
    fields = decode(data, what="forest", bytes_max=10**6, items_max=FOREST_ITEMS_MAX)
    again = Forest.from_fields(fields)
    assert again == forest
    assert encode(again.to_fields()) == data


@given(forests, inputs)
@settings(max_examples=20, deadline=None)
def test_a_row_scores_the_same_alone_and_among_others(forest, rows):
    features = np.array(rows, dtype=np.uint8)
    together = forest.compute_margins(features).tolist()
    assert together == [int(forest.compute_margins(features[i : i + 1])[0]) for i in range(len(rows))]


def test_an_empty_block_has_no_margins():
    forest = Forest(1, (Tree((LEAF,), (0,), (7,)),))
    assert forest.compute_margins(np.zeros((0, 1), dtype=np.uint8)).shape == (0,)


def test_the_largest_forest_stays_far_below_sixty_three_bits():
    forest = Forest(1, (Tree((LEAF,), (0,), (VALUE_MAX,)),) * 512)
    assert int(forest.compute_margins(np.zeros((1, 1), dtype=np.uint8))[0]) == 2**33


WIDE = (bytes([0, LEAF] * 17 + [LEAF]), bytes(35), (0,) * 35)  # of 18 leaves
STUMP = (bytes([0, LEAF, LEAF]), bytes([9, 0, 0]), (0, -5, 5))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ((FEATURES, ()), "forest.trees"),
        ((0, (STUMP,)), "forest.features"),
        ((FEATURES, (STUMP,) * 513), "forest.trees"),
        ((FEATURES, ((b"", b"", ()),)), "ends before"),
        ((FEATURES, ((bytes([0, LEAF]), bytes([9, 0]), (0, 1)),)), "ends before"),
        ((FEATURES, ((bytes([LEAF, LEAF]), bytes([0, 0]), (0, 1)),)), "hangs on no split"),
        ((FEATURES, ((bytes([4, LEAF, LEAF]), bytes([9, 0, 0]), (0, 1, 2)),)), "none of 4 features"),
        ((FEATURES, ((bytes([0, LEAF, LEAF]), bytes([255, 0, 0]), (0, 1, 2)),)), "cannot be a threshold"),
        ((FEATURES, ((bytes([0, LEAF, LEAF]), bytes([9, 1, 0]), (0, 1, 2)),)), "cannot be a threshold"),
        ((FEATURES, ((bytes([0, LEAF, LEAF]), bytes([9, 0]), (0, 1, 2)),)), "threshold"),
        ((FEATURES, ((bytes([0, LEAF, LEAF]), bytes([9, 0, 0]), (0, 1)),)), "3 values"),
        ((FEATURES, ((bytes([LEAF]), bytes([0]), (VALUE_MAX + 1,)),)), "out of range"),
        ((FEATURES, ((bytes([0, LEAF] * 64 + [LEAF]), bytes(129), (0,) * 129),)), "at most 127"),
        ((FEATURES, (WIDE,) * 257), "at most 256 such trees"),
        ((FEATURES, ((bytes([LEAF]), bytes([0]), (True,)),)), "integer"),
        ((FEATURES, "trees"), "forest.trees"),
        (7, "forest"),
    ],
)
def test_what_is_no_forest_is_refused_with_its_place(fields, what):
    with pytest.raises(Rejected, match=r".") as caught:
        Forest.from_fields(fields)
    assert what in str(caught.value)
