"""Proofs for a record: that a key has this value after a block, or that it has none.

A proof is the way from the records' root to where the key stands, or would stand: in a tree of digits
there is one such place, so that absence can be shown too. The rest is what the state root is made of.

Invariant: `verify_record_proof` answers False to any nonsense and never raises on it.
Source: radix tree of records.py. Leaves out: ranges of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.errors import Rejected
from consensus.ledger import records as rec
from consensus.ledger import state, tree
from consensus.ledger.state import View

BRANCHES_MAX: Final = 2 * rec.KEY_BYTES_MAX  # one a digit
CHILDREN_BYTES: Final = 16 * tree.HASH_BYTES


@dataclass(frozen=True, slots=True)
class RecordProof:
    """key, value: what is shown; value None: that the key is absent.

    branches: (digits in ASCII, sixteen hashes) from the root on. other: for absence, the (key, value) of
    the leaf that stands where the key would; None where nothing does. The rest: the state root's other parts.
    """

    key: bytes
    value: bytes | None
    branches: tuple[tuple[bytes, bytes], ...]
    other: tuple[bytes, bytes] | None
    account_count: int
    accounts_root: bytes
    history_size: int
    history_root: bytes

    def as_tuple(self) -> tuple[Any, ...]:
        """The form that is encoded: the fields in order."""
        return (
            self.key,
            self.value,
            self.branches,
            self.other,
            self.account_count,
            self.accounts_root,
            self.history_size,
            self.history_root,
        )

    @classmethod
    def from_tuple(cls, value: Any) -> RecordProof:
        """The proof that `as_tuple` made. Raises Rejected."""
        key, found, branches, other, count, accounts_root, history_size, history_root = codec.check_fields(
            value, 8, "proof"
        )
        codec.check_bytes(key, "proof.key", length_max=rec.KEY_BYTES_MAX)
        if found is not None:
            codec.check_bytes(found, "proof.value", length_max=rec.VALUE_BYTES_MAX)
        if type(branches) is not tuple or len(branches) > BRANCHES_MAX:
            raise Rejected(f"must be an array of at most {BRANCHES_MAX}", field="proof.branches", code="size")
        for branch in branches:
            digits, children = codec.check_fields(branch, 2, "proof.branches")
            codec.check_bytes(digits, "proof.branches", length_max=BRANCHES_MAX)
            codec.check_bytes(children, "proof.branches", length=CHILDREN_BYTES)
        if other is not None:
            other_key, other_value = codec.check_fields(other, 2, "proof.other")
            codec.check_bytes(other_key, "proof.other", length_max=rec.KEY_BYTES_MAX)
            codec.check_bytes(other_value, "proof.other", length_max=rec.VALUE_BYTES_MAX)
        codec.check_int(count, "proof.account_count", high=tree.SLOTS_MAX)
        codec.check_bytes(accounts_root, "proof.accounts_root", length=tree.HASH_BYTES)
        codec.check_int(history_size, "proof.history_size")
        codec.check_bytes(history_root, "proof.history_root", length=tree.HASH_BYTES)
        return cls(key, found, branches, other, count, accounts_root, history_size, history_root)


def prove_record(view: View, key: bytes) -> RecordProof:
    """The proof that `key` has its value in `view`, or has none, against `view.root`."""
    branches, leaf = view.records.trace(key)
    value = view.records.get(key)
    return RecordProof(
        key,
        value,
        branches,
        leaf if value is None else None,
        view.account_count,
        view.tree_root,
        view.history.size,
        view.history.root,
    )


def verify_record_proof(proof: RecordProof, state_root: bytes) -> bool:
    """Whether the state with this root holds the record, or lacks it, as the proof says."""
    try:
        RecordProof.from_tuple(proof.as_tuple())
        records_root = _compute_root(proof)
    except (Rejected, TypeError, ValueError):
        return False
    fields = (
        proof.account_count,
        proof.accounts_root,
        records_root,
        proof.history_size,
        proof.history_root,
    )
    return state.compute_state_root(*fields) == state_root


def _compute_root(proof: RecordProof) -> bytes:
    """The records' root that the proof leads to. Raises ValueError when it leads nowhere."""
    path = proof.key.hex().encode()
    if proof.value is not None:
        node: bytes | None = rec.compute_leaf_hash(proof.key, proof.value)
        if proof.other is not None:
            raise ValueError("a present key and another leaf")
    elif proof.other is not None:
        if proof.other[0] == proof.key:
            raise ValueError("the key itself stands there")
        node = rec.compute_leaf_hash(*proof.other)
    else:
        node = None
    for place, (digits, children) in enumerate(reversed(proof.branches)):
        is_below = path.startswith(digits) and len(path) > len(digits)
        if is_below:
            digit = int(path[len(digits) : len(digits) + 1], 16)
            child = children[tree.HASH_BYTES * digit : tree.HASH_BYTES * (digit + 1)]
            if child != (node or rec.EMPTY_ROOT):
                raise ValueError("a branch does not hold what stands below it")
        elif place or node is not None or proof.value is not None:
            raise ValueError("a branch beside the way to the key")
        # Else: all keys below the last branch begin differently, so this one is not there.
        node = rec.compute_branch_hash(digits, children)
    return node or rec.EMPTY_ROOT
