"""Whole nodes with one line broken: the checkers must tell, each mutant by the name of an invariant.

A mutant is broken in all honest nodes of a run, so that nobody in it could notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consensus.transaction import Transaction
from node.blocks.judge import Judge
from node.mempool.mempool import Mempool
from node.network import gossip
from node.network.frames import BlockBody
from node.network.gossip import Gossip
from node.simulation.config import SimulationConfig
from node.simulation.full_nodes import workload
from node.simulation.full_nodes.world import NodeWorld
from node.store.store import Store
from node.verification import Verifier

CALM = SimulationConfig(
    full_nodes=True, loss=0, slow_share=0, crashes=0, partitions=0, build_failures=0, faulty_ms=900
)
RUNS = 4  # of one mutant, at most: not every run comes across what is broken


def find_complaint(config: SimulationConfig, seed: int) -> str:
    """The invariant that the first bad run breaks, or ""."""
    for number in range(RUNS):
        complaint = NodeWorld(config, seed + number).run()
        if complaint:
            return complaint.split(":")[0]
    return ""


def test_a_store_that_syncs_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "sync", lambda _: None)
    assert find_complaint(replace(CALM, crashes=0.01), seed) in ("durable bodies", "no way back")


def test_judges_that_check_no_signature(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(
        _: Verifier, transactions: Sequence[Transaction], *, urgent: bool = False
    ) -> list[bool]:
        del urgent
        return [True] * len(transactions)

    monkeypatch.setattr(Verifier, "verify_new", believe)
    assert find_complaint(CALM, seed) in ("door", "signatures")  # what clients spoiled went through


def test_a_mempool_that_offers_no_proposer_what_it_took(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mempool, "select", lambda *_: [])
    monkeypatch.setattr(workload, "SETTLE_MS_MAX", 2_000)
    assert find_complaint(replace(CALM, faulty_ms=200), seed) == "acknowledged"


def test_a_mempool_that_keeps_what_is_final(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mempool, "on_final", lambda *_: None)
    monkeypatch.setattr(Mempool, "on_built", lambda *_: None)  # nor do proposers mend it
    monkeypatch.setattr(workload, "SETTLE_MS_MAX", 2_000)
    # What nobody can include any more stands before what waits.
    assert find_complaint(replace(CALM, faulty_ms=300), seed) in ("leftovers", "acknowledged")


def test_gossip_without_a_quota(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: Gossip, node_key: bytes, ids: Sequence[bytes]) -> None:
        for transaction_id in ids:
            if transaction_id not in self._wanted:
                self._wanted[transaction_id] = gossip._Wanted(node_key)
                self._wanted_counts[node_key] += 1

    monkeypatch.setattr(Gossip, "_take_announcement", take)
    config = replace(CALM, villains=("empty-announcer",))
    assert find_complaint(config, seed) == "bounded memory"


def test_a_judge_that_takes_it_out_on_whoever_has_not_got_a_block(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Judge.on_block_body

    def blame(self: Judge, frame: BlockBody) -> None:
        for peer in self._bodies._transport.peers():
            self._bodies._transport.penalise(peer.node_key, 1, "it should have been quicker")
        take(self, frame)

    monkeypatch.setattr(Judge, "on_block_body", blame)
    assert find_complaint(replace(CALM, loss=0.1, crashes=0.01), seed) == "peace"


def test_a_node_that_cannot_show_why_its_blocks_are_final(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "get_certificate", lambda *_: None)
    assert find_complaint(CALM, seed) == "certificates"
