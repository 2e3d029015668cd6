"""Synthetic traces whose frauds go about it differently: what a model makes of what it never saw.

Two families, each with a base that the shipped model's training resembles and variants that change one
rule at a time. Seeds are not those of any training. Invariant: a variant is one trace, for good.
Leaves out: attackers who watch the model and adapt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ml.cards import CardRules, generate_cards
from ml.synthetic import TownRules, Workload, generate_workload

SEED: Final = 77_001
TOWN_ACCOUNTS: Final = 2_000
TOWN_DAYS: Final = 45
CUSTOMERS: Final = 1_500
CARD_DAYS: Final = 60


@dataclass(frozen=True, slots=True)
class Variant:
    """A named trace; `base` names the one it is compared with (its own name for a base)."""

    name: str
    base: str
    generate: Callable[[], Workload]


def _town(name: str, rules: TownRules = TownRules()) -> Variant:  # noqa: B008  frozen
    return Variant(
        name,
        "town",
        lambda: generate_workload(SEED, TOWN_ACCOUNTS, TOWN_DAYS, TOWN_ACCOUNTS, rules),
    )


def _cards(name: str, rules: CardRules = CardRules()) -> Variant:  # noqa: B008  frozen
    return Variant(name, "cards", lambda: generate_cards(SEED, CUSTOMERS, CARD_DAYS, rules))


VARIANTS: Final = (
    _town("town"),
    _town("town: spells of 20 to 30 days", TownRules(spell_days=(20, 31))),
    _town("town: spells at 2 times the amount", TownRules(spell_ratio=(2, 3))),
    _town("town: bursts over an hour", TownRules(burst_ms=3_600_000)),
    _town("town: mule chains of 8 to 12 within a day", TownRules(mule_people=(8, 13), mule_pace_ms=(60_000, 7_200_000))),
    _town("town: shops captured for 5 days", TownRules(shop_days=(5, 6))),
    _cards("cards"),
    _cards("cards: spells of 5 days", CardRules(spell_days=(5, 5), spells_per_myriad=16)),
    _cards("cards: spells of 30 days", CardRules(spell_days=(30, 30))),
    _cards("cards: spells at 3 times the amount", CardRules(spell_ratio=(3, 3))),
    _cards("cards: spells at 2 times the amount", CardRules(spell_ratio=(2, 2))),
    _cards("cards: terminals for 10 days", CardRules(terminal_days=(10, 10), terminals_per_myriad=10)),
    _cards("cards: terminals for 45 days", CardRules(terminal_days=(45, 45))),
    _cards("cards: no fraud by its amount alone", CardRules(large_cents=0)),
    _cards("cards: amounts in another unit, 1 to 8", CardRules(mean_cents=(4_000, 80_000), large_cents=176_000)),
)  # fmt: skip
