"""Every villain, and what honest nodes do about it; in layouts of stake up to just under a third.

Each villain has its own assertion besides the invariants that every run is watched for, and that one is
made in every layout.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from consensus.bft.contract import CertificateRequest, Effect, Event, Message, Proposal, Received
from consensus.bft.leader import LeaderSchedule
from consensus.bft.messages import check_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Certificate, Vote
from node.simulation import toys
from node.simulation.config import SimulationConfig
from node.simulation.engine_world import EngineWorld
from node.simulation.host import NAMES
from node.simulation.villains import VILLAINS, Villain, make_villain, parse_villain
from node.simulation.villains.villain import SALTS

RUNS = 5
FOUR = (1, 1, 1, 1)
JUST_UNDER = (33, 23, 22, 22)


@dataclass(frozen=True)
class Layout:
    """The stakes, and where the villain stands."""

    stakes: tuple[int, ...]
    at: int

    @property
    def honest(self) -> set[int]:
        return set(range(len(self.stakes))) - {self.at}

    def list_led(self, views: range) -> list[int]:
        """Views that the villain leads."""
        schedule = LeaderSchedule(toys.make_validators(self.stakes))
        return [view for view in views if schedule.get_leader(view) == self.at]


# Without the villain a quorum is left to the unit, or nearly so: everybody's vote is needed.
LAYOUTS = {
    "four equal": Layout(FOUR, 3),
    "33 of 100 first": Layout(JUST_UNDER, 0),
    "32 of 100": Layout((32, 23, 23, 22), 0),
    "33 of 100 among three": Layout((33, 34, 33), 2),
    "32 of 100 second": Layout((24, 32, 23, 21), 1),
    "seven equal": Layout((1,) * 7, 2),
}
CALM = {
    "loss": 0,
    "duplication": 0,
    "slow_share": 0,
    "crashes": 0,
    "partitions": 0,
    "build_failures": 0,
}
in_each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


class Listener(SimplexEngine):
    """An honest engine that remembers what reached it."""

    heard: list[tuple[int, int, Message]]  # its view, the sender, the message

    def step(self, event: Event) -> tuple[Effect, ...]:
        if isinstance(event, Received):
            self.heard.append((self.view, NAMES.index(event.sender), event.message))
        return super().step(event)


def listen(config: EngineConfig, sign: Callable[[bytes], bytes]) -> Listener:
    engine = Listener(config, sign)
    engine.heard = []
    return engine


class SpiedWorld(EngineWorld):
    """Remembers what is said: sender, receiver, message; and apart what one says to another alone."""

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self.said: list[tuple[int, int, Message]] = []
        self.said_alone: list[tuple[int, int, Message]] = []
        self._is_to_all = False
        super().__init__(config, seed, listen)

    def broadcast(self, sender: int, message: Message, peers_max: int | None = None) -> None:
        self._is_to_all = True
        super().broadcast(sender, message, peers_max)
        self._is_to_all = False

    def send(self, sender: int, receiver: int, message: Message) -> None:
        self.said.append((sender, receiver, message))
        if not self._is_to_all:
            self.said_alone.append((sender, receiver, message))
        super().send(sender, receiver, message)

    def list_answers(self, villain: int) -> list[Message]:
        """What honest nodes sent to the villain alone."""
        return [message for _, receiver, message in self.said_alone if receiver == villain]


def play(name: str, seed: int, layout: Layout, runs: int = RUNS, **faults: object) -> list[SpiedWorld]:
    """Runs with this villain; every invariant held, and blocks became final."""
    worlds = []
    for number in range(runs):
        config = SimulationConfig(
            nodes=len(layout.stakes),
            stakes=layout.stakes,
            villains=(f"{name}@{layout.at}",),
            **{"faulty_ms": 1_200, **faults},  # type: ignore[arg-type]
        )
        world = SpiedWorld(config, seed + number)
        assert world.run() == ""
        assert len(world.safety.chain) > 1
        worlds.append(world)
    return worlds


def list_heard(worlds: list[SpiedWorld]) -> Iterator[tuple[int, int, Message]]:
    """What reached the honest engines that are still up."""
    for world in worlds:
        for host in world.hosts:
            if isinstance(host.engine, Listener):
                yield from host.engine.heard


def list_messages(worlds: list[SpiedWorld]) -> list[Message]:
    return [message for _, _, message in list_heard(worlds)]


def list_accused(worlds: list[SpiedWorld]) -> set[int]:
    return {evidence.first.signer for world in worlds for evidence in world.safety.accusations}


def list_proposers(worlds: list[SpiedWorld]) -> set[int]:
    return {block.proposer for world in worlds for block in world.safety.chain[1:]}


def list_shown(worlds: list[SpiedWorld], proposer: int) -> set[bytes]:
    """The blocks that it proposed and that somebody honest heard of."""
    proposals = [message for message in list_messages(worlds) if isinstance(message, Proposal)]
    return {proposal.block.hash for proposal in proposals if proposal.block.proposer == proposer}


def list_supporters(worlds: list[SpiedWorld], blocks: set[bytes], but: int) -> set[int]:
    """Which honest nodes ever voted to notarize one of these."""
    return {
        node
        for world in worlds
        for (node, _), votes in world.safety.votes.items()
        for vote in votes
        if vote.subject.kind == NOTARIZE and vote.subject.block_hash in blocks and node != but
    }


def check_own_views_skipped(worlds: list[SpiedWorld], layout: Layout) -> None:
    """Each view that the villain led is nullified, and none of its blocks is final."""
    assert list_proposers(worlds) == layout.honest
    for world in worlds:
        passed = range(1, world.safety.chain[-1].view)
        assert set(layout.list_led(passed)) <= world.safety.nullified


def check_no_view_lost(worlds: list[SpiedWorld], but: list[int] | None = None) -> None:
    """In a calm world honest leaders lose no view, whatever the villain does; the first: not all are up."""
    for world in worlds:
        lost = world.safety.nullified - {1, *(but or ())}
        assert {view for view in lost if view < world.safety.chain[-1].view} == set()


def check_level(world: SpiedWorld, layout: Layout) -> None:
    """A while after healing every honest node has fetched and committed what the others have."""
    world._run_for(2_000)
    heights = [world.safety.heights.get(node, 0) for node in layout.honest]
    assert min(heights) >= max(heights) - 3


# --- who says two things ----------------------------------------------------------------------------------


@in_each_layout
@pytest.mark.parametrize("name", ["equivocator", "equivocating-leader", "equivocating-voter"])
def test_who_says_two_things_is_proven_to_lie_and_nobody_else_is(
    name: str, layout: Layout, seed: int
) -> None:
    worlds = play(name, seed, layout)
    assert list_accused(worlds) == {layout.at}
    assert list_proposers(worlds) >= layout.honest


@in_each_layout
def test_each_way_in_which_a_voter_contradicts_itself_is_proven(layout: Layout, seed: int) -> None:
    worlds = play("equivocating-voter", seed, layout, **CALM)
    kinds = {
        frozenset((evidence.first.subject.kind, evidence.second.subject.kind))
        for world in worlds
        for evidence in world.safety.accusations
    }
    assert kinds == {frozenset((NOTARIZE,)), frozenset((NULLIFY, FINALIZE))}


@in_each_layout
def test_one_key_on_two_machines_gives_itself_away(layout: Layout, seed: int) -> None:
    # Among seven its two machines seldom speak to the same ones: about one run in three shows it.
    runs = RUNS if len(layout.stakes) < 7 else 20
    worlds = play("double-identity", seed, layout, runs, faulty_ms=2_400)
    assert list_accused(worlds) == {layout.at}
    assert list_proposers(worlds) >= layout.honest


# --- who holds back ---------------------------------------------------------------------------------------


@in_each_layout
def test_nobody_hears_a_silent_validator_and_its_views_are_skipped(layout: Layout, seed: int) -> None:
    worlds = play("silent", seed, layout)
    assert list_accused(worlds) == set()
    check_own_views_skipped(worlds, layout)
    heard = [message for _, sender, message in list_heard(worlds) if sender == layout.at]
    assert not [message for message in heard if not isinstance(message, CertificateRequest)]


@in_each_layout
def test_those_whom_a_selective_sender_shuns_learn_all_from_the_others(layout: Layout, seed: int) -> None:
    worlds = play("selective-sender", seed, layout)
    assert list_accused(worlds) == set()
    for world in worlds:
        sender = world.hosts[layout.at].engine
        shunned = layout.honest - set(sender.friends)  # type: ignore[union-attr]
        assert shunned
        told = [(to, m) for who, to, m in world.said if who == layout.at and to in shunned]
        assert not [message for _, message in told if not isinstance(message, CertificateRequest)]
        check_level(world, layout)


@in_each_layout
def test_a_nullifier_costs_its_own_views_alone(layout: Layout, seed: int) -> None:
    worlds = play("nullifier", seed, layout, **CALM)
    assert list_accused(worlds) == set()
    check_own_views_skipped(worlds, layout)
    check_no_view_lost(worlds, but=layout.list_led(range(1, 200)))


@in_each_layout
def test_a_withheld_vote_is_not_needed(layout: Layout, seed: int) -> None:
    worlds = play("vote-withholder", seed, layout, **CALM)
    assert list_accused(worlds) == set()
    heard = list_messages(worlds)
    assert not any(isinstance(message, Vote) and message.signer == layout.at for message in heard)
    # It proposes like anybody, a proposal is its notarize vote, and honest nodes support it.
    assert list_proposers(worlds) == {*layout.honest, layout.at}
    check_no_view_lost(worlds)


@in_each_layout
def test_late_votes_come_after_their_view_and_harm_nobody(layout: Layout, seed: int) -> None:
    worlds = play("late-voter", seed, layout, **CALM)
    assert list_accused(worlds) == set()
    own = [(view, m) for view, _, m in list_heard(worlds) if isinstance(m, Vote) and m.signer == layout.at]
    late = [view - vote.subject.view for view, vote in own]
    assert late
    assert sum(delay >= 1 for delay in late) > 0.8 * len(late)
    check_no_view_lost(worlds)


@in_each_layout
def test_a_block_whose_body_is_withheld_is_notarized_by_nobody(layout: Layout, seed: int) -> None:
    worlds = play("body-withholder", seed, layout)
    assert list_accused(worlds) == set()
    shown = list_shown(worlds, layout.at)
    assert shown
    assert list_supporters(worlds, shown, but=layout.at) == set()
    check_own_views_skipped(worlds, layout)


# --- who forges, repeats, or says too much ----------------------------------------------------------------


@in_each_layout
def test_nothing_forged_reaches_an_engine_and_nobody_is_framed(layout: Layout, seed: int) -> None:
    worlds = play("forger", seed, layout)
    assert list_accused(worlds) == set()
    assert {sender for world in worlds for sender in world.refused} == {layout.at}
    assert sum(world.refused[layout.at] for world in worlds) > 50
    for message in list_messages(worlds):
        check_message(message, worlds[0].validators, toys.CHAIN_ID, toys.verify)


@in_each_layout
def test_what_is_forged_when_voting_comes_when_a_node_would_have_needed_it(layout: Layout, seed: int) -> None:
    """Later forgeries meet `is_needed`, which drops them unchecked: the check has to stand alone here."""
    [world] = play("forger", seed, layout, runs=1, **CALM)
    forger, counted = world.hosts[layout.at].engine, world.refused[layout.at]
    forged = {
        type(message)
        for sender, _, message in world.said
        if sender == layout.at and isinstance(message, Vote | Certificate) and not is_sound(message, world)
    }
    assert forged == {Vote, Certificate}
    assert counted > len(world.safety.chain) // 2
    vote = forger.make_vote(NOTARIZE, world.hosts[min(layout.honest)].engine.view + 1, bytes(32))  # type: ignore[union-attr]
    ahead = [forger.anticipate(vote) for _ in range(40)]  # type: ignore[union-attr]
    honest = world.hosts[min(layout.honest)]
    assert all(honest.is_needed(message) and not is_sound(message, world) for message in ahead)


def is_sound(message: Message, world: EngineWorld) -> bool:
    try:
        check_message(message, world.validators, toys.CHAIN_ID, toys.verify)
    except Rejected:
        return False
    return True


@in_each_layout
def test_a_certificate_one_unit_short_is_refused(layout: Layout, seed: int) -> None:
    [world] = play("forger", seed, layout, runs=1)
    forger = world.hosts[layout.at].engine
    full = next(m for m in list_messages([world]) if isinstance(m, Certificate))
    short = forger.cut_short(full)  # type: ignore[union-attr]
    stake = sum(layout.stakes[signer] for signer in short.signers)
    assert 0 < stake < world.validators.quorum
    with pytest.raises(Rejected, match="quorum"):
        check_message(short, world.validators, toys.CHAIN_ID, toys.verify)


@in_each_layout
def test_replayed_messages_change_nothing(layout: Layout, seed: int) -> None:
    worlds = play("replayer", seed, layout, **CALM)
    assert list_accused(worlds) == set()
    check_no_view_lost(worlds)
    # Honest nodes hand certificates on, and never another's vote.
    votes = [m for world in worlds for who, _, m in world.said if who == layout.at and isinstance(m, Vote)]
    assert sum(vote.signer != layout.at for vote in votes) > 20


@in_each_layout
def test_who_repeats_an_old_nullify_is_helped_once_a_view(layout: Layout, seed: int) -> None:
    """It asks for help, and may be honest; a replayer shall be no amplifier."""
    [world] = play("replayer", seed, layout, runs=1, **CALM)
    replayer, honest = world.hosts[layout.at].engine, world.hosts[min(layout.honest)]
    assert isinstance(replayer, Villain)
    old = replayer.make_vote(NULLIFY, 1, NO_BLOCK)
    assert honest.is_needed(old)
    assert honest.engine is not None
    answers = [honest.engine.step(Received(old, NAMES[layout.at])) for _ in range(20)]
    assert answers[0]
    assert not any(answers[1:])


@in_each_layout
def test_a_flood_of_far_views_stays_within_the_window(layout: Layout, seed: int) -> None:
    worlds = play("flooder", seed, layout, runs=3)
    assert list_accused(worlds) <= {layout.at}
    assert 30 < max(world.safety.rounds_max for world in worlds) <= 64 + 20
    for world in worlds:
        # Who asks for what nobody has, gets no answer, and no one else is asked on its behalf.
        asked = [m for who, _, m in world.said if who == layout.at and isinstance(m, CertificateRequest)]
        answers = [m for m in world.list_answers(layout.at) if isinstance(m, Certificate)]
        assert len(asked) > 10 * len(answers)


# --- who lies about blocks --------------------------------------------------------------------------------


@in_each_layout
def test_invalid_proposals_get_no_vote(layout: Layout, seed: int) -> None:
    worlds = play("invalid-proposer", seed, layout, faulty_ms=2_000)
    assert {sender for world in worlds for sender in world.refused} == {layout.at}  # the invented parents
    shown = list_shown(worlds, layout.at)
    assert shown
    assert list_supporters(worlds, shown, but=layout.at) == set()
    check_own_views_skipped(worlds, layout)


@in_each_layout
def test_a_leader_that_skips_notarized_views_gets_no_vote_for_it(layout: Layout, seed: int) -> None:
    worlds = play("parent-skipper", seed, layout, loss=0.1, faulty_ms=2_400)
    assert list_accused(worlds) <= {layout.at}
    skipping = 0
    for world in worlds:
        for message in list_messages([world]):
            if not isinstance(message, Proposal) or message.block.proposer != layout.at:
                continue
            block = message.block
            gap = set(range(block.parent_view + 1, block.view))
            if gap - world.safety.nullified:
                skipping += 1
                assert list_supporters([world], {block.hash}, but=layout.at) == set()
    assert skipping


@in_each_layout
def test_lies_in_sync_are_refused_and_another_is_asked(layout: Layout, seed: int) -> None:
    worlds = play("liar-in-sync", seed, layout, partitions=0.6)
    assert {sender for world in worlds for sender in world.refused} == {layout.at}
    assert list_accused(worlds) == set()
    for world in worlds:
        check_level(world, layout)
        assert world.safety.heights[min(layout.honest)] > 2


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VILLAINS)
def test_no_villain_does_harm_among_crashes_damaged_disks_and_cuts(name: str, seed: int) -> None:
    for number, layout in enumerate(LAYOUTS.values()):
        play(name, seed + number, layout, runs=1, crashes=0.01, flipped_bits=0.3, failed_syncs=0.2)


def test_two_villains_of_seven_may_be_of_different_kinds(seed: int) -> None:
    config = SimulationConfig(nodes=7, villains=("equivocator@0", "flooder"), faulty_ms=800)
    world = EngineWorld(config, seed)
    assert world.run() == ""
    assert world.villains[0] == "equivocator"
    assert sorted(world.villains.values()) == ["equivocator", "flooder"]


def test_the_same_seed_makes_the_same_villains_do_the_same(seed: int) -> None:
    for name in VILLAINS:
        config = SimulationConfig(villains=(name,), faulty_ms=400)
        first, again = EngineWorld(config, seed), EngineWorld(config, seed)
        assert first.summarize(first.run()) == again.summarize(again.run())


def test_a_villain_knows_its_world_by_its_means_alone(seed: int) -> None:
    """So that each of them can live among whole nodes, where blocks and names are others."""
    world = EngineWorld(SimulationConfig(villains=("silent@1",)), seed)
    world.run()
    villain = world.hosts[1].engine
    assert isinstance(villain, Villain)
    assert villain.is_needed(CertificateRequest(0, 1, 0))
    assert (villain.list_records(), villain.is_halted) == ((), False)
    assert SALTS <= toys.VALID_SALTS  # what a villain draws is a valid block, unless it says otherwise


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
    world = EngineWorld(SimulationConfig(villains=("silent@1",)), seed)
    world.run()
    engine = world.hosts[1].engine
    assert isinstance(engine, Villain)
    for name, kind in VILLAINS.items():
        assert type(make_villain(name, engine.means)) is kind
