"""Motions: who decides, when it holds, whose score counts, and what the history says."""

from dataclasses import replace

import pytest

from consensus import codec
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.ledger import models, motion
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from consensus.ledger.motion import Motion, SeatModel, Tally
from consensus.ledger.records import Records
from consensus.ledger.scoring import Thresholds
from consensus.ledger.seating import Outcome, compute_modules_digest
from consensus.ledger.snapshot import dump_state, load_state
from consensus.parameters import COMBINATION_WEIGHTED
from consensus.transaction import KIND_APPROVE_MOTION, Transaction
from consensus.vote import VALIDATORS_MAX, Validator, ValidatorSet
from tests.ledger_chain import VALIDATORS, Chain, CountingModule, make_genesis
from tests.model_chain import (
    GENESIS_DIGEST,
    NOTICE,
    ModelChain,
    digest_of,
    make_model_genesis,
    retire,
    seat,
)
from tests.staking_chain import OPERATORS, PEOPLE

DOUBLE = b"2 c 4"  # reads the rows of genesis's module
OTHER = b"3 d 6"  # reads rows of its own
FREE = b"1 f 0"  # keeps none


@pytest.fixture
def chain() -> ModelChain:
    chain = ModelChain()
    chain.grow(*chain.publish(DOUBLE), *chain.publish(OTHER), *chain.publish(FREE))
    return chain


def score(chain: ModelChain, amount: int = 1_000) -> int:
    """What a transfer of this amount would score now, by the one of the people who never sent any."""
    return int(chain.rules.evaluate(chain.view, [pay(chain, amount, 2)]).score[0])


def pay(chain: ModelChain, amount: int = 10, sender: int = 1, **fields: int) -> Transaction:
    fields = {"nonce": 1_000, **fields} if sender == 2 else fields
    return chain.transfer(PEOPLE[sender], PEOPLE[3], amount=amount, **fields)


# --- who is for it ----------------------------------------------------------------------------------


def test_more_approvers_than_can_sit_at_once_leave_those_who_sit() -> None:
    operators = [number.to_bytes(20, "big") for number in range(VALIDATORS_MAX + 2)]
    seated = (operators[3], operators[-2], operators[-1])
    validators = tuple(
        Validator(PrivateKey.from_seed(operator).public_key, 10 + place)
        for place, operator in enumerate(seated)
    )
    epoch_set = EpochSet(ValidatorSet(validators), seated)
    full = Tally(tuple(operators[:VALIDATORS_MAX]))
    almost = motion.compute_tally(replace(full, approvers=full.approvers[1:]), seated[1], epoch_set, 7)
    assert (len(almost.approvers), almost.approved_units) == (VALIDATORS_MAX, 10 + 11)
    crowded = motion.compute_tally(almost, seated[2], epoch_set, 8)
    assert crowded == Tally(seated, 33, 33, 8)
    written = motion.put_tally(Records(), Motion(100, retire(GENESIS_DIGEST)), almost)
    assert motion.find_tally(written, Motion(100, retire(GENESIS_DIGEST))) == almost


# --- the switch --------------------------------------------------------------------------------------


def test_a_model_judges_from_the_block_that_was_decided_and_not_before(chain: ModelChain) -> None:
    height = chain.decide(seat(DOUBLE, GENESIS_DIGEST))
    digest = compute_modules_digest(chain.view.modules_record)
    while chain.height < height - 1:
        assert score(chain) == 100
        assert chain.grow().block.header.modules_digest == digest
    assert score(chain) == 200
    built = chain.grow(pay(chain, 1_000, 2)).block
    assert (built.header.height, built.scores) == (height, (200,))
    assert built.header.modules_digest == compute_modules_digest(chain.view.modules_record)


def test_the_history_says_who_judged_from_when_on_and_who_decided_it(chain: ModelChain) -> None:
    first = chain.view.modules_record
    change = seat(DOUBLE, GENESIS_DIGEST)
    decided_in = chain.height + 1
    height = chain.decide(change)
    chain.reach_height(height)
    assert list(chain.eras) == [1, height]
    assert (chain.eras[1].modules_record, chain.eras[1].steps) == (first, ())
    era = chain.eras[height]
    assert era.modules_record == chain.view.modules_record != first
    (step,) = era.steps
    assert (step.motion, step.outcome) == (Motion(height, change), Outcome.DONE)
    operators = tuple(key.address for key in OPERATORS[:3])
    assert step.tally == Tally(operators, 3_000, 4_000, decided_in)
    model = models.find_model(chain.view.records, digest_of(DOUBLE))
    assert model is not None
    assert model.since == height


def test_a_successor_of_the_same_rows_goes_on_counting_and_one_of_others_begins_anew(
    chain: ModelChain,
) -> None:
    chain.grow(*(pay(chain, 10) for _ in range(3)))
    payer = [pay(chain, 10, nonce=90)]
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    assert chain.rules.evaluate(chain.view, payer).score.tolist() == [602]
    chain.settle(seat(OTHER, DOUBLE))
    assert chain.rules.evaluate(chain.view, payer).score.tolist() == [3]
    chain.grow(pay(chain, 10))
    assert chain.rules.evaluate(chain.view, payer).score.tolist() == [303]


def test_a_successor_of_other_rows_in_the_same_place_begins_anew_and_so_does_who_comes_back() -> None:
    chain = ModelChain(make_model_genesis(module_room_bytes=0))  # there is no other place
    other = b"1 e 4"
    chain.grow(*chain.publish(other), *(pay(chain, 10) for _ in range(3)))
    payer = [pay(chain, 10, nonce=90)]
    for model, former in ((other, GENESIS_DIGEST), (GENESIS_DIGEST, other)):
        chain.settle(seat(model, former))
        assert chain.rules.evaluate(chain.view, payer).score.tolist() == [1]
        chain.grow(pay(chain, 10), pay(chain, 10))
        assert chain.rules.evaluate(chain.view, payer).score.tolist() == [201]
    row = chain.view.get_module_rows(PEOPLE[1].address)
    assert row == b"\x02\x00\x02\x00\x00"  # generation 2: twice sent


def test_rolling_back_is_seating_the_predecessor_again(chain: ModelChain) -> None:
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    chain.settle(seat(GENESIS_DIGEST, DOUBLE))
    assert chain.judging == [GENESIS_DIGEST]
    assert [era.steps[0].outcome for era in list(chain.eras.values())[1:]] == [Outcome.DONE] * 2


def test_with_nobody_left_everything_is_accepted(chain: ModelChain) -> None:
    chain.settle(retire(GENESIS_DIGEST))
    assert chain.judging == []
    assert chain.grow(pay(chain, 900_000)).block.outcomes == b"\x00"


def test_a_snapshot_across_a_switch_loads_and_judges_alike(chain: ModelChain) -> None:
    chain.settle(seat(OTHER, GENESIS_DIGEST))
    chain.grow(pay(chain))
    late = ModelChain()
    state = load_state(late.rules, b"".join(dump_state(chain.state)))
    built = chain.build(pay(chain, 700), pay(chain, 900))
    assert late.rules.check_block(state.view(), built.block, None).root == built.delta.root


def test_branches_on_both_sides_of_a_switch_are_judged_each_by_its_own_state(chain: ModelChain) -> None:
    height = chain.decide(seat(DOUBLE, GENESIS_DIGEST))
    chain.reach_height(height - 1)
    before = chain.view
    built = chain.build()
    after = before.extend(built.delta)
    payer = [pay(chain, 1_000, 2)]
    answers = [chain.rules.evaluate(view, payer).score.tolist() for view in (before, after, before)]
    assert answers == [[100], [200], [100]]


# --- several at once ---------------------------------------------------------------------------------


def test_one_of_weight_nothing_watches_keeps_its_rows_and_warms_up(chain: ModelChain) -> None:
    chain.settle(seat(OTHER, weight=0))
    chain.grow(*(pay(chain, 10) for _ in range(3)))
    payer = [pay(chain, 10, nonce=90)]
    assert chain.rules.evaluate(chain.view, payer).score.tolist() == [301]
    (explained,) = chain.rules.explain(chain.view, payer, 0)
    assert explained[0] == f"counting@{GENESIS_DIGEST[:4].hex()}"
    chain.settle(seat(OTHER, GENESIS_DIGEST))
    assert chain.rules.evaluate(chain.view, payer).score.tolist() == [903]


def test_one_that_watches_and_fails_stops_nobody() -> None:
    class Watcher:
        name, digest, row_bytes, rows_key = "counting", b"w" * 32, 2, b"w" * 32

        def evaluate(self, transactions, reports, view):  # type: ignore[no-untyped-def]
            raise RuntimeError("always")

    genesis = make_model_genesis()
    entry = replace(genesis.modules[0], digest=b"w" * 32, weight=0)
    chain = ModelChain(replace(genesis, modules=(*genesis.modules, entry)), (CountingModule(), Watcher()))
    assert chain.grow(pay(chain, 1_000)).block.scores == (100,)


def test_the_worst_of_two_counts(chain: ModelChain) -> None:
    chain.settle(seat(DOUBLE, limits=Thresholds(10_000, 10_001)))
    built = chain.grow(pay(chain, 19_000)).block
    assert (built.scores, built.outcomes) == ((3_800,), b"\x00")
    assert chain.build(pay(chain, 51_000)).refused[0][1] == 10_000


def make_weighted(**parameters: object) -> ModelChain:
    limits = {"combined_flag_score_min": 1_000, "combined_refuse_score_min": 3_000, **parameters}
    chain = ModelChain(make_model_genesis(combination=COMBINATION_WEIGHTED, **limits))
    chain.grow(*chain.publish(FREE), *chain.publish(OTHER))
    chain.settle(seat(FREE, weight=3, limits=Thresholds(0, 0)))  # what it alone would refuse does not count
    return chain


def test_a_weighted_score_is_the_mean_rounded_down_by_thresholds_of_its_own() -> None:
    chain = make_weighted()
    built = chain.grow(pay(chain, 1_001)).block  # 100 and 1,001: (100 + 3 * 1001) // 4
    assert (built.scores, built.outcomes) == ((775,), b"\x00")
    assert chain.grow(pay(chain, 1_400)).block.outcomes == b"\x01"
    assert chain.build(pay(chain, 4_000)).refused[0][1] >= 3_000


def test_in_a_weighted_score_one_of_weight_nothing_is_left_out() -> None:
    chain = make_weighted()
    chain.settle(seat(OTHER, weight=0))
    assert score(chain) == (100 + 3 * 1_000) // 4


def test_changing_only_weight_and_thresholds_is_seating_it_in_its_own_place(chain: ModelChain) -> None:
    chain.settle(seat(GENESIS_DIGEST, GENESIS_DIGEST, limits=Thresholds(50, 10_001)))
    assert chain.grow(pay(chain, 1_000)).block.outcomes == b"\x01"
    assert chain.judging == [GENESIS_DIGEST]


# --- who decides -------------------------------------------------------------------------------------


def approve_in_turn(chain: ModelChain, stakes: int, height: int) -> list[bool]:
    """Whether it was decided after each of the first operators' approvals."""
    change, answers = seat(DOUBLE, GENESIS_DIGEST), []
    for number in range(stakes):
        chain.grow(chain.approve(number, change, height))
        answers.append(motion.find_tally(chain.view.records, Motion(height, change)).is_decided)
    return answers


@pytest.mark.parametrize(
    ("stakes", "decided"),
    [
        ((1_000,) * 4, [False, False, True]),
        ((1_000,) * 3, [False, False, True]),  # two of three is exactly two thirds: not more
        ((2_000, 1_001, 1_500), [False, True, True]),
        ((2_000, 1_000, 1_500), [False, False, True]),
        ((100, 100, 5_000), [False, False, True]),
    ],
)
def test_more_than_two_thirds_of_the_stake_decide(stakes: tuple[int, ...], decided: list[bool]) -> None:
    chain = ModelChain(make_model_genesis(stakes))
    chain.grow(*chain.publish(DOUBLE))
    assert approve_in_turn(chain, 3, 40) == decided


def test_what_is_not_decided_in_time_is_forgotten_and_changes_nothing(chain: ModelChain) -> None:
    change, height = seat(DOUBLE, GENESIS_DIGEST), chain.height + 6
    chain.grow(chain.approve(0, change, height), chain.approve(1, change, height))
    chain.reach_height(height)
    assert chain.judging == [GENESIS_DIGEST]
    assert list(chain.eras) == [1]
    assert not list(motion.walk_motions(chain.view.records))


def test_nothing_of_motions_is_left_behind(chain: ModelChain) -> None:
    chain.settle(seat(DOUBLE, GENESIS_DIGEST), seat(OTHER))
    for namespace in (rec.NAMESPACE_MOTION, rec.NAMESPACE_SCHEDULE):
        assert not list(chain.view.records.walk(namespace))


def test_who_left_the_set_does_not_count_and_counts_again_when_it_is_back() -> None:
    chain = ModelChain(make_model_genesis(epoch_blocks=3, churn_bp_max=10_000, publication_ms=60_000))
    chain.grow(*chain.publish(DOUBLE))
    change, height = seat(DOUBLE, GENESIS_DIGEST), 40
    chain.grow(chain.approve(0, change, height), chain.unbond(OPERATORS[0], 0))
    chain.reach(4)
    assert 0 not in chain.weights(4)
    chain.grow(chain.approve(1, change, height))
    tally = motion.find_tally(chain.view.records, Motion(height, change))
    assert (len(tally.approvers), tally.is_decided) == (2, False)
    assert (tally.approved_units, tally.total_units) == (chain.weights(4)[1], sum(chain.weights(4).values()))
    chain.grow(chain.bond(OPERATORS[0], 0, 1_000))
    chain.reach(8)
    assert 0 in chain.weights(8)
    chain.grow(chain.approve(2, change, height))
    assert motion.find_tally(chain.view.records, Motion(height, change)).is_decided


def test_what_is_decided_stays_decided_when_its_approvers_leave() -> None:
    chain = ModelChain(make_model_genesis(epoch_blocks=3, churn_bp_max=10_000))
    chain.grow(*chain.publish(DOUBLE))
    height = chain.decide(seat(DOUBLE, GENESIS_DIGEST), height=20)
    chain.grow(chain.unbond(OPERATORS[0], 0), chain.unbond(OPERATORS[1], 1))
    chain.reach_height(height)
    assert chain.judging == [digest_of(DOUBLE)]


def test_a_late_approval_of_what_is_decided_is_kept_for_the_record(chain: ModelChain) -> None:
    change = seat(DOUBLE, GENESIS_DIGEST)
    height = chain.decide(change, height=chain.height + 9)
    chain.grow(chain.approve(3, change, height))
    chain.reach_height(height)
    assert len(chain.eras[height].steps[0].tally.approvers) == 4
    assert chain.eras[height].steps[0].tally.decided_height < chain.height


def test_a_chain_without_epochs_decides_by_the_set_of_genesis() -> None:
    genesis = make_genesis(motion_notice_blocks=1)
    funded = tuple((key.address, 100) for key in VALIDATORS)
    chain = Chain(replace(genesis, accounts=(*genesis.accounts, *funded)))
    payload = motion.encode_motion(Motion(3, retire(GENESIS_DIGEST)))
    chain.grow(*(chain.make(KIND_APPROVE_MOTION, key, key.address, payload) for key in VALIDATORS))
    chain.grow()
    assert motion.get_seating(chain.view.records).seats == ()


# --- who is refused ----------------------------------------------------------------------------------


def test_who_breaks_a_rule_is_refused(chain: ModelChain) -> None:
    change, height = seat(DOUBLE, GENESIS_DIGEST), chain.height + 20
    assert chain.refuse(chain.approve(5, change, height)).code == "motion_sender"
    assert chain.refuse(chain.approve(0, change, height, amount=1)).code == "range"
    payload = motion.encode_motion(Motion(height, change))
    other = chain.make(KIND_APPROVE_MOTION, OPERATORS[0], OPERATORS[1].address, payload)
    assert chain.refuse(other).code == "receiver"
    assert chain.refuse(chain.approve(0, seat(b"9 c 4"), height)).code == "model_unknown"
    assert chain.refuse(chain.approve(0, seat(DOUBLE, b"9 c 4"), height)).code == "model_unknown"
    assert chain.refuse(chain.approve(0, retire(b"9 c 4"), height)).code == "model_unknown"
    chain.grow(chain.approve(0, change, height))
    assert chain.refuse(chain.approve(0, change, height)).code == "motion_twice"


def test_an_approval_comes_before_the_notice_or_not_at_all(chain: ModelChain) -> None:
    change, block = seat(DOUBLE, GENESIS_DIGEST), chain.height + 1
    assert chain.refuse(chain.approve(0, change, block + NOTICE)).code == "motion_height"
    assert chain.refuse(chain.approve(0, change, block + motion.AHEAD_BLOCKS_MAX + 1)).code == "motion_height"
    chain.grow(chain.approve(0, change, block + NOTICE + 1))


def test_for_one_height_only_so_many_can_be_decided(chain: ModelChain) -> None:
    height = chain.height + 9
    changes = [seat(DOUBLE, weight=weight) for weight in range(motion.DECIDED_MAX + 1)]
    chain.decide(*changes[:-1], height=height)
    chain.grow(*(chain.approve(number, changes[-1], height) for number in range(2)))
    assert chain.refuse(chain.approve(2, changes[-1], height)).code == "motion_full"


GOOD = (40, 0, b"d" * 32, 1, 2, 3, b"")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (5, "payload"),
        ((40,), "payload"),
        ((0, *GOOD[1:]), "payload.height"),
        ((40, 2, b"d" * 32), "payload.change"),
        ((40, 1, b"d" * 31), "payload.digest"),
        ((40, 1, b"d" * 32, 5), "payload"),
        ((*GOOD, 5), "payload"),
        ((*GOOD[:2], "d", *GOOD[3:]), "payload.digest"),
        ((*GOOD[:3], 3, 2, 1, b""), "payload.flag_score_min"),
        ((*GOOD[:4], 10_002, 1, b""), "payload.refuse_score_min"),
        ((*GOOD[:5], 10_001, b""), "payload.weight"),
        ((*GOOD[:6], b"d" * 31), "payload.in_place_of"),
    ],
)
def test_a_bad_payload_is_refused_by_its_field(fields: object, field: str) -> None:
    assert motion.encode_motion(motion.decode_motion(codec.encode(GOOD))) == codec.encode(GOOD)
    with pytest.raises(Rejected) as caught:
        motion.decode_motion(codec.encode(fields))
    assert caught.value.field == field


# --- decisions that came to nothing ------------------------------------------------------------------


def list_outcomes(chain: ModelChain, height: int) -> list[Outcome]:
    return [step.outcome for step in chain.eras[height].steps]


def test_a_decision_whose_time_has_passed_it_by_does_nothing_and_is_on_record(chain: ModelChain) -> None:
    height = chain.decide(seat(DOUBLE, GENESIS_DIGEST), height=chain.height + 9)
    chain.settle(seat(OTHER, GENESIS_DIGEST))
    chain.reach_height(height)
    assert list_outcomes(chain, height) == [Outcome.NOT_SEATED]
    assert chain.judging == [digest_of(OTHER)]
    assert chain.eras[height].modules_record == chain.view.modules_record


def test_decisions_for_one_height_hold_in_the_order_they_were_taken(chain: ModelChain) -> None:
    height = chain.height + 12
    chain.decide(seat(OTHER, GENESIS_DIGEST), height=height)
    chain.decide(seat(DOUBLE, OTHER), height=height)
    chain.decide(retire(GENESIS_DIGEST), height=height)
    chain.reach_height(height)
    assert list_outcomes(chain, height) == [Outcome.DONE, Outcome.DONE, Outcome.NOT_SEATED]
    assert chain.judging == [digest_of(DOUBLE)]


def test_without_room_nothing_changes() -> None:
    chain = ModelChain(make_model_genesis(module_room_bytes=0))
    chain.grow(*chain.publish(DOUBLE), *chain.publish(FREE))
    height = chain.decide(seat(DOUBLE))
    chain.reach_height(height)
    assert list_outcomes(chain, height) == [Outcome.NO_ROOM]
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    chain.settle(seat(FREE))
    assert chain.judging == [digest_of(DOUBLE), digest_of(FREE)]


def test_a_motion_about_a_model_that_was_forgotten_comes_to_nothing(chain: ModelChain) -> None:
    change, height = seat(FREE), chain.height + 60
    chain.grow(chain.approve(0, change, height), chain.approve(1, change, height))
    while chain.is_known(FREE):
        chain.grow()
    assert chain.refuse(chain.approve(2, change, height)).code == "model_unknown"


def test_the_payload_says_all_of_a_change() -> None:
    change = SeatModel(b"a" * 32, Thresholds(3, 4), 5, b"b" * 32)
    assert motion.decode_motion(motion.encode_motion(Motion(9, change))) == Motion(9, change)
