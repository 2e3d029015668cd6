"""One node's rooms around a real small chain, with a transport that only writes down what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from consensus import vote
from consensus.bft.contract import BlockJudged, Event, Judgement
from consensus.bft.messages import make_block_reader
from consensus.block import Block, encode_block
from consensus.transaction import Transaction
from node.blocks.budget import BlockBudget
from node.blocks.catch_up import CatchUp
from node.blocks.chain import Chain
from node.blocks.finality import Finality
from node.blocks.judge import Judge
from node.clock import ManualClock
from node.network.frames import BlockBody, BodyTransactions, CompactProposal, FinalBlocks, Frame
from node.network.transport import Peer, Priority
from node.store.store import Store
from node.verification import InlineVerifier
from tests.chain_factory import ChainFactory

_Kind = TypeVar("_Kind")


def make_peer(name: str) -> Peer:
    return Peer(name.encode().ljust(33, b"."), name, "memory", is_inbound=False)


def make_stranger(name: str) -> Peer:
    """One whom our settings do not name."""
    return replace(make_peer(name), name="", is_inbound=True)


class WrittenTransport:
    """`sent` is (node key, frame), or (b"", frame) for a broadcast."""

    def __init__(self, *names: str) -> None:
        self.connected = [make_peer(name) for name in names]
        self.sent: list[tuple[bytes, Frame]] = []
        self.penalties: list[tuple[bytes, int, str]] = []

    def peers(self) -> tuple[Peer, ...]:
        return tuple(self.connected)

    def broadcast(
        self, frame: Frame, priority: Priority | None = None, except_peer: bytes | None = None
    ) -> int:
        self.sent.append((b"", frame))
        return len(self.connected)

    def send(self, node_key: bytes, frame: Frame, priority: Priority | None = None) -> bool:
        self.sent.append((node_key, frame))
        return True

    def penalise(self, node_key: bytes, points: int, reason: str) -> None:
        self.penalties.append((node_key, points, reason))

    def take(self, kind: type[_Kind]) -> list[tuple[str, _Kind]]:
        """(peer's name, frame) of what was sent of this kind since the last call."""
        found = [(key, frame) for key, frame in self.sent if isinstance(frame, kind)]
        self.sent = [(key, frame) for key, frame in self.sent if not isinstance(frame, kind)]
        return [(key.rstrip(b".").decode(), frame) for key, frame in found]


class Rooms:
    """Judge, finality and catching up of a node that stands at genesis; `factory` is the world's chain."""

    def __init__(self, folder: Path, factory: ChainFactory, *peers: str) -> None:
        self.factory = factory
        self.rules = factory.rules
        self.store = Store.open(factory.write_home(folder), self.rules)
        self.state = self.store.recover().state
        self.chain = Chain(self.state)
        self.transport = WrittenTransport(*peers)
        self.clock = ManualClock(now_ms=10**12)
        self.verifier = InlineVerifier(self.rules.chain_id)
        self.mempool: dict[bytes, Transaction] = {}
        self.posted: list[Event] = []
        self.valid: list[bytes] = []
        self.finals: list[Block] = []
        self.faults: list[BaseException] = []
        self.budget = BlockBudget(300)
        self.judge = Judge(
            self.rules,
            self.chain,
            self.store,
            self.verifier,
            self.mempool.get,
            self.transport,
            self.clock,
            self.budget,
            make_block_reader(self.rules.validators),
            self.posted.append,
            self._on_valid,
            self.faults.append,
        )
        self.finality = Finality(self.chain, self.store, self.judge, self.finals.extend)
        self.catch_up = CatchUp(
            self.rules,
            self.chain,
            self.store,
            self.finality,
            self.verifier,
            self.transport,
            self.posted.append,
            self.judge.refuse,
            self.faults.append,
        )

    def _on_valid(self, block: Block) -> None:
        self.valid.append(block.hash)
        self.finality.retry()

    async def close(self) -> None:
        await self.catch_up.close()
        await self.judge.close()
        await self.verifier.close()
        self.store.close()
        assert self.faults == []

    def judgements(self) -> dict[bytes, Judgement]:
        """By block hash; fails if one was given twice."""
        events = [event for event in self.posted if isinstance(event, BlockJudged)]
        found = {event.block_hash: event.judgement for event in events}
        assert len(found) == len(events), "a block was judged twice"
        return found

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.posted)

    async def settle(self, ask: Callable[[], object]) -> None:
        """Let the rooms work until it is so."""
        try:
            async with asyncio.timeout(10):
                while not ask():  # noqa: ASYNC110 - rooms have no event for every question
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"did not come about; posted {self.posted}, faults {self.faults}") from None

    async def pause(self, seconds: float = 0.02) -> None:
        """Give the rooms time in which nothing may happen."""
        await asyncio.sleep(seconds)

    async def judge_all(self, *blocks: Block) -> None:
        """Have these judged valid from whole bodies."""
        for block in blocks:
            self.judge.judge(block.hash, block.header)
            self.judge.on_block_body(BlockBody(block.hash, encode_block(block)))
        await self.settle(
            lambda: all(
                self.chain.get_block(block.hash) or self.chain.finalized.height >= block.header.height
                for block in blocks
            )
        )


def make_compact(block: Block) -> CompactProposal:
    certificate = block.parent_certificate
    return CompactProposal(
        b"",
        tuple(tx.id for tx in block.transactions),
        block.scores,
        block.outcomes,
        b"" if certificate is None else vote.encode_certificate(certificate),
    )


def make_body_answer(block: Block, *places: int) -> BodyTransactions:
    return BodyTransactions(block.hash, places, tuple(block.transactions[place].raw for place in places))


def make_batch(factory: ChainFactory, first: int, last: int) -> FinalBlocks:
    """Final blocks `first` to `last` of the factory's chain, with the last one's own finalization."""
    return FinalBlocks(
        first,
        tuple(encode_block(block) for block in factory.blocks[first - 1 : last]),
        vote.encode_certificate(factory.finalizations[last - 1]),
        (),
    )
