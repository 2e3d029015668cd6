"""Labelled synthetic workloads: a small town's payments, and six kinds of fraud in them.

Invariant: a pure function of seed and sizes, integers in every column. Only integers are drawn from PCG64,
so no machine's floating point has a say; should NumPy ever draw them differently, a test's pinned hash tells.
People pay a few shops they favour, at their own rate and their own level of amounts. The frauds:

    spell       a stolen card: some of its amounts jump for some days
    shop        a captured receiver: for days all that is paid to it is fraud
    burst       a dozen payments of one sender to many receivers within a minute
    mule        a large sum passed on from account to account within the hour
    cash_out    a single amount far above anything its sender ever paid
    probe       tiny payments to one receiver, then a large one

Leaves out: any real data set. The rules and rates are ours; a model trained here knows only them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from ml.dataset import Trace

DAY_MS: Final = 86_400_000
START_DAY: Final = 20_454  # 2026-01-01: a fixed day, for the generator reads no clock
PATTERNS: Final = ("clean", "spell", "shop", "burst", "mule", "cash_out", "probe")
CLEAN, SPELL, SHOP, BURST, MULE, CASH_OUT, PROBE = range(7)
SHOP_SHARE: Final = 2  # every second account sells
ACCOUNTS_MAX: Final = 1_000_000
ROWS_MAX: Final = 20_000_000  # some 1 GB of columns while it is made
FAVOURITES: Final = 12  # shops a person pays; regular customers make a shop's clean days
NIGHT_HOURS: Final = 6  # nobody pays before six

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TownRules:
    """How frauds go about it. Pairs are [least, end); `_per_myriad`: begun per 10,000 accounts and day.

    The defaults make some 3 % of rows frauds; other rules show what a model makes of frauds it never saw.
    """

    spells_per_myriad: int = 10
    spell_days: tuple[int, int] = (3, 15)
    spell_ratio: tuple[int, int] = (3, 8)
    spell_fifths: int = 2  # of a spell's payments are the thief's
    shops_per_myriad: int = 4
    shop_days: tuple[int, int] = (14, 31)
    bursts_per_myriad: int = 4
    burst_payments: tuple[int, int] = (8, 16)
    burst_ms: int = 60_000
    mules_per_myriad: int = 3
    mule_people: tuple[int, int] = (3, 6)
    mule_pace_ms: tuple[int, int] = (60_000, 1_200_000)
    cash_outs_per_myriad: int = 6
    cash_out_ratio: tuple[int, int] = (6, 20)
    probes_per_myriad: int = 3


TOWN: Final = TownRules()


@dataclass(frozen=True, slots=True)
class Workload:
    """A labelled trace and, for people who look into it, each row's pattern: uint8[n] into `patterns`."""

    trace: Trace
    pattern: NDArray[np.uint8]
    patterns: tuple[str, ...] = PATTERNS


def generate_workload(
    seed: int, accounts: int = 400, days: int = 30, per_day: int = 400, rules: TownRules = TOWN
) -> Workload:
    """`days` days of about `per_day` payments among `accounts` accounts, frauds among them.

    Raises Rejected for sizes that make no workload.
    """
    _check_sizes(seed, accounts, days, per_day)
    random = np.random.Generator(np.random.PCG64(seed))
    town = _Town(random, accounts, per_day, rules)
    rows = [town.pay_day(day) for day in range(days)]
    sender, receiver, amount, time, pattern = (np.concatenate(column) for column in zip(*rows, strict=True))
    pattern = pattern.copy()
    _capture_shops(random, town, days, receiver, time, pattern)
    _steal_cards(random, town, days, sender, amount, time, pattern)
    extra = _insert_frauds(random, town, days)
    sender, receiver, amount, time = (
        np.concatenate((column, extra[i])) for i, column in enumerate((sender, receiver, amount, time))
    )
    pattern = np.concatenate((pattern, extra[4]))
    order = np.argsort(time, kind="stable")
    width = len(str(accounts - 1))
    trace = Trace(
        time_ms=time[order],
        sender=sender[order],
        receiver=receiver[order],
        amount=amount[order],
        fraud=(pattern[order] != CLEAN).astype(np.uint8),
        names=tuple(f"{'shop' if i % SHOP_SHARE else 'person'}-{i:0{width}}" for i in range(accounts)),
    )
    return Workload(trace, pattern[order].astype(np.uint8))


def _check_sizes(seed: int, accounts: int, days: int, per_day: int) -> None:
    for name, value, low, high in (
        ("seed", seed, 0, 2**63),
        ("accounts", accounts, 20, ACCOUNTS_MAX),
        ("days", days, 1, 3650),
        ("per_day", per_day, 1, ROWS_MAX),
    ):
        if not low <= value <= high:
            raise Rejected(f"{value} is out of range", field=name, mend=f"use {low} to {high}")
    if days * per_day > ROWS_MAX:
        raise Rejected(f"more than {ROWS_MAX} rows", field="days * per_day", mend="ask for less")


class _Town:
    """Who pays whom, how often and how much. Even accounts are people; odd ones sell, and pay rarely."""

    def __init__(
        self, random: np.random.Generator, accounts: int, per_day: int, rules: TownRules = TOWN
    ) -> None:
        self.random = random
        self.rules = rules
        self.accounts = accounts
        self.people = np.arange(0, accounts, SHOP_SHARE)
        self.shops = np.arange(1, accounts, SHOP_SHARE)
        self.per_day = per_day
        # Levels from 4.00 to 128.00, evenly over the octaves; a shop's turnover varies eightfold.
        octave = random.integers(0, 5, accounts)
        self.level = (400 << octave) * random.integers(64, 128, accounts) // 64
        self.spread = random.integers(2, 8, accounts)
        activity = random.integers(1, 9, len(self.people))
        self.payers = np.repeat(self.people, activity)
        busy = np.repeat(self.shops, random.integers(1, 9, len(self.shops)))
        self.favourites = busy[random.integers(0, len(busy), (accounts, FAVOURITES))]

    def draw_amounts(self, sender: Int64s) -> Int64s:
        """Around each sender's level, with its own spread: three dice, a sixth to six tenths either way.

        Honest people buy small things, too, and sometimes large ones: one payment in sixteen each.
        """
        n = len(sender)
        dice = self.random.integers(0, 40, (n, 3)).sum(axis=1) - 58  # mean 1/2, deviation 20
        level = self.level[sender]
        amounts = level + level * self.spread[sender] * dice // 232
        kind = self.random.integers(0, 16, n)
        small = level * self.random.integers(1, 16, n) // 64
        large = level * self.random.integers(6, 14, n) // 4  # 1.5 to 3.25 times the level
        amounts = np.where(kind == 0, small, np.where(kind == 1, large, amounts))
        least: Int64s = np.maximum(amounts, np.maximum(level // 32, 1))
        return least

    def pay_day(self, day: int) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s]:
        """sender, receiver, amount, time, pattern of one day, in time order."""
        n = self.per_day
        sender = self.payers[self.random.integers(0, len(self.payers), n)]
        receiver = self.favourites[sender, self.random.integers(0, FAVOURITES, n)]
        friends = self.random.integers(0, 20, n) == 0  # one payment in twenty goes to another person
        receiver = np.where(friends, self.people[self.random.integers(0, len(self.people), n)], receiver)
        amount = self.draw_amounts(sender)
        rare = self.random.integers(0, 400, n) == 0  # and once a year a car
        amount = np.where(rare, amount * self.random.integers(2, 7, n), amount)
        first, last = NIGHT_HOURS * DAY_MS // 24, DAY_MS - 1
        time = np.sort(self.random.integers(first, last, n)) + (START_DAY + day) * DAY_MS
        return sender, receiver, amount, time, np.full(n, CLEAN)

    def count_frauds(self, per_myriad: int) -> int:
        """How many of a kind begin today: the mean, its fraction decided by a draw."""
        whole, rest = divmod(self.accounts * per_myriad, 10_000)
        return whole + int(self.random.integers(0, 10_000) < rest)


def _capture_shops(
    random: np.random.Generator, town: _Town, days: int, receiver: Int64s, time: Int64s, pattern: Int64s
) -> None:
    for day in range(days):
        for _ in range(town.count_frauds(town.rules.shops_per_myriad)):
            shop = town.shops[random.integers(0, len(town.shops))]
            start = (START_DAY + day) * DAY_MS
            end = start + int(random.integers(*town.rules.shop_days)) * DAY_MS
            pattern[(receiver == shop) & (time >= start) & (time < end)] = SHOP


def _steal_cards(
    random: np.random.Generator,
    town: _Town,
    days: int,
    sender: Int64s,
    amount: Int64s,
    time: Int64s,
    pattern: Int64s,
) -> None:
    for day in range(days):
        for _ in range(town.count_frauds(town.rules.spells_per_myriad)):
            person = town.people[random.integers(0, len(town.people))]
            start = (START_DAY + day) * DAY_MS
            end = start + int(random.integers(*town.rules.spell_days)) * DAY_MS
            rows = np.flatnonzero((sender == person) & (time >= start) & (time < end))
            rows = rows[random.integers(0, 5, len(rows)) < town.rules.spell_fifths]
            amount[rows] *= random.integers(*town.rules.spell_ratio, len(rows))
            pattern[rows] = SPELL


def _insert_frauds(
    random: np.random.Generator, town: _Town, days: int
) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s]:
    """The rows of the frauds that add payments of their own."""
    rows: list[tuple[int, int, int, int, int]] = []

    def draw(low: int, high: int) -> int:
        return int(random.integers(low, high))

    def draw_person() -> int:
        return int(town.people[draw(0, len(town.people))])

    def draw_shop() -> int:
        return int(town.shops[draw(0, len(town.shops))])

    for day in range(days):
        dawn = (START_DAY + day) * DAY_MS
        latest = DAY_MS - DAY_MS // 12  # so that a fraud ends on the day it begins
        for _ in range(town.count_frauds(town.rules.bursts_per_myriad)):
            victim, time = draw_person(), dawn + draw(0, latest)
            for _ in range(draw(*town.rules.burst_payments)):
                amount = int(town.level[victim]) * draw(4, 9) // 4
                rows.append((victim, draw_shop(), amount, time + draw(0, town.rules.burst_ms), BURST))
        for _ in range(town.count_frauds(town.rules.mules_per_myriad)):
            chain = [draw_person() for _ in range(draw(*town.rules.mule_people))]
            amount, time = int(town.level[chain[0]]) * draw(8, 25), dawn + draw(0, latest)
            for giver, taker in pairwise(chain):
                rows.append((giver, taker, amount, time, MULE))
                amount -= amount * draw(3, 10) // 100  # each mule keeps a cut
                time += draw(*town.rules.mule_pace_ms)
        for _ in range(town.count_frauds(town.rules.cash_outs_per_myriad)):
            victim = draw_person()
            amount = int(town.level[victim]) * draw(*town.rules.cash_out_ratio)
            rows.append((victim, draw_shop(), amount, dawn + draw(0, latest), CASH_OUT))
        for _ in range(town.count_frauds(town.rules.probes_per_myriad)):
            victim, shop, time = draw_person(), draw_shop(), dawn + draw(0, latest)
            for _ in range(draw(2, 5)):
                rows.append((victim, shop, draw(1, 100), time, PROBE))
                time += draw(10_000, 300_000)
            rows.append((victim, shop, int(town.level[victim]) * draw(4, 12), time, PROBE))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return columns[0], columns[1], columns[2], columns[3], columns[4]
