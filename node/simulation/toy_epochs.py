"""Who validates in each epoch of the engine world: stakes drift, somebody joins, somebody leaves.

The set of epoch e + 2 is drawn when the boundary block of e is committed, from that block's hash and the set
before it: nodes with different chains would have different sets, and the checker would notice.

Invariant: villains keep their seats, and the faulty stay below a third of every set, as the configuration
promises; less than a third of the stake comes, and as much goes, from one set to the next.
Leaves out: why stakes change; `consensus/ledger/selection.py` has the real rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.bft.contract import BlockRef
from consensus.vote import ValidatorSet
from node.simulation import toys
from node.simulation.seats import get_stakes

STAKE_UNITS: Final = 100  # of what weighs 1 in the configuration: room to drift
DRIFT_PERCENT: Final = 5  # at most, an epoch
DRIFTED_MAX: Final = 2  # no stake grows beyond twice what it began with, or below half
JOIN_CHANCE: Final = 0.5
LEAVE_CHANCE: Final = 0.4
MEMBERS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class ToySet:
    """validators, and for each index the node that it is."""

    validators: ValidatorSet
    members: tuple[int, ...]

    def get_index(self, node: int) -> int | None:
        """The index of this node's validator, or None when it has no seat."""
        return self.members.index(node) if node in self.members else None


def make_set(stakes: dict[int, int]) -> ToySet:
    """The set of these nodes, by rising number."""
    members = tuple(sorted(stakes))
    return ToySet(toys.make_members(members, tuple(stakes[node] for node in members)), members)


def draw_next(
    before: ToySet, seed: bytes, base: Sequence[int], is_fit: Callable[[dict[int, int]], bool]
) -> ToySet:
    """The set after `before`. base: every node's stake to begin with. is_fit: of stakes by node."""
    rng = random.Random(seed)
    stakes = get_stakes(before)
    for node, stake in stakes.items():
        drifted = stake * (100 + rng.randint(-DRIFT_PERCENT, DRIFT_PERCENT)) // 100
        stakes[node] = max(base[node] // DRIFTED_MAX, min(drifted, base[node] * DRIFTED_MAX))
    stakes = stakes if is_fit(stakes) else get_stakes(before)
    outside = [node for node in range(len(base)) if node not in stakes]
    if outside and rng.random() < JOIN_CHANCE:
        joined = rng.choice(outside)
        stakes = _choose(stakes, {**stakes, joined: base[joined]}, base[joined], is_fit)
    elif len(stakes) > MEMBERS_MIN and rng.random() < LEAVE_CHANCE:
        left = rng.choice(sorted(stakes))
        rest = {node: stake for node, stake in stakes.items() if node != left}
        stakes = _choose(stakes, rest, stakes[left], is_fit)
    return make_set(stakes)


def _choose(
    stakes: dict[int, int], changed: dict[int, int], moved: int, is_fit: Callable[[dict[int, int]], bool]
) -> dict[int, int]:
    return changed if is_fit(changed) and 3 * moved < sum(stakes.values()) else stakes


def make_genesis_ref(boundary: BlockRef, epoch: int) -> BlockRef:
    """As `messages.make_genesis_ref`, of a toy block."""
    return (
        BlockRef(boundary.hash, epoch, 0, boundary.height, 0, boundary.parent_hash, 0) if epoch else boundary
    )
