"""Transactions of every kind in JSON: what is written reads back as the same bytes, by payload or by fields."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import Rejected
from consensus.ledger import beacon
from consensus.ledger.dispute import MISTAKE
from consensus.ledger.kinds import KINDS
from consensus.ledger.motion import Motion, RetireModel, SeatModel, encode_motion
from consensus.ledger.publication import cut_artifact
from consensus.ledger.scoring import Thresholds
from consensus.transaction import KIND_APPROVE_MOTION, KIND_COMMIT, KIND_PUBLISH_MODEL, Transaction
from node.api import json_forms, schemas
from node.api.json_reading import read_json
from node.api.kind_forms import FORM_BY_KIND, OWN_FIELDS
from node.api.limits import Limits
from node.api.transaction_reading import read_transaction
from tests.report_chain import ReportChain
from tests.staking_chain import OPERATORS, PEOPLE, StakingChain, make_voting_key

CHAIN_ID = "staking-test"
CHUNKS = list(cut_artifact("fraud", b"d" * 32, b"artifact" * 500))
SEAT = SeatModel(b"d" * 32, Thresholds(4, 5), 2, b"e" * 32)


def make_all() -> dict[str, Transaction]:
    chain = StakingChain()
    own = OPERATORS[0]
    return {
        "transfer": chain.make(0, own, PEOPLE[0].address, b"", amount=5),
        "founding": chain.found(4, 600, commission_bp=250),
        "bond": chain.bond(PEOPLE[0], 0, 77),
        "unbond": chain.unbond(own, 0, 40),
        "withdraw": chain.withdraw(own),
        "unjail": chain.unjail(0),
        "rotate_key": chain.rotate(0, make_voting_key(0, 2)),
        "evidence": chain.accuse(1, chain.lie(1, 0)),
        "commit": chain.make(KIND_COMMIT, own, own.address, beacon.encode_tip(b"t" * 32)),
        "publish_model": chain.make(KIND_PUBLISH_MODEL, own, own.address, CHUNKS[1]),
        "seat": chain.make(KIND_APPROVE_MOTION, own, own.address, encode_motion(Motion(9, SEAT))),
        "beside": chain.make(
            KIND_APPROVE_MOTION, own, own.address, encode_motion(Motion(9, replace(SEAT, in_place_of=b"")))
        ),
        "retire": chain.make(
            KIND_APPROVE_MOTION, own, own.address, encode_motion(Motion(9, RetireModel(b"d" * 32)))
        ),
    }


ALL = make_all()


def read(form: dict[str, Any]) -> bytes:
    return read_transaction(read_json(json_forms.write_json(form)), CHAIN_ID)


def refuse(form: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        read(form)
    return caught.value.field, caught.value.code


def form(name: str, **changes: Any) -> dict[str, Any]:
    """Without what would have to fit: the payload and the id."""
    value = {**json_forms.form_transaction(ALL[name]), **changes}
    return {key: item for key, item in value.items() if key not in ("payload", "id")}


@pytest.mark.parametrize("name", ["back", "dispute", "vote", "reclaim"])
def test_what_is_about_a_report_names_it_and_reads_back_by_its_payload(name: str) -> None:
    chain = ReportChain()
    tx = {
        "back": chain.take_back,
        "dispute": chain.dispute,
        "vote": lambda: chain.vote(1, MISTAKE),
        "reclaim": chain.reclaim,
    }[name]()
    whole = json_forms.form_transaction(tx)
    assert whole["reported"] == "0x" + chain.transfer_of().id.hex()
    assert whole.get("verdict") == ("false" if name == "vote" else None)
    assert read_transaction(read_json(json_forms.write_json(whole)), "ledger-test") == tx.raw
    with pytest.raises(Rejected):
        read_transaction({**whole, "reported": "0x" + "11" * 32}, "ledger-test")


def test_every_kind_of_the_ledger_has_a_name() -> None:
    assert FORM_BY_KIND.keys() == {kind.number for kind in KINDS}
    assert len({form.name for form in FORM_BY_KIND.values()}) == len(KINDS)


@pytest.mark.parametrize("name", ALL)
def test_a_transaction_reads_back_by_payload_by_fields_and_by_both(name: str) -> None:
    tx = ALL[name]
    whole = json_forms.form_transaction(tx)
    assert read(whole) == tx.raw
    assert read({key: value for key, value in whole.items() if key != "payload"}) == tx.raw
    assert read({key: value for key, value in whole.items() if key not in OWN_FIELDS}) == tx.raw


@pytest.mark.parametrize("name", ALL)
def test_a_form_has_the_fields_of_its_schema(name: str) -> None:
    named = schemas.build_schemas(Limits())
    value = json_forms.form_transaction(ALL[name])
    for schema in (named["Transaction"], named["SubmittedTransaction"]):
        assert value.keys() <= schema["properties"].keys()
        for own in OWN_FIELDS & value.keys():
            assert value["kind"] in schema["dependentSchemas"][own]["properties"]["kind"]["enum"]


@pytest.mark.parametrize(
    ("name", "changes", "field", "code"),
    [
        ("unbond", {"units": "5"}, "units", "type"),
        ("unbond", {"units": -1}, "units", "range"),
        ("unbond", {"units": 2**53}, "units", "range"),
        ("transfer", {"units": 5}, "units", "unknown_field"),
        ("withdraw", {"evidence": {}}, "evidence", "unknown_field"),
        ("founding", {"commission_bp": 10_001}, "commission_bp", "range"),
        ("founding", {"voting_key": "0x02"}, "voting_key", "hex"),
        ("rotate_key", {"voting_key_proof": 7}, "voting_key_proof", "hex"),
        ("rotate_key", {"commission_bp": 7}, "commission_bp", "unknown_field"),
        ("commit", {"layer": "0x"}, "layer", "hex"),
        ("evidence", {"evidence": 5}, "evidence", "type"),
        ("evidence", {"evidence": {"epoch": 0, "view": 1, "signer": 0, "votes": [5, 6]}}, "evidence.votes", "type"),
        ("evidence", {"evidence": {"epoch": 0, "view": 1, "signer": 0, "votes": []}}, "evidence.votes", "type"),
        ("evidence", {"evidence": {"epoch": 0, "view": 1, "votes": []}}, "signer", "missing_field"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(name: str, changes: dict[str, Any], field: str, code: str) -> None:
    assert refuse(form(name, **changes)) == (field, code)


@pytest.mark.parametrize(
    ("name", "field"), [("unbond", "units"), ("founding", "commission_bp"), ("evidence", "evidence")]
)
def test_a_field_that_is_left_out_is_named(name: str, field: str) -> None:
    value = form(name)
    del value[field]
    assert refuse(value) == (field, "missing_field")


def test_two_votes_that_agree_are_no_evidence() -> None:
    said = json_forms.form_transaction(ALL["evidence"])["evidence"]
    assert refuse(form("evidence", evidence={**said, "votes": said["votes"][:1] * 2}))[1] == "evidence"


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("unbond", {"units": 41}, "units_mismatch"),
        ("founding", {"commission_bp": True}, "commission_bp_mismatch"),
        ("bond", {"commission_bp": 250}, "commission_bp_mismatch"),
        ("bond", {"voting_key": None}, "voting_key_mismatch"),
        ("commit", {"layer": "0x" + "00" * 32}, "layer_mismatch"),
    ],
)
def test_fields_and_payload_must_agree(name: str, changes: dict[str, Any], code: str) -> None:
    tx = ALL[name]
    value = {**json_forms.form_transaction(tx), "payload": "0x" + tx.payload.hex(), **changes}
    assert refuse(value)[1] == code


@pytest.mark.parametrize(
    ("name", "field", "changes"),
    [
        ("publish_model", "model_chunk", {"colour": 1}),
        ("publish_model", "payload.chunk", {"chunk": "0x00"}),
        ("publish_model", "model_chunk.chunk", {"chunk": "0x" + "00" * 3_841}),
        ("publish_model", "digest", {"digest": "0x00"}),
        ("seat", "motion", {"colour": 1}),
        ("seat", "motion.change", {"change": "replace"}),
        ("seat", "in_place_of", {"in_place_of": "0x00"}),
        ("seat", "payload.flag_score_min", {"flag_score_min": 6}),
        ("retire", "motion", {"weight": 1}),
        ("retire", "payload.height", {"height": 0}),
    ],
)
def test_what_a_model_transaction_says_wrong_is_refused_by_its_field(
    name: str, field: str, changes: dict[str, Any]
) -> None:
    value = form(name)
    own = "model_chunk" if name == "publish_model" else "motion"
    value[own] = {**value[own], **changes}
    assert refuse(value)[0] == field


def test_the_manual_names_every_kind_and_its_own_fields() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    _, _, table = manual.partition("| kind | its own fields |")
    table, _, _ = table.partition("\n\n")
    for form in FORM_BY_KIND.values():
        for name in (form.name, *form.schemas):
            assert f"`{name}`" in table, f"{name} is missing in docs/api.md"
