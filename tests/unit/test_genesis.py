"""Genesis: the JSON form says exactly what the digest covers, and everything impossible is named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.genesis import Genesis, ModuleEntry, read_genesis, write_genesis
from consensus.parameters import Parameters
from consensus.vote import Validator, ValidatorSet
from tests.ledger_chain import make_genesis

ADDRESS = st.binary(min_size=20, max_size=20)
KEYS = tuple(PrivateKey.from_seed(bytes((number,))).public_key for number in range(4))


@st.composite
def geneses(draw: st.DrawFn) -> Genesis:
    stakes = draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=4))
    balances = draw(st.dictionaries(ADDRESS, st.integers(0, 2**40), max_size=4))
    names = draw(st.lists(st.text("abc.:-", min_size=1, max_size=8), max_size=3, unique=True))
    digest = st.binary(min_size=32, max_size=32)
    digests = draw(st.lists(digest, min_size=len(names), max_size=len(names), unique=True))
    score = st.integers(0, 10_001)
    return Genesis(
        draw(st.text("abcxyz-0123", min_size=1, max_size=20)),
        draw(st.integers(0, codec.TIME_MS_MAX)),
        Parameters(
            clock=draw(st.sampled_from(["wall", "workload"])),
            fee_units_min=draw(st.integers(0, 100)),
            report_window_ms=draw(st.integers(1, 10**12)),
        ),
        ValidatorSet(tuple(Validator(key, stake) for key, stake in zip(KEYS, stakes, strict=False))),
        tuple(balances.items()),
        tuple(draw(st.lists(ADDRESS, max_size=3, unique=True))),
        tuple(
            ModuleEntry(name, digest, draw(score), draw(score), draw(st.integers(0, 10)))
            for name, digest in zip(names, digests, strict=True)
        ),
    )


def change(**fields: Any) -> str:
    document = json.loads(write_genesis(make_genesis()))
    document.update(fields)
    return json.dumps(document)


@given(geneses())
def test_the_json_form_reads_back_to_the_same_genesis(genesis: Genesis) -> None:
    again = read_genesis(write_genesis(genesis))
    assert (again, again.digest) == (genesis, genesis.digest)


@given(geneses(), geneses())
def test_different_geneses_have_different_digests(first: Genesis, second: Genesis) -> None:
    assert (first == second) == (first.digest == second.digest)


PERSON = {"address": "0x" + "11" * 20, "balance": 5}
STAKE = {"public_key": "0x" + KEYS[0].hex(), "stake": 5}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"validators": []}, "validators"),
        ({"validators": [{**STAKE, "stake": 0}]}, "validators.stake"),
        ({"validators": [STAKE, STAKE]}, "validators.public_key"),
        ({"validators": [{**STAKE, "public_key": "0x" + "05" * 33}]}, "validators.public_key"),
        ({"validators": [{**STAKE, "stake": 2**53 - 1}]}, "accounts.balance"),
        ({"accounts": [PERSON, PERSON]}, "accounts.address"),
        ({"accounts": [{**PERSON, "balance": -1}]}, "accounts.balance"),
        ({"accounts": [{**PERSON, "balance": True}]}, "accounts.balance"),
        ({"accounts": [{**PERSON, "balance": 2**53 - 1}]}, "accounts.balance"),
        ({"accounts": [{**PERSON, "address": "0x" + "1" * 39}]}, "accounts.address"),
        ({"accounts": [{**PERSON, "address": "0x" + "AA" * 20}]}, "accounts.address"),
        ({"accounts": [{**PERSON, "address": "0x" + "aa " * 20}]}, "accounts.address"),
        ({"accounts": [{**PERSON, "colour": 1}]}, "accounts.colour"),
        ({"accounts": {}}, "accounts"),
        ({"chain_id": ""}, "chain_id"),
        ({"chain_id": 5}, "chain_id"),
        ({"chain_id": "x" * 65}, "chain_id"),
        ({"timestamp_ms": -1}, "timestamp_ms"),
        ({"parameters": {"clock": "sundial"}}, "parameters.clock"),
        ({"parameters": {"fee": 1}}, "parameters.fee"),
        ({"parameters": {"block_bytes_max": 0}}, "parameters.block_bytes_max"),
        ({"parameters": {"fee_units_min": "1"}}, "parameters.fee_units_min"),
        ({"reporters": ["0x" + "11" * 20] * 2}, "reporters"),
        ({"parameters": {"reporting": "everybody"}}, "parameters.reporting"),
        ({"parameters": {"reporting": "registered+listed"}}, "parameters.reporting"),
        ({"parameters": {"reporting": 5}}, "parameters.reporting"),
        ({"parameters": {"reporting": "registered"}, "reporters": ["0x" + "11" * 20]}, "reporters"),
        ({"parameters": {"reports_min": 2}, "reporters": ["0x" + "11" * 20]}, "reporters"),
        ({"parameters": {"reports_min": 65}}, "parameters.reports_min"),
        ({"modules": [{"name": "a"}]}, "modules.digest"),
        ({"colour": "blue"}, "genesis.colour"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_genesis(change(**fields))
    assert caught.value.field == named


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"chain_id": 1e3}', '{"chain_id": NaN}', "[" * 100_000, '{"a": 1, "a": 2}'],
)
def test_text_that_is_no_genesis_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(Rejected):
        read_genesis(text)


@pytest.mark.parametrize("name", ["chain_id", "timestamp_ms", "validators", "accounts"])
def test_a_missing_field_is_named(name: str) -> None:
    document = json.loads(write_genesis(make_genesis()))
    del document[name]
    with pytest.raises(Rejected, match=f"genesis.{name}: is missing"):
        read_genesis(json.dumps(document))


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"epoch_blocks": 1}, "parameters.epoch_blocks"),
        ({"unbonding_epochs": 2}, "parameters.unbonding_epochs"),
        ({"unbonding_epochs": 20}, "parameters.churn_bp_max"),
        ({"churn_bp_max": 143}, "parameters.churn_bp_max"),
        ({"slash_bp": 10_001}, "parameters.slash_bp"),
        ({"validators_max": 1_025}, "parameters.validators_max"),
        ({"reward_units": -1}, "parameters.reward_units"),
        ({"leader_election": "dice"}, "parameters.leader_election"),
    ],
)
def test_parameters_of_stake_that_would_break_its_promises_are_refused(
    parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected) as caught:
        Parameters(**parameters)
    assert caught.value.field == field


def test_the_cap_on_change_may_be_tight_or_off() -> None:
    for parameters in (
        {"churn_bp_max": 142},
        {"churn_bp_max": 10_000},
        {"churn_bp_max": 1, "unbonding_epochs": 2_000},
    ):
        assert Parameters(**parameters).evidence_epochs == Parameters(**parameters).unbonding_epochs - 2


def test_validators_of_genesis_hold_the_minimum_and_have_seats() -> None:
    for parameters in ({"stake_units_min": 501}, {"stake_units_min": 500, "validators_max": 1}):
        make_genesis(**parameters)
        with pytest.raises(Rejected):
            make_genesis(epoch_blocks=10, **parameters)
