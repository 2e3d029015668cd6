"""Stake among whole nodes of the deterministic world: who joins, leaves, stays away or lies, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from consensus.ledger import accusation, rewards, staking
from consensus.transaction import KIND_UNBOND, KIND_UNJAIL, KIND_WITHDRAW
from node.commands.simulate import format_replay
from node.duties.accuser import Accuser
from node.simulation.config import FULL_NODES, SimulationConfig
from node.simulation.full_nodes import world as worlds
from node.simulation.full_nodes.casting import NOBODY, Cast, cast_run
from node.simulation.full_nodes.plain_stakes import BONDED, TOMBSTONED, PlainStakes
from node.simulation.full_nodes.world import NodeWorld

STEADY: Final = replace(FULL_NODES, epoch_blocks=4, unrest=0.0)
RESTLESS: Final = replace(FULL_NODES, epoch_blocks=3, unrest=1.0)

# Seeds that once broke a run, with the options that they need, and what it was.
REGRESSION_SEEDS: list[tuple[int, dict[str, Any], str]] = [
    (1078, {}, "votes that waited in an engine were answered after its epoch had ended by catching up"),
    (1004, {}, "a bond that its sender thought expired became final after a rotation, and a strange key sat"),
    (4, {"villains": ("equivocator",)}, "a villain forged a block for a view that its own chain had passed"),
    (
        7,
        {"villains": ("equivocator",)},
        "who is a quorum by itself finalized what nobody had heard certified",
    ),
]


def run(config: SimulationConfig, seed: int, note_replay: Callable[[str], None]) -> NodeWorld:
    note_replay(format_replay(config, seed))
    world = NodeWorld(config, seed)
    assert world.run() == ""
    return world


def get_stakes(world: NodeWorld) -> PlainStakes:
    stakes = world.checkers.ledger.plain.stakes
    assert stakes is not None
    return stakes


def list_kinds(world: NodeWorld) -> set[int]:
    return {tx.kind for block in world.checkers.ledger.plain.blocks for tx in block.transactions}


@pytest.mark.parametrize(("seed", "options", "what"), REGRESSION_SEEDS)
def test_what_broke_a_run_once_does_not_again(seed: int, options: dict[str, Any], what: str) -> None:
    assert NodeWorld(replace(FULL_NODES, epoch_blocks=4, **options), seed).run() == "", what


def test_a_node_from_outside_bonds_and_proposes(seed: int, note_replay: Callable[[str], None]) -> None:
    config = replace(STEADY, crashes=0, lost_stores=0, faulty_ms=2_000)
    for number in range(3):
        world = run(config, seed + number, note_replay)
        key = world.chain.validator_keys[config.nodes].public_key
        if any(block.header.proposer == key for block in world.checkers.ledger.plain.blocks):
            return
    pytest.fail("in no run did the fifth node propose")


def test_validators_leave_with_their_money_and_the_absent_come_back(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    kinds: set[int] = set()
    for number in range(8):
        world = run(RESTLESS, seed + number, note_replay)
        kinds |= list_kinds(world)
        if {KIND_UNBOND, KIND_WITHDRAW, KIND_UNJAIL} <= kinds:
            return
    pytest.fail(f"final are only {kinds}")


@pytest.mark.parametrize("config", [STEADY, RESTLESS])
@pytest.mark.parametrize("villain", ["equivocator", "double-identity"])
def test_who_contradicts_itself_is_slashed_and_never_sits_again(
    seed: int, config: SimulationConfig, villain: str, note_replay: Callable[[str], None]
) -> None:
    for number in range(8):
        world = run(replace(config, villains=(villain,)), seed + number, note_replay)
        if world.safety.accusations:
            break
    else:
        pytest.fail("in no run did it tell a lie that two honest nodes could compare")
    stakes = get_stakes(world)
    liar = world.chain.validator_keys[next(iter(world.villains))].address
    assert stakes.slashed == [liar]
    assert stakes.pools[liar].status == TOMBSTONED
    assert stakes.burned > 0
    assert {pool.status for operator, pool in stakes.pools.items() if operator != liar} >= {BONDED}


# --- the world's own promise ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize(("nodes", "liars"), [(4, 0), (4, 1), (7, 2), (10, 3)])
def test_no_set_that_joining_leaving_and_jail_can_make_gives_the_faulty_a_third(
    nodes: int, liars: int, number: int
) -> None:
    config = replace(RESTLESS, nodes=nodes, joiners=2)
    villains = frozenset(random.Random(number).sample(range(nodes), liars))
    cast = cast_run(config, number, villains)
    assert cast.is_restless
    assert cast.anchor not in cast.faulty
    assert cast.leaver != cast.anchor
    rng = random.Random(f"sets {number}")
    everybody = dict(enumerate((*cast.stakes, *(cast.joiner_units for _ in cast.joiners))))
    for _ in range(50):
        gone = set(rng.sample(sorted(everybody), rng.randrange(len(everybody)))) - {cast.anchor}
        weights = {index: stake for index, stake in everybody.items() if index not in gone}
        assert cast.is_sound(weights)


def test_a_set_that_breaks_the_promise_is_the_worlds_own_fault() -> None:
    cast = Cast((1, 1, 1, 1), (), 1, NOBODY, False, frozenset({3}))
    assert cast.is_sound({0: 1, 1: 1, 2: 1, 3: 1})
    assert not cast.is_sound({0: 1, 1: 1, 3: 1})


# --- mistakes that must not pass --------------------------------------------------------------------------


def find_complaint(config: SimulationConfig, seed: int, runs: int = 6) -> str:
    """The invariant that the first bad run breaks, or ""."""
    for number in range(runs):
        complaint = NodeWorld(config, seed + number).run()
        if complaint:
            return complaint.split(":")[0]
    return ""


def test_accusers_that_accuse_nobody(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accuser, "on_evidence", lambda *_: None)
    monkeypatch.setattr(worlds, "LEVEL_MS_MAX", 4_000)
    assert find_complaint(replace(STEADY, villains=("equivocator",)), seed) == "punished"


def test_a_ledger_that_slashes_what_is_bonded_by_less(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accusation, "_compute_kept", lambda tokens, _: tokens - tokens // 100)
    assert find_complaint(replace(STEADY, villains=("equivocator",)), seed) == "supply"


def test_a_ledger_whose_shares_are_worth_more_than_is_there(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        staking, "compute_value", lambda part, tokens, shares: -(-part * tokens // shares) if shares else 0
    )
    assert find_complaint(RESTLESS, seed) in ("stakes", "seats", "accounts", "money")


def test_a_ledger_that_issues_to_those_who_were_absent(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    split = rewards.split_reward

    def split_all(epoch_set: Any, parameters: Any, reward: int, proposer: int, _: Any) -> Any:
        return split(epoch_set, parameters, reward, proposer, tuple(range(len(epoch_set.operators))))

    monkeypatch.setattr(rewards, "split_reward", split_all)
    assert find_complaint(STEADY, seed) == "supply"
