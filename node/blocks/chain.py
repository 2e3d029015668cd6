"""The chain as one node knows it: the final state, and the valid blocks above it.

Every valid block above the last final one is kept with its delta; a view of it is the final state
plus the deltas on the way. Finalising commits the deltas of one branch in order and forgets what
does not descend from it, tails above all: with the boundary block final their epoch is over.

Invariant: only blocks that were executed and found valid enter; the final height never falls. Views begin
at 1 in each epoch: only (epoch, view) together tell what came first.
Leaves out: where blocks come from (judge, proposer, catch-up) and where they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.bft.contract import BlockRef
from consensus.bft.messages import make_block_ref
from consensus.block import Block, Header, decode_header
from consensus.errors import Fault, NotYet
from consensus.ledger import epochs
from consensus.ledger.state import Delta, State, View
from consensus.vote import ValidatorSet


@dataclass(frozen=True, slots=True)
class ValidBlock:
    """A block that was executed on its parent, and what it changes."""

    block: Block
    delta: Delta


class Chain:
    """Final state below, a small tree of valid blocks above. epoch_blocks: genesis's."""

    def __init__(self, state: State, epoch_blocks: int = 0) -> None:
        self._state = state
        self.epoch_blocks = epoch_blocks
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
        """The highest valid block: final, or above it (the later view wins a tie). Tails are no higher."""
        headers = [entry.block.header for entry in self._above.values()]
        return max(headers, key=lambda header: (header.height, header.view), default=self.finalized)

    # --- epochs -------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch of the next block: with its boundary block final, an epoch is over."""
        return epochs.compute_epoch(self.finalized.height + 1, self.epoch_blocks)

    def is_past(self, epoch: int, view: int) -> bool:
        """Whether the final chain is past this view, so that what stands there is final or abandoned."""
        final = self.finalized
        return epoch < self.epoch or (epoch, view) <= (final.epoch, final.view)

    def find_validators(self, epoch: int) -> ValidatorSet | None:
        """The set of an epoch: of this one, the next, and those that evidence may still speak of."""
        found = self._final_view.find_set(epoch)
        return None if found is None else found.validators

    def read_block(self, payload: bytes) -> BlockRef:
        """A header's bytes as the engine of its epoch knows the block. Raises Rejected, or NotYet when that
        epoch's set is not known here."""
        header = decode_header(payload)
        found = self._final_view.find_set(header.epoch)
        if found is None:
            raise NotYet(f"{header.epoch}: its validators are not known here", field="header.epoch")
        return make_block_ref(header, found.index_by_key)

    # --- blocks -------------------------------------------------------------------------------------

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

        Raises Fault unless the block is above the final one, no tail, and its whole branch is here.
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
            header, parent = entry.block.header, entry.block.header.parent_hash
            if header.epoch < self.epoch:
                continue  # a tail: nothing is built on it any more
            if parent == self.finalized.hash or parent in kept:
                kept[entry.block.hash] = entry
        self._above = kept
