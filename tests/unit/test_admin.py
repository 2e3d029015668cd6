"""Admin calls: closed without a token, and what they do to links, clock and life of a node with one."""

import random
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from node.admin import SKEW_MS_MAX, Admin, open_admin, read_token, write_token
from node.api.server import ApiServer, ApiSettings
from node.clock import ManualClock, SkewableClock
from node.config import NodeConfig, PeerConfig
from node.home import NetworkPlan, create_network
from node.metrics import NodeMetrics
from node.network.links import Links
from tests.fakes.fake_door import FakeDoor
from tests.fakes.served_door import LIMITS

TOKEN = "5e" * 32
KEYS = {name: PrivateKey.from_seed(name.encode()).public_key for name in ("node1", "node2")}
STRANGER = PrivateKey.from_seed(b"stranger").public_key
SETTINGS = NodeConfig(
    name="node0",
    p2p_port=0,
    api_port=0,
    peers=tuple(PeerConfig(name, "ws://127.0.0.1:1", "0x" + key.hex()) for name, key in KEYS.items()),
)


class Stops:
    """Counts orderly ends that were asked for."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def stops() -> Stops:
    return Stops()


@pytest.fixture
def admin(stops: Stops) -> Admin:
    return Admin(TOKEN, peers=KEYS, links=Links(), clock=SkewableClock(ManualClock(1_000, 5)), stop=stops)


@pytest.fixture
async def session(door: FakeDoor, admin: Admin) -> AsyncIterator[aiohttp.ClientSession]:
    server = ApiServer(door, ApiSettings(limits=LIMITS), NodeMetrics(), lambda: 0, admin)
    await server.start()
    async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client
    await server.stop()


async def call(
    session: aiohttp.ClientSession, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    method = "GET" if body is None else "POST"
    async with session.request(method, f"/v1/admin/{path}", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


# --- who may call -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["faults", "links", "clock", "stop"])
async def test_a_node_without_a_token_has_no_admin_calls(server: ApiServer, path: str) -> None:
    async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert (await call(client, path))[0] == 404
        assert (await call(client, path, {}))[0] == 404
        async with client.get("/v1/openapi.json") as response:
            assert "/v1/admin" not in await response.text()


@pytest.mark.parametrize(
    "given", ["", f"Bearer {'00' * 32}", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"]
)
async def test_a_call_without_the_token_is_refused_and_changes_nothing(
    session: aiohttp.ClientSession, admin: Admin, stops: Stops, given: str
) -> None:
    for path, body in (("faults", None), ("links", {"cut": {"node1": "both"}}), ("stop", {}), ("links", [])):
        method, headers = "GET" if body is None else "POST", {"Authorization": given}
        async with session.request(method, f"/v1/admin/{path}", json=body, headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            document = await response.json(content_type=None)
        assert (document["code"], document["field"]) == ("token", "Authorization")
    assert (admin.links.get_cut(), stops.count) == ({}, 0)


async def test_the_document_describes_the_calls_and_who_may_make_them(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/openapi.json") as response:
        document = await response.json()
    paths = {path: item for path, item in document["paths"].items() if path.startswith("/v1/admin/")}
    assert paths.keys() == {f"/v1/admin/{name}" for name in ("faults", "links", "clock", "stop")}
    for item in paths.values():
        for operation in item.values():
            assert operation["security"] == [{"adminToken": []}]
            assert "401" in operation["responses"]
    assert document["components"]["securitySchemes"]["adminToken"]["scheme"] == "bearer"
    assert {"Links", "Skew", "Nothing", "Faults"} <= document["components"]["schemas"].keys()
    assert "security" not in document["paths"]["/v1/status"]["get"]


# --- what the calls do ------------------------------------------------------------------------------


async def test_links_are_cut_by_name_or_key_and_those_not_named_are_healed(
    session: aiohttp.ClientSession, admin: Admin
) -> None:
    cut = {"node1": "both", "0x" + KEYS["node2"].hex(): "in", "0x" + STRANGER.hex(): "out"}
    told = {"node1": "both", "node2": "in", "0x" + STRANGER.hex(): "out"}
    assert await call(session, "links", {"cut": cut}) == (200, {"cut": told, "skew_ms": 0})
    links = admin.links
    keys = (*KEYS.values(), STRANGER)
    assert [links.is_heard(key) for key in keys] == [False, False, True]
    assert [links.is_reached(key) for key in keys] == [False, True, False]
    assert [links.is_whole(key) for key in keys] == [False, False, False]
    assert await call(session, "links", {"cut": {"node2": "out"}}) == (
        200,
        {"cut": {"node2": "out"}, "skew_ms": 0},
    )
    assert links.is_whole(KEYS["node1"])
    assert await call(session, "links", {"cut": {}}) == (200, {"cut": {}, "skew_ms": 0})
    assert all(links.is_whole(key) for key in keys)


async def test_a_skewed_clock_shows_another_wall_time_and_the_same_durations(
    session: aiohttp.ClientSession, admin: Admin
) -> None:
    assert await call(session, "clock", {"skew_ms": -700}) == (200, {"cut": {}, "skew_ms": -700})
    assert (admin.clock.now_ms(), admin.clock.monotonic_ms()) == (300, 5)
    assert (await call(session, "faults"))[1] == {"cut": {}, "skew_ms": -700}
    await call(session, "clock", {"skew_ms": 0})
    assert admin.clock.now_ms() == 1_000


async def test_stop_asks_for_an_orderly_end(session: aiohttp.ClientSession, stops: Stops) -> None:
    assert await call(session, "stop", {}) == (200, {})
    assert stops.count == 1


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("links", {}, "body"),
        ("links", [], "body"),
        ("links", {"cut": {}, "more": 1}, "body"),
        ("links", {"cut": ["node1"]}, "cut"),
        ("links", {"cut": {"node1": "sideways"}}, "cut"),
        ("links", {"cut": {"node1": ["in"]}}, "cut"),
        ("links", {"cut": {"node9": "both"}}, "cut"),
        ("links", {"cut": {"0x0203": "both"}}, "cut"),
        ("clock", {"skew_ms": 1.5}, "skew_ms"),
        ("clock", {"skew_ms": True}, "skew_ms"),
        ("clock", {"skew_ms": "1"}, "skew_ms"),
        ("clock", {"skew_ms": SKEW_MS_MAX + 1}, "skew_ms"),
        ("stop", {"now": True}, "body"),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_by_its_field_and_changes_nothing(
    session: aiohttp.ClientSession, admin: Admin, stops: Stops, path: str, body: Any, field: str
) -> None:
    await call(session, "links", {"cut": {"node2": "in"}})
    status, problem = await call(session, path, body)
    assert (status, problem["field"]) == (422, field)
    assert (admin.get_faults().cut, admin.get_faults().skew_ms, stops.count) == ({"node2": "in"}, 0, 0)


# --- the token --------------------------------------------------------------------------------------


def test_a_home_has_a_token_only_once_it_is_given_one_and_keeps_it(tmp_path: Path) -> None:
    assert read_token(tmp_path, SETTINGS) is None
    assert open_admin(tmp_path, SETTINGS, lambda: None) is None
    write_token(tmp_path, lambda count: bytes([7]) * count)
    write_token(tmp_path, lambda count: bytes([8]) * count)
    assert read_token(tmp_path, SETTINGS) == "07" * 32
    assert stat.S_IMODE((tmp_path / "admin.token").stat().st_mode) == 0o600
    opened = open_admin(tmp_path, SETTINGS, lambda: None)
    assert opened is not None
    opened.set_links({"node1": "in"})
    assert opened.get_faults().cut == {"node1": "in"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_a_node_whose_api_is_open_to_a_network_does_not_start_with_a_token(tmp_path: Path, host: str) -> None:
    write_token(tmp_path, bytes)
    with pytest.raises(Rejected, match="open to a network"):
        read_token(tmp_path, replace(SETTINGS, api_host=host))
    for loopback in ("127.0.0.1", "::1", "localhost"):
        assert read_token(tmp_path, replace(SETTINGS, api_host=loopback))


def test_a_node_that_a_proxy_opens_to_a_network_does_not_start_with_a_token(tmp_path: Path) -> None:
    write_token(tmp_path, bytes)
    with pytest.raises(Rejected, match=r"through a proxy \(node\.example\)"):
        read_token(tmp_path, replace(SETTINGS, api_host_names=("node.example",)))


@pytest.mark.parametrize("text", ["", "5e", "zz" * 32, "5e" * 33, "\xe9" * 64])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "admin.token").write_text(text, encoding="utf-8")
    (tmp_path / "admin.token").chmod(0o600)
    with pytest.raises(Rejected, match="is not 32 bytes of hex"):
        read_token(tmp_path, SETTINGS)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    write_token(tmp_path, bytes)
    (tmp_path / "admin.token").chmod(0o644)
    with pytest.raises(Rejected, match="others may read it"):
        read_token(tmp_path, SETTINGS)


def test_only_a_network_that_was_asked_for_it_has_tokens_and_each_home_its_own(tmp_path: Path) -> None:
    plan = NetworkPlan(nodes=3, base_port=20_000, block_interval_ms=250, module_names=())
    plain = create_network(tmp_path / "plain", plan, random.Random(1).randbytes)
    assert [home for home in plain.homes if (home / "admin.token").exists()] == []
    open_ = create_network(tmp_path / "open", replace(plan, admin=True), random.Random(1).randbytes)
    assert len({(home / "admin.token").read_text() for home in open_.homes}) == 3
    assert {stat.S_IMODE((home / "admin.token").stat().st_mode) for home in open_.homes} == {0o600}
