"""Work: the accounts and records that one block touches, while it is being applied.

The envelope of every kind is checked and applied here, in block order: a transfer may spend what an
earlier one of the block brought. Accounts are read from the view in one gather and written back in one
array; between, they are plain lists of integers, the fastest form for steps that depend on each other.

Invariant: `apply` changes nothing when it raises. Money moves and is never made: fees are kept aside
until the block's end, so that no transaction spends them. The supply is below 2^53, hence no balance
overflows.
Source: RFC 4303 section 3.4.3 (the nonce window). Leaves out: scores (judging.py), roots (execution.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.block import Header
from consensus.codec import TIME_MS_MAX, UINT64_MAX
from consensus.errors import NotYet, Rejected
from consensus.ledger import beacon, epochs, rewards
from consensus.ledger import records as rec
from consensus.ledger.cases import Case, Reported
from consensus.ledger.kinds import KIND_BY_NUMBER
from consensus.ledger.report import ANCHORS_MAX
from consensus.ledger.shelf import ModuleShelf
from consensus.ledger.state import HOT, NONCE_WINDOW, ROW_FIXED_BYTES, Rows, View
from consensus.ledger.tree import SLOTS_MAX
from consensus.parameters import CLOCK_WORKLOAD, Parameters
from consensus.transaction import Transaction
from consensus.vote import Certificate

_ADDRESS: Final = slice(0, 20)


class Work:
    """Mutable, and local to one call: what it became is handed on as arrays by `compute_rows`.

    index: address -> local index i; slots[i] is -1 until an account exists. height, epoch, timestamp_ms:
    the block's. `records`, `reports`, `cases` and balances are the kinds' to change.
    """

    def __init__(
        self,
        view: View,
        parameters: Parameters,
        timestamp_ms: int,
        transactions: Iterable[Transaction],
        *,
        chain_id: str,
        proposer: bytes,
        shelf: ModuleShelf,
    ) -> None:
        """`proposer`: the 20-byte address of its operator. Every kind's form was checked before."""
        self.parent: Header = view.header
        self.parameters = parameters
        self.chain_id = chain_id
        self.shelf = shelf
        self.module_room_bytes = view.row_bytes - ROW_FIXED_BYTES
        self.height = view.header.height + 1
        self.epoch = epochs.compute_epoch(self.height, parameters.epoch_blocks)
        self.timestamp_ms = timestamp_ms
        self.deadline_ms = TIME_MS_MAX  # the last block time at which all that was applied is valid
        self.records = view.records
        self.reports: list[Reported] = []
        self.cases: dict[bytes, Case] = {}  # by key: what the block makes of them, written at its end
        self.fees = 0
        self.models_made = 0  # publications that became whole
        self.proposer = proposer
        self._view = view
        self._creation_fee = view.row_bytes * parameters.account_byte_fee_units

        index: dict[bytes, int] = {}
        for tx in transactions:
            index.setdefault(tx.sender, len(index))
            index.setdefault(tx.receiver, len(index))
            for address in KIND_BY_NUMBER[tx.kind].get_accounts(tx):
                index.setdefault(address, len(index))
        index.setdefault(proposer, len(index))
        self.index = index
        self.slots = view.find_slots(tuple(index))
        self.created: dict[bytes, int] = {}
        self.rows: Rows = view.read_rows(np.array(self.slots, dtype=np.int64))
        hot = np.ascontiguousarray(self.rows[:, HOT]).view(">u8").T
        self.balance: list[int] = hot[0].tolist()
        self.nonce_next: list[int] = hot[1].tolist()
        self.nonce_window: list[int] = hot[2].tolist()

    def is_existing(self, address: bytes) -> bool:
        """Whether the account exists now; it is one of the addresses that transactions name."""
        return self.slots[self.index[address]] >= 0

    def get_history_root(self, height: int) -> bytes | None:
        """The history root in the header of a recent block at or below the parent."""
        return self._view.get_history_root(height)

    def compute_time_ms(self, tx: Transaction) -> int:
        """When a transaction does what it does: nearly its block's time, which may still rise while that is built."""
        return max(self.parent.timestamp_ms, tx.timestamp_ms)

    def check(self, tx: Transaction) -> None:
        """Raises Rejected or NotYet unless `tx` may happen now, after all that was applied."""
        parameters, now_ms = self.parameters, self.timestamp_ms
        kind = KIND_BY_NUMBER[tx.kind]
        if now_ms > tx.expires_ms:
            raise Rejected(
                f"{tx.expires_ms} is before the block's time {now_ms}", field="expires_ms", code="expired"
            )
        age_deadline_ms = tx.timestamp_ms + parameters.timestamp_age_ms_max
        if now_ms > age_deadline_ms:
            raise Rejected(
                f"{tx.timestamp_ms} is more than {parameters.timestamp_age_ms_max} ms before the block's time {now_ms}",
                field="timestamp_ms",
                code="timestamp",
            )
        if tx.timestamp_ms > now_ms and (
            parameters.clock == CLOCK_WORKLOAD or tx.timestamp_ms > now_ms + parameters.clock_drift_ms_max
        ):
            raise NotYet(
                f"{tx.timestamp_ms} is ahead of the block's time {now_ms}",
                field="timestamp_ms",
                code="timestamp",
            )
        sender, receiver = self.index[tx.sender], self.index[tx.receiver]
        if self.slots[sender] < 0:
            raise Rejected(
                f"account 0x{tx.sender.hex()} does not exist",
                field="sender",
                mend="fund it first",
                code="unfunded",
            )
        next_nonce, window = self.nonce_next[sender], self.nonce_window[sender]
        behind = next_nonce - 1 - tx.nonce
        if behind >= 0:
            if behind >= NONCE_WINDOW:
                raise Rejected(
                    f"{tx.nonce} is too far below the account's highest",
                    field="nonce",
                    mend=f"use {next_nonce}",
                    code="nonce_too_old",
                )
            if window >> behind & 1:
                raise Rejected(
                    f"{tx.nonce} was used before", field="nonce", mend=f"use {next_nonce}", code="nonce_used"
                )
        is_new = self.slots[receiver] < 0
        fee_min = parameters.fee_units_min + (self._creation_fee if is_new else 0)
        if tx.fee < fee_min:
            what = "creating the receiver's account" if is_new else "a transaction"
            raise Rejected(
                f"{tx.fee}, {what} costs {fee_min}", field="fee", mend=f"use {fee_min}", code="fee"
            )
        cost = tx.amount + tx.fee
        if self.balance[sender] < cost:
            raise Rejected(
                f"amount and fee are {cost}, the sender has {self.balance[sender]}",
                field="amount",
                code="unfunded",
            )
        if is_new and self._view.account_count + len(self.created) >= SLOTS_MAX:
            raise Rejected(
                f"there are {SLOTS_MAX} accounts, no more fit", field="receiver", code="accounts_full"
            )
        kind.check(tx, self)

    def apply(self, tx: Transaction) -> None:
        """One transaction, wholly or not at all. Raises Rejected or NotYet."""
        self.check(tx)
        sender, receiver = self.index[tx.sender], self.index[tx.receiver]
        window = self.nonce_window[sender]
        behind = self.nonce_next[sender] - 1 - tx.nonce
        if behind >= 0:
            self.nonce_window[sender] = window | 1 << behind
        else:
            self.nonce_next[sender] = tx.nonce + 1
            self.nonce_window[sender] = (window << -behind | 1) & UINT64_MAX if -behind < NONCE_WINDOW else 1
        if self.slots[receiver] < 0:
            self.slots[receiver] = self._view.account_count + len(self.created)
            self.created[tx.receiver] = self.slots[receiver]
        self.balance[sender] -= tx.amount + tx.fee
        self.balance[receiver] += tx.amount
        self.fees += tx.fee
        kind = KIND_BY_NUMBER[tx.kind]
        self.deadline_ms = min(
            self.deadline_ms,
            tx.expires_ms,
            tx.timestamp_ms + self.parameters.timestamp_age_ms_max,
            kind.get_deadline_ms(tx, self.parameters),
        )
        kind.apply(tx, self)

    def close(
        self, history_root: bytes, proposer: int, certificate: Certificate | None, reveal: bytes
    ) -> None:
        """The block's end: who earns what, upkeep of the kinds, the new history root on record.

        proposer: its index in the epoch's set; certificate: the parent's; reveal: checked. Without epochs all fees are the
        proposer's at once: no end of an epoch would ever share them out.
        """
        for kind in KIND_BY_NUMBER.values():
            kind.close(self)
        self.records = beacon.apply_reveal(self.records, self.proposer, self.epoch, reveal)
        if self.parameters.epoch_blocks:
            rewards.close_block(self, proposer, certificate)
        else:
            self.balance[self.index[self.proposer]] += self.fees
            self.fees = 0
        self.records = self.records.put(rec.NAMESPACE_ANCHOR + self.height.to_bytes(8, "big"), history_root)
        forgotten = self.height - ANCHORS_MAX
        if forgotten >= 0:
            self.records = self.records.remove(rec.NAMESPACE_ANCHOR + forgotten.to_bytes(8, "big"))

    def compute_rows(self, local: NDArray[np.int64], module_rows: Rows) -> tuple[NDArray[np.int64], Rows]:
        """(slots, rows) of the accounts that changed, by rising slot.

        local: int64[j], local indices; module_rows: uint8[j, module row bytes], their new module rows.
        """
        rows = self.rows.copy()
        hot = [array("Q", column) for column in (self.balance, self.nonce_next, self.nonce_window)]
        columns = np.array([np.frombuffer(column, dtype=np.uint64) for column in hot]).T
        rows[:, HOT] = np.ascontiguousarray(columns.astype(">u8")).view(np.uint8)
        for address in self.created:
            rows[self.index[address], _ADDRESS] = np.frombuffer(address, dtype=np.uint8)
        if len(local):
            rows[local, HOT.stop :] = module_rows
        slots = np.array(self.slots, dtype=np.int64)
        is_changed = (rows != self.rows).any(axis=1) & (slots >= 0)
        is_changed[[self.index[address] for address in self.created]] = True  # even a row of zeros has a leaf
        changed = np.flatnonzero(is_changed)
        order = changed[np.argsort(slots[changed], kind="stable")]
        return slots[order], rows.take(order, axis=0)
