"""A whole replay against a hostile network: every row is accounted for, and nothing costs more than time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from consensus.block import Block, decode_block, encode_block
from consensus.errors import Fault, Rejected
from consensus.parameters import DAY_MS, Parameters
from consensus.transaction import KIND_REPORT, Transaction
from ml.dataset import Trace
from node.replay.network import Answer
from node.replay.schedule import derive_key
from node.replay.session import Replay
from node.replay.settings import ReplayOptions, Snapshot
from tests.fakes.replay_network import FUNDERS, FakeNetwork, LoopClock, run_skipping

Json = dict[str, Any]
START_MS = 20 * DAY_MS


def make_trace(
    rows: int, *, senders: int = 20, step_ms: int = 60_000, frauds: tuple[int, ...] | None = ()
) -> Trace:
    """Row i goes from sender i % senders to the next name, with amount i; time steps evenly."""
    index = np.arange(rows, dtype=np.int64)
    fraud = None
    if frauds is not None:
        fraud = np.zeros(rows, dtype=np.uint8)
        fraud[list(frauds)] = 1
    names = tuple(f"name-{i}" for i in range(senders + 1))
    return Trace(START_MS + index * step_ms, index % senders, index % senders + 1, index, fraud, names)


def play(
    network: FakeNetwork,
    trace: Trace,
    *,
    options: ReplayOptions | None = None,
    meanwhile: Callable[[FakeNetwork, Replay], Any] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Json:
    async def run() -> Json:
        async with network:
            replay = Replay(network, trace, FUNDERS, options or ReplayOptions(), LoopClock(), watch)
            task = asyncio.create_task(meanwhile(network, replay)) if meanwhile is not None else None
            report = await replay.run()
            if task is not None:
                await task
            return report

    report = run_skipping(run())
    json.dumps(report)  # it is what --json prints
    assert report["submitted"] == report["final"] + report["refused"] + report["failed"]
    return report


async def wait_rows(replay: Replay, rows: int) -> None:
    """Until so many were submitted."""
    while replay.outcomes.submitted < rows:  # noqa: ASYNC110 - time is skipped here, not waited for
        await asyncio.sleep(0.01)


def get_rows(network: FakeNetwork) -> list[int]:
    """The row numbers that became final; a row's amount is its number."""
    return sorted(tx.amount for tx in network.transfers)


def test_every_row_becomes_final_exactly_once() -> None:
    network = FakeNetwork()
    report = play(network, make_trace(1_000))
    assert report["final"] == report["submitted"] == 1_000
    assert get_rows(network) == list(range(1_000))
    assert report["nodes_agree"]
    assert report["failed"] == 0
    assert report["state_root"] == "0x" + network.headers[report["height"]].state_root.hex()
    assert report["latency_ms"]["p50"] >= 0
    assert report["tps"] > 0


def test_rows_reach_the_chain_in_their_order() -> None:
    network = FakeNetwork()
    play(network, make_trace(3_000))
    assert [tx.amount for tx in network.transfers] == list(range(3_000))
    assert {node for node, _ in network.submissions} == {0}


def test_the_same_workload_seed_and_genesis_give_the_same_ids() -> None:
    trace = make_trace(300)
    ids = []
    for lossy in (False, True):
        network = FakeNetwork()
        if lossy:
            network.lose = lambda node, tx: tx.nonce % 3 == 0 and node == 1
        play(network, trace)
        ids.append({tx.id for tx in network.transfers})
    assert ids[0] == ids[1]
    other = FakeNetwork()
    play(other, trace, options=ReplayOptions(seed=1))
    assert ids[0].isdisjoint({tx.id for tx in other.transfers})


def test_submissions_that_a_node_loses_are_sent_to_another() -> None:
    network = FakeNetwork()
    network.lose = lambda node, tx: node in (0, 1)
    report = play(network, make_trace(400))
    assert report["final"] == 400
    assert report["retries"]["resubmitted"] > 0


def test_a_node_that_is_killed_and_started_again_costs_nothing_but_time() -> None:
    network = FakeNetwork()

    async def kill(network: FakeNetwork, replay: Replay) -> None:
        await wait_rows(replay, 200)
        network.down.add(2)
        network.down.add(0)  # the one that is followed
        await asyncio.sleep(5)
        network.down.clear()

    report = play(network, make_trace(2_000), options=ReplayOptions(rate_max=400), meanwhile=kill)
    assert report["final"] == 2_000
    assert report["failed"] == 0
    assert report["nodes_agree"]
    assert report["retries"]["node_failures"] > 0


def test_all_nodes_away_for_a_minute_lose_nothing() -> None:
    network = FakeNetwork()

    async def kill(network: FakeNetwork, replay: Replay) -> None:
        await wait_rows(replay, 200)
        network.down |= {0, 1, 2, 3}
        network.is_producing = False
        network.mempool.clear()  # mempools do not survive kill -9
        await asyncio.sleep(60)
        network.down.clear()
        network.is_producing = True

    report = play(network, make_trace(1_000), options=ReplayOptions(rate_max=400), meanwhile=kill)
    assert report["final"] == 1_000
    assert report["failed"] == 0


def test_a_standstill_beyond_patience_is_a_fault() -> None:
    network = FakeNetwork()

    async def halt(network: FakeNetwork, replay: Replay) -> None:
        await wait_rows(replay, 100)
        network.is_producing = False

    options = ReplayOptions(rate_max=400, patience_ms=30_000)
    with pytest.raises(Fault, match="nothing became final for 30 s"):
        play(network, make_trace(500), options=options, meanwhile=halt)


def test_refused_rows_count_as_refused_with_the_score_of_their_refusal() -> None:
    network = FakeNetwork()
    network.refuse = lambda tx: 9_500 if tx.amount in (7, 8) and tx.sender not in _FUNDERS else None
    report = play(network, make_trace(100, frauds=(7, 50)))
    assert (report["refused"], report["final"]) == (2, 98)
    assert report["quality"]["confusion"] == {
        "refused": {"fraud": 1, "clean": 1},
        "flagged": {"fraud": 0, "clean": 0},
        "accepted": {"fraud": 1, "clean": 97},
    }
    assert report["quality"]["rows"] == 100


_FUNDERS = {key.address for key in FUNDERS}


def test_a_final_overrides_a_refusal() -> None:
    network = FakeNetwork()

    def answer(node: int, tx: Transaction) -> Answer | None:
        if tx.amount == 7 and tx.sender not in _FUNDERS:
            network.mempool[tx.id] = tx  # another node took it all the same
            return Answer("refused", "refused", "scored 9000", 9_000)
        return None

    network.answer = answer
    report = play(network, make_trace(100))
    assert (report["refused"], report["final"]) == (0, 100)


def test_backpressure_is_waited_for() -> None:
    network = FakeNetwork()
    turned_away: dict[bytes, int] = {}

    def answer(node: int, tx: Transaction) -> Answer | None:
        turned_away[tx.id] = turned_away.get(tx.id, 0) + 1
        return Answer("rejected", "pool_full", "full", retry_ms=300) if turned_away[tx.id] < 20 else None

    async def relieve(network: FakeNetwork, replay: Replay) -> None:
        await asyncio.sleep(3)
        network.busy.clear()

    network.answer = answer
    network.busy = {0: 1_000, 1: 1_000}
    report = play(network, make_trace(50), meanwhile=relieve)
    assert report["final"] == 50
    assert report["retries"]["backpressure"] > 0


def test_what_every_node_rejects_fails_with_its_reason_after_some_tries() -> None:
    network = FakeNetwork()
    network.answer = lambda node, tx: (
        Answer("rejected", "odd", "no") if tx.amount == 9 and tx.sender not in _FUNDERS else None
    )
    report = play(network, make_trace(30))
    assert (report["failed"], report["final"]) == (1, 29)
    assert report["failures"] == {"odd: no": 1}


def test_what_one_node_behind_the_others_rejects_becomes_final() -> None:
    network = FakeNetwork()
    network.answer = lambda node, tx: Answer("rejected", "unfunded", "who?") if node == 3 else None
    report = play(network, make_trace(300))
    assert report["final"] == 300


def test_more_than_64_refusals_in_a_row_do_not_shut_a_sender_out() -> None:
    network = FakeNetwork()
    seen: set[int] = set()

    def answer(node: int, tx: Transaction) -> Answer | None:
        if tx.sender in _FUNDERS:
            return None
        highest = network.state.view().get_account(tx.sender)
        assert highest is not None
        if tx.nonce > max(highest.nonce_next - 1, *seen, -1) + 64:
            return Answer("rejected", "nonce_gap", "too far", retry_ms=1_000)
        if 10 <= tx.nonce < 150 and tx.amount:
            return Answer("refused", "refused", "scored 9999", 9_999)
        seen.add(tx.nonce)
        return None

    network.answer = answer
    report = play(network, make_trace(200, senders=1))
    assert (report["final"], report["refused"], report["failed"]) == (60, 140, 0)
    assert report["retries"]["nonce_gaps_filled"] >= 1


def test_labels_are_reported_only_after_the_delay_and_when_the_row_is_final() -> None:
    network = FakeNetwork()
    network.refuse = lambda tx: 9_900 if tx.amount == 30 and tx.sender not in _FUNDERS else None
    # 2,400 rows a day's hundredth apart: ten days
    trace = make_trace(2_400, step_ms=DAY_MS // 240, frauds=(10, 20, 30, 500, 2_300))
    report = play(network, trace)
    assert report["reports"] == {"posted": 3, "final": 3, "failed": 0, "not_due": 1, "reasons": {}}
    assert sorted(reported.amount for _, reported in network.reports) == [10, 20, 500]
    for tx, reported in network.reports:
        assert tx.timestamp_ms >= reported.timestamp_ms + 7 * DAY_MS
    assert report["submitted"] == 2_400


def test_rows_wait_for_reports_that_are_due() -> None:
    network = FakeNetwork(block_ms=500)
    trace = make_trace(6_000, step_ms=DAY_MS // 480, frauds=tuple(range(0, 1_000, 50)))
    play(network, trace)
    place = {tx.id: i for i, tx in enumerate(network.final)}
    for tx, reported in network.reports:
        due_row = reported.amount + 7 * 480
        late = [row for row in network.transfers if row.amount > due_row + 1_001]
        assert all(place[row.id] > place[tx.id] for row in late)


def test_few_rows_over_many_weeks_wait_for_reports_that_would_come_too_late() -> None:
    network = FakeNetwork(timestamp_ms=START_MS)
    report = play(network, make_trace(300, step_ms=DAY_MS // 3, frauds=(0, 3, 20, 50, 70)))
    assert report["reports"]["final"] == 5
    assert report["retries"]["codes"] == {}


def test_without_labels_there_is_no_quality() -> None:
    assert play(FakeNetwork(), make_trace(20, frauds=None))["quality"] is None


def test_a_workload_behind_the_chain_is_moved_by_whole_days() -> None:
    network = FakeNetwork(timestamp_ms=400 * DAY_MS + 5_000)
    trace = make_trace(50)
    assert play(network, trace)["final"] == 50
    shift = {tx.timestamp_ms - int(trace.time_ms[tx.amount]) for tx in network.transfers}
    assert shift == {381 * DAY_MS}


def test_a_second_replay_of_the_same_workload_on_the_same_chain_works() -> None:
    network = FakeNetwork()
    trace = make_trace(100, step_ms=DAY_MS // 10)
    assert play(network, trace)["final"] == 100
    again = play(network, trace)
    assert (again["final"], again["failed"]) == (100, 0)


def test_long_pauses_and_rows_refused_before_them_do_not_stop_the_chain() -> None:
    network = FakeNetwork()
    trace = make_trace(12, step_ms=30 * DAY_MS)
    network.refuse = lambda tx: 9_999 if tx.amount in (3, 4, 5) and tx.sender not in _FUNDERS else None
    report = play(network, trace)
    assert (report["final"], report["refused"], report["failed"]) == (9, 3, 0)


def test_on_a_wall_clock_rows_carry_the_time_they_are_signed_at() -> None:
    network = FakeNetwork(parameters=Parameters())
    report = play(network, make_trace(100, frauds=(3,), step_ms=DAY_MS))
    assert (report["final"], report["failed"]) == (100, 0)
    assert report["reports"]["final"] == 1


def test_senders_are_funded_once_and_alike() -> None:
    network = FakeNetwork()
    trace = make_trace(100)
    assert play(network, trace)["funding"]["transactions"] == 20
    for name in trace.names[:20]:
        account = network.state.view().get_account(derive_key(0, name).address)
        assert account is not None
    funding = [tx for tx in network.final if tx.sender in _FUNDERS]
    assert (
        len({(tx.sender, tx.timestamp_ms // 900_000) for tx in funding}) == 20
    )  # never two in a quarter of an hour
    assert len({tx.amount for tx in funding}) == 1  # nobody's payment looks unusual
    assert play(network, trace)["funding"]["transactions"] == 0


def test_a_workload_that_moves_more_than_the_funders_hold_submits_nothing() -> None:
    network = FakeNetwork(balance=1_000)
    with pytest.raises(Rejected, match="more than the funded accounts hold"):
        play(network, make_trace(1_000))
    assert not network.submissions


def test_funding_that_is_refused_is_paid_in_parts() -> None:
    network = FakeNetwork(balance=20_000)  # not enough for a payout to each: they get what they lack
    network.refuse = lambda tx: 9_999 if tx.sender in _FUNDERS and tx.amount > 300 else None
    report = play(network, make_trace(200))
    assert (report["final"], report["failed"]) == (200, 0)


def test_a_rate_is_kept() -> None:
    report = play(FakeNetwork(), make_trace(500), options=ReplayOptions(rate_max=100))
    assert 5.0 <= report["seconds"] < 6.0


def test_an_interrupted_replay_reports_what_was_done() -> None:
    network = FakeNetwork()

    async def interrupt(network: FakeNetwork, replay: Replay) -> None:
        await wait_rows(replay, 200)
        replay.stop.set()

    report = play(network, make_trace(2_000), options=ReplayOptions(rate_max=400), meanwhile=interrupt)
    assert report["interrupted"]
    assert 200 <= report["submitted"] < 1_000
    assert report["final"] == report["submitted"]


def test_nodes_that_differ_or_are_away_are_named() -> None:
    network = FakeNetwork()
    changed = {}

    def watch(snapshot: Snapshot) -> None:
        if snapshot.phase == "comparing" and not changed:
            block: Block = decode_block(network.blocks[1])
            changed[1] = network.other_blocks[1] = encode_block(block)
            network.down.add(3)

    report = play(network, make_trace(50), watch=watch)
    assert not report["nodes_agree"]
    assert report["nodes_agreeing"] == 2
    assert report["unreachable"] == ["http://node3"]
    assert [text.split()[0] for text in report["differing"]] == ["http://node1"]


def test_no_node_at_all_is_one_clear_error() -> None:
    network = FakeNetwork()
    network.down = {0, 1, 2, 3}
    with pytest.raises(Rejected, match="no node answers"):
        play(network, make_trace(5))


def test_labels_never_travel_with_a_transaction() -> None:
    trace = make_trace(200)
    ids = []
    for frauds in ((), tuple(range(0, 200, 2))):
        network = FakeNetwork()
        play(network, make_trace(200, frauds=frauds))
        ids.append({tx.id for tx in network.final if tx.kind != KIND_REPORT})
    assert len(trace) == 200
    assert ids[0] == ids[1]
