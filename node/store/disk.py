"""The disk as the block file, the journal and the checkpoints see it, and the real one.

Everything durable goes through `Disk`: a world without files (in memory, losing what was not synced)
takes its place in simulations. Append-only logs, whole files replaced at once, and one lock.

Invariant: a failed append leaves the log as it was; after a failed sync, or an append that could not be
taken back, the log answers nothing but Fault: what the kernel kept of it is unknown, so a sync is never
tried again (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
Leaves out: what the bytes mean, and the index, which is rebuilt and never trusted.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from consensus.errors import Fault, Rejected

UNFINISHED_SUFFIX: Final = ".new"  # of a file that is being written, behind its name


class LogFile(Protocol):
    """An append-only file. Offsets and sizes in bytes. Not for two writers at once."""

    @property
    def size(self) -> int:
        """How long the file is now; of a file that another process writes, asked anew each time."""
        ...

    def append(self, data: bytes) -> int:
        """Write at the end; returns where it begins. Not durable before `sync`. Raises Fault."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only where the file ends. Raises Fault."""
        ...

    def sync(self) -> None:
        """Make all that was appended durable. Raises Fault, once and for all."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, durably. Raises Fault."""
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A held lock; released by `release` or by the end of the process."""

    def release(self) -> None: ...


class Disk(Protocol):
    """Opens logs, replaces files whole, holds locks. Faults name the path and the reason."""

    def open_log(self, path: Path, *, read_only: bool = False) -> LogFile:
        """The log at `path`, created (its name durable) unless read_only; Rejected when it is missing then."""
        ...

    def acquire_lock(self, path: Path) -> Lock:
        """Lock a folder through the file `path`.

        Rejected when there is no such folder, or, naming the other process, when it is taken.
        """
        ...

    def read_file(self, path: Path) -> bytes | None:
        """The whole file, or None when there is none."""
        ...

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Replace the file at once and durably: readers see the old one or the new one, whole."""
        ...

    def list_names(self, folder: Path) -> tuple[str, ...]:
        """Names in a folder, sorted; none when there is no such folder."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file; one that is gone already is fine."""
        ...


def make_full_fault(path: Path, doing: str) -> Fault:
    """What is said of a full disk, whoever found it full."""
    return Fault(
        f"the disk is full, cannot {doing}",
        field=str(path),
        mend="free space and start again",
        code="disk",
    )


def make_disk_fault(path: Path, doing: str, error: OSError) -> Fault:
    """What is said of a disk that failed: "free space" only where space is what it lacks."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return make_full_fault(path, doing)
    reason = error.strerror or type(error).__name__
    return Fault(f"cannot {doing} ({reason})", field=str(path), mend="check the disk", code="disk")


class RealLogFile:
    """A LogFile on a file descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._broken: Fault | None = None

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> int:
        self._check_sound()
        start, left = self._size, memoryview(data)
        try:
            while left:
                written = os.pwrite(self._descriptor, left, self._size)
                self._size += written
                left = left[written:]
        except OSError as error:
            fault = make_disk_fault(self._path, f"append {len(data)} bytes", error)
            try:
                os.ftruncate(self._descriptor, start)
                self._size = start
            except OSError:
                self._broken = fault
            raise fault from None
        return start

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:  # a read may be cut short, by a signal or at 2 GiB
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise make_disk_fault(self._path, "read", error) from None
        return data

    def sync(self) -> None:
        self._check_sound()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = make_disk_fault(self._path, "make it durable", error)
            raise self._broken from None

    def truncate(self, size: int) -> None:
        self._check_sound()
        try:
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        except OSError as error:
            self._broken = make_disk_fault(self._path, "truncate", error)
            raise self._broken from None
        self._size = size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check_sound(self) -> None:
        if self._broken is not None:
            raise self._broken


class RealLock:
    """An flock: the kernel drops it with the process, so no stale lock outlives a crash."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # the file stays: unlinking it would let two hold "the" lock
            self._descriptor = -1


class RealDisk:
    """The machine's own file system."""

    def open_log(self, path: Path, *, read_only: bool = False) -> RealLogFile:
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        try:
            is_new = not read_only and not path.exists()
            log = RealLogFile(path, os.open(path, flags | os.O_CLOEXEC, 0o644))
            if is_new:
                sync_folder(path.parent)
        except FileNotFoundError:
            raise Rejected("does not exist", field=str(path), mend="check --home") from None
        except OSError as error:
            raise make_disk_fault(path, "open", error) from None
        return log

    def acquire_lock(self, path: Path) -> RealLock:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, NotADirectoryError):
            raise Rejected(
                "is no home", field=str(path.parent), mend="make one with `assay init` or `assay localnet`"
            ) from None
        except OSError as error:
            raise make_disk_fault(path, "lock", error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            other = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise Rejected(
                f"is locked by process {other}",
                field=str(path.parent),
                mend="stop it or use another --home",
                code="locked",
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise make_disk_fault(path, "lock", error) from None
        return RealLock(descriptor)

    def read_file(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise make_disk_fault(path, "read", error) from None

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        temporary = path.with_name(path.name + UNFINISHED_SUFFIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):  # a file system that became read-only keeps it
                temporary.unlink(missing_ok=True)
            raise make_disk_fault(path, "write", error) from None

    def list_names(self, folder: Path) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(folder)))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise make_disk_fault(folder, "list", error) from None

    def remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise make_disk_fault(path, "remove", error) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: of files made, renamed or removed. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
