"""Feature definitions as data: bounded, canonical, in words; a model may use others without new code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from consensus.errors import Rejected
from consensus.ledger.scoring import ModuleView, TransferColumns
from ml.definitions import (
    DEFAULT_DEFINITIONS,
    KINDS,
    Definitions,
    Feature,
    RowRules,
    check_definitions,
    parse_definitions,
)
from ml.forest import LEAF, Forest, Tree
from ml.fraud import FraudModule, read_default_artifact
from ml.model import decode_model

RULES, FEATURES = DEFAULT_DEFINITIONS.to_fields()
SHIPPED = decode_model(read_default_artifact())


def of_every_kind(rules: RowRules) -> Definitions:
    arguments = {"evidence": (3,), "reports": (0, 9), "clean": (8, 12)}
    return Definitions(rules, tuple(Feature(kind, kind, arguments.get(kind, ())) for kind in KINDS))


def test_definitions_are_read_back_from_both_their_forms():
    for definitions in (DEFAULT_DEFINITIONS, of_every_kind(RowRules(ring_days=30, decay_shift=5))):
        assert check_definitions(definitions.to_fields()) == definitions
        assert parse_definitions(definitions.to_json()) == definitions


def test_the_usual_row_has_226_bytes_and_other_rules_another_key():
    assert DEFAULT_DEFINITIONS.row_bytes == 226
    fewer = Definitions(DEFAULT_DEFINITIONS.rules, DEFAULT_DEFINITIONS.features[:3])
    assert fewer.rows_key == DEFAULT_DEFINITIONS.rows_key  # they read each other's rows
    slower = Definitions(replace(DEFAULT_DEFINITIONS.rules, decay_shift=7), DEFAULT_DEFINITIONS.features)
    assert slower.rows_key != DEFAULT_DEFINITIONS.rows_key


def with_rule(place: int, value: object) -> tuple[object, ...]:
    return ((*RULES[:place], value, *RULES[place + 1 :]), FEATURES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (with_rule(0, 3), "decay_shift"),
        (with_rule(1, 17), "winsor_means"),
        (with_rule(2, True), "evidence_days"),
        (with_rule(4, 700_000), "700000 is none of"),
        (with_rule(5, 8), "hold no day that is clean"),
        (with_rule(5, 48), "a row takes 258 bytes"),
        (with_rule(6, 31), "label_delay_days"),
        ((RULES, ()), "1 to 32 features"),
        ((RULES, FEATURES * 3), "1 to 32 features"),
        ((RULES, (FEATURES[0], FEATURES[0])), "two have one name"),
        ((RULES, (FEATURES[-1], FEATURES[0])), "before the receiver's"),
        ((RULES, (("Amount", "amount", ()),)), "is no name"),
        ((RULES, (("a", "amount modulo 5", ()),)), "unknown kind"),
        ((RULES, (("a", "amount", (1,)),)), "arguments"),
        ((RULES, (("a", "evidence", (17,)),)), "window_days"),
        ((RULES, (("a", "reports", (5, 5)),)), "first_age_days"),
        ((RULES, (("a", "reports", (0, 41)),)), "end_age_days"),
        ((RULES, (("a", "reports", (0, "9")),)), "end_age_days"),
        ((RULES,), "array of 2 fields"),
    ],
)
def test_definitions_out_of_bounds_are_refused_by_name(fields, message):
    with pytest.raises(Rejected, match=message):
        check_definitions(fields)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"rules": {}},
        {"features": [], "more": 1},
        {"features": [["amount"]]},
        {"features": [["a", "amount"]], "rules": {"moon": 1}},
        {"features": [["a", ["amount"]]]},
        {"features": [["a", "evidence", 1.5]]},
    ],
)
def test_json_that_defines_nothing_is_refused(document):
    with pytest.raises(Rejected):
        parse_definitions(document)


def test_every_kind_has_words_that_speak_of_its_own_windows():
    definitions = of_every_kind(RowRules(lately_ms=3_600_000, evidence_ratio_64=128))
    tree = Tree((0, LEAF, LEAF), (3, 0, 0), (0, -5, 5))
    model = replace(SHIPPED, definitions=definitions, forest=Forest(len(definitions), (tree,)))
    module = FraudModule(model.encode())
    rows = np.zeros((2, module.row_bytes), dtype=np.uint8)
    block = TransferColumns(*np.array([[0, 1, 500, 9], [0, 1, 900, 10]]).T)
    why = module.explain(block, ModuleView(rows, module.thresholds), 1)
    words = {c.feature: c.words for c in why.contributions}
    assert set(words) == set(KINDS)
    assert words["sent_lately"] == "the sender sent 1 others in the same hour"
    assert words["evidence"] == "amounts beyond 2 means came to 0.00 means in the sender's last 3 days"
    assert words["clean"] == "the receiver had no clean transactions on days 8 to 11 days ago"
    assert words["sent_count"] == "the sender's earlier payments weigh as much as 1 of today"


def test_a_forest_over_other_features_than_it_says_is_refused():
    fewer = Definitions(SHIPPED.definitions.rules, SHIPPED.definitions.features[:-1])
    with pytest.raises(Rejected, match=r"model\.forest\.features"):
        decode_model(replace(SHIPPED, definitions=fewer).encode())
