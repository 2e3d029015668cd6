"""`assay stake`: what it signs and sends, where it finds its keys, how it fails. The door is a fake one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus import crypto, transaction
from consensus.ledger import bond, rotation, staking, unbond
from consensus.parameters import Parameters
from node import config
from node.api import door as api_door
from node.api import stake_records
from node.api.kind_forms import form_evidence
from tests.fakes.fake_door import CHAIN_ID, KEYS, VALIDATOR, FakeDoor
from tests.staking_chain import OPERATORS, StakingChain
from tests.unit.test_client_commands import door, run, running  # noqa: F401

OWN, NEW = KEYS[0], KEYS[2]
ADDRESS = "0x" + OWN.address.hex()


@pytest.fixture
def staked(door: FakeDoor, monkeypatch: pytest.MonkeyPatch) -> FakeDoor:  # noqa: F811
    """The door of a chain with epochs, on which a byte of state costs 2."""
    real = door.get_status()
    status = replace(real, parameters=Parameters(epoch_blocks=16, account_byte_fee_units=2))
    monkeypatch.setattr(door, "get_status", lambda: status)
    return door


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config.write_key(tmp_path / "validator.key", OWN)
    return tmp_path


def sent(door: FakeDoor) -> transaction.Transaction:  # noqa: F811
    (raw,) = door.submitted
    tx = transaction.decode_transaction(raw)
    assert transaction.is_signed(tx, CHAIN_ID)
    return tx


def stake(running: str, home: Path, *arguments: str) -> int:  # noqa: F811
    return run("stake", *arguments, "--key", str(home / "validator.key"), "--api", running, "--json")


def test_the_first_bond_founds_a_validator_with_its_voting_keys_proof(
    running: str, staked: FakeDoor, home: Path  # noqa: F811
) -> None:  # fmt: skip
    config.write_key(home / "voting.key", NEW)
    assert stake(running, home, "bond", "--amount", "500", "--commission", "250",
                 "--voting-key", str(home / "voting.key")) == 0  # fmt: skip
    tx = sent(staked)
    founding = bond.decode_founding(tx.payload)
    assert (tx.kind, tx.receiver, tx.amount) == (transaction.KIND_BOND, OWN.address, 500)
    assert (founding.voting_key, founding.commission_bp) == (NEW.public_key, 250)
    digest = staking.compute_key_digest(CHAIN_ID, OWN.address)
    assert crypto.verify(NEW.public_key, digest, founding.proof)
    assert tx.fee == 1 + 2 * staking.VALIDATOR_BYTES


def test_a_bond_to_the_validator_that_one_has_only_adds(
    running: str, staked: FakeDoor, home: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr(staked, "get_validator", lambda _: staked.get_validators().validators[0])
    assert stake(running, home, "bond", "--amount", "500") == 0
    assert (sent(staked).payload, sent(staked).amount) == (b"", 500)


@pytest.mark.parametrize(
    ("arguments", "kind", "receiver", "payload"),
    [
        (
            ("delegate", "--to", "0x" + VALIDATOR.address.hex(), "--amount", "7"),
            "bond",
            VALIDATOR.address,
            b"",
        ),
        (("unbond", "--amount", "40"), "unbond", OWN.address, unbond.encode_units(40)),
        (
            ("unbond", "--all", "--from", "0x" + VALIDATOR.address.hex()),
            "unbond",
            VALIDATOR.address,
            unbond.encode_units(unbond.ALL),
        ),
        (("withdraw",), "withdraw", OWN.address, b""),
        (("unjail",), "unjail", OWN.address, b""),
    ],
)
def test_each_action_is_a_transaction_of_its_kind(
    running: str,  # noqa: F811
    staked: FakeDoor,
    home: Path,
    arguments: tuple[str, ...],
    kind: str,
    receiver: bytes,
    payload: bytes,
) -> None:
    assert stake(running, home, *arguments) == 0
    tx = sent(staked)
    assert tx.kind == getattr(transaction, f"KIND_{kind.upper()}")
    assert (tx.sender, tx.receiver, tx.payload) == (OWN.address, receiver, payload)


def test_a_rotation_carries_the_new_keys_proof(running: str, staked: FakeDoor, home: Path) -> None:  # noqa: F811
    config.write_key(home / "new.key", NEW)
    assert stake(running, home, "rotate", "--voting-key", str(home / "new.key")) == 0
    key, proof = rotation.decode_rotation(sent(staked).payload)
    assert key == NEW.public_key
    assert crypto.verify(key, staking.compute_key_digest(CHAIN_ID, OWN.address), proof)


def test_a_file_of_evidence_becomes_an_accusation_each(
    running: str, staked: FakeDoor, home: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    chain = StakingChain()
    lies = [(number, chain.lie(number, 0)) for number in (0, 1)]
    items = [
        {"operator": "0x" + OPERATORS[number].address.hex(), "evidence": form_evidence(lie)}
        for number, lie in lies
    ]
    (home / "lies.json").write_text(json.dumps({"evidence": items}))
    assert stake(running, home, "accuse", str(home / "lies.json")) == 0
    assert len(json.loads(capsys.readouterr().out)["accusations"]) == 2
    txs = [transaction.decode_transaction(raw) for raw in staked.submitted]
    assert [tx.receiver for tx in txs] == [OPERATORS[0].address, OPERATORS[1].address]
    assert {tx.kind for tx in txs} == {transaction.KIND_EVIDENCE}


def test_a_chain_without_epochs_says_so_before_anything_is_signed(
    running: str, door: FakeDoor, home: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    assert stake(running, home, "bond", "--amount", "500") == 2
    error = capsys.readouterr().err
    assert "no staking; use a chain whose genesis sets epoch_blocks" in error
    assert error.count("\n") == 1
    assert door.submitted == []


def test_a_rejection_is_told_and_exits_1(
    running: str, staked: FakeDoor, home: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async def reject(raws: Any) -> list[api_door.Receipt]:
        return [
            api_door.Receipt(b"i" * 32, "rejected", "churn", "20 would leave; try again in the next epoch")
        ]

    monkeypatch.setattr(staked, "submit", reject)
    assert stake(running, home, "unbond", "--all") == 1
    assert json.loads(capsys.readouterr().out)["code"] == "churn"


def test_status_tells_validator_delegations_and_what_leaves(
    running: str, staked: FakeDoor, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = staked.get_account(OWN.address)
    stakes = stake_records.StakeRecord(
        3,
        (stake_records.DelegationRecord(VALIDATOR.address, 70),),
        (stake_records.UnbondingRecord(VALIDATOR.address, 2, 30, 5, 1_000, False),),
    )
    monkeypatch.setattr(staked, "get_account", lambda _: replace(real, stake=70, stakes=stakes))
    assert run("stake", "status", ADDRESS, "--api", running) == 0
    text = capsys.readouterr().out
    assert f"70 behind 0x{VALIDATOR.address.hex()}" in text
    assert "30: from epoch 5 and 1970-01-01" in text
    assert run("stake", "status", "0x" + VALIDATOR.address.hex(), "--api", running, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["validator"]["status"] == "bonded"
    assert document["unbonding"][0]["units"] == 30


def make_node_home(home: Path, running: str) -> None:  # noqa: F811
    port = int(running.rpartition(":")[2])
    config.write_config(home, config.NodeConfig(name="own", p2p_port=1, api_port=port))


def test_a_rotation_makes_its_key_in_the_nodes_home_once(
    running: str, staked: FakeDoor, home: Path, capsys: pytest.CaptureFixture[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(staked, "get_validator", lambda _: staked.get_validators().validators[0])
    make_node_home(home, running)
    for _ in range(2):  # the chain goes on naming the old key: nobody took the first try
        assert run("stake", "rotate", "--home", str(home), "--json") == 0
        assert "voting-1.key" in capsys.readouterr().err
        key = config.read_key(home / "voting-1.key")
        voting_key, proof = rotation.decode_rotation(sent(staked).payload)
        assert voting_key == key.public_key
        assert crypto.verify(key.public_key, staking.compute_key_digest(CHAIN_ID, OWN.address), proof)
        staked.submitted.clear()
    assert sorted(path.name for path in home.glob("*.key")) == ["validator.key", "voting-1.key"]


def test_a_rotation_without_a_home_says_what_it_needs(
    running: str, staked: FakeDoor, home: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    assert stake(running, home, "rotate") == 2
    assert "--voting-key: no key to rotate to" in capsys.readouterr().err
    make_node_home(home, running)
    assert run("stake", "rotate", "--home", str(home), "--json") == 2
    assert "operates no validator" in capsys.readouterr().err
    assert staked.submitted == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stake"], "required: ACTION"),
        (["stake", "gamble"], "invalid choice"),
        (["stake", "bond"], "required: --amount"),
        (["stake", "bond", "--amount", "0"], "--amount: 0 is out of range"),
        (["stake", "bond", "--amount", "5"], "--key: no key to sign with"),
        (["stake", "unbond"], "one of the arguments --amount --all is required"),
        (["stake", "unbond", "--amount", "5", "--all"], "not allowed with"),
        (["stake", "delegate", "--amount", "5"], "required: --to"),
        (["stake", "rotate"], "no key to sign with"),
        (["stake", "status", "0x12"], "ADDRESS: must be 20 bytes"),
        (["stake", "withdraw", "--timeout", "soon"], '"soon" is not a duration'),
        (["stake", "unjail", "--key", "/nonexistent"], "does not exist"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_file_that_holds_no_evidence_is_refused(
    running: str, staked: FakeDoor, home: Path, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    for text in ("", "[]", "{}", '{"evidence": [5]}', '{"evidence": [{}]}', '{"evidence": []}'):
        (home / "lies.json").write_text(text)
        assert stake(running, home, "accuse", str(home / "lies.json")) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert staked.submitted == []
