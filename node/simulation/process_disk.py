"""A MemoryDisk as one process has it: when the process ends, all its handles end with it.

The world kills a simulated process in the middle of anything, while coroutines of it still hold open logs.
Invariant: after `end` nothing that was opened here reads or changes the disk: whoever tries is stopped by an
EndedProcessError; closing and releasing do nothing. Before each effect (append, sync, truncate, write,
remove) `at_effect` is called: there the world may crash the process, so that every order of durable and not
yet durable occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path

from consensus.errors import Fault
from node.simulation.memory_disk import MemoryDisk, MemoryLock, MemoryLog
from node.simulation.memory_index import MemoryIndex


class EndedProcessError(BaseException):
    """Code of a process that has ended went on. Not an Exception, so that nothing of it keeps it going."""


class ProcessDisk:
    """A Disk, and an opener of indexes, until `end`."""

    def __init__(self, disk: MemoryDisk, at_effect: Callable[[], None] = lambda: None) -> None:
        self._disk = disk
        self._at_effect = at_effect
        self._locks: list[MemoryLock] = []
        self._is_over = False

    def end(self) -> None:
        """The process is gone, and with it its locks."""
        if not self._is_over:
            self._is_over = True
            for lock in self._locks:
                lock.release()

    def check_alive(self) -> None:
        """Raises EndedProcessError after `end`."""
        if self._is_over:
            raise EndedProcessError("this process has ended")

    def begin_effect(self) -> None:
        """Call before the disk is changed. Raises EndedProcessError, or what `at_effect` raises."""
        self.check_alive()
        self._at_effect()
        self.check_alive()  # the world may have ended it just now, without raising

    def open_index(self, folder: Path, chain: bytes, executor: Executor) -> MemoryIndex:  # noqa: ARG002
        """An OpenIndex (`index_buffer.py`)."""
        return MemoryIndex(self._disk, folder, chain, self.check_alive)

    # --- as Disk has it -----------------------------------------------------------------------------

    def open_log(self, path: Path, *, read_only: bool = False) -> ProcessLog:
        self.check_alive()
        return ProcessLog(self._disk.open_log(path, read_only=read_only), self)

    def acquire_lock(self, path: Path) -> MemoryLock:
        self.check_alive()
        lock = self._disk.acquire_lock(path)
        self._locks.append(lock)
        return lock

    def read_file(self, path: Path) -> bytes | None:
        self.check_alive()
        return self._disk.read_file(path)

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        self.begin_effect()
        if self._disk.is_sync_failing:  # the new one never takes the old one's name
            raise Fault("cannot make it durable", field=str(path), code="disk")
        self._disk.write_file(path, chunks)

    def list_names(self, folder: Path) -> tuple[str, ...]:
        self.check_alive()
        return self._disk.list_names(folder)

    def remove(self, path: Path) -> None:
        self.begin_effect()
        self._disk.remove(path)


class ProcessLog:
    """A LogFile of a process."""

    def __init__(self, log: MemoryLog, process: ProcessDisk) -> None:
        self._log = log
        self._process = process

    @property
    def size(self) -> int:
        self._process.check_alive()
        return self._log.size

    def append(self, data: bytes) -> int:
        self._process.begin_effect()
        return self._log.append(data)

    def read(self, offset: int, length: int) -> bytes:
        self._process.check_alive()
        return self._log.read(offset, length)

    def sync(self) -> None:
        self._process.begin_effect()
        self._log.sync()

    def truncate(self, size: int) -> None:
        self._process.begin_effect()
        self._log.truncate(size)

    def close(self) -> None:
        """Nothing is held."""
