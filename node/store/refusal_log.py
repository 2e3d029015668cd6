"""The refusal log on disk: every leaf in order, with the transaction that it speaks of.

    refusals-N.log    N counts how often this node began anew, having lost what its blocks commit to

Records are those of the block file: identity first, then an entry for each leaf (its number for a height), and
marks that say how far the chain was searched for blocks of this node's own. In memory: some 25 bytes a leaf.

Invariant: append-only; what `sync` returned for is there after any crash, with the same root. A torn tail is
cut off, damage with sound records after it is a Fault that says what to do. Leaves out: what is logged, and when a log is
begun anew (`duties/refusal_keeper.py`); old entries stay for good, as consistency proofs need them.
"""

from __future__ import annotations

import re
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus import codec, crypto, merkle
from consensus.errors import Fault, Rejected
from consensus.refusal import (
    LogBeginning,
    LogEntry,
    LogHead,
    RefusalEntry,
    decode_entry,
    encode_entry,
)
from consensus.transaction import Transaction, decode_transaction
from node.store import block_file
from node.store.block_file import BODY, FINAL, IDENTITY, BlockFile, Damage, TornTail
from node.store.disk import Disk
from node.store.id_index import IdIndex
from node.store.tile_tree import TileTree

NO_ID: Final = bytes(crypto.HASH_BYTES)  # of a beginning, which is about no transaction
_NAME: Final = re.compile(r"refusals-(\d{1,9})\.log")
_HEAD: Final = struct.Struct(">32sH")  # transaction id, length of the leaf; then leaf and transaction
_IDENTITY_BYTES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Logged:
    """Leaf number `index`: its data as hashed, what that says, and the transaction it is about."""

    index: int
    leaf: bytes
    entry: LogEntry
    transaction: Transaction | None


@dataclass(frozen=True, slots=True)
class Searched:
    """Up to this final height the chain was searched, and this was its node's own newest block; 0: none."""

    height: int = 0
    own_height: int = 0


class RefusalLog:
    """One node's log, open for writing. All methods block for the time of a disk access and raise its Faults."""

    def __init__(self, disk: Disk, home: Path, chain_digest: bytes, number: int) -> None:
        self._disk = disk
        self._home = home
        self._chain_digest = chain_digest
        self.number = number
        self.searched = Searched()
        self.cut_bytes = 0  # of a torn tail, at opening
        self._path = home / f"refusals-{number}.log"
        mend = (
            f"move {self._path.name} away: the node begins a new log then, whose first entry says that "
            "this one was lost"
        )
        self._file = BlockFile(disk.open_log(self._path), str(self._path), mend)
        self._mend = mend
        self._offsets = array("Q")
        self._ids = IdIndex()
        self._tree = TileTree(self._read_hashes)
        self._is_synced = False  # what a process left that was killed may still be on its way to the disk
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def open(cls, disk: Disk, home: Path, chain_digest: bytes) -> RefusalLog:
        """The newest log of a home, or an empty first one. Raises Fault: damage, or another chain's log."""
        found = (_NAME.fullmatch(name) for name in disk.list_names(home))
        return cls(disk, home, chain_digest, max((int(match[1]) for match in found if match), default=0))

    def begin_anew(self, beginning: LogBeginning) -> RefusalLog:
        """A new log, whose first leaf says what became of this one. Closes this; its file stays."""
        self._file.close()
        log = RefusalLog(self._disk, self._home, self._chain_digest, self.number + 1)
        log.append(beginning)
        log.mark(self.searched)
        return log

    # --- writing --------------------------------------------------------------------------------

    def append(self, entry: LogEntry, transaction: Transaction | None = None) -> int:
        """The index of the new leaf. Durable only after `sync`."""
        leaf = encode_entry(entry)
        entry_id = entry.transaction_id if isinstance(entry, RefusalEntry) else NO_ID
        raw = b"" if transaction is None else transaction.raw
        index = len(self)
        offset = self._file.append(BODY, index, _HEAD.pack(entry_id, len(leaf)) + leaf + raw)
        self._is_synced = False
        self._add(offset, entry_id, leaf)
        return index

    def mark(self, searched: Searched) -> None:
        """Remember how far the chain was searched. Goes with the next sync, and may be lost before."""
        self._file.append(FINAL, searched.height, codec.encode((searched.own_height,)))
        self.searched = searched

    def sync(self) -> None:
        """Make every leaf durable, if one is not."""
        if not self._is_synced:
            self._file.sync()
            self._is_synced = True

    def close(self) -> None:
        self._file.close()

    # --- reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._offsets)

    def get_head(self, count: int | None = None) -> LogHead:
        """Of the first `count` leaves, all by default; ValueError when there are fewer."""
        count = len(self) if count is None else count
        return LogHead(count, self._tree.root(count))

    def holds(self, head: LogHead) -> bool:
        """Whether this log begins with the one that `head` is of."""
        return head.count <= len(self) and self.get_head(head.count) == head

    def get(self, index: int) -> Logged:
        """IndexError outside the log."""
        if not 0 <= index < len(self):
            raise IndexError(f"entry {index} of a log with {len(self)}")
        _, leaf, raw = self._read(index)
        try:
            return Logged(index, leaf, decode_entry(leaf), decode_transaction(raw) if raw else None)
        except Rejected as error:  # its checksum holds: we wrote it so, or a later version did
            raise Fault(f"entry {index}: {error}", field=str(self._path), mend=self._mend) from None

    def find(self, transaction_id: bytes) -> tuple[Logged, ...]:
        """Every entry about this transaction, the oldest first: one for each set of modules that refused it."""
        return tuple(
            self.get(index)
            for index in self._ids.find(transaction_id)
            if self._read(index)[0] == transaction_id
        )

    def prove_inclusion(self, index: int, count: int) -> tuple[bytes, ...]:
        """Of leaf `index` in the log as it was with `count`; IndexError, ValueError when it never was so."""
        return self._tree.prove_inclusion(index, count)

    def prove_consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """That the first `first` leaves begin the first `second`; ValueError unless 0 < first <= second <= all."""
        return self._tree.prove_consistency(first, second)

    # --- inside ---------------------------------------------------------------------------------

    def _load(self) -> None:
        is_known, cut_from = False, -1
        for found in self._file.scan():
            if isinstance(found, TornTail | Damage):
                cut_from = found.offset if cut_from < 0 else cut_from
                continue
            if cut_from >= 0:
                raise self._describe_damage(cut_from)
            if (found.type == IDENTITY) == is_known:  # comes first, and once
                raise self._describe_damage(found.offset)
            match found.type:
                case block_file.IDENTITY:
                    self._check_identity(found.payload)
                    is_known = True
                case block_file.FINAL:
                    fields = codec.decode(found.payload, what="mark", bytes_max=_IDENTITY_BYTES_MAX)
                    self.searched = Searched(found.height, codec.check_fields(fields, 1, "mark")[0])
                case _:
                    if found.height != len(self):
                        raise self._describe_damage(found.offset)
                    entry_id, leaf, _ = _split(found.payload)
                    self._add(found.offset, entry_id, leaf)
        if cut_from >= 0:
            # Nothing sound comes after it. If it took what a block commits to, the keeper says so in a new log.
            self.cut_bytes = self._file.size - cut_from
            self._file.truncate(cut_from)
        if not is_known:
            self._file.append(IDENTITY, 0, codec.encode((self._chain_digest, self.number)))

    def _check_identity(self, payload: bytes) -> None:
        identity = codec.decode(payload, what="identity", bytes_max=_IDENTITY_BYTES_MAX)
        if identity != (self._chain_digest, self.number):
            raise Rejected(
                "is the log of another chain",
                field=str(self._path),
                mend="give every chain a home of its own",
            )

    def _describe_damage(self, offset: int) -> Fault:
        return Fault(
            f"is damaged at byte {offset}, after {len(self)} sound entries",
            field=str(self._path),
            mend=self._mend,
        )

    def _add(self, offset: int, entry_id: bytes, leaf: bytes) -> None:
        self._offsets.append(offset)
        self._ids.add(entry_id)
        self._tree.append(merkle.hash_leaf(leaf))

    def _read(self, index: int) -> tuple[bytes, bytes, bytes]:
        return _split(self._file.read(self._offsets[index]).payload)

    def _read_hashes(self, begin: int, end: int) -> list[bytes]:
        return [merkle.hash_leaf(self._read(index)[1]) for index in range(begin, end)]


def _split(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """(transaction id, leaf, transaction) of an entry's record, whose checksum holds."""
    entry_id, length = _HEAD.unpack_from(payload)
    end = _HEAD.size + length
    return entry_id, payload[_HEAD.size : end], payload[end:]
