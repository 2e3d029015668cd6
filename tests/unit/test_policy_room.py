"""Policy modules beside a mempool: their opinions act, their failures do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.bft.contract import BlockBuilt, BlockRef, Build, Event
from consensus.bft.messages import make_block_reader
from consensus.transaction import Transaction
from ml.policy import ALLOW, Decision, Opinion, Policy, hold, refuse
from node.blocks.budget import BlockBudget
from node.blocks.chain import Chain
from node.blocks.proposer import Proposer
from node.clock import ManualClock
from node.mempool.mempool import Mempool
from node.mempool.receipts import Receipt
from node.metrics import NodeMetrics
from node.policies.calling import ThreadCaller
from node.policies.plan import LoadedPolicy
from node.policies.room import HELD_MAX, HOLD_MS, RELOAD_MS, MakeCaller, PolicyRoom
from node.store.store import Store
from tests.chain_factory import ChainFactory
from tests.fakes.policies import InlineCaller, LiarPolicy, RulePolicy, StuckPolicy


class World:
    """A mempool, a proposer and a policy room on a small real chain."""

    def __init__(
        self, folder: Path, *policies: Policy | LoadedPolicy, make_caller: MakeCaller = InlineCaller
    ) -> None:
        self.factory = ChainFactory()
        self.rules = self.factory.rules
        self.store = Store.open(self.factory.write_home(folder), self.rules)
        self.chain = Chain(self.store.recover().state)
        self.clock = ManualClock(now_ms=10**12)
        self.pool = Mempool(self.rules, self.clock)
        self.metrics = NodeMetrics()
        self.work = 0
        self.tasks: list[asyncio.Task[None]] = []
        loaded = [
            entry if isinstance(entry, LoadedPolicy) else LoadedPolicy(f"p{index}", entry)
            for index, entry in enumerate(policies)
        ]
        self.room = PolicyRoom(
            loaded,
            self.rules,
            self.chain,
            self.pool,
            self.clock,
            self.metrics.registry,
            self._spawn,
            self._on_work,
            make_caller,
        )
        self.posted: list[Event] = []
        self.proposer = Proposer(
            self.rules,
            self.chain,
            self.store,
            self.pool,
            self.clock,
            BlockBudget(300),
            lambda: self.factory.validator_keys[1].public_key,
            lambda _view, _epoch: b"",
            make_block_reader(self.rules.validators),
            self.posted.append,
            lambda built, refused: self.pool.on_built(built),
            lambda: self.room.withheld,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def _on_work(self) -> None:
        self.work += 1

    async def offer(self, *transactions: Transaction) -> list[Receipt]:
        view = self.chain.final_view
        batch = self.pool.prepare([tx.raw for tx in transactions], view, 0)
        opinions = await self.room.judge(batch.candidates)
        return self.pool.admit(batch, [True] * len(batch.candidates), view, 0, opinions)

    async def review(self, wait_ms: int) -> None:
        self.clock.advance(wait_ms)
        self.room.check()
        await asyncio.gather(*self.tasks)
        self.tasks.clear()

    def propose(self) -> Sequence[Transaction]:
        """What this node would put into the next block."""
        parent = self.factory.head
        ref = BlockRef(parent.hash, 0, parent.view, parent.height, parent.parent_view, parent.parent_hash, 0)
        self.posted.clear()
        self.proposer.build(Build(parent.view + 1, ref, None, True))
        (answer,) = self.posted
        assert isinstance(answer, BlockBuilt)
        assert answer.block is not None
        block = self.chain.get_block(answer.block.hash)
        assert block is not None
        return block.transactions

    def read_metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def codes(receipts: Sequence[Receipt]) -> list[str]:
    return [receipt.code or receipt.outcome.value for receipt in receipts]


async def test_without_modules_nothing_is_said(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    tx = world.factory.transfer(0, 1)
    assert await world.room.judge([tx]) == {}
    assert not world.room.withheld
    assert world.room.describe() == ()


async def test_a_refusal_names_the_module_and_its_reason(tmp_path: Path) -> None:
    no_sevens = RulePolicy(lambda amount: refuse("no sevens") if amount == 7 else ALLOW)
    world = World(tmp_path / "home", no_sevens)
    receipts = await world.offer(world.factory.transfer(0, 1, 7), world.factory.transfer(1, 2, 8))
    assert codes(receipts) == ["policy", "accepted"]
    assert receipts[0].reason == "policy p0: no sevens"
    assert world.read_metric("assay_policy_transactions_total", policy="p0", decision="refuse") == 1
    assert world.read_metric("assay_policy_transactions_total", policy="p0", decision="allow") == 1
    assert world.read_metric("assay_policy_calls_total", policy="p0", outcome="ok") == 1


async def test_what_one_module_refuses_the_next_never_sees(tmp_path: Path) -> None:
    first = RulePolicy(lambda amount: refuse("odd") if amount % 2 else ALLOW)
    second = RulePolicy()
    world = World(tmp_path / "home", first, second)
    await world.offer(world.factory.transfer(0, 1, 7), world.factory.transfer(1, 2, 8))
    assert [[tx.amount for tx in batch.transactions] for batch in second.batches] == [[8]]


async def test_what_is_held_waits_but_is_not_proposed_until_it_is_released(tmp_path: Path) -> None:
    policy = RulePolicy(lambda amount: hold("not yet") if amount == 7 else ALLOW)
    world = World(tmp_path / "home", policy)
    held, other = world.factory.transfer(0, 1, 7), world.factory.transfer(1, 2, 8)
    assert codes(await world.offer(held, other)) == ["accepted", "accepted"]
    assert [tx.id for tx in world.propose()] == [other.id]
    await world.review(HOLD_MS)
    assert held.id in world.room.withheld
    policy.rule = lambda amount: ALLOW
    await world.review(HOLD_MS)
    assert not world.room.withheld
    assert world.work == 1
    assert [batch.is_new for batch in policy.batches] == [True, False, False]


async def test_a_reload_that_changes_something_judges_all_that_waits_anew(tmp_path: Path) -> None:
    policy = RulePolicy()
    policy.reload = lambda: True  # type: ignore[attr-defined]
    world = World(tmp_path / "home", policy)
    first, second = world.factory.transfer(0, 1, 7), world.factory.transfer(1, 2, 8)
    await world.offer(first, second)
    policy.rule = lambda amount: refuse("listed since") if amount == 7 else ALLOW
    await world.review(RELOAD_MS)
    assert (world.pool.has(first.id), world.pool.has(second.id)) == (False, True)
    drop = world.pool.get_drop(first.id)
    assert drop is not None
    assert (drop.code, drop.reason) == ("policy", "policy p0: listed since")


async def test_what_is_gone_is_no_longer_held(tmp_path: Path) -> None:
    world = World(tmp_path / "home", RulePolicy(lambda amount: hold("later")))
    tx = world.factory.transfer(0, 1)
    await world.offer(tx)
    world.pool.withdraw(tx.id, "expired", "gone")
    await world.review(1)
    assert not world.room.withheld


async def test_too_much_on_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.policies.room.HELD_MAX", 1)
    world = World(tmp_path / "home", RulePolicy(lambda amount: hold("later")))
    receipts = await world.offer(world.factory.transfer(0, 1), world.factory.transfer(1, 2))
    assert codes(receipts) == ["accepted", "policy"]
    assert HELD_MAX > 1_000


async def test_a_module_that_raises_is_skipped_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(amount: int) -> Opinion:
        raise RuntimeError("out of order")

    world = World(tmp_path / "home", RulePolicy(broken), RulePolicy(lambda amount: refuse("no")))
    for number in range(5):
        assert codes(await world.offer(world.factory.transfer(number, 1))) == ["policy"]
    assert world.read_metric("assay_policy_calls_total", policy="p0", outcome="failed") == 5
    assert caplog.text.count("out of order") >= 1
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    world.clock.advance(60_000)
    await world.offer(world.factory.transfer(0, 1))
    (line,) = [record for record in caplog.records if getattr(record, "unlogged", 0)]
    assert vars(line)["unlogged"] == 4


async def test_a_module_that_fails_refuses_where_the_settings_say_so(tmp_path: Path) -> None:
    def broken(amount: int) -> Opinion:
        raise RuntimeError

    world = World(tmp_path / "home", LoadedPolicy("strict", RulePolicy(broken), on_failure="refuse"))
    receipts = await world.offer(world.factory.transfer(0, 1))
    assert codes(receipts) == ["policy"]
    assert receipts[0].reason == "policy strict: gave no answer, and nothing new comes in without it"


async def test_a_failure_changes_nothing_of_what_waits(tmp_path: Path) -> None:
    policy = RulePolicy(lambda amount: hold("later"))
    world = World(tmp_path / "home", LoadedPolicy("strict", policy, on_failure="refuse"))
    tx = world.factory.transfer(0, 1)
    await world.offer(tx)
    policy.judge = lambda batch: None  # type: ignore[assignment, method-assign, return-value]
    await world.review(HOLD_MS)
    assert world.pool.has(tx.id)
    assert tx.id in world.room.withheld


async def test_a_module_that_hangs_costs_one_deadline_and_one_thread(tmp_path: Path) -> None:
    stuck = StuckPolicy()
    world = World(tmp_path / "home", LoadedPolicy("slow", stuck, 20), make_caller=ThreadCaller)
    try:
        for number in range(4):
            assert codes(await world.offer(world.factory.transfer(number, 5))) == ["accepted"]
        assert stuck.calls == 1
        assert world.read_metric("assay_policy_calls_total", policy="slow", outcome="overrun") == 4
        (report,) = world.room.describe()
        assert report.is_stuck
    finally:
        stuck.release.set()
    async with asyncio.timeout(30):
        while world.room.describe()[0].is_stuck:  # noqa: ASYNC110  its thread tells the loop
            await asyncio.sleep(0.005)
    await world.room.close()


async def test_the_loop_goes_on_while_a_module_thinks(tmp_path: Path) -> None:
    stuck = StuckPolicy()
    world = World(tmp_path / "home", LoadedPolicy("slow", stuck, 10_000), make_caller=ThreadCaller)
    asking = asyncio.ensure_future(world.offer(world.factory.transfer(0, 1)))
    assert await asyncio.to_thread(stuck.called.wait, 30)
    assert not asking.done()
    stuck.release.set()
    assert codes(await asking) == ["policy"]
    await world.room.close()


async def test_who_gives_up_waiting_leaves_the_module_busy_and_nobody_behind_it(tmp_path: Path) -> None:
    stuck = StuckPolicy()
    world = World(tmp_path / "home", LoadedPolicy("slow", stuck, 10_000), make_caller=ThreadCaller)
    asking = asyncio.ensure_future(world.offer(world.factory.transfer(0, 1)))
    assert await asyncio.to_thread(stuck.called.wait, 30)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert codes(await world.offer(world.factory.transfer(1, 2))) == ["accepted"]
    assert stuck.calls == 1
    stuck.release.set()


async def test_the_same_transaction_offered_twice_at_once_is_new_once(tmp_path: Path) -> None:
    policy = RulePolicy()
    world = World(tmp_path / "home", policy, make_caller=ThreadCaller)
    tx = world.factory.transfer(0, 1)
    receipts = await asyncio.gather(world.offer(tx), world.offer(tx))
    assert sorted(receipt[0].outcome.value for receipt in receipts) == ["accepted", "known"]
    assert len(policy.batches) == 1
    await world.room.close()


async def test_a_module_that_cannot_start_keeps_the_node_from_starting(tmp_path: Path) -> None:
    policy = RulePolicy()

    def start() -> None:
        raise OSError("no licence")

    policy.start = start  # type: ignore[attr-defined]
    world = World(tmp_path / "home", policy)
    with pytest.raises(Exception, match=r"policy p0: does not start \(OSError: no licence\)"):
        await world.room.start()


@settings(max_examples=40, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=3), strict=st.booleans())
def test_whatever_modules_answer_own_blocks_are_valid_and_others_are_never_judged_by_them(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int], strict: bool
) -> None:
    async def run() -> None:
        on_failure = "refuse" if strict else "skip"
        liars = [LoadedPolicy(f"liar{n}", LiarPolicy(seed), 50, on_failure) for n, seed in enumerate(seeds)]
        world = World(tmp_path_factory.mktemp("policy") / "home", *liars)
        offered = tuple(world.factory.transfer(number, (number + 1) % 6) for number in range(6))
        receipts = await world.offer(*offered)
        await world.review(HOLD_MS)
        # What others put into a block counts by the ledger's rules alone, also what is refused or held here.
        others = world.factory.build(offered)
        assert len(others.transactions) == 6
        world.rules.check_block(world.factory.state.view(), others, None)
        proposed = world.propose()
        assert not {tx.id for tx in proposed} & world.room.withheld
        assert {tx.id for tx in proposed} <= {r.id for r in receipts if r.code != "policy"}
        assert all(world.pool.has(tx.id) for tx in proposed)
        world.pool.on_final(others, world.factory.state.view())
        world.store.close()

    asyncio.run(run())


def test_decisions_rank_by_severity() -> None:
    assert Decision.ALLOW < Decision.HOLD < Decision.REFUSE
