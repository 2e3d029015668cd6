"""The nemesis's plan: sixty faults drawn from a seed, and what mends them, before anything runs.

The deck is the same for every seed; the order, the victims and the moments are not. A plan is a pure
function of its seed.

Invariant: never more than FAULTS_MAX faults at once, each of one validator or of one link, and no two of the
same node, so that the others are a quorum and must go on; except within an outage, which ends in its action.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.integration.faulty_network import LOSSES
from tests.integration.nemesis import (
    NODES,
    Action,
    Cut,
    DeleteStore,
    Freeze,
    Kill,
    KillAll,
    KillMany,
    LoseJournal,
    Nudge,
    Restart,
    Siege,
    Skew,
    Split,
    TearJournal,
)

FAULTS_MAX: Final = 2  # f of seven: the other five are exactly a quorum
TRANSFERS: Final = (0, 1, 3, 10, 30)  # final after a fault, before the next act; 30 outlast a timeout
TRANSFERS_MENDED: Final = (0, 0, 1, 3)  # after a mend
OUTAGE_ROUNDS_MAX: Final = 12  # of the load, while no quorum is there
NUDGES_MS: Final = (-4_000, -900, 900, 4_000)  # two of them differ by less than the drift that a chain allows
SKEWS_MS: Final = (-7_200_000, -60_000, -15_000, 15_000, 60_000, 7_200_000)  # beyond that drift of 10 s


@dataclass(frozen=True, slots=True)
class Step:
    """An action, and how many more transfers must become final before the next one. is_mend: ends another."""

    action: Action
    transfers: int
    is_mend: bool


Draw = Callable[[random.Random, Sequence[int]], Action]  # the second: nodes without a fault


def _draw_link(rng: random.Random, free: Sequence[int]) -> Action:
    one, other = rng.sample(free, 2)
    ways = [((one, other),), ((one, other), (other, one))]
    return Cut((one, other), rng.choice(ways))


def _draw_isolation(rng: random.Random, free: Sequence[int]) -> Action:
    node = rng.choice(free)
    out = tuple((node, other) for other in range(NODES) if other != node)
    back = tuple((other, node) for node, other in out)
    return Cut((node,), rng.choice([out, back, out + back]))


def _draw_loss(rng: random.Random, free: Sequence[int]) -> Action:
    how = rng.choice(LOSSES)
    return LoseJournal(rng.choice(free), how, with_store=rng.random() < 0.3, again=rng.random() < 0.3)


DECK: Final[tuple[tuple[int, Draw], ...]] = (
    (7, lambda rng, free: Kill(rng.choice(free))),
    (7, lambda rng, free: Freeze(rng.choice(free))),
    (6, lambda rng, free: Restart(rng.choice(free), rng.random() < 0.5)),
    (6, _draw_link),
    (6, _draw_isolation),
    (5, lambda rng, free: Skew(rng.choice(free), rng.choice(SKEWS_MS))),
    (3, lambda rng, free: Nudge(rng.choice(free), rng.choice(NUDGES_MS))),
    (4, lambda rng, free: TearJournal(rng.choice(free), rng.random(), rng.random() < 0.5)),
    (4, _draw_loss),
    (3, lambda rng, free: DeleteStore(rng.choice(free), rng.randrange(3))),
    (2, lambda rng, free: KillMany(tuple(rng.sample(free, 3)), rng.randrange(OUTAGE_ROUNDS_MAX))),
    (3, lambda rng, free: Siege(tuple(rng.sample(free, 3)), 1 + rng.randrange(OUTAGE_ROUNDS_MAX))),
    (2, lambda rng, free: Split(tuple(rng.sample(range(NODES), 3)), 1 + rng.randrange(OUTAGE_ROUNDS_MAX))),
    (2, lambda rng, free: KillAll(tuple(rng.sample(range(NODES), rng.choice((0, 3, NODES)))))),
)
ACTIONS: Final = sum(count for count, _ in DECK)


def draw_plan(seed: int) -> list[Step]:
    """ACTIONS faults in an order of their own, with what mends them; at the end all is mended."""
    rng = random.Random(seed)
    deck = [draw for count, draw in DECK for _ in range(count)]
    rng.shuffle(deck)
    steps: list[Step] = []
    faults: list[Action] = []

    def mend(fault: Action) -> None:
        faults.remove(fault)
        assert fault.mend is not None
        steps.append(Step(fault.mend, rng.choice(TRANSFERS_MENDED), is_mend=True))

    for draw in deck:
        while len(faults) >= FAULTS_MAX or (faults and rng.random() < 0.1):
            mend(faults[0] if rng.random() < 0.6 else rng.choice(faults))  # so that most of them last
        taken = {node for fault in faults for node in fault.nodes}
        action = draw(rng, [node for node in range(NODES) if node not in taken])
        steps.append(Step(action, rng.choice(TRANSFERS), is_mend=False))
        if isinstance(action, KillAll):
            faults = [fault for fault in faults if not isinstance(fault, (Kill, Freeze))]
        if action.mend is not None:
            faults.append(action)
    for fault in list(faults):
        mend(fault)
    return steps
