"""Backpressure: what waits is what becomes final in some seconds, and the door opens again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.mempool.pressure import BURST_TRANSACTIONS, STEP_MS, WINDOW_MS, Pressure

finals = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 2_000)), max_size=60)


@given(finals)
def test_what_may_wait_is_what_became_final_within_the_window(blocks: list[tuple[int, int]]) -> None:
    pressure, now_ms = Pressure(), 10**6
    noted = []
    for count, pause_ms in blocks:
        now_ms += pause_ms
        pressure.note_final(count, now_ms)
        noted.append((now_ms // STEP_MS, count))
    recent = sum(count for step, count in noted if step > now_ms // STEP_MS - WINDOW_MS // STEP_MS)
    assert pressure.compute_waiting_max(now_ms) == max(BURST_TRANSACTIONS, recent)


@given(finals, st.integers(1, 10_000))
def test_after_a_storm_the_queue_drains_until_the_door_opens(
    blocks: list[tuple[int, int]], rate: int
) -> None:
    pressure, now_ms, waiting = Pressure(), 0, 100_000
    for count, pause_ms in blocks:
        now_ms += pause_ms
        pressure.note_final(count, now_ms)
    while pressure.get_wait_ms(waiting, now_ms):
        now_ms += 1_000
        pressure.note_final(rate, now_ms)
        waiting -= rate
        assert waiting > -rate  # it would else be refused with nothing waiting at all


def test_a_burst_is_taken_before_anything_became_final() -> None:
    assert Pressure().get_wait_ms(BURST_TRANSACTIONS - 1, 0) == 0
    assert Pressure().get_wait_ms(BURST_TRANSACTIONS, 0) > 0


def test_a_clock_that_stands_still_costs_no_memory() -> None:
    pressure = Pressure()
    for _ in range(1_000):
        pressure.note_final(1, 0)
    assert len(pressure._steps) == 1
