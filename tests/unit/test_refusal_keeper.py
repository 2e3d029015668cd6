"""The keeper of refusals: what is logged and proven, and that no head ever contradicts an earlier one unsaid."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from consensus.block import Header
from consensus.ledger.scoring import Contribution, Explanation
from consensus.refusal import (
    EMPTY_LOG,
    LogBeginning,
    RefusalEntry,
    get_head,
    judge_leaves,
    verify_entry,
)
from node.blocks.chain import Chain
from node.clock import ManualClock
from node.duties.refusal_keeper import LOGGED_BURST, LOGGED_PER_SECOND, MARK_BLOCKS, RefusalKeeper
from node.mempool.refusals import Refusal
from node.metrics import NodeMetrics
from node.simulation.memory_disk import MemoryDisk
from node.store.refusal_log import RefusalLog
from tests.chain_factory import ChainFactory
from tests.ledger_chain import alter

HOME = Path("home")
OWN = 1  # the validator whose keeper it is


class Bench:
    """A chain of four validators that grows block by block, and the keeper of one of them."""

    def __init__(self) -> None:
        self.factory = ChainFactory()
        self.disk = MemoryDisk(garbles=True)
        self.clock = ManualClock(now_ms=10**12)
        self.metrics = NodeMetrics()
        self.faults: list[BaseException] = []
        self.key = self.factory.validator_keys[OWN].public_key
        self.reads = 0
        self.keeper = self.open()

    # as Headers has them
    @property
    def finalized_height(self) -> int:
        return len(self.factory.blocks)

    def get_header(self, height: int) -> Header:
        self.reads += 1
        return self.factory.blocks[height - 1].header

    def open(self) -> RefusalKeeper:
        rules = self.factory.rules
        log = RefusalLog.open(self.disk, HOME, rules.genesis.digest)
        chain, parameters = Chain(self.factory.state), rules.parameters
        return RefusalKeeper(
            log, chain, self, parameters, self.clock, self.metrics, self.key, self.faults.append
        )

    def refuse(self, *, score: int = 9_000, modules: bytes = b"m" * 32) -> Refusal:
        words = Contribution("amount", 5, 40, "amount is 5 times the mean")
        calm = Contribution("age", 5, -4, "the account is old")
        why = Explanation(score, 2, 0, 36, (words, calm))
        tx = self.factory.transfer(0, 1)
        refusal = Refusal(tx, score, self.finalized_height, (("fraud", why),), modules)
        self.keeper.note(refusal)
        return refusal

    def grow(self, count: int) -> None:
        for _ in range(count):
            block = self.factory.build()
            if block.header.proposer == self.key:
                head = self.keeper.commit(block.header.parent_hash)
                block = alter(block, refusal_count=head.count, refusal_root=head.root)
            self.factory.append(block)
            self.keeper.on_final(block.header)

    def list_own(self) -> list[Header]:
        return [block.header for block in self.factory.blocks if block.header.proposer == self.key]

    def crash(self, rng: random.Random) -> None:
        self.disk.crash(rng)
        self.keeper = self.open()


def list_leaves(log: RefusalLog, count: int) -> list[bytes]:
    return [log.get(index).leaf for index in range(count)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_blocks_of_a_node_without_refusals_commit_to_the_empty_log(bench: Bench) -> None:
    bench.grow(8)
    assert [get_head(header) for header in bench.list_own()] == [EMPTY_LOG] * 2
    assert bench.keeper.prove(0) is None


def test_a_refusal_is_proven_once_a_final_block_of_the_nodes_own_counts_it(bench: Bench) -> None:
    refusal = bench.refuse()
    logged = bench.keeper.get(refusal.transaction.id)
    assert logged is not None
    assert logged.entry == RefusalEntry(
        refusal.transaction.id,
        9_000,
        b"m" * 32,
        ("amount is 5 times the mean",),
        bench.factory.head.timestamp_ms,
        0,
    )
    assert logged.transaction == refusal.transaction
    assert bench.keeper.prove(0) is None
    bench.grow(8)
    found = bench.keeper.prove(0)
    assert found is not None
    assert found.header == bench.list_own()[-1]
    assert verify_entry(get_head(found.header), logged.leaf, 0, found.siblings)
    bench.refuse()
    assert bench.keeper.prove(1) is None


def test_what_was_refused_before_is_not_logged_again_by_the_same_modules(bench: Bench) -> None:
    refusal = bench.refuse()
    for _ in range(3):
        bench.keeper.note(refusal)
    assert len(bench.keeper.log) == 1
    other = Refusal(refusal.transaction, 9_500, 0, (), b"n" * 32)
    bench.keeper.note(other)
    assert len(bench.keeper.log) == 2
    newest = bench.keeper.get(refusal.transaction.id)
    assert newest is not None
    assert newest.index == 1
    bench.keeper.close()
    bench.keeper = bench.open()
    bench.keeper.note(refusal)
    assert len(bench.keeper.log) == 2


def test_what_strangers_can_make_it_write_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOGGED_BURST == 20_000
    monkeypatch.setattr("node.duties.refusal_keeper.LOGGED_BURST", 5)
    bench.keeper = bench.open()
    for _ in range(9):
        bench.refuse()
    assert (len(bench.keeper.log), bench.keeper.unlogged) == (5, 4)
    assert b"assay_refusals_unlogged_total 4.0" in bench.metrics.render()
    bench.clock.advance(3_000)
    for _ in range(20):
        bench.refuse()
    assert len(bench.keeper.log) == min(10, 5 + 3 * LOGGED_PER_SECOND)


def test_no_crash_makes_a_head_contradict_an_earlier_one(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench()
    for _ in range(60):
        for _ in range(rng.randrange(4)):
            bench.refuse()
        bench.grow(rng.randrange(1, 6))
        if rng.random() < 0.5:
            bench.crash(rng)
    bench.grow(4)
    assert bench.keeper.log.number == 0
    own = bench.list_own()
    leaves = list_leaves(bench.keeper.log, own[-1].refusal_count)
    assert len(leaves) > 20
    for earlier, later in pairwise(own):
        assert judge_leaves(earlier, later, leaves[: later.refusal_count]) == "extends"


@pytest.mark.parametrize("loss", ["all", "end"])
def test_a_log_that_was_lost_begins_anew_and_says_so(bench: Bench, loss: str) -> None:
    for _ in range(5):
        bench.refuse()
    bench.grow(8)
    before = bench.list_own()[-1]
    path = HOME / "refusals-0.log"
    if loss == "all":
        bench.disk.remove(path)
    else:
        del bench.disk.get_data(path)[-300:]
    bench.keeper = bench.open()
    assert bench.keeper.prove(0) is None  # nothing is claimed that the log does not hold
    bench.refuse()
    bench.grow(8)
    assert bench.keeper.log.number == 1
    first = bench.keeper.log.get(0).entry
    assert isinstance(first, LogBeginning)
    assert (first.lost, first.block_hash, first.height) == (get_head(before), before.hash, before.height)
    after = bench.list_own()[-1]
    leaves = list_leaves(bench.keeper.log, after.refusal_count)
    assert judge_leaves(before, after, leaves) == "lost"
    # And it is said once: the new log grows from there, over restarts too.
    number = len(bench.list_own())
    bench.keeper = bench.open()
    bench.refuse()
    bench.grow(8)
    assert bench.keeper.log.number == 1
    assert judge_leaves(bench.list_own()[number - 1], bench.list_own()[-1],
                        list_leaves(bench.keeper.log, bench.list_own()[-1].refusal_count)) == "extends"  # fmt: skip


def test_a_log_is_durable_before_a_block_commits_to_it(bench: Bench) -> None:
    bench.refuse()
    head = bench.keeper.commit(bench.factory.head.hash)
    assert head.count == 1
    path = HOME / "refusals-0.log"
    assert bench.disk.get_durable_bytes(path) == len(bench.disk.get_data(path))


def test_a_block_that_is_not_final_yet_binds_as_well(bench: Bench) -> None:
    chain = bench.keeper._chain
    bench.refuse()
    while bench.factory.build().header.proposer != bench.key:
        bench.grow(1)
    head = bench.keeper.commit(bench.factory.head.hash)
    block = alter(bench.factory.build(), refusal_count=head.count, refusal_root=head.root)
    chain.add(block, bench.factory.rules.check_block(chain.final_view, block, None))
    bench.disk.remove(HOME / "refusals-0.log")
    log = RefusalLog.open(bench.disk, HOME, bench.factory.rules.genesis.digest)
    bench.keeper.log = log
    assert bench.keeper.commit(block.hash).count == 1
    first = bench.keeper.log.get(0).entry
    assert isinstance(first, LogBeginning)
    assert first.block_hash == block.hash


def test_a_start_reads_few_headers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.refuse()
    bench.grow(40)
    bench.keeper.close()
    bench.reads = 0
    bench.keeper = bench.open()
    assert bench.reads == 1
    assert bench.keeper.prove(0) is not None
    assert MARK_BLOCKS == 1_000
    monkeypatch.setattr("node.duties.refusal_keeper.MARK_BLOCKS", 10)
    bench.grow(25)
    bench.reads = 0
    bench.keeper = bench.open()  # as after a crash of the process: nothing was closed
    assert bench.reads <= 12


def test_a_full_disk_ends_the_node(bench: Bench) -> None:
    bench.disk.bytes_left = 0
    bench.refuse()
    assert len(bench.faults) == 1
