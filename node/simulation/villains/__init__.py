"""Villains: they wrap an honest engine and rewrite its effects. One class each, by name.

    assay simulate --villain equivocator --villain flooder@2

`NAME@INDEX` says which validator; without an index the seed chooses. To add one, see
docs/breaking-consensus.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from consensus.errors import Rejected
from node.simulation.villains.forgers import Flooder, Forger, Replayer
from node.simulation.villains.liars import InvalidProposer, LiarInSync, ParentSkipper
from node.simulation.villains.reluctant import (
    BodyWithholder,
    LateVoter,
    Nullifier,
    SelectiveSender,
    Silent,
    VoteWithholder,
)
from node.simulation.villains.two_faced import (
    DoubleIdentity,
    EquivocatingLeader,
    EquivocatingVoter,
    Equivocator,
)
from node.simulation.villains.villain import Means, Villain

VILLAINS: Final[dict[str, type[Villain]]] = {
    "equivocator": Equivocator,
    "equivocating-leader": EquivocatingLeader,
    "equivocating-voter": EquivocatingVoter,
    "double-identity": DoubleIdentity,
    "silent": Silent,
    "selective-sender": SelectiveSender,
    "nullifier": Nullifier,
    "vote-withholder": VoteWithholder,
    "late-voter": LateVoter,
    "body-withholder": BodyWithholder,
    "forger": Forger,
    "replayer": Replayer,
    "flooder": Flooder,
    "invalid-proposer": InvalidProposer,
    "parent-skipper": ParentSkipper,
    "liar-in-sync": LiarInSync,
}


def make_villain(name: str, means: Means) -> Villain:
    """A villain of this name. Raises Rejected."""
    return VILLAINS[parse_villain(name)[0]](means)


def parse_villain(text: str, names: Collection[str] = VILLAINS) -> tuple[str, int | None]:
    """ "flooder@2" -> ("flooder", 2); "flooder" -> ("flooder", None). Raises Rejected."""
    name, at, place = text.partition("@")
    if name not in names:
        raise Rejected(
            f'no villain is called "{name}"', field="--villain", mend=f"use one of {', '.join(names)}"
        )
    if at and not place.isdecimal():
        raise Rejected(f'"{place}" is not a validator', field="--villain", mend=f"use e.g. {name}@0")
    return name, int(place) if at else None


__all__ = ["VILLAINS", "DoubleIdentity", "Means", "Villain", "make_villain", "parse_villain"]
