"""The clients of a simulated network: what they write, how they go on when nodes die, what they object to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from consensus.errors import Rejected
from consensus.transaction import KIND_DISPUTE_REPORT, KIND_REPORT, KIND_WITHDRAW_REPORT
from node.full_node import FullNode
from node.mempool.receipts import Outcome, Receipt
from node.simulation.config import SimulationConfig
from node.simulation.full_nodes.chain import GENESIS_MS, make_chain
from node.simulation.full_nodes.checkers import NodeCheckers
from node.simulation.full_nodes.payments import JUDGED, RIVAL, SOUND, SPOILED, Offer, Payments
from node.simulation.full_nodes.plain_ledger import PlainLedger
from node.simulation.full_nodes.workload import SETTLE_MS_MAX, Workload
from node.simulation.full_nodes.world import NodeWorld

CHAIN = make_chain((1, 1, 1, 1))
CALM = SimulationConfig(
    full_nodes=True, loss=0, slow_share=0, crashes=0, partitions=0, build_failures=0, faulty_ms=900
)

Answer = Callable[[Sequence[Receipt] | None], None]


class Stage:
    """A world without nodes: it keeps what it is asked to do, and answers what a test says."""

    def __init__(self, up: Sequence[int] = (0, 1, 2)) -> None:
        self.now_ms = 0
        self.up = up
        self.plans: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []
        self.asked: list[tuple[int, Sequence[bytes], Answer]] = []

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.plans.append((self.now_ms + delay_ms, act, arguments))

    def pass_ms(self, duration_ms: int) -> None:
        until_ms = self.now_ms + duration_ms
        while due := [plan for plan in self.plans if plan[0] <= until_ms]:
            plan = min(due, key=lambda plan: plan[0])
            self.plans.remove(plan)
            self.now_ms = plan[0]
            plan[1](*plan[2])
        self.now_ms = until_ms

    def get_wall_ms(self) -> int:
        return GENESIS_MS + self.now_ms

    def list_up(self) -> Sequence[int]:
        return self.up

    def submit(self, index: int, raws: Sequence[bytes], answer: Answer) -> None:
        self.asked.append((index, raws, answer))

    def get_node(self, index: int) -> FullNode | None:
        del index
        return None

    def answer_all(self, code: str = "", outcome: Outcome = Outcome.ACCEPTED) -> None:
        """Every question so far, alike; but nobody takes what is spoiled."""
        asked, self.asked = self.asked, []
        for _, raws, answer in asked:
            answer([Receipt(None, outcome, code) for _ in raws])


def make_clients(stage: Stage, seed: int) -> tuple[Workload, list[str]]:
    told: list[str] = []
    checkers = NodeCheckers(CHAIN.rules, frozenset(range(4)), told.append)
    rng = random.Random(seed)
    return Workload(CHAIN.rules, CHAIN.client_keys, rng, stage, checkers), told


def make_payments(seed: int) -> Payments:
    rules = CHAIN.rules
    ledger = PlainLedger(rules.genesis, rules.create_genesis_state().header, rules.row_bytes)
    return Payments(rules, CHAIN.client_keys, random.Random(seed), ledger)


def offer(promise: str, seed: int = 1) -> Offer:
    made = make_payments(seed).pay(GENESIS_MS)[0]
    made.promise = promise
    return made


# --- in a world -----------------------------------------------------------------------------------------


def test_in_a_sound_network_every_promise_is_kept_and_every_kind_of_answer_given(seed: int) -> None:
    codes: Counter[str] = Counter()
    ends: Counter[tuple[str, str]] = Counter()
    kinds: Counter[int] = Counter()
    for more in range(3):
        world = NodeWorld(CALM, seed + more)
        assert world.run() == ""
        codes += world.clients.codes
        ends.update((made.promise, made.answer) for made in world.clients.offers)
        kinds.update(tx.kind for block in world.checkers.ledger.plain.blocks for tx in block.transactions)
    assert {answer for promise, answer in ends if promise == SOUND} == {"final"}
    assert {answer for promise, answer in ends if promise == SPOILED} == {""}
    assert ends[RIVAL, "final"] > 0
    assert ends[JUDGED, "final"] > 0
    assert ends[JUDGED, "refused"] > 0
    assert kinds[KIND_REPORT] > 0
    assert kinds[KIND_WITHDRAW_REPORT] > 0
    assert kinds[KIND_DISPUTE_REPORT] > 0
    for code in ("accepted", "rejected unfunded", "rejected signature", "rejected nonce_gap"):
        assert codes[code] > 0, codes


def test_rivals_for_one_nonce_and_for_one_balance_do_not_all_win(seed: int) -> None:
    world = NodeWorld(CALM, seed)
    assert world.run() == ""
    ended = Counter(made.answer for made in world.clients.offers if made.promise == RIVAL)
    assert ended["nonce_used"] + ended["unfunded"] + ended["replaced"] > 0


def test_when_nodes_die_their_clients_go_elsewhere_and_lose_nothing(seed: int) -> None:
    world = NodeWorld(SimulationConfig(full_nodes=True, crashes=0.01), seed)
    assert world.run() == ""
    assert world.crashes > 0
    sound = [made for made in world.clients.offers if made.promise == SOUND]
    assert {made.answer for made in sound} == {"final"}
    places = world.checkers.ledger.plain.places
    assert all(made.transaction is not None and made.transaction.id in places for made in sound)


# --- what is written ------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same(seed: int) -> None:
    first, again, other = make_payments(seed), make_payments(seed), make_payments(seed + 1)
    written = [[made.raw for _ in range(30) for made in maker.make(GENESIS_MS)] for maker in (first, again)]
    assert written[0] == written[1]
    assert written[0] != [made.raw for _ in range(30) for made in other.make(GENESIS_MS)]


def test_nothing_spoiled_is_admissible_and_every_sound_payment_is(seed: int) -> None:
    payments, rules = make_payments(seed), CHAIN.rules
    view = rules.create_genesis_state().view()
    spoiled = [made for _ in range(60) for made in payments.spoil(GENESIS_MS)]
    sound = payments.pay(GENESIS_MS) + payments.open_account(GENESIS_MS)
    for made in sound:
        assert made.transaction is not None
        rules.check_admission(made.transaction, view, GENESIS_MS)
        assert rules.check_signatures((made.transaction,)) == [True]
    for made in spoiled:
        tx = made.transaction
        if tx is None:
            continue
        error = rules.find_inadmissible((tx,), view, GENESIS_MS)[0]
        is_far = tx.nonce >= 100_000  # for the mempool to say
        assert error is not None or is_far or rules.check_signatures((tx,)) == [False]


def test_keys_without_issuers_are_refused_with_a_mend() -> None:
    rules = CHAIN.rules
    ledger = PlainLedger(rules.genesis, rules.create_genesis_state().header, rules.row_bytes)
    with pytest.raises(Rejected) as refusal:
        Payments(rules, CHAIN.client_keys[:4], random.Random(1), ledger)
    assert refusal.value.mend


# --- asking again ---------------------------------------------------------------------------------------


def test_what_a_dead_node_did_not_answer_is_sent_to_one_that_is_up(seed: int) -> None:
    stage = Stage(up=(0,))
    clients, told = make_clients(stage, seed)
    clients.start()
    stage.pass_ms(400)
    clients.stop()
    asked = {raw for _, raws, answer in stage.asked for raw in raws if answer(None) is None}
    stage.asked.clear()
    stage.up = (1,)
    stage.pass_ms(600)
    again = {raw for index, raws, _ in stage.asked for raw in raws if index == 1}
    spoiled = {made.raw for made in clients.offers if made.promise == SPOILED}
    assert again == asked - spoiled
    assert told == []


def test_when_nobody_is_up_clients_wait(seed: int) -> None:
    stage = Stage(up=())
    clients, _ = make_clients(stage, seed)
    clients.start()
    stage.pass_ms(2_000)
    assert stage.asked == []
    assert clients.is_settled()


# --- what clients object to -----------------------------------------------------------------------------


def ask(made: Offer, outcome: Outcome, code: str = "", retry_ms: int = 0) -> tuple[Workload, list[str]]:
    """One offer, answered so by node 2."""
    clients, told = make_clients(Stage(), 1)
    clients.offers.append(made)
    clients._hear(2, [made], [Receipt(None, outcome, code, retry_ms=retry_ms)])
    return clients, told


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.KNOWN])
def test_a_node_that_takes_what_nobody_may_take(outcome: Outcome) -> None:
    _, told = ask(offer(SPOILED), outcome)
    assert [text.split(":")[0] for text in told] == ["door"]
    _, told = ask(offer(SPOILED), Outcome.REJECTED, "signature")
    assert told == []


def test_a_node_that_turns_a_sound_payment_away() -> None:
    _, told = ask(offer(SOUND), Outcome.REFUSED, "refused")
    assert [text.split(":")[0] for text in told] == ["door"]
    clients, told = ask(offer(SOUND), Outcome.REJECTED, "pool_full", retry_ms=1_000)
    assert told == []
    assert not clients.is_settled()


def test_a_node_that_answers_too_few() -> None:
    clients, told = make_clients(Stage(), 1)
    clients._hear(0, [offer(SOUND), offer(RIVAL)], [Receipt(None, Outcome.ACCEPTED)])
    assert [text.split(":")[0] for text in told] == ["answers"]


def test_a_payment_that_was_taken_and_never_answered_for() -> None:
    stage = Stage()
    clients, told = make_clients(stage, 1)
    made = offer(RIVAL)
    clients.offers.append(made)
    clients._hear(2, [made], [Receipt(None, Outcome.ACCEPTED)])
    stage.now_ms = 5_000
    assert not clients.check_settled(5_000)
    assert told == []
    stage.now_ms += SETTLE_MS_MAX + 1
    assert not clients.check_settled(5_000)
    assert [text.split(":")[0] for text in told] == ["acknowledged"]
    made.answer = "expired"
    assert clients.check_settled(5_000)


def test_a_payment_that_was_told_final_and_stands_in_no_block() -> None:
    _, told = ask(offer(RIVAL), Outcome.KNOWN, "final")
    assert [text.split(":")[0] for text in told] == ["told final"]


@pytest.mark.parametrize(
    ("promise", "outcome", "code", "name"),
    [
        (SOUND, Outcome.ACCEPTED, "", "acknowledged"),
        (RIVAL, Outcome.REJECTED, "nonce_used", "answers"),
        (RIVAL, Outcome.REJECTED, "expired", "answers"),
    ],
)
def test_answers_that_what_became_final_does_not_bear_out(
    promise: str, outcome: Outcome, code: str, name: str
) -> None:
    clients, told = ask(offer(promise), outcome, code)
    clients.check_end()
    assert [text.split(":")[0] for text in told] == [name]


@pytest.mark.parametrize("code", ["unfunded", "refused", "backing_off"])
def test_answers_of_the_moment_are_answers(code: str) -> None:
    clients, told = ask(offer(JUDGED), Outcome.REFUSED, code, retry_ms=int(code == "backing_off"))
    assert clients.is_settled()
    clients.check_end()
    assert told == []
