"""Proofs for an account: its row, its slot, and the path from there to a state root.

A proof shows what an account held after a block whose header carries the state root; a light client
needs that header and its certificate, nothing else. Invariant: `verify_account_proof` answers False to
any nonsense and never raises on it.
Leaves out: absence. Accounts lie in order of creation, not of address: that an address has no account
cannot be shown short of all accounts. Nobody should read a missing proof as a proof of absence.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np

from consensus import codec
from consensus.errors import Rejected
from consensus.ledger import state, tree
from consensus.ledger.state import Account, View
from consensus.parameters import MODULE_ROOM_BYTES_MAX

SIBLINGS_BYTES: Final = tree.BLOCK_BYTES - tree.HASH_BYTES  # fifteen hashes


@dataclass(frozen=True, slots=True)
class AccountProof:
    """account and module_rows: the leaf. siblings[l]: the other fifteen nodes (480 bytes) at level l,
    from the leaves up; the rest is what the state root is made of besides the accounts' root."""

    account: Account
    module_rows: bytes
    slot: int
    siblings: tuple[bytes, ...]
    account_count: int
    records_root: bytes
    history_size: int
    history_root: bytes

    def as_tuple(self) -> tuple[Any, ...]:
        """The form that is encoded: (row, slot, siblings, account count, records root, history size and root)."""
        return (
            state.encode_account(self.account) + self.module_rows,
            self.slot,
            self.siblings,
            self.account_count,
            self.records_root,
            self.history_size,
            self.history_root,
        )

    @classmethod
    def from_tuple(cls, value: Any) -> AccountProof:
        """The proof that `as_tuple` made. Raises Rejected."""
        row, slot, siblings, count, records_root, history_size, history_root = codec.check_fields(
            value, 7, "proof"
        )
        codec.check_bytes(row, "proof.row", length_max=state.ROW_FIXED_BYTES + MODULE_ROOM_BYTES_MAX)
        if len(row) < state.ROW_FIXED_BYTES:
            raise Rejected(f"{len(row)} bytes are no account", field="proof.row", code="size")
        codec.check_int(count, "proof.account_count", low=1, high=tree.SLOTS_MAX)
        codec.check_int(slot, "proof.slot", high=count - 1)
        codec.check_fields(siblings, tree.DEPTH, "proof.siblings")
        for others in siblings:
            codec.check_bytes(others, "proof.siblings", length=SIBLINGS_BYTES)
        codec.check_bytes(records_root, "proof.records_root", length=tree.HASH_BYTES)
        codec.check_int(history_size, "proof.history_size")
        codec.check_bytes(history_root, "proof.history_root", length=tree.HASH_BYTES)
        account = state.decode_account(row)
        return cls(
            account,
            row[state.ROW_FIXED_BYTES :],
            slot,
            siblings,
            count,
            records_root,
            history_size,
            history_root,
        )


def prove_account(view: View, address: bytes) -> AccountProof:
    """The proof of an account in `view`, against `view.root`. Raises Rejected when there is none."""
    slot = view.find_slots((address,))[0]
    row = view.get_row(address)
    if row is None:
        raise Rejected(f"0x{address.hex()} is not an account", field="address", code="account_unknown")
    siblings = []
    for level in range(tree.DEPTH):
        place = slot >> 4 * level
        children = view.read_children(level, np.array([place >> 4], dtype=np.int64))[0].tobytes()
        start = (place & 15) * tree.HASH_BYTES
        siblings.append(children[:start] + children[start + tree.HASH_BYTES :])
    return AccountProof(
        state.decode_account(row),
        row[state.ROW_FIXED_BYTES :],
        slot,
        tuple(siblings),
        view.account_count,
        view.records.root,
        view.history.size,
        view.history.root,
    )


def verify_account_proof(proof: AccountProof, state_root: bytes) -> bool:
    """Whether the state with this root holds exactly this account."""
    try:
        AccountProof.from_tuple(proof.as_tuple())
    except (Rejected, TypeError, OverflowError, state.PACK_ERROR):
        return False
    row = state.encode_account(proof.account) + proof.module_rows
    root = tree.compute_path_root(proof.slot, sha256(b"\x00" + row).digest(), proof.siblings)
    fields = (proof.account_count, root, proof.records_root, proof.history_size, proof.history_root)
    return state.compute_state_root(*fields) == state_root
