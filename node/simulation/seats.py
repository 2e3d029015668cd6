"""Who validates in an epoch, and where views of different epochs stand in one row, for the checkers.

Leaves out: how a set comes about (`toy_epochs.py`, or the real ledger).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from consensus.vote import ValidatorSet

EPOCH_VIEWS: Final = 1_000_000  # more than an epoch has in any run


def compute_place(epoch: int, view: int) -> int:
    """Views of all epochs in one row: of epoch 0 the view itself."""
    return epoch * EPOCH_VIEWS + view


class Seats(Protocol):
    """Who validates in an epoch."""

    @property
    def validators(self) -> ValidatorSet: ...

    @property
    def members(self) -> Sequence[int]:
        """The node of each index."""
        ...


@dataclass(frozen=True, slots=True)
class AllNodes:
    """Validator i is node i."""

    validators: ValidatorSet

    @property
    def members(self) -> Sequence[int]:
        return range(len(self.validators))


def get_stakes(seats: Seats) -> dict[int, int]:
    """By node."""
    pairs = zip(seats.members, seats.validators.validators, strict=True)
    return {node: validator.stake for node, validator in pairs}


def is_same(one: Seats, other: Seats) -> bool:
    """Whether both hold the same validators, as the same nodes, in the same order."""
    return one.validators.digest == other.validators.digest and tuple(one.members) == tuple(other.members)
