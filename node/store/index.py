"""The index (LMDB): where a transaction, a block hash and an account's history are found.

Everything in it can be made again from the block file, so it is never waited for: entries go to a buffer
in memory (`index_buffer.py`: what they look like), a background thread writes them in sorted batches, and
reads ask the buffer first.

Invariant: an index that is damaged, of another chain or ahead of the block file is rebuilt, with a log
line. Commits are not synced: after a machine (not a process) went down without closing it, the same.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from consensus.block import Block
from consensus.errors import Fault
from node.store.disk import make_full_fault
from node.store.index_buffer import IndexBuffer, TransactionPlace, pack_bound, unpack_place
from node.store.index_tables import TABLES_MAX, IndexTables

log = logging.getLogger("assay.store")
_Answer = TypeVar("_Answer")

MAP_BYTES_START: Final = 1 << 28  # address space, not disk; doubled when it is full
# 33,000 transfers, some 20 MB: the larger the sorted batch, the more entries share a page that is written for them.
BATCH_ENTRIES: Final = 100_000
BUFFER_ENTRIES_MAX: Final = 500_000  # 100 MB: the disk is far behind, better wait than grow
BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ERRNOS: Final = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)


class Index:
    """A BlockIndex in a folder. Reads and `add_block` belong to one thread; the writer is the executor's."""

    def __init__(self, folder: Path, chain: bytes, executor: Executor) -> None:
        self._folder = folder
        self._chain = chain
        self._executor = executor
        self._growing = IndexBuffer()
        self._writing: IndexBuffer | None = None
        self._future: Future[None] | None = None
        self._resize = threading.Lock()  # LMDB: no transaction may be open while the map grows
        self._fault: Fault | None = None  # of the first write that failed
        self._env: Any = None
        self._open_or_rebuild()

    # --- reading --------------------------------------------------------------------------------

    @property
    def last(self) -> tuple[int, bytes]:
        """Height and hash of the last block added; (0, b"") for an empty index."""
        for buffer in self._buffers():
            if buffer.last is not None:
                return buffer.last
        return self._read(self._tables.read_last)

    def find_transaction(self, transaction_id: bytes) -> TransactionPlace | None:
        """Where the transaction may stand; the caller compares the whole id."""
        for buffer in self._buffers():
            place = buffer.find_transaction(transaction_id)
            if place is not None:
                return place
        found = self._read(lambda transaction: self._tables.find_transaction(transaction, transaction_id))
        return None if found is None else unpack_place(found)

    def find_block(self, block_hash: bytes) -> int | None:
        """The height of a final block; the caller compares the whole hash."""
        for buffer in self._buffers():
            height = buffer.find_block(block_hash)
            if height is not None:
                return height
        return self._read(lambda transaction: self._tables.find_block(transaction, block_hash))

    def get_history(
        self, address: bytes, before: TransactionPlace | None, limit: int
    ) -> tuple[TransactionPlace, ...]:
        """Up to `limit` places of the account's transactions, newest first, all older than `before`."""
        bound = pack_bound(before)
        found: list[bytes] = []
        for buffer in self._buffers():
            found += buffer.list_history(address, bound, limit - len(found))
        if len(found) < limit:
            below, wanted = min([bound, *found]), limit - len(found)
            found += self._read(lambda opened: self._tables.list_history(opened, address, below, wanted))
        return tuple(unpack_place(place) for place in found)

    # --- writing --------------------------------------------------------------------------------

    def add_block(self, block: Block) -> None:
        """Take in the next final block. Raises Fault when an earlier batch could not be written."""
        self._growing.add(block)
        if self._future is not None and self._future.done():
            self._collect()
        if self._future is not None and self._growing.entries > BUFFER_ENTRIES_MAX:
            self._collect()  # waits
        if self._future is None and self._growing.entries >= BATCH_ENTRIES:
            self._start_batch()

    def flush(self) -> None:
        """Write everything buffered, and wait for it. Raises Fault."""
        self._collect()
        if self._growing.entries:
            self._start_batch()
            self._collect()

    def clear(self) -> None:
        """Start again from nothing: what it says is not of this block file."""
        self._collect()
        self._growing = IndexBuffer()
        self._open_anew()

    def close(self) -> None:
        """Write everything, unless a write failed, as was said: then the next start adds what is missing. Raises Fault."""
        try:
            if self._fault is None:
                self.flush()
                self._env.sync(True)
                (self._folder / "unclean").unlink(missing_ok=True)
        finally:
            self._close_env()

    def abandon(self) -> None:
        """Let go of the file as it is, as a dying process does. What was buffered comes again at the next start."""
        if self._future is not None:
            wait((self._future,))
        self._close_env()

    # --- inside ---------------------------------------------------------------------------------

    def _buffers(self) -> tuple[IndexBuffer, ...]:
        return (self._growing,) if self._writing is None else (self._growing, self._writing)

    def _start_batch(self) -> None:
        self._writing, self._growing = self._growing, IndexBuffer()
        self._future = self._executor.submit(self._write, self._writing)

    def _collect(self) -> None:
        if self._fault is not None:
            raise self._fault  # what could not be written is a hole: nothing is written above it
        future, self._future = self._future, None
        if future is not None:
            try:
                future.result()
            except Fault as fault:  # of the writer
                self._fault = fault
                raise
            self._writing = None

    def _write(self, buffer: IndexBuffer) -> None:
        while True:
            try:
                self._env.reader_check()  # one that was killed, an audit, would keep every page freed since then
                with self._env.begin(write=True) as transaction:
                    self._tables.write(transaction, buffer)
                return
            except lmdb.MapFullError:
                with self._resize:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:
                if _is_full(error):  # at this commit or in its files' growth
                    raise make_full_fault(self._folder, "write") from None
                raise Fault(
                    f"cannot be written ({error})",
                    field=str(self._folder),
                    mend="check the disk, or delete it: it is rebuilt",
                ) from None

    def _read(self, look: Callable[[Any], _Answer]) -> _Answer:
        try:
            with self._resize, self._env.begin() as transaction:
                return look(transaction)
        except lmdb.Error as error:
            raise self._damage(error) from None

    def _damage(self, error: lmdb.Error) -> Fault:
        return Fault(f"cannot be read ({error})", field=str(self._folder), mend="delete it: it is rebuilt")

    def _open_or_rebuild(self) -> None:
        reason = self._find_unfit()
        if not reason:
            try:
                self._open()
                with self._env.begin() as transaction:
                    is_ours = self._tables.is_of(transaction, self._chain)
                if is_ours:
                    return
                reason = "is of another chain or format"
            except lmdb.Error as error:
                if _is_of_the_machine(error):
                    raise Fault(f"cannot be opened ({error})", field=str(self._folder)) from None
                reason = f"is damaged ({error})"
        log.warning("index %s: rebuilding it", reason, extra={"path": str(self._folder)})
        self._open_anew()

    def _open_anew(self) -> None:
        self._close_env()
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._open()
        except lmdb.Error as error:
            raise Fault(f"cannot be made ({error})", field=str(self._folder), mend="check the disk") from None

    def _find_unfit(self) -> str:
        """Why what lies in the folder cannot be trusted; empty when it can, or when nothing is there."""
        mark = self._folder / "unclean"
        if not mark.exists():
            return ""
        boot = mark.read_text(encoding="ascii", errors="replace")
        return "" if boot and boot == _read_boot_id() else "was open when the machine went down"

    def _open(self) -> None:
        try:
            is_new = not (self._folder / "data.mdb").exists()
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "unclean").write_text(_read_boot_id(), encoding="ascii")
        except OSError as error:
            raise Fault(f"cannot be made ({error.strerror})", field=str(self._folder)) from None
        size = MAP_BYTES_START
        if not is_new:
            size = max(size, 2 * (self._folder / "data.mdb").stat().st_size)
        self._env = lmdb.open(
            str(self._folder), map_size=size, max_dbs=TABLES_MAX, sync=False, metasync=False, readahead=False
        )
        self._tables = IndexTables(self._env, create=True)
        if is_new:
            with self._env.begin(write=True) as transaction:
                self._tables.write_chain(transaction, self._chain)

    def _close_env(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None


def _is_of_the_machine(error: lmdb.Error) -> bool:
    """Whether the files may be sound: then they are not thrown away."""
    return isinstance(error, (lmdb.DiskError, lmdb.MemoryError)) or any(
        os.strerror(code) in str(error) for code in MACHINE_ERRNOS
    )


def _is_full(error: lmdb.Error) -> bool:
    """Whether space is what the disk lacks; lmdb has a class for ENOSPC alone."""
    return isinstance(error, lmdb.DiskError) or os.strerror(errno.EDQUOT) in str(error)


def _read_boot_id() -> str:
    """Changes when the machine starts anew; empty where the platform has none (never trusted then)."""
    try:
        return BOOT_ID_PATH.read_text(encoding="ascii").strip()
    except OSError:
        return ""
