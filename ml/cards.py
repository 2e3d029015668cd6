"""Labelled synthetic card payments, after the public description of the handbook's simulator.

Customers and terminals lie on a square; a customer pays at the terminals around it, at its own rate, with
amounts normal about its own mean (deviation: half of it), in a day that peaks at noon. Three frauds:

    large_amount   every amount above a limit
    terminal       for weeks, all that is paid at a compromised terminal
    spell          for days, a third of a customer's amounts, multiplied

Source: Le Borgne, Siblini, Lebichot, Bontempi 2022, "Reproducible Machine Learning for Credit Card Fraud
Detection - Practical Handbook", chapter 3, "Transaction data simulator": written from its prose; no row of
its data and no line of its code is here. `CardRules` holds the numbers it states, so that they can differ.
Invariant: a pure function of seed, sizes and rules; only integers are drawn (a normal deviate is the sum of
twelve uniform ones). Leaves out: anything that those rules do not say, such as weekends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from ml.dataset import Trace
from ml.synthetic import DAY_MS, START_DAY, Workload

CARD_PATTERNS: Final = ("clean", "large_amount", "terminal", "spell")
CLEAN, LARGE_AMOUNT, TERMINAL, SPELL = range(4)
SQUARE: Final = 10_000  # the side of the square, in hundredths
CUSTOMERS_MAX: Final = 20_000
ROWS_MAX: Final = 20_000_000
CHUNK_CUSTOMERS: Final = 500  # whose distances to all terminals are held at once
DEVIATE_BITS: Final = 16  # a normal deviate is this many bits below the point

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CardRules:
    """Pairs are (least, most). Rates are per 10,000 customers and day, amounts in cents.

    The defaults are the handbook's; `terminals` counts them per 100 customers.
    """

    mean_cents: tuple[int, int] = (500, 10_000)
    daily_hundredths: tuple[int, int] = (0, 400)  # a customer's payments a day, times 100
    radius: int = 500  # hundredths: 5 of 100
    terminals: int = 200
    large_cents: int = 22_000  # amounts above are frauds; 0: none is for its amount
    terminals_per_myriad: int = 4  # 2 a day for 5,000 customers
    terminal_days: tuple[int, int] = (28, 28)
    spells_per_myriad: int = 6  # 3 a day for 5,000 customers
    spell_days: tuple[int, int] = (14, 14)
    spell_ratio: tuple[int, int] = (5, 5)
    spell_third: int = 3  # one payment in so many is multiplied


HANDBOOK: Final = CardRules()


def generate_cards(
    seed: int, customers: int = 1_000, days: int = 60, rules: CardRules = HANDBOOK
) -> Workload:
    """`days` days of card payments by `customers` customers. Raises Rejected for sizes out of range."""
    for name, value, low, high in (
        ("seed", seed, 0, 2**63),
        ("customers", customers, 20, CUSTOMERS_MAX),
        ("days", days, 1, 3650),
    ):
        if not low <= value <= high:
            raise Rejected(f"{value} is out of range", field=name, mend=f"use {low} to {high}")
    random = np.random.Generator(np.random.PCG64(seed))
    terminals = max(customers * rules.terminals // 100, 1)
    mean = random.integers(rules.mean_cents[0], rules.mean_cents[1], customers, endpoint=True)
    rate = random.integers(rules.daily_hundredths[0], rules.daily_hundredths[1], customers, endpoint=True)
    rate[0] = max(int(rate[0]), 1)  # somebody pays
    near, first = _find_near(random, customers, terminals, rules.radius)

    per_day = np.full(days, int(rate.sum()) // 100 + 1)
    if int(per_day.sum()) > ROWS_MAX:
        raise Rejected(f"more than {ROWS_MAX} rows", field="customers * days", mend="ask for less")
    n = int(per_day.sum())
    day = np.repeat(np.arange(days), per_day)
    upto = np.cumsum(rate)
    sender = np.searchsorted(upto, random.integers(0, int(upto[-1]), n), side="right")
    count = first[sender + 1] - first[sender]
    receiver = near[first[sender] + random.integers(0, count)]
    amount = mean[sender] + (_draw_deviates(random, n) * (mean[sender] // 2) >> DEVIATE_BITS)
    again = random.integers(0, 2 * mean[sender])  # the handbook draws a negative amount evenly anew
    amount = np.maximum(np.where(amount < 0, again, amount), 1)
    clock = DAY_MS // 2 + (_draw_deviates(random, n) * 20_000_000 >> DEVIATE_BITS)
    time = (START_DAY + day) * DAY_MS + np.clip(clock, 0, DAY_MS - 1)
    order = np.lexsort((np.arange(n), time))
    sender, receiver, amount, time, day = (column[order] for column in (sender, receiver, amount, time, day))

    pattern = np.full(n, CLEAN)
    if rules.large_cents:
        pattern[amount > rules.large_cents] = LARGE_AMOUNT
    starts = _draw_starts(random, days, customers, rules.terminals_per_myriad)
    for start in starts:
        end = start + int(random.integers(*rules.terminal_days, endpoint=True))
        bad = int(random.integers(0, terminals))
        low, high = np.searchsorted(day, (start, end))
        pattern[low:high][receiver[low:high] == bad] = TERMINAL
    for start in _draw_starts(random, days, customers, rules.spells_per_myriad):
        end = start + int(random.integers(*rules.spell_days, endpoint=True))
        victim = int(random.integers(0, customers))
        low, high = np.searchsorted(day, (start, end))
        rows = low + np.flatnonzero(sender[low:high] == victim)
        rows = rows[random.integers(0, rules.spell_third, len(rows)) == 0]
        amount[rows] *= random.integers(rules.spell_ratio[0], rules.spell_ratio[1], len(rows), endpoint=True)
        pattern[rows] = SPELL

    wide, broad = len(str(customers - 1)), len(str(terminals - 1))
    names = [f"card-{i:0{wide}}" for i in range(customers)]
    names += [f"terminal-{i:0{broad}}" for i in range(terminals)]
    trace = Trace(
        time, sender, receiver + customers, amount, (pattern != CLEAN).astype(np.uint8), tuple(names)
    )
    return Workload(trace, pattern.astype(np.uint8), CARD_PATTERNS)


def _find_near(
    random: np.random.Generator, customers: int, terminals: int, radius: int
) -> tuple[Int64s, Int64s]:
    """The terminals around each customer, one list after the other, and where each list begins; a customer
    with none around it goes to the nearest."""
    place = random.integers(0, SQUARE, (customers, 2))
    shop = random.integers(0, SQUARE, (terminals, 2))
    lists: list[Int64s] = []
    for low in range(0, customers, CHUNK_CUSTOMERS):
        offset = place[low : low + CHUNK_CUSTOMERS, None, :] - shop[None]
        distance = (offset * offset).sum(axis=2)  # below 2^28
        reach = np.maximum(distance.min(axis=1), radius * radius)
        lists.extend(np.flatnonzero(row) for row in distance <= reach[:, None])
    first = np.concatenate(([0], np.cumsum([len(found) for found in lists])))
    return np.concatenate(lists), first


def _draw_deviates(random: np.random.Generator, n: int) -> Int64s:
    """int64[n]: twelve uniform draws, whose sum has deviation 1 (2^16) and ends at 6: near enough normal."""
    total = np.zeros(n, dtype=np.int64)
    for _ in range(12):
        total += random.integers(0, 1 << DEVIATE_BITS, n)
    return total - (6 << DEVIATE_BITS)


def _draw_starts(random: np.random.Generator, days: int, customers: int, per_myriad: int) -> list[int]:
    """The day on which each fraud of a kind begins, in order; a day's fraction is decided by a draw."""
    whole, rest = divmod(customers * per_myriad, 10_000)
    starts: list[int] = []
    for day in range(days):
        starts += [day] * (whole + int(random.integers(0, 10_000) < rest))
    return starts
