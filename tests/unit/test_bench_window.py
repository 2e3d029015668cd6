"""The arithmetic of a measurement, and the transactions and batches that it is made with."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault, Rejected
from consensus.transaction import decode_transaction, is_signed
from node.bench import workload
from node.bench.load import split_batches
from node.bench.plot import Curve, draw_curves, format_number
from node.bench.profiled import attribute
from node.bench.sampling import compute_growth
from node.bench.sweeps import make_curves
from node.bench.watch import Series
from node.bench.window import (
    compute_mean_backlog,
    compute_percentile,
    cut_window,
    get_total,
    merge_counts,
)

TIMES = [1.0, 2.0, 3.0, 4.0, 5.0]
TOTALS = [100, 200, 300, 400, 500]


def test_a_window_begins_and_ends_at_moments_of_finality() -> None:
    found = cut_window(TIMES, TOTALS, 1.5, 4.7)
    assert (found.start_s, found.end_s, found.transactions) == (2.0, 4.0, 200)
    assert found.rate == 100


def test_a_window_leaves_the_ramp_out() -> None:
    slow_start = [10, 20, 120, 220, 320]
    assert cut_window(TIMES, slow_start, 2.0, 5.0).rate == 100


def test_a_window_with_two_blocks_says_nothing() -> None:
    with pytest.raises(Fault, match="only 2 blocks"):
        cut_window(TIMES, TOTALS, 3.5, 5.5)
    with pytest.raises(Fault, match="only 0 blocks"):
        cut_window([], [], 0.0, 9.0)


def test_a_standstill_at_an_edge_of_a_window_counts() -> None:
    """Otherwise a network that stands still for the last eight of twelve seconds would show its full rate."""
    found = cut_window(TIMES, TOTALS, 1.5, 12.0)
    assert (found.start_s, found.end_s, found.transactions) == (2.0, 12.0, 300)
    late = [6.0, 7.0, 8.0]
    found = cut_window([0.5, *late], [50, 100, 200, 300], 1.0, 8.5)
    assert (found.start_s, found.end_s, found.transactions) == (1.0, 8.0, 250)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(1, 5_000)), min_size=3, max_size=40))
def test_the_rate_of_a_whole_run_is_what_came_after_the_first_block(steps: list[tuple[float, int]]) -> None:
    times, totals, now, total = [], [], 0.0, 0
    for seconds, count in steps:
        now, total = now + seconds, total + count
        times.append(now)
        totals.append(total)
    found = cut_window(times, totals, times[0], now)
    assert found.transactions == sum(count for _, count in steps[1:])
    assert found.rate == pytest.approx(found.transactions / (times[-1] - times[0]))


def test_a_total_holds_until_the_next_moment() -> None:
    assert [get_total(TIMES, TOTALS, at) for at in (0.5, 1.0, 2.9, 9.0)] == [0, 100, 200, 500]


def test_a_backlog_that_stands_still_has_its_size() -> None:
    submitted = TIMES, [total + 50 for total in TOTALS]
    assert compute_mean_backlog(submitted, (TIMES, TOTALS), 1.0, 5.0) == 50


def test_a_backlog_that_runs_away_grows() -> None:
    submitted = TIMES, [2 * total for total in TOTALS]
    early = compute_mean_backlog(submitted, (TIMES, TOTALS), 1.0, 2.0)
    assert compute_mean_backlog(submitted, (TIMES, TOTALS), 4.0, 5.0) > 2 * early


def test_a_standstill_counts_for_as_long_as_it_lasts_wherever_it_falls() -> None:
    times_s = [float(second) for second in range(11)]
    totals = [100 * second for second in range(11)]
    for second in range(1, 10):  # what came with this second is final half a second late
        late = [*times_s[:second], second + 0.5, *times_s[second + 1 :]]
        assert compute_mean_backlog((times_s, totals), (late, totals), 0.0, 10.0) == pytest.approx(5)


def test_counts_of_several_processes_become_one_rising_line() -> None:
    assert merge_counts([[(1.0, 5), (3.0, 5)], [(2.0, 10)]]) == ([1.0, 2.0, 3.0], [5, 15, 20])


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_so_many_percent_do_not_exceed_the_percentile(values: list[float], percent: int) -> None:
    found = compute_percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(Fault, match="nothing"):
        compute_percentile([], 50)


def test_growth_compares_the_last_third_with_the_second() -> None:
    assert compute_growth([1, 9, 10, 10, 15, 15]) == 1.5
    with pytest.raises(Fault, match="fewer than three"):
        compute_growth([1, 2])


@given(st.integers(0, 50), st.integers(0, 2_000), st.integers(1, 300), st.integers(1, 5))
def test_every_transaction_is_in_one_batch_of_one_process(
    first: int, count: int, size: int, processes: int
) -> None:
    dealt = split_batches(first, first + count, size, processes)
    assert len(dealt) == processes
    batches = sorted(batch for own in dealt for batch in own)
    assert [number for start, end in batches for number in range(start, end)] == list(
        range(first, first + count)
    )
    assert all(0 < end - start <= size for start, end in batches)


def test_a_series_knows_when_each_block_was_told() -> None:
    series = Series()
    for height, count in ((7, 0), (8, 10), (9, 5)):
        series.add(height, count, float(height))
    assert (series.total, series.get_time(8), series.get_time(6), series.get_time(10)) == (
        15,
        8.0,
        None,
        None,
    )


def test_signed_transactions_are_kept_and_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "ACCOUNTS", 20)
    monkeypatch.setattr(workload, "CHUNK", 30)
    monkeypatch.setattr(workload, "PROCESSES_FROM", 10_000)
    monkeypatch.setattr(workload, "make_keys", lambda seed, count=20: MAKE_KEYS(seed, count))
    path = workload.provide_transactions(tmp_path, 3, 25)
    first = workload.read_transactions(path, 0, 30)
    assert workload.provide_transactions(tmp_path, 3, 70) == path
    raws = workload.read_transactions(path, 0, 90)
    assert raws[:30] == first
    transactions = [decode_transaction(raw) for raw in raws]
    assert all(is_signed(tx, workload.make_chain_id(3)) for tx in transactions)
    assert len({(tx.sender, tx.nonce) for tx in transactions}) == 90
    assert max(tx.nonce for tx in transactions) == 4
    with pytest.raises(Rejected, match="fewer than 91"):
        workload.read_transactions(path, 0, 91)


MAKE_KEYS = workload.make_keys


def test_a_damaged_file_of_transactions_is_signed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "CHUNK", 5)
    monkeypatch.setattr(workload, "make_keys", lambda seed, count=20: MAKE_KEYS(seed, 20))
    path = workload.provide_transactions(tmp_path, 3, 10)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], b"\xff" * len(whole), whole[:-7]):
        path.write_bytes(damaged)
        workload.provide_transactions(tmp_path, 3, 10)
        assert path.read_bytes() == whole


def test_a_picture_is_well_formed_and_labels_every_point() -> None:
    points = [{"x": 10, "us <a>": 3.5}, {"x": 1_000, "us <a>": 4.5, "other": 0}]
    curves = make_curves(points)
    assert curves == [Curve("us <a>", ((10, 3.5), (1_000, 4.5)))]
    text = draw_curves("Title & more", "accounts", "us", curves)
    root = ElementTree.fromstring(text)
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 2
    assert "Title &amp; more" in text


@pytest.mark.parametrize(
    ("value", "text"), [(12_000, "12k"), (3.5, "3.5"), (1_000_000, "1M"), (0.02, "0.02")]
)
def test_numbers_are_short_in_a_picture(value: float, text: str) -> None:
    assert format_number(value) == text


def test_what_libraries_cost_is_charged_to_the_file_that_called_them() -> None:
    ours = (str(Path(workload.__file__)), 1, "sign")
    other = ("/lib/python/json.py", 1, "loads")
    inner = ("~", 0, "<built-in scan>")
    idle = ("/lib/python/asyncio.py", 1, "run_forever")
    stats = {
        ours: (1, 1, 2.0, 9.0, {}),
        other: (1, 1, 3.0, 7.0, {ours: (1, 1, 3.0, 7.0)}),
        inner: (1, 1, 4.0, 4.0, {other: (1, 1, 4.0, 4.0)}),
        idle: (1, 1, 5.0, 5.0, {}),
    }
    assert attribute(stats) == {"node/bench/workload.py": 9.0, "event loop and library": 5.0}
