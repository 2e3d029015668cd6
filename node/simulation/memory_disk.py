"""A disk without files, for the deterministic world: a crash takes what was not synced, space may run
out, a sync may fail, a bit may flip.

Invariant: bytes that `sync` returned from survive `crash`; of the rest a part of the world's choosing
may (a torn tail), each file's apart from the others'. Replaced files are whole or not there, as
`Disk.write_file` promises: a crash before the call leaves the old one, after it the new one.
Leaves out: whose handles these are; `process_disk.py` takes them from a process that has ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consensus.errors import Fault, Rejected

if TYPE_CHECKING:
    from node.simulation.memory_index import IndexContent  # only whole nodes have one

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
        self._check_sound()
        del self._content.data[size:]
        self._content.durable_bytes = len(self._content.data)

    def close(self) -> None:
        pass

    def _check_sound(self) -> None:
        if self._is_broken:
            raise Fault("cannot make it durable", field="memory disk", code="disk")


class MemoryLock:
    """Held until it is released, or until the crash of who holds it."""

    def __init__(self, held: dict[Path, MemoryLock], path: Path) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        if self._held.get(self._path) is self:  # not the lock of a process that came later
            del self._held[self._path]


class MemoryDisk:
    """A Disk in memory, one for each simulated node. `bytes_left` None: there is room for everything.

    garbles: what a crash leaves of an un-synced write may be as long as the whole of it and end in zeros, or
    in noise: the length reached the disk before the bytes. indexes: what `MemoryIndex` keeps here, by folder.
    """

    def __init__(self, *, garbles: bool = False) -> None:
        self._garbles = garbles
        self.bytes_left: int | None = None
        self.is_sync_failing = False
        self.indexes: dict[Path, IndexContent] = {}
        self._files: dict[Path, _Content] = {}
        self._locks: dict[Path, MemoryLock] = {}

    def spend(self, count: int) -> None:
        """Take room for this many bytes; raises Fault when there is not enough."""
        if self.bytes_left is None:
            return
        if count > self.bytes_left:
            raise Fault("the disk is full", field="memory disk", mend="free space", code="disk")
        self.bytes_left -= count

    # --- as Disk has it -----------------------------------------------------------------------------

    def open_log(self, path: Path, *, read_only: bool = False) -> MemoryLog:
        if read_only and path not in self._files:
            raise Rejected("does not exist", field=str(path))
        return MemoryLog(self._files.setdefault(path, _Content()), self)

    def acquire_lock(self, path: Path) -> MemoryLock:
        if path in self._locks:
            raise Rejected("is locked by another process", field=str(path.parent), code="locked")
        lock = self._locks[path] = MemoryLock(self._locks, path)
        return lock

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

    # --- what befalls it ----------------------------------------------------------------------------

    def remove_all(self, folder: Path) -> None:
        """Delete a folder with all that lies in it, an index too; or one file."""
        for path in [path for path in self._files if path.is_relative_to(folder)]:
            del self._files[path]
        for path in [path for path in self.indexes if path.is_relative_to(folder)]:
            del self.indexes[path]

    def mend(self) -> None:
        """There is room again, and syncs succeed."""
        self.bytes_left = None
        self.is_sync_failing = False

    def get_data(self, path: Path) -> bytearray:
        """The bytes of a file, to look at or to damage. KeyError when there is none."""
        return self._files[path].data

    def get_durable_bytes(self, path: Path) -> int:
        """How much of a file would survive a crash for certain; 0 when there is none."""
        content = self._files.get(path)
        return 0 if content is None else content.durable_bytes

    def flip_bit(self, path: Path, rng: random.Random, bytes_min: int = FLIP_BYTES_MIN) -> bool:
        """Damage what is durable, in the first quarter of the file; whether there was enough to damage.

        The last record must stay sound: damage there cannot be told from a write that never finished. So
        `bytes_min` should exceed four thirds of the longest record.
        """
        content = self._files.get(path)
        if content is None or len(content.data) < bytes_min:
            return False
        place = rng.randrange(2 * len(content.data))
        content.data[place // 8] ^= 1 << place % 8
        return True

    def crash(self, rng: random.Random) -> None:
        """The machine loses power: what was not synced is gone, but for a part that the world draws.

        Without `garbles` that is half of the time a part cut anywhere, else nothing. Indexes keep all, the
        oldest of their blocks, or nothing.
        """
        self._locks.clear()
        for content in self._files.values():
            tail = bytes(content.data[content.durable_bytes :])
            if not tail:
                continue
            del content.data[content.durable_bytes :]
            content.data += _garble(tail, rng) if self._garbles else _tear(tail, rng)
            content.durable_bytes = len(content.data)
        for index in self.indexes.values():
            count = len(index.blocks)
            index.keep(rng.choice((count, 0, rng.randint(0, count))))


def _tear(tail: bytes, rng: random.Random) -> bytes:
    """Nothing, or a part of it cut anywhere."""
    return tail[: rng.randint(0, len(tail))] if rng.random() < 0.5 else b""


def _garble(tail: bytes, rng: random.Random) -> bytes:
    """Nothing, a part cut anywhere, or such a part and then zeros or noise to the full length."""
    kept = tail[: rng.randint(0, len(tail))]
    missing = len(tail) - len(kept)
    return rng.choice((b"", kept, kept + bytes(missing), kept + rng.randbytes(missing)))
