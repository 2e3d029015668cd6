"""The mempool: what it takes in and in which order, whom it turns away, and that it loses nothing silently."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from consensus import crypto, vote
from consensus.errors import NotYet, Rejected
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger.building import Built
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import (
    REFUSE_NEVER,
    Explanation,
    ModuleView,
    ReportColumns,
    TransferColumns,
    Verdicts,
)
from consensus.ledger.state import State
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD, Parameters
from consensus.transaction import TRANSACTION_BYTES_MAX, Transaction, sign_transaction
from ml.policy import hold, refuse
from node.clock import ManualClock
from node.mempool.admission import MempoolPolicy
from node.mempool.mempool import Mempool
from node.mempool.receipts import Outcome, Receipt
from node.mempool.refusals import Judged
from node.verification import InlineVerifier

CHAIN = "test-chain"
START_MS = 1_700_000_000_000
LIFETIME_MS = 600_000
BALANCE = 1_000_000
KEYS = [crypto.PrivateKey.from_seed(b"account %d" % number) for number in range(6)]
STRANGER = crypto.PrivateKey.from_seed(b"stranger")
VALIDATOR = crypto.PrivateKey.from_seed(b"validator")
REFUSE_SCORE = 9_000


class Velocity:
    """Scores amount plus 3,000 for each earlier transaction of the same sender in the block."""

    name = "velocity"
    digest = bytes(32)
    row_bytes = 1

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        seen: dict[int, int] = {}
        scores = []
        for sender, amount in zip(transactions.sender.tolist(), transactions.amount.tolist(), strict=True):
            scores.append(min(10_000, amount + 3_000 * seen.get(sender, 0)))
            seen[sender] = seen.get(sender, 0) + 1
        verdicts = Verdicts.from_scores(np.array(scores, dtype=np.int64), view.thresholds)
        return verdicts, np.array(view.rows)

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        raise NotImplementedError


def make_rules(clock: str = CLOCK_WALL, *, refuse: int | None = None, balance: int = BALANCE) -> Rules:
    entries = () if refuse is None else (ModuleEntry("velocity", bytes(32), REFUSE_NEVER, refuse),)
    genesis = Genesis(
        CHAIN,
        START_MS,
        Parameters(clock=clock, lifetime_ms_max=LIFETIME_MS, timestamp_age_ms_max=LIFETIME_MS),
        vote.ValidatorSet((vote.Validator(VALIDATOR.public_key, 100),)),
        tuple((key.address, balance) for key in KEYS),
        (),
        entries,
    )
    return Rules(genesis, tuple(Velocity() for _ in entries))


class World:
    """A chain of one validator, its mempool, and a clock that stands still."""

    def __init__(self, rules: Rules, policy: MempoolPolicy | None = None) -> None:
        self.rules = rules
        self.state: State = rules.create_genesis_state()
        self.clock = ManualClock(START_MS)
        self.pool = Mempool(rules, self.clock, policy)

    def offer(self, *transactions: Transaction) -> list[Receipt]:
        return self.offer_raws([tx.raw for tx in transactions])

    def offer_raws(self, raws: Sequence[bytes]) -> list[Receipt]:
        view, now_ms = self.state.view(), self.clock.now_ms()
        batch = self.pool.prepare(raws, view, now_ms)
        signed = self.rules.check_signatures(batch.candidates)
        return self.pool.admit(batch, signed, view, now_ms)

    def build(self, count_max: int = 1_000) -> Built:
        view = self.state.view()
        built = self.build_from(self.pool.select(view, self.rules.parameters.block_bytes_max, count_max))
        self.pool.on_built(built)
        return built

    def build_from(self, candidates: Sequence[Transaction]) -> Built:
        view, certificate = self.state.view(), None
        if view.header.height:
            subject = vote.Subject(0, vote.NOTARIZE, view.header.view, view.header.hash)
            certificate = vote.Certificate(subject, ((0, bytes(64)),))
        return self.rules.build_block(
            view,
            candidates,
            epoch=0,
            view_number=view.header.view + 1,
            proposer_key=VALIDATOR.public_key,
            now_ms=self.clock.now_ms(),
            certificate=certificate,
        )

    def finalize(self, built: Built) -> None:
        self.state.commit(built.delta)
        self.pool.on_final(built.block, self.state.view())

    def make_block(self, count_max: int = 1_000) -> tuple[Transaction, ...]:
        built = self.build(count_max)
        self.finalize(built)
        return built.block.transactions

    def select(self, **limits: int) -> list[Transaction]:
        return self.pool.select(
            self.state.view(), limits.get("bytes_max", 2_000_000), limits.get("count_max", 1_000)
        )


def pay(
    sender: int | crypto.PrivateKey,
    nonce: int,
    *,
    fee: int = 10,
    amount: int = 5,
    at_ms: int = START_MS,
    life_ms: int = LIFETIME_MS,
    chain_id: str = CHAIN,
    receiver: int = 0,
) -> Transaction:
    key = KEYS[sender] if isinstance(sender, int) else sender
    return sign_transaction(
        key,
        chain_id,
        nonce=nonce,
        receiver=KEYS[receiver].address,
        amount=amount,
        fee=fee,
        timestamp_ms=at_ms,
        expires_ms=at_ms + life_ms,
    )


def outcomes(receipts: Sequence[Receipt]) -> list[str]:
    return [receipt.code or receipt.outcome.value for receipt in receipts]


@pytest.fixture
def world() -> World:
    return World(make_rules())


# --- the door ---------------------------------------------------------------------------------------


def test_a_good_transaction_is_pending_until_it_is_final(world: World) -> None:
    tx = pay(0, 0)
    assert world.offer(tx) == [Receipt(tx.id, Outcome.ACCEPTED, score=0)]
    assert (len(world.pool), world.pool.size_bytes, world.pool.has(tx.id)) == (1, len(tx.raw), True)
    assert world.pool.get(tx.id) == tx
    assert world.pool.get_verdict(tx.id) == (0, 0)
    assert world.make_block() == (tx,)
    assert (len(world.pool), world.pool.size_bytes, world.pool.finalized) == (0, 0, 1)
    assert world.pool.get_drop(tx.id) is None


def test_a_transaction_offered_again_is_known_pending_or_final(world: World) -> None:
    tx = pay(0, 0)
    assert outcomes(world.offer(tx, tx)) == ["accepted", "known"]
    assert outcomes(world.offer(tx)) == ["known"]
    world.make_block()
    (receipt,) = world.offer(tx)
    assert (receipt.outcome, receipt.code) == (Outcome.KNOWN, "final")


def test_a_bad_one_twice_in_a_batch_is_told_twice_why(world: World) -> None:
    bad = pay(0, 0, chain_id="other")
    assert outcomes(world.offer(bad, pay(0, 0), bad)) == ["signature", "accepted", "signature"]


def test_bad_ones_do_not_spoil_their_neighbours(world: World) -> None:
    good = [pay(1, nonce) for nonce in range(4)]
    raws = [
        good[0].raw,
        b"",
        bytes(TRANSACTION_BYTES_MAX + 1),
        good[1].raw + b"\x00",
        pay(1, 1, chain_id="other").raw,
        good[1].raw,
        pay(STRANGER, 0).raw,
        pay(2, 0, amount=BALANCE).raw,
        pay(2, 0, life_ms=LIFETIME_MS + 1).raw,
        pay(2, 0, at_ms=START_MS - LIFETIME_MS, life_ms=1).raw,
        good[2].raw,
        pay(2, 0, fee=0).raw,
        pay(2, 65).raw,
        pay(2, 0, at_ms=START_MS + 60_000).raw,
        good[3].raw,
    ]
    receipts = world.offer_raws(raws)
    expected = ["accepted", "encoding", "size", "encoding", "signature", "accepted", "unfunded", "unfunded"]
    expected += ["expires", "expired", "accepted", "fee", "nonce_gap", "timestamp", "accepted"]
    assert outcomes(receipts) == expected
    assert [receipt.id for receipt in receipts[:4]] == [good[0].id, None, None, None]
    assert all(receipt.reason for receipt in receipts if receipt.outcome is Outcome.REJECTED)
    assert [receipt.retry_ms > 0 for receipt in receipts[12:14]] == [True, True]
    assert world.select() == good


def test_a_wrong_signature_spends_none_of_its_neighbours_funds_or_nonces(world: World) -> None:
    forged = pay(1, 0, amount=BALANCE - 10, chain_id="other")
    assert outcomes(world.offer(forged, pay(1, 0, amount=BALANCE - 10))) == ["signature", "accepted"]
    ahead = pay(2, 60, chain_id="other")
    assert outcomes(world.offer(ahead, pay(2, 120))) == ["signature", "nonce_gap"]


def test_a_used_nonce_is_rejected_with_a_mend(world: World) -> None:
    world.offer(pay(0, 0))
    world.make_block()
    (receipt,) = world.offer(pay(0, 0, amount=6))
    assert receipt.code == "nonce_used"
    assert "use 1" in receipt.reason


def test_a_batch_of_one_sender_may_be_long_but_not_leave_a_gap(world: World) -> None:
    assert outcomes(world.offer(*(pay(0, nonce) for nonce in range(200)))) == ["accepted"] * 200
    assert outcomes(world.offer(pay(0, 263), pay(0, 328))) == ["accepted", "nonce_gap"]


def test_pending_transactions_must_be_paid_for_together(world: World) -> None:
    half = BALANCE // 2
    receipts = world.offer(pay(0, 0, amount=half - 10), pay(0, 1, amount=half - 10), pay(0, 2, amount=0))
    assert outcomes(receipts) == ["accepted", "accepted", "unfunded"]


def test_a_senders_line_is_bounded() -> None:
    world = World(make_rules(), MempoolPolicy(sender_count_max=3))
    receipts = world.offer(*(pay(0, nonce) for nonce in range(4)), pay(1, 0))
    assert outcomes(receipts) == ["accepted"] * 3 + ["sender_full", "accepted"]


def test_the_state_may_move_on_between_the_two_steps(world: World) -> None:
    late, same = pay(0, 0, amount=9), pay(1, 0)
    view, now_ms = world.state.view(), world.clock.now_ms()
    batch = world.pool.prepare([late.raw, same.raw], view, now_ms)
    world.offer(pay(0, 0), same)
    world.make_block()
    receipts = world.pool.admit(batch, [True, True], world.state.view(), now_ms)
    assert outcomes(receipts) == ["nonce_used", "final"]


def test_what_a_policy_refuses_stays_out_and_is_no_refusal_by_score() -> None:
    world = World(make_rules())
    unliked, liked, held = pay(0, 0), pay(1, 0), pay(2, 0)
    opinions = {unliked.id: refuse("policy taste: no"), held.id: hold("policy taste: later")}
    refusals: list[Judged] = []
    world.pool.on_refusal = refusals.append
    view, now_ms = world.state.view(), world.clock.now_ms()
    batch = world.pool.prepare([tx.raw for tx in (unliked, liked, held)], view, now_ms)
    receipts = world.pool.admit(batch, [True] * 3, view, now_ms, opinions)
    assert outcomes(receipts) == ["policy", "accepted", "accepted"]
    assert (receipts[0].outcome, receipts[0].reason) == (Outcome.REFUSED, "policy taste: no")
    drop = world.pool.get_drop(unliked.id)
    assert drop is not None
    assert (drop.code, drop.reason, drop.score) == ("policy", "policy taste: no", None)
    assert refusals == []


def test_what_is_withdrawn_is_dropped_with_its_reason() -> None:
    world = World(make_rules())
    tx = pay(0, 0)
    world.offer(tx)
    world.pool.withdraw(tx.id, "policy", "policy taste: no longer")
    assert not world.pool.has(tx.id)
    drop = world.pool.get_drop(tx.id)
    assert drop is not None
    assert (drop.code, drop.reason) == ("policy", "policy taste: no longer")
    world.pool.withdraw(tx.id, "policy", "twice changes nothing")


def test_a_policy_of_nothing_is_a_mistake_named() -> None:
    with pytest.raises(Rejected, match=r"mempool\.count_max"):
        MempoolPolicy(count_max=0)


# --- scores -----------------------------------------------------------------------------------------


def test_a_refused_transaction_is_answered_with_its_score_and_remembered() -> None:
    world = World(make_rules(refuse=REFUSE_SCORE))
    risky = pay(0, 0, amount=9_500)
    receipts = world.offer(risky, pay(1, 0))
    assert [(r.outcome, r.score) for r in receipts] == [(Outcome.REFUSED, 9_500), (Outcome.ACCEPTED, 5)]
    drop = world.pool.get_drop(risky.id)
    assert drop is not None
    assert (drop.code, drop.score, drop.height, drop.clock_ms) == ("refused", 9_500, 0, START_MS)
    assert not world.pool.has(risky.id)


def test_what_followed_a_refused_one_is_judged_without_it() -> None:
    world = World(make_rules(refuse=REFUSE_SCORE))
    # The third scores 6,100 without the first, 9,100 with it.
    receipts = world.offer(
        pay(0, 0, amount=9_000), pay(0, 1, amount=1), pay(0, 2, amount=100), pay(0, 3, amount=4_000)
    )
    assert [(r.outcome, r.score) for r in receipts] == [
        (Outcome.REFUSED, 9_000),
        (Outcome.ACCEPTED, 1),
        (Outcome.ACCEPTED, 3_100),
        (Outcome.REFUSED, 10_000),
    ]


def test_a_sender_refused_too_often_backs_off_and_comes_back() -> None:
    policy = MempoolPolicy(refusals_max=2, back_off_ms=5_000)
    world = World(make_rules(refuse=REFUSE_SCORE), policy)
    for nonce in range(2):
        assert outcomes(world.offer(pay(0, nonce, amount=9_500))) == ["refused"]
    (receipt,) = world.offer(pay(0, 0))
    assert (receipt.outcome, receipt.code, receipt.retry_ms) == (Outcome.REFUSED, "backing_off", 5_000)
    assert outcomes(world.offer(pay(1, 0))) == ["accepted"]  # nobody else is meant
    world.clock.advance(4_999)
    assert outcomes(world.offer(pay(0, 0))) == ["backing_off"]
    world.clock.advance(1)
    assert outcomes(world.offer(pay(0, 0))) == ["accepted"]


def test_forged_transactions_make_nobody_back_off() -> None:
    world = World(make_rules(refuse=REFUSE_SCORE), MempoolPolicy(refusals_max=1))
    assert outcomes(world.offer(pay(0, 0, amount=9_500, chain_id="other"))) == ["signature"]
    assert outcomes(world.offer(pay(0, 0))) == ["accepted"]


def test_what_building_a_block_refuses_leaves_the_pool_with_its_score() -> None:
    world = World(make_rules(refuse=REFUSE_SCORE))
    transactions = [pay(0, nonce, amount=100) for nonce in range(4)]
    for tx in transactions:  # one by one, each looks harmless
        assert outcomes(world.offer(tx)) == ["accepted"]
    assert world.make_block() == tuple(transactions[:3])
    drop = world.pool.get_drop(transactions[3].id)
    assert drop is not None
    assert (drop.code, drop.score) == ("refused", 9_100)
    assert world.pool.dropped == {"refused": 1}


# --- replacement, capacity, expiry ------------------------------------------------------------------


def test_a_replacement_must_raise_the_fee_by_a_tenth(world: World) -> None:
    old, cheap, dear = pay(0, 0, fee=100), pay(0, 0, fee=109), pay(0, 0, fee=110)
    world.offer(old)
    (receipt,) = world.offer(cheap)
    assert receipt.code == "replacement_fee"
    assert "110" in receipt.reason
    assert outcomes(world.offer(dear)) == ["accepted"]
    assert world.select() == [dear]
    drop = world.pool.get_drop(old.id)
    assert drop is not None
    assert drop.code == "replaced"
    assert dear.id.hex() in drop.reason


def test_a_refused_replacement_replaces_nothing() -> None:
    world = World(make_rules(refuse=REFUSE_SCORE))
    old = pay(0, 0, fee=10)
    world.offer(old)
    assert outcomes(world.offer(pay(0, 0, fee=20, amount=9_500))) == ["refused"]
    assert world.select() == [old]


def test_a_replacement_is_not_counted_twice_against_the_balance(world: World) -> None:
    world.offer(pay(0, 0, amount=BALANCE - 100, fee=10))
    assert outcomes(world.offer(pay(0, 0, amount=BALANCE - 100, fee=50))) == ["accepted"]


def test_a_full_pool_evicts_the_least_paying_from_the_end_of_its_line() -> None:
    world = World(make_rules(), MempoolPolicy(count_max=3))
    cheap = [pay(0, 0, fee=10), pay(0, 1, fee=90)]  # the second waits behind the first
    world.offer(*cheap, pay(1, 0, fee=20))
    (receipt,) = world.offer(pay(2, 0, fee=10))
    assert (receipt.code, receipt.retry_ms > 0) == ("pool_full", True)
    assert "pay 11 or more" in receipt.reason
    assert outcomes(world.offer(pay(2, 0, fee=11))) == ["accepted"]
    assert len(world.pool) == 3
    drop = world.pool.get_drop(cheap[1].id)
    assert drop is not None
    assert drop.code == "evicted"
    assert world.pool.has(cheap[0].id)


def test_a_pool_full_of_bytes_evicts_until_there_is_room_or_nobody() -> None:
    size = len(pay(0, 0).raw)
    world = World(make_rules(), MempoolPolicy(bytes_max=2 * size + 1))
    world.offer(pay(0, 0, fee=10), pay(1, 0, fee=12))
    longer = sign_transaction(  # longer by the bytes of its numbers: both must go for it
        KEYS[2],
        CHAIN,
        nonce=60,
        receiver=KEYS[0].address,
        amount=100_000,
        fee=11,
        timestamp_ms=START_MS,
        expires_ms=START_MS + LIFETIME_MS,
    )
    assert len(longer.raw) > size + 1
    assert outcomes(world.offer(longer)) == ["pool_full"]
    assert len(world.pool) == 2
    assert outcomes(world.offer(pay(2, 0, fee=11))) == ["accepted"]
    assert world.pool.dropped == {"evicted": 1}


def test_a_newcomer_does_not_push_out_its_own_predecessor() -> None:
    world = World(make_rules(), MempoolPolicy(count_max=2))
    world.offer(pay(0, 0, fee=10), pay(0, 1, fee=10))
    (receipt,) = world.offer(pay(0, 2, fee=500))
    assert receipt.code == "pool_full"
    assert "waits behind a cheaper one of the same sender" in receipt.reason
    assert len(world.pool.get_pending(KEYS[0].address)) == 2
    assert outcomes(world.offer(pay(0, 0, fee=500), pay(0, 1, fee=500))) == ["accepted"] * 2  # as told


def test_what_comes_too_early_in_a_block_rests_longer_each_time_and_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a kind could come early for ever, outbid all and never pay: two withdrawals of which one is ripe."""
    early, other = pay(0, 0, fee=500), pay(1, 0)
    world.offer(early, other)
    tried = []
    for _ in range(20):
        chosen = world.select(count_max=1)
        built = world.build_from(() if early in chosen else chosen)
        if early in chosen:
            tried.append(built.block.header.height)
            built = replace(built, rejected=((early, NotYet("is not out", field="kind")),))
        world.pool.on_built(built)
        if early in chosen:
            assert early not in world.select(count_max=2)  # nor at once again
        world.finalize(built)
    assert tried == [1, 3, 6, 11, 20]
    assert world.pool.has(early.id)
    assert world.pool.finalized == 1


def test_expired_transactions_leave_with_a_reason(world: World) -> None:
    short, long = pay(0, 0, life_ms=1_000), pay(0, 1, life_ms=5_000)
    world.offer(short, long)
    world.pool.on_clock(START_MS + 1_000)
    assert len(world.pool) == 2
    world.pool.on_clock(START_MS + 1_001)
    assert [tx.id for tx in world.select()] == [long.id]
    drop = world.pool.get_drop(short.id)
    assert drop is not None
    assert drop.code == "expired"


def test_on_the_workload_clock_transactions_expire_by_chain_time() -> None:
    world = World(make_rules(CLOCK_WORKLOAD))
    early, late = pay(0, 0, life_ms=1_000), pay(1, 0, at_ms=START_MS + 5_000)
    world.offer(early, late)
    world.pool.on_clock(START_MS + 100_000_000)  # wall time says nothing here
    assert len(world.pool) == 2
    assert world.make_block() == (early,)  # both in one block would make the first too old for it
    assert world.make_block() == (late,)
    stale = pay(2, 0, life_ms=1_000)
    assert outcomes(world.offer(stale)) == ["expired"]


def test_a_block_that_becomes_final_expires_what_its_time_has_passed() -> None:
    world = World(make_rules(CLOCK_WORKLOAD))
    world.offer(pay(1, 0, at_ms=START_MS + 5_000))
    built = world.build()
    early = pay(0, 0, life_ms=1_000)
    assert outcomes(world.offer(early)) == ["accepted"]
    world.finalize(built)
    drop = world.pool.get_drop(early.id)
    assert drop is not None
    assert (drop.code, drop.height, drop.clock_ms) == ("expired", 1, START_MS + 5_000)


# --- blocks -----------------------------------------------------------------------------------------


def test_selection_goes_by_fee_across_senders_and_by_nonce_within_one(world: World) -> None:
    first = [pay(0, 0, fee=10), pay(0, 1, fee=90), pay(0, 2, fee=10)]
    second = [pay(1, 0, fee=50), pay(1, 1, fee=5)]
    third = [pay(2, 0, fee=10)]
    world.offer(first[2], first[1], first[0], *second, *third)
    assert world.select() == [second[0], *first, third[0], second[1]]
    assert world.select(count_max=1) == [second[0]]


def test_equal_fees_are_served_in_order_of_arrival(world: World) -> None:
    transactions = [pay(sender, 0, amount=10 ** (5 - sender)) for sender in range(6)]  # of different lengths
    world.offer(*transactions)
    assert world.select() == transactions


def test_selection_keeps_to_the_bytes_and_leaves_out_what_is_in_unfinal_blocks(world: World) -> None:
    transactions = [pay(0, nonce) for nonce in range(5)]
    world.offer(*transactions)
    size = len(transactions[0].raw)
    assert world.select(bytes_max=3 * size) == transactions[:3]
    included = {tx.id for tx in transactions[:3]}
    assert world.pool.select(world.state.view(), 10_000, 10, included) == transactions[3:]


def test_on_the_workload_clock_selection_goes_by_time() -> None:
    world = World(make_rules(CLOCK_WORKLOAD))
    rich, early = pay(0, 0, fee=900, at_ms=START_MS + 50), pay(1, 0, at_ms=START_MS + 10)
    world.offer(rich, early)
    assert world.select() == [early, rich]


def test_a_final_block_drops_the_rival_of_the_same_nonce(world: World) -> None:
    mine, rival = pay(0, 0, amount=1), pay(0, 0, amount=2, fee=20)
    world.offer(mine)
    built = world.build()
    world.offer(rival)
    world.finalize(built)
    drop = world.pool.get_drop(rival.id)
    assert drop is not None
    assert drop.code == "nonce_used"
    assert world.pool.get_drop(mine.id) is None  # replaced here, but final: final overrides


def test_only_senders_in_the_block_are_looked_at_again(world: World) -> None:
    spender = pay(0, 0, amount=BALANCE - 10, receiver=1)
    built = World(make_rules())
    built.offer(spender)
    foreign = built.build()  # somebody else's proposer knew the spender only
    world.offer(pay(0, 1), pay(0, 2), pay(1, 0))
    world.finalize(foreign)
    assert [tx.sender for tx in world.select()] == [KEYS[1].address]
    assert world.pool.dropped == {"unfunded": 2}


def test_questions_about_what_is_pending(world: World) -> None:
    transactions = [pay(0, nonce) for nonce in range(3)]
    world.offer(*transactions)
    missing = pay(1, 0)
    assert world.pool.get_raws([transactions[0].id, missing.id]) == [transactions[0].raw, None]
    assert world.pool.get_pending(KEYS[0].address) == tuple(transactions)
    assert [entry.tx for entry in world.pool.get_page(2, 1)] == transactions[1:]
    assert (world.pool.sender_count, world.pool.is_known(missing.id)) == (1, False)


async def test_the_whole_walk_with_a_verifier(world: World) -> None:
    verifier = InlineVerifier(CHAIN)
    good, forged = pay(0, 0), pay(1, 0, chain_id="other")
    view, now_ms = world.state.view(), world.clock.now_ms()
    batch = world.pool.prepare([good.raw, forged.raw], view, now_ms)
    signed = await verifier.verify_new(batch.candidates)
    assert outcomes(world.pool.admit(batch, signed, view, now_ms)) == ["accepted", "signature"]
    assert verifier.is_verified(good.id)


# --- laws -------------------------------------------------------------------------------------------


class MempoolMachine(RuleBasedStateMachine):
    """Anything in any order: offers, blocks, unfinal blocks, time. The laws hold after every step."""

    POLICY = MempoolPolicy(
        count_max=14, bytes_max=2_000, sender_count_max=6, nonce_gap_max=8, refusals_max=3, back_off_ms=2_000
    )

    @initialize(clock=st.sampled_from([CLOCK_WALL, CLOCK_WORKLOAD]), scored=st.booleans())
    def start(self, clock: str, scored: bool) -> None:
        self.world = World(
            make_rules(clock, refuse=REFUSE_SCORE if scored else None, balance=12_000), self.POLICY
        )
        self.scored = scored
        self.accepted: set[bytes] = set()
        self.final: set[bytes] = set()

    @rule(
        offers=st.lists(
            st.tuples(
                st.integers(0, 3),  # sender
                st.integers(-2, 9),  # nonce, from the account's next
                st.integers(1, 40),  # fee
                st.sampled_from([0, 1, 100, 2_500, 9_500]),  # amount
                st.integers(1, 20_000),  # life
                st.sampled_from([True, True, True, False]),  # signed for this chain
            ),
            min_size=1,
            max_size=8,
        ),
        is_late=st.booleans(),
    )
    def offer(self, offers: list[tuple[int, int, int, int, int, bool]], is_late: bool) -> None:
        world, view = self.world, self.world.state.view()
        clock_ms = view.header.timestamp_ms if world.pool._is_workload else world.clock.now_ms()
        transactions = []
        for sender, ahead, fee, amount, life_ms, is_signed in offers:
            account = view.get_account(KEYS[sender].address)
            assert account is not None
            nonce = max(0, account.nonce_next + ahead)
            at_ms = clock_ms + (life_ms // 2 if world.pool._is_workload else 0)
            chain_id = CHAIN if is_signed else "other"
            transactions.append(
                pay(sender, nonce, fee=fee, amount=amount, life_ms=life_ms, at_ms=at_ms, chain_id=chain_id)
            )
        batch = world.pool.prepare([tx.raw for tx in transactions], view, world.clock.now_ms())
        signed = world.rules.check_signatures(batch.candidates)
        if is_late:
            self.make_block(3)
        receipts = world.pool.admit(batch, signed, world.state.view(), world.clock.now_ms())
        for tx, receipt in zip(transactions, receipts, strict=True):
            assert receipt.id == tx.id
            if receipt.outcome in (Outcome.REFUSED, Outcome.REJECTED):
                assert receipt.code
                assert receipt.reason
            elif receipt.outcome is Outcome.ACCEPTED:
                self.accepted.add(tx.id)
            else:
                assert tx.id in self.accepted

    @rule(count_max=st.integers(1, 12))
    def make_block(self, count_max: int) -> None:
        world = self.world
        world.pool.on_clock(world.clock.now_ms())
        built = world.build(count_max)
        if not self.scored and not world.pool._is_workload:
            assert built.rejected == ()  # what is selected on the final state is valid together
        delta = world.rules.check_block(world.state.view(), built.block, world.clock.now_ms())
        assert delta.root == built.delta.root
        self.final.update(tx.id for tx in built.block.transactions)
        world.finalize(built)

    @rule(
        payments=st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([0, 100, 4_000])),
            min_size=1,
            max_size=4,
        )
    )
    def take_in_a_block_of_others(self, payments: list[tuple[int, int, int]]) -> None:
        """Another proposer's block of transactions that never came here; they may clash with what is pending."""
        world, view = self.world, self.world.state.view()
        at_ms = view.header.timestamp_ms if world.pool._is_workload else world.clock.now_ms()
        candidates = []
        for sender, ahead, amount in payments:
            account = view.get_account(KEYS[sender].address)
            assert account is not None
            nonce = account.nonce_next + ahead
            candidates.append(pay(sender, nonce, fee=3, amount=amount, at_ms=at_ms, receiver=5))
        world.finalize(world.build_from(candidates))

    @rule(duration_ms=st.integers(0, 6_000))
    def wait(self, duration_ms: int) -> None:
        self.world.clock.advance(duration_ms)
        self.world.pool.on_clock(self.world.clock.now_ms())

    @precondition(lambda self: len(self.world.pool) > 0)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        tx = data.draw(st.sampled_from([entry.tx for entry in self.world.pool._pending]))
        assert outcomes(self.world.offer(tx)) == ["known"]

    @invariant()
    def sizes_are_sums_within_the_limits(self) -> None:
        pool = self.world.pool
        entries = list(pool._pending)
        assert len(pool) == len(entries) <= self.POLICY.count_max
        assert pool.size_bytes == sum(len(entry.tx.raw) for entry in entries) <= self.POLICY.bytes_max
        assert len({(entry.tx.sender, entry.tx.nonce) for entry in entries}) == len(entries)

    @invariant()
    def lines_are_in_order_and_paid_for(self) -> None:
        view = self.world.state.view()
        for key in KEYS:
            pending = self.world.pool.get_pending(key.address)
            account = view.get_account(key.address)
            assert account is not None
            assert [tx.nonce for tx in pending] == sorted({tx.nonce for tx in pending})
            assert sum(tx.amount + tx.fee for tx in pending) <= account.balance
            assert all(account.is_nonce_free(tx.nonce) for tx in pending)
            assert len(pending) <= self.POLICY.sender_count_max

    @invariant()
    def every_page_is_the_whole_pool_by_nonce_within_senders(self) -> None:
        pool = self.world.pool
        page = [entry.tx for entry in pool.get_page(1_000)]
        assert len(page) == len(pool)
        assert {tx.id for tx in page} == {entry.tx.id for entry in pool._pending}
        for key in KEYS:
            assert tuple(tx for tx in page if tx.sender == key.address) == pool.get_pending(key.address)

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        pool = self.world.pool
        for transaction_id in self.accepted:
            places = (
                pool.has(transaction_id),
                transaction_id in self.final,
                pool.get_drop(transaction_id) is not None,
            )
            assert sum(places) == 1, places
        for drop in pool.get_drops():
            assert drop.code
            assert drop.reason


TestMempoolMachine = MempoolMachine.TestCase
TestMempoolMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
