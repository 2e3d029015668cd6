"""Bodies of proposals with ids in place of transactions (BIP 152), until the blocks are put together.

Invariant: bounded whatever is offered. Of one view and proposer the first body counts, as the first
proposal does, and a proposer that signs many displaces only its own.
Leaves out: getting what is missing, and what to do with a sender of a wrong body; the judge does both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from consensus import block as blocks
from consensus.block import Block, Header
from consensus.transaction import Transaction
from node.network.frames import CompactProposal

BODIES_MAX: Final = 128  # proposals waiting to be judged; half a megabyte each when full
BODIES_PROPOSER_MAX: Final = 8  # of one proposer; it leads a few views of those ahead of us


@dataclass(frozen=True, slots=True)
class CompactBody:
    """A proposal's body, and the node key of the peer that sent it."""

    header: Header
    frame: CompactProposal
    source: bytes

    def find_missing(
        self, answers: Mapping[int, Transaction], find: Callable[[bytes], Transaction | None]
    ) -> tuple[list[Transaction], tuple[int, ...]]:
        """The transactions that are here (by place in `answers`, or found by id), and places of the rest."""
        here: list[Transaction] = []
        missing: list[int] = []
        for place, transaction_id in enumerate(self.frame.ids):
            found = answers.get(place) or find(transaction_id)
            if found is None:
                missing.append(place)
            else:
                here.append(found)
        return here, tuple(missing)

    def assemble(self, transactions: list[Transaction]) -> Block:
        """The block, all its transactions given. Raises Rejected when the header commits to another body."""
        certificate = blocks.decode_parent_certificate(self.frame.parent_certificate)
        block = Block(self.header, tuple(transactions), self.frame.scores, self.frame.outcomes, certificate)
        blocks.check_body(block)
        return block


class CompactBodies:
    """By block hash."""

    def __init__(self) -> None:
        self._bodies: dict[bytes, CompactBody] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._bodies

    def get(self, block_hash: bytes) -> CompactBody | None:
        return self._bodies.get(block_hash)

    def offer(self, body: CompactBody) -> bool:
        """Keep it, perhaps in place of an older one; False when its proposer's view has one already."""
        header = body.header
        own = [key for key, kept in self._bodies.items() if kept.header.proposer == header.proposer]
        place = (header.epoch, header.view)
        if any((self._bodies[key].header.epoch, self._bodies[key].header.view) == place for key in own):
            return False
        if len(own) >= BODIES_PROPOSER_MAX:
            del self._bodies[own[0]]
        elif len(self._bodies) >= BODIES_MAX:
            del self._bodies[next(iter(self._bodies))]
        self._bodies[header.hash] = body
        return True

    def drop(self, block_hash: bytes) -> None:
        self._bodies.pop(block_hash, None)

    def prune(self, final: Header) -> None:
        """Forget what the final chain is past."""
        self._bodies = {
            key: body
            for key, body in self._bodies.items()
            if body.header.height > final.height
            and (body.header.epoch, body.header.view) > (final.epoch, final.view)
        }
