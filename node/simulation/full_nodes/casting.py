"""Who is what in a run with epochs, so that its sets keep the promise: the faulty hold less than a third.

A steady run: nobody is jailed and no honest validator of genesis leaves, so that sets only grow, but for
who is slashed; the faulty hold what the config says at most. A restless run: absence is jailed, and honest
validators leave. There one honest validator, the anchor, holds more than a third of all that can ever
sit: no quorum is without it, so it is never called absent, and it stays. Those that may be faulty are
dwarfs, who together hold less than half of the anchor: less than a third even when all others are gone.

Invariant: `Cast.check` holds of every epoch's set. Leaves out: who is down for a time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from node.simulation.config import SimulationConfig

NOBODY: Final = -1
DWARF: Final = 1
FULL: Final = 2
ANCHOR_PARTS: Final = (7, 10)  # of what all others may hold: delegations may add two fifths to it


@dataclass(frozen=True, slots=True)
class Cast:
    """stakes: of the validators of genesis, in units of the minimum. faulty: who may lie or lose what it said.

    joiners: nodes that come from outside. leaver: who unbonds wholly, and comes again. anchor: see above.
    """

    stakes: tuple[int, ...]
    joiners: tuple[int, ...]
    joiner_units: int
    leaver: int
    is_restless: bool
    faulty: frozenset[int]
    anchor: int = NOBODY

    def is_sound(self, weights: dict[int, int]) -> bool:
        """Whether a set, node by node, keeps the promise, the faulty being `faulty`."""
        total, bad = sum(weights.values()), sum(weights.get(index, 0) for index in self.faulty)
        has_anchor = self.anchor == NOBODY or 3 * weights.get(self.anchor, 0) > total
        return 3 * bad < total and has_anchor


def cast_run(config: SimulationConfig, seed: int, villains: frozenset[int]) -> Cast:
    """Wholly determined by its arguments."""
    rng = random.Random(f"{seed}/cast")
    joiners = tuple(range(config.nodes, config.node_count))
    can_rest = config.stakes or config.absent or config.is_beyond_promise or config.nodes < 2
    wants_rest = not config.epoch_blocks or rng.random() >= config.unrest
    dwarfs = villains or frozenset({rng.randrange(config.nodes)})
    others = [index for index in range(config.nodes) if index not in dwarfs]
    if can_rest or wants_rest or not others:
        leaver = joiners[0] if joiners else NOBODY
        return Cast(config.all_stakes, joiners, min(config.all_stakes), leaver, False, villains)
    anchor = others[0]
    stakes = [DWARF if index in dwarfs else FULL for index in range(config.nodes)]
    most = sum(stakes) - FULL + FULL * len(joiners)
    parts, whole = ANCHOR_PARTS
    stakes[anchor] = max(2 * DWARF * len(dwarfs) + 1, -(-most * parts // whole))
    leaver = others[1 + rng.randrange(len(others) - 1)] if len(others) > 1 else NOBODY
    return Cast(tuple(stakes), joiners, FULL, leaver, True, dwarfs, anchor)
