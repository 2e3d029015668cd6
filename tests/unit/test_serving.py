"""What peers may ask for: bounded in bytes, proven by few links, and never more than their budget."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consensus import vote
from consensus.block import decode_block, decode_header, encode_block
from node.blocks import serving
from node.blocks.chain import Chain
from node.blocks.serving import Serving
from node.clock import ManualClock
from node.network.frames import (
    FINAL_BLOCKS_MAX,
    BlockBody,
    BodyTransactions,
    FinalBlocks,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
)
from node.store.store import Store
from tests.chain_factory import ChainFactory
from tests.fakes.rooms import WrittenTransport, make_peer

ANN = make_peer("ann")


class Server:
    """Serves the first `final` blocks of the factory's chain; `marks` are the heights certified here."""

    def __init__(self, folder: Path, final: int, transactions: int = 2, marks: tuple[int, ...] = ()) -> None:
        self.factory = ChainFactory()
        self.factory.grow(final, transactions)
        self.store = Store.open(self.factory.write_home(folder), self.factory.rules)
        low = 0
        for mark in marks or range(1, final + 1):
            self.store.put_final(self.factory.finalizations[mark - 1], self.factory.blocks[low:mark])
            low = mark
        self.chain = Chain(self.factory.state)
        self.transport = WrittenTransport("ann")
        self.clock = ManualClock()
        self.serving = Serving(self.chain, self.store, self.transport, self.clock.monotonic_ms)

    def ask(self, frame: GetBlock | GetBodyTransactions | GetFinalBlocks) -> Any:
        """The answer, or None."""
        self.transport.sent.clear()
        match frame:
            case GetBlock():
                self.serving.on_get_block(ANN, frame)
            case GetBodyTransactions():
                self.serving.on_get_body_transactions(ANN, frame)
            case GetFinalBlocks():
                self.serving.on_get_final_blocks(ANN, frame)
        return self.transport.sent[0][1] if self.transport.sent else None

    def check(self, answer: FinalBlocks) -> int:
        """Follow the proof as the asker does; the height of the last block."""
        headers = [decode_block(raw).header for raw in answer.raws]
        assert headers[0].height == answer.from_height
        chain = [*headers, *map(decode_header, answer.links)]
        for parent, child in pairwise(chain):
            assert child.parent_hash == parent.hash
        assert vote.decode_certificate(answer.certificate).subject.block_hash == chain[-1].hash
        return headers[-1].height


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home", 6)
    yield server
    server.store.close()


def test_a_block_is_served_as_it_is_stored_and_an_unknown_one_as_empty(server: Server) -> None:
    block = server.factory.blocks[2]
    assert server.ask(GetBlock(block.hash)) == BlockBody(block.hash, encode_block(block))
    assert server.ask(GetBlock(b"?" * 32)) == BlockBody(b"?" * 32, b"")


def test_transactions_of_a_body_are_served_by_place(server: Server) -> None:
    block = server.factory.blocks[2]
    answer = server.ask(GetBodyTransactions(block.hash, (1, 7)))
    assert answer == BodyTransactions(block.hash, (1,), (block.transactions[1].raw,))
    assert server.ask(GetBodyTransactions(b"?" * 32, (0,))) is None


def test_final_blocks_come_with_the_certificate_of_the_last_one(server: Server) -> None:
    assert server.check(server.ask(GetFinalBlocks(2, 3))) == 4
    assert server.check(server.ask(GetFinalBlocks(5, 500))) == 6


@pytest.mark.parametrize("height", [0, 7, 2**63])
def test_what_is_not_final_here_is_answered_with_nothing(server: Server, height: int) -> None:
    assert server.ask(GetFinalBlocks(height, 5)) == FinalBlocks(height, (), b"", ())


def test_a_batch_ends_before_it_is_too_large_but_holds_one_block_at_least(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(encode_block(block)) for block in server.factory.blocks]
    monkeypatch.setattr(serving, "BATCH_BYTES_MAX", sizes[0] + sizes[1])
    assert server.check(server.ask(GetFinalBlocks(1, 6))) == 2
    monkeypatch.setattr(serving, "BATCH_BYTES_MAX", 1)
    assert server.check(server.ask(GetFinalBlocks(1, 6))) == 1


def test_one_certificate_for_many_blocks_proves_each_of_them_through_links(tmp_path: Path) -> None:
    server = Server(tmp_path / "home", 6, marks=(6,))
    answer = server.ask(GetFinalBlocks(1, 3))
    assert server.check(answer) == 3
    assert len(answer.links) == 3
    server.store.close()


@pytest.mark.parametrize("first", range(1, 13))
def test_a_batch_is_cut_back_to_where_few_enough_links_prove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Who caught up in large batches holds few certificates: what it serves must hold all the same."""
    monkeypatch.setattr(serving, "LINKS_MAX", 2)
    server = Server(tmp_path / "home", 12, 0, marks=(1, 5, 6, 12))
    answer = server.ask(GetFinalBlocks(first, 8))
    last = server.check(answer)
    assert len(answer.links) <= 2
    assert last == {1: 6, 2: 6, 3: 10, 4: 11}.get(first, 12)
    server.store.close()


def test_a_peer_that_asks_without_end_gets_so_many_bytes_a_second(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "BUDGET_BYTES", 20_000)
    monkeypatch.setattr(serving, "BUDGET_BYTES_PER_MS", 100)
    block = server.factory.blocks[0]
    answers = [server.ask(GetBlock(block.hash)) for _ in range(50)]
    served = sum(answer is not None for answer in answers)
    assert 0 < served * (len(encode_block(block)) + serving.REQUEST_BYTES) < 30_000
    assert server.ask(GetFinalBlocks(1, 5)) is None
    assert server.ask(GetBodyTransactions(block.hash, (0,))) is None
    server.clock.advance(200)
    assert server.ask(GetBlock(block.hash)) is not None


def test_certificates_are_on_the_same_budget(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "BUDGET_BYTES", 20_000)
    given = sum(server.serving.spend_certificate(ANN, 100) for _ in range(50))
    assert given == 2  # 7,000 bytes and the request's 4,000 each; the debt of the last is paid off with time
    assert server.ask(GetBlock(server.factory.blocks[0].hash)) is None
    server.clock.advance(5)
    assert server.serving.spend_certificate(ANN, 100)


def test_what_a_peer_owes_is_forgotten_when_it_leaves(server: Server) -> None:
    server.ask(GetBlock(b"?" * 32))
    assert server.serving._budgets
    server.serving.on_disconnected(ANN)
    assert server.serving._budgets == {}


def test_no_more_blocks_are_read_than_a_frame_may_hold(server: Server) -> None:
    assert len(server.serving._read_final(1, 10 * FINAL_BLOCKS_MAX)) == 6
