"""Clocks: what they promise to those who are handed one."""

import pytest

from node.clock import Clock, ManualClock, SkewableClock, SystemClock

YEAR_2020_MS = 1_577_836_800_000


def test_the_system_clock_counts_milliseconds_since_1970() -> None:
    assert SystemClock().now_ms() > YEAR_2020_MS


def test_monotonic_time_never_falls() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_ms() for _ in range(1_000)]
    assert readings == sorted(readings)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(now_ms=5, monotonic_ms=7)
    assert (clock.now_ms(), clock.now_ms(), clock.monotonic_ms()) == (5, 5, 7)
    clock.advance(10)
    assert (clock.now_ms(), clock.monotonic_ms()) == (15, 17)


def test_setting_the_wall_clock_back_leaves_durations_alone() -> None:
    clock = ManualClock(now_ms=100, monotonic_ms=7)
    clock.set_wall(3)
    assert (clock.now_ms(), clock.monotonic_ms()) == (3, 7)


def test_a_skewed_clock_is_off_by_the_wall_alone_until_it_is_set_right() -> None:
    inner = ManualClock(now_ms=100, monotonic_ms=7)
    clock = SkewableClock(inner)
    clock.skew_ms = -60
    inner.advance(10)
    assert (clock.now_ms(), clock.monotonic_ms()) == (50, 17)
    clock.skew_ms = 0
    assert clock.now_ms() == 110


def test_a_manual_clock_does_not_run_backwards() -> None:
    clock = ManualClock(now_ms=100)
    with pytest.raises(ValueError, match="negative"):
        clock.advance(-1)
    assert clock.now_ms() == 100


def test_all_clocks_keep_the_one_contract() -> None:
    clocks: list[Clock] = [SystemClock(), ManualClock(), SkewableClock(ManualClock())]
    assert all(isinstance(clock.now_ms(), int) for clock in clocks)
