"""Whole nodes on a chain that draws its leaders: onions are committed to, peeled, and outlive crashes and losses."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.bft.leader import LeaderSchedule, compute_offset
from consensus.block import Header
from consensus.ledger import beacon
from consensus.parameters import LEADER_ONION
from tests.fakes.full_nodes import FullNodes

EPOCH_BLOCKS = 4


@pytest.fixture
async def four(tmp_path: Path, seed: int) -> AsyncIterator[FullNodes]:
    nodes = FullNodes(
        tmp_path / "net",
        seed,
        block_interval_ms=20,
        epoch_blocks=EPOCH_BLOCKS,
        leader_election=LEADER_ONION,
    )
    yield nodes
    await nodes.close()


def list_headers(net: FullNodes, place: int) -> list[Header]:
    store = net.get(place).store
    headers = [store.get_header(height) for height in range(1, store.finalized_height + 1)]
    return [header for header in headers if header is not None]


def check_layers(headers: list[Header]) -> None:
    """Every layer was revealed once, and each hashes to the one its proposer revealed before, until onions change."""
    reveals = [header.reveal for header in headers if header.reveal]
    assert len(set(reveals)) == len(reveals)
    fresh = 0
    for proposer in {header.proposer for header in headers}:
        own = [header.reveal for header in headers if header.proposer == proposer and header.reveal]
        pairs = itertools.pairwise(own)
        fresh += sum(beacon.compute_layer_above(low) != high for high, low in pairs)
    assert fresh == 0


async def wait_reveals(net: FullNodes, count: int, *places: int) -> None:
    """Until so many more blocks that these nodes proposed reveal something, as node 0 has it."""
    keys = {net.get(place).engines.public_key for place in places}
    seen = [len(list_headers(net, 0))]

    def ask() -> bool:
        new = [header for header in list_headers(net, 0)[seen[0] :] if header.reveal]
        return sum(header.proposer in keys for header in new) >= count

    await net.wait("reveals", ask)


async def test_nodes_commit_reveal_and_draw_their_leaders(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await wait_reveals(four, 8, 0, 1, 2, 3)
    node = four.get(0)
    assert beacon.get_mix(node.chain.final_view.records) != bytes(32)
    await four.wait_final((node.engines.epoch + 3) * EPOCH_BLOCKS)
    headers = [header for header in list_headers(four, 0) if header.epoch >= 3]
    validators = node.rules.validators
    turns = []
    for header in headers:
        schedule = LeaderSchedule(validators, compute_offset(header.epoch, EPOCH_BLOCKS))
        turns.append(validators.validators[schedule.get_leader(header.view)].public_key == header.proposer)
    assert not all(turns)  # no round-robin
    assert all(header.reveal for header in headers)
    check_layers(list_headers(four, 0))
    assert len(four.get_roots()) == 1


async def test_a_node_that_stops_and_starts_goes_on_with_its_onion(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await wait_reveals(four, 1, 3)
    await four.stop(3)
    await four.wait_final(four.get(0).chain.finalized.height + 2)
    await four.start(3)
    await wait_reveals(four, 2, 3)
    check_layers(list_headers(four, 0))


async def test_all_nodes_stop_and_start_again_in_the_middle_of_an_epoch(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await wait_reveals(four, 5, 0, 1, 2, 3)
    for place in range(4):
        await four.stop(place)
    await four.start(0, 1, 2, 3)
    await wait_reveals(four, 5, 0, 1, 2, 3)
    check_layers(list_headers(four, 0))


async def test_a_node_that_lost_its_store_catches_up_and_reveals_the_next_layer(four: FullNodes) -> None:
    await four.start(0, 1, 2, 3)
    await wait_reveals(four, 1, 3)
    await four.stop(3)
    home = four.homes[3]
    (home / "blocks.log").unlink()
    for name in ("index", "checkpoints"):
        shutil.rmtree(home / name, ignore_errors=True)
    await four.start(3)
    await wait_reveals(four, 2, 3)
    check_layers(list_headers(four, 0))
    commitments = [
        tx.sender for header in list_headers(four, 0) for tx in _get_transactions(four, header.height)
    ]
    assert len(commitments) == 4  # nobody committed anew for having forgotten


def _get_transactions(net: FullNodes, height: int):  # type: ignore[no-untyped-def]
    block = net.get(0).store.get_block_at(height)
    assert block is not None
    return block.transactions
