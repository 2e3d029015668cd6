"""Checkpoints: dumps of the final state, so that a start re-executes a few blocks and not the chain.

    <height>-<block hash>.state = magic 8 | height 8 | block hash 32 | dump | SHA-256 of all before

A checkpoint is a cache: one that does not hold is passed over for the next older one, down to genesis.
The newest few are kept, and older ones ever farther apart, for questions about the past
(`explain` re-executes from the nearest earlier one).

Invariant: a file under its final name is whole and durable; the dump is the ledger's canonical one, so
an audit compares it bit by bit with the re-executed state. Leaves out: what a dump holds.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.errors import Rejected
from node.store.disk import UNFINISHED_SUFFIX, Disk

MAGIC: Final = b"assaych1"
NEWEST_KEPT: Final = 3  # a damaged newest one costs one interval of re-execution, two cost two
SPACING_RATIO: Final = 4  # to answer about block h of n, at most 3 (n - h) blocks are executed again
CHECKPOINTS_MAX: Final = 16  # each two fourfold the reach: some 10,000 intervals of 500 blocks
_HEAD: Final = struct.Struct(">8sQ32s")
_SUFFIX: Final = ".state"


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """Which state a checkpoint file holds: the one after this final block."""

    height: int
    block_hash: bytes

    @property
    def file_name(self) -> str:
        return f"{self.height:012d}-{self.block_hash.hex()}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose checksum holds: the ledger's dump, and the SHA-256 that ends the file."""

    dump: memoryview
    digest: bytes


def compute_digest(name: CheckpointName, chunks: Iterable[bytes]) -> bytes:
    """The SHA-256 (32 bytes) that ends the checkpoint file of this state dump."""
    digest = hashlib.sha256(_HEAD.pack(MAGIC, name.height, name.block_hash))
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


class CheckpointFolder:
    """The checkpoints/ folder of a home."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder

    def list_names(self) -> tuple[CheckpointName, ...]:
        """What is there, lowest height first. Files of other names are none of ours."""
        found = [_parse_name(name) for name in self._disk.list_names(self._folder)]
        return tuple(sorted((name for name in found if name is not None), key=lambda name: name.height))

    def write(self, name: CheckpointName, chunks: Iterable[bytes]) -> None:
        """Write a checkpoint whole and durable, then drop those too many. Raises Fault. Slow: in a thread."""
        for left in self._disk.list_names(self._folder):
            if left.endswith(_SUFFIX + UNFINISHED_SUFFIX):  # of a process that was killed while it wrote
                self._disk.remove(self._folder / left)
        self._disk.write_file(self._folder / name.file_name, _frame(name, chunks))
        names = self.list_names()
        kept = choose_kept([entry.height for entry in names])
        for entry in names:
            if entry.height not in kept:
                self._disk.remove(self._folder / entry.file_name)

    def read(self, name: CheckpointName) -> Checkpoint | None:
        """The checkpoint, None when the file is gone. Raises Rejected when it does not hold."""
        data = self._disk.read_file(self._folder / name.file_name)
        if data is None:
            return None
        field = f"checkpoint {name.height}"
        if len(data) < _HEAD.size + hashlib.sha256().digest_size:
            raise Rejected("is cut short", field=field, code="checkpoint")
        body = memoryview(data)[:-32]
        if hashlib.sha256(body).digest() != data[-32:]:
            raise Rejected("its checksum does not hold", field=field, code="checkpoint")
        if _HEAD.unpack_from(body) != (MAGIC, name.height, name.block_hash):
            raise Rejected("is of another block or format", field=field, code="checkpoint")
        return Checkpoint(body[_HEAD.size :], data[-32:])


def choose_kept(heights: Sequence[int]) -> frozenset[int]:
    """Which of these checkpoints stay: the newest few, and older ones ever farther apart.

    One is dropped when its neighbours' distances from the newest differ at most fourfold without it. As the
    chain grows such ratios only fall, so a gap that was small enough stays small enough.
    """
    ordered = sorted(set(heights), reverse=True)
    kept = ordered[:NEWEST_KEPT]
    older = ordered[NEWEST_KEPT:]
    for height, next_one in zip(older, [*older[1:], None], strict=False):
        if next_one is None or ordered[0] - next_one > SPACING_RATIO * (ordered[0] - kept[-1]):
            kept.append(height)
    return frozenset(kept[:CHECKPOINTS_MAX])


def _frame(name: CheckpointName, chunks: Iterable[bytes]) -> Iterator[bytes]:
    head = _HEAD.pack(MAGIC, name.height, name.block_hash)
    digest = hashlib.sha256(head)
    yield head
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def _parse_name(text: str) -> CheckpointName | None:
    height, _, rest = text.removesuffix(_SUFFIX).partition("-")
    if not text.endswith(_SUFFIX) or not height.isdecimal() or len(rest) != 64:
        return None
    try:
        name = CheckpointName(int(height), bytes.fromhex(rest))
    except ValueError:
        return None
    return name if name.file_name == text else None
