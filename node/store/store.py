"""The store: what a node keeps of the chain, behind one door.

    blocks.log    every body it vouched for and every finality mark: the truth, synced before it is spoken of
    index/        where transactions, hashes and histories are found: rebuilt when unfit
    checkpoints/  dumps of the state, so that a start re-executes little
    lock          held while open: one process per home

Invariant: a body is durable once `sync` returned after `put_block`, finality once it returned after
`put_final`; the final chain only grows. A Fault of the disk ends the node: nothing after it is durable.
Leaves out: whether blocks are valid (the judge's), except when they are executed again at start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.block import Block, Header, decode_block, encode_block
from consensus.errors import Fault, Rejected
from consensus.ledger.rules import Rules
from consensus.ledger.state import State
from consensus.vote import Certificate
from node.store.block_cache import BlockCache
from node.store.block_file import BODY, FINAL, BlockFile
from node.store.checkpoint import CheckpointFolder
from node.store.disk import Disk, Lock, RealDisk
from node.store.index import Index
from node.store.index_buffer import BlockIndex, OpenIndex, TransactionPlace
from node.store.opening import ListVouched, read_block_file
from node.store.positions import (
    FinalityMark,
    Place,
    Positions,
    check_mark,
    decode_mark,
    read_header,
)
from node.store.states import Progress, States

log = logging.getLogger("assay.store")

BLOCKS_NAME: Final = "blocks.log"
INDEX_GAP_TOLD: Final = 1_000  # blocks; a second or so of indexing


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a node starts from: the state after the last final block, and the durable blocks above it.

    `unfinal`: oldest first; this node vouched for them, so they are judged again, not fetched.
    """

    state: State
    unfinal: tuple[Block, ...]


class Store:
    """One node's chain on disk. All methods belong to one thread; they block for the time of a disk access.

    Except `rebuild_state`, which only reads and may run beside it in another.
    """

    def __init__(
        self,
        home: Path,
        rules: Rules,
        disk: Disk,
        lock: Lock,
        executor: Executor,
        is_own_executor: bool,
    ) -> None:
        self._home = home
        self._rules = rules
        self._lock = lock
        self._executor = executor
        self._is_own_executor = is_own_executor
        self._genesis = Block(rules.create_genesis_state().header, (), (), b"", None)
        self._positions = Positions(self._genesis.hash)
        folder = CheckpointFolder(disk, home / "checkpoints")
        self._states = States(rules, folder, executor, self._load_final)
        self._cache = BlockCache()
        self._final_header = self._genesis.header
        self._file = BlockFile.open(disk, home / BLOCKS_NAME)
        self._index: BlockIndex

    @classmethod
    def open(
        cls,
        home: Path,
        rules: Rules,
        *,
        disk: Disk | None = None,
        executor: Executor | None = None,
        open_index: OpenIndex = Index,
        list_vouched: ListVouched = lambda: None,
    ) -> Store:
        """Lock the home and read its block file through. `executor` runs what may lag (default: a thread).

        `disk` and `open_index`: where everything is kept; by default in the home's own files.
        `list_vouched` is asked when the end of the block file is damaged (`opening.py`).
        Raises Rejected when another process holds the lock or the home is of another chain, Fault when a
        stored block is damaged or the disk fails.
        """
        if disk is None:
            disk = RealDisk()
        lock = disk.acquire_lock(home / "lock")
        is_own = executor is None
        executor = executor or ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            store = cls(home, rules, disk, lock, executor, is_own)
            try:
                store._read_file(list_vouched)
                store._index = store._open_index(open_index)
            except BaseException:
                store._file.close()
                raise
        except BaseException:
            if is_own:
                executor.shutdown()
            lock.release()
            raise
        return store

    # --- what is final --------------------------------------------------------------------------

    @property
    def finalized_height(self) -> int:
        return self._positions.final_height

    @property
    def finalized(self) -> Header:
        """The header of the last final block."""
        return self._final_header

    def get_header(self, height: int) -> Header | None:
        """The header of a final block, or of one linked above it by the last certificate."""
        if height == 0:
            return self._genesis.header
        offset = self._positions.get_offset(height)
        if offset is not None:
            return read_header(self._file.read(offset).payload)
        mark = self._read_mark(self._positions.final_height)
        links = () if mark is None else mark[1].links
        return next((header for header in links if header.height == height), None)

    def get_block_at(self, height: int) -> Block | None:
        """The final block of this height, None above the last one."""
        if height == 0:
            return self._genesis
        offset = self._positions.get_offset(height)
        return None if offset is None else self._load(offset)

    def get_certificate(self, height: int) -> tuple[Certificate, int] | None:
        """A finalization and the height of the block it certifies: this one's, or the nearest descendant's.

        `get_links` tells the headers between; tails among them share the height of their epoch's boundary.
        None above the last final block and for genesis, which needs none.
        """
        found = self._read_mark(height) if 0 < height <= self.finalized_height else None
        if found is None:
            return None
        marked_height, mark = found
        return mark.certificate, mark.links[-1].height if mark.links else marked_height

    def get_links(self, height: int) -> tuple[Header, ...]:
        """The headers from the child of this final block to the one that `get_certificate` certifies."""
        found = self._read_mark(height) if 0 < height <= self.finalized_height else None
        if found is None:
            return ()
        marked_height, mark = found
        headers = (self.get_header(between) for between in range(height + 1, marked_height + 1))
        return (*(header for header in headers if header is not None), *mark.links)

    def find_transaction(self, transaction_id: bytes) -> TransactionPlace | None:
        """(height, index) of a final transaction."""
        place = self._index.find_transaction(transaction_id)
        if place is None:
            return None
        block = self.get_block_at(place[0])
        if block is None or place[1] >= len(block.transactions):
            raise Fault(
                f"the index names a place that is not there: {place}", field="index", mend="delete index/"
            )
        return place if block.transactions[place[1]].id == transaction_id else None

    def get_history(
        self, address: bytes, before: TransactionPlace | None = None, limit: int = 50
    ) -> tuple[TransactionPlace, ...]:
        """Places of the account's final transactions (sent or received), newest first, older than `before`."""
        return self._index.get_history(address, before, limit)

    # --- any block ------------------------------------------------------------------------------

    def get_block(self, block_hash: bytes) -> Block | None:
        """A stored block, final or not."""
        if block_hash == self._genesis.hash:
            return self._genesis
        offset = self._find_offset(block_hash)
        block = None if offset is None else self._load(offset)
        return block if block is not None and block.hash == block_hash else None

    def get_raw_block(self, key: bytes | int) -> bytes | None:
        """The canonical bytes of a stored block by hash, or of a final one by height."""
        if key in (0, self._genesis.hash):
            return encode_block(self._genesis)
        if isinstance(key, int):
            offset = self._positions.get_offset(key)
            return None if offset is None else self._file.read(offset).payload
        offset = self._find_offset(key)
        payload = None if offset is None else self._file.read(offset).payload
        return payload if payload is not None and read_header(payload).hash == key else None

    # --- writing --------------------------------------------------------------------------------

    def put_block(self, block: Block) -> None:
        """Append a valid block's body; known ones cost nothing. Durable after `sync`. Raises Fault."""
        if block.hash in self._positions.bodies or self._is_final(block.header):
            return
        offset = self._file.append(BODY, block.header.height, encode_block(block))
        self._positions.add_body(block.header, offset)
        self._cache.put(offset, block)

    def put_final(
        self, certificate: Certificate, blocks: Sequence[Block], links: Sequence[Header] = ()
    ) -> None:
        """Make `blocks` (children of the last final one, oldest first) final. Durable after `sync`.

        `links`: the headers from the child of the last of them to the certified block, when that is a
        descendant. Raises Fault when they do not hang together: then nothing is final by it.
        """
        if not blocks:
            return
        for block in blocks:
            self.put_block(block)
        mark = FinalityMark(blocks[-1].hash, certificate, tuple(links))
        try:
            check_mark(mark)
            branch = self._positions.get_branch(mark.block_hash)
        except Rejected as problem:
            raise Fault(
                f"cannot be made final: {problem}", field=f"block {blocks[-1].header.height}"
            ) from None
        if [place.block_hash for place in branch] != [block.hash for block in blocks]:
            raise Fault("are not the branch from the last final block", field="blocks made final")
        offset = self._file.append(FINAL, branch[-1].height, mark.encode())
        self._positions.add_mark(mark.block_hash, offset)
        self._final_header = blocks[-1].header
        for block in blocks:
            self._states.note_final(block)
            self._index.add_block(block)

    def sync(self) -> None:
        """Make everything put so far durable. Raises Fault; then nothing more may be said."""
        self._file.sync()

    # --- state ----------------------------------------------------------------------------------

    def recover(self, progress: Progress | None = None) -> Recovered:
        """The state after the last final block, and the blocks above it. Raises Fault."""
        state = self._states.rebuild(self.finalized_height, progress, counts=True)
        places = sorted(self._positions.bodies.values(), key=lambda place: (place.height, place.offset))
        unfinal = tuple(self._load(place.offset) for place in places if place.height > self.finalized_height)
        return Recovered(state, unfinal)

    def rebuild_state(self, height: int, progress: Progress | None = None) -> State:
        """The state after the final block of this height; see `States.rebuild`. Raises Fault."""
        if height > self.finalized_height:
            raise Fault(f"is above the last final block {self.finalized_height}", field=f"state {height}")
        return self._states.rebuild(height, progress)

    def checkpoint_if_due(self, state: State) -> bool:
        """Call after every commit: writes a checkpoint when enough was executed since the last one."""
        return self._states.is_due(state) and self.write_checkpoint(state)

    def write_checkpoint(self, state: State) -> bool:
        """Copy the state of a final block now, and write it in the background.

        False when nothing is to be done: the last one is still being written, or this is genesis.
        """
        header = self.get_header(state.header.height)
        if state.header.height > self.finalized_height or header != state.header:
            raise Fault(f"state {state.header.height} is not of a final block", field="checkpoint")
        return self._states.write(state)

    def close(self) -> None:
        """Finish what is being written, and release the home. Raises Fault when the disk does."""
        try:
            self._index.close()
        finally:
            if self._is_own_executor:
                self._executor.shutdown()
            self._file.close()
            self._lock.release()

    # --- inside ---------------------------------------------------------------------------------

    def _read_file(self, list_vouched: ListVouched) -> None:
        read_block_file(self._file, self._home / BLOCKS_NAME, self._rules, self._positions, list_vouched)
        header = self.get_header(self.finalized_height)
        assert header is not None, "the last final block is stored"
        self._final_header = header

    def _open_index(self, open_index: OpenIndex) -> BlockIndex:
        """The index, brought up to the last final block."""
        index = open_index(self._home / "index", self._rules.genesis.digest, self._executor)
        try:
            height, block_hash = index.last
            header = self.get_header(height) if height <= self.finalized_height else None
            if height and (header is None or header.hash != block_hash):
                log.warning("index does not match the block file: rebuilding it", extra={"height": height})
                index.clear()
                height = 0
            if self.finalized_height - height > INDEX_GAP_TOLD:
                log.info("indexing", extra={"from_height": height + 1, "to_height": self.finalized_height})
            for missing in range(height + 1, self.finalized_height + 1):
                index.add_block(self._load_final(missing))
        except BaseException:
            index.abandon()
            raise
        return index

    def _read_mark(self, height: int) -> tuple[int, FinalityMark] | None:
        found = self._positions.get_mark(height)
        return None if found is None else (found[0], decode_mark(self._file.read(found[1]).payload))

    def _is_final(self, header: Header) -> bool:
        # By height, not through the index: what is written must not depend on what can be rebuilt.
        return header.height <= self.finalized_height and self.get_header(header.height) == header

    def _find_offset(self, block_hash: bytes) -> int | None:
        place: Place | None = self._positions.bodies.get(block_hash)
        if place is not None:
            return place.offset
        height = self._index.find_block(block_hash)
        return None if height is None else self._positions.get_offset(height)

    def _load_final(self, height: int) -> Block:
        block = self.get_block_at(height)
        assert block is not None, "final blocks up to the last one are stored"
        return block

    def _load(self, offset: int) -> Block:
        cached = self._cache.get(offset)
        if cached is not None:
            return cached
        payload = self._file.read(offset).payload
        try:
            block = decode_block(payload)
        except Rejected as problem:
            raise Fault(f"is not what was stored: {problem}", field=f"block at byte {offset}") from None
        self._cache.put(offset, block)
        return block
