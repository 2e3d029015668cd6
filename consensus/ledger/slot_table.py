"""SlotTable: address -> slot, without a second copy of the addresses, for thousands of look-ups at once.

A dict of a million addresses is 140 MB of small objects, and each look-up waits for four of them in turn.
Here a look-up reads one line of 64 bytes, which holds eight entries, then the account's row, which whoever
looks it up reads anyway; in arrays, the processor waits for many lines at a time.

    entry   bits 32..63: the address's hash, highest bit set | bits 0..31: slot + 1 | all zero: free

Invariant: an entry lies in the line its hash names, or, as that one was full when it came, in the first
after it that was not; nothing is ever removed. So a line with a free place ends a search. The hash is
Python's own of bytes, keyed anew in each process: nobody can prepare addresses that share a line, and no
answer depends on it. Leaves out: the addresses themselves; `rows` are asked whether an entry is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ADDRESS_BYTES: Final = 20  # a row begins with its account's address
_ADDRESS: Final = np.dtype(f"V{ADDRESS_BYTES}")
_LINE_ENTRIES: Final = 8  # of 8 bytes: one cache line
_LINES_FIRST: Final = 256
_FEW: Final = 8  # so many are sooner looked up one by one than by arrays
_HASH_MASK: Final = 2**32 - 1
_HASH_MARK: Final = 2**31  # no entry is zero
_SLOT_MASK: Final = np.uint64(2**32 - 1)
_SHIFT: Final = np.uint64(32)

Rows = NDArray[np.uint8]
Int64s = NDArray[np.int64]


class SlotTable:
    """The committed accounts by address. At most half full, so that few lines are."""

    __slots__ = ("_count", "_lines")

    def __init__(self) -> None:
        self._count = 0
        self._lines = np.zeros((_LINES_FIRST, _LINE_ENTRIES), dtype=np.uint64)

    def __len__(self) -> int:
        return self._count

    def add(self, addresses: Sequence[bytes], first_slot: int) -> None:
        """These get `first_slot` and those after it; none of them has one yet."""
        count = len(addresses)
        if not count:
            return  # as of most blocks
        slots = np.arange(first_slot + 1, first_slot + 1 + count, dtype=np.uint64)
        entries = _compute_hashes(addresses) << _SHIFT | slots
        self._count += count
        lines = len(self._lines)
        if 2 * self._count > lines * _LINE_ENTRIES:
            while 2 * self._count > lines * _LINE_ENTRIES:
                lines *= 2
            entries = np.concatenate([self._lines[self._lines != 0], entries])
            self._lines = np.zeros((lines, _LINE_ENTRIES), dtype=np.uint64)
        self._insert(entries)

    def find(self, addresses: Sequence[bytes], rows: Rows) -> list[int]:
        """The slot of each, -1 where there is none. rows: uint8[accounts, ..], by slot."""
        if len(addresses) <= _FEW:
            return [self._find_one(address, rows) for address in addresses]
        hashes = _compute_hashes(addresses)
        lines = self._lines.take(self._find_home(hashes), axis=0)
        hits = np.flatnonzero(
            lines >> _SHIFT == hashes[:, np.newaxis]
        )  # nearly always one of each that exists
        number = hits // _LINE_ENTRIES
        met: Int64s = (lines.reshape(-1)[hits] & _SLOT_MASK).astype(np.int64) - 1
        wanted = np.frombuffer(b"".join(addresses), dtype=_ADDRESS)
        is_it = rows[:, :ADDRESS_BYTES].view(_ADDRESS)[met, 0] == wanted[number]
        slots = np.full(len(addresses), -1, dtype=np.int64)
        slots[number[is_it]] = met[is_it]
        answers: list[int] = slots.tolist()
        for open_one in np.flatnonzero((slots < 0) & (lines[:, -1] != 0)).tolist():
            answers[open_one] = self._find_one(addresses[open_one], rows)  # its line is full: look further
        return answers

    def _find_one(self, address: bytes, rows: Rows) -> int:
        hashed = hash(address) & _HASH_MASK | _HASH_MARK
        line = hashed & (len(self._lines) - 1)
        while True:
            entries: list[int] = self._lines[line].tolist()
            for entry in entries:
                if entry >> 32 == hashed:
                    slot = (entry & _HASH_MASK) - 1
                    if rows[slot, :ADDRESS_BYTES].tobytes() == address:
                        return slot
            if not entries[-1]:
                return -1
            line = (line + 1) & (len(self._lines) - 1)

    def _find_home(self, hashes: NDArray[np.uint64]) -> Int64s:
        return (hashes & np.uint64(len(self._lines) - 1)).astype(np.int64)

    def _insert(self, entries: NDArray[np.uint64]) -> None:
        line = self._find_home(entries >> _SHIFT)
        while len(entries):
            order = np.argsort(line, kind="stable")
            entries, line = entries[order], line[order]
            is_first = np.ones(len(line), dtype=np.bool_)
            np.not_equal(line[1:], line[:-1], out=is_first[1:])
            first = np.flatnonzero(is_first)
            rank = np.arange(len(line)) - first[np.cumsum(is_first) - 1]  # among those of the same line
            place = (self._lines[line] != 0).sum(axis=1) + rank
            has_room = place < _LINE_ENTRIES
            self._lines[line[has_room], place[has_room]] = entries[has_room]
            entries = entries[~has_room]
            line = (line[~has_room] + 1) & (len(self._lines) - 1)


def _compute_hashes(addresses: Sequence[bytes]) -> NDArray[np.uint64]:
    """uint64[n] below 2^32, the highest of these bits set."""
    hashes = np.fromiter(map(hash, addresses), dtype=np.int64, count=len(addresses)).view(np.uint64)
    return hashes & np.uint64(_HASH_MASK) | np.uint64(_HASH_MARK)
