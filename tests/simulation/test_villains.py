"""Every villain, and what honest nodes do about it; in layouts of stake up to just under a third."""

from collections.abc import Callable

import pytest

from consensus.bft.contract import Effect, Event, Message, Proposal, Received
from consensus.bft.messages import check_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import NOTARIZE, Certificate, Vote
from node.simulation import toys
from node.simulation.config import SimulationConfig
from node.simulation.villains import VILLAINS, Villain, make_villain, parse_villain
from node.simulation.world import World

RUNS = 5
FOUR = (1, 1, 1, 1)
JUST_UNDER = (33, 23, 22, 22)  # validator 0 alone holds just under a third
LAYOUTS = {"four": (FOUR, 3), "just under a third": (JUST_UNDER, 0), "seven": ((1,) * 7, 2)}


def play(
    name: str, seed: int, stakes: tuple[int, ...] = FOUR, at: int = 3, runs: int = RUNS, **faults: object
) -> list[World]:
    """Runs with this villain at this place; every invariant held."""
    worlds = []
    for number in range(runs):
        config = SimulationConfig(
            nodes=len(stakes),
            stakes=stakes,
            villains=(f"{name}@{at}",),
            **{"faulty_ms": 1_200, **faults},  # type: ignore[arg-type]
        )
        world = World(config, seed + number, listen)
        assert world.run() == ""
        assert len(world.safety.chain) > 1
        worlds.append(world)
    return worlds


class Listener(SimplexEngine):
    """An honest engine that remembers what reached it."""

    heard: list[tuple[int, Message]]  # its view, the message

    def step(self, event: Event) -> tuple[Effect, ...]:
        if isinstance(event, Received):
            self.heard.append((self.view, event.message))
        return super().step(event)


def listen(config: EngineConfig, sign: Callable[[bytes], bytes]) -> Listener:
    engine = Listener(config, sign)
    engine.heard = []
    return engine


def list_heard(worlds: list[World]) -> list[tuple[int, Message]]:
    """What reached the honest engines that are still up."""
    engines = [host.engine for world in worlds for host in world.hosts]
    return [heard for engine in engines if isinstance(engine, Listener) for heard in engine.heard]


def list_accused(worlds: list[World]) -> set[int]:
    return {evidence.first.signer for world in worlds for evidence in world.safety.accusations}


def list_proposers(worlds: list[World]) -> set[int]:
    return {block.proposer for world in worlds for block in world.safety.chain[1:]}


@pytest.mark.parametrize("name", VILLAINS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_safety_and_finality_hold_against_each_villain_in_each_layout(
    name: str, layout: str, seed: int
) -> None:
    stakes, at = LAYOUTS[layout]
    play(name, seed + 1_000, stakes, at, runs=1)


@pytest.mark.parametrize("name", ["equivocator", "equivocating-leader", "equivocating-voter"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_says_two_things_is_proven_to_lie_and_nobody_else_is(name: str, layout: str, seed: int) -> None:
    stakes, at = LAYOUTS[layout]
    assert list_accused(play(name, seed, stakes, at)) == {at}


def test_one_key_on_two_machines_gives_itself_away(seed: int) -> None:
    worlds = play("double-identity", seed)
    assert list_accused(worlds) == {3}
    assert list_proposers(worlds) >= {0, 1, 2}


def test_nobody_hears_a_silent_validator_and_its_views_are_skipped(seed: int) -> None:
    worlds = play("silent", seed)
    assert list_accused(worlds) == set()
    assert list_proposers(worlds) == {0, 1, 2}
    assert not any(isinstance(message, Vote) and message.signer == 3 for _, message in list_heard(worlds))


def test_those_whom_a_selective_sender_shuns_learn_all_from_the_others(seed: int) -> None:
    worlds = play("selective-sender", seed, at=3)
    assert list_accused(worlds) == set()
    for world in worlds:
        heights = [world.safety.heights[node] for node in range(3)]  # 0 and 1 hear it, 2 does not
        assert heights[2] >= max(heights) - 3


def test_a_nullifier_costs_its_own_views_alone(seed: int) -> None:
    worlds = play("nullifier", seed, crashes=0, loss=0, partitions=0)
    assert list_accused(worlds) == set()
    assert list_proposers(worlds) == {0, 1, 2}


def test_a_withheld_vote_is_not_needed(seed: int) -> None:
    worlds = play("vote-withholder", seed)
    assert list_accused(worlds) == set()
    heard = [message for _, message in list_heard(worlds)]
    assert not any(isinstance(message, Vote) and message.signer == 3 for message in heard)
    # It proposes like anybody, and a proposal is its notarize vote.
    assert any(isinstance(message, Proposal) and message.block.proposer == 3 for message in heard)


def test_late_votes_come_after_their_view_and_harm_nobody(seed: int) -> None:
    worlds = play("late-voter", seed)
    assert list_accused(worlds) == set()
    late = [view - m.subject.view for view, m in list_heard(worlds) if isinstance(m, Vote) and m.signer == 3]
    assert late
    assert sum(delay >= 1 for delay in late) > 0.8 * len(late)


def test_a_block_whose_body_is_withheld_is_notarized_by_nobody(seed: int) -> None:
    worlds = play("body-withholder", seed)
    assert list_proposers(worlds) == {0, 1, 2}
    assert list_accused(worlds) == set()


def test_nothing_forged_reaches_an_engine_and_nobody_is_framed(seed: int) -> None:
    worlds = play("forger", seed)
    assert list_accused(worlds) == set()
    assert {sender for world in worlds for sender in world.refused} == {3}
    assert sum(world.refused[3] for world in worlds) > 100
    for _, message in list_heard(worlds):
        check_message(message, worlds[0].validators, toys.CHAIN_ID, toys.verify)


def test_a_certificate_one_unit_short_is_refused(seed: int) -> None:
    [world] = play("forger", seed, JUST_UNDER, at=0, runs=1)
    forger = world.hosts[0].engine
    full = next(m for _, m in list_heard([world]) if isinstance(m, Certificate))
    short = forger.cut_short(full)  # type: ignore[union-attr]
    stake = sum(JUST_UNDER[signer] for signer in short.signers)
    assert 0 < stake < world.validators.quorum
    with pytest.raises(Rejected, match="quorum"):
        check_message(short, world.validators, toys.CHAIN_ID, toys.verify)


def test_replayed_messages_change_nothing(seed: int) -> None:
    worlds = play("replayer", seed)
    assert list_accused(worlds) == set()
    old = [view - m.subject.view for view, m in list_heard(worlds) if isinstance(m, Vote | Certificate)]
    assert max(old) >= 3


def test_a_flood_of_far_views_stays_within_the_window(seed: int) -> None:
    worlds = play("flooder", seed, runs=3)
    assert list_accused(worlds) == set() or list_accused(worlds) == {3}
    assert 30 < max(world.safety.rounds_max for world in worlds) <= 64 + 20


def test_invalid_proposals_get_no_vote(seed: int) -> None:
    worlds = play("invalid-proposer", seed)
    assert list_proposers(worlds) == {0, 1, 2}
    assert {sender for world in worlds for sender in world.refused} == {3}  # the invented parents
    proposals = [m for _, m in list_heard(worlds) if isinstance(m, Proposal) and m.block.proposer == 3]
    shown = {proposal.block.hash for proposal in proposals}
    votes = [m for _, m in list_heard(worlds) if isinstance(m, Vote) and m.subject.kind == NOTARIZE]
    assert shown
    assert not [vote for vote in votes if vote.subject.block_hash in shown and vote.signer != 3]


def test_a_leader_that_skips_notarized_views_gets_no_vote_for_it(seed: int) -> None:
    worlds = play("parent-skipper", seed, loss=0.1)
    skipped = [
        m.block
        for _, m in list_heard(worlds)
        if isinstance(m, Proposal) and m.block.proposer == 3 and m.block.parent_view < m.block.view - 1
    ]
    assert skipped
    # The checker "gaps" looks at every honest vote; here it had something to look at.
    assert list_accused(worlds) <= {3}


def test_lies_in_sync_are_refused_and_another_is_asked(seed: int) -> None:
    worlds = play("liar-in-sync", seed, partitions=0.6)
    assert {sender for world in worlds for sender in world.refused} == {3}
    assert list_accused(worlds) == set()
    for world in worlds:
        assert min(world.safety.heights[node] for node in range(3)) > 2


def test_two_villains_of_seven_may_be_of_different_kinds(seed: int) -> None:
    config = SimulationConfig(nodes=7, villains=("equivocator@0", "flooder"), faulty_ms=800)
    world = World(config, seed)
    assert world.run() == ""
    assert world.villains[0] == "equivocator"
    assert sorted(world.villains.values()) == ["equivocator", "flooder"]


def test_the_same_seed_makes_the_same_villains_do_the_same(seed: int) -> None:
    for name in VILLAINS:
        config = SimulationConfig(villains=(name,), faulty_ms=400)
        first, again = World(config, seed), World(config, seed)
        assert first.summarize(seed, first.run()) == again.summarize(seed, again.run())


@pytest.mark.parametrize("words", ["nobody", "flooder@", "flooder@x", "flooder@-1"])
def test_a_villain_nobody_knows_is_refused_with_a_mend(words: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_villain(words)
    assert refusal.value.mend


@pytest.mark.parametrize(
    ("stakes", "villains"),
    [((1, 1, 1), ("silent",)), ((34, 22, 22, 22), ("silent@0",)), (FOUR, ("silent", "silent"))],
)
def test_a_third_of_the_stake_in_villains_is_refused(
    stakes: tuple[int, ...], villains: tuple[str, ...]
) -> None:
    with pytest.raises(Rejected, match="third"):
        SimulationConfig(nodes=len(stakes), stakes=stakes, villains=villains)


def test_each_name_makes_its_own_class(seed: int) -> None:
    world = World(SimulationConfig(villains=("silent@1",)), seed)
    world.run()
    engine = world.hosts[1].engine
    assert isinstance(engine, Villain)
    for name, kind in VILLAINS.items():
        assert type(make_villain(name, engine.means)) is kind
