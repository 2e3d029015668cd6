"""Whole nodes through epochs in the deterministic world: sets that change, crashes at boundaries, faults, liars."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from consensus.transaction import KIND_BOND
from node.commands.simulate import format_replay
from node.engine.journal import Journal
from node.simulation.config import FULL_NODES, SimulationConfig
from node.simulation.full_nodes.world import NodeWorld, simulate_nodes
from node.simulation.timeline import Timeline

_NONE: dict[str, Any] = dict.fromkeys(
    (
        *("loss", "duplication", "slow_share", "crashes", "partitions", "build_failures", "blackouts"),
        *("slow_links", "flipped_bits", "full_disks", "failed_syncs", "lost_journals", "restarts"),
        *("pauses", "clock_skews", "lost_stores"),
    ),
    0.0,
)
CALM: Final = replace(FULL_NODES, **_NONE, faulty_ms=1_200, epoch_blocks=4)
STORMY: Final = replace(FULL_NODES, faulty_ms=2_000, epoch_blocks=4)
SHORT: Final = replace(CALM, faulty_ms=500, epoch_blocks=2)


def run(config: SimulationConfig, seed: int, note_replay: Callable[[str], None]) -> NodeWorld:
    note_replay(format_replay(config, seed))
    world = NodeWorld(config, seed, timeline=Timeline())
    assert world.run() == ""
    return world


def test_a_calm_network_goes_through_epochs_whose_stakes_differ(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    world = run(CALM, seed, note_replay)
    assert min(world.safety.opened.values()) >= 4
    kinds = {tx.kind for block in world.checkers.ledger.plain.blocks for tx in block.transactions}
    assert KIND_BOND in kinds
    digests = {seats.validators.digest for seats in world.safety.sets.values()}
    assert len(digests) > 2
    assert world.checkers.penalties == []


def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    assert simulate_nodes(STORMY, seed) == simulate_nodes(STORMY, seed, timeline=Timeline())


@pytest.mark.parametrize("number", range(4))
def test_nodes_that_fall_and_come_back_agree_through_epochs(
    seed: int, number: int, note_replay: Callable[[str], None]
) -> None:
    world = run(replace(STORMY, lost_stores=0.2, crashes=0.004), seed + number, note_replay)
    assert world.crashes > 0
    assert max(world.safety.opened.values()) >= 2


@pytest.mark.parametrize("number", range(6))
def test_a_crash_between_any_two_effects_of_a_change_loses_nothing(
    seed: int, number: int, note_replay: Callable[[str], None]
) -> None:
    """With two blocks to an epoch every other effect belongs to a change."""
    boundaries = NodeWorld(SHORT, seed)
    assert boundaries.run() == ""
    crash_at = random.Random(f"{seed}/{number}").randrange(boundaries.boundaries // 2)
    world = run(replace(SHORT, crash_at=crash_at), seed, note_replay)
    assert world.crashes == 1


@pytest.mark.parametrize("villain", ["equivocator", "double-identity", "liar-in-sync", "wrong-blocks"])
def test_who_lies_through_epochs_harms_nobody(
    seed: int, villain: str, note_replay: Callable[[str], None]
) -> None:
    world = run(replace(STORMY, villains=(villain,)), seed, note_replay)
    assert max(world.safety.opened.values()) >= 1


# --- mistakes that must not pass --------------------------------------------------------------------------


def find_violation(config: SimulationConfig, seeds: range) -> str:
    for seed in seeds:
        violation = simulate_nodes(config, seed).violation
        if violation:
            return violation
    return ""


def test_a_journal_that_forgets_the_epoch_it_entered_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without its store signs again where it has signed before."""
    monkeypatch.setattr(Journal, "compute_observe_until", lambda *_: 0)
    lost = replace(FULL_NODES, lost_stores=0.8, partitions=0.9, epoch_blocks=3, joiners=0)
    assert find_violation(lost, range(193, 260)).startswith("single votes")  # some 4 % of runs show it


# --- leaders that are drawn -----------------------------------------------------------------------------


def count_reveals(world: NodeWorld) -> int:
    reveals = [header.reveal for header in world.checkers.ledger.plain.headers if header.reveal]
    assert len(set(reveals)) == len(reveals)  # no layer is news twice
    return len(reveals)


def test_drawn_leaders_reveal_in_a_calm_network(seed: int, note_replay: Callable[[str], None]) -> None:
    world = run(replace(CALM, leader_election="onion"), seed, note_replay)
    assert min(world.safety.opened.values()) >= 3
    assert count_reveals(world) > 3


@pytest.mark.parametrize("number", range(4))
def test_drawn_leaders_go_on_through_crashes_and_lost_stores(
    seed: int, number: int, note_replay: Callable[[str], None]
) -> None:
    stormy = replace(STORMY, leader_election="onion", lost_stores=0.2, crashes=0.004)
    world = run(stormy, seed + number, note_replay)
    assert world.crashes > 0
    count_reveals(world)
