"""Rewards by participation, commission, what nobody earned; absence, jail and the way back."""

from dataclasses import replace

import pytest

from consensus.codec import MONEY_MAX
from consensus.errors import NotYet, Rejected
from consensus.ledger import participation, rewards, staking, supply
from tests.ledger_chain import BALANCE
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis

ANN = PEOPLE[0]
FREE = {"fee_units_min": 0, "churn_bp_max": 10_000}


def make_chain(stakes: tuple[int, ...] = (STAKE,) * 4, **parameters: object) -> StakingChain:
    return StakingChain(make_staking_genesis(stakes, **{**FREE, **parameters}))


# --- rewards ----------------------------------------------------------------------------------------


def test_a_blocks_reward_goes_to_proposer_and_signers_by_stake() -> None:
    chain = make_chain((1_000, 3_000))
    parts = rewards.split_reward(chain.set_of(0), chain.rules.parameters, 1_000, 0, (0, 1))
    assert parts == ((0, 251), (0, 187), (1, 562))
    absent = rewards.split_reward(chain.set_of(0), chain.rules.parameters, 1_000, 0, (1,))
    assert absent == ((0, 188), (1, 562))


def test_a_proposer_gains_by_every_signature_and_nobody_by_anothers_absence() -> None:
    chain = make_chain()
    earned = []
    for signers in ((0, 1, 2), (0, 1, 2, 3)):
        parts = rewards.split_reward(chain.set_of(0), chain.rules.parameters, 10_000, 0, signers)
        earned.append([sum(units for index, units in parts if index == who) for who in range(4)])
    three, four = earned
    assert three[0] < four[0]
    assert three[1:3] == four[1:3]
    assert (three[3], sum(four)) == (0, 10_000)


def test_rewards_of_an_epoch_raise_stakes_and_pay_commissions() -> None:
    chain = make_chain(reward_units=400)
    chain.grow(chain.found(4, STAKE, commission_bp=2_500))
    for epoch in range(1, 4):
        chain.reach(epoch)
        chain.check_money()
    stake = chain.stake(0)
    assert (stake.tokens > STAKE, stake.owed_units > 0) == (True, True)
    assert stake.owed_units * 9 <= (stake.tokens - STAKE) + 9 * 3  # a tenth of it, rounded once an epoch
    before = chain.balance(OPERATORS[0])
    chain.grow(chain.withdraw(OPERATORS[0]))
    assert chain.balance(OPERATORS[0]) == before + stake.owed_units
    assert chain.stake(0).owed_units == 0
    assert chain.stake(4).tokens > STAKE
    chain.check_money()


def test_delegators_share_what_their_validator_earns() -> None:
    chain = make_chain((1_000,), reward_units=1_000)
    chain.grow(chain.bond(ANN, 0, 1_000))
    chain.reach(3)
    worth = chain.view.get_bonded_units(ANN.address)
    assert worth == chain.stake(0).own_tokens > 1_000
    chain.grow(chain.unbond(ANN, 0))
    chain.reach(8)
    chain.grow(chain.withdraw(ANN))
    assert chain.balance(ANN) == BALANCE - 1_000 + worth
    chain.check_money()


def test_no_more_than_so_much_is_issued_a_block() -> None:
    chain = make_chain(reward_units=100)
    for _ in range(9):
        before = supply.get_supply(chain.view.records)
        chain.grow()
        after = supply.get_supply(chain.view.records)
        issued = after.issued - before.issued
        assert issued == (0 if chain.blocks[-1].parent_certificate is None else 100)
        chain.check_money()
    assert after.burned == 0


def test_the_supply_is_capped_for_ever() -> None:
    genesis = make_staking_genesis(**{**FREE, "reward_units": 1_000})
    rest = MONEY_MAX - 4 * STAKE - sum(units for _, units in genesis.accounts) - 1_500
    genesis = replace(genesis, accounts=(*genesis.accounts, (b"r" * 20, rest)))
    chain = StakingChain(genesis)
    for _ in range(6):
        chain.grow()
        chain.check_money()
    assert chain.view.supply == MONEY_MAX


def test_what_the_absent_would_have_earned_of_the_fees_is_burned() -> None:
    chain = make_chain(reward_units=0, participation_bp_min=0)
    chain.absent = {3}
    chain.grow()
    chain.grow(chain.transfer(ANN, OPERATORS[0], fee=1_000))
    chain.check_money()
    assert supply.get_supply(chain.view.records).burned == 250


def test_the_first_block_of_an_epoch_pays_its_proposer_the_fees() -> None:
    chain = make_chain(reward_units=100)
    chain.grow(chain.transfer(ANN, OPERATORS[0], fee=70))
    found = participation.get_participation(chain.view.records)
    assert (found.blocks, found.rewards, found.signed) == (0, (70, 0, 0, 0), (0, 0, 0, 0))
    chain.check_money()


# --- absence ----------------------------------------------------------------------------------------


def test_who_is_absent_is_jailed_leaves_and_comes_back() -> None:
    chain = make_chain(reward_units=0)
    chain.absent = {3}
    chain.reach(1)
    assert chain.stake(3).status == staking.JAILED
    assert 3 not in chain.weights(2)
    assert [chain.stake(number).status for number in range(3)] == [staking.BONDED] * 3
    assert isinstance(chain.refuse(chain.unjail(3)), NotYet)
    chain.reach(2)
    chain.absent = set()
    chain.grow(chain.unjail(3))
    chain.reach(3)
    assert chain.weights(4)[3] == STAKE
    assert chain.stake(3).status == staking.BONDED


def test_jail_takes_no_more_stake_out_than_the_cap_allows() -> None:
    chain = make_chain(churn_bp_max=500, reward_units=0)
    chain.absent = {2, 3}
    chain.reach(1)
    assert chain.weights(2) == {0: STAKE, 1: STAKE, 2: STAKE - 200, 3: STAKE}
    chain.reach(2)
    assert chain.weights(3) == {0: STAKE, 1: STAKE, 2: STAKE - 390, 3: STAKE}


def test_one_block_in_twenty_is_enough() -> None:
    chain = make_chain(epoch_blocks=21)
    chain.absent = {2, 3}
    for _ in range(19):
        chain.grow()
    chain.absent = {3}
    chain.reach(1)
    assert [chain.stake(number).status for number in range(4)] == [0, 0, 0, staking.JAILED]


def test_only_a_jailed_validator_with_its_stake_unjails() -> None:
    chain = make_chain(reward_units=0)
    assert chain.refuse(chain.unjail(0)).code == "unjail_status"
    assert chain.refuse(chain.unjail(6)).code == "validator_unknown"
    chain.absent = {3}
    chain.reach(1)
    chain.grow(chain.unbond(OPERATORS[3], 3, 950))
    chain.reach(2)
    error = chain.refuse(chain.unjail(3))
    assert isinstance(error, Rejected)
    assert error.code == "bond_minimum"
    chain.grow(chain.bond(OPERATORS[3], 3, 60), chain.unjail(3))


@pytest.mark.parametrize("reward_units", [0, 7, 100])
def test_the_end_of_an_epoch_touches_its_validators_alone(reward_units: int) -> None:
    chain = make_chain(epoch_blocks=8, reward_units=reward_units)
    chain.grow(*(chain.bond(person, 0, 100) for person in PEOPLE))
    chain.grow(*(chain.unbond(person, 0, 50) for person in PEOPLE))
    while chain.view.header.height < 7:
        chain.grow()
    before = dict(chain.view.records.walk())
    chain.grow()
    after = dict(chain.view.records.walk())
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key[:1] for key in changed} <= {b"\x00", b"\x02", b"\x03", b"\x04", b"\x09", b"\x0a"}
