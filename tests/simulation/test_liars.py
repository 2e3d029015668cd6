"""Whole nodes against each liar at the network's door: what it tries, who refuses it and how, and that all goes on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from consensus.errors import Rejected
from consensus.vote import NOTARIZE
from node.full_node import FullNode
from node.network import gossip
from node.network.frames import Announce, CompactProposal, FinalBlocks, Frame, Status, Transactions
from node.simulation.config import SimulationConfig
from node.simulation.faults import Partition
from node.simulation.full_nodes.liars import LIARS, InvalidProposer, Liar, make_liar
from node.simulation.full_nodes.process import NodeProcess
from node.simulation.full_nodes.world import NodeWorld

AT = 3
HONEST = (0, 1, 2)


class Watched(NodeWorld):
    """Keeps its liars, and what they say beyond what an honest node says."""

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.liars: list[Liar] = []
        self.said: list[Frame | bytes] = []

    def make_door(self, process: NodeProcess) -> object:  # type: ignore[override]
        door = super().make_door(process)
        if isinstance(door, Liar):
            self.liars.append(door)
            honest_rewrite, honest_answer = door.rewrite, door.answer

            def rewrite(frame: Frame, receiver: int) -> tuple[Frame | bytes, ...]:
                frames = honest_rewrite(frame, receiver)
                self.said += [told for told in frames if told is not frame]
                return frames

            def answer(frame: Frame, sender: int) -> tuple[Frame | bytes, ...] | None:
                frames = honest_answer(frame, sender)
                self.said += frames or ()
                return frames

            door.rewrite, door.answer = rewrite, answer  # type: ignore[method-assign]
        return door

    def get_honest(self, index: int) -> FullNode:
        process = self.hosts[index].process
        assert process is not None
        assert process.node is not None
        return process.node

    def list_proposers(self) -> set[int]:
        return {block.proposer for block in self.safety.chain[1:]}

    def list_penalties(self) -> Counter[str]:
        """What honest nodes held against somebody: reasons, of the liar alone."""
        assert {penalty.whom for penalty in self.checkers.penalties} <= {AT}
        return Counter(penalty.reason for penalty in self.checkers.penalties)


CALM = SimulationConfig(
    full_nodes=True,
    loss=0,
    slow_share=0,
    crashes=0,
    partitions=0,
    build_failures=0,
    faulty_ms=900,
)


def run(config: SimulationConfig, name: str, seed: int) -> Watched:
    """One run that must be without a violation."""
    world = Watched(replace(config, villains=(f"{name}@{AT}",)), seed)
    assert world.run() == ""
    return world


@cache
def play(name: str, seed: int) -> Watched:
    """Nothing goes wrong but what the liar does. Many tests look at one run, and change nothing of it."""
    return run(CALM, name, seed)


@pytest.mark.parametrize("name", LIARS)
def test_safety_and_finality_hold_against_each_liar_when_all_else_goes_wrong_too(
    name: str, seed: int
) -> None:
    world = run(SimulationConfig(full_nodes=True), name, seed)
    assert world.liars
    assert world.list_proposers() & {0, 1, 2}
    world.list_penalties()


# --- proposers of invalid blocks ------------------------------------------------------------------------

REASONS = {
    "wrong-score": r"block\.scores: .* the block says \d+, recomputed \d+",
    "wrong-state-root": r"header\.state_root: .* recomputed 0x",
    "wrong-head": r"header\.refusal_root: 0x[0-9a-f]+ is no root of \d+ refusals",
    "refused-included": r"block\.outcomes: .* the block says 1, recomputed 2",
    "oversize-block": r"block\.transactions: \d+, at most \d+ allowed",
    "early-block": r"header\.timestamp_ms: \d+ is before the parent's",
    "swapped-certificate": r"certificate",
    "bad-signature": r"signature: of transaction \d+ is wrong",
    "doubled-transaction": r"block\.transactions: .* nonce: \d+ (was used before|is too far)",
}


def check_nobody_took(world: Watched) -> list[bytes]:
    """The hashes of what the liars proposed: no honest vote is for them, no certificate, no final block."""
    lies = [
        lie.proposal.block.hash
        for liar in world.liars
        if isinstance(liar, InvalidProposer)
        for lie in liar.lies.values()
    ]
    assert lies
    voted = {
        vote.subject.block_hash
        for votes in world.safety.votes.values()
        for vote in votes
        if vote.subject.kind == NOTARIZE
    }
    certified = {*world.safety.notarized.values(), *world.safety.finalized.values()}
    assert not voted.intersection(lies)
    assert not certified.intersection(lies)
    assert not {block.hash for block in world.safety.chain}.intersection(lies)
    assert world.list_proposers() >= set(HONEST)
    return lies


@pytest.mark.parametrize("name", REASONS)
def test_an_invalid_block_is_refused_with_its_reason_by_every_honest_node(name: str, seed: int) -> None:
    world = play(name, seed)
    lies = check_nobody_took(world)
    for index in HONEST:
        refused = world.get_honest(index).judge_room.invalid
        reasons = [refused[block_hash].reason for block_hash in lies if block_hash in refused]
        assert reasons
        for reason in reasons:
            assert re.search(REASONS[name], reason), reason


@pytest.mark.parametrize("name", [name for name in REASONS if name != "swapped-certificate"])
def test_who_proposes_what_only_the_state_tells_to_be_wrong_loses_no_points(name: str, seed: int) -> None:
    assert play(name, seed).list_penalties() == Counter()


def test_a_certificate_that_is_not_what_the_header_binds_costs_its_sender_points(seed: int) -> None:
    worlds = [play("swapped-certificate", seed + more) for more in range(3)]
    reasons = sum((world.list_penalties() for world in worlds), Counter())
    assert any("certificate_digest" in reason for reason in reasons)


def test_a_block_on_a_parent_that_nobody_certified_is_refused_at_the_door(seed: int) -> None:
    world = play("wrong-parent", seed)
    check_nobody_took(world)
    penalties = world.list_penalties()
    assert set(penalties) == {"proposal.parent_certificate: is not the parent's"}
    for index in HONEST:
        assert not world.get_honest(index).judge_room.invalid  # never judged at all


def test_a_block_of_another_height_than_its_parents_plus_one_is_not_even_judged(seed: int) -> None:
    world = play("wrong-height", seed)
    lies = check_nobody_took(world)
    assert world.list_proposers() == set(HONEST)
    assert world.list_penalties() == Counter()
    for index in HONEST:
        assert not set(world.get_honest(index).judge_room.invalid).intersection(lies)


def test_a_block_of_the_future_is_neither_taken_nor_called_invalid(seed: int) -> None:
    world = play("late-block", seed)
    lies = check_nobody_took(world)
    for index in HONEST:
        assert not set(world.get_honest(index).judge_room.invalid).intersection(lies)
    assert world.list_penalties() == Counter()


def test_a_compact_body_of_another_block_costs_points_and_makes_no_block_invalid(seed: int) -> None:
    worlds = [play("exchanged-ids", seed + more) for more in range(3)]
    assert any(isinstance(frame, CompactProposal) for world in worlds for frame in world.said)
    reasons = sum((world.list_penalties() for world in worlds), Counter())
    assert any("does not match the body" in reason for reason in reasons)
    for world in worlds:
        for index in HONEST:
            assert not world.get_honest(index).judge_room.invalid  # the blocks themselves are sound


def test_who_is_shown_another_body_than_the_rest_comes_level_all_the_same(seed: int) -> None:
    world = play("two-bodies", seed)
    assert any(isinstance(frame, CompactProposal) for frame in world.said)
    assert AT in world.list_proposers()  # the others vote for its blocks
    assert world.get_honest(0).chain.finalized.height == len(world.safety.chain) - 1


# --- those who are asked --------------------------------------------------------------------------------


def test_who_serves_wrong_blocks_is_found_out_and_another_is_asked(seed: int) -> None:
    # One honest node misses the first second, and for a while has nobody to ask but the liar.
    alone = Partition(((0,), (AT,)), until_ms=1_000), Partition(((0,), (1, 2)), until_ms=1_600)
    config = replace(CALM, faults=alone, faulty_ms=1_700)
    worlds = [run(config, "wrong-blocks", seed + more) for more in range(2)]
    told = [frame for world in worlds for frame in world.said]
    assert any(isinstance(frame, FinalBlocks) for frame in told)
    reasons = sum((world.list_penalties() for world in worlds), Counter())
    assert any(re.search(r"final_blocks|certificate|header|msgpack", reason) for reason in reasons)


def test_a_boaster_costs_questions_and_no_time(seed: int) -> None:
    world = play("boaster", seed)
    assert any(isinstance(frame, Status) and frame.final_height > 1_000 for frame in world.said)
    quiet = play("selective-gossiper", seed)
    assert len(world.safety.chain) > len(quiet.safety.chain) // 2
    assert world.list_penalties() == Counter()


def test_without_the_silent_server_everything_is_had_from_others(seed: int) -> None:
    alone = Partition(((0,), (1, 2, 3)), until_ms=1_000)
    world = run(replace(CALM, faults=(alone,), faulty_ms=1_100), "silent-server", seed)
    assert world.list_penalties() == Counter()
    assert AT in world.list_proposers()
    assert world.get_honest(0).chain.finalized.height == len(world.safety.chain) - 1


# --- gossip ---------------------------------------------------------------------------------------------


def test_who_passes_on_bad_signatures_is_banned(seed: int) -> None:
    world = play("bad-signatures", seed)
    assert any(isinstance(frame, Transactions) for frame in world.said)
    assert all("signature" in reason for reason in world.list_penalties())
    for index in HONEST:
        ban = {report.name: report.banned_s for report in world.get_honest(index).network.describe()}
        assert ban[f"node{AT}"] > 0
        assert world.get_honest(index).mempool.received["signature"] > 0


def test_announcements_without_end_fill_one_peers_quota_and_no_more(seed: int) -> None:
    world = play("empty-announcer", seed)
    announced = sum(len(frame.ids) for frame in world.said if isinstance(frame, Announce))
    assert announced > 3 * gossip.WANTED_PEER_MAX
    for index in HONEST:
        node = world.get_honest(index)
        assert 0 < node.gossip._wanted_counts[world.chain.node_keys[AT].public_key] <= gossip.WANTED_PEER_MAX
        assert node.gossip.counters.requested > 0
    assert world.list_penalties() == Counter()


def test_what_a_selective_gossiper_keeps_back_becomes_final_all_the_same(seed: int) -> None:
    world = play("selective-gossiper", seed)
    assert world.list_penalties() == Counter()
    assert world.clients.is_settled()
    assert any(offer.answer == "final" for offer in world.clients.offers)


def test_garbage_costs_its_sender_points_and_in_the_end_the_connection(seed: int) -> None:
    world = play("garbler", seed)
    assert any(isinstance(frame, bytes) for frame in world.said)
    assert sum(world.list_penalties().values()) >= 3
    bans = [
        report.banned_s
        for index in HONEST
        for report in world.get_honest(index).network.describe()
        if report.name == f"node{AT}"
    ]
    assert max(bans) > 0


# --- names ----------------------------------------------------------------------------------------------


def test_a_liar_nobody_knows_is_refused_with_a_mend(seed: int) -> None:
    means = play("boaster", seed).liars[0].means
    assert type(make_liar("boaster", means)) is LIARS["boaster"]
    with pytest.raises(Rejected) as refusal:
        make_liar("nobody", means)
    assert refusal.value.mend


def test_the_same_seed_makes_the_same_liars_do_the_same(seed: int) -> None:
    for name in ("wrong-height", "wrong-blocks", "garbler"):
        config = replace(CALM, villains=(name,), loss=0.05, faulty_ms=300)
        first, again = NodeWorld(config, seed), NodeWorld(config, seed)
        assert first.summarize(first.run()) == again.summarize(again.run())


def test_who_is_shown_another_body_than_the_rest_goes_on_voting(seed: int) -> None:
    world = run(replace(CALM, faulty_ms=2_000), "two-bodies", seed)
    votes = Counter(dict.fromkeys(HONEST, 0))
    for (index, _), cast in world.safety.votes.items():
        votes[index] += len(cast)
    assert votes[0] > votes[1] / 2
