"""POST /v1/transactions and /v1/score: receipts, strict JSON, msgpack, neighbours kept apart."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Rejected
from consensus.ledger.report import build_report_payload
from consensus.transaction import KIND_REPORT, sign_transaction
from node.api import json_forms, json_reading, transaction_reading
from node.api.limits import Limits
from node.api.server import ApiServer, ApiSettings
from node.metrics import NodeMetrics
from tests.fakes.fake_door import CHAIN_ID, CLOCK_MS, KEYS, FakeDoor, make_transfer

MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
async def session(door: FakeDoor) -> AsyncIterator[aiohttp.ClientSession]:
    settings = ApiSettings(limits=Limits(batch_transactions_max=5, body_bytes_max=20_000))
    server = ApiServer(door, settings, NodeMetrics(), lambda: 0)
    await server.start()
    async with aiohttp.ClientSession(server.url) as client:
        yield client
    await server.stop()


async def post(session: aiohttp.ClientSession, body: Any, path: str = "/v1/transactions") -> tuple[int, Any]:
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    async with session.post(path, data=data, headers=JSON) as response:
        return response.status, await response.json(content_type=None)


async def post_msgpack(session: aiohttp.ClientSession, value: Any) -> tuple[int, Any]:
    async with session.post("/v1/transactions", data=msgpack.packb(value), headers=MSGPACK) as response:
        return response.status, await response.json(content_type=None)


def form(**changes: Any) -> dict[str, Any]:
    return {**json_forms.form_transaction(make_transfer()), **changes}


async def test_one_transaction_gets_one_receipt(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    tx = make_transfer()
    status, receipt = await post(session, json_forms.form_transaction(tx))
    assert status == 200
    assert receipt == {
        "id": "0x" + tx.id.hex(),
        "outcome": "accepted",
        "code": None,
        "reason": None,
        "score": 12,
        "retry_ms": None,
    }
    assert door.submitted == [tx.raw]


async def test_a_bad_one_never_spoils_its_neighbours(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    good = [json_forms.form_transaction(make_transfer(nonce)) for nonce in (1, 2)]
    text = json.dumps([good[0], {**good[0], "amount": "AMOUNT"}, 7, good[1]]).replace('"AMOUNT"', "1.5")
    status, receipts = await post(session, text)
    assert status == 200
    assert [receipt["outcome"] for receipt in receipts] == ["accepted", "rejected", "rejected", "accepted"]
    assert receipts[1]["reason"].startswith("amount: 1.5 is not an integer")
    assert len(door.submitted) == 2


async def test_a_refusal_comes_with_score_and_reason(session: aiohttp.ClientSession) -> None:
    status, receipt = await post(session, json_forms.form_transaction(make_transfer(amount=666)))
    assert (status, receipt["outcome"], receipt["score"]) == (200, "refused", 9700)
    assert "9000" in receipt["reason"]


async def test_msgpack_takes_one_or_many_raw_transactions(session: aiohttp.ClientSession) -> None:
    status, receipts = await post_msgpack(session, [make_transfer(1).raw, b"\x00", make_transfer(2).raw])
    assert status == 200
    assert [receipt["outcome"] for receipt in receipts] == ["accepted", "rejected", "accepted"]
    assert (await post_msgpack(session, make_transfer(3).raw))[1]["outcome"] == "accepted"


async def test_a_second_encoding_of_the_same_transaction_is_rejected(session: aiohttp.ClientSession) -> None:
    raw = make_transfer().raw
    assert raw[1] == 0  # the kind, as a fixint; 0xcc 0x00 says the same in two bytes
    status, receipts = await post_msgpack(session, [raw[:1] + b"\xcc\x00" + raw[2:]])
    assert (status, receipts[0]["outcome"], receipts[0]["code"]) == (200, "rejected", "encoding")


@pytest.mark.parametrize("value", [{"a": 1}, [1], ["text"], [[b"x"]], None, 5])
async def test_msgpack_of_anything_else_is_a_problem(session: aiohttp.ClientSession, value: Any) -> None:
    status, problem = await post_msgpack(session, value)
    assert (status, problem["code"]) == (400, "msgpack")


async def test_what_would_grow_in_memory_is_not_decoded(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array in an array takes a byte of msgpack and sixty here, a small number four of JSON and a hundred."""
    nested = b"\x95" + b"\xdc\x03\xe8" + b"\x90" * 10_000
    async with session.post("/v1/transactions", data=nested, headers=MSGPACK) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (400, "msgpack")
    monkeypatch.setattr(json_reading, "VALUES_MAX", 100)
    for text in ("[" + "1e1," * 100 + "1]", "[" * 101 + "]" * 101):
        for path in ("/v1/transactions", "/v1/score"):
            status, problem = await post(session, text, path)
            assert (status, problem["code"]) == (400, "json")
            assert "more than 100 values" in problem["detail"]


async def test_what_stands_behind_a_batch_is_no_part_of_it(session: aiohttp.ClientSession) -> None:
    body = msgpack.packb([make_transfer(1).raw]) + b"\xc4\x01x"
    async with session.post("/v1/transactions", data=body, headers=MSGPACK) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (400, "msgpack")


@pytest.mark.parametrize("count", [0, 6])
async def test_a_batch_is_bounded(session: aiohttp.ClientSession, door: FakeDoor, count: int) -> None:
    batch = [make_transfer(nonce) for nonce in range(count)]
    assert (await post(session, [json_forms.form_transaction(tx) for tx in batch]))[0] == 422
    status, problem = await post_msgpack(session, [tx.raw for tx in batch])
    assert (status, problem["code"]) == (422, "batch")
    assert door.submitted == []


async def test_a_body_is_bounded(session: aiohttp.ClientSession) -> None:
    status, problem = await post(session, b" " * 20_001)
    assert (status, problem["code"]) == (413, "body_size")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(21):
            yield b" " * 1_000

    async with session.post("/v1/transactions", data=chunks(), headers=JSON) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"amount": -1}, "amount", "range"),
        ({"amount": 2**53}, "amount", "range"),
        ({"amount": 10**400}, "amount", "range"),
        ({"amount": "5"}, "amount", "type"),
        ({"amount": True}, "amount", "type"),
        ({"amount": None}, "amount", "type"),
        ({"amount": float("nan")}, "amount", "type"),
        ({"amount": float("inf")}, "amount", "type"),
        ({"amount": 1.0}, "amount", "type"),
        ({"amount": 1e300}, "amount", "type"),
        ({"amount": {"a": 1}}, "amount", "type"),
        ({"nonce": -1}, "nonce", "range"),
        ({"timestamp_ms": 2**52}, "timestamp_ms", "range"),
        ({"expires_ms": CLOCK_MS}, "expires_ms", "expires"),
        ({"colour": "red"}, "colour", "unknown_field"),
        ({"kind": "theft"}, "kind", "kind"),
        ({"kind": ["transfer"]}, "kind", "kind"),
        ({"receiver": "0x00"}, "receiver", "hex"),
        ({"receiver": 5}, "receiver", "hex"),
        ({"receiver": "00" * 20}, "receiver", "hex"),
        ({"receiver": "0x" + "AB" * 20}, "receiver", "hex"),
        ({"receiver": "0x" + "g0" * 20}, "receiver", "hex"),
        ({"receiver": "0x" + " 0" * 20}, "receiver", "hex"),
        ({"signature": "0x"}, "signature", "hex"),
        ({"payload": "0x" + "00" * 4097}, "payload", "size"),
        ({"sender": "0x" + "00" * 20}, "sender", "sender_mismatch"),
        ({"id": "0x" + "00" * 32}, "id", "id_mismatch"),
        ({"chain_id": "other"}, "chain_id", "wrong_chain"),
        ({"chain_id": 5}, "chain_id", "wrong_chain"),
    ],
)
async def test_a_single_unreadable_transaction_is_a_problem_that_names_the_field(
    session: aiohttp.ClientSession, door: FakeDoor, changes: dict[str, Any], field: str, code: str
) -> None:
    value = form(**changes)
    if "id" not in changes:
        del value["id"]  # it would not match, which says less
    status, problem = await post(session, value)
    assert (status, problem["field"], problem["code"], problem["outcome"]) == (422, field, code, "rejected")
    assert problem["reason"] == problem["detail"]
    assert door.submitted == []


@pytest.mark.parametrize("name", ["kind", "receiver", "amount", "fee", "nonce", "public_key", "signature"])
async def test_a_missing_field_is_named(session: aiohttp.ClientSession, name: str) -> None:
    value = form()
    del value[name]
    status, problem = await post(session, value)
    assert (status, problem["field"], problem["code"]) == (422, name, "missing_field")


async def test_a_name_given_twice_is_refused(session: aiohttp.ClientSession) -> None:
    text = json.dumps(form())[:-1] + ', "amount": 6}'
    status, problem = await post(session, text)
    assert status == 422
    assert problem["detail"].startswith('transaction: "amount" is given twice')


async def test_id_sender_and_chain_may_be_left_out_or_must_agree(session: aiohttp.ClientSession) -> None:
    value = form(chain_id=CHAIN_ID)
    assert (await post(session, value))[1]["outcome"] == "accepted"
    for name in ("id", "sender", "chain_id"):
        del value[name]
    assert (await post(session, value))[1]["outcome"] == "accepted"


async def test_a_report_names_what_it_reports(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    reported = door.blocks[1].block
    report = sign_transaction(
        KEYS[2],
        CHAIN_ID,
        kind=KIND_REPORT,
        nonce=0,
        receiver=KEYS[1].address,
        amount=0,
        fee=1,
        timestamp_ms=CLOCK_MS,
        expires_ms=CLOCK_MS + 1,
        payload=build_report_payload(reported, 2, 2, ()),
    )
    value = json_forms.form_transaction(report)
    assert (value["kind"], value["reported"]) == ("fraud_report", "0x" + reported.transactions[2].id.hex())
    assert (await post(session, [value]))[1][0]["outcome"] == "accepted"
    assert door.submitted == [report.raw]
    (receipt,) = (await post(session, [{**value, "reported": "0x" + "00" * 32}]))[1]
    assert receipt["code"] == "reported_mismatch"
    (receipt,) = (await post(session, [form(reported="0x" + "00" * 32)]))[1]
    assert receipt["code"] == "unknown_field"


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "{'a': 1}", b"\xff", "[" * 100_000, "1" * 5_000, '{"a": "\n"}', "nul"]
)
async def test_what_is_no_json_is_refused_whole(session: aiohttp.ClientSession, text: str) -> None:
    data = text if isinstance(text, bytes) else text[:19_000]
    status, problem = await post(session, data)
    assert (status, problem["code"], problem["field"]) == (400, "json", "body")


async def test_a_wrong_signature_is_rejected_by_the_node(session: aiohttp.ClientSession) -> None:
    other = make_transfer(chain_id="another")
    status, receipt = await post(session, json_forms.form_transaction(other))
    assert (status, receipt["outcome"], receipt["code"]) == (200, "rejected", "signature")
    assert receipt["id"] == "0x" + other.id.hex()


async def test_a_draft_is_scored_without_signature_or_key(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    draft = {
        "sender": "0x" + KEYS[2].address.hex(),
        "receiver": "0x" + KEYS[1].address.hex(),
        "amount": 9,
    }
    status, verdict = await post(session, draft, "/v1/score")
    assert status == 200
    assert (verdict["score"], verdict["outcome"], verdict["height"]) == (12, "accept", 3)
    (module,) = verdict["modules"]
    assert module["base"] + sum(c["contribution"] for c in module["contributions"]) == module["margin"]
    (seen,) = door.scored
    assert (seen.sender, seen.amount, seen.timestamp_ms) == (KEYS[2].address, 9, CLOCK_MS)
    assert door.submitted == []


async def test_a_signed_transaction_is_scored_in_json_and_msgpack(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    tx = make_transfer()
    assert (await post(session, json_forms.form_transaction(tx), "/v1/score"))[0] == 200
    async with session.post("/v1/score", data=msgpack.packb(tx.raw), headers=MSGPACK) as response:
        assert response.status == 200
    assert door.scored == [tx, tx]


@pytest.mark.parametrize("value", [{}, {"sender": "0x" + "00" * 20}, [], 5, {"amount": 1.5}])
async def test_a_draft_needs_sender_receiver_and_amount(session: aiohttp.ClientSession, value: Any) -> None:
    status, problem = await post(session, value, "/v1/score")
    assert status == 422
    assert problem["detail"]


@given(
    nonce=st.integers(0, 2**53 - 1),
    amount=st.integers(0, 2**53 - 1),
    payload=st.binary(max_size=40),
)
def test_reading_what_was_written_gives_the_same_bytes(nonce: int, amount: int, payload: bytes) -> None:
    tx = make_transfer(nonce, amount)
    tx = type(tx)(
        *(getattr(tx, name) for name in ("kind", "public_key")),
        nonce,
        tx.receiver,
        amount,
        tx.fee,
        tx.timestamp_ms,
        tx.expires_ms,
        payload,
        tx.signature,
    )
    text = json_forms.write_json(json_forms.form_transaction(tx))
    assert transaction_reading.read_transaction(json_reading.read_json(text), CHAIN_ID) == tx.raw


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(sorted(transaction_reading.FIELDS)) | st.text(), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_rejected(value: Any) -> None:
    parsed = json_reading.read_json(json.dumps(value).encode())
    with pytest.raises(Rejected):
        transaction_reading.read_transaction(parsed, CHAIN_ID)


async def test_while_too_many_wait_nothing_is_taken_and_the_client_is_told_when_to_come_back(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    door.wait_ms = 1_000
    body = json.dumps(json_forms.form_transaction(make_transfer()))
    async with session.post("/v1/transactions", data=body, headers=JSON) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert (await response.json(content_type=None))["code"] == "busy"
    assert door.submitted == []
    door.wait_ms = 0
    assert (await post(session, body))[0] == 200
