"""A disk without files, for the deterministic world: a crash takes what was not synced.

Invariant: bytes that `sync` returned from survive `crash`; of the rest a prefix of the world's choosing
may (a torn tail). Replaced files are whole or not there, as `Disk.write_file` promises.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from consensus.errors import Rejected


@dataclass(slots=True)
class _Content:
    data: bytearray = field(default_factory=bytearray)
    durable_bytes: int = 0


class MemoryLog:
    """A LogFile in memory."""

    def __init__(self, content: _Content) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content.data)

    def append(self, data: bytes) -> int:
        start = len(self._content.data)
        self._content.data += data
        return start

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content.data[offset : offset + length])

    def sync(self) -> None:
        self._content.durable_bytes = len(self._content.data)

    def truncate(self, size: int) -> None:
        del self._content.data[size:]
        self._content.durable_bytes = min(self._content.durable_bytes, size)

    def close(self) -> None:
        pass


class MemoryLock:
    """Nobody else is there."""

    def release(self) -> None:
        pass


class MemoryDisk:
    """A Disk in memory, one for each simulated node."""

    def __init__(self) -> None:
        self._files: dict[Path, _Content] = {}

    def open_log(self, path: Path, *, read_only: bool = False) -> MemoryLog:
        if read_only and path not in self._files:
            raise Rejected("does not exist", field=str(path))
        return MemoryLog(self._files.setdefault(path, _Content()))

    def acquire_lock(self, path: Path, holder: str) -> MemoryLock:  # noqa: ARG002 - as Disk has it
        return MemoryLock()

    def read_file(self, path: Path) -> bytes | None:
        content = self._files.get(path)
        return None if content is None else bytes(content.data)

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        data = bytearray().join(chunks)
        self._files[path] = _Content(data, len(data))

    def list_names(self, folder: Path) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._files if path.parent == folder))

    def remove(self, path: Path) -> None:
        self._files.pop(path, None)

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced; half of the time a part of it stays, cut anywhere."""
        for content in self._files.values():
            unsynced = len(content.data) - content.durable_bytes
            kept = rng.randint(0, unsynced) if unsynced and rng.random() < 0.5 else 0
            del content.data[content.durable_bytes + kept :]
            content.durable_bytes = len(content.data)
