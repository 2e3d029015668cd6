"""What a fraudster has to work with: stolen accounts, a calendar, as many accounts of its own as it opens.

A strategy is a generator: it yields waves of payments and is sent back what became of each, so that it can
adapt. Invariant: it sees what any client sees (the answers to its own payments), and its victims' habits; no
state, no labels. Leaves out: how a wave is judged (world.py) and counted (campaign.py).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000

# What becomes of a payment; a flagged one goes through, and is marked.
ACCEPTED: Final = 0
FLAGGED: Final = 1
REFUSED: Final = 2


@dataclass(frozen=True, slots=True)
class Payment:
    """is_theft: its sender is a victim, who reports it once the label delay is over. is_home: with it the money
    is where the fraudster wants it; only such payments count. timestamp_ms: None: the wave's time."""

    sender: int
    receiver: int
    amount: int
    is_theft: bool = True
    is_home: bool = True
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Wave:
    """Payments handed in together at one time: they stand in one block, in this order."""

    time_ms: int
    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True)
class Victim:
    """A stolen account, its owner's mean payment of the last weeks, and how much the fraudster wants of it."""

    account: int
    mean: int
    goal: int


@dataclass(slots=True)
class Scene:
    """start_ms: midnight before the campaign; days: how long it may last. age_ms: how far a timestamp may lie
    behind its block."""

    start_ms: int
    days: int
    victims: tuple[Victim, ...]
    age_ms: int
    random: np.random.Generator
    first_own_account: int
    own_accounts_max: int
    opened: int = field(default=0)

    def open_account(self) -> int:
        """A new account of the fraudster's own, nobody has seen before."""
        assert self.opened < self.own_accounts_max, "a strategy opens accounts without end"
        self.opened += 1
        return self.first_own_account + self.opened - 1

    def at(self, day: int, hour: int = 12, minute: int = 0) -> int:
        """A time of the campaign."""
        return self.start_ms + day * DAY_MS + hour * HOUR_MS + minute * MINUTE_MS

    def schedule(self, first_day: int = 0) -> list[tuple[int, Victim]]:
        """One victim after the other, evenly over the days from `first_day` on: (day, victim)."""
        days = max(1, self.days - first_day)
        return [
            (first_day + number * days // len(self.victims), victim)
            for number, victim in enumerate(self.victims)
        ]


Attack = Generator[Wave, Sequence[int], None]


class Strategy(Protocol):
    """One way to go about it. `name` for tables, `words` for people."""

    name: str
    words: str

    def attack(self, scene: Scene) -> Attack:
        """Waves in order of time; each `yield` is answered with one fate per payment."""
        ...


def divide(amount: int, parts: int) -> list[int]:
    """`parts` integers that add up to `amount`, as equal as can be; fewer if there is less to divide."""
    parts = max(1, min(parts, amount))
    return [amount * (n + 1) // parts - amount * n // parts for n in range(parts)]
