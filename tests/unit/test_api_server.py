"""The API as a server: reading calls, error forms, limits, Host header, events, its own description."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from consensus import block, codec, merkle, vote
from consensus.errors import Fault, NotYet, Rejected
from node.api import door as api_door
from node.api import json_forms, schemas, transactions
from node.api.event_ring import EventRing
from node.api.limits import CLIENTS_MAX, Limits, RateLimiter
from node.api.routes import build_routes
from node.api.server import ApiServer, ApiSettings
from node.metrics import NodeMetrics
from tests.fakes.fake_door import KEYS, VALIDATOR, FakeDoor, make_transfer

LIMITS = Limits(
    page_entries_max=3,
    page_transactions_max=5,
    streams_max=3,
    streams_per_client_max=2,
    loopback_requests_per_second=1_000,
    loopback_requests_burst=60,
)
ADDRESS = "0x" + KEYS[0].address.hex()


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
async def server(door: FakeDoor) -> AsyncIterator[ApiServer]:
    clock = iter(range(10**9))
    settings = ApiSettings(limits=LIMITS, host_names=("node.example",))
    server = ApiServer(door, settings, NodeMetrics(), lambda: next(clock))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session(server: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as client:
        yield client


async def get(session: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any]:
    async with session.get(path, headers=headers) as response:
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        document = await response.json(content_type=None)
        if response.status >= 400:
            assert {"type", "title", "status", "detail", "code"} <= document.keys()
            assert document["status"] == response.status
        return response.status, document


# --- reading calls ------------------------------------------------------------------------------------


async def test_status_has_the_fields_people_rely_on(session: aiohttp.ClientSession) -> None:
    status, document = await get(session, "/v1/status")
    assert status == 200
    assert document.keys() == {
        *("chain_id", "genesis_hash", "node", "head", "finalized", "clock_ms", "view", "epoch", "peers"),
        *("syncing", "mempool", "model", "parameters"),
    }
    assert document["node"].keys() == {"name", "address", "version"}
    assert document["head"].keys() == {"height", "hash"}
    assert document["finalized"].keys() == {"height", "hash", "state_root", "timestamp_ms"}
    assert document["mempool"].keys() == {"transactions", "bytes"}


async def test_a_block_is_found_by_height_hash_and_name(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    final = door.blocks[2]
    for key in ("2", "0x" + final.block.hash.hex(), "finalized"):
        status, document = await get(session, f"/v1/blocks/{key}")
        assert (status, document["hash"]) == (200, "0x" + final.block.hash.hex())
    assert document["final"] is True
    assert [tx["score"] for tx in document["transactions"]] == [0, 1, 2]
    assert {tx["outcome"] for tx in document["transactions"]} == {"accept"}
    assert document["certificate"]["block_hash"] == document["hash"]
    assert document["header"]["height"] == 2
    status, head = await get(session, "/v1/blocks/head")
    assert (head["final"], head["certificate"]) == (False, None)


async def test_a_block_comes_in_its_canonical_bytes_when_asked(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    async with session.get("/v1/blocks/2", headers={"Accept": "application/msgpack"}) as response:
        value = codec.decode(await response.read(), what="answer", bytes_max=10**6)
    assert block.decode_block(value[0]) == door.blocks[2].block
    assert (value[1], vote.decode_certificate(value[2]), value[3]) == (True, door.blocks[2].certificate, ())


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("9", 404),
        ("0x" + "00" * 32, 404),
        ("-1", 400),
        ("0x00", 400),
        ("tail", 400),
        ("٣", 400),
        ("9" * 17, 400),
    ],
)
async def test_a_block_that_is_not_there_is_404_and_no_block_400(
    session: aiohttp.ClientSession, key: str, status: int
) -> None:
    assert (await get(session, f"/v1/blocks/{key}"))[0] == status


async def test_pages_of_blocks_rise_and_end_at_the_limit_of_entries_or_transactions(
    session: aiohttp.ClientSession,
) -> None:
    _, page = await get(session, "/v1/blocks?from=0&limit=2")
    assert ([b["header"]["height"] for b in page["blocks"]], page["next"]) == ([0, 1], 2)
    _, page = await get(session, "/v1/blocks?from=1&limit=3")  # 5 transactions a page: the second has 6
    assert ([b["header"]["height"] for b in page["blocks"]], page["next"]) == ([1], 2)
    _, page = await get(session, "/v1/blocks?from=1&limit=3&transactions=false")
    assert ([b["header"]["height"] for b in page["blocks"]], page["next"]) == ([1, 2, 3], None)
    assert "transactions" not in page["blocks"][0]
    _, page = await get(session, "/v1/blocks?limit=1")
    assert [b["header"]["height"] for b in page["blocks"]] == [3]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/blocks?limit=0", 422),
        ("/v1/blocks?limit=4", 422),
        ("/v1/blocks?limit=x", 400),
        ("/v1/blocks?limit=1&limit=2", 400),
        ("/v1/blocks?limt=1", 400),
        ("/v1/blocks?from=-1", 400),
        ("/v1/mempool?limit=4", 422),
        (f"/v1/accounts/{ADDRESS}?proof=yes", 400),
        (f"/v1/accounts/{ADDRESS}/transactions?before=7", 400),
        ("/v1/accounts/0x00", 400),
        ("/v1/accounts/" + ADDRESS.upper(), 400),
        ("/v1/transactions/0x00", 400),
        ("/v1/events?events=gossip", 400),
    ],
)
async def test_bad_parameters_are_named(session: aiohttp.ClientSession, path: str, status: int) -> None:
    answer, problem = await get(session, path)
    assert answer == status
    assert problem["field"]


async def test_a_final_transaction_comes_with_a_proof_that_verifies(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    tx = door.blocks[1].block.transactions[1]
    status, document = await get(session, f"/v1/transactions/0x{tx.id.hex()}?proof=true")
    assert (status, document["status"], document["height"], document["index"]) == (200, "final", 1, 1)
    proof = document["proof"]
    leaf = block.compute_leaf(tx.id, document["score"], 0)
    siblings = [bytes.fromhex(sibling[2:]) for sibling in proof["siblings"]]
    root = bytes.fromhex(proof["header"]["transactions_root"][2:])
    assert merkle.verify_inclusion(merkle.hash_leaf(leaf), 1, proof["tree_size"], siblings, root)
    assert proof["certificate"]["kind"] == "finalize"


async def test_a_pending_transaction_has_no_proof_and_an_unknown_one_is_404(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    tx = door.blocks[3].block.transactions[0]
    _, document = await get(session, f"/v1/transactions/0x{tx.id.hex()}?proof=true")
    assert (document["status"], document["height"], document["proof"]) == ("pending", None, None)
    for path in ("transactions/0x{}", "transactions/0x{}/verdict", "refusals/0x{}"):
        assert (await get(session, "/v1/" + path.format("00" * 32)))[0] == 404


async def test_a_verdict_explains_itself(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    tx = door.blocks[1].block.transactions[0]
    status, verdict = await get(session, f"/v1/transactions/0x{tx.id.hex()}/verdict")
    assert (status, verdict["id"]) == (200, "0x" + tx.id.hex())
    assert verdict["modules"][0]["contributions"][0]["words"] == "amount is 5"


async def test_an_account_answers_and_a_never_used_one_with_zeros(session: aiohttp.ClientSession) -> None:
    _, account = await get(session, f"/v1/accounts/{ADDRESS}?proof=true")
    assert (account["balance"], account["nonce"], account["nonce_window"]) == (1_000, 6, "0x" + "f" * 16)
    assert account["modules"] == [{"name": "fraud", "row": "0x0102", "values": {"transactions": 6}}]
    assert account["proof"]["state_proof"] == "0x93010203"
    assert len(account["proof"]["certificate_headers"]) == 1
    _, account = await get(session, "/v1/accounts/0x" + "00" * 20 + "?proof=true")
    assert (account["balance"], account["nonce"], account["stake"], account["proof"]) == (0, 0, 0, None)


async def test_history_pages_newest_first_until_the_end(session: aiohttp.ClientSession) -> None:
    seen: list[tuple[int, int]] = []
    path = f"/v1/accounts/{ADDRESS}/transactions?limit=3"
    before = None
    while True:
        _, page = await get(session, path + (f"&before={before}" if before else ""))
        seen += [(record["height"], record["index"]) for record in page["transactions"]]
        before = page["before"]
        if before is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 6


async def test_lists_answer(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    assert (await get(session, "/v1/validators"))[1]["quorum"] == 67
    assert (await get(session, "/v1/peers"))[1]["peers"][0]["connected"] is True
    assert (await get(session, "/v1/models"))[1]["models"][0]["refuse_score_min"] == 9_000
    _, mempool = await get(session, "/v1/mempool?limit=2")
    assert (mempool["transactions"], len(mempool["entries"])) == (3, 2)
    tx = make_transfer(99)
    door.refusals[tx.id] = api_door.RefusalRecord(tx.id, "refused", "scored 9700", 9_700, 3, 5)
    assert (await get(session, f"/v1/refusals/0x{tx.id.hex()}"))[1]["score"] == 9_700


# --- errors and limits --------------------------------------------------------------------------------


async def test_the_frameworks_own_errors_are_problems_too(session: aiohttp.ClientSession) -> None:
    status, problem = await get(session, "/v1/nothing")
    assert (status, problem["code"]) == (404, "not_found")
    async with session.delete("/v1/status") as response:
        assert (response.status, response.content_type) == (405, "application/problem+json")
        assert "GET" in response.headers["Allow"]
    async with session.head("/v1/status") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: evil\r\nHost: localhost\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\nConnection: close\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_and_no_traceback(
    server: ApiServer, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request_bytes)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"417")
    assert b"application/problem+json" in head
    assert json.loads(body)["detail"]
    assert "Traceback" not in caplog.text


async def test_a_body_that_never_comes_is_given_up(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "BODY_TIMEOUT_S", 0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Content-Length: 100\r\n\r\n{")
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.split()[1] == b"408"


async def test_a_large_body_may_ask_before_it_comes(session: aiohttp.ClientSession) -> None:
    batch = json_forms.write_json([json_forms.form_transaction(make_transfer(50))])
    headers = {"Content-Type": "application/json"}
    async with session.post("/v1/transactions", data=batch, headers=headers, expect100=True) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity"},
        {"Content-Type": "application/json; charset=latin-1"},
    ],
)
async def test_other_media_types_and_encodings_are_415(
    session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with session.post("/v1/transactions", data=b"[]", headers=headers) as response:
        assert (response.status, response.content_type) == (415, "application/problem+json")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("no", field="x", code="nonce_used"), 422),
        (NotYet("catching up", code="syncing"), 503),
        (Fault("disk /dev/sda1 broken"), 500),
        (ValueError("a secret"), 500),
    ],
)
async def test_whose_fault_it_is_decides_the_status(
    session: aiohttp.ClientSession,
    door: FakeDoor,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
) -> None:
    door.fails = error
    answer, problem = await get(session, "/v1/status")
    assert answer == status
    if status == 500:
        assert "sda1" not in str(problem)
        assert "secret" not in str(problem)
        assert str(error) in caplog.text  # the log has what the client must not see


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]", "[::1]:80", "node.example"]
)
async def test_names_of_this_node_pass(session: aiohttp.ClientSession, host: str) -> None:
    assert (await get(session, "/v1/status", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "::1", "[::2]"]
)
async def test_other_host_names_are_refused(session: aiohttp.ClientSession, host: str) -> None:
    for path in ("/v1/status", "/health", "/nothing"):
        status, problem = await get(session, path, Host=host)
        assert (status, problem["code"]) == (403, "host")


@pytest.mark.parametrize(
    ("host", "status"), [("192.0.2.7:80", 200), ("[2001:db8::1]", 200), ("evil.example", 403)]
)
async def test_a_node_open_to_all_interfaces_goes_by_any_address_but_by_no_name(
    door: FakeDoor, host: str, status: int
) -> None:
    server = ApiServer(door, ApiSettings(host="0.0.0.0"), NodeMetrics(), lambda: 0)
    # Asked without a socket: tests listen on loopback only.
    request = make_mocked_request("GET", "/v1/status", headers={"Host": host})
    if status == 200:
        server._check_host(request)
    else:
        with pytest.raises(Rejected, match="not a name of this node"):
            server._check_host(request)


async def test_no_answer_allows_another_origin(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/status", headers={"Origin": "http://evil.example"}) as response:
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    async with session.options("/v1/transactions", headers={"Origin": "http://evil.example"}) as response:
        assert response.status == 405


async def test_too_many_requests_are_429_with_retry_after(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    frozen = ApiServer(door, ApiSettings(limits=LIMITS), NodeMetrics(), lambda: 5)
    await frozen.start()
    try:
        async with aiohttp.ClientSession(frozen.url) as client:
            for _ in range(60):
                async with client.get("/v1/status") as response:
                    assert response.status == 200
            async with client.get("/v1/status") as response:
                assert (response.status, response.headers["Retry-After"]) == (429, "1")
            async with client.get("/health") as response:
                assert response.status == 200
    finally:
        await frozen.stop()


def test_a_bucket_refills_with_time_and_addresses_do_not_share_one() -> None:
    limiter = RateLimiter(Limits(requests_per_second=10, requests_burst=2))
    assert [limiter.take("10.0.0.1", 0) for _ in range(3)] == [0, 0, 100]
    assert limiter.take("10.0.0.2", 0) == 0
    assert limiter.take("10.0.0.1", 99) == 1
    assert limiter.take("10.0.0.1", 100) == 0
    assert limiter.take("10.0.0.1", 10_000) == 0


def test_the_limiter_remembers_a_bounded_number_of_clients() -> None:
    limiter = RateLimiter(Limits())
    for i in range(CLIENTS_MAX + 10):
        limiter.take(f"10.0.{i // 256}.{i % 256}", 0)
    assert len(limiter._buckets) == CLIENTS_MAX


async def test_a_port_in_use_is_named(server: ApiServer, door: FakeDoor) -> None:
    second = ApiServer(door, ApiSettings(port=server.port), NodeMetrics(), lambda: 0)
    with pytest.raises(Rejected, match=f"{server.port} is in use; .*another port"):
        await second.start()


# --- health, metrics, description ---------------------------------------------------------------------


async def test_health_tells_live_from_ready(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    assert await get(session, "/health") == (200, {"live": True, "ready": True})
    door.ready = False
    status, problem = await get(session, "/health")
    assert (status, problem["live"], problem["ready"]) == (503, True, False)


async def test_metrics_are_prometheus_text_under_our_prefix(session: aiohttp.ClientSession) -> None:
    await get(session, "/v1/status")
    async with session.get("/metrics") as response:
        text = await response.text()
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'assay_http_requests_total{route="status",status="200"} 1.0' in text
    assert 'assay_transactions_total{outcome="refused"} 0.0' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert {"assay_block_height", "assay_finalized_height", "assay_finalization_seconds"} <= set(names)
    assert all(name.startswith("assay_") for name in names)


async def test_the_document_lists_every_route_with_resolvable_references(
    session: aiohttp.ClientSession,
) -> None:
    _, document = await get(session, "/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    operations = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
    assert operations == {(route.method, route.path) for route in build_routes(LIMITS)}
    names = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert "200" in operation["responses"]
    for reference in _find_references(document):
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    assert document["info"]["x-limits"]["page_entries_max"] == 3
    assert str(LIMITS.body_bytes_max) in document["info"]["description"]


def _find_references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in _find_references(item)]
    if isinstance(value, list):
        return [found for item in value for found in _find_references(item)]
    return []


async def test_forms_have_the_fields_of_their_schemas(door: FakeDoor) -> None:
    named = schemas.build_schemas(LIMITS)
    tx = door.blocks[1].block.transactions[0]
    verdict = await door.score(tx)
    forms = {
        "Transaction": json_forms.form_transaction(tx),
        "TransactionRecord": json_forms.form_record(door.records[tx.id]),
        "TransactionProof": json_forms.form_transaction_proof(door.prove_transaction(tx.id)),
        "Block": json_forms.form_block(door.blocks[1]),
        "Header": json_forms.form_header(door.blocks[1].block.header),
        "Certificate": json_forms.form_certificate(door.blocks[1].certificate),
        "Verdict": json_forms.form_verdict(verdict),
        "Explanation": json_forms.form_verdict(verdict)["modules"][0],
        "Account": json_forms.form_account(door.get_account(KEYS[0].address)),
        "AccountProof": json_forms.form_account_proof(door.prove_account(KEYS[0].address)),
        "Status": json_forms.form_status(door.get_status()),
        "Validators": json_forms.form_validators(door.get_validators()),
        "Mempool": json_forms.form_mempool(door.get_mempool(1)),
        "Model": json_forms.form_model(door.get_models()[0]),
        "Receipt": json_forms.form_receipt(api_door.Receipt(tx.id, "accepted")),
        "Refusal": json_forms.form_refusal(api_door.RefusalRecord(tx.id, "c", "r", 1, 2, 3)),
    }
    for name, value in forms.items():
        assert value.keys() <= named[name]["properties"].keys(), name
        assert set(named[name]["required"]) <= value.keys(), name
    peers = named["Peers"]["properties"]["peers"]["items"]
    assert json_forms.form_peer(door.get_peers()[0]).keys() == peers["properties"].keys()


# --- events -------------------------------------------------------------------------------------------


async def read_events(response: aiohttp.ClientResponse, count: int) -> list[tuple[int, str, Any]]:
    events: list[tuple[int, str, Any]] = []
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
            if len(events) == count:
                break
    return events


async def test_events_stream_and_resume_after_the_last_seen(
    session: aiohttp.ClientSession, door: FakeDoor
) -> None:
    async with session.get("/v1/events") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        door.events.publish("head", {"height": 4})
        door.events.publish("finalized", {"height": 3})
        seen = await read_events(response, 2)
    assert seen == [(1000, "head", {"height": 4}), (1001, "finalized", {"height": 3})]
    door.events.publish("head", {"height": 5})
    async with session.get("/v1/events", headers={"Last-Event-ID": "1000"}) as response:
        assert [event[0] for event in await read_events(response, 2)] == [1001, 1002]


async def test_a_reader_who_missed_events_is_told_so(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    for height in range(12):  # the ring holds 8
        door.events.publish("head", {"height": height})
    async with session.get("/v1/events", headers={"Last-Event-ID": "1000"}) as response:
        seen = await read_events(response, 3)
    assert seen[0] == (1003, "gap", {"missed": 3})
    assert [event[0] for event in seen[1:]] == [1004, 1005]


async def test_events_can_be_chosen(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    async with session.get("/v1/events?events=finalized,verdict") as response:
        for name in ("head", "transaction", "finalized", "head", "verdict"):
            door.events.publish(name, {})
        assert [event[1] for event in await read_events(response, 2)] == ["finalized", "verdict"]


async def test_open_streams_are_bounded_and_freed(session: aiohttp.ClientSession, door: FakeDoor) -> None:
    first = await session.get("/v1/events")
    second = await session.get("/v1/events")
    status, problem = await get(session, "/v1/events")
    assert (status, problem["code"]) == (429, "streams")
    first.close()
    second.close()
    async with asyncio.timeout(5):
        while True:  # the server learns of a closed reader when it writes
            door.events.publish("head", {})
            async with session.get("/v1/events") as response:
                if response.status == 200:
                    break


async def test_a_last_event_id_must_be_a_number(session: aiohttp.ClientSession) -> None:
    for text in ("x", "-1", "1.5", "9" * 17):
        assert (await get(session, "/v1/events", **{"Last-Event-ID": text}))[0] == 400


async def test_stopping_ends_open_streams_at_once(server: ApiServer) -> None:
    async with (
        aiohttp.ClientSession(server.url) as client,
        client.get("/v1/events") as response,
        asyncio.timeout(3),
    ):
        await response.content.readline()
        await server.stop()
        with suppress(aiohttp.ClientError):  # how the stream ends is the socket's affair
            while await response.content.readline():
                pass


async def test_a_waiting_reader_is_woken_and_a_cancelled_one_loses_nothing() -> None:
    ring = EventRing(first_id=1, capacity=4)
    reader, other = ring.subscribe(None), ring.subscribe(None)
    waiting = asyncio.ensure_future(anext(reader))
    cancelled = asyncio.ensure_future(anext(other))
    await asyncio.sleep(0)
    cancelled.cancel()
    ring.publish("head", {})
    assert (await waiting).id == 1
    assert (await anext(other)).id == 1


def test_metrics_of_two_nodes_in_one_process_are_apart() -> None:
    one, two = NodeMetrics(), NodeMetrics()
    one.block_height.set(5)
    one.count_transactions("final", 3)
    assert b"assay_block_height 5.0" in one.render()
    assert b"assay_block_height 0.0" in two.render()
    assert VALIDATOR.public_key.hex().encode() not in one.render()
