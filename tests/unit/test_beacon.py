"""The hash-onion beacon: what may be revealed, when a commitment counts, and what withholding gains."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest

from consensus.bft.leader import DrawnSchedule
from consensus.errors import Fault, Rejected
from consensus.ledger import beacon
from consensus.ledger.beacon import Onion
from consensus.ledger.building import Built
from consensus.parameters import Parameters
from consensus.transaction import KIND_COMMIT, Transaction
from node.simulation import toys
from tests.ledger_chain import alter
from tests.staking_chain import OPERATORS, PEOPLE, StakingChain, make_staking_genesis

ONIONS = tuple(Onion(sha256(b"onion %d" % number).digest(), 100) for number in range(4))


class BeaconChain(StakingChain):
    """Whoever proposes reveals what it can."""

    def __init__(self) -> None:
        super().__init__(make_staking_genesis(leader_election="onion", fee_units_min=0))

    def commit_onion(self, number: int, onion: Onion) -> Transaction:
        payload = beacon.encode_tip(onion.tip)
        return self.make(KIND_COMMIT, OPERATORS[number], OPERATORS[number].address, payload)

    def build_revealing(self, reveal: bytes | None = None, epoch: int | None = None) -> Built:
        plain = self.build(epoch=epoch).block
        number = [key.public_key for key in OPERATORS].index(plain.header.proposer)
        address = OPERATORS[number].address
        tip = beacon.get_tip(self.view.records, address, plain.header.epoch)
        return self.rules.build_block(
            self.view,
            (),
            epoch=plain.header.epoch,
            view_number=plain.header.view,
            proposer_key=plain.header.proposer,
            now_ms=plain.header.timestamp_ms,
            certificate=plain.parent_certificate,
            reveal=ONIONS[number].find_reveal(tip) if reveal is None else reveal,
        )


@pytest.fixture
def chain() -> BeaconChain:
    """In epoch 2, with the onions of all four in force."""
    chain = BeaconChain()
    chain.grow(*(chain.commit_onion(number, ONIONS[number]) for number in range(4)))
    chain.reach(2)
    return chain


# --- what may be revealed ---------------------------------------------------------------------------


def test_reveals_change_the_seed_and_nothing_else_does(chain: BeaconChain) -> None:
    before = beacon.compute_seed(chain.view.records, 3)
    chain.grow()
    assert beacon.compute_seed(chain.view.records, 3) == before
    for _ in range(2):
        built = chain.build_revealing()
        assert len(built.block.header.reveal) == 32
        chain.add(built.block)
    assert beacon.compute_seed(chain.view.records, 3) != before
    assert beacon.compute_seed(chain.view.records, 3) != beacon.compute_seed(chain.view.records, 4)


def test_a_commitment_counts_two_epochs_on() -> None:
    chain = BeaconChain()
    chain.grow(chain.commit_onion(0, ONIONS[0]))
    address = OPERATORS[0].address
    tips = [beacon.get_tip(chain.view.records, address, epoch) for epoch in range(4)]
    assert tips == [b"", b"", ONIONS[0].tip, ONIONS[0].tip]


def test_an_onion_is_replaced_without_a_gap(chain: BeaconChain) -> None:
    new = Onion(b"n" * 32, 5)
    chain.grow(chain.commit_onion(0, new))
    address = OPERATORS[0].address
    tips = [beacon.get_tip(chain.view.records, address, epoch) for epoch in (2, 3, 4)]
    assert tips == [ONIONS[0].tip, ONIONS[0].tip, new.tip]


def test_each_layer_is_revealed_once_and_in_order(chain: BeaconChain) -> None:
    seen: list[tuple[bytes, bytes]] = []
    for _ in range(9):
        built = chain.build_revealing()
        seen.append((built.block.header.proposer, built.block.header.reveal))
        chain.add(built.block)
    assert len({reveal for _, reveal in seen}) == 9
    for proposer in {proposer for proposer, _ in seen}:
        own = [reveal for key, reveal in seen if key == proposer]
        assert all(beacon.compute_layer_above(low) == high for high, low in itertools.pairwise(own))


@pytest.mark.parametrize("reveal", [b"r" * 32, ONIONS[3].tip, ONIONS[3].find_reveal(ONIONS[3].tip)[:31]])
def test_another_reveal_than_was_committed_to_is_refused(chain: BeaconChain, reveal: bytes) -> None:
    with pytest.raises(Fault):
        chain.build_revealing(reveal)
    with pytest.raises(Rejected) as caught:
        chain.check(alter(chain.build().block, reveal=reveal))
    assert caught.value.code == "reveal"


def test_revealing_is_bound_by_the_header(chain: BeaconChain) -> None:
    block = chain.build_revealing().block
    with pytest.raises(Rejected) as caught:
        chain.check(alter(block, reveal=b""))
    assert caught.value.code == "state_root"


def test_a_tail_reveals_nothing(chain: BeaconChain) -> None:
    chain.reach(3)
    tail = chain.build_revealing(epoch=2).block
    assert tail.header.reveal == chain.view.header.hash  # of its epoch's boundary block
    number = [key.public_key for key in OPERATORS].index(tail.header.proposer)
    reveal = ONIONS[number].find_reveal(beacon.get_tip(chain.view.records, OPERATORS[number].address, 2))
    for wrong in (reveal, b"", b"h" * 32):
        with pytest.raises(Rejected) as caught:
            chain.check(alter(tail, reveal=wrong))
        assert caught.value.code == "tail"


def test_only_operators_commit_and_only_where_there_is_a_beacon(chain: BeaconChain) -> None:
    stranger = chain.make(KIND_COMMIT, PEOPLE[0], PEOPLE[0].address, beacon.encode_tip(b"t" * 32))
    assert chain.refuse(stranger).code == "validator_unknown"
    for payload in (b"", b"\x90", beacon.encode_tip(b"short")):
        tx = chain.make(KIND_COMMIT, OPERATORS[0], OPERATORS[0].address, payload)
        assert isinstance(chain.refuse(tx), Rejected)
    plain = StakingChain(make_staking_genesis(fee_units_min=0))
    tx = plain.make(KIND_COMMIT, OPERATORS[0], OPERATORS[0].address, beacon.encode_tip(b"t" * 32))
    assert plain.refuse(tx).code == "beacon_off"
    with pytest.raises(Rejected):
        plain.check(alter(plain.build().block, reveal=b"r" * 32))


def test_a_beacon_needs_epochs_and_a_known_name() -> None:
    for parameters in ({"leader_election": "onion"}, {"leader_election": "dice", "epoch_blocks": 10}):
        with pytest.raises(Rejected):
            Parameters(**parameters)  # type: ignore[arg-type]
    assert replace(Parameters(), epoch_blocks=10, leader_election="onion").leader_election == "onion"


def test_an_onion_has_as_many_layers_as_it_was_made_with() -> None:
    onion = Onion(b"s" * 32, 3)
    layer, count = onion.tip, 0
    while layer := onion.find_reveal(layer):
        count += 1
    assert count == 3
    for layers in (0, beacon.LAYERS_MAX + 1):
        with pytest.raises(Rejected):
            Onion(b"s" * 32, layers)


# --- the order it gives -----------------------------------------------------------------------------


def test_leaders_are_drawn_by_stake() -> None:
    schedule = DrawnSchedule(toys.make_validators((5, 3, 1, 1)), b"s" * 32)
    turns = Counter(schedule.get_leader(view) for view in range(1, 20_001))
    for index, stake in enumerate((5, 3, 1, 1)):
        assert abs(turns[index] - 2_000 * stake) < 300
    again = DrawnSchedule(toys.make_validators((5, 3, 1, 1)), b"s" * 32)
    assert [again.get_leader(view) for view in range(1, 50)] == [
        schedule.get_leader(view) for view in range(1, 50)
    ]


def measure_gain(share_percent: int, epochs: int, blocks: int) -> int:
    """The share (in basis points) of the next epoch's turns that a withholder takes, choosing greedily."""
    validators = toys.make_validators((share_percent, 100 - share_percent))
    schedule, taken = DrawnSchedule(validators, b"start"), 0
    for epoch in range(epochs):
        leaders = [schedule.get_leader(view) for view in range(1, blocks + 1)]
        run = 0
        while run < blocks and leaders[blocks - 1 - run] == 0:
            run += 1
        seeds = [sha256(b"%d %d" % (epoch, choice)).digest() for choice in range(1 << min(run, 10))]
        turns, schedule = max(
            (
                (sum(found.get_leader(view) == 0 for view in range(1, blocks + 1)), found)
                for found in (DrawnSchedule(validators, seed) for seed in seeds)
            ),
            key=lambda pair: pair[0],
        )
        taken += turns
    return taken * 10_000 // (epochs * blocks)


@pytest.mark.parametrize(
    ("share_percent", "low_bp", "high_bp"), [(10, 980, 1_060), (25, 2_500, 2_750), (33, 3_330, 3_650)]
)
def test_the_last_revealers_bias_is_a_few_per_cent(share_percent: int, low_bp: int, high_bp: int) -> None:
    gain = measure_gain(share_percent, epochs=800, blocks=64)
    assert low_bp < gain < high_bp, gain
