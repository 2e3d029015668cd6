"""Refusal logs of whole nodes in the deterministic world: crashes, lost disks, and nothing papered over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus import merkle
from consensus.block import Header
from consensus.refusal import LogBeginning, LogHead, encode_entry
from node.commands.simulate import format_replay
from node.duties.refusal_keeper import RefusalKeeper
from node.simulation.checkers import Violation
from node.simulation.config import FULL_NODES
from node.simulation.full_nodes.refusal_checkers import check_refusal_log
from node.simulation.full_nodes.world import NodeWorld
from tests.chain_factory import ChainFactory

CONFIG = replace(FULL_NODES, faulty_ms=2_000, lost_stores=0.9, crashes=0.006)
RUNS = 10


def test_no_committed_root_contradicts_a_later_one_unsaid(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    committed = begun_anew = taken = 0
    for number in range(RUNS):
        note_replay(format_replay(CONFIG, seed + number))
        world = NodeWorld(CONFIG, seed + number)
        assert world.run() == ""
        headers = world.checkers.ledger.plain.headers
        committed += sum(1 for header in headers if header.refusal_count)
        taken += len(world.checkers._taken)
        nodes = [host.node for host in world.hosts]
        begun_anew += sum(1 for node in nodes if node is not None and node.refusal_keeper.log.number)
    assert committed > RUNS
    assert taken > 0
    assert begun_anew > 0  # or this test would show little


def test_a_node_that_keeps_silent_about_a_lost_log_is_found_out(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RefusalKeeper, "_follows", lambda *_: True)
    complaints = [NodeWorld(CONFIG, seed + number).run() for number in range(RUNS)]
    assert any("keeps silent" in complaint for complaint in complaints)


def test_the_checker_excuses_only_what_the_world_took() -> None:
    leaves = [encode_entry(LogBeginning(LogHead(1, bytes([n]) * 32), b"b" * 32, 1, n)) for n in range(4)]
    first = ChainFactory().head

    def make(height: int, count: int) -> Header:
        root = merkle.compute_root(leaves[:count])
        return replace(first, height=height, refusal_count=count, refusal_root=root)

    own = [make(3, 1), make(7, 4)]
    check_refusal_log(0, leaves, own, None)
    with pytest.raises(Violation, match="does not begin with"):
        check_refusal_log(0, leaves[:3], own, None)
    check_refusal_log(0, [], own, 7)
    with pytest.raises(Violation, match="keeps silent"):
        check_refusal_log(0, [], own, 6)
    anew = [encode_entry(LogBeginning(LogHead(4, own[1].refusal_root), own[1].hash, 7, 9))]
    root = merkle.compute_root(anew)
    after = replace(first, height=9, refusal_count=1, refusal_root=root)
    check_refusal_log(0, anew, [*own, after], 8)
    with pytest.raises(Violation, match="does not begin with"):
        check_refusal_log(0, anew, [*own, after], None)
