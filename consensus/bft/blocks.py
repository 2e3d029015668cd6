"""The blocks an engine knows above (and at) the last final view, and what was judged of them.

Invariant: VALID and INVALID are for good, NOT_YET is forgotten; a body that is missing is "not yet",
never "invalid" (consensus.md, rule 10). Memory: the leader's first proposal and the certified block of
each view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consensus.bft.contract import BlockRef, Judgement


@dataclass(slots=True)
class KnownBlock:
    """A block, its header's bytes, and where its judgement stands. Mutable, private to the engine."""

    ref: BlockRef
    payload: bytes
    is_asked: bool = False  # Judge was issued
    judgement: Judgement = Judgement.NOT_YET


class Blocks:
    """By hash."""

    def __init__(self, genesis: BlockRef) -> None:
        self._known = {genesis.hash: KnownBlock(genesis, b"", True, Judgement.VALID)}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownBlock]:
        return iter(self._known.values())

    def get(self, block_hash: bytes) -> KnownBlock | None:
        return self._known.get(block_hash)

    def add(self, ref: BlockRef, payload: bytes) -> KnownBlock:
        """Take a block in; one known already keeps its judgement."""
        known = self._known.get(ref.hash)
        if known is None:
            known = self._known[ref.hash] = KnownBlock(ref, payload)
        return known

    def is_valid(self, block_hash: bytes) -> bool:
        known = self._known.get(block_hash)
        return known is not None and known.judgement is Judgement.VALID

    def is_invalid(self, block_hash: bytes) -> bool:
        known = self._known.get(block_hash)
        return known is not None and known.judgement is Judgement.INVALID

    def prune(self, final_view: int, final_hash: bytes) -> None:
        """Forget what lies below the final block or beside it."""
        self._known = {
            block_hash: known
            for block_hash, known in self._known.items()
            if known.ref.view > final_view or block_hash == final_hash
        }
