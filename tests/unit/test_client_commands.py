"""`assay send, tx, account, block, validators, status, explain`: what they print, where they look, how they fail."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import Rejected
from node import __main__ as command_line
from node import config
from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.client.endpoints import find_key, find_urls_of_home
from node.metrics import NodeMetrics
from tests.fakes.fake_door import CHAIN_ID, CLOCK_MS, KEYS, FakeDoor
from tests.fakes.served_door import serve_in_thread


def make_server(door: FakeDoor, **limits: int) -> ApiServer:
    return ApiServer(door, ApiSettings(limits=Limits(**limits)), NodeMetrics(), lambda: 0)


def find_closed_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def running(door: FakeDoor) -> Iterator[str]:
    with serve_in_thread(make_server(door)) as url:
        yield url


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("0x" + KEYS[0].secret.hex() + "\n")
    path.chmod(0o600)
    return path


def run(*arguments: str) -> int:
    return command_line.main(arguments)


def write_localnet(folder: Path, *urls: str) -> None:
    document = {
        "nodes": [{"name": f"node{i}", "api": url} for i, url in enumerate(urls)],
        "accounts": [{"address": "0x" + KEYS[0].address.hex(), "private_key": "0x" + KEYS[0].secret.hex()}],
    }
    (folder / "localnet.json").write_text(json.dumps(document))


def test_every_client_command_prints_text_or_one_json_document(
    running: str, door: FakeDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    txid = "0x" + door.blocks[2].block.transactions[0].id.hex()
    address = "0x" + KEYS[0].address.hex()
    for arguments, needle in [
        (["status"], CHAIN_ID),
        (["validators"], "100.0%"),
        (["block"], "finalize of view 2 by validators 0"),
        (["block", "head"], "none yet"),
        (["tx", txid], "block 2, index 0"),
        (["tx", txid, "--proof"], "siblings"),
        (["account", address, "--history", "3"], "6 (next unused)"),
        (["explain", txid], "amount is 5"),
    ]:
        assert run(*arguments, "--api", running) == 0
        text = capsys.readouterr().out
        assert needle in text
        assert "\x1b" not in text
        assert run(*arguments, "--api", running, "--json") == 0
        assert json.loads(capsys.readouterr().out)


def test_an_explanation_shows_a_sum(running: str, door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    txid = "0x" + door.blocks[2].block.transactions[0].id.hex()
    assert run("explain", txid, "--api", running) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("contribution"))
    numbers = [int(line.split()[0]) for line in lines[start + 1 :]]
    assert sum(numbers[:-1]) == numbers[-1] == 137
    assert "fraud: 12 of 10000 (accept); flags from 5000, refuses from 9000" in lines


def test_send_uses_the_nodes_clock_and_nonce_and_waits(
    running: str, door: FakeDoor, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = "0x" + KEYS[1].address.hex()
    sent = ("send", "--to", to, "--amount", "5", "--key", str(key_file), "--api", running)
    assert run(*sent, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["status"], report["score"]) == ("accepted", 12)
    tx = door.records[bytes.fromhex(report["id"][2:])].transaction
    assert (tx.nonce, tx.timestamp_ms, tx.expires_ms, tx.fee) == (6, CLOCK_MS, CLOCK_MS + 3_600_000, 1)
    # The same transaction again: this time the node finds it final.
    record = door.records[tx.id]
    door.records[tx.id] = type(record)(tx, "final", 4, 0, bytes(32), 12, 0)
    assert run(*sent, "--wait") == 0
    assert "block 4, index 0" in capsys.readouterr().out


def test_two_sends_in_a_row_are_two_transfers(
    running: str, door: FakeDoor, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = "0x" + KEYS[1].address.hex()
    sent = ("send", "--to", to, "--amount", "5", "--key", str(key_file), "--api", running, "--json")
    assert run(*sent) == 0
    first = json.loads(capsys.readouterr().out)["id"]
    door.nonce_pending = 7  # the first one waits
    assert run(*sent) == 0
    assert json.loads(capsys.readouterr().out)["id"] != first


def test_a_refused_transfer_says_why_and_exits_1(
    running: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = "0x" + KEYS[1].address.hex()
    assert run("send", "--to", to, "--amount", "666", "--key", str(key_file), "--api", running, "--wait") == 1
    assert "scored 9700" in capsys.readouterr().out


def test_waiting_ends(running: str, key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = "0x" + KEYS[1].address.hex()
    arguments = (
        "--to",
        to,
        "--amount",
        "5",
        "--key",
        str(key_file),
        "--api",
        running,
        "--wait",
        "--timeout",
        "1ms",
    )
    assert run("send", *arguments) == 1
    assert "is not final after 0.001 s; ask later with `assay tx" in capsys.readouterr().err


def test_a_home_names_its_nodes_and_the_first_that_answers_is_used(
    running: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_localnet(tmp_path, find_closed_url(), running)
    assert run("status", "--home", str(tmp_path)) == 0
    assert run("send", "--to", "0x" + KEYS[1].address.hex(), "--amount", "5", "--home", str(tmp_path)) == 0
    assert "accepted" in capsys.readouterr().out


def test_one_nodes_home_names_its_api_and_its_key(tmp_path: Path) -> None:
    config.write_config(tmp_path, config.NodeConfig("solo", 1, 4_711))
    config.write_key(tmp_path / "validator.key", KEYS[2])
    assert find_urls_of_home(tmp_path) == ["http://127.0.0.1:4711"]
    assert find_key(None, str(tmp_path)) == KEYS[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tx", "0x12"], "TXID: must be 32 bytes"),
        (["tx", "abc"], "TXID: must be lower-case hex with 0x"),
        (["tx"], "required: TXID"),
        (["account", "0x" + "00" * 19], "ADDRESS: must be 20 bytes"),
        (["account", "0x" + "00" * 20, "--history", "101"], "--history: 101 is out of range"),
        (["block", "../status"], "block: must be a whole number"),
        (["explain", "0x" + "AA" * 32], "TXID: must be lower-case"),
        (["send", "--to", "0x", "--amount", "5"], "--to: must be 20 bytes"),
        (["send", "--to", "0x" + "00" * 20, "--amount", "-5"], "--amount: -5 is out of range"),
        (["send", "--to", "0x" + "00" * 20, "--amount", "1.5"], "argument --amount: invalid int value"),
        (["send", "--to", "0x" + "00" * 20, "--amount", "5"], "--key: no key to sign with; give --key FILE"),
        (["status", "--api", "nowhere"], '"nowhere" is not a node\'s URL'),
        (["status", "--api", "http://x", "--home", "y"], "exclude each other"),
        (["status", "--home", "/nonexistent"], "holds neither localnet.json nor node.json"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_node_that_is_not_there_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--api", find_closed_url()) == 1
    error = capsys.readouterr().err
    assert "no node answers" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_a_key_that_others_may_read_is_refused(key_file: Path) -> None:
    assert find_key(str(key_file), None) == KEYS[0]
    key_file.chmod(0o644)
    with pytest.raises(Rejected, match="chmod 600"):
        find_key(str(key_file), None)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"nodes": []}', '{"nodes": [1]}', '{"nodes": [{}]}', '{"nodes": 5}']
)
def test_a_damaged_localnet_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "localnet.json").write_text(text)
    with pytest.raises(Rejected, match=r"localnet\.json: .*restart"):
        find_urls_of_home(tmp_path)


def test_contributions_that_do_not_add_up_are_not_shown(
    running: str, door: FakeDoor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = door.score

    async def lie(transaction: Any) -> Any:
        record = await real(transaction)
        (verdict,) = record.modules
        changed = type(verdict.explanation)(12, 0, 101, 137, verdict.explanation.contributions)
        return type(record)(transaction, 12, 0, 3, (type(verdict)("fraud", changed),))

    monkeypatch.setattr(door, "score", lie)
    txid = "0x" + door.blocks[2].block.transactions[0].id.hex()
    assert run("explain", txid, "--api", running) == 1
    assert "add up to 138, the margin is 137" in capsys.readouterr().err
