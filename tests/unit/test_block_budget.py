"""The block budget: a block is as large as its view has time for, and never so small that nothing moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.blocks.budget import COUNT_FLOOR, COUNT_START, SAMPLE_TRANSACTIONS, BlockBudget

CHAIN_MAX = 5_000
TIME_MS_MAX = 300

counts = st.integers(0, CHAIN_MAX)
times_ms = st.integers(0, 20_000)
blocks = st.tuples(st.sampled_from(("built", "judged", "lost")), counts, times_ms)


def note(budget: BlockBudget, block: tuple[str, int, int]) -> None:
    kind, count, took_ms = block
    match kind:
        case "built":
            budget.note_built(count, took_ms)
        case "judged":
            budget.note_judged(count, took_ms)
        case _:
            budget.note_lost(count)


def run(budget: BlockBudget, us_per_transaction: int, fixed_ms: int, rounds: int, waiting: int) -> int:
    """So many full blocks on a machine that builds and judges in equal parts; the size of the last."""
    count = 0
    for _ in range(rounds):
        count = min(waiting, budget.get_count_max(CHAIN_MAX))
        half_ms = (count * us_per_transaction // 1_000 + fixed_ms) // 2
        budget.note_built(count, half_ms)
        budget.note_judged(count, half_ms)
    return count


@given(st.lists(blocks, max_size=60), counts)
def test_whatever_happened_a_block_holds_the_floor_and_no_more_than_the_chain_allows(
    happened: list[tuple[str, int, int]], chain_max: int
) -> None:
    budget = BlockBudget(TIME_MS_MAX)
    for block in happened:
        note(budget, block)
    assert min(chain_max, COUNT_FLOOR) <= budget.get_count_max(chain_max) <= chain_max


@given(st.lists(blocks, max_size=60), counts, times_ms)
def test_after_a_block_the_next_one_is_expected_in_time_or_is_the_floor(
    happened: list[tuple[str, int, int]], count: int, took_ms: int
) -> None:
    budget = BlockBudget(TIME_MS_MAX)
    for block in [*happened, ("built", count, took_ms)]:
        note(budget, block)
    allowed = budget.get_count_max(CHAIN_MAX)
    is_in_time = budget.compute_expected_ms(allowed) <= TIME_MS_MAX
    assert is_in_time or allowed == COUNT_FLOOR or count < SAMPLE_TRANSACTIONS


@given(st.lists(blocks, max_size=60), blocks)
def test_one_block_more_raises_the_bound_by_an_eighth_at_most(
    happened: list[tuple[str, int, int]], block: tuple[str, int, int]
) -> None:
    budget = BlockBudget(TIME_MS_MAX)
    for earlier in [("built", 100, 100), *happened]:
        note(budget, earlier)
    before = budget.get_count_max(10**9)
    note(budget, block)
    assert budget.get_count_max(10**9) <= max(before + before // 8, COUNT_FLOOR)


@given(st.integers(50, 2_500), st.integers(0, 60))
def test_on_a_steady_machine_full_blocks_come_to_take_the_time_allowed(us: int, fixed_ms: int) -> None:
    count = run(BlockBudget(TIME_MS_MAX), us, fixed_ms, rounds=80, waiting=CHAIN_MAX)
    if COUNT_FLOOR < count < CHAIN_MAX:
        assert 0.8 * TIME_MS_MAX <= count * us / 1_000 + fixed_ms <= 1.1 * TIME_MS_MAX


def test_a_machine_that_grows_slow_has_small_blocks_at_once_and_large_ones_later_again() -> None:
    budget = BlockBudget(TIME_MS_MAX)
    assert run(budget, 60, 0, 40, CHAIN_MAX) > 4_500
    assert run(budget, 1_000, 0, 4, CHAIN_MAX) < 400
    assert run(budget, 60, 0, 4, CHAIN_MAX) < 1_000
    assert run(budget, 60, 0, 40, CHAIN_MAX) > 4_500


def test_a_lost_view_halves_the_next_block() -> None:
    budget = BlockBudget(TIME_MS_MAX)
    run(budget, 300, 0, 10, 800)
    before = budget.get_count_max(CHAIN_MAX)
    budget.note_lost(before)
    assert budget.get_count_max(CHAIN_MAX) == before // 2


def test_a_small_block_that_was_lost_says_nothing_of_size() -> None:
    budget = BlockBudget(TIME_MS_MAX)
    budget.note_lost(3)
    assert budget.get_count_max(CHAIN_MAX) == COUNT_START


def test_where_no_time_passes_there_is_no_bound() -> None:
    budget = BlockBudget(TIME_MS_MAX)
    budget.note_built(SAMPLE_TRANSACTIONS, 0)
    budget.note_judged(SAMPLE_TRANSACTIONS, 0)
    budget.note_lost(CHAIN_MAX)
    assert budget.get_count_max(CHAIN_MAX) == CHAIN_MAX
