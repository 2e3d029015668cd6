"""What the door tells of stake and to light clients: frozen records, as `door.py` has them for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.block import Header
from consensus.ledger.epochs import EpochSet
from consensus.vote import Certificate


@dataclass(frozen=True, slots=True)
class ValidatorRecord:
    """One validator, known by its operator's `address`; `is_self` marks the node that answers.

    index, public_key, stake: its seat in this epoch (None, the key it would vote with, and 0 without one).
    next_stake: in the next epoch's set. voting_key: from the next set that is fixed. bonded: all stake
    behind it; own_bonded: the operator's own; owed: commission to be withdrawn. status: one of
    staking.STATUS_NAMES. participation_bp: blocks of this epoch that it signed; None: none counted yet.
    """

    index: int | None
    public_key: bytes
    address: bytes
    stake: int
    is_self: bool
    next_stake: int
    voting_key: bytes
    bonded: int
    own_bonded: int
    owed: int
    commission_bp: int
    status: str
    jailed_until: int | None = None
    participation_bp: int | None = None


@dataclass(frozen=True, slots=True)
class ValidatorsRecord:
    """After the last final block, at `height`. epoch: of the next block; boundary_height: its last one.

    validators: those with a seat by index, then those who join with the next epoch, then others;
    is_cut: more of the others exist.
    """

    epoch: int
    height: int
    boundary_height: int | None
    total_stake: int
    quorum: int
    next_total_stake: int
    validators: tuple[ValidatorRecord, ...]
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class DelegationRecord:
    """Units at stake behind the validator of this operator; one's own is one of them."""

    validator: bytes
    units: int


@dataclass(frozen=True, slots=True)
class UnbondingRecord:
    """Units that left a validator in `epoch`; out in release_epoch and from release_ms on, when both are there."""

    validator: bytes
    epoch: int
    units: int
    release_epoch: int
    release_ms: int
    is_ripe: bool


@dataclass(frozen=True, slots=True)
class StakeRecord:
    """Where an account's stake is: at most a hundred places each. owed: commission of its own validator."""

    owed: int = 0
    delegations: tuple[DelegationRecord, ...] = ()
    unbonding: tuple[UnbondingRecord, ...] = ()


NO_STAKE: Final = StakeRecord()


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """A final header, what makes it final (as in BlockRecord), and the sets of its epoch and of the next."""

    header: Header
    certificate: Certificate | None
    headers: tuple[Header, ...]
    validators: EpochSet
    next_validators: EpochSet


@dataclass(frozen=True, slots=True)
class HistoryProof:
    """RFC 6962 inclusion of a final block's hash, at its height, in the history_root of a later one."""

    header: Header
    anchor_height: int
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecordProof:
    """A proof that the state behind the header holds `value` under a key, or nothing (None); see AccountProof."""

    header: Header
    value: bytes | None
    proof: bytes
    certificate: Certificate | None
    headers: tuple[Header, ...]
