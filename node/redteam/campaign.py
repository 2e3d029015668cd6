"""Campaigns: every strategy against the same towns, and what each brought home.

One town a seed lives its history once; each strategy then goes on from there, against the same victims, for
the same goals. Invariant: same options, same figures. An attempt is one victim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Final

import numpy as np

from consensus.codec import check_int
from consensus.errors import Rejected
from consensus.ledger.judging import Seat
from consensus.ledger.state import ROW_FIXED_BYTES
from consensus.parameters import DAY_MS, Parameters
from ml.synthetic import CLEAN, Workload, generate_workload
from node.redteam.scene import FLAGGED, REFUSED, Payment, Scene, Strategy, Victim, Wave
from node.redteam.strategies import NAIVE
from node.redteam.world import RedWorld

OWN_ACCOUNTS_MAX: Final = 4_096
PAYMENTS_MIN: Final = 8  # in a victim's history: of whom less is known nobody knows what is usual
VICTIMS_SALT: Final = 1_000_000_007  # keeps the draw of victims apart from those of the town

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """accounts, per_day: of the town. history_days before the campaign. goal_means: how many of its usual
    payments the fraudster wants of a victim. delay_days: until a victim's report comes."""

    accounts: int = 400
    per_day: int = 400
    history_days: int = 35
    days: int = 28
    victims: int = 12
    goal_means: int = 10
    delay_days: int = 7

    def __post_init__(self) -> None:
        for name, low, high in (
            ("accounts", 40, 100_000),
            ("per_day", 1, 100_000),
            ("history_days", 1, 365),
            ("days", 15, 365),
            ("victims", 1, 1_000),
            ("goal_means", 1, 10_000),
            ("delay_days", 0, 365),
        ):
            check_int(getattr(self, name), f"--{name.replace('_', '-')}", low=low, high=high)


@dataclass(frozen=True, slots=True)
class Stage:
    """One seed's town at the evening of its history, and who will be robbed."""

    world: RedWorld
    victims: tuple[Victim, ...]
    start_ms: int
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one strategy did in one town. Money in smallest units; past: what came home; flagged: of it, what was marked when it was stolen; days from
    the first payment to the last that came home; honest_refused: of the town, in the campaign's time."""

    strategy: str
    seed: int
    goal: int
    past: int
    flagged: int
    refused: int
    victims_robbed: int
    payments: int
    payments_refused: int
    fees: int
    accounts: int
    days: float
    honest_refused: int
    waves: tuple[Wave, ...]

    @property
    def share(self) -> float:
        """Of the goal."""
        return self.past / self.goal


def prepare_stage(seats: tuple[Seat, ...], sizes: Sizes, seed: int) -> Stage:
    """A town with a history. Raises Rejected when too few of its people could be robbed."""
    workload = generate_workload(seed, sizes.accounts, sizes.history_days + sizes.days, sizes.per_day)
    trace = workload.trace
    start_ms = (int(trace.time_ms[0]) // DAY_MS + sizes.history_days) * DAY_MS
    rows = np.zeros((sizes.accounts + OWN_ACCOUNTS_MAX, _get_row_bytes(seats)), dtype=np.uint8)
    world = RedWorld(seats, trace, rows, sizes.delay_days * DAY_MS)
    world.advance(start_ms - 1)
    return Stage(world, _choose_victims(workload, sizes, start_ms, seed), start_ms, seed)


def _get_row_bytes(seats: Sequence[Seat]) -> int:
    return max((seat.place.stop for seat in seats), default=0)


def _choose_victims(workload: Workload, sizes: Sizes, start_ms: int, seed: int) -> tuple[Victim, ...]:
    """People who paid often enough, and were not robbed before."""
    trace = workload.trace
    end = int(np.searchsorted(trace.time_ms, start_ms))
    sender, amount, pattern = trace.sender[:end], trace.amount[:end], workload.pattern[:end]
    counts = np.bincount(sender, minlength=sizes.accounts)
    robbed = np.bincount(sender[pattern != CLEAN], minlength=sizes.accounts)
    people = np.flatnonzero((counts >= PAYMENTS_MIN) & (robbed == 0) & (np.arange(len(counts)) % 2 == 0))
    if len(people) < sizes.victims:
        raise Rejected(
            f"only {len(people)} people of this town pay often enough",
            field="--victims",
            mend="rob fewer, or give the town more days or payments",
        )
    random = np.random.Generator(np.random.PCG64(seed + VICTIMS_SALT))
    chosen = random.choice(people, sizes.victims, replace=False)
    means = [int(amount[sender == account].sum()) // int(counts[account]) for account in chosen]
    return tuple(
        Victim(int(account), mean, sizes.goal_means * mean)
        for account, mean in zip(chosen, means, strict=True)
    )


def run_campaign(strategy: Strategy, stage: Stage, sizes: Sizes, parameters: Parameters) -> Result:
    """One strategy from the stage on; the stage stays as it was."""
    world = stage.world.fork()
    random = np.random.Generator(np.random.PCG64(stage.seed))
    scene = Scene(
        stage.start_ms,
        sizes.days,
        stage.victims,
        parameters.timestamp_age_ms_max,
        random,
        sizes.accounts,
        OWN_ACCOUNTS_MAX,
    )
    honest_before = world.honest_refused
    told: list[tuple[Wave, Payment, int]] = []
    waves: list[Wave] = []
    attack = strategy.attack(scene)
    wave = next(attack, None)
    while wave is not None:
        fates = world.submit(wave)
        waves.append(wave)
        told += [(wave, payment, fate) for payment, fate in zip(wave.payments, fates, strict=True)]
        try:
            wave = attack.send(fates)
        except StopIteration:
            wave = None
    world.advance(stage.start_ms + sizes.days * DAY_MS)
    result = _count(strategy, stage, scene, told, parameters, _get_row_bytes(world.seats))
    return Result(**result, honest_refused=world.honest_refused - honest_before, waves=tuple(waves))


def _count(
    strategy: Strategy,
    stage: Stage,
    scene: Scene,
    told: Sequence[tuple[Wave, Payment, int]],
    parameters: Parameters,
    module_bytes: int,
) -> dict[str, Any]:
    through = [(wave, payment, fate) for wave, payment, fate in told if fate != REFUSED]
    home = [(wave, payment, fate) for wave, payment, fate in through if payment.is_home]
    past = sum(payment.amount for _, payment, _ in home)
    account_fee = parameters.account_byte_fee_units * (ROW_FIXED_BYTES + module_bytes)
    first = min((wave.time_ms for wave, _, _ in told), default=0)
    last = max((wave.time_ms for wave, _, _ in home), default=first)
    return {
        "strategy": strategy.name,
        "seed": stage.seed,
        "goal": sum(victim.goal for victim in stage.victims),
        "past": past,
        "flagged": min(past, sum(p.amount for _, p, fate in through if p.is_theft and fate == FLAGGED)),
        "refused": sum(payment.amount for _, payment, fate in told if fate == REFUSED),
        "victims_robbed": len({payment.sender for _, payment, _ in through if payment.is_theft}),
        "payments": len(told),
        "payments_refused": len(told) - len(through),
        # What is refused is in no block and costs nothing.
        "fees": len(through) * parameters.fee_units_min + scene.opened * account_fee,
        "accounts": scene.opened,
        "days": (last - first) / DAY_MS,
    }


def run_all(
    strategies: Sequence[Strategy],
    seats: tuple[Seat, ...],
    sizes: Sizes,
    seeds: Sequence[int],
    parameters: Parameters,
    progress: Progress,
) -> list[Result]:
    """Every strategy in every seed's town."""
    results = []
    for done, seed in enumerate(seeds):
        progress("towns", done, len(seeds))
        stage = prepare_stage(seats, sizes, seed)
        results += [run_campaign(strategy, stage, sizes, parameters) for strategy in strategies]
    progress("towns", len(seeds), len(seeds))
    return results


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per strategy, in order of appearance: means over the seeds, and how far they spread (standard
    deviation). times_naive: what gets past, beside the naive strategy's; None without it."""
    names = list(dict.fromkeys(result.strategy for result in results))
    naive = fmean([result.share for result in results if result.strategy == NAIVE] or [0.0])
    rows = []
    for name in names:
        own = [result for result in results if result.strategy == name]
        rows.append(
            {
                "strategy": name,
                "seeds": [result.seed for result in own],
                "share_past": round(fmean(result.share for result in own), 4),
                "share_past_spread": round(pstdev([result.share for result in own]), 4),
                "times_naive": round(fmean(result.share for result in own) / naive, 2) if naive else None,
                "share_flagged": round(fmean(result.flagged / result.goal for result in own), 4),
                "share_refused": round(fmean(result.refused / result.goal for result in own), 4),
                **{
                    key: round(fmean(getattr(result, key) for result in own), 2)
                    for key in (
                        *("goal", "past", "flagged", "refused", "victims_robbed", "payments"),
                        *("payments_refused", "fees", "accounts", "days", "honest_refused"),
                    )
                },
            }
        )
    return rows
