"""The fraudsters' strategies, each a small class; the naive one is what the others are measured against.

All want the same: some multiple of what a victim usually pays, from every victim. None may look into the
state; the ones that adapt go by the answers to their own payments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from node.redteam.scene import MINUTE_MS, REFUSED, Attack, Payment, Scene, Strategy, Victim, Wave, divide

NAIVE: Final = "naive"
PARTS: Final = 10  # a goal in as many parts: each about one usual payment
HOPS: Final = 3
WARM_DAYS: Final = 14
FRIENDS: Final = 3  # who pay the account that is warmed up


class Naive:
    name = NAIVE
    words = "all of it at once, every victim to one account"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            yield Wave(scene.at(day), (Payment(victim.account, collector, victim.goal),))


class Splitting:
    name = "splitting"
    words = "tries the whole, halves what is refused until it goes through, then goes on in such parts"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            part, left, minute = victim.goal, victim.goal, 0
            while left and part > victim.mean // 8:
                part = min(part, left)
                time = scene.at(day, minute=minute)
                (fate,) = yield Wave(time, (Payment(victim.account, collector, part),))
                if fate == REFUSED:
                    part //= 2
                else:
                    left -= part
                minute += 3


class SlowDrip:
    name = "slow drip"
    words = "a part a day, of about half a usual payment, to one account"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        yield from _drip(scene, lambda: collector)


class Patient:
    name = "drip and rotation"
    words = "a part a day, each to a new account"

    def attack(self, scene: Scene) -> Attack:
        yield from _drip(scene, scene.open_account)


def _drip(scene: Scene, choose_receiver: Callable[[], int]) -> Attack:
    plans = [(victim, divide(victim.goal, scene.days)) for victim in scene.victims]
    for day in range(scene.days):
        payments = [
            Payment(v.account, choose_receiver(), parts[day]) for v, parts in plans if day < len(parts)
        ]
        yield Wave(scene.at(day, 9 + int(scene.random.integers(0, 12))), tuple(payments))


class MuleChain:
    name = "mule chain"
    words = f"all at once to a new mule, passed on {HOPS} times within the hour"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            chain = [victim.account, *(scene.open_account() for _ in range(HOPS)), collector]
            for hop in range(len(chain) - 1):
                is_last = hop == len(chain) - 2
                payment = Payment(chain[hop], chain[hop + 1], victim.goal, hop == 0, is_last)
                (fate,) = yield Wave(scene.at(day, minute=hop * 15), (payment,))
                if fate == REFUSED:
                    break  # what never left cannot be passed on; what is stuck at a mule is lost


class WarmUp:
    name = "warm-up"
    words = f"its account is paid by friends for {WARM_DAYS} days, then as the naive one"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        friends = [scene.open_account() for _ in range(FRIENDS)]
        usual = sum(victim.mean for victim in scene.victims) // len(scene.victims)
        for day in range(WARM_DAYS):
            amounts = scene.random.integers(usual // 2, usual + usual // 2 + 1, FRIENDS).tolist()
            pairs = zip(friends, amounts, strict=True)
            yield Wave(scene.at(day, 10), tuple(Payment(f, collector, a, False, False) for f, a in pairs))
        for day, victim in scene.schedule(WARM_DAYS):
            yield Wave(scene.at(day), (Payment(victim.account, collector, victim.goal),))


class Burst:
    name = "burst in a block"
    words = f"{PARTS} parts in one block, so that none is seen before the others"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            parts = divide(victim.goal, PARTS)
            yield Wave(scene.at(day), tuple(Payment(victim.account, collector, part) for part in parts))


class Apart:
    name = "an hour apart"
    words = f"{PARTS} parts over an hour about midnight, to one account: what dating back pretends"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            for n, part in enumerate(divide(victim.goal, PARTS)):
                yield Wave(scene.at(day, 23, 26 + 6 * n), (Payment(victim.account, collector, part),))


class Timestamps:
    name = "timestamps"
    words = f"{PARTS} parts just after midnight, dated back as far as the chain allows"

    def attack(self, scene: Scene) -> Attack:
        collector = scene.open_account()
        for day, victim in scene.schedule():
            now = scene.at(day, 0, 20)
            parts = divide(victim.goal, PARTS)
            # From the oldest allowed to now, so that the parts lie on two days and in as many spans as can be.
            dates = [now - scene.age_ms * (len(parts) - 1 - n) // len(parts) for n in range(len(parts))]
            yield Wave(now, _date(victim, collector, parts, dates))


def _date(victim: Victim, collector: int, parts: Sequence[int], dates: Sequence[int]) -> tuple[Payment, ...]:
    pairs = zip(parts, dates, strict=True)
    return tuple(Payment(victim.account, collector, part, timestamp_ms=date) for part, date in pairs)


class Rotation:
    name = "rotation"
    words = f"{PARTS} parts, some minutes apart, each to a new account"

    def attack(self, scene: Scene) -> Attack:
        for day, victim in scene.schedule():
            time = scene.at(day)
            for part in divide(victim.goal, PARTS):
                yield Wave(time, (Payment(victim.account, scene.open_account(), part),))
                time += int(scene.random.integers(1, 12)) * MINUTE_MS


STRATEGIES: Final[tuple[Strategy, ...]] = (
    Naive(),
    Splitting(),
    SlowDrip(),
    MuleChain(),
    WarmUp(),
    Burst(),
    Apart(),
    Timestamps(),
    Rotation(),
    Patient(),
)
