"""Who leads a view."""

from collections import Counter
from fractions import Fraction
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.bft.leader import LeaderSchedule
from consensus.vote import ValidatorSet
from node.simulation import toys

stakes_lists = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple)


def make_schedule(*stakes: int) -> LeaderSchedule:
    return LeaderSchedule(toys.make_validators(stakes))


def compute_by_sorting(stakes: tuple[int, ...]) -> list[int]:
    """The definition, word by word: all turns of a period by due time, ties to the lower index."""
    unit = gcd(*stakes)
    turns = [
        (Fraction(2 * turn + 1, 2 * (stake // unit)), index)
        for index, stake in enumerate(stakes)
        for turn in range(stake // unit)
    ]
    return [index for _, index in sorted(turns)]


def test_equal_stakes_take_turns_by_index_from_view_one() -> None:
    schedule = make_schedule(5, 5, 5, 5)
    assert [schedule.get_leader(view) for view in range(1, 10)] == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_a_heavy_validator_leads_more_often_but_evenly_spread() -> None:
    schedule = make_schedule(5, 1, 1)
    assert [schedule.get_leader(view) for view in range(1, 8)] == [0, 0, 0, 1, 2, 0, 0]


@given(stakes_lists)
def test_every_period_is_the_turns_sorted_by_due_time(stakes: tuple[int, ...]) -> None:
    schedule, expected = make_schedule(*stakes), compute_by_sorting(stakes)
    assert schedule.period == len(expected)
    views = range(1, 2 * schedule.period + 1)
    assert [schedule.get_leader(view) for view in views] == 2 * expected


@given(stakes_lists)
def test_a_period_gives_everyone_exactly_its_share(stakes: tuple[int, ...]) -> None:
    schedule = make_schedule(*stakes)
    turns = Counter(schedule.get_leader(view) for view in range(1, schedule.period + 1))
    assert [turns[index] * gcd(*stakes) for index in range(len(stakes))] == list(stakes)


@given(stakes_lists, st.integers(1, 10**12))
def test_a_leader_does_not_depend_on_what_was_asked_before(stakes: tuple[int, ...], view: int) -> None:
    walked, jumped = make_schedule(*stakes), make_schedule(*stakes)
    for earlier in range(max(1, view - 200), view):
        walked.get_leader(earlier)
    assert walked.get_leader(view) == jumped.get_leader(view)


def test_a_far_view_over_huge_coprime_stakes_costs_no_walk() -> None:
    validators = toys.make_validators((2**51 - 1, 2**51 - 3, 2**50 + 7, 1))
    schedule = LeaderSchedule(validators)  # a period of 5 * 10^15 views
    leaders = [schedule.get_leader(view) for view in range(10**15, 10**15 + 500)]
    assert set(leaders) == {0, 1, 2}
    assert max(Counter(leaders).values()) - 200 in range(-2, 3)  # 2/5 of 500


@pytest.mark.parametrize("size", [1, 100])
def test_many_validators_and_one(size: int) -> None:
    schedule = make_schedule(*[3] * size)
    assert [schedule.get_leader(view) for view in range(1, 2 * size + 1)] == 2 * list(range(size))


def test_the_set_alone_decides() -> None:
    validators = toys.make_validators((3, 2, 2))
    again = ValidatorSet(validators.validators)
    views = range(1, 100)
    first, second = LeaderSchedule(validators), LeaderSchedule(again)
    assert [first.get_leader(view) for view in views] == [second.get_leader(view) for view in views]
