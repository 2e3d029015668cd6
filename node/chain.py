"""The chain as one node knows it: the final state, and the valid blocks above it.

Every valid block above the last final one is kept with its delta; a view of it is the final state
plus the deltas on the way. Finalising commits the deltas of one branch in order and forgets what
does not descend from it.

Invariant: only blocks that were executed and found valid enter; the final height never falls.
Leaves out: where blocks come from (judge, proposer, catch-up) and where they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.block import Block, Header
from consensus.errors import Fault
from consensus.ledger.state import Delta, State, View


@dataclass(frozen=True, slots=True)
class ValidBlock:
    """A block that was executed on its parent, and what it changes."""

    block: Block
    delta: Delta


class Chain:
    """Final state below, a small tree of valid blocks above."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._final_view = state.view()
        self._above: dict[bytes, ValidBlock] = {}  # by hash; a handful of views' worth
        self._views: dict[bytes, View] = {}  # of blocks in _above; made when first asked for

    @property
    def finalized(self) -> Header:
        """The header of the last final block."""
        return self._state.header

    @property
    def final_view(self) -> View:
        """The state after the last final block."""
        return self._final_view

    def get_head(self) -> Header:
        """The highest valid block: final, or above it (the later view wins a tie)."""
        headers = [entry.block.header for entry in self._above.values()]
        return max(headers, key=lambda header: (header.height, header.view), default=self.finalized)

    def get_block(self, block_hash: bytes) -> Block | None:
        """A valid block above the final one."""
        entry = self._above.get(block_hash)
        return None if entry is None else entry.block

    def get_header(self, block_hash: bytes) -> Header | None:
        """The header of the last final block or of a valid one above it."""
        if block_hash == self.finalized.hash:
            return self.finalized
        entry = self._above.get(block_hash)
        return None if entry is None else entry.block.header

    def get_view(self, block_hash: bytes) -> View | None:
        """The state after a block: the last final one, or a valid one above it. None when unknown."""
        if block_hash == self.finalized.hash:
            return self._final_view
        view = self._views.get(block_hash)
        if view is None:
            entry = self._above.get(block_hash)
            parent = None if entry is None else self.get_view(entry.block.header.parent_hash)
            if entry is None or parent is None:
                return None
            view = self._views[block_hash] = parent.extend(entry.delta)
        return view

    def get_branch(self, block_hash: bytes) -> tuple[ValidBlock, ...]:
        """The valid blocks from just above the final one to this one, oldest first."""
        branch = []
        while block_hash != self.finalized.hash:
            entry = self._above.get(block_hash)
            if entry is None:
                return ()
            branch.append(entry)
            block_hash = entry.block.header.parent_hash
        return tuple(reversed(branch))

    def add(self, block: Block, delta: Delta) -> None:
        """Take in a block that was executed on its parent's view."""
        if self.get_header(block.header.parent_hash) is None:
            raise Fault("a block was added whose parent is not in the chain", field="chain")
        self._above[block.hash] = ValidBlock(block, delta)

    def finalize(self, block_hash: bytes) -> tuple[Block, ...]:
        """Commit the branch that ends in this block; the blocks that became final, oldest first.

        Raises Fault unless the block is above the final one and its whole branch is here.
        """
        branch = self.get_branch(block_hash)
        if not branch:
            raise Fault(f"block 0x{block_hash.hex()} has no branch to the final block", field="chain")
        for entry in branch:
            self._state.commit(entry.delta)
        self._final_view = self._state.view()
        self._views.clear()
        self._forget_abandoned()
        return tuple(entry.block for entry in branch)

    def _forget_abandoned(self) -> None:
        # Oldest first, so that a descendant is looked at after its parent was kept or dropped.
        kept: dict[bytes, ValidBlock] = {}

        def order(entry: ValidBlock) -> tuple[int, int]:
            return entry.block.header.height, entry.block.header.view  # tails share their boundary's height

        for entry in sorted(self._above.values(), key=order):
            parent = entry.block.header.parent_hash
            if parent == self.finalized.hash or parent in kept:
                kept[entry.block.hash] = entry
        self._above = kept
