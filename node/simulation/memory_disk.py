"""A disk without files, for the deterministic world: a crash takes what was not synced, space may run
out, a sync may fail.

Invariant: bytes that `sync` returned from survive `crash`; of the rest a prefix of the world's choosing
may (a torn tail). Replaced files are whole or not there, as `Disk.write_file` promises.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from consensus.errors import Fault, Rejected

FLIP_BYTES_MIN: Final = 4_096  # several records: none spans the last three quarters of it


@dataclass(slots=True)
class _Content:
    data: bytearray = field(default_factory=bytearray)
    durable_bytes: int = 0


class MemoryLog:
    """A LogFile in memory."""

    def __init__(self, content: _Content, disk: MemoryDisk) -> None:
        self._content = content
        self._disk = disk
        self._is_broken = False

    @property
    def size(self) -> int:
        return len(self._content.data)

    def append(self, data: bytes) -> int:
        self._check_sound()
        start = len(self._content.data)
        self._disk.spend(len(data))
        self._content.data += data
        return start

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content.data[offset : offset + length])

    def sync(self) -> None:
        self._check_sound()
        if self._disk.is_sync_failing:
            self._is_broken = True
            self._check_sound()
        self._content.durable_bytes = len(self._content.data)

    def truncate(self, size: int) -> None:
        del self._content.data[size:]
        self._content.durable_bytes = min(self._content.durable_bytes, size)

    def close(self) -> None:
        pass

    def _check_sound(self) -> None:
        if self._is_broken:
            raise Fault("cannot make it durable", field="memory disk", code="disk")


class MemoryLock:
    """Nobody else is there."""

    def release(self) -> None:
        pass


class MemoryDisk:
    """A Disk in memory, one for each simulated node. `bytes_left` None: there is room for everything."""

    def __init__(self) -> None:
        self.bytes_left: int | None = None
        self.is_sync_failing = False
        self._files: dict[Path, _Content] = {}

    def spend(self, count: int) -> None:
        """Take room for this many bytes; raises Fault when there is not enough."""
        if self.bytes_left is None:
            return
        if count > self.bytes_left:
            raise Fault("the disk is full", field="memory disk", mend="free space", code="disk")
        self.bytes_left -= count

    def open_log(self, path: Path, *, read_only: bool = False) -> MemoryLog:
        if read_only and path not in self._files:
            raise Rejected("does not exist", field=str(path))
        return MemoryLog(self._files.setdefault(path, _Content()), self)

    def acquire_lock(self, path: Path, holder: str) -> MemoryLock:  # noqa: ARG002 - as Disk has it
        return MemoryLock()

    def read_file(self, path: Path) -> bytes | None:
        content = self._files.get(path)
        return None if content is None else bytes(content.data)

    def write_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        data = bytearray().join(chunks)
        self.spend(len(data))
        self._files[path] = _Content(data, len(data))

    def list_names(self, folder: Path) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._files if path.parent == folder))

    def remove(self, path: Path) -> None:
        self._files.pop(path, None)

    def mend(self) -> None:
        """There is room again, and syncs succeed."""
        self.bytes_left = None
        self.is_sync_failing = False

    def flip_bit(self, path: Path, rng: random.Random) -> bool:
        """Damage what is durable, in the first quarter of the file; whether there was enough to damage.

        The last record must stay sound: damage there cannot be told from a write that never finished.
        """
        content = self._files.get(path)
        if content is None or len(content.data) < FLIP_BYTES_MIN:
            return False
        place = rng.randrange(2 * len(content.data))
        content.data[place // 8] ^= 1 << place % 8
        return True

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced; half of the time a part of it stays, cut anywhere."""
        for content in self._files.values():
            unsynced = len(content.data) - content.durable_bytes
            kept = rng.randint(0, unsynced) if unsynced and rng.random() < 0.5 else 0
            del content.data[content.durable_bytes + kept :]
            content.durable_bytes = len(content.data)
