"""Liars: villains at a node's network door. One class each, by name, as `node.simulation.villains` are.

    assay simulate --full-nodes --villain wrong-score --villain boaster@2

Behind the door an honest FullNode runs; what it sends and is asked is rewritten. To add one, see `liar.py`.
"""

from __future__ import annotations

from typing import Final

from consensus.errors import Rejected
from node.simulation.full_nodes.liars.branches import ForgedBranch
from node.simulation.full_nodes.liars.gossips import (
    BadSignatures,
    EmptyAnnouncer,
    Garbler,
    SelectiveGossiper,
)
from node.simulation.full_nodes.liars.liar import Frames, Liar, LiarMeans
from node.simulation.full_nodes.liars.proposers import (
    BadSignature,
    DoubledTransaction,
    EarlyBlock,
    InvalidProposer,
    LateBlock,
    OversizeBlock,
    RefusedIncluded,
    SwappedCertificate,
    WrongHead,
    WrongHeight,
    WrongParent,
    WrongScore,
    WrongStateRoot,
)
from node.simulation.full_nodes.liars.servers import (
    Boaster,
    ExchangedIds,
    SilentServer,
    TwoBodies,
    WrongBlocks,
)

LIARS: Final[dict[str, type[Liar]]] = {
    "wrong-score": WrongScore,
    "wrong-state-root": WrongStateRoot,
    "wrong-head": WrongHead,
    "refused-included": RefusedIncluded,
    "oversize-block": OversizeBlock,
    "wrong-parent": WrongParent,
    "wrong-height": WrongHeight,
    "early-block": EarlyBlock,
    "late-block": LateBlock,
    "swapped-certificate": SwappedCertificate,
    "bad-signature": BadSignature,
    "doubled-transaction": DoubledTransaction,
    "wrong-blocks": WrongBlocks,
    "boaster": Boaster,
    "silent-server": SilentServer,
    "exchanged-ids": ExchangedIds,
    "two-bodies": TwoBodies,
    "forged-branch": ForgedBranch,
    "bad-signatures": BadSignatures,
    "empty-announcer": EmptyAnnouncer,
    "selective-gossiper": SelectiveGossiper,
    "garbler": Garbler,
}


def make_liar(name: str, means: LiarMeans) -> Liar:
    """A liar of this name. Raises Rejected."""
    if name not in LIARS:
        raise Rejected(
            f'no liar is called "{name}"', field="--villain", mend=f"use one of {', '.join(LIARS)}"
        )
    return LIARS[name](means)


__all__ = ["LIARS", "Frames", "InvalidProposer", "Liar", "LiarMeans", "make_liar"]
