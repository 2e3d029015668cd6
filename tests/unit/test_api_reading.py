"""The API's reading calls: status, blocks, transactions, proofs, accounts, lists, and their parameters."""

from dataclasses import replace

import aiohttp
import pytest

from consensus import block, codec, merkle, vote
from node.api import door as api_door
from tests.fakes.fake_door import VALIDATOR, FakeDoor, make_transfer
from tests.fakes.served_door import ADDRESS, get


async def test_status_has_the_fields_people_rely_on(session: aiohttp.ClientSession) -> None:
    status, document = await get(session, "/v1/status")
    assert status == 200
    assert document.keys() == {
        *("chain_id", "genesis_hash", "node", "head", "finalized", "clock_ms", "view", "epoch", "peers"),
        *("syncing", "mempool", "model", "policies", "parameters"),
    }
    assert [policy.keys() for policy in document["policies"]] == [
        {"name", "deadline_ms", "on_failure", "stuck", "transactions", "calls"}
    ]
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
    session: aiohttp.ClientSession, door: FakeDoor, monkeypatch: pytest.MonkeyPatch
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
    many = {record.block.header.height: record for record in door.get_blocks(0, 9)}

    def get_far_from_certificates(first: int, count: int) -> list[api_door.BlockRecord]:
        found = [many[height] for height in range(first, min(first + count, 4))]
        return [replace(record, headers=(record.block.header,) * 600) for record in found]

    monkeypatch.setattr(door, "get_blocks", get_far_from_certificates)
    _, page = await get(
        session, "/v1/blocks?from=0&limit=3&transactions=false"
    )  # their headers count as well
    assert ([b["header"]["height"] for b in page["blocks"]], page["next"]) == ([0], 1)


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
        (f"/v1/accounts/{ADDRESS}/transactions?before=1.65536", 422),
        (f"/v1/accounts/{ADDRESS}/transactions?before={2**48}.0", 422),
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


async def test_an_unknown_parameter_is_named_as_it_was_written(session: aiohttp.ClientSession) -> None:
    _, problem = await get(session, "/v1/blocks?limt=1")
    assert problem["field"] == "limt"
    _, problem = await get(session, "/v1/blocks?" + "n" * 100 + "=1")
    assert problem["field"] == "n" * 40


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
    address = "0x" + VALIDATOR.address.hex()
    (one,) = (await get(session, "/v1/validators"))[1]["validators"]
    assert (await get(session, f"/v1/validators/{address}")) == (200, one)
    assert (await get(session, f"/v1/validators/{ADDRESS}"))[0] == 404
    assert (await get(session, "/v1/peers"))[1]["peers"][0]["connected"] is True
    assert (await get(session, "/v1/models"))[1]["models"][0]["refuse_score_min"] == 9_000
    _, mempool = await get(session, "/v1/mempool?limit=2")
    assert (mempool["transactions"], len(mempool["entries"])) == (3, 2)
    tx = make_transfer(99)
    door.refusals[tx.id] = api_door.RefusalRecord(tx.id, "refused", "scored 9700", 9_700, 3, 5)
    assert (await get(session, f"/v1/refusals/0x{tx.id.hex()}"))[1]["score"] == 9_700
