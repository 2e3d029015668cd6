"""The model artifact: feature definitions, a forest, its scale, calibration, suggested thresholds, its card.

    magic (8 bytes) | canonical msgpack | SHA-256 of all before (32 bytes)

Invariant: decode(encode(m)) == m and no other bytes decode to m; a byte changed anywhere, or a file
cut short, is refused. Everything inside is an integer, text or bytes, so a model means the same on
every machine; its digest is the SHA-256 of the whole artifact. Metrics stand in hundredths of a per
cent. The thresholds are a suggestion: a chain's parameters decide.
Leaves out: how features are computed (ml/features.py) and how a model comes about (ml/training.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import check_bytes, check_fields, check_int, check_str, decode, encode
from consensus.errors import Fault, Rejected
from consensus.ledger.scoring import REFUSE_NEVER, SCORE_MAX, Thresholds
from ml.definitions import BYTE_MAX, FEATURES_VERSION, Definitions, FeatureScale, check_definitions
from ml.forest import FOREST_ITEMS_MAX, LEAF_SCALE_BITS, Forest

MAGIC: Final = b"assaymdl"
FORMAT_VERSION: Final = 2
CHECKSUM_BYTES: Final = 32
MODEL_BYTES_MAX: Final = 262_144  # 512 trees of 16 leaves take some 130 kB; has to fit a transaction
CARD_ENTRIES_MAX: Final = 64  # files or metrics a card may list
MARGIN_CLIP: Final = 16 << LEAF_SCALE_BITS  # log-odds of 16 are 1 in 9 million: beyond, all is alike
KNOT_BITS: Final = 11  # a knot every 1/32 of log-odds: chords stay within 1/6 of a score of the curve
KNOTS: Final = (2 * MARGIN_CLIP >> KNOT_BITS) + 1
KNOT_SCALE_BITS: Final = 8  # knots are scores times 256
KNOT_MAX: Final = SCORE_MAX << KNOT_SCALE_BITS
AMOUNT_EDGE_MAX: Final = 2**53  # money's bound, plus one: an edge no amount reaches
MODEL_ITEMS_MAX: Final = (
    FOREST_ITEMS_MAX + KNOTS + BYTE_MAX + 4 * CARD_ENTRIES_MAX + 320
)  # the last: definitions


@dataclass(frozen=True)
class Calibration:
    """Margin to score by straight lines between knots: scores times 256, never falling.

    knots: int64[1025], at margins -2^20, -2^20 + 2^11, ..., 2^20.
    """

    knots: tuple[int, ...]

    @cached_property
    def _heights(self) -> NDArray[np.int64]:
        return np.array(self.knots, dtype=np.int64)

    def compute_scores(self, margins: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n] in 0..SCORE_MAX from int64[n] margins (log-odds times 2^16)."""
        knots = self._heights
        offset = np.clip(margins, -MARGIN_CLIP, MARGIN_CLIP - 1) + MARGIN_CLIP
        index, part = offset >> KNOT_BITS, offset & ((1 << KNOT_BITS) - 1)
        height = (knots[index] << KNOT_BITS) + (knots[index + 1] - knots[index]) * part
        score: NDArray[np.int64] = height >> (KNOT_BITS + KNOT_SCALE_BITS)  # below 2^33 before
        return score


def make_sigmoid(slope: float, offset: float) -> Calibration:
    """The knots of 1 / (1 + exp(-(slope * margin + offset)))."""
    clip = MARGIN_CLIP / 2**LEAF_SCALE_BITS
    margins = (2 * clip * number / (KNOTS - 1) - clip for number in range(KNOTS))
    bounded = (min(max(slope * margin + offset, -30.0), 30.0) for margin in margins)
    return Calibration(tuple(round(KNOT_MAX / (1 + math.exp(-x))) for x in bounded))


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Where a model comes from.

    data_sha256: of each training file, or of the trace. Days count from t = 0, `day_end` exclusive.
    metrics: (name, value in hundredths of a per cent), measured out of fold at training.
    """

    data_sha256: tuple[bytes, ...]
    day_start: int
    day_end: int
    rows: int
    positives: int
    seed: int
    code_version: str
    metrics: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Model:
    """All that is learned. encode() is its one byte form."""

    definitions: Definitions
    forest: Forest
    scale: FeatureScale
    calibration: Calibration
    thresholds: Thresholds
    card: ModelCard

    def compute_scores(self, features: NDArray[np.uint8]) -> NDArray[np.int64]:
        """int64[n] in 0..SCORE_MAX from uint8[n, F]."""
        return self.calibration.compute_scores(self.forest.compute_margins(features))

    def encode(self) -> bytes:
        """The artifact. Raises Fault if it is larger than an artifact may be."""
        card = self.card
        payload = encode(
            (
                FORMAT_VERSION,
                FEATURES_VERSION,
                self.definitions.to_fields(),
                self.forest.to_fields(),
                (self.scale.amount_edges, self.scale.large_amount),
                self.calibration.knots,
                (self.thresholds.flag_score_min, self.thresholds.refuse_score_min),
                (
                    card.data_sha256,
                    card.day_start,
                    card.day_end,
                    card.rows,
                    card.positives,
                    card.seed,
                    card.code_version,
                    card.metrics,
                ),
            )
        )
        body = MAGIC + payload
        artifact = body + sha256(body).digest()
        if len(artifact) > MODEL_BYTES_MAX:
            raise Fault(f"the model takes {len(artifact)} bytes, at most {MODEL_BYTES_MAX} allowed")
        return artifact


def decode_model(artifact: bytes) -> Model:
    """The model that `artifact` is the one form of. Raises Rejected, whatever the bytes."""
    if len(artifact) > MODEL_BYTES_MAX:
        raise Rejected(
            f"{len(artifact)} bytes, at most {MODEL_BYTES_MAX} allowed", field="model", code="size"
        )
    if artifact[: len(MAGIC)] != MAGIC:
        raise Rejected("is not a model file", field="model", mend="make one with `assay model train`")
    body, checksum = artifact[:-CHECKSUM_BYTES], artifact[-CHECKSUM_BYTES:]
    if len(body) < len(MAGIC) or sha256(body).digest() != checksum:
        raise Rejected(
            "is damaged or cut short (its checksum does not match)", field="model", mend="copy it again"
        )
    fields = decode(body[len(MAGIC) :], what="model", bytes_max=MODEL_BYTES_MAX, items_max=MODEL_ITEMS_MAX)
    form, version, definitions, forest, scale, knots, thresholds, card = check_fields(fields, 8, "model")
    if form != FORMAT_VERSION or version != FEATURES_VERSION:
        raise Rejected(
            f"was made for format {form!r} and feature vocabulary {version!r}; this code has "
            f"{FORMAT_VERSION} and {FEATURES_VERSION}",
            field="model",
            mend="train it again with this version",
        )
    model = Model(
        definitions=check_definitions(definitions),
        forest=Forest.from_fields(forest),
        scale=_check_scale(scale),
        calibration=_check_calibration(knots),
        thresholds=_check_thresholds(thresholds),
        card=_check_card(card),
    )
    if model.forest.features != len(model.definitions):
        raise Rejected(f"must be {len(model.definitions)}", field="model.forest.features")
    return model


def get_version(distribution: str) -> str:
    """The installed version of a distribution, or that there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


def read_model(path: Path) -> Model:
    """The model in a file; raises Rejected that names the file."""
    try:
        with path.open("rb") as file:
            artifact = file.read(MODEL_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected(
            f"cannot be read ({error.strerror or error})", field=str(path), mend="check the path"
        ) from None
    try:
        return decode_model(artifact)
    except Rejected as error:
        raise Rejected(str(error), field=str(path), code=error.code) from None


def _check_ints(values: Any, what: str, *, count_max: int, high: int) -> tuple[int, ...]:
    """A tuple of integers 0..high that never fall."""
    if type(values) is not tuple or not 0 < len(values) <= count_max:
        raise Rejected(f"must be 1 to {count_max} integers", field=what)
    for i, value in enumerate(values):
        check_int(value, f"{what}[{i}]", high=high)
        if i and value < values[i - 1]:
            raise Rejected("must not be below the one before", field=f"{what}[{i}]")
    return values


def _check_scale(fields: Any) -> FeatureScale:
    edges, large = check_fields(fields, 2, "model.scale")
    what = "model.scale.amount_edges"
    _check_ints(edges, what, count_max=BYTE_MAX, high=AMOUNT_EDGE_MAX)
    if len(set(edges)) != len(edges):
        raise Rejected("must rise", field=what)
    return FeatureScale(edges, check_int(large, "model.scale.large_amount", high=AMOUNT_EDGE_MAX))


def _check_calibration(knots: Any) -> Calibration:
    _check_ints(knots, "model.calibration", count_max=KNOTS, high=KNOT_MAX)
    if len(knots) != KNOTS:
        raise Rejected(f"must be {KNOTS} knots", field="model.calibration")
    return Calibration(knots)


def _check_thresholds(fields: Any) -> Thresholds:
    flag, refuse = check_fields(fields, 2, "model.thresholds")
    check_int(refuse, "model.thresholds.refuse_score_min", high=REFUSE_NEVER)
    check_int(flag, "model.thresholds.flag_score_min", high=refuse)
    return Thresholds(flag, refuse)


def _check_card(fields: Any) -> ModelCard:
    what = "model.card"
    data, start, end, rows, positives, seed, version, metrics = check_fields(fields, 8, what)
    for values, name in ((data, "data_sha256"), (metrics, "metrics")):
        if type(values) is not tuple or len(values) > CARD_ENTRIES_MAX:
            raise Rejected(f"must be at most {CARD_ENTRIES_MAX} entries", field=f"{what}.{name}")
    for digest in data:
        check_bytes(digest, f"{what}.data_sha256", length=32)
    for metric in metrics:
        name, value = check_fields(metric, 2, f"{what}.metrics")
        check_str(name, f"{what}.metrics", length_max=64)
        check_int(value, f"{what}.metrics.{name}", high=SCORE_MAX)
    check_int(end, f"{what}.day_end")
    return ModelCard(
        data_sha256=data,
        day_start=check_int(start, f"{what}.day_start", high=end),
        day_end=end,
        rows=check_int(rows, f"{what}.rows"),
        positives=check_int(positives, f"{what}.positives", high=rows),
        seed=check_int(seed, f"{what}.seed"),
        code_version=check_str(version, f"{what}.code_version", length_max=64),
        metrics=metrics,
    )
