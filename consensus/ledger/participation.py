"""Participation: who signed the blocks of the running epoch, and what each has earned by it.

One record for all validators of the epoch: a block changes it once, whatever their number. Counted from
the parent's certificate that a block carries and its header binds.

Invariant: only signatures that a header commits to are counted, each validator once a block at most. The
first block of an epoch carries no certificate: it counts nobody.
Leaves out: what follows from it at the epoch's end (rewards.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from consensus.ledger import records as rec
from consensus.ledger.records import Records

_KEY = rec.NAMESPACE_STAKING + rec.STAKING_PARTICIPATION


@dataclass(frozen=True, slots=True)
class Participation:
    """blocks: how many were counted. signed, rewards: by index of the epoch's set: blocks, units."""

    blocks: int
    signed: tuple[int, ...]
    rewards: tuple[int, ...]

    @property
    def reward_units(self) -> int:
        """What all have earned and nobody holds yet."""
        return sum(self.rewards)

    def add(
        self, present: Sequence[int], rewards: Sequence[tuple[int, int]], *, is_counted: bool
    ) -> Participation:
        """With one more block: these were present; (index, units) were earned."""
        signed, earned = list(self.signed), list(self.rewards)
        if is_counted:
            for index in present:
                signed[index] += 1
        for index, units in rewards:
            earned[index] += units
        return Participation(self.blocks + is_counted, tuple(signed), tuple(earned))

    def compute_share_bp(self, index: int) -> int | None:
        """In how many of 10,000 blocks this validator was present; None when none were counted."""
        return self.signed[index] * 10_000 // self.blocks if self.blocks else None


def create_participation(count: int) -> Participation:
    return Participation(0, (0,) * count, (0,) * count)


def get_participation(records: Records) -> Participation:
    """Of the running epoch; of no validators before its first block."""
    value = records.get(_KEY)
    if value is None:
        return create_participation(0)
    blocks, *numbers = struct.unpack(f">{len(value) // 8}Q", value)
    half = len(numbers) // 2
    return Participation(blocks, tuple(numbers[:half]), tuple(numbers[half:]))


def put_participation(records: Records, participation: Participation) -> Records:
    numbers = (participation.blocks, *participation.signed, *participation.rewards)
    return records.put(_KEY, struct.pack(f">{len(numbers)}Q", *numbers))


def forget_participation(records: Records) -> Records:
    return records.remove(_KEY)
