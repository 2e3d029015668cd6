"""`assay verify` against nodes that tell the truth, and nodes that lie, over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.genesis import write_genesis
from consensus.transaction import KIND_EVIDENCE
from node import clock
from node.api import light_forms
from node.api.kind_forms import read_evidence
from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.metrics import NodeMetrics
from tests.fakes.light_door import LightDoor
from tests.fakes.served_door import serve_in_thread
from tests.staking_chain import OPERATORS, PEOPLE, make_voting_key
from tests.unit.test_client_commands import run
from tests.unit.test_light import PERIOD_MS, Source, fork

ANN = PEOPLE[0]
ADDRESS = "0x" + ANN.address.hex()


@pytest.fixture(scope="module")
def source() -> Source:
    source = Source(churn_bp_max=500)
    chain = source.chain
    source.grow_to(7, chain.found(4, 600), chain.rotate(0, make_voting_key(0, 2)))
    return source


def serve(door: LightDoor) -> AbstractContextManager[str]:
    return serve_in_thread(ApiServer(door, ApiSettings(limits=Limits()), NodeMetrics(), lambda: 0))


@pytest.fixture
def honest(source: Source) -> LightDoor:
    return LightDoor(source)


@pytest.fixture
def url(honest: LightDoor) -> Iterator[str]:
    with serve(honest) as url:
        yield url


@pytest.fixture
def genesis_file(source: Source, tmp_path: Path) -> str:
    path = tmp_path / "genesis.json"
    path.write_text(write_genesis(source.chain.rules.genesis))
    return str(path)


@pytest.fixture(autouse=True)
def now(source: Source, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    told = [source.now_ms]
    monkeypatch.setattr(clock.SystemClock, "now_ms", lambda _: told[0])
    return told


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run("verify", *arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def name(source: Source, height: int) -> str:
    return f"0x{source.header(height).hash.hex()}@{height}"


def test_the_head_is_verified_from_genesis_and_from_a_checkpoint_alone(
    source: Source, url: str, genesis_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for trust in (("--genesis", genesis_file), ("--checkpoint", name(source, 5))):
        code, report = verify(capsys, "head", *trust, "--api", url)
        assert (code, report["ok"], report["age_checked"]) == (0, True, True)
        assert report["state_root"] == "0x" + source.chain.view.header.state_root.hex()
        assert (report["final_height"], report["epoch"]) == (len(source.chain.blocks), 6)
    assert run("verify", "head", "--checkpoint", name(source, 5), "--api", url) == 0
    assert "state root" in capsys.readouterr().out


def test_an_account_is_verified_by_its_proof(
    source: Source, honest: LightDoor, url: str, genesis_file: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    arguments = ("account", ADDRESS, "--genesis", genesis_file, "--api", url)
    code, report = verify(capsys, *arguments)
    assert (code, report["balance"]) == (0, source.chain.balance(ANN))
    # The balance told beside the proof is not looked at; another account's proof does not pass.
    real = honest.prove_account
    monkeypatch.setattr(honest, "prove_account", lambda _: real(PEOPLE[1].address))
    code, report = verify(capsys, *arguments)
    assert (code, report["ok"], report["code"]) == (1, False, "proof")
    monkeypatch.setattr(honest, "prove_account", lambda _: None)
    assert verify(capsys, *arguments)[1]["code"] == "absent"


def test_a_transaction_is_verified_with_its_score(
    source: Source, honest: LightDoor, url: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tx = source.chain.blocks[0].transactions[1]
    arguments = ("transaction", "0x" + tx.id.hex(), "--checkpoint", name(source, 4), "--api", url)
    code, report = verify(capsys, *arguments)
    assert (code, report["height"], report["index"], report["score"]) == (0, 1, 1, 0)
    real = honest.get_transaction(tx.id)
    assert real is not None
    monkeypatch.setattr(honest, "get_transaction", lambda _: replace(real, score=7))
    code, report = verify(capsys, *arguments)
    assert (code, report["code"]) == (1, "proof")
    monkeypatch.setattr(honest, "get_transaction", lambda _: replace(real, status="pending"))
    monkeypatch.setattr(honest, "prove_transaction", lambda _: None)
    assert verify(capsys, *arguments)[1]["code"] == "not_final"


def test_a_checkpoint_older_than_the_period_is_bad_use(
    source: Source, url: str, genesis_file: str, now: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    now[0] += PERIOD_MS
    for trust in (("--genesis", genesis_file), ("--checkpoint", name(source, 5))):
        assert run("verify", "head", *trust, "--api", url) == 2
        error = capsys.readouterr().err
        assert "get a newer hash from somebody you trust" in error
        assert error.count("\n") == 1


def test_a_checkpoint_of_another_block_or_chain_does_not_hold(
    source: Source, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = name(source, 6).replace("@6", "@5")
    code, report = verify(capsys, "head", "--checkpoint", wrong, "--api", url)
    assert (code, report["code"]) == (1, "checkpoint")
    other = tmp_path / "other.json"
    other.write_text(write_genesis(replace(source.chain.rules.genesis, chain_id="another")))
    for trust in ((), ("--checkpoint", name(source, 5))):
        code, report = verify(capsys, "head", "--genesis", str(other), *trust, "--api", url)
        assert (code, report["code"]) == (1, "genesis")


def test_a_forged_head_does_not_hold(
    source: Source, honest: LightDoor, url: str, genesis_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    top = len(source.chain.blocks)
    good = source.finalize(source.header(top))
    honest.lies[top] = replace(good, header=fork(source, top))
    code, report = verify(capsys, "head", "--genesis", genesis_file, "--api", url)
    assert (code, report["code"]) == (1, "certificate")


def test_a_node_that_is_down_is_named_and_voids_nothing(
    source: Source, url: str, genesis_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    down = "http://127.0.0.1:9"  # discard: nobody listens
    for order in ((url, down), (down, url)):
        apis = [word for each in order for word in ("--api", each)]
        code, report = verify(capsys, "head", "--genesis", genesis_file, *apis)
        assert (code, report["ok"], report["node"]) == (0, True, url)
        assert (report["compared"], report["unreachable"]) == ([], [down])
    assert run("verify", "head", "--genesis", genesis_file, "--api", down) == 1


def test_the_help_says_what_several_nodes_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("verify", "head", "--help")
    words = " ".join(capsys.readouterr().out.split())
    assert "the first that answers is asked, and the others compared" in words


def test_nodes_that_agree_are_compared(
    source: Source, url: str, genesis_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(LightDoor(source)) as second:
        code, report = verify(capsys, "head", "--genesis", genesis_file, "--api", url, "--api", second)
    assert code == 0
    assert report["compared"] == [{"api": second, "height": len(source.chain.blocks)}]


def test_a_fork_between_two_nodes_is_written_down_as_evidence_that_the_chain_takes(
    genesis_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(churn_bp_max=500)  # as the module's, but grown by what follows
    source.grow_to(7, source.chain.found(4, 600), source.chain.rotate(0, make_voting_key(0, 2)))
    liar = LightDoor(source)
    top = len(source.chain.blocks)
    liar.lies[top] = source.finalize(fork(source, top), (1, 2, 3, 4))
    file = tmp_path / "lies.json"
    with serve(LightDoor(source)) as one, serve(liar) as two:
        code, report = verify(
            capsys, "head", "--genesis", genesis_file, "--api", one, "--api", two, "--evidence", str(file)
        )  # fmt: skip
    assert (code, report["code"], len(report["accused"])) == (1, "fork", 4)
    document = json.loads(file.read_text())
    assert len(document["blocks"]) == 2
    by_address = {key.address: key for key in OPERATORS}
    for item in document["evidence"][:1]:
        operator = bytes.fromhex(item["operator"][2:])
        chain = source.chain
        built = chain.grow(chain.make(KIND_EVIDENCE, ANN, operator, read_evidence(item["evidence"])))
        assert len(built.block.transactions) == 1
        assert chain.stake(OPERATORS.index(by_address[operator])).status == 2


def test_a_fork_over_views_accuses_nobody_and_says_what_is_missing(
    genesis_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(churn_bp_max=500)
    source.grow_to(7, source.chain.found(4, 600), source.chain.rotate(0, make_voting_key(0, 2)))
    liar = LightDoor(source)
    top = len(source.chain.blocks)
    view = source.header(top).view
    liar.lies[top] = source.finalize(fork(source, top, view=view + 7), (1, 2, 3, 4))
    with serve(LightDoor(source)) as one, serve(liar) as two:
        code, report = verify(
            capsys, "head", "--genesis", genesis_file, "--api", one, "--api", two,
            "--evidence", str(tmp_path / "lies.json"),
        )  # fmt: skip
    assert (code, report["code"], report["accused"]) == (1, "fork", [])
    proves = report["proves"]
    assert proves["views"] == [view, view + 7]
    assert len(proves["signed_both"]) == 4
    assert proves["wanted"] == f"the nullification of view {view}"
    assert proves["words"] in report["problem"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify"], "required: WHAT"),
        (["verify", "head"], "nothing to trust; give --checkpoint HASH@HEIGHT"),
        (["verify", "head", "--checkpoint", "0x12"], "must be HASH@HEIGHT"),
        (["verify", "head", "--checkpoint", "0x12@5"], "--checkpoint: must be 32 bytes"),
        (["verify", "head", "--checkpoint", "0x" + "00" * 32 + "@0"], "out of range"),
        (["verify", "head", "--genesis", "/nonexistent"], "does not exist"),
        (["verify", "account", "0x12"], "ADDRESS: must be 20 bytes"),
        (["verify", "transaction", "0x12"], "TXID: must be 32 bytes"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("form", "nonsense"),
    [
        ("form_update", {"header": 5}),
        ("form_update", {"header": {}}),
        ("form_update", {"certificate": None}),
        ("form_update", {"certificate": {"kind": ["finalize"]}}),
        ("form_update", {"certificate_headers": [7]}),
        ("form_update", {"validators": []}),
        ("form_update", {"validators": [{"public_key": 1.5}]}),
        ("form_record_proof", {"record_proof": "0x93"}),
        ("form_record_proof", {"record_proof": 7}),
        ("form_history_proof", {"history_proof": "0x"}),
    ],
)
def test_whatever_a_node_answers_is_one_line(
    source: Source,
    url: str,
    form: str,
    nonsense: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = getattr(light_forms, form)
    monkeypatch.setattr(light_forms, form, lambda *told: {**real(*told), **nonsense})
    assert run("verify", "head", "--checkpoint", name(source, 5), "--api", url) == 1
    error = capsys.readouterr().err
    assert error.startswith("assay: ")
    assert error.count("\n") == 1
