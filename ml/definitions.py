"""What a model's features are: data from a bounded vocabulary, carried by the artifact.

`RowRules` says what an account's row keeps (decay, windows, delay), `Feature` what is read off it: a name,
one of KINDS and its arguments. So a new model may use other windows, rates and choices without new code in
the ledger; a new *kind* is code, and raises FEATURES_VERSION.

Invariant: whatever passes `check_definitions` cannot overflow (the bounds stand beside the constants here
and in ml/features.py), fits a row of MODULE_ROW_BYTES_MAX bytes, and has one encoding. Features of the
sender come before those of the receiver. Rows made under equal `rules` mean the same (`rows_key`).
Leaves out: how features are computed (ml/features.py, ml/rings.py) and said in words (ml/words.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import check_fields, check_int, check_str, encode
from consensus.errors import Rejected
from consensus.ledger.scoring import MODULE_ROW_BYTES_MAX

FEATURES_VERSION: Final = 2  # raise it with any change that changes a feature's value or a row's bytes

DAY_MS: Final = 86_400_000
BYTE_MAX: Final = 255
COUNTER_MAX: Final = 2**16 - 1
FEATURES_MAX: Final = 32  # bytes a transaction; each costs a column and a table of masks
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
DECAY_DAYS: Final = 1024  # after so many silent days nothing is left of a mean
# What may count as a burst: spans that divide a day, and whose numbers stay below 2^32 (times are below 2^48).
LATELY_CHOICES_MS: Final = (300_000, 600_000, 900_000, 1_800_000, 3_600_000)

# Each kind and what its arguments are; the first five describe the sender, the others the receiver.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "amount": (),  # how many of the scale's edges the amount reaches
    "amount_over_mean": (),  # in RATIO_EDGES
    "evidence": ("window_days",),  # how far recent amounts exceeded evidence_ratio_64, in quarters of a mean
    "sent_count": (),  # the decayed count of what the sender sent before
    "sent_lately": (),  # what else it sent in the same span
    "run_reports": (),  # unexplained reports since the newest clean day
    "run_age_days": (),  # age of the oldest of those
    "clean_age_days": (),  # age of the newest clean day
    "reports": ("first_age_days", "end_age_days"),  # unexplained reports of those ages
    "newest_report_age_days": (),
    "oldest_report_age_days": (),
    "clean": ("first_age_days", "end_age_days"),  # clean transactions of those ages
    "clean_since": (),  # clean transactions since the newest reported day
    "clean_between": (),  # clean transactions between the oldest and the newest reported day
}
SENDER_KINDS: Final = frozenset(("amount", "amount_over_mean", "evidence", "sent_count", "sent_lately"))

# The bounds of each field of RowRules. Decay: a day keeps 1 - 2^-shift. Amounts are winsorised below 2^40,
# so that 16 means stay below 2^46; rings of 48 counters of 16 bits sum below 2^22.
RULE_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "decay_shift": (4, 8),
    "winsor_means": (1, 16),
    "evidence_days": (1, 32),
    "evidence_ratio_64": (64, 4_096),
    "lately_ms": (LATELY_CHOICES_MS[0], LATELY_CHOICES_MS[-1]),
    "ring_days": (2, 48),
    "label_delay_days": (0, 30),
}

Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class RowRules:
    """What an account's row keeps. evidence_ratio_64: what counts as evidence, in 64ths of a mean.

    evidence_days, ring_days: slots of the sender's and of the receiver's rings. label_delay_days: how long
    after its transaction a report may come; a whole day is *clean* one day later.
    """

    decay_shift: int = 6  # any rate from 31/32 to 127/128 did as well
    winsor_means: int = 3  # an amount adds at most so many means to the mean
    evidence_days: int = 16
    evidence_ratio_64: int = 160
    lately_ms: int = 600_000
    ring_days: int = 40  # 28 are too few
    label_delay_days: int = 7

    @property
    def mature_days(self) -> int:
        """The age at which a whole day is past the label delay."""
        return self.label_delay_days + 1

    @cached_property
    def row(self) -> np.dtype[np.void]:
        """An account's row; all zeros is an account nothing is known about."""
        return np.dtype(
            [
                ("sum", "<u8"),  # decayed sum of winsorised amounts, times COUNT_ONE
                ("count", "<u4"),  # decayed count, times COUNT_ONE
                ("sender_day", "<u4"),  # newest day as a sender, plus one; 0 = never sent
                ("winsor", "<u8"),  # the largest amount that counts in full today
                ("lately", "<u4"),  # newest span (lately_ms) as a sender, plus one
                ("sent_lately", "<u2"),  # sent in it
                ("evidence", "<u2", (self.evidence_days,)),  # slot = day modulo evidence_days
                ("receiver_day", "<u4"),  # newest day as a receiver, plus one; 0 = never received
                ("unreported", "<u2", (self.ring_days,)),  # slot = day modulo ring_days
                ("unexplained", "<u2", (self.ring_days,)),
            ]
        )

    @cached_property
    def decay(self) -> Int64s:
        """int64[1025]: what is left after so many days, times 2^16; nothing after DECAY_DAYS."""
        value, table = 2**16, []
        for _ in range(DECAY_DAYS):
            table.append(value)
            value = value * ((1 << self.decay_shift) - 1) >> self.decay_shift
        return np.array([*table, 0], dtype=np.int64)

    @cached_property
    def evidence_age(self) -> Int64s:
        return compute_age_table(self.evidence_days)

    @cached_property
    def ring_age(self) -> Int64s:
        return compute_age_table(self.ring_days)


@dataclass(frozen=True, slots=True)
class Feature:
    """One byte of a transaction: a name that trees and explanations use, its kind, its arguments."""

    name: str
    kind: str
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True)
class Definitions:
    """Rules of the row and the features in the order of a forest's columns."""

    rules: RowRules
    features: tuple[Feature, ...]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def of_sender(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind in SENDER_KINDS)

    @cached_property
    def of_receiver(self) -> tuple[Feature, ...]:
        return self.features[len(self.of_sender) :]

    @property
    def row_bytes(self) -> int:
        return self.rules.row.itemsize

    @cached_property
    def rows_key(self) -> bytes:
        """32 bytes: models of equal keys read each other's rows."""
        return sha256(encode(("assay/rows", FEATURES_VERSION, astuple(self.rules)))).digest()

    def to_fields(self) -> tuple[Any, ...]:
        """The definitions as codec values."""
        return astuple(self.rules), tuple((f.name, f.kind, f.arguments) for f in self.features)

    def to_json(self) -> dict[str, Any]:
        """The form that parse_definitions reads."""
        rules = {field.name: getattr(self.rules, field.name) for field in fields(self.rules)}
        return {"rules": rules, "features": [[f.name, f.kind, *f.arguments] for f in self.features]}


@dataclass(frozen=True)
class FeatureScale:
    """What training learns about a chain's amounts; part of the model artifact.

    amount_edges: at most 255, rising: the `amount` byte is how many edges an amount reaches.
    large_amount: an amount that by itself explains a report (so that its receiver is not stained).
    """

    amount_edges: tuple[int, ...]
    large_amount: int

    @cached_property
    def edges(self) -> Int64s:
        return np.array(self.amount_edges, dtype=np.int64)


def compute_age_table(slots: int) -> Int64s:
    """[d, s]: how old slot s is on a day d modulo `slots`; which is also the slot that is s days old.

    A table, because dividing forty times a transaction would cost more than all the rest.
    """
    number = np.arange(slots, dtype=np.int64)
    return (number[:, None] - number) % slots


def check_definitions(values: Any, what: str = "model.definitions") -> Definitions:
    """The definitions that `values` (decoded, of bounded size) describe; raises Rejected if they are none."""
    raw_rules, raw_features = check_fields(values, 2, what)
    numbers = check_fields(raw_rules, len(RULE_BOUNDS), f"{what}.rules")
    for (name, (low, high)), number in zip(RULE_BOUNDS.items(), numbers, strict=True):
        check_int(number, f"{what}.rules.{name}", low=low, high=high)
    rules = RowRules(*numbers)
    if rules.lately_ms not in LATELY_CHOICES_MS:
        raise Rejected(
            f"{rules.lately_ms} is none of {', '.join(map(str, LATELY_CHOICES_MS))}",
            field=f"{what}.rules.lately_ms",
        )
    if rules.ring_days <= rules.mature_days:
        raise Rejected(
            f"{rules.ring_days} days hold no day that is clean (those are {rules.mature_days} days old)",
            field=f"{what}.rules.ring_days",
        )
    if rules.row.itemsize > MODULE_ROW_BYTES_MAX:
        raise Rejected(
            f"a row takes {rules.row.itemsize} bytes, at most {MODULE_ROW_BYTES_MAX} allowed",
            field=f"{what}.rules",
            mend="keep fewer days",
        )
    if type(raw_features) is not tuple or not 0 < len(raw_features) <= FEATURES_MAX:
        raise Rejected(f"must be 1 to {FEATURES_MAX} features", field=f"{what}.features")
    features = tuple(
        _check_feature(raw, rules, f"{what}.features[{number}]") for number, raw in enumerate(raw_features)
    )
    if len({feature.name for feature in features}) != len(features):
        raise Rejected("two have one name", field=f"{what}.features")
    sides = [feature.kind in SENDER_KINDS for feature in features]
    if sides != sorted(sides, reverse=True):
        raise Rejected("the sender's must come before the receiver's", field=f"{what}.features")
    return Definitions(rules, features)


def parse_definitions(document: Any) -> Definitions:
    """The definitions of a JSON document {"rules": {name: number}, "features": [[name, kind, ...], ...]};
    rules left out are the defaults. Raises Rejected."""
    if not isinstance(document, dict) or set(document) - {"rules", "features"} or "features" not in document:
        raise Rejected("is not an object of `rules` and `features`", field="definitions")
    rules, features = document.get("rules", {}), document["features"]
    if not isinstance(rules, dict) or set(rules) - set(RULE_BOUNDS):
        raise Rejected(f"may name {', '.join(RULE_BOUNDS)}", field="definitions.rules")
    if not isinstance(features, list) or not all(isinstance(f, list) and len(f) >= 2 for f in features):
        raise Rejected("must be lists of a name, a kind and its arguments", field="definitions.features")
    defaults = DEFAULT_DEFINITIONS.rules
    return check_definitions(
        (
            tuple(rules.get(name, getattr(defaults, name)) for name in RULE_BOUNDS),
            tuple((feature[0], feature[1], tuple(feature[2:])) for feature in features),
        ),
        "definitions",
    )


def _check_feature(values: Any, rules: RowRules, what: str) -> Feature:
    name, kind, arguments = check_fields(values, 3, what)
    if not NAME.fullmatch(check_str(name, f"{what}.name", length_max=40)):
        raise Rejected(f"{name!r} is no name (a-z, 0-9, _)", field=f"{what}.name")
    if check_str(kind, f"{what}.kind", length_max=40) not in KINDS:
        raise Rejected(f"unknown kind {kind!r}", field=f"{what}.kind", mend=f"use one of {', '.join(KINDS)}")
    check_fields(arguments, len(KINDS[kind]), f"{what}.arguments")
    if kind == "evidence":
        check_int(arguments[0], f"{what}.window_days", low=1, high=rules.evidence_days)
    elif arguments:
        check_int(arguments[1], f"{what}.end_age_days", low=1, high=rules.ring_days)
        check_int(arguments[0], f"{what}.first_age_days", low=0, high=arguments[1] - 1)
    return Feature(name, kind, arguments)


DEFAULT_DEFINITIONS: Final = Definitions(
    RowRules(),
    (
        Feature("amount", "amount"),
        Feature("amount_over_mean", "amount_over_mean"),
        Feature("evidence", "evidence", (14,)),
        Feature("sent_lately", "sent_lately"),
        Feature("run_reports", "run_reports"),
        Feature("run_age_days", "run_age_days"),
        Feature("clean_age_days", "clean_age_days"),
        Feature("reports", "reports", (0, 40)),
        Feature("newest_report_age_days", "newest_report_age_days"),
        Feature("oldest_report_age_days", "oldest_report_age_days"),
        Feature("clean_since", "clean_since"),
        Feature("clean_between", "clean_between"),
    ),
)
