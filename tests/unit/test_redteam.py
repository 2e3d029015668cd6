"""The red team: strategies do what they say, the town goes on without what was refused, figures add up."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger.judging import Seat
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import REFUSE, REFUSE_NEVER, Thresholds, ValidationModule
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS, Parameters
from consensus.transaction import sign_transaction
from consensus.vote import Validator, ValidatorSet
from ml import velocity
from ml.dataset import Trace
from ml.fraud import load, read_default_artifact
from node.__main__ import main
from node.redteam.campaign import Sizes, Stage, prepare_stage, run_all, run_campaign, summarize
from node.redteam.live import build_plan, is_dated
from node.redteam.scene import ACCEPTED, REFUSED, Payment, Scene, Strategy, Victim, Wave, divide
from node.redteam.strategies import NAIVE, STRATEGIES, Burst, MuleChain, Naive, SlowDrip, Splitting
from node.redteam.world import RedWorld

SMALL = Sizes(accounts=60, per_day=60, history_days=15, days=20, victims=3)
BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def make_seat(module: ValidationModule, thresholds: Thresholds) -> tuple[Seat, ...]:
    return (Seat(module, thresholds, slice(0, module.row_bytes)),)


@pytest.fixture(scope="module")
def stage() -> Stage:
    fraud = load(read_default_artifact())
    return prepare_stage(make_seat(fraud, fraud.thresholds), SMALL, 1)


def make_scene(victims: int = 3, days: int = 20) -> Scene:
    robbed = tuple(Victim(number, 1_000, 10_000) for number in range(victims))
    return Scene(20_000 * DAY_MS, days, robbed, 3_600_000, np.random.Generator(np.random.PCG64(1)), 100, 500)


def collect(strategy: Strategy, scene: Scene, fate: int = ACCEPTED) -> list[Wave]:
    """All waves, every payment answered with `fate`."""
    waves = []
    attack = strategy.attack(scene)
    wave = next(attack, None)
    while wave is not None:
        waves.append(wave)
        try:
            wave = attack.send([fate] * len(wave.payments))
        except StopIteration:
            wave = None
    return waves


def make_empty_world(seats: Sequence[Seat], accounts: int = 8) -> RedWorld:
    none = np.zeros(0, dtype=np.int64)
    trace = Trace(none, none, none, none, np.zeros(0, np.uint8), ())
    rows = np.zeros((accounts, seats[0].place.stop), dtype=np.uint8)
    return RedWorld(tuple(seats), trace, rows, 7 * DAY_MS)


def pay(sender: int, receiver: int, amount: int = 100) -> Payment:
    return Payment(sender, receiver, amount)


# --- strategies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_a_strategy_that_nothing_stops_brings_home_exactly_the_goal(strategy: Strategy) -> None:
    waves = collect(strategy, make_scene())
    assert sum(p.amount for wave in waves for p in wave.payments if p.is_home) == 30_000


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_waves_go_forward_in_time_and_stay_within_the_campaign(strategy: Strategy) -> None:
    scene = make_scene()
    for fate in (ACCEPTED, REFUSED):
        times = [wave.time_ms for wave in collect(strategy, make_scene(), fate)]
        assert times == sorted(times)
        assert all(scene.start_ms <= time < scene.start_ms + scene.days * DAY_MS for time in times)


def test_splitting_halves_what_is_refused_and_gives_up_at_an_eighth_of_a_mean() -> None:
    amounts = [wave.payments[0].amount for wave in collect(Splitting(), make_scene(victims=1), REFUSED)]
    assert amounts == [10_000, 5_000, 2_500, 1_250, 625, 312, 156]


def test_a_burst_stands_in_one_block_and_a_drip_takes_all_days() -> None:
    assert [len(wave.payments) for wave in collect(Burst(), make_scene(victims=2))] == [10, 10]
    drip = collect(SlowDrip(), make_scene(victims=1))
    assert len({wave.time_ms // DAY_MS for wave in drip}) == 20


def test_a_mule_chain_ends_where_it_is_refused() -> None:
    assert len(collect(MuleChain(), make_scene(victims=1))) == 4
    assert len(collect(MuleChain(), make_scene(victims=1), REFUSED)) == 1


def test_timestamps_stay_within_the_chains_allowance() -> None:
    scene = make_scene()
    dated = [(w, p) for w in collect(BY_NAME["timestamps"], scene) for p in w.payments]
    ages = [wave.time_ms - (payment.timestamp_ms or 0) for wave, payment in dated]
    assert min(ages) == 0
    assert 0 < max(ages) <= scene.age_ms


def test_rotation_never_uses_a_receiver_twice() -> None:
    receivers = [p.receiver for wave in collect(BY_NAME["rotation"], make_scene()) for p in wave.payments]
    assert len(set(receivers)) == len(receivers) == 30


@given(amount=st.integers(1, 10**9), parts=st.integers(1, 50))
def test_parts_add_up_to_the_whole(amount: int, parts: int) -> None:
    divided = divide(amount, parts)
    assert sum(divided) == amount
    assert min(divided) > 0
    assert max(divided) - min(divided) <= 1


# --- the world --------------------------------------------------------------------------------------


def test_bursts_in_a_block_count_as_those_over_many() -> None:
    seats = make_seat(velocity.load(b"3"), Thresholds(5_000, 10_000))
    together, apart = make_empty_world(seats), make_empty_world(seats)
    time = 20_000 * DAY_MS
    fates = together.submit(Wave(time, tuple(pay(0, 1 + n) for n in range(5))))
    single = [apart.submit(Wave(time + n, (pay(0, 1 + n),)))[0] for n in range(5)]
    assert list(fates) == single
    assert fates.count(REFUSED) == 2


def test_what_is_refused_leaves_no_trace_in_the_state() -> None:
    fraud = load(read_default_artifact())
    world = make_empty_world(make_seat(fraud, Thresholds(0, 0)))
    assert world.submit(Wave(20_000 * DAY_MS, (pay(0, 1), pay(1, 2)))) == [REFUSED, REFUSED]
    assert not world.rows.any()
    assert not world.due


def test_a_theft_that_went_through_is_reported_when_the_delay_is_over() -> None:
    fraud = load(read_default_artifact())
    world = make_empty_world(make_seat(fraud, Thresholds(REFUSE_NEVER, REFUSE_NEVER)))
    start = 20_000 * DAY_MS
    world.submit(Wave(start, (pay(0, 1), Payment(2, 3, 100, is_theft=False))))
    assert [(report.due_ms, report.receiver) for report in world.due] == [(start + 7 * DAY_MS, 1)]
    world.submit(Wave(start + 7 * DAY_MS, (Payment(4, 5, 100, is_theft=False),)))
    assert not world.due
    assert fraud.describe_row(world.rows[1].tobytes())["reports_unexplained"] == 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_a_wave_meets_the_fates_that_a_real_mempool_would_tell_one_by_one(
    pairs: list[tuple[int, int]],
) -> None:
    """Beside the ledger itself: the same payments, each evaluated after those before it that got in."""
    module = velocity.load(b"2")
    keys = [PrivateKey.from_seed(f"red/{n}".encode()) for n in range(4)]
    entry = ModuleEntry(module.name, module.digest, 5_000, 10_000)
    rules = Rules(
        Genesis(
            "red",
            0,
            Parameters(clock=CLOCK_WORKLOAD),
            ValidatorSet((Validator(keys[0].public_key, 1),)),
            tuple((key.address, 10**6) for key in keys),
            (),
            (entry,),
        ),
        (module,),
    )
    view = rules.create_genesis_state().view()
    taken = []
    expected = []
    for nonce, (sender, receiver) in enumerate(pairs):
        tx = sign_transaction(
            keys[sender],
            "red",
            nonce=nonce,
            receiver=keys[receiver].address,
            amount=1,
            fee=1,
            timestamp_ms=20_000 * DAY_MS,
            expires_ms=20_000 * DAY_MS + 1,
        )
        outcome = int(rules.evaluate(view, [*taken, tx]).outcome[-1])
        expected.append(outcome)
        if outcome != REFUSE:
            taken.append(tx)
    world = make_empty_world(make_seat(module, Thresholds(5_000, 10_000)))
    assert list(world.submit(Wave(20_000 * DAY_MS, tuple(pay(a, b, 1) for a, b in pairs)))) == expected


# --- campaigns --------------------------------------------------------------------------------------


def test_a_campaign_leaves_its_stage_as_it_was(stage: Stage) -> None:
    rows, row = stage.world.rows.copy(), stage.world.row
    first = run_campaign(Naive(), stage, SMALL, Parameters())
    assert (stage.world.rows == rows).all()
    assert stage.world.row == row
    assert run_campaign(Naive(), stage, SMALL, Parameters()) == first


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_figures_add_up(stage: Stage, strategy: Strategy) -> None:
    result = run_campaign(strategy, stage, SMALL, Parameters(account_byte_fee_units=1))
    assert 0 <= result.flagged <= result.past <= result.goal
    assert result.victims_robbed <= len(stage.victims)
    assert result.payments == sum(len(wave.payments) for wave in result.waves)
    assert result.fees > result.accounts * stage.world.rows.shape[1]  # new accounts pay for their rows
    assert 0 <= result.share <= 1


def test_where_nothing_is_refused_everything_gets_past(stage: Stage) -> None:
    fraud = load(read_default_artifact())
    seats = make_seat(fraud, Thresholds(REFUSE_NEVER, REFUSE_NEVER))
    results = run_all(STRATEGIES, seats, SMALL, [1], Parameters(), lambda *_: None)
    assert {result.share for result in results} == {1.0}
    assert {row["times_naive"] for row in summarize(results)} == {1.0}


def test_the_summary_measures_each_against_the_naive_one(stage: Stage) -> None:
    results = [run_campaign(strategy, stage, SMALL, Parameters()) for strategy in (Naive(), Splitting())]
    naive, splitting = summarize(results)
    assert naive["strategy"] == NAIVE
    assert splitting["share_past"] == round(results[1].past / results[1].goal, 4)
    assert splitting["share_past"] >= naive["share_past"]


def test_a_town_too_small_to_rob_is_refused() -> None:
    fraud = load(read_default_artifact())
    with pytest.raises(Rejected, match="pay often enough"):
        prepare_stage(make_seat(fraud, fraud.thresholds), Sizes(accounts=40, per_day=1), 1)


# --- on a chain -------------------------------------------------------------------------------------


def test_a_plan_for_a_chain_holds_town_and_waves_in_order_and_labels_only_thefts(stage: Stage) -> None:
    result = run_campaign(MuleChain(), stage, SMALL, Parameters())
    assert not is_dated(result)
    plan = build_plan(stage, result, SMALL, "test")
    assert (np.diff(plan.trace.time_ms) >= 0).all()
    assert plan.trace.fraud is not None
    for payment, row in zip(plan.payments, plan.rows, strict=True):
        trace = plan.trace
        assert trace.fraud is not None
        found = (trace.sender[row], trace.receiver[row], trace.amount[row], trace.fraud[row])
        assert found == (payment.sender, payment.receiver, payment.amount, payment.is_theft)
    assert len(set(plan.trace.names)) == len(plan.trace.names)


def test_a_strategy_that_dates_back_is_known_by_its_payments(stage: Stage) -> None:
    assert is_dated(run_campaign(BY_NAME["timestamps"], stage, SMALL, Parameters()))


# --- the command ------------------------------------------------------------------------------------

COMMAND = ["redteam", "--accounts", "60", "--per-day", "60", "--history-days", "15", "--victims", "3"]


def test_the_command_prints_one_json_document_that_a_seed_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    documents = []
    for _ in range(2):
        assert main([*COMMAND, "--strategy", "burst-in-a-block", "--seeds", "2", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        del document["seconds"]
        documents.append(document)
    assert documents[0] == documents[1]
    assert [row["strategy"] for row in documents[0]["strategies"]] == [NAIVE, "burst in a block"]
    assert documents[0]["seeds"] == [1, 2]


def test_the_command_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--seeds", "1"]) == 0
    told = capsys.readouterr().out
    assert all(strategy.name in told and strategy.words in told for strategy in STRATEGIES)
    assert "honest payments refused meanwhile" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "bribery"], "is no strategy"),
        (["--seeds", "0"], "--seeds"),
        (["--victims", "0"], "--victims"),
        (["--home", "absent"], "no network is running there"),
        (["--model", "absent"], "cannot be read"),
    ],
)
def test_bad_use_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redteam", *arguments]) == 2
    assert words in capsys.readouterr().err
