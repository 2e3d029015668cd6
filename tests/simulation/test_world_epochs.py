"""Epochs in the engine world: sets change, tails pass, laggards follow, and the checker notices what it should."""

from dataclasses import replace

import pytest

from consensus.bft.contract import BlockRef
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NOTARIZE, Subject, Vote
from node.commands.simulate import format_replay
from node.simulation import toys
from node.simulation.checkers import SafetyChecker, Violation
from node.simulation.config import NODES_MAX, Outcome, SimulationConfig
from node.simulation.engine_world import EngineWorld, simulate
from node.simulation.seats import compute_place, get_stakes
from node.simulation.toy_epochs import draw_next, make_set
from node.simulation.villains import VILLAINS

EPOCHS = SimulationConfig(epoch_blocks=3, faulty_ms=2_000)
BLOCKS = 3
RUNS = 6


def run_worlds(config: SimulationConfig, seed: int, runs: int = RUNS) -> list[EngineWorld]:
    worlds = [EngineWorld(config, seed + run) for run in range(runs)]
    assert [world.run() for world in worlds] == [""] * runs
    return worlds


# --- what happens -----------------------------------------------------------------------------------


def test_epochs_follow_one_another_through_faults(seed: int) -> None:
    worlds = run_worlds(EPOCHS, seed)
    assert max(world.summarize("").epochs for world in worlds) >= 4
    for world in worlds:
        epochs = [block.epoch for block in world.safety.chain[1:]]
        assert epochs == [height // BLOCKS for height in range(len(epochs))]


def test_validators_join_and_leave(seed: int) -> None:
    worlds = run_worlds(replace(EPOCHS, nodes=6, faulty_ms=2_500), seed)
    sizes = {len(seats.members) for world in worlds for seats in world.safety.sets.values()}
    assert len(sizes) > 1
    voters = {node for world in worlds for node, _ in world.safety.votes}
    assert voters == set(range(6))


def test_some_epochs_end_through_a_tail(seed: int) -> None:
    assert sum(world.tails_final for world in run_worlds(replace(EPOCHS, loss=0.15), seed)) > 0


@pytest.mark.parametrize("name", VILLAINS)
def test_no_villain_stops_the_epochs(name: str, seed: int) -> None:
    worlds = run_worlds(replace(EPOCHS, nodes=5, villains=(name,)), seed, runs=3)
    assert max(len(world.safety.chain) for world in worlds) > BLOCKS + 1


def test_lies_of_several_epochs_are_proven_each_by_its_own_set(seed: int) -> None:
    worlds = run_worlds(replace(EPOCHS, nodes=6, villains=("equivocator",)), seed)
    epochs = {proof.first.subject.epoch for world in worlds for proof in world.safety.accusations}
    assert len(epochs) >= 2


def test_damaged_journals_and_full_disks_do_no_harm(seed: int) -> None:
    config = replace(
        EPOCHS,
        nodes=7,
        crashes=0.01,
        flipped_bits=0.4,
        lost_journals=0.3,
        full_disks=0.2,
        failed_syncs=0.2,
        blackouts=0.2,
        villains=("equivocator",),
    )
    worlds = run_worlds(config, seed)
    assert sum(world.crashes for world in worlds) > RUNS


def test_what_an_honest_node_held_when_it_crashed_counts_as_heard() -> None:
    """Seed 10: it went down between holding a notarization and saying so, and finalized as it came back."""
    config = replace(EPOCHS, crashes=0.004, villains=("parent-skipper",))
    assert simulate(config, 10).violation == ""


def test_the_same_seed_gives_the_same_epochs(seed: int) -> None:
    first: Outcome = simulate(EPOCHS, seed)
    assert simulate(EPOCHS, seed) == first
    assert f"--epoch-blocks {BLOCKS}" in format_replay(EPOCHS, seed)


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(Rejected, match="epoch-blocks"):
        SimulationConfig(epoch_blocks=-1)


def test_joiners_are_counted_as_nodes_and_what_mends_it_is_said() -> None:
    most = NODES_MAX - 1
    assert SimulationConfig(full_nodes=True, nodes=most, epoch_blocks=4, joiners=1).node_count == NODES_MAX
    with pytest.raises(Rejected, match="must be 0 or more"):
        SimulationConfig(joiners=-1)
    with pytest.raises(Rejected) as caught:
        SimulationConfig(full_nodes=True, nodes=NODES_MAX, epoch_blocks=4, joiners=1)
    assert "make more than 256 nodes" in str(caught.value)
    assert caught.value.mend == "use --joiners 0, or fewer nodes"


# --- sets -------------------------------------------------------------------------------------------


def test_from_set_to_set_less_than_a_third_comes_or_goes(seed: int) -> None:
    base = [100] * 7
    seats = make_set(dict(enumerate(base)))
    for number in range(300):
        before, seats = (
            get_stakes(seats),
            draw_next(seats, b"%d %d" % (seed, number), base, lambda stakes: 0 in stakes),
        )
        after = get_stakes(seats)
        assert 0 in after
        assert len(after) >= 3
        total = sum(before.values())
        assert 3 * sum(before[node] for node in before.keys() - after.keys()) < total
        assert 3 * sum(after[node] for node in after.keys() - before.keys()) < total
        assert all(50 <= stake <= 200 for stake in after.values())


# --- what the checker notices -----------------------------------------------------------------------


class Chain:
    """A checker that has heard of one epoch of two blocks, and the words to tell it more."""

    def __init__(self) -> None:
        validators = toys.make_validators((1, 1, 1, 1))
        self.checker = SafetyChecker(
            validators, frozenset(range(4)), toys.GENESIS, toys.CHAIN_ID, toys.verify, 2
        )
        self.seats = make_set(dict.fromkeys(range(4), 1))
        self.checker.sets[1] = self.seats
        self.tip = toys.GENESIS

    def add(self, height: int, *, epoch: int = 0, view: int | None = None) -> BlockRef:
        view = height if view is None else view
        parent_view = self.tip.view if self.tip.epoch == epoch else 0
        block = BlockRef(b"%032d" % height, epoch, view, height, parent_view, self.tip.hash, 0)
        self.checker.notarized[compute_place(epoch, view)] = block.hash
        self.tip = block
        return block

    def vote(self, node: int, kind: int, epoch: int, view: int, block_hash: bytes) -> None:
        vote = Vote(Subject(epoch, kind, view, block_hash), node, b"")
        self.checker.hear(node, vote, is_body_durable=True)


def test_a_tail_in_the_place_of_the_next_epochs_first_block_is_noticed() -> None:
    chain = Chain()
    for height in (1, 2):
        chain.checker.commit(0, chain.add(height))
    with pytest.raises(Violation, match="epochs: node 0 commits height 3 in epoch 0"):
        chain.checker.commit(0, chain.add(3))


def test_a_committed_tail_is_noticed() -> None:
    chain = Chain()
    for height in (1, 2):
        chain.checker.commit(0, chain.add(height))
    with pytest.raises(Violation, match="one chain"):
        chain.checker.commit(0, chain.add(2, view=3))


def test_the_next_epoch_begins_on_the_boundary_block() -> None:
    chain = Chain()
    for height in (1, 2, 3):
        chain.checker.commit(0, chain.add(height, epoch=(height - 1) // 2, view=1 + (height - 1) % 2))
    assert [block.epoch for block in chain.checker.chain] == [0, 0, 0, 1]


def test_one_vote_in_the_same_view_of_each_epoch_is_no_second_vote() -> None:
    chain = Chain()
    chain.vote(0, NOTARIZE, 0, 1, bytes(32))
    chain.vote(0, NOTARIZE, 1, 1, b"1" * 32)
    with pytest.raises(Violation, match="single votes"):
        chain.vote(0, NOTARIZE, 1, 1, b"2" * 32)


def test_a_vote_in_an_epoch_that_is_over_is_noticed() -> None:
    chain = Chain()
    for height in (1, 2):
        chain.checker.commit(0, chain.add(height))
    with pytest.raises(Violation, match="past the end"):
        chain.vote(0, FINALIZE, 0, 2, chain.tip.hash)


def test_a_node_that_knows_other_validators_is_noticed() -> None:
    chain = Chain()
    chain.checker.open_epoch(0, 1, chain.seats)
    with pytest.raises(Violation, match="equal sets"):
        chain.checker.open_epoch(1, 1, make_set({0: 1, 1: 1, 2: 2, 3: 1}))


def test_who_has_no_seat_has_no_voice() -> None:
    chain = Chain()
    chain.checker.sets[1] = make_set({0: 1, 1: 1, 3: 1})
    chain.vote(3, NOTARIZE, 0, 1, bytes(32))
    with pytest.raises(Violation, match="own voice"):
        chain.vote(2, NOTARIZE, 1, 1, bytes(32))  # index 2 is node 3 there
