"""The set shelf: sets of validators that the state may have forgotten, by epoch, for those who follow headers.

    sets.log   length | checksum | canonical (epoch, set), the set empty when it is the same as the epoch's before

The state keeps a set as long as evidence may speak of it; a header is trusted for a time, which may be more
epochs. Invariant: SETS_MAX sets at most, rising by epoch; what is damaged is forgotten, never guessed, and who asks
compares a set with the header that names it. Written without a sync: what a crash takes is only not told.
Leaves out: who asks (`desks/light.py`).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Final

from consensus import codec
from consensus.errors import Rejected
from consensus.ledger import epochs
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from node.store.disk import Disk, LogFile

SETS_MAX: Final = 1_024  # epochs; sets that do not change from one to the next are one object
REWRITE_FACTOR: Final = 2  # the file may hold so many times what is kept
_HEAD: Final = struct.Struct(">II")  # length, checksum
_ENTRY_BYTES_MAX: Final = rec.VALUE_BYTES_MAX + 64


class SetShelf:
    """`open` it; `get` and `add`; `close` it."""

    def __init__(self, log: LogFile, sets: dict[int, EpochSet]) -> None:
        self._log = log
        self._sets = sets  # by epoch, rising

    @classmethod
    def open(cls, path: Path, disk: Disk) -> SetShelf:
        """Raises Fault when the disk fails; damage costs what comes after it."""
        data = disk.read_file(path) or b""
        sets, sound, count = _scan(data)
        if sound < len(data) or count > REWRITE_FACTOR * SETS_MAX:
            disk.write_file(path, _encode_all(sets))
        return cls(disk.open_log(path), sets)

    def __len__(self) -> int:
        return len(self._sets)

    def __contains__(self, epoch: int) -> bool:
        return epoch in self._sets

    def get(self, epoch: int) -> EpochSet | None:
        return self._sets.get(epoch)

    def add(self, epoch: int, epoch_set: EpochSet) -> None:
        """One that is known, or older than the newest, changes nothing. Raises Fault when the disk fails."""
        if self._sets and epoch <= next(reversed(self._sets)):
            return
        last = self._sets.get(epoch - 1)
        is_same = last is not None and last == epoch_set
        self._log.append(_encode(epoch, None if is_same else epoch_set))
        self._sets[epoch] = last if is_same and last is not None else epoch_set
        _trim(self._sets)

    def close(self) -> None:
        self._log.close()


def _trim(sets: dict[int, EpochSet]) -> None:
    while len(sets) > SETS_MAX:
        del sets[next(iter(sets))]


def _encode(epoch: int, epoch_set: EpochSet | None) -> bytes:
    payload = codec.encode((epoch, b"" if epoch_set is None else epochs.encode_set(epoch_set)))
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _encode_all(sets: dict[int, EpochSet]) -> list[bytes]:
    return [
        _encode(epoch, None if sets.get(epoch - 1) == epoch_set else epoch_set)
        for epoch, epoch_set in sets.items()
    ]


def _scan(data: bytes) -> tuple[dict[int, EpochSet], int, int]:
    """(sets, bytes that are sound, entries)"""
    sets: dict[int, EpochSet] = {}
    offset = count = 0
    while offset + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, offset)
        payload = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            break
        try:
            value: Any = codec.decode(payload, what="sets.log", bytes_max=_ENTRY_BYTES_MAX)
            epoch, raw = codec.check_fields(value, 2, "sets.log")
        except Rejected:
            break
        found = epochs.decode_set(raw) if raw else sets.get(epoch - 1)
        if found is None:
            break
        sets[epoch] = found
        _trim(sets)
        offset += _HEAD.size + length
        count += 1
    return sets, offset, count
