"""Everything a client can get wrong, over the real HTTP API and the real command line of one network.

Each is answered with one clear line that names the field, and leaves every account, every block and the
mempool as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import pytest

from consensus import crypto
from consensus.codec import MONEY_MAX
from consensus.parameters import DAY_MS
from consensus.transaction import KIND_REPORT, Transaction, sign_transaction
from node.api.json_forms import form_transaction
from node.localnet import find_base_port
from tests.integration.network_process import (
    NetworkProcess,
    assert_one_line,
    get_json,
    request_json,
    run_assay,
    run_here,
    wait_for,
)
from tests.integration.running_node import RunningNode

RECEIVER = bytes.fromhex("ab" * 20)
MSGPACK = "application/msgpack"
BASE_MS = 40 * DAY_MS  # the workload's clock once the first transfer is final
WALL_CHAIN = "wall-test"


@dataclass
class Bench:
    """A network, an account whose nonces 0, 64 and 100 are used, and one that has used none."""

    network: NetworkProcess
    used: crypto.PrivateKey
    fresh: crypto.PrivateKey
    chain_id: str
    clock_ms: int
    final: Transaction
    url: str = field(default="")

    def sign(self, key: crypto.PrivateKey | None = None, chain_id: str = "", **changes: Any) -> Transaction:
        fields: dict[str, Any] = {
            "nonce": 0,
            "receiver": RECEIVER,
            "amount": 5,
            "fee": 1,
            "timestamp_ms": self.clock_ms,
            "expires_ms": self.clock_ms + DAY_MS,
        } | changes
        return sign_transaction(key or self.fresh, chain_id or self.chain_id, **fields)

    def submit(self, raw: bytes) -> tuple[int, Any]:
        return request_json(self.url, msgpack.packb(raw, use_bin_type=True), MSGPACK)

    def read_state(self) -> Any:
        """What must not change: accounts, how many transactions are final, what waits."""
        api = self.network.get_api(0)
        names = [self.used.address, self.fresh.address, RECEIVER]
        accounts = [get_json(f"{api}/v1/accounts/0x{name.hex()}") for name in names]
        return (
            [(account["balance"], account["nonce"]) for account in accounts],
            [
                len(get_json(f"{api}/v1/accounts/0x{name.hex()}/transactions")["transactions"])
                for name in names
            ],
            [self.network.get_status(index)["mempool"] for index in range(self.network.nodes)],
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with NetworkProcess(tmp_path_factory.mktemp("bad") / "net", "--no-refusals") as network:
        document = network.description
        used, fresh = (
            crypto.PrivateKey.from_bytes(bytes.fromhex(account["private_key"][2:]))
            for account in document["accounts"][:2]
        )
        bench = Bench(network, used, fresh, document["chain_id"], 0, None)  # type: ignore[arg-type]
        bench.url = network.get_api(0) + "/v1/transactions"
        # The workload's clock jumps at most 31 days at once: two steps.
        first = bench.sign(used, nonce=0, timestamp_ms=20 * DAY_MS, expires_ms=21 * DAY_MS)
        wait_final(network, bench, [first])
        bench.clock_ms = BASE_MS
        wait_final(network, bench, [bench.sign(used, nonce=64), bench.sign(used, nonce=100)])
        bench.final = first
        yield bench
        assert network.stop() == 0


def wait_final(network: NetworkProcess, bench: Bench, transactions: list[Transaction]) -> None:
    for tx in transactions:
        status, receipt = bench.submit(tx.raw)
        assert (status, receipt["outcome"]) == (200, "accepted"), receipt
    for tx in transactions:
        for index in range(network.nodes):
            url = f"{network.get_api(index)}/v1/transactions/0x{tx.id.hex()}"
            wait_for("finality", lambda url=url: (answer := get_json(url)) and answer["status"] == "final")


@pytest.fixture
def unchanged(bench: Bench) -> Iterator[None]:
    """The test leaves everything as it was, also after another block."""
    before = bench.read_state()
    yield
    assert bench.read_state() == before


def assert_rejected(status: int, answer: Any, code: str, word: str) -> None:
    """A receipt or a problem document that says `code` in one line with this word."""
    assert answer is not None, status
    if isinstance(answer, list):
        (answer,) = answer
    assert answer.get("outcome", "rejected") == "rejected", answer
    words = answer.get("reason") or answer.get("detail")
    assert (answer["code"], "\n" in words, "Traceback" in words) == (code, False, False), answer
    assert word in words, answer
    assert len(words) < 400


def flip_signature(tx: Transaction) -> bytes:
    return tx.raw[:-1] + bytes([tx.raw[-1] ^ 1])


def raise_s(tx: Transaction) -> bytes:
    """The same signature with n - s in place of s: as valid by the mathematics, and refused."""
    s = int.from_bytes(tx.raw[-32:], "big")
    return tx.raw[:-32] + (crypto_order() - s).to_bytes(32, "big")


def crypto_order() -> int:
    return 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def repack(tx: Transaction, **changes: Any) -> bytes:
    """The msgpack array with fields replaced, packed as it comes."""
    names = [
        "kind",
        "public_key",
        "nonce",
        "receiver",
        "amount",
        "fee",
        "timestamp_ms",
        "expires_ms",
        "payload",
        "signature",
    ]
    return bytes(msgpack.packb([changes.get(name, getattr(tx, name)) for name in names], use_bin_type=True))


# name -> (what is sent, code, a word of the answer)
RAW: dict[str, tuple[Callable[[Bench], bytes], str, str]] = {
    "another chain's signature": (lambda b: b.sign(chain_id="other").raw, "signature", "signature"),
    "a wrong signature": (lambda b: flip_signature(b.sign()), "signature", "signature"),
    "a high s": (lambda b: raise_s(b.sign()), "signature", "signature"),
    "a signature of zeros": (lambda b: repack(b.sign(), signature=bytes(64)), "signature", "signature"),
    "a used nonce": (lambda b: b.sign(b.used, nonce=64, amount=6).raw, "nonce_used", "nonce"),
    "a nonce below the window": (lambda b: b.sign(b.used, nonce=1).raw, "nonce_too_old", "nonce"),
    "a far nonce": (lambda b: b.sign(nonce=1_000_000).raw, "nonce_gap", "nonce"),
    "the largest nonce": (lambda b: b.sign(nonce=MONEY_MAX).raw, "nonce_gap", "nonce"),
    "more than it has": (lambda b: b.sign(amount=2**50).raw, "unfunded", "amount"),
    "an unknown sender": (lambda b: b.sign(crypto.PrivateKey.from_seed(b"x")).raw, "unfunded", "sender"),
    "an expired one": (lambda b: b.sign(timestamp_ms=1, expires_ms=DAY_MS).raw, "expired", "expires_ms"),
    "a timestamp far ahead": (
        lambda b: b.sign(timestamp_ms=b.clock_ms + 32 * DAY_MS, expires_ms=b.clock_ms + 33 * DAY_MS).raw,
        "timestamp",
        "timestamp_ms",
    ),
    "an end before its begin": (
        lambda b: repack(b.sign(), expires_ms=b.clock_ms - 1),
        "expires",
        "expires_ms",
    ),
    "a life too long": (
        lambda b: b.sign(expires_ms=b.clock_ms + 63 * DAY_MS).raw,
        "expires",
        "expires_ms",
    ),
    "no fee": (lambda b: b.sign(fee=0).raw, "fee", "fee"),
    "amount and fee overflow": (lambda b: b.sign(amount=MONEY_MAX, fee=MONEY_MAX).raw, "overflow", "amount"),
    "a negative amount": (lambda b: repack(b.sign(), amount=-1), "range", "amount"),
    "an amount of 2^53": (lambda b: repack(b.sign(), amount=2**53), "range", "amount"),
    "an amount of 2^64 - 1": (lambda b: repack(b.sign(), amount=2**64 - 1), "range", "amount"),
    "a negative nonce": (lambda b: repack(b.sign(), nonce=-1), "range", "nonce"),
    "a float": (lambda b: repack(b.sign(), amount=5.0), "type", "amount"),
    "a truth value": (lambda b: repack(b.sign(), amount=True), "type", "amount"),
    "text in place of bytes": (lambda b: repack(b.sign(), receiver="ab" * 10), "type", "receiver"),
    "a short receiver": (lambda b: repack(b.sign(), receiver=b"\xab" * 19), "size", "receiver"),
    "an unknown kind": (lambda b: b.sign(kind=99).raw, "kind", "kind"),
    "a kind out of range": (lambda b: repack(b.sign(), kind=128), "range", "kind"),
    "a transfer with a payload": (lambda b: b.sign(payload=b"\x00").raw, "size", "payload"),
    "a report without one": (lambda b: b.sign(kind=KIND_REPORT, amount=0).raw, "encoding", "payload"),
    "an oversized payload": (lambda b: repack(b.sign(), payload=bytes(4097)), "size", "payload"),
    "an oversized transaction": (lambda b: bytes(5000), "size", "transaction"),
    "no bytes at all": (lambda b: b"", "encoding", "transaction"),
    "a byte too many": (lambda b: b.sign().raw + b"\x00", "encoding", "transaction"),
    "a byte too few": (lambda b: b.sign().raw[:-1], "encoding", "transaction"),
    "nine fields": (lambda b: bytes(msgpack.packb([0] * 9)), "encoding", "10 fields"),
    "a map": (lambda b: bytes(msgpack.packb({"amount": 5})), "encoding", "transaction"),
    "a wide array head": (lambda b: b"\xdc\x00\x0a" + b.sign().raw[1:], "encoding", "canonical"),
    "a wide integer": (lambda b: b.sign().raw[:1] + b"\xcc\x00" + b.sign().raw[2:], "encoding", "canonical"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_bad_transaction_is_rejected(bench: Bench, unchanged: None, name: str) -> None:
    build, code, word = RAW[name]
    raw = build(bench)
    assert_rejected(*bench.submit(raw), code, word)
    # In a batch it is the same, and spoils nothing: an empty neighbour is judged by itself.
    status, answers = request_json(bench.url, msgpack.packb([raw, b""], use_bin_type=True), MSGPACK)
    assert (status, len(answers)) == (200, 2)
    assert_rejected(200, answers[0], code, word)


# name -> (what is changed in the JSON form, code, a word of the answer)
CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "another chain": ({"chain_id": "other"}, "wrong_chain", "chain_id"),
    "a negative amount": ({"amount": -1}, "range", "amount"),
    "an overflowing amount": ({"amount": 2**53}, "range", "amount"),
    "a huge amount": ({"amount": 10**30}, "range", "amount"),
    "a fraction": ({"amount": 1.5}, "type", "amount"),
    "an exponent": ({"amount": 1e3}, "type", "amount"),
    "not a number": ({"amount": float("nan")}, "type", "amount"),
    "endless": ({"fee": float("inf")}, "type", "fee"),
    "a number as text": ({"amount": "5"}, "type", "amount"),
    "null": ({"nonce": None}, "type", "nonce"),
    "another amount than signed": ({"amount": 6}, "id_mismatch", "id"),
    "another sender": ({"sender": "0x" + "00" * 20}, "sender_mismatch", "sender"),
    "upper case": ({"receiver": "0x" + "AB" * 20}, "hex", "receiver"),
    "no 0x": ({"receiver": "ab" * 20}, "hex", "receiver"),
    "a short key": ({"public_key": "0x02"}, "hex", "public_key"),
    "a long signature": ({"signature": "0x" + "00" * 65}, "hex", "signature"),
    "an unknown kind": ({"kind": "mint"}, "kind", "kind"),
    "an unknown field": ({"memo": "hello"}, "unknown_field", "memo"),
    "an oversized payload": ({"payload": "0x" + "00" * 4097}, "size", "payload"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_bad_json_is_rejected(bench: Bench, unchanged: None, name: str) -> None:
    changes, code, word = CHANGES[name]
    document = form_transaction(bench.sign()) | changes
    assert_rejected(*request_json(bench.url, json.dumps(document).encode()), code, word)
    status, answers = request_json(bench.url, json.dumps([document, {}]).encode())
    assert status == 200
    assert_rejected(200, answers[0], code, word)
    assert_rejected(200, answers[1], "missing_field", "missing")


def test_a_missing_field_is_named(bench: Bench, unchanged: None) -> None:
    for name in ("kind", "nonce", "receiver", "amount", "fee", "timestamp_ms", "expires_ms", "signature"):
        document = form_transaction(bench.sign())
        del document[name]
        assert_rejected(*request_json(bench.url, json.dumps(document).encode()), "missing_field", name)


# name -> (body, media type, HTTP status, code)
BODIES: dict[str, tuple[bytes, str, int, str]] = {
    "nothing": (b"", "application/json", 400, "json"),
    "no JSON": (b"{", "application/json", 400, "json"),
    "no UTF-8": (b'"\xff"', "application/json", 400, "json"),
    "a deep nest": (b"[" * 100_000, "application/json", 400, "json"),
    "a number": (b"7", "application/json", 422, "type"),
    "an empty list": (b"[]", "application/json", 422, "batch"),
    "too many": (json.dumps([{}] * 1001).encode(), "application/json", 422, "batch"),
    "too large": (bytes(8_000_001), MSGPACK, 413, "body_size"),
    "no msgpack": (b"\xc1", MSGPACK, 400, "msgpack"),
    "a msgpack map": (b"\x81\x01\x02", MSGPACK, 400, "msgpack"),
    "too many packed": (bytes(msgpack.packb([b""] * 1001)), MSGPACK, 422, "batch"),
    "a form": (b"amount=5", "application/x-www-form-urlencoded", 415, "media_type"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_problem_document(bench: Bench, unchanged: None, name: str) -> None:
    body, media_type, status, code = BODIES[name]
    found, problem = request_json(bench.url, body, media_type)
    assert (found, problem["status"], problem["code"]) == (status, status, code), problem
    assert "\n" not in problem["detail"]


PATHS = [
    ("/v1/transactions/0x12", 400),
    ("/v1/transactions/0x" + "00" * 32, 404),
    ("/v1/transactions/0x" + "AA" * 32, 400),
    ("/v1/blocks/abc", 400),
    ("/v1/blocks/-1", 400),
    ("/v1/blocks/9007199254740993", 400),
    ("/v1/blocks/123456789", 404),
    ("/v1/blocks?from=-1", 400),
    ("/v1/blocks?from=1&limit=1000000", 422),
    ("/v1/accounts/0xzz", 400),
    ("/v1/refusals/0x" + "00" * 32, 404),
    ("/v1/nothing", 404),
]


@pytest.mark.parametrize(("path", "status"), PATHS)
def test_a_bad_path_is_a_problem_document(bench: Bench, path: str, status: int) -> None:
    found, problem = request_json(bench.network.get_api(0) + path)
    assert found in {status, 422 if status == 400 else status}, problem
    assert problem["status"] == found
    assert problem["type"].startswith("urn:assay:problem:")
    assert "\n" not in problem["detail"]


def test_a_transaction_given_twice_happens_once(bench: Bench) -> None:
    key = crypto.PrivateKey.from_bytes(
        bytes.fromhex(bench.network.description["accounts"][5]["private_key"][2:])
    )
    tx = bench.sign(key, receiver=bytes.fromhex("cd" * 20), amount=9)
    batch = msgpack.packb([tx.raw, tx.raw], use_bin_type=True)
    for index in range(4):
        status, receipts = request_json(bench.network.get_api(index) + "/v1/transactions", batch, MSGPACK)
        assert status == 200
        assert {receipt["id"] for receipt in receipts} == {"0x" + tx.id.hex()}
        assert not any(receipt["outcome"] == "refused" for receipt in receipts)
    wait_final(bench.network, bench, [tx])
    bench.submit(tx.raw)
    height = bench.network.get_height(0)
    wait_for("two more blocks", lambda: bench.network.get_height(0) >= height + 2)
    for index in range(4):
        api = bench.network.get_api(index)
        assert get_json(f"{api}/v1/accounts/0x{'cd' * 20}")["balance"] == 9
        assert get_json(f"{api}/v1/accounts/0x{key.address.hex()}")["nonce"] == 1


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "a negative amount": (["send", "--to", "RECEIVER", "--amount", "-1"], ["--amount", "-1"]),
    "an overflowing amount": (["send", "--to", "RECEIVER", "--amount", str(2**53)], ["--amount"]),
    "no number": (["send", "--to", "RECEIVER", "--amount", "ten"], ["--amount", "ten"]),
    "a short address": (["send", "--to", "0x12", "--amount", "1"], ["--to", "20 bytes"]),
    "upper case": (["send", "--to", "0x" + "AB" * 20, "--amount", "1"], ["--to"]),
    "no receiver": (["send", "--amount", "1"], ["--to"]),
    "a bad duration": (["send", "--to", "RECEIVER", "--amount", "1", "--timeout", "soon"], ["--timeout"]),
    "no key file": (["send", "--to", "RECEIVER", "--amount", "1", "--key", "nowhere.key"], ["nowhere.key"]),
    "an id that is none": (["tx", "0x12"], ["32 bytes"]),
    "an id never seen": (["tx", "0x" + "00" * 32], ["transaction"]),
    "a height that is none": (["block", "first"], ["block", "whole number"]),
    "a block to come": (["block", "123456789"], ["block"]),
    "an address that is none": (["account", "0xzz"], ["hex"]),
    "an id without a verdict": (["explain", "0x" + "00" * 32], ["transaction"]),
    "an unknown option": (["status", "--color"], ["--color"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_command_line_is_one_line(
    bench: Bench, unchanged: None, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = COMMANDS[name]
    words = [word.replace("RECEIVER", "0x" + RECEIVER.hex()) for word in words]
    result = run_here(capsys, *words, "--home", str(bench.network.home))
    assert_one_line(result, result.returncode, *expected)
    assert result.returncode in (1, 2)
    assert result.stdout == ""


def test_where_no_node_is_there_is_one_line(tmp_path: Path) -> None:
    port = find_base_port(1)
    assert_one_line(run_assay("status", "--api", f"http://127.0.0.1:{port}"), 1, str(port))
    assert_one_line(run_assay("status", "--api", "ftp://somewhere"), 2, "ftp://somewhere")
    assert_one_line(run_assay("status", "--home", str(tmp_path)), 2, "localnet.json")
    key = tmp_path / "open.key"
    key.write_text("0x" + "11" * 32)
    key.chmod(0o644)
    result = run_assay("send", "--to", "0x" + "ab" * 20, "--amount", "1", "--key", str(key))
    assert_one_line(result, 2, "others may read", "chmod 600")


def test_a_wall_clock_chain_bounds_timestamps_by_its_clock(tmp_path: Path) -> None:
    home, port = tmp_path / "wall", find_base_port(1)
    made = run_assay(
        *("init", "--home", str(home), "--chain-id", WALL_CHAIN, "--block-interval", "250ms"),
        *("--p2p-port", str(port), "--api-port", str(port + 1)),
    )
    assert made.returncode == 0, made.stderr
    key = crypto.PrivateKey.from_bytes(bytes.fromhex((home / "validator.key").read_text().strip()[2:]))
    with RunningNode(home) as node:
        wait_for("a block", lambda: node.get_height() >= 1)
        now = node.get_status()["clock_ms"]
        hour = 3_600_000
        for timestamp_ms, expires_ms, code, word in (
            (now + hour, now + 2 * hour, "timestamp", "timestamp_ms"),
            (now - hour // 2, now - 1, "expired", "expires_ms"),
            (now - 2 * hour, now - hour - 60_000, "expired", "expires_ms"),
            (now, now + 2 * hour, "expires", "expires_ms"),
            (1, hour, "expired", "expires_ms"),
        ):
            tx = sign_transaction(
                *(key, WALL_CHAIN),
                nonce=0,
                receiver=RECEIVER,
                amount=1,
                fee=1,
                timestamp_ms=timestamp_ms,
                expires_ms=expires_ms,
            )
            body = msgpack.packb(tx.raw, use_bin_type=True)
            assert_rejected(*request_json(f"{node.api}/v1/transactions", body, MSGPACK), code, word)
        status = node.get_status()
        assert status["mempool"] == {"transactions": 0, "bytes": 0}
        assert node.stop() == 0
