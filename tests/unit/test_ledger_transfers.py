"""The envelope's rules: what a transfer may do in its place in a block, and why not."""

import pytest

from consensus import codec
from consensus.crypto import PrivateKey
from consensus.errors import NotYet, Rejected
from consensus.ledger.scoring import REFUSE_NEVER, Thresholds
from consensus.ledger.state import Account
from consensus.parameters import CLOCK_WALL, DAY_MS
from consensus.transaction import sign_transaction
from tests.ledger_chain import (
    BALANCE,
    KEYS,
    START_MS,
    STRANGERS,
    VALIDATORS,
    Chain,
    make_genesis,
    make_wall_chain,
)

A, B, C = KEYS[:3]


def reject(chain: Chain, *candidates: object, now_ms: int | None = None) -> Rejected | NotYet:
    """The reason why the last candidate, and no other, is not in a block; the view stays as it is."""
    root = chain.view.root
    built = chain.build(*candidates, now_ms=now_ms)  # type: ignore[arg-type]
    assert [tx for tx, _ in built.rejected] == [candidates[-1]]
    assert (chain.view.root, chain.state.root) == (root, root)
    error = built.rejected[0][1]
    assert "\n" not in str(error)
    return error


def test_money_moves_and_the_fee_goes_to_the_proposer() -> None:
    chain = Chain()
    chain.grow(chain.transfer(A, B, amount=100, fee=7))
    assert (chain.balance(A), chain.balance(B)) == (BALANCE - 107, BALANCE + 100)
    assert chain.balance(VALIDATORS[0]) == 7


def test_a_transfer_may_spend_what_an_earlier_one_of_the_block_brought() -> None:
    chain = Chain()
    poor = STRANGERS[0]
    chain.grow(chain.transfer(A, poor, amount=50), chain.transfer(poor, B, amount=49))
    assert chain.balance(poor) == 0
    assert chain.balance(B) == BALANCE + 49


def test_a_sender_without_funds_at_its_place_is_unfunded() -> None:
    chain = Chain()
    poor = STRANGERS[0]
    spend = chain.transfer(poor, B, amount=49)
    built = chain.build(spend, chain.transfer(A, poor, amount=50))
    assert [(tx, error.code) for tx, error in built.rejected] == [(spend, "unfunded")]


def test_more_than_the_balance_is_unfunded() -> None:
    chain = Chain(make_genesis(thresholds=Thresholds(REFUSE_NEVER, REFUSE_NEVER)))
    assert reject(chain, chain.transfer(A, B, amount=BALANCE)).code == "unfunded"
    chain.grow(chain.transfer(A, B, nonce=9, amount=BALANCE - 1, fee=1), chain.transfer(C, B))
    assert chain.balance(A) == 0


def test_amount_zero_and_a_transfer_to_oneself_are_legal() -> None:
    chain = Chain()
    chain.grow(chain.transfer(A, B, amount=0), chain.transfer(A, A, amount=20_000))
    assert chain.balance(A) == BALANCE - 2


def test_an_account_is_created_by_what_it_receives() -> None:
    chain = Chain()
    count = chain.view.account_count
    assert chain.view.get_account(STRANGERS[0].address) is None
    chain.grow(chain.transfer(A, STRANGERS[0], amount=0))
    assert chain.view.get_account(STRANGERS[0].address) == Account(STRANGERS[0].address, 0, 0, 0)
    assert chain.view.account_count == count + 1


def test_creating_an_account_costs_a_fee_for_every_byte_of_its_row() -> None:
    chain = Chain(make_genesis(account_byte_fee_units=2))
    cost = 1 + 2 * (44 + 5)
    short = chain.transfer(A, STRANGERS[0], fee=cost - 1)
    assert reject(chain, short).code == "fee"
    chain.grow(chain.transfer(A, STRANGERS[0], nonce=0, fee=cost), chain.transfer(A, STRANGERS[0], nonce=1))


def test_the_account_of_twenty_zeros_is_an_account_like_others() -> None:
    chain = Chain()
    chain.grow(chain.transfer(A, bytes(20), amount=0))
    assert chain.state.compute_root() == chain.view.root
    assert chain.view.get_account(bytes(20)) == Account(bytes(20), 0, 0, 0)


def test_a_fee_below_the_minimum_is_refused() -> None:
    chain = Chain(make_genesis(fee_units_min=3))
    assert reject(chain, chain.transfer(fee=2)).code == "fee"


def test_amount_and_fee_above_all_money_are_refused() -> None:
    chain = Chain()
    tx = chain.transfer(amount=codec.MONEY_MAX, fee=1)
    assert reject(chain, tx).code == "overflow"


def test_a_transfer_with_a_payload_is_refused() -> None:
    chain = Chain()
    tx = chain.make(0, A, B.address, b"hello")
    error = reject(chain, tx)
    assert (error.field, error.code) == ("payload", "size")


def test_an_unknown_kind_is_refused() -> None:
    chain = Chain()
    assert reject(chain, chain.make(99, A, B.address, b"")).code == "kind"


# --- nonces -----------------------------------------------------------------------------------------


def test_nonces_may_come_in_any_order_and_each_once() -> None:
    chain = Chain()
    order = [5, 0, 3, 70, 7, 69]
    chain.grow(*(chain.transfer(A, B, nonce=nonce) for nonce in order))
    account = chain.view.get_account(A.address)
    assert account is not None
    assert account.nonce_next == 71
    assert [n for n in range(7, 72) if not account.is_nonce_free(n)] == [7, 69, 70]
    for nonce in (7, 69, 70):
        assert reject(chain, chain.transfer(A, B, nonce=nonce)).code == "nonce_used"


def test_a_transaction_twice_in_a_block_is_refused() -> None:
    chain = Chain()
    tx = chain.transfer()
    assert reject(chain, tx, tx).code == "nonce_used"


@pytest.mark.parametrize(
    ("nonce", "code"), [(36, "nonce_too_old"), (0, "nonce_too_old"), (100, "nonce_used")]
)
def test_a_nonce_below_the_window_or_used_is_refused(nonce: int, code: str) -> None:
    chain = Chain()
    chain.grow(chain.transfer(A, B, nonce=100))
    assert reject(chain, chain.transfer(A, B, nonce=nonce)).code == code


@pytest.mark.parametrize("nonce", [37, 99, 101, 164, 165, 10_000, codec.MONEY_MAX])
def test_every_nonce_of_the_window_and_above_is_free(nonce: int) -> None:
    chain = Chain()
    chain.grow(chain.transfer(A, B, nonce=100))
    chain.grow(chain.transfer(A, B, nonce=nonce))
    assert reject(chain, chain.transfer(A, B, nonce=nonce)).code == "nonce_used"
    account = chain.view.get_account(A.address)
    assert account is not None
    assert not account.is_nonce_free(nonce)


# --- time -------------------------------------------------------------------------------------------


def test_an_expired_transaction_is_refused() -> None:
    chain = make_wall_chain()
    tx = chain.transfer(timestamp_ms=START_MS, expires_ms=START_MS + 10)
    chain_ms = START_MS + 11
    assert reject(chain, tx, now_ms=chain_ms).code == "expired"
    assert chain.build(tx, now_ms=chain_ms - 1).block.transactions == (tx,)


def test_a_lifetime_above_the_limit_is_refused() -> None:
    chain = make_wall_chain(lifetime_ms_max=1_000)
    tx = chain.transfer(timestamp_ms=START_MS, expires_ms=START_MS + 1_001)
    assert reject(chain, tx).code == "expires"


def test_wall_clock_a_timestamp_too_far_behind_is_refused() -> None:
    chain = make_wall_chain(timestamp_age_ms_max=500)
    tx = chain.transfer(timestamp_ms=START_MS, expires_ms=START_MS + 60_000)
    assert reject(chain, tx, now_ms=START_MS + 501).code == "timestamp"
    assert chain.build(tx, now_ms=START_MS + 500).block.transactions == (tx,)


def test_wall_clock_a_timestamp_ahead_is_not_yet() -> None:
    chain = make_wall_chain(clock_drift_ms_max=100)
    tx = chain.transfer(timestamp_ms=START_MS + 101)
    assert isinstance(reject(chain, tx, now_ms=START_MS), NotYet)
    assert chain.build(tx, now_ms=START_MS + 1).block.transactions == (tx,)


def test_wall_clock_block_time_is_now_and_never_before_the_parent() -> None:
    chain = make_wall_chain()
    assert chain.build(now_ms=START_MS + 77).block.header.timestamp_ms == START_MS + 77
    assert chain.build(now_ms=START_MS - 77).block.header.timestamp_ms == START_MS


def test_workload_block_time_is_the_latest_of_its_transactions() -> None:
    chain = Chain()
    chain.grow(
        chain.transfer(A, B, timestamp_ms=START_MS + 9), chain.transfer(B, A, timestamp_ms=START_MS + 4)
    )
    assert chain.now_ms == START_MS + 9
    chain.grow(chain.transfer(A, B, timestamp_ms=START_MS + 5))
    assert chain.now_ms == START_MS + 9


def test_workload_a_pause_above_the_limit_is_not_yet() -> None:
    chain = Chain(make_genesis(clock_jump_ms_max=DAY_MS))
    tx = chain.transfer(timestamp_ms=START_MS + DAY_MS + 1)
    assert isinstance(reject(chain, tx), NotYet)
    chain.grow(chain.transfer(timestamp_ms=START_MS + DAY_MS, nonce=5))


def test_workload_what_would_outdate_an_earlier_one_waits_for_the_next_block() -> None:
    chain = Chain()
    early = chain.transfer(A, B, timestamp_ms=START_MS, expires_ms=START_MS + 10)
    late = chain.transfer(B, STRANGERS[0], timestamp_ms=START_MS + 11)
    dependent = chain.transfer(STRANGERS[0], C, amount=1)
    built = chain.build(early, late, dependent)
    assert built.block.transactions == (early,)
    assert built.deferred == (late, dependent)
    assert built.rejected == ()
    chain.add(built.block)
    chain.grow(late, dependent)


# --- admission --------------------------------------------------------------------------------------


def test_admission_judges_each_transaction_by_itself() -> None:
    chain = Chain(make_genesis(clock=CLOCK_WALL))
    good = chain.transfer(A, B, amount=BALANCE - 1)
    again = chain.transfer(A, C, nonce=0, amount=BALANCE - 1)
    stranger = chain.transfer(STRANGERS[0], B)
    formless = chain.make(0, A, B.address, b"x")
    answers = chain.rules.find_inadmissible((good, again, stranger, formless), chain.view, START_MS)
    assert [error and error.code for error in answers] == [None, None, "unfunded", "size"]
    chain.rules.check_admission(good, chain.view, START_MS)
    with pytest.raises(Rejected):
        chain.rules.check_admission(good, chain.view, START_MS + 60_001)
    ahead = chain.transfer(timestamp_ms=START_MS + 10_001)
    with pytest.raises(NotYet):
        chain.rules.check_admission(ahead, chain.view, START_MS)


def test_signatures_of_another_chain_do_not_count() -> None:
    chain = Chain()
    key = PrivateKey.from_seed(b"account/0")
    fields = {"nonce": 0, "receiver": B.address, "amount": 1, "fee": 1}
    times = {"timestamp_ms": START_MS, "expires_ms": START_MS + 5}
    here = sign_transaction(key, chain.rules.chain_id, **fields, **times)  # type: ignore[arg-type]
    there = sign_transaction(key, "another", **fields, **times)  # type: ignore[arg-type]
    assert chain.rules.check_signatures((here, there, chain.transfer())) == [True, False, False]
