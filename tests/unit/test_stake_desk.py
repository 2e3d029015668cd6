"""The stake desk: what is told of validators and accounts is what the state says, bounded and by epoch."""

import pytest

from consensus.ledger import staking
from node.desks import stake
from node.desks.stake import StakeDesk
from node.metrics import NodeMetrics
from tests.ledger_chain import Chain, make_genesis
from tests.staking_chain import OPERATORS, PEOPLE, StakingChain, make_staking_genesis, make_voting_key

ANN = PEOPLE[0]


def open_desk(chain: Chain, own: bytes = b"\0" * 20) -> StakeDesk:
    return StakeDesk(chain.view, chain.rules.parameters, own)


def make_chain(**parameters: object) -> StakingChain:
    return StakingChain(make_staking_genesis(fee_units_min=0, **parameters))


def test_a_newcomer_is_listed_before_it_has_a_seat_with_the_next_set_and_then_by_index() -> None:
    chain = make_chain(churn_bp_max=10_000, participation_bp_min=0)
    chain.grow(chain.found(4, 600, commission_bp=250))
    told = open_desk(chain).list_validators()
    assert (told.epoch, told.height, told.boundary_height) == (0, 1, 3)
    newcomer = told.validators[-1]
    assert (newcomer.index, newcomer.stake, newcomer.next_stake) == (None, 0, 0)
    assert (newcomer.bonded, newcomer.own_bonded, newcomer.commission_bp) == (600, 600, 250)
    chain.reach(1)
    told = open_desk(chain).list_validators()
    assert (told.epoch, told.boundary_height) == (1, 6)
    assert (told.validators[-1].index, told.validators[-1].next_stake) == (None, 600)
    assert told.next_total_stake == told.total_stake + 600 + sum(
        chain.stake(n).tokens - 1_000 for n in range(4)
    )
    chain.reach(2)
    newcomer = open_desk(chain, make_voting_key(4).address).list_validators().validators[4]
    assert (newcomer.index, newcomer.stake, newcomer.is_self) == (4, 600, True)
    assert newcomer.public_key == make_voting_key(4).public_key
    assert newcomer.address == OPERATORS[4].address


def test_a_jailed_and_a_tombstoned_validator_are_told_as_such_with_and_without_a_seat() -> None:
    chain = make_chain(churn_bp_max=10_000, participation_bp_min=5_000)
    chain.absent = {3}
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    chain.reach(1)
    for epoch in (1, 2, 3):
        chain.reach(epoch)
        statuses = {
            v.address: (v.status, v.jailed_until) for v in open_desk(chain).list_validators().validators
        }
        assert statuses[OPERATORS[1].address] == ("tombstoned", None)
        assert statuses[OPERATORS[3].address] == ("jailed", 2)
        assert statuses[OPERATORS[0].address] == ("bonded", None)
    one = open_desk(chain).find_validator(OPERATORS[3].address)
    assert one is not None
    assert (one.index, one.stake) == (None, 0)
    assert open_desk(chain).find_validator(ANN.address) is None


def test_participation_is_told_once_blocks_are_counted() -> None:
    chain = make_chain()
    chain.absent = {3}
    told = open_desk(chain).list_validators()
    assert [v.participation_bp for v in told.validators] == [None] * 4
    chain.grow()
    chain.grow()
    told = open_desk(chain).list_validators()
    assert [v.participation_bp for v in told.validators] == [10_000, 10_000, 10_000, 0]


def test_an_accounts_stake_is_told_where_it_lies_and_when_it_comes_back() -> None:
    chain = make_chain(churn_bp_max=10_000)
    chain.grow(chain.bond(ANN, 0, 300), chain.bond(ANN, 2, 200))
    chain.grow(chain.unbond(ANN, 0, 120))
    stake = open_desk(chain).get_stake(ANN.address)
    assert {(d.validator, d.units) for d in stake.delegations} == {
        (OPERATORS[0].address, 180),
        (OPERATORS[2].address, 200),
    }
    assert sum(d.units for d in stake.delegations) == chain.view.get_bonded_units(ANN.address)
    (claim,) = stake.unbonding
    assert (claim.validator, claim.epoch, claim.units, claim.release_epoch) == (
        OPERATORS[0].address,
        0,
        120,
        4,
    )
    assert not claim.is_ripe
    chain.reach(4)
    (claim,) = open_desk(chain).get_stake(ANN.address).unbonding
    assert claim.is_ripe
    own = open_desk(chain).get_stake(OPERATORS[0].address)
    assert own.owed == chain.stake(0).owed_units > 0
    assert own.delegations[0].validator == OPERATORS[0].address
    assert open_desk(chain).get_stake(b"?" * 20).delegations == ()


def test_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = make_chain()
    chain.grow(*(chain.found(number, 200) for number in range(4, 8)))
    chain.grow(*(chain.bond(ANN, number, 20) for number in range(6)))
    monkeypatch.setattr(stake, "OTHERS_MAX", 3)
    monkeypatch.setattr(stake, "PLACES_MAX", 2)
    told = open_desk(chain).list_validators()
    assert (len(told.validators), told.is_cut) == (7, True)
    assert len(open_desk(chain).get_stake(ANN.address).delegations) == 2


def test_a_chain_without_epochs_has_its_validators_and_no_boundary() -> None:
    chain = Chain(make_genesis())
    told = open_desk(chain).list_validators()
    assert told.boundary_height is None
    assert told.total_stake == told.next_total_stake == chain.rules.validators.total
    assert {v.status for v in told.validators} == {"bonded"}


def test_the_figures_are_of_this_nodes_own_validator() -> None:
    chain = make_chain(participation_bp_min=5_000)
    chain.absent = {3}
    chain.reach(1)
    metrics = NodeMetrics()
    open_desk(chain, OPERATORS[3].address).update_metrics(metrics)
    text = metrics.render()
    assert b'assay_validator_status{status="jailed"} 1.0' in text
    assert b'assay_validator_status{status="bonded"} 0.0' in text
    assert b"assay_validator_stake_units 1000.0" in text
    assert b"assay_epoch_boundary_height 6.0" in text
    assert b"assay_validators 4.0" in text
    open_desk(chain, ANN.address).update_metrics(metrics)
    assert b'assay_validator_status{status="jailed"} 0.0' in metrics.render()
    assert staking.STATUS_NAMES == ("bonded", "jailed", "tombstoned")
