"""State, Delta and View: the accounts and records after a block, and how unfinal blocks lie over them.

An account is one row of bytes: address (20) | balance (8) | nonce_next (8) | nonce_window (8) |
module rows, integers big-endian. Rows lie in slots, in order of creation; the row *is* the leaf of
the tree, so that reading, writing, hashing and dumping are one array operation each.

Invariant: root = SHA-256(STATE_TAG | canonical (account count, accounts root, records root, history
size, history root)): no bit of the state can change without it. Only `State.commit` changes a
State; Deltas and Views never change, and a View whose ancestor was not the one committed is a Fault.
Leaves out: what a block does (work.py, execution.py); what is at stake, which is all in records.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus import codec, crypto
from consensus.block import Header
from consensus.errors import Fault
from consensus.ledger import epochs, staking
from consensus.ledger import records as rec
from consensus.ledger import tree as tr
from consensus.ledger.epochs import EpochSet
from consensus.ledger.records import Records
from consensus.ledger.slot_table import ADDRESS_BYTES, SlotTable
from consensus.ledger.tree import Tree, TreeDelta
from consensus.merkle import CompactRange

STATE_TAG: Final = b"assay/state/1"
ROW_FIXED_BYTES: Final = 44  # address and three integers of 8 bytes
HOT: Final = slice(20, 44)  # balance, nonce_next, nonce_window
NONCE_WINDOW: Final = 64  # as many nonces below the highest one can still come, RFC 4303 section 3.4.3
_FIXED: Final = struct.Struct(">20s3Q")
_SLOTS_FIRST: Final = 1024
_ADDRESSES_AT_ONCE: Final = 1 << 16  # bounds what filling a whole state copies
PACK_ERROR: Final = struct.error  # what `encode_account` raises for numbers that are none of an account's

Rows = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Account:
    """balance in smallest units. nonce_next: one above the highest nonce used; bit i of
    nonce_window (64 bits) is set when nonce_next - 1 - i was used."""

    address: bytes
    balance: int
    nonce_next: int
    nonce_window: int

    def is_nonce_free(self, nonce: int) -> bool:
        """Whether a transaction with this nonce could still come."""
        behind = self.nonce_next - 1 - nonce
        return behind < 0 or (behind < NONCE_WINDOW and not self.nonce_window >> behind & 1)


def encode_account(account: Account) -> bytes:
    """The first 44 bytes of its row."""
    return _FIXED.pack(account.address, account.balance, account.nonce_next, account.nonce_window)


def decode_account(row: bytes) -> Account:
    """The account of a row (its first 44 bytes)."""
    return Account(*_FIXED.unpack_from(row))


def compute_state_root(
    account_count: int, accounts_root: bytes, records_root: bytes, history_size: int, history_root: bytes
) -> bytes:
    """What a header commits to as `state_root`, 32 bytes."""
    fields = (account_count, accounts_root, records_root, history_size, history_root)
    return crypto.hash_bytes(STATE_TAG + codec.encode(fields))


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What one block changes: absolute values, so that it lies over its parent's state.

    slots: int64[k], rising; rows: uint8[k, row_bytes] after the block; created: address -> slot.
    history: the frontier over the hashes of blocks 0..height-1. is_tail: past its epoch's boundary, it
    changes nothing and is never committed.
    """

    header: Header
    slots: NDArray[np.int64]
    rows: Rows
    created: Mapping[bytes, int]
    account_count: int
    tree: TreeDelta
    records: Records
    history: CompactRange
    is_tail: bool = False

    @property
    def root(self) -> bytes:
        return self.header.state_root


class State:
    """The committed base: the state after the last final block. One per node; `commit` changes it."""

    __slots__ = (
        "_rows",
        "_slots",
        "account_count",
        "header",
        "history",
        "records",
        "row_bytes",
        "tree",
    )

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self.account_count = 0
        self.tree = Tree()
        self.records = Records()
        self.history = CompactRange()
        self.header: Header
        self._rows: Rows = np.zeros((_SLOTS_FIRST, row_bytes), dtype=np.uint8)
        self._slots = SlotTable()

    @property
    def root(self) -> bytes:
        return self.header.state_root

    @property
    def rows(self) -> Rows:
        """uint8[account_count, row_bytes], read-only: all account rows by slot."""
        rows = self._rows[: self.account_count]
        rows.flags.writeable = False
        return rows

    def compute_root(self) -> bytes:
        history = self.history
        return compute_state_root(
            self.account_count, self.tree.root, self.records.root, history.size, history.root
        )

    def view(self) -> View:
        return View(self, (), self.header)

    def fill(self, rows: Rows, records: Records, history: CompactRange) -> bytes:
        """Sets an empty state to these contents, and returns its root; the caller sets `header`.

        `rows` is taken over, not copied, when it can be written to.
        """
        count = len(rows)
        slots = SlotTable()
        for first in range(0, count, _ADDRESSES_AT_ONCE):
            part = rows[first : first + _ADDRESSES_AT_ONCE, :ADDRESS_BYTES].tobytes()
            addresses = [part[at : at + ADDRESS_BYTES] for at in range(0, len(part), ADDRESS_BYTES)]
            if len(set(addresses)) < len(addresses) or max(slots.find(addresses, rows)) >= 0:
                raise Fault("an address has two slots", field="state.accounts")
            slots.add(addresses, first)
        if count:
            self._rows = np.require(rows, dtype=np.uint8, requirements=("C", "W", "O"))
        self._slots, self.account_count = slots, count
        self.tree.build(self._rows[:count])
        self.records, self.history = records, history
        return self.compute_root()

    def commit(self, delta: Delta) -> None:
        """Takes over a final block's delta. Raises Fault unless it is a child of the committed block."""
        if delta.header.parent_hash != self.header.hash:
            raise Fault(
                f"block {delta.header.height} is not a child of the committed block {self.header.height}",
                field="state.commit",
            )
        if delta.is_tail:
            raise Fault(
                f"the tail of view {delta.header.view} is never committed",
                field="state.commit",
                mend="commit up to the boundary block",
            )
        self.tree.reserve(delta.account_count)
        if delta.account_count > len(self._rows):
            grown = np.zeros((max(delta.account_count, 2 * len(self._rows)), self.row_bytes), dtype=np.uint8)
            grown[: self.account_count] = self._rows[: self.account_count]
            self._rows = grown
        tr.view_lines(self._rows)[delta.slots] = tr.view_lines(delta.rows)
        self._slots.add(tuple(delta.created), self.account_count)
        self.account_count = delta.account_count
        self.tree.write(delta.tree)
        self.records, self.history, self.header = delta.records, delta.history, delta.header

    def find_slots(self, addresses: Sequence[bytes]) -> list[int]:
        """The slot of each address, -1 where there is no such account."""
        return self._slots.find(addresses, self._rows)

    def read_rows(self, slots: NDArray[np.int64]) -> Rows:
        """A copy of the rows at `slots`; zeros where a slot is -1 or beyond the accounts."""
        inside = (slots >= 0) & (slots < self.account_count)
        if inside.all():
            return self._rows.take(slots, axis=0)
        found = np.zeros((len(slots), self.row_bytes), dtype=np.uint8)
        found[inside] = self._rows.take(slots[inside], axis=0)
        return found


class View:
    """Read-only: the state after one block, as the base and the deltas of unfinal blocks over it.

    It stays right while its own ancestors are committed; when another block was, using it is a Fault.
    """

    __slots__ = (
        "_base_hash",
        "_deltas",
        "_state",
        "account_count",
        "header",
        "history",
        "is_tail",
        "records",
        "tree_root",
    )

    def __init__(self, state: State, deltas: Sequence[Delta], header: Header) -> None:
        self._state = state
        self._deltas = tuple(deltas)
        self._base_hash = state.header.hash
        self.header = header
        last = deltas[-1] if deltas else state
        self.account_count = last.account_count
        self.records = last.records
        self.history = last.history
        self.tree_root = last.tree.root
        self.is_tail = bool(deltas) and deltas[-1].is_tail

    @property
    def root(self) -> bytes:
        return self.header.state_root

    @property
    def row_bytes(self) -> int:
        return self._state.row_bytes

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """The deltas that are not committed yet, oldest first. Raises Fault when the view is stale."""
        base = self._state.header
        if base.hash == self._base_hash:
            return self._deltas
        for place, delta in enumerate(self._deltas):
            if delta.header.hash == base.hash:
                return self._deltas[place + 1 :]
        raise Fault(
            f"made at block {self.header.height}, but block {base.height} of another branch or later is committed",
            field="state.view",
        )

    def extend(self, delta: Delta) -> View:
        """The view after a child block. Raises Fault when `delta` is no child of this view's block."""
        if delta.header.parent_hash != self.header.hash:
            raise Fault(
                f"block {delta.header.height} is not a child of block {self.header.height}", field="view"
            )
        deltas = self.deltas
        if self.is_tail:
            deltas = deltas[:-1]  # it changed nothing, and a thousand tails need not be walked through
        return View(self._state, (*deltas, delta), delta.header)

    def find_slots(self, addresses: Sequence[bytes]) -> list[int]:
        """The slot of each address, -1 where there is no such account."""
        deltas = self.deltas
        slots = self._state.find_slots(addresses)
        if deltas and -1 in slots:
            for place, slot in enumerate(slots):
                if slot < 0:
                    for delta in deltas:
                        slots[place] = delta.created.get(addresses[place], slots[place])
        return slots

    def read_rows(self, slots: NDArray[np.int64]) -> Rows:
        """uint8[k, row_bytes], a copy; zeros where a slot is -1."""
        rows = self._state.read_rows(slots)
        for delta in self.deltas:
            tr.overlay(rows, slots, delta.slots, delta.rows)
        return rows

    def read_children(self, level: int, parents: NDArray[np.int64]) -> Rows:
        """uint8[p, 512]: all children at `level` of the nodes `parents` at level + 1."""
        children = self._state.tree.read_children(level, parents)
        for delta in self.deltas:
            tr.overlay(children, parents, delta.tree.parents[level], delta.tree.children[level])
        return children

    def compute_tree_update(self, slots: NDArray[np.int64], rows: Rows) -> TreeDelta:
        """What changes in the tree when `rows` are written at `slots` (rising, each once)."""
        pending = [delta.tree for delta in self.deltas]
        return tr.compute_update(self._state.tree, pending, slots, tr.hash_rows(rows, 0), self.tree_root)

    def get_row(self, address: bytes) -> bytes | None:
        """The account's whole row, or None."""
        slot = self.find_slots((address,))[0]
        if slot < 0:
            return None
        row: bytes = self.read_rows(np.array([slot], dtype=np.int64))[0].tobytes()
        return row

    def get_account(self, address: bytes) -> Account | None:
        row = self.get_row(address)
        return None if row is None else decode_account(row)

    def get_module_rows(self, address: bytes) -> bytes | None:
        """The rows of all modules, in the order of the chain's modules, one after another."""
        row = self.get_row(address)
        return None if row is None else row[ROW_FIXED_BYTES:]

    def get_record(self, namespace: bytes, key: bytes) -> bytes | None:
        return self.records.get(namespace + key)

    @property
    def supply(self) -> int:
        """All money, in smallest units: of genesis, and issued, less what was burned (supply.py)."""
        value = self._get_parameter(rec.PARAMETER_SUPPLY)
        genesis, issued, burned = (int.from_bytes(value[at : at + 8], "big") for at in (0, 8, 16))
        return genesis + issued - burned

    def find_set(self, epoch: int) -> EpochSet | None:
        """Who validates in this epoch; None when it is forgotten, or not fixed yet."""
        return epochs.find_set(self.records, epoch)

    def get_bonded_units(self, address: bytes) -> int:
        """What this account has at stake, in its own validator and in others'. For reading, not for blocks."""
        return staking.compute_bonded_units(self.records, address)

    @property
    def modules_record(self) -> bytes:
        """The canonical list of the modules that judge the next block."""
        return self._get_parameter(rec.PARAMETER_MODULES)

    def is_reporter(self, address: bytes) -> bool:
        """Whether this account is on record as a reporter, one that was struck off too: no leave to report."""
        return self.get_record(rec.NAMESPACE_REPORTER, address) is not None

    def get_history_root(self, height: int) -> bytes | None:
        """The history root in the header of block `height`, if it is one of the last kept."""
        if not 0 <= height <= codec.MONEY_MAX:
            return None
        return self.get_record(rec.NAMESPACE_ANCHOR, height.to_bytes(8, "big"))

    def _get_parameter(self, key: bytes) -> bytes:
        value = self.get_record(rec.NAMESPACE_PARAMETER, key)
        if value is None:
            raise Fault(f"parameter {key.hex()} is missing", field="state.records")
        return value
