"""Bond, unbond, withdraw, delegate, rotate: what may happen, what may not, and where the money goes."""

import pytest

from consensus.codec import encode
from consensus.crypto import PrivateKey
from consensus.errors import NotYet, Rejected
from consensus.ledger import bond, rotation, staking, unbond
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import (
    KIND_BOND,
    KIND_ROTATE_KEY,
    KIND_TRANSFER,
    KIND_UNBOND,
    KIND_UNJAIL,
    KIND_WITHDRAW,
)
from tests.ledger_chain import BALANCE, Chain, make_genesis
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis, make_voting_key

ANN, BOB = PEOPLE[:2]


@pytest.fixture
def chain() -> StakingChain:
    """No rewards, no cap on change: what moves is what the test moves."""
    return StakingChain(make_staking_genesis(reward_units=0, churn_bp_max=10_000, participation_bp_min=0))


# --- bonding ----------------------------------------------------------------------------------------


def test_a_bond_makes_a_validator_that_sits_in_the_set_after_the_next(chain: StakingChain) -> None:
    chain.grow(chain.found(4, 500))
    assert chain.balance(OPERATORS[4]) == BALANCE - 501
    assert chain.stake(4).tokens == 500
    chain.reach(1)
    assert 4 not in chain.weights(1)
    assert chain.weights(2)[4] == 500
    assert chain.set_of(2).validators.validators[4].public_key == make_voting_key(4).public_key
    chain.check_money()


def test_a_first_bond_below_the_minimum_is_refused(chain: StakingChain) -> None:
    assert chain.refuse(chain.found(4, 99)).code == "bond_minimum"
    chain.grow(chain.found(4, 100))


def test_more_than_the_sender_has_cannot_be_bonded(chain: StakingChain) -> None:
    assert chain.refuse(chain.found(4, BALANCE)).code == "unfunded"
    assert chain.refuse(chain.bond(ANN, 0, BALANCE)).code == "unfunded"


def test_an_account_operates_one_validator(chain: StakingChain) -> None:
    assert chain.refuse(chain.found(0)).code == "validator_exists"
    chain.grow(chain.bond(OPERATORS[0], 0, 50))
    assert chain.stake(0).own_tokens == STAKE + 50


def test_a_voting_key_is_taken_only_with_its_own_signature(chain: StakingChain) -> None:
    address, stranger = OPERATORS[4].address, OPERATORS[5].address
    for_another = bond.sign_founding(make_voting_key(4), chain.rules.chain_id, stranger, 0)
    other_chain = bond.sign_founding(make_voting_key(4), "another", address, 0)
    none = bond.encode_founding(bond.Founding(make_voting_key(4).public_key, bytes(64), 0))
    for payload in (for_another, other_chain, none):
        tx = chain.make(KIND_BOND, OPERATORS[4], address, payload, amount=STAKE)
        assert chain.refuse(tx).code == "voting_key_proof"


def test_a_key_that_is_no_key_is_refused(chain: StakingChain) -> None:
    for key in (b"\x02" + b"\xff" * 32, b"\x05" + bytes(32), bytes(33)):
        payload = bond.encode_founding(bond.Founding(key, bytes(64), 0))
        tx = chain.make(KIND_BOND, OPERATORS[4], OPERATORS[4].address, payload, amount=STAKE)
        assert chain.refuse(tx).code == "voting_key"
    payload = encode((b"\x02" * 32, bytes(64), 0))
    tx = chain.make(KIND_BOND, OPERATORS[4], OPERATORS[4].address, payload, amount=STAKE)
    assert chain.refuse(tx).code == "size"


def test_a_voting_key_belongs_to_one_validator(chain: StakingChain) -> None:
    proof = bond.sign_founding(OPERATORS[0], chain.rules.chain_id, OPERATORS[4].address, 0)
    tx = chain.make(KIND_BOND, OPERATORS[4], OPERATORS[4].address, proof, amount=STAKE)
    assert chain.refuse(tx).code == "voting_key_taken"


@pytest.mark.parametrize(
    "payload", [b"\x90", b"\xff" * 20, encode((b"", b"", -1)), encode((b"x" * 33, b"y" * 64, 10_001))]
)
def test_nonsense_as_a_founding_is_refused(chain: StakingChain, payload: bytes) -> None:
    tx = chain.make(KIND_BOND, OPERATORS[4], OPERATORS[4].address, payload, amount=STAKE)
    assert isinstance(chain.refuse(tx), Rejected)


def test_nobody_founds_a_validator_for_another(chain: StakingChain) -> None:
    payload = bond.sign_founding(make_voting_key(4), chain.rules.chain_id, OPERATORS[4].address, 0)
    tx = chain.make(KIND_BOND, OPERATORS[5], OPERATORS[4].address, payload, amount=STAKE)
    assert chain.refuse(tx).code == "receiver"


def test_creating_records_costs_a_fee_for_every_byte() -> None:
    chain = StakingChain(make_staking_genesis(account_byte_fee_units=1))
    assert chain.refuse(chain.found(4, fee=192)).code == "fee"
    chain.grow(chain.found(4, fee=193))
    assert chain.refuse(chain.bond(ANN, 0, 100, fee=64)).code == "fee"
    chain.grow(chain.bond(ANN, 0, 100, fee=65))
    chain.grow(chain.bond(ANN, 0, 100, fee=1))
    chain.check_money()


def test_a_chain_with_one_everlasting_epoch_has_no_staking() -> None:
    chain = Chain(make_genesis())
    key = PrivateKey.from_seed(b"account/0")
    founding = bond.sign_founding(make_voting_key(4), chain.rules.chain_id, key.address, 0)
    for tx in (
        chain.make(KIND_BOND, key, key.address, founding, amount=STAKE),
        chain.make(KIND_UNBOND, key, key.address, unbond.encode_units(0)),
        chain.make(KIND_ROTATE_KEY, key, key.address, rotation.sign_rotation(key, "c", key.address)),
        chain.make(KIND_WITHDRAW, key, key.address, b""),
        chain.make(KIND_UNJAIL, key, key.address, b""),
    ):
        assert [error.code for _, error in chain.build(tx).rejected] == ["staking_off"]


# --- delegating -------------------------------------------------------------------------------------


def test_a_delegation_counts_for_its_validator(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 700))
    assert chain.view.get_bonded_units(ANN.address) == 700
    assert chain.stake(1).own_tokens == STAKE
    chain.reach(1)
    assert chain.weights(2)[1] == STAKE + 700
    chain.check_money()


def test_a_delegation_needs_a_validator_and_a_minimum(chain: StakingChain) -> None:
    assert chain.refuse(chain.bond(ANN, 5, 700)).code == "validator_unknown"
    assert chain.refuse(chain.bond(ANN, 1, 9)).code == "bond_minimum"
    assert chain.refuse(chain.bond(ANN, 1, 0)).code == "range"


def test_a_delegation_that_rounding_would_eat_is_refused(chain: StakingChain) -> None:
    # One share that is worth 700 units, as after great rewards with nearly all shares gone.
    stake = staking.Stake(9, make_voting_key(7).public_key, 700, 1, 1, 0)
    records = staking.put_stake(chain.view.records, OPERATORS[7].address, stake, 100)
    chain.view.records = records
    assert chain.refuse(chain.bond(ANN, 7, 1_399)).code == "bond_rounding"
    assert not chain.build(chain.bond(ANN, 7, 1_400)).rejected


# --- leaving ----------------------------------------------------------------------------------------


def test_what_is_unbonded_is_out_after_the_period_and_not_before(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 700))
    chain.grow(chain.unbond(ANN, 1, 300))
    before = chain.balance(ANN)
    for epoch in range(1, 5):
        assert isinstance(chain.refuse(chain.withdraw(ANN)), NotYet)
        chain.check_money()
        chain.reach(epoch)
    chain.grow(chain.withdraw(ANN))
    assert chain.balance(ANN) == before + 300 - 1
    assert chain.view.get_bonded_units(ANN.address) == 400
    assert chain.refuse(chain.withdraw(ANN)).code == "withdraw_nothing"
    chain.check_money()


def test_the_clock_too_must_have_run_its_time() -> None:
    chain = StakingChain(make_staking_genesis(churn_bp_max=10_000, unbonding_ms=5_000, reward_units=0))
    out_ms = chain.now_ms + 5_000  # the transaction's time counts
    chain.grow(chain.unbond(OPERATORS[0], 0, 100))
    chain.reach(6)
    chain.grow(now_ms=out_ms - 1)
    assert chain.refuse(chain.withdraw(OPERATORS[0])).code == "withdraw_early"
    chain.grow(now_ms=out_ms)  # the parent's time counts
    chain.grow(chain.withdraw(OPERATORS[0]))


def test_what_moves_a_blocks_time_after_it_does_not_move_when_stake_is_released() -> None:
    """On the workload clock the block's time is that of its latest transaction, known when it is built to the end."""
    chain = StakingChain(make_staking_genesis(clock=CLOCK_WORKLOAD, churn_bp_max=10_000))
    early = chain.now_ms
    leaving = chain.unbond(OPERATORS[0], 0, 100, timestamp_ms=early)
    later = chain.make(KIND_TRANSFER, ANN, BOB.address, b"", timestamp_ms=early + 60_000)
    block = chain.grow(leaving, later).block
    assert [tx.id for tx in block.transactions] == [leaving.id, later.id]
    assert block.header.timestamp_ms == early + 60_000


def test_what_moves_a_blocks_time_after_it_does_not_release_more_to_a_withdrawal() -> None:
    """Two claims, of which the second is out by the time that a later transfer brings."""
    chain = StakingChain(make_staking_genesis(clock=CLOCK_WORKLOAD, unbonding_ms=5_000, churn_bp_max=10_000))
    chain.grow(chain.bond(ANN, 1, 100), chain.bond(ANN, 2, 100))
    chain.grow(chain.unbond(ANN, 1))
    first_ms = chain.now_ms
    chain.grow(chain.unbond(ANN, 2, timestamp_ms=first_ms + 1_000))
    chain.grow(chain.transfer(BOB, ANN, timestamp_ms=first_ms + 5_000))
    chain.reach(8)
    later = chain.transfer(BOB, ANN, timestamp_ms=first_ms + 6_000)
    chain.grow(chain.withdraw(ANN), later)
    assert len(list(staking.walk_claims(chain.view.records, ANN.address))) == 1


def test_all_of_it_leaves_with_zero_as_the_amount(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 777))
    chain.grow(chain.unbond(ANN, 1))
    assert chain.view.get_bonded_units(ANN.address) == 0
    assert chain.refuse(chain.unbond(ANN, 1)).code == "unbond_nothing"
    chain.reach(4)
    chain.grow(chain.withdraw(ANN))
    assert chain.balance(ANN) == BALANCE - 3
    chain.check_money()


def test_more_than_is_there_cannot_be_unbonded(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 700))
    assert chain.refuse(chain.unbond(ANN, 1, 701)).code == "unbond_too_much"
    assert chain.refuse(chain.unbond(BOB, 1, 1)).code == "unbond_nothing"
    assert chain.refuse(chain.unbond(ANN, 5, 1)).code == "validator_unknown"
    assert chain.refuse(chain.unbond(ANN, 1, 691)).code == "unbond_rest"


def test_the_last_share_leaves_nothing_behind(chain: StakingChain) -> None:
    # Two shares are worth fifteen units each: twenty units cost both of them.
    stake = staking.Stake(9, make_voting_key(7).public_key, 30, 2, 0, 0)
    records = staking.put_stake(chain.view.records, OPERATORS[7].address, stake, 100)
    chain.view.records = staking.put_shares(records, ANN.address, OPERATORS[7].address, 2)
    after = chain.build(chain.unbond(ANN, 7, 20)).delta.records
    left = staking.get_stake(after, OPERATORS[7].address)
    assert (left.tokens, left.shares) == (0, 0)
    assert [claim.amount for claim in staking.walk_claims(after, ANN.address)] == [30]


def test_an_operator_below_the_minimum_leaves_the_next_set(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 5_000))
    chain.grow(chain.unbond(OPERATORS[1], 1, 901))
    chain.reach(1)
    assert 1 not in chain.weights(2)
    chain.check_money()


def test_claims_of_one_epoch_are_one_and_are_paid_together(chain: StakingChain) -> None:
    chain.grow(chain.bond(ANN, 1, 500), chain.bond(ANN, 2, 500))
    chain.grow(chain.unbond(ANN, 1, 100), chain.unbond(ANN, 1, 50), chain.unbond(ANN, 2, 70))
    assert len(list(staking.walk_claims(chain.view.records, ANN.address))) == 2
    chain.reach(4)
    before = chain.balance(ANN)
    chain.grow(chain.withdraw(ANN))
    assert chain.balance(ANN) == before + 220 - 1
    assert list(staking.walk_unbonding(chain.view.records)) == []


def test_one_withdrawal_pays_a_bounded_number_of_claims(
    chain: StakingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consensus.ledger.withdraw.CLAIMS_MAX", 2)
    chain.grow(*(chain.bond(ANN, number, 100) for number in range(3)))
    chain.grow(*(chain.unbond(ANN, number) for number in range(3)))
    chain.reach(4)
    chain.grow(chain.withdraw(ANN))
    assert len(list(staking.walk_claims(chain.view.records, ANN.address))) == 1
    chain.grow(chain.withdraw(ANN))
    chain.check_money()


@pytest.mark.parametrize(
    "payload", [b"", b"\x90", encode((-1,)), encode((2**53,)), encode((1, 2)), encode(1)]
)
def test_nonsense_as_an_amount_is_refused(chain: StakingChain, payload: bytes) -> None:
    tx = chain.make(KIND_UNBOND, OPERATORS[0], OPERATORS[0].address, payload)
    assert isinstance(chain.refuse(tx), Rejected)


# --- rotating ---------------------------------------------------------------------------------------


def test_a_new_voting_key_counts_from_the_next_set_that_is_fixed(chain: StakingChain) -> None:
    new = make_voting_key(0, 2)
    chain.grow(chain.rotate(0, new))
    chain.reach(2)
    assert chain.set_of(1).validators.validators[0].public_key == OPERATORS[0].public_key
    assert chain.set_of(2).validators.validators[0].public_key == new.public_key


def test_an_old_voting_key_stays_its_operators(chain: StakingChain) -> None:
    chain.grow(chain.rotate(0, make_voting_key(0, 2)))
    assert chain.refuse(chain.rotate(1, OPERATORS[0])).code == "voting_key_taken"
    assert chain.refuse(chain.rotate(0, make_voting_key(0, 2))).code == "voting_key_taken"
    chain.grow(chain.rotate(0, OPERATORS[0]))


def test_a_rotation_needs_the_new_keys_signature(chain: StakingChain) -> None:
    payload = rotation.sign_rotation(make_voting_key(1, 2), chain.rules.chain_id, OPERATORS[0].address)
    tx = chain.make(KIND_ROTATE_KEY, OPERATORS[1], OPERATORS[1].address, payload)
    assert chain.refuse(tx).code == "voting_key_proof"
    assert chain.refuse(chain.rotate(5, make_voting_key(5))).code == "validator_unknown"
