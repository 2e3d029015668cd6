"""Evidence on the chain: what counts, what it costs the liar and those behind it, and that nothing escapes."""

from dataclasses import replace

import pytest

from consensus.bft.evidence import encode_evidence
from consensus.codec import encode
from consensus.errors import NotYet, Rejected
from consensus.ledger import staking, supply
from consensus.transaction import KIND_EVIDENCE
from consensus.vote import Evidence, Subject, Vote
from tests.ledger_chain import BALANCE
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis, make_voting_key

ANN, BOB = PEOPLE[:2]


@pytest.fixture
def chain() -> StakingChain:
    return StakingChain(
        make_staking_genesis(reward_units=0, fee_units_min=0, churn_bp_max=10_000, participation_bp_min=0)
    )


def test_a_lie_costs_a_twentieth_of_all_stake_behind_it_and_the_seat(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 600), chain.bond(BOB, 1, 400))
    chain.grow(chain.unbond(BOB, 1, 200))
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    stake = chain.stake(1)
    assert (stake.status, stake.tokens) == (staking.TOMBSTONED, 1_710)
    assert chain.view.get_bonded_units(ANN.address) == 570
    assert supply.get_supply(chain.view.records).burned == 90 + 10
    assert 1 not in chain.weights(2)
    chain.check_money()
    chain.reach(4)
    chain.grow(chain.withdraw(BOB))
    assert chain.balance(BOB) == BALANCE - 400 + 190
    chain.check_money()


def test_within_two_epochs_the_liar_is_gone(chain: StakingChain) -> None:
    chain.reach(3)
    chain.grow(chain.accuse(2, chain.lie(2, 3)))
    chain.reach(5)
    assert 2 not in chain.weights(5)


def test_a_liar_is_punished_once(chain: StakingChain) -> None:
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    burned = supply.get_supply(chain.view.records).burned
    for again in (chain.lie(1, 0), chain.lie(1, 0, view=7), chain.lie(1, 1)):
        error = chain.refuse(chain.accuse(1, again, BOB))
        assert error.code in ("evidence_twice", "evidence_early")
    chain.reach(1)
    assert chain.refuse(chain.accuse(1, chain.lie(1, 1), BOB)).code == "evidence_twice"
    assert supply.get_supply(chain.view.records).burned == burned


def test_two_accusations_in_one_block_punish_once(chain: StakingChain) -> None:
    first, second = chain.accuse(1, chain.lie(1, 0)), chain.accuse(1, chain.lie(1, 0, view=2), BOB)
    built = chain.build(first, second)
    assert [error.code for _, error in built.rejected] == ["evidence_twice"]


def test_evidence_is_judged_by_the_set_of_its_epoch(chain: StakingChain) -> None:
    chain.grow(chain.rotate(0, make_voting_key(0, 2)))
    chain.reach(2)
    old = chain.lie(0, 1)
    assert chain.refuse(chain.accuse(0, chain.lie(0, 2))).code == "signature"
    assert chain.refuse(chain.accuse(0, chain.lie(0, 1, key=make_voting_key(0, 2)))).code == "signature"
    chain.grow(chain.accuse(0, old))
    assert chain.stake(0).status == staking.TOMBSTONED


def test_stale_evidence_is_refused(chain: StakingChain) -> None:
    lies = {epoch: chain.lie(1, epoch) for epoch in (0, 1)}
    chain.reach(2)
    assert not chain.build(chain.accuse(1, lies[0])).rejected
    chain.reach(3)
    assert chain.refuse(chain.accuse(1, lies[0])).code == "evidence_stale"
    chain.grow(chain.accuse(1, lies[1]))


def test_evidence_of_an_epoch_to_come_may_come(chain: StakingChain) -> None:
    error = chain.refuse(chain.accuse(1, chain.lie(1, 1)))
    assert isinstance(error, NotYet)
    far = Vote(Subject(2**50, 0, 1, b"a" * 32), 1, bytes(64))
    other = replace(far, subject=replace(far.subject, block_hash=b"b" * 32))
    assert chain.refuse(chain.accuse(1, Evidence(far, other))).code == "evidence_early"


def test_forged_and_foreign_evidence_is_refused(chain: StakingChain) -> None:
    good = chain.lie(1, 0)
    forged = replace(good, first=replace(good.first, signature=good.second.signature))
    assert chain.refuse(chain.accuse(1, forged)).code == "signature"
    other = StakingChain(replace(make_staking_genesis(), chain_id="another"))
    assert chain.refuse(chain.accuse(1, other.lie(1, 0))).code == "signature"
    assert chain.refuse(chain.accuse(2, good)).code == "evidence_receiver"
    absent = Evidence(replace(good.first, signer=4), replace(good.second, signer=4))
    assert chain.refuse(chain.accuse(1, absent)).code == "signer"
    assert chain.stake(1).status == staking.BONDED


@pytest.mark.parametrize(
    "payload", [b"", b"\x90", encode((0, 1, 1, (0, b"a" * 32, bytes(64)), (0, b"a" * 32, bytes(64))))]
)
def test_what_is_no_evidence_is_refused(chain: StakingChain, payload: bytes) -> None:
    tx = chain.make(KIND_EVIDENCE, ANN, OPERATORS[1].address, payload)
    assert isinstance(chain.refuse(tx), Rejected)


def test_evidence_moves_no_money(chain: StakingChain) -> None:
    payload = encode_evidence(chain.lie(1, 0))
    tx = chain.make(KIND_EVIDENCE, ANN, OPERATORS[1].address, payload, amount=5)
    assert chain.refuse(tx).field == "amount"


def test_who_was_out_for_good_stays_out(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 600))
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    assert chain.refuse(chain.bond(BOB, 1, 100)).code == "tombstoned"
    assert chain.refuse(chain.bond(OPERATORS[1], 1, 100)).code == "tombstoned"
    assert chain.refuse(chain.unjail(1)).code == "unjail_status"
    assert chain.refuse(chain.rotate(1, make_voting_key(1, 2))).code == "tombstoned"
    chain.grow(chain.unbond(ANN, 1), chain.unbond(OPERATORS[1], 1))
    chain.reach(6)
    chain.grow(chain.withdraw(ANN), chain.withdraw(OPERATORS[1]))
    assert (chain.balance(ANN), chain.balance(OPERATORS[1])) == (BALANCE - 30, BALANCE + 950)
    chain.check_money()


def test_what_left_before_the_lie_was_possible_is_spared(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 600), chain.bond(BOB, 1, 600))
    chain.grow(chain.unbond(ANN, 1))  # in epoch 0: votes in 1 for the last time
    chain.reach(1)
    chain.grow(chain.unbond(BOB, 1))  # in epoch 1: votes in 2 for the last time
    chain.reach(2)
    chain.grow(chain.accuse(1, chain.lie(1, 2)))
    chain.reach(5)
    chain.grow(chain.withdraw(ANN), chain.withdraw(BOB))
    assert (chain.balance(ANN), chain.balance(BOB)) == (BALANCE, BALANCE - 30)


def test_the_reward_of_a_liar_is_burned() -> None:
    chain = StakingChain(make_staking_genesis(reward_units=4_000, fee_units_min=0, churn_bp_max=10_000))
    chain.grow()
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    chain.check_money()
    chain.grow()
    chain.check_money()
    assert chain.stake(1).tokens == STAKE * 95 // 100
    assert supply.get_supply(chain.view.records).burned > 50


def test_all_of_it_can_be_slashed() -> None:
    chain = StakingChain(make_staking_genesis(slash_bp=10_000, fee_units_min=0, churn_bp_max=10_000))
    chain.grow(chain.bond(ANN, 1, 600))
    chain.grow(chain.unbond(ANN, 1, 300))
    chain.grow(chain.accuse(1, chain.lie(1, 0)))
    assert chain.stake(1).tokens == 0
    chain.grow(chain.unbond(ANN, 1))
    chain.reach(6)
    chain.grow(chain.withdraw(ANN))
    assert chain.balance(ANN) == BALANCE - 600
    chain.check_money()
