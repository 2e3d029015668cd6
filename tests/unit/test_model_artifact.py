"""The artifact: one byte form, every damage found, calibration that never falls."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import decode, encode
from consensus.errors import Rejected
from consensus.ledger.scoring import SCORE_MAX, Thresholds
from ml.forest import Forest
from ml.fraud import read_default_artifact
from ml.model import MAGIC, MARGIN_CLIP, MODEL_BYTES_MAX, MODEL_ITEMS_MAX, decode_model, read_model

ARTIFACT = read_default_artifact()
MODEL = decode_model(ARTIFACT)
FEATURES = len(MODEL.definitions)


def reseal(change) -> bytes:
    """The artifact with its fields changed and a right checksum."""
    fields = decode(ARTIFACT[8:-32], what="model", bytes_max=MODEL_BYTES_MAX, items_max=MODEL_ITEMS_MAX)
    body = MAGIC + encode(tuple(change(list(fields))))
    return body + sha256(body).digest()


def replaced(place: int, value):
    def change(fields):
        fields[place] = value
        return fields

    return change


def test_the_shipped_model_is_small_and_encodes_to_its_own_bytes():
    assert len(ARTIFACT) < 300_000
    assert MODEL.encode() == ARTIFACT


@given(st.integers(0, len(ARTIFACT) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_byte_changed_anywhere_is_found(place, flip):
    damaged = bytearray(ARTIFACT)
    damaged[place] ^= flip
    with pytest.raises(Rejected):
        decode_model(bytes(damaged))


@given(st.integers(0, len(ARTIFACT) - 1))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_short_anywhere_is_refused(length):
    with pytest.raises(Rejected):
        decode_model(ARTIFACT[:length])


def test_bytes_after_the_end_are_refused():
    with pytest.raises(Rejected, match="checksum"):
        decode_model(ARTIFACT + b"\0")


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded():
    with pytest.raises(Rejected, match="at most"):
        decode_model(MAGIC + bytes(MODEL_BYTES_MAX))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (replaced(0, 1), "format 1"),
        (replaced(1, 99), "feature vocabulary 99"),
        (replaced(2, ("amount",)), "model.definitions"),
        (replaced(3, (FEATURES + 1, MODEL.forest.to_fields()[1])), "model.forest.features"),
        (replaced(4, ((5, 5), 1)), "must rise"),
        (replaced(4, ((5, 4), 1)), "amount_edges[1]"),
        (replaced(4, ((), 1)), "amount_edges"),
        (replaced(4, ((5,), -1)), "large_amount"),
        (replaced(5, MODEL.calibration.knots[:-1]), "knots"),
        (replaced(5, MODEL.calibration.knots[::-1]), "below the one before"),
        (replaced(6, (9_000, 8_000)), "flag_score_min"),
        (replaced(6, (0, 10_002)), "refuse_score_min"),
        (replaced(7, ((b"short",), 0, 1, 1, 0, 0, "v", ())), "data_sha256"),
        (replaced(7, ((), 2, 1, 1, 0, 0, "v", ())), "day_start"),
        (replaced(7, ((), 0, 1, 1, 2, 0, "v", ())), "positives"),
        (replaced(7, ((), 0, 1, 1, 0, 0, "v", (("auc", 10_001),))), "metrics.auc"),
        (lambda fields: fields[:-1], "8 fields"),
    ],
)
def test_a_sealed_artifact_with_a_wrong_field_is_refused_by_name(change, what):
    with pytest.raises(Rejected) as caught:
        decode_model(reseal(change))
    assert what in str(caught.value)


def test_a_model_file_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "cut.model"
    path.write_bytes(ARTIFACT[:-1])
    with pytest.raises(Rejected, match=r"cut\.model.*damaged or cut short"):
        read_model(path)
    with pytest.raises(Rejected, match=r"none\.model.*cannot be read"):
        read_model(tmp_path / "none.model")


def test_scores_rise_with_margins_and_use_the_whole_range():
    margins = np.arange(-MARGIN_CLIP - 5_000, MARGIN_CLIP + 5_000, 17, dtype=np.int64)
    scores = MODEL.calibration.compute_scores(margins)
    assert (np.diff(scores) >= 0).all()
    assert scores[0] == 0
    assert SCORE_MAX - 1 <= scores[-1] <= SCORE_MAX


def test_margins_beyond_all_bounds_are_clipped():
    scores = MODEL.calibration.compute_scores(np.array([-(2**62), 2**62]))
    assert scores.tolist() == MODEL.calibration.compute_scores(np.array([-MARGIN_CLIP, MARGIN_CLIP])).tolist()


def test_models_that_differ_have_differing_artifacts():
    other = replace(MODEL, thresholds=Thresholds(1, 2))
    assert other.encode() != ARTIFACT
    assert decode_model(other.encode()) == other


def test_a_forest_of_fewer_trees_still_decodes():
    small = replace(MODEL, forest=Forest(FEATURES, MODEL.forest.trees[:1]))
    assert decode_model(small.encode()) == small
