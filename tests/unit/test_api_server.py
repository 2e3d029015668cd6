"""The API as a server: error forms, limits, Host header, health, metrics, its own description."""

import asyncio
import json
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from consensus.errors import Fault, NotYet, Rejected
from node.api import door as api_door
from node.api import json_forms, model_forms, protocol, refusal_forms, schemas, transactions
from node.api.limits import CLIENTS_MAX, Limits, RateLimiter
from node.api.refusal_records import RefusalRecord
from node.api.routes import build_routes
from node.api.server import ApiServer, ApiSettings
from node.metrics import NodeMetrics
from tests.fakes.fake_door import KEYS, VALIDATOR, FakeDoor, make_transfer
from tests.fakes.served_door import LIMITS, get


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


async def test_a_client_that_reads_no_answer_is_dropped(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_MS_MAX", 100)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        # More than the system keeps of a connection, so that the rest waits in the server.
        await loop.sock_sendall(client, b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60)
        with pytest.raises(ConnectionError):
            await keep_writing(client)


async def keep_writing(client: socket.socket) -> None:
    """A request that never ends, a letter at a time: only a reset answers it."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.get_running_loop().sock_sendall(client, b"G")
            await asyncio.sleep(0.02)


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


async def test_every_call_that_takes_a_bounded_number_documents_what_a_number_out_of_bounds_answers(
    session: aiohttp.ClientSession,
) -> None:
    _, document = await get(session, "/v1/openapi.json")
    bounded = {
        path: operation["responses"]
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for parameter in operation["parameters"]
        if parameter["in"] == "query" and "maximum" in parameter["schema"]
    }
    assert len(bounded) > 5
    assert [path for path, responses in bounded.items() if "422" not in responses] == []


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
        "Model": model_forms.form_model(door.get_models().models[0]),
        "Models": model_forms.form_models(door.get_models()),
        "Publication": model_forms.form_published(door.get_models().published[0]),
        "Motion": model_forms.form_motion_record(door.get_models().history[0].steps[0]),
        "Comparison": model_forms.form_comparison(
            await door.compare_model(door.get_models().models[0].digest)
        ),
        "Era": model_forms.form_era(door.get_models().history[0]),
        "Receipt": json_forms.form_receipt(api_door.Receipt(tx.id, "accepted")),
        "Refusal": refusal_forms.form_refusal(RefusalRecord(tx.id, "c", "r", 1, 2, 3)),
    }
    for name, value in forms.items():
        assert value.keys() <= named[name]["properties"].keys(), name
        assert set(named[name]["required"]) <= value.keys(), name
    peers = named["Peers"]["properties"]["peers"]["items"]
    assert json_forms.form_peer(door.get_peers()[0]).keys() == peers["properties"].keys()


def test_metrics_of_two_nodes_in_one_process_are_apart() -> None:
    one, two = NodeMetrics(), NodeMetrics()
    one.block_height.set(5)
    one.count_transactions("final", 3)
    assert b"assay_block_height 5.0" in one.render()
    assert b"assay_block_height 0.0" in two.render()
    assert VALIDATOR.public_key.hex().encode() not in one.render()
