"""Epochs: which heights an epoch has, and who validates in it.

Epoch e covers the heights e * L + 1 .. (e + 1) * L, L being `epoch_blocks`; its last height is its
boundary. With L = 0 there is one epoch, 0, for ever. Block 0 counts to epoch 0.

Invariant: the set of an epoch and its stakes are frozen. When the boundary block of epoch e is executed
the set of e + 2 is fixed, so that the next epoch's set is always known one epoch ahead and every header
commits to both. Sets stay in the records as long as evidence may speak of them.
Source: consensus.md, Epochs. Leaves out: how a set is chosen (selection.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from consensus import codec, crypto
from consensus.block import Header
from consensus.errors import Fault
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.vote import VALIDATORS_MAX, Validator, ValidatorSet

if TYPE_CHECKING:
    from consensus.ledger.state import View

_SETS_KEPT: Final = 16  # decoded: this epoch's, the next one's, and those that evidence speaks of
_SET_ITEMS_MAX: Final = 5 * VALIDATORS_MAX + 1  # three fields and their array each


@dataclass(frozen=True, slots=True)
class EpochSet:
    """An epoch's validators, and for each index the account (20 bytes) that operates it."""

    validators: ValidatorSet
    operators: tuple[bytes, ...]
    index_by_key: dict[bytes, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys = (validator.public_key for validator in self.validators.validators)
        object.__setattr__(self, "index_by_key", {key: index for index, key in enumerate(keys)})

    def get_operator(self, voting_key: bytes) -> bytes | None:
        """The operator of the validator that votes with this key, or None."""
        index = self.index_by_key.get(voting_key)
        return None if index is None else self.operators[index]

    def get_stake(self, operator: bytes) -> int:
        """The stake with which this operator's validator votes; 0 when it has no seat."""
        if operator not in self.operators:
            return 0
        return self.validators.validators[self.operators.index(operator)].stake


def compute_epoch(height: int, epoch_blocks: int) -> int:
    """The epoch of the block at this height."""
    return (height - 1) // epoch_blocks if epoch_blocks and height else 0


def compute_boundary(epoch: int, epoch_blocks: int) -> int | None:
    """The last height of an epoch; None when it has none."""
    return (epoch + 1) * epoch_blocks if epoch_blocks else None


def is_boundary(height: int, epoch_blocks: int) -> bool:
    """Whether the block at this height is the last of its epoch."""
    return bool(epoch_blocks) and height > 0 and height % epoch_blocks == 0


def is_tail(header: Header, parent: Header, epoch_blocks: int) -> bool:
    """Whether the block, in its parent's epoch, stands past that epoch's boundary (consensus.md, Epochs)."""
    return is_tail_place(parent, header.epoch, epoch_blocks)


def is_tail_place(parent: Header, epoch: int, epoch_blocks: int) -> bool:
    """Whether a block of `epoch` on this parent is a tail."""
    return epoch == parent.epoch and is_boundary(parent.height, epoch_blocks)


def compute_tail_mark(parent: View) -> bytes:
    """What a tail on this parent has as `reveal`: the hash of its epoch's boundary block (`block.is_link`)."""
    return parent.header.reveal if parent.is_tail else parent.header.hash


def encode_set(epoch_set: EpochSet) -> bytes:
    """The record: canonical list of (voting key, stake, operator), by index."""
    pairs = zip(epoch_set.validators.validators, epoch_set.operators, strict=True)
    return codec.encode(tuple((v.public_key, v.stake, operator) for v, operator in pairs))


@lru_cache(maxsize=_SETS_KEPT)
def decode_set(record: bytes) -> EpochSet:
    """The set that a record of ours holds. Raises Rejected when it is none."""
    entries = codec.decode(record, what="set", bytes_max=rec.VALUE_BYTES_MAX, items_max=_SET_ITEMS_MAX)
    validators = tuple(Validator(key, stake) for key, stake, _ in entries)
    return EpochSet(ValidatorSet(validators), tuple(operator for _, _, operator in entries))


def create_genesis_set(validators: ValidatorSet) -> EpochSet:
    """Of the first epochs: each validator is operated by the account of its voting key."""
    return EpochSet(validators, tuple(crypto.compute_address(v.public_key) for v in validators.validators))


def get_key(epoch: int) -> bytes:
    """Of the record of this epoch's set."""
    return rec.NAMESPACE_SET + epoch.to_bytes(8, "big")


def find_set(records: Records, epoch: int) -> EpochSet | None:
    """The set of an epoch, or None when it is forgotten or not fixed yet."""
    record = records.get(get_key(epoch)) if 0 <= epoch < 1 << 64 else None
    return None if record is None else decode_set(record)


def get_set(records: Records, epoch: int) -> EpochSet:
    """The set of an epoch that must be known: the running one or the next."""
    epoch_set = find_set(records, epoch)
    if epoch_set is None:
        raise Fault(f"the set of epoch {epoch} is missing", field="state.records")
    return epoch_set


def get_next_set(records: Records, epoch: int, epoch_blocks: int) -> EpochSet:
    """The set of the epoch after this one, which is known; with one everlasting epoch, its own."""
    return get_set(records, epoch + 1 if epoch_blocks else epoch)


def put_set(records: Records, epoch: int, epoch_set: EpochSet) -> Records:
    return records.put(get_key(epoch), encode_set(epoch_set))


def forget_set(records: Records, epoch: int) -> Records:
    return records.remove(get_key(epoch)) if epoch >= 0 else records
