"""Four whole nodes in one loop: blocks become final, latecomers and absentees catch up."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from consensus.bft.simplex import SimplexEngine
from consensus.errors import Fault, NotYet, Rejected
from node.full_node import FullNode
from node.home import NetworkPlan, create_network
from node.network.frames import Frame
from node.network.memory_transport import MemoryNetwork
from node.network.transport import Peer
from node.network.wire import decode_frame, encode_frame
from node.node_files import read_node_files
from node.simulation.memory_disk import MemoryDisk
from tests.fakes.full_nodes import FullNodes


@pytest.fixture
async def four(tmp_path: Path, seed: int) -> AsyncIterator[FullNodes]:
    nodes = FullNodes(tmp_path / "net", seed)
    yield nodes
    await nodes.close()


async def test_four_nodes_make_transactions_final_and_agree_on_the_state(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    transactions = [four.transfer(sender) for sender in range(8) for _ in range(5)]
    for place in range(4):
        await four.submit(place, transactions[10 * place : 10 * place + 10])
    await four.wait_transactions(transactions)
    assert len(four.get_roots()) == 1
    for place in range(4):
        places = {four.get(place).store.find_transaction(tx.id) for tx in transactions}
        assert places == {four.get(0).store.find_transaction(tx.id) for tx in transactions}
    four.check()


async def test_a_node_that_joins_late_catches_up_and_takes_part(four: FullNodes) -> None:
    await four.start(0, 1, 2)
    transactions = [four.transfer(sender) for sender in range(4)]
    await four.submit(0, transactions)
    await four.wait_final(8, 0, 1, 2)
    await four.start(3)
    await four.wait_transactions(transactions)
    height = four.get(0).chain.finalized.height
    await four.wait_final(height + 3)
    assert len(four.get_roots()) == 1
    await four.wait("votes of the latecomer", lambda: any(_signs(four, 3, place) for place in range(3)))
    four.check()


def _signs(four: FullNodes, index: int, place: int) -> bool:
    """Whether this node holds a finalization that the node `index` signed."""
    node = four.get(place)
    own = four.get(index).own_index
    found = node.store.get_certificate(node.store.finalized_height)
    return found is not None and own in found[0].signers


async def test_a_node_that_was_cut_off_comes_back_to_the_same_state(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await four.wait_final(2)
    four.cut_off(3)
    left_at = four.get(3).chain.finalized.height
    transactions = [four.transfer(sender) for sender in range(4)]
    await four.submit(1, transactions)
    await four.wait_transactions(transactions, 0, 1, 2)
    await four.wait_final(left_at + 6, 0, 1, 2)
    assert four.get(3).chain.finalized.height <= left_at + 1
    four.join(3)
    await four.wait_transactions(transactions)
    await four.wait_final(four.get(0).chain.finalized.height + 2)
    assert len(four.get_roots()) == 1
    four.check()


async def test_with_two_of_four_nothing_becomes_final_and_a_third_brings_it_back(four: FullNodes) -> None:
    await four.start(0, 1, 2)
    await four.wait_final(2, 0, 1, 2)
    await four.stop(2)
    heights = [four.get(place).store.finalized_height for place in (0, 1)]
    transaction = four.transfer(0)
    await four.submit(0, [transaction])
    await asyncio.sleep(0.3)  # some views' worth of time in which nothing may happen
    assert four.get(0).store.find_transaction(transaction.id) is None
    assert max(four.get(place).store.finalized_height for place in (0, 1)) <= max(heights) + 1
    await four.start(2)
    await four.wait_transactions([transaction], 0, 1, 2)
    assert len(four.get_roots(0, 1, 2)) == 1


async def test_all_stop_and_start_again_and_go_on_from_the_last_final_block(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    transactions = [four.transfer(sender) for sender in range(4)]
    await four.submit(0, transactions)
    await four.wait_transactions(transactions)
    places = [four.get(0).store.find_transaction(tx.id) for tx in transactions]
    height = max(four.get(place).store.finalized_height for place in range(4))
    for place in range(4):
        await four.stop(place)
    await four.start(0, 1, 2, 3)
    await four.wait_final(height + 2)
    assert [four.get(3).store.find_transaction(tx.id) for tx in transactions] == places
    assert len(four.get_roots()) == 1


async def test_what_a_peer_says_never_makes_a_node_fail(four: FullNodes) -> None:
    """Before every frame that a node hears it hears it with a bit changed: its sender's fault at most."""
    await four.start(0, 1, 2, 3)
    node = four.get(0)
    on_frame = node.door.on_frame
    kinds: Counter[str] = Counter()

    async def listen(peer: Peer, frame: Frame) -> None:
        changed = bytearray(encode_frame(frame))
        changed[four.rng.randrange(len(changed))] ^= 1 << four.rng.randrange(8)
        try:
            await on_frame(peer, decode_frame(bytes(changed)))
        except (Rejected, NotYet):
            kinds[type(frame).__name__] += 1
        await on_frame(peer, frame)

    node.door.on_frame = listen  # type: ignore[method-assign]
    await four.wait_final(3)
    transactions = [four.transfer(sender) for sender in range(12)]
    await four.submit(1, transactions)
    four.cut_off(0)
    await four.wait_final(four.get(1).chain.finalized.height + 6, 1, 2, 3)
    four.join(0)
    await four.wait_final(four.get(1).chain.finalized.height + 10)
    assert {"EngineMessage", "CompactProposal", "FinalBlocks"} <= set(kinds)
    assert len(four.get_roots()) == 1
    four.check()


async def test_a_fault_of_the_disk_stops_the_node_without_another_word(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await four.wait_final(1)
    node = four.get(3)
    said: list[object] = []

    def fail() -> None:
        node.host.broadcast = said.append  # type: ignore[method-assign]
        raise Fault("cannot make it durable", field="disk")

    node.journal.sync = fail  # type: ignore[method-assign]
    await node.failed.wait()
    assert isinstance(node.fault, Fault)
    await asyncio.sleep(0.1)  # the others go on meanwhile
    assert said == []
    await four.stop(3)
    await four.wait_final(four.get(0).chain.finalized.height + 2, 0, 1, 2)


def make_single(folder: Path, rng: random.Random, **arguments: Any) -> FullNode:
    """A chain of one validator; without sockets unless told otherwise."""
    if not folder.exists():
        plan = NetworkPlan(nodes=1, base_port=20_000, block_interval_ms=20, module_names=())
        create_network(folder, plan, rng.randbytes)
    files = read_node_files(folder / "node0")
    links = MemoryNetwork()
    return FullNode(
        replace(files, settings=replace(files.settings, p2p_port=0, api_port=0, worker=False)),
        rng=rng,
        **{"make_network": lambda identity, handler: links.add(identity.key.public_key), **arguments},
    )


async def test_a_node_that_never_started_closes_and_frees_its_home(tmp_path: Path, seed: int) -> None:
    for _ in range(2):
        node = make_single(tmp_path / "net", random.Random(seed))
        await node.close()
        assert node.fault is None


async def test_a_node_that_cannot_be_built_frees_its_home(tmp_path: Path, seed: int) -> None:
    def fail(identity: object, handler: object) -> Any:
        raise Rejected("no network", field="network")

    with pytest.raises(Rejected, match="no network"):
        make_single(tmp_path / "net", random.Random(seed), make_network=fail)
    await make_single(tmp_path / "net", random.Random(seed)).close()


async def test_a_node_whose_port_is_taken_says_so_and_closes(tmp_path: Path, seed: int) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        node = make_single(tmp_path / "net", random.Random(seed))
        taken = holder.getsockname()[1]
        assert node.api is not None
        node.api._settings = replace(node.api._settings, port=taken)
        with pytest.raises(Rejected, match=str(taken)):
            await node.start()
        await node.close()
    assert node.fault is None
    assert node.chain.finalized.height == 0


async def test_a_node_goes_by_the_host_names_in_its_settings(tmp_path: Path, seed: int) -> None:
    await make_single(tmp_path / "net", random.Random(seed)).close()
    settings = tmp_path / "net" / "node0" / "node.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "api_host_names": ["Node.example"]}))
    node = make_single(tmp_path / "net", random.Random(seed))
    assert node.api is not None
    await node.start()
    try:
        async with aiohttp.ClientSession(node.api.url) as client:
            for host, status in (("node.example", 200), ("other.example", 403)):
                async with client.get("/v1/status", headers={"Host": host}) as response:
                    assert response.status == status
    finally:
        await node.close()


async def test_what_fails_to_close_does_not_keep_the_rest_open(tmp_path: Path, seed: int) -> None:
    node = make_single(tmp_path / "net", random.Random(seed), serves_api=False)
    await node.start()

    def fail() -> None:
        raise Fault("cannot be closed", field="journal")

    node.journal.close = fail  # type: ignore[method-assign]
    with pytest.raises(Fault, match="cannot be closed"):
        await node.close()
    await make_single(tmp_path / "net", random.Random(seed)).close()  # the home is free


async def test_the_same_bytes_twice_in_a_batch_are_still_spread(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    transaction = four.transfer(0)
    receipts = await four.get(1).entrance.submit([transaction.raw, transaction.raw])
    assert [receipt.outcome.value for receipt in receipts] == ["accepted", "known"]
    await four.wait("its arrival elsewhere", lambda: four.get(2).mempool.is_known(transaction.id))


async def test_a_node_that_lost_its_journal_watches_first_and_then_signs_again(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await four.wait_final(2)
    await four.stop(3)
    (four.network.homes[3] / "journal").unlink()
    height = four.get(0).chain.finalized.height
    await four.start(3)
    assert four.get(3).journal_status.observe_until_view is None
    await four.wait_final(height + 2)
    engine = four.get(3).engine
    assert isinstance(engine, SimplexEngine)
    await four.wait("that it may sign", lambda: engine.is_signing)
    await four.wait("its votes", lambda: any(_signs(four, 3, place) for place in range(3)))
    four.check()


async def test_a_node_runs_on_a_disk_that_is_given_to_it(tmp_path: Path, seed: int) -> None:
    node = make_single(tmp_path / "net", random.Random(seed), disk=MemoryDisk(), serves_api=False)
    assert await node.start() == ""
    async with asyncio.timeout(10):
        while node.chain.finalized.height < 3:  # noqa: ASYNC110 - the node tells nobody but its API
            await asyncio.sleep(0.005)
    await node.close()
    assert node.fault is None
    assert not (tmp_path / "net" / "node0" / "blocks.log").exists()
    assert not (tmp_path / "net" / "node0" / "journal").exists()
