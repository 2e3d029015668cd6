"""A log that reserves its space ahead, so that a sync need not write the file's size each time.

On ext4 an append that grows the file makes fdatasync commit the file system's own journal: 0.7 to 2.2 ms
here against 0.1 to 0.8 ms inside reserved space, several times a view. The reserve reads as zeros; whoever
reads such a file takes zeros to its end for "nothing yet" (no record of a journal is all zeros).

Invariant: as `RealLogFile`, but the file may be longer than `size` until it is closed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.store.disk import RealDisk, RealLogFile

RESERVE_BYTES: Final = 1 << 20  # the size at which a journal may be compacted anyway


class ReservedLogFile(RealLogFile):
    """A RealLogFile with room behind its end."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self._reserved = self._size

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: bytes) -> int:
        if self._size + len(data) > self._reserved:
            self._reserve(len(data))
        start = super().append(data)
        self._reserved = max(self._reserved, self._size)
        return start

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self._reserved = size

    def close(self) -> None:
        if self._descriptor >= 0 and self._reserved > self._size:
            with suppress(OSError):  # the zeros at the end are cut off at the next start
                os.ftruncate(self._descriptor, self._size)
        super().close()

    def _reserve(self, length: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._descriptor, self._size, length + RESERVE_BYTES)
        except OSError:
            return  # little room, or a file system that cannot: the append itself tells what is wrong
        self._reserved = self._size + length + RESERVE_BYTES


class ReservingDisk(RealDisk):
    """The machine's disk, with reserved logs."""

    def open_log(self, path: Path, *, read_only: bool = False) -> RealLogFile:
        if read_only:
            return super().open_log(path, read_only=True)
        plain = super().open_log(path)
        descriptor = os.dup(plain._descriptor)
        plain.close()
        return ReservedLogFile(path, descriptor)
