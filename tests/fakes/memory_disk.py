"""A disk in memory that can be full, fail to sync, and lose what was not synced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from consensus.errors import Fault, Rejected


class MemoryLog:
    """A LogFile over a bytearray; `synced` is how much of it survives a crash."""

    def __init__(self, data: bytearray, disk: MemoryDisk | None = None) -> None:
        self._data = data
        self._disk = disk or MemoryDisk()
        self._broken = False
        self.synced = len(data)

    @property
    def size(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> int:
        if self._broken:
            raise Fault("a sync failed before", field="memory disk")
        self._disk.spend(len(data))
        self._data += data
        return len(self._data) - len(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def sync(self) -> None:
        if self._broken or self._disk.is_sync_failing:
            self._broken = True
            raise Fault("cannot make it durable", field="memory disk")
        self.synced = len(self._data)

    def truncate(self, size: int) -> None:
        del self._data[size:]
        self.synced = min(self.synced, size)

    def close(self) -> None:
        pass


class MemoryLock:
    def __init__(self, disk: MemoryDisk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.locks.discard(self._path)


class MemoryDisk:
    """`bytes_left`: None for plenty. `crash(kept)` keeps that many bytes of each log's unsynced tail."""

    def __init__(self) -> None:
        self.logs: dict[Path, bytearray] = {}
        self.open_logs: dict[Path, MemoryLog] = {}
        self.files: dict[Path, bytes] = {}
        self.locks: set[Path] = set()
        self.bytes_left: int | None = None
        self.is_sync_failing = False

    def spend(self, count: int) -> None:
        if self.bytes_left is not None:
            if count > self.bytes_left:
                raise Fault("the disk is full", field="memory disk", mend="free space", code="disk")
            self.bytes_left -= count

    def crash(self, kept: int = 0) -> None:
        for path, log in self.open_logs.items():
            del self.logs[path][log.synced + kept :]
        self.open_logs.clear()
        self.locks.clear()

    def open_log(self, path: Path, *, read_only: bool = False) -> MemoryLog:
        if read_only and path not in self.logs:
            raise Rejected("does not exist", field=str(path))
        log = self.open_logs[path] = MemoryLog(self.logs.setdefault(path, bytearray()), self)
        return log

    def acquire_lock(self, path: Path, holder: str) -> MemoryLock:
        if path in self.locks:
            raise Rejected(f"is locked by process {holder}", field=str(path.parent), code="locked")
        self.locks.add(path)
        return MemoryLock(self, path)

    def read_file(self, path: Path) -> bytes | None:
        return self.files.get(path)

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        self.spend(len(data))
        self.files[path] = data

    def list_names(self, folder: Path) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self.files if path.parent == folder))

    def remove(self, path: Path) -> None:
        self.files.pop(path, None)
