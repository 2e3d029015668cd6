"""The block file: every block body this node vouched for, and what became final, in order of writing.

    record = magic 4 | type 1 | height 8 | length 4 | head checksum 4 | payload | payload checksum 4

Both checksums are CRC-32: it finds every error of up to 32 bits in a row for certain (a truncated hash
only with high odds), costs a tenth of SHA-256, and need not resist malice: block hashes do that.
The length has a checksum of its own, so that a torn tail (the last record is incomplete: a crash before
its sync) is told from damage (anything else that does not hold), which is never skipped silently.

Invariant: what `sync` returned for is read back bit by bit, or reported as damage with its height.
Leaves out: what the payloads mean (store.py), what to do about damage (opening.py), and repair: another
node has the blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from consensus.block import BLOCK_BYTES_MAX
from consensus.errors import Fault
from consensus.vote import CERTIFICATE_BYTES_MAX
from node.store.disk import Disk, LogFile

MAGIC: Final = b"\x89asy"  # not text, and not zeros
IDENTITY: Final = 0  # first in the file: whose chain this is
BODY: Final = 1  # a block: valid, durable before this node votes for it, perhaps never final
FINAL: Final = 2  # a block and all its ancestors are final
TYPE_NAMES: Final = ("identity", "block", "finality mark")

_HEAD: Final = struct.Struct(">4sBQI")
_SUM: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _SUM.size
TAIL_BYTES: Final = _SUM.size
PAYLOAD_BYTES_MAX: Final = BLOCK_BYTES_MAX + 4 * CERTIFICATE_BYTES_MAX  # the largest block and its frame
READ_BYTES: Final = (
    1 << 22
)  # a scan reads 4 MiB at a time: one block of the largest size, hundreds of usual ones

# A power cut can leave a file longer than what reached it, the rest zeros. No payload of ours ends in
# that many zero bytes, and one damaged byte cannot make them.
ZERO_TAIL_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Record:
    """One intact record. `offset` is where its head begins, in bytes."""

    offset: int
    type: int
    height: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """What does not hold at `offset`. `height` is the damaged record's own where its head is intact.

    `payload` is there when only the head was hit: it tells which block that was.
    """

    offset: int
    height: int | None
    problem: str
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class TornTail:
    """The file ends at `offset` within a record: a write that was never synced, or is going on now."""

    offset: int
    bytes_left: int


def encode_record(type_: int, height: int, payload: bytes) -> bytes:
    """The bytes of one record."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Fault(
            f"a record of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} can be", field="block file"
        )
    head = _HEAD.pack(MAGIC, type_, height, len(payload))
    return b"".join((head, _SUM.pack(crc32(head)), payload, _SUM.pack(crc32(payload))))


def scan_records(log: LogFile, start: int = 0) -> Iterator[Record | Damage | TornTail]:
    """Every record from `start` to where the file ends now; goes on after damage where it can.

    A TornTail comes last if at all. What another process appends meanwhile is not looked at.
    """
    end = log.size
    window = _Window(log, end)
    offset = start
    while offset < end:
        if end - offset < HEAD_BYTES:
            yield TornTail(offset, end - offset)
            return
        head = _read_head(window.read(offset, HEAD_BYTES))
        if head is None:
            if window.is_zero(offset):
                yield TornTail(offset, end - offset)
                return
            found = _find_head(window, offset + 1, end)
            yield _describe_lost(window, offset, end if found is None else found)
            if found is None:
                return
            offset = found
            continue
        type_, height, length = head
        after = offset + HEAD_BYTES + length + TAIL_BYTES
        if after > end:
            yield TornTail(offset, end - offset)
            return
        data = window.read(offset + HEAD_BYTES, length + TAIL_BYTES)
        payload = data[:length]
        if _SUM.pack(crc32(payload)) == data[length:]:
            yield Record(offset, type_, height, payload)
        elif after == end and data.endswith(bytes(ZERO_TAIL_BYTES)):
            yield TornTail(offset, end - offset)
        else:
            yield Damage(offset, height, f"the checksum of its {TYPE_NAMES[type_]} record does not hold")
        offset = after


class BlockFile:
    """Appends and reads records. Raises Fault when the disk does. name, mend: what its errors say."""

    def __init__(self, log: LogFile, name: str = "block file", mend: str = "run `assay audit`") -> None:
        self._log = log
        self._name = name
        self._mend = mend

    @classmethod
    def open(cls, disk: Disk, path: Path, *, read_only: bool = False) -> BlockFile:
        return cls(disk.open_log(path, read_only=read_only))

    @property
    def size(self) -> int:
        return self._log.size

    def append(self, type_: int, height: int, payload: bytes) -> int:
        """Write a record at the end; returns its offset. Durable only after `sync`."""
        return self._log.append(encode_record(type_, height, payload))

    def read(self, offset: int) -> Record:
        """The record that begins at `offset`. Raises Fault, naming the height, when it is damaged."""
        head = _read_head(self._log.read(offset, HEAD_BYTES))
        if head is None:
            problem = f"the record head at byte {offset} is damaged"
            raise Fault(problem, field=self._name, mend=self._mend)
        type_, height, length = head
        data = self._log.read(offset + HEAD_BYTES, length + TAIL_BYTES)
        payload = data[:length]
        if len(data) != length + TAIL_BYTES or _SUM.pack(crc32(payload)) != data[length:]:
            problem = f"the record of height {height} at byte {offset} is damaged"
            raise Fault(problem, field=self._name, mend=self._mend)
        return Record(offset, type_, height, payload)

    def scan(self) -> Iterator[Record | Damage | TornTail]:
        """See `scan_records`."""
        return scan_records(self._log)

    def truncate(self, size: int) -> None:
        """Drop what comes after `size` bytes: a torn tail."""
        self._log.truncate(size)

    def sync(self) -> None:
        """Make every record appended so far durable."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()


class _Window:
    """Sequential reading through one large buffer."""

    def __init__(self, log: LogFile, end: int) -> None:
        self._log = log
        self._end = end
        self._start = 0
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            self._data = self._log.read(offset, min(max(length, READ_BYTES), self._end - offset))
            self._start, begin = offset, 0
        return self._data[begin : begin + length]

    def is_zero(self, offset: int) -> bool:
        """Whether nothing but zeros follows."""
        while offset < self._end:
            data = self._log.read(offset, min(READ_BYTES, self._end - offset))
            if data.count(0) != len(data):
                return False
            offset += len(data)
        return True


def _read_head(data: bytes) -> tuple[int, int, int] | None:
    """(type, height, length), or None when the head does not hold."""
    if len(data) != HEAD_BYTES or _SUM.pack(crc32(data[: _HEAD.size])) != data[_HEAD.size :]:
        return None
    magic, type_, height, length = _HEAD.unpack_from(data)
    if magic != MAGIC or type_ >= len(TYPE_NAMES) or length > PAYLOAD_BYTES_MAX:
        return None
    return type_, height, length


def _find_head(window: _Window, offset: int, end: int) -> int | None:
    """Where the next head that holds begins."""
    overlap = HEAD_BYTES - 1  # a head may lie across two reads
    while end - offset >= HEAD_BYTES:
        data = window.read(offset, min(READ_BYTES, end - offset))
        place = data.find(MAGIC)
        while place >= 0:
            if _read_head(data[place : place + HEAD_BYTES]) is not None:
                return offset + place
            place = data.find(MAGIC, place + 1)
        offset += max(1, len(data) - overlap)
    return None


def _describe_lost(window: _Window, offset: int, after: int) -> Damage:
    """The record between a damaged head and the next good one: its payload, if that still holds."""
    problem = "the head of its record does not hold"
    length = after - offset - HEAD_BYTES - TAIL_BYTES
    if 0 <= length <= PAYLOAD_BYTES_MAX:
        data = window.read(offset + HEAD_BYTES, length + TAIL_BYTES)
        if _SUM.pack(crc32(data[:length])) == data[length:]:
            return Damage(offset, None, problem, data[:length])
    return Damage(offset, None, problem)
