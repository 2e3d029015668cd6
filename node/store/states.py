"""States made again: from the nearest checkpoint, by executing the final blocks after it.

Used at start, and to answer about the past (`explain`). Checkpoints are taken from the running state: its
rows are copied at once, everything else in it is immutable, and a thread dumps and writes the copy.

Invariant: a state is returned only if every block on the way held when executed again; a checkpoint
that does not load is passed over, never trusted. Leaves out: signatures; these blocks were checked
before they were stored, and their file is checksummed (the audit checks them again).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from consensus.block import Block, Header
from consensus.errors import AssayError, Fault, Rejected
from consensus.ledger.records import Records
from consensus.ledger.rules import Rules
from consensus.ledger.snapshot import dump_state, load_state
from consensus.ledger.state import State
from consensus.merkle import CompactRange
from node.store.checkpoint import CheckpointFolder, CheckpointName

log = logging.getLogger("assay.store")

BLOCK_WORK: Final = 100  # executing a block costs about as much as that many transactions in it
CHECKPOINT_WORK_MIN: Final = (
    50_000  # a start re-executes a second's worth; an idle chain dumps every 500 blocks
)

Progress = Callable[[int, int], None]  # done, in all


@dataclass(frozen=True, slots=True)
class FrozenState:
    """What a dump reads of a State: a copy of its rows (260 MB for a million accounts), the rest shared."""

    header: Header
    rows: NDArray[np.uint8]
    row_bytes: int
    account_count: int
    records: Records
    history: CompactRange


class States:
    """Rebuilds states and writes checkpoints. `load_block` gives the final block of a height."""

    def __init__(
        self, rules: Rules, folder: CheckpointFolder, executor: Executor, load_block: Callable[[int], Block]
    ) -> None:
        self._rules = rules
        self._folder = folder
        self._executor = executor
        self._load_block = load_block
        self._future: Future[None] | None = None
        self._work = 0  # made final since the newest checkpoint

    def rebuild(self, height: int, progress: Progress | None = None, *, counts: bool = False) -> State:
        """The state after the final block of this height. Raises Fault when a stored block does not hold.

        `counts`: this is the start, so what had to be executed brings the next checkpoint nearer.
        """
        state = self._load_checkpoint(height)
        start = state.header.height
        for done in range(start + 1, height + 1):
            block = self._load_block(done)
            try:
                state.commit(self._rules.check_block(state.view(), block, None))
            except AssayError as problem:
                raise Fault(
                    f"does not hold when executed again: {problem}",
                    field=f"block {done}",
                    mend="run `assay audit`",
                ) from None
            if counts:
                self.note_final(block)
            if progress is not None:
                progress(done - start, height - start)
        return state

    def note_final(self, block: Block) -> None:
        """A block became final: work that a start would have to do again."""
        self._work += BLOCK_WORK + len(block.transactions)

    def is_due(self, state: State) -> bool:
        """Whether enough was executed since the last checkpoint.

        A dump costs in proportion to the accounts, so it waits for as many transactions: a constant share.
        """
        return self._work >= max(CHECKPOINT_WORK_MIN, state.account_count)

    def write(self, state: State) -> bool:
        """Copy the state now and write its checkpoint in the background; False when there is nothing to do."""
        if state.header.height == 0 or (self._future is not None and not self._future.done()):
            return False  # genesis.json is the checkpoint of genesis
        self._work = 0
        frozen = FrozenState(
            state.header,
            state.rows.copy(),
            state.row_bytes,
            state.account_count,
            state.records,
            state.history,
        )
        self._future = self._executor.submit(self._write, frozen)
        return True

    def _write(self, frozen: FrozenState) -> None:
        name = CheckpointName(frozen.header.height, frozen.header.hash)
        try:
            self._folder.write(name, dump_state(cast(State, frozen)))
        except Fault as fault:
            # Not the end: a checkpoint only shortens the next start, and the block file decides for itself.
            log.error("checkpoint not written: %s", fault, extra={"height": name.height})
        else:
            log.info("checkpoint", extra={"height": name.height, "accounts": frozen.account_count})

    def _load_checkpoint(self, height: int) -> State:
        """The state of the newest checkpoint at or below `height` that holds, or of genesis."""
        for name in reversed(self._folder.list_names()):
            if name.height > height:
                continue
            try:
                checkpoint = self._folder.read(name)
                if checkpoint is None:
                    continue
                state = load_state(self._rules, checkpoint.dump)
                if state.header.hash != name.block_hash:
                    raise Rejected("holds another state", field=f"checkpoint {name.height}")
                if state.header != self._load_block(name.height).header:
                    raise Rejected("is not of a final block", field=f"checkpoint {name.height}")
            except (Rejected, Fault) as problem:
                log.warning("checkpoint passed over: %s", problem)
                continue
            return state
        return self._rules.create_genesis_state()
