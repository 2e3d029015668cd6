"""The audit's other processes: signatures, which take two thirds of its time, and the index.

Workers are spawned, not forked (the caller may have threads), and hold no state. If one dies, its
signatures are checked here instead. The index is read in a process of its own: LMDB trusts its file,
and a damaged one can end the process that reads it.
Leaves out: what the answers mean (audit.py).
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Self

from consensus import crypto
from consensus.block import decode_block
from consensus.errors import AssayError, Rejected
from consensus.secp256k1 import Signed
from node.store.block_file import BlockFile
from node.store.disk import RealDisk
from node.store.index_reader import IndexReader

Answers = Callable[[], list[bool]]
IndexProblem = tuple[int, str]  # height, what the index has wrong about it


class Workers:
    """`processes` that check signatures, or none: then it is done at once, here.

    `is_isolated`: the index is read in a process of its own.
    """

    def __init__(self, processes: int, *, is_isolated: bool) -> None:
        self._pool = _start_pool(processes) if processes else None
        self._index_pool = _start_pool(1) if is_isolated else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._pool, self._index_pool):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def verify(self, items: Sequence[Signed]) -> Answers:
        """Start to check (public_key, digest, signature) items; call the answer to wait for it."""
        if self._pool is None or not items:
            found = crypto.verify_batch(items)
            return lambda: found
        try:
            future = self._pool.submit(crypto.verify_batch, items)
        except BrokenProcessPool:
            return lambda: crypto.verify_batch(items)

        def wait() -> list[bool]:
            try:
                return future.result()
            except BrokenProcessPool:
                return crypto.verify_batch(items)

        return wait

    def start_index_check(
        self, home: Path, chain: bytes, offsets: Sequence[int]
    ) -> Callable[[], IndexProblem | None]:
        """Start `find_index_problem`; call the answer to wait for it. It raises Rejected as that does."""
        pool = self._index_pool
        if pool is None:
            return lambda: find_index_problem(home, chain, offsets)
        future = pool.submit(find_index_problem, home, chain, offsets)

        def wait() -> IndexProblem | None:
            try:
                return future.result()
            except BrokenProcessPool:
                raise Rejected("is damaged: reading it ends the process", field="index") from None

        return wait


def find_index_problem(home: Path, chain: bytes, offsets: Sequence[int]) -> IndexProblem | None:
    """The first final block that the index has wrong; `offsets` are those of blocks 1, 2, … in the file.

    Raises Rejected when the index cannot be read at all.
    """
    reader = IndexReader(home / "index")
    file = BlockFile.open(RealDisk(), home / "blocks.log", read_only=True)
    try:
        if not reader.is_of(chain):
            raise Rejected("is of another chain or format", field="index")
        for height, offset in enumerate(offsets, start=1):
            try:
                difference = reader.find_difference(decode_block(file.read(offset).payload))
            except AssayError:
                return None  # the block itself is bad: the audit's own pass says so
            if difference is not None:
                return height, f"index: {difference}"
        return None
    finally:
        file.close()
        reader.close()


def _start_pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=_ignore_interrupt)


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole process group; the parent decides, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
