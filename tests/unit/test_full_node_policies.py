"""Whole nodes with policies: what one refuses, another includes; and none stops for a module."""

from __future__ import annotations

from pathlib import Path

from ml.policy import ALLOW, refuse
from node.full_node import FullNode
from node.policies.calling import ThreadCaller
from node.policies.plan import LoadedPolicy
from tests.fakes.full_nodes import FullNodes
from tests.fakes.policies import InlineCaller, LiarPolicy, RulePolicy, StuckPolicy


async def test_a_block_that_holds_what_a_node_refuses_is_judged_as_ever(tmp_path: Path) -> None:
    nodes = FullNodes(tmp_path, 3)
    nodes.policies[0] = [
        LoadedPolicy("picky", RulePolicy(lambda amount: refuse("no") if amount == 7 else ALLOW))
    ]
    nodes.make_caller = InlineCaller
    try:
        await nodes.start(0, 1, 2, 3)
        tx = nodes.transfer(0, amount=7)
        (receipt,) = await nodes.get(0).entrance.submit([tx.raw])
        assert (receipt.code, receipt.reason) == ("policy", "policy picky: no")
        record = nodes.get(0).desk.get_transaction(tx.id)
        assert record is not None
        assert (record.status, record.reasons) == ("refused", ("policy picky: no",))
        assert nodes.get(0).refusals.get(tx.id) is None
        await nodes.submit(1, [tx])
        await nodes.wait_transactions([tx])
        assert len(nodes.get_roots()) == 1
    finally:
        await nodes.close()


async def test_lying_raising_and_hanging_modules_stop_no_node(tmp_path: Path) -> None:
    nodes = FullNodes(tmp_path, 4)
    stuck = StuckPolicy()
    for place in range(4):
        nodes.policies[place] = [LoadedPolicy("liar", LiarPolicy(place), 50)]
    nodes.policies[3].insert(0, LoadedPolicy("stuck", stuck, 20))
    nodes.make_caller = ThreadCaller
    try:
        await nodes.start(0, 1, 2, 3)
        sent = [nodes.transfer(sender) for sender in range(12)]
        for number, tx in enumerate(sent):
            node: FullNode = nodes.get(number % 4)
            await node.entrance.submit([tx.raw])
        await nodes.wait_final(nodes.get(0).chain.finalized.height + 3)
        assert len(nodes.get_roots()) == 1
        nodes.check()
        assert nodes.get(3).desk.get_status().policies[0].is_stuck
    finally:
        stuck.release.set()
        await nodes.close()
