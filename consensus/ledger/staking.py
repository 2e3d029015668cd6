"""Stake in the state: validators, who delegated to them, what is leaving, who comes next in rank.

A validator is operated by an account and is a pool: `tokens` units, owned in `shares`. Rewards raise
what a share is worth, slashing lowers it; nobody's record has to be touched for that. What leaves goes
into one pool for each validator and epoch, slashed as a whole, of which delegators hold claims.

Invariant: rounding stays in the pool, so that no sequence of steps makes money: `compute_minted` and
`compute_value` round down, `compute_redeemed_shares` up. A pool is slashed once at most, for who was
slashed is never trusted again; so shares are never cheaper than a unit when new ones are made, and there
are at most 2^53 of them. The rank record of every candidate stands at its place.
Source: share accounting as in Cosmos SDK's x/staking and ERC-4626. Leaves out: what moves balances (the kinds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from consensus import codec, crypto
from consensus.errors import Fault, Rejected
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.parameters import Parameters
from consensus.transaction import Transaction

BONDED: Final = 0  # stands for election
JAILED: Final = 1  # was absent: out until it unjails
TOMBSTONED: Final = 2  # lied: out for good
STATUS_NAMES: Final = ("bonded", "jailed", "tombstoned")

VOTING_KEY_TAG: Final = b"assay/voting-key/1"
GENESIS_COMMISSION_BP: Final = 1_000  # of validators named in genesis; others say theirs when they bond
VALIDATOR_BYTES: Final = 192  # of records, as `account_byte_fee_units` charges for them
POSITION_BYTES: Final = 64
_RECORD_BYTES_MAX: Final = 256
_U64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Stake:
    """A validator's record. `tokens` and `owed_units` in smallest units.

    serial: how many validators came before it; settles ties. own_shares: the operator's part of `shares`.
    jailed_until: the first epoch in which it may unjail. owed_units: commission to be withdrawn.
    """

    serial: int
    voting_key: bytes
    tokens: int
    shares: int
    own_shares: int
    commission_bp: int
    status: int = BONDED
    jailed_until: int = 0
    owed_units: int = 0

    @property
    def own_tokens(self) -> int:
        """What the operator itself has at stake."""
        return compute_value(self.own_shares, self.tokens, self.shares)

    def is_candidate(self, stake_units_min: int) -> bool:
        """Whether it stands for election."""
        return self.status == BONDED and self.own_tokens >= stake_units_min


@dataclass(frozen=True, slots=True)
class Unbonding:
    """What left one validator in one epoch: claims of `claimed` in all on `tokens` units, out at `release_ms`."""

    tokens: int
    claimed: int
    release_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A delegator's part of an unbonding: of `validator`, from `epoch`, 1 if after its slashing."""

    validator: bytes
    epoch: int
    is_after: int
    amount: int


@dataclass(frozen=True, slots=True)
class Counters:
    """serial_next: of the next new validator. left_units: stake that left the set of epoch + 1 during `epoch`."""

    serial_next: int
    epoch: int
    left_units: int


# --- shares -------------------------------------------------------------------------------------------


def compute_minted(amount: int, tokens: int, shares: int) -> int:
    """Shares for `amount` units put into a pool."""
    return amount * shares // tokens if shares else amount


def compute_value(part: int, tokens: int, shares: int) -> int:
    """Units that `part` of a pool's `shares` are worth."""
    return part * tokens // shares if shares else 0


def compute_redeemed_shares(amount: int, tokens: int, shares: int) -> int:
    """The fewest shares that are worth `amount` units; 0 < amount <= tokens."""
    return -(-amount * shares // tokens)


# --- validators ---------------------------------------------------------------------------------------


def find_stake(records: Records, operator: bytes) -> Stake | None:
    """The validator that this account operates, or None."""
    value = records.get(rec.NAMESPACE_VALIDATOR + operator)
    return None if value is None else _decode_stake(value)


def get_stake(records: Records, operator: bytes) -> Stake:
    """The same for one that must be there."""
    stake = find_stake(records, operator)
    if stake is None:
        raise Fault(f"the validator of 0x{operator.hex()} is missing", field="state.records")
    return stake


def put_stake(records: Records, operator: bytes, stake: Stake, stake_units_min: int) -> Records:
    """Writes the record and moves its rank."""
    old = find_stake(records, operator)
    old_rank = None if old is None else _find_rank(old, stake_units_min)
    rank = _find_rank(stake, stake_units_min)
    if old_rank != rank:
        if old_rank is not None:
            records = records.remove(old_rank)
        if rank is not None:
            records = records.put(rank, operator)
    return records.put(rec.NAMESPACE_VALIDATOR + operator, _encode_stake(stake))


def walk_candidates(records: Records) -> Iterator[bytes]:
    """Operators that stand for election: most stake first, equal ones by seniority."""
    for _, operator in records.walk(rec.NAMESPACE_RANK):
        yield operator


def walk_stakes(records: Records) -> Iterator[tuple[bytes, Stake]]:
    """Every validator that ever was, by operator. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(rec.NAMESPACE_VALIDATOR):
        yield key[1:], _decode_stake(value)


def _find_rank(stake: Stake, stake_units_min: int) -> bytes | None:
    if not stake.is_candidate(stake_units_min):
        return None
    return rec.NAMESPACE_RANK + (_U64 - stake.tokens).to_bytes(8, "big") + stake.serial.to_bytes(8, "big")


def _encode_stake(stake: Stake) -> bytes:
    return codec.encode(
        (
            stake.serial,
            stake.voting_key,
            stake.tokens,
            stake.shares,
            stake.own_shares,
            stake.commission_bp,
            stake.status,
            stake.jailed_until,
            stake.owed_units,
        )
    )


def _decode_stake(value: bytes) -> Stake:
    return Stake(*codec.decode_flat(value, what="validator", bytes_max=_RECORD_BYTES_MAX, count=9))


# --- voting keys --------------------------------------------------------------------------------------


def compute_key_digest(chain_id: str, operator: bytes) -> bytes:
    """What a new voting key signs to show that the operator holds it, 32 bytes."""
    return crypto.tagged_digest(VOTING_KEY_TAG, chain_id, operator)


def check_voting_key(records: Records, chain_id: str, operator: bytes, key: bytes, proof: bytes) -> None:
    """Raises Rejected unless `key` is a key, nobody else's, and `proof` its signature for this operator."""
    owner = records.get(rec.NAMESPACE_VOTING_KEY + key)
    if owner not in (None, operator):
        raise Rejected(
            f"is that of the validator of 0x{owner.hex()}",
            field="payload.voting_key",
            mend="make a new key",
            code="voting_key_taken",
        )
    if not crypto.is_valid_public_key(key):
        raise Rejected(
            "is not a secp256k1 key of 33 bytes",
            field="payload.voting_key",
            mend="use a compressed public key",
            code="voting_key",
        )
    if not crypto.verify(key, compute_key_digest(chain_id, operator), proof):
        raise Rejected(
            "is not the voting key's signature for this chain and operator",
            field="payload.proof",
            mend="sign the operator's address with the voting key",
            code="voting_key_proof",
        )


def put_voting_key(records: Records, key: bytes, operator: bytes) -> Records:
    """The key is this operator's for ever: old sets still name it."""
    return records.put(rec.NAMESPACE_VOTING_KEY + key, operator)


# --- delegations --------------------------------------------------------------------------------------


def get_shares(records: Records, delegator: bytes, validator: bytes) -> int:
    """The delegator's shares in the validator's pool; the operator's own are in its record."""
    if delegator == validator:
        stake = find_stake(records, validator)
        return 0 if stake is None else stake.own_shares
    value = records.get(rec.NAMESPACE_DELEGATION + delegator + validator)
    return 0 if value is None else int.from_bytes(value, "big")


def put_shares(records: Records, delegator: bytes, validator: bytes, shares: int) -> Records:
    """Of somebody else than the operator."""
    key = rec.NAMESPACE_DELEGATION + delegator + validator
    return records.put(key, shares.to_bytes(8, "big")) if shares else records.remove(key)


def compute_bonded_units(records: Records, address: bytes) -> int:
    """What an account has at stake now, in its own validator and in others'. Walks its delegations."""
    own = find_stake(records, address)
    units = 0 if own is None else own.own_tokens
    prefix = rec.NAMESPACE_DELEGATION + address
    for key, value in records.walk(prefix):
        stake = get_stake(records, key[len(prefix) :])
        units += compute_value(int.from_bytes(value, "big"), stake.tokens, stake.shares)
    return units


# --- what is leaving ----------------------------------------------------------------------------------


def _get_unbonding_key(validator: bytes, epoch: int, is_after: int) -> bytes:
    return rec.NAMESPACE_UNBONDING + validator + epoch.to_bytes(8, "big") + bytes((is_after,))


def find_unbonding(records: Records, validator: bytes, epoch: int, is_after: int) -> Unbonding | None:
    value = records.get(_get_unbonding_key(validator, epoch, is_after))
    if value is None:
        return None
    return Unbonding(*codec.decode_flat(value, what="unbonding", bytes_max=64, count=3))


def put_unbonding(
    records: Records, validator: bytes, epoch: int, is_after: int, unbonding: Unbonding
) -> Records:
    """Writes it; one that nobody claims any more is gone."""
    key = _get_unbonding_key(validator, epoch, is_after)
    if not unbonding.claimed:
        return records.remove(key)
    return records.put(key, codec.encode((unbonding.tokens, unbonding.claimed, unbonding.release_ms)))


def walk_unbonding(records: Records) -> Iterator[Unbonding]:
    """All that is leaving. For reading, not for blocks: it is unbounded."""
    for _, value in records.walk(rec.NAMESPACE_UNBONDING):
        yield Unbonding(*codec.decode_flat(value, what="unbonding", bytes_max=64, count=3))


def walk_claims(records: Records, delegator: bytes) -> Iterator[Claim]:
    """What a delegator waits for, oldest epoch first."""
    for key, value in records.walk(rec.NAMESPACE_CLAIM + delegator):
        yield Claim(key[29:49], int.from_bytes(key[21:29], "big"), key[49], int.from_bytes(value, "big"))


def put_claim(records: Records, delegator: bytes, claim: Claim) -> Records:
    """Writes it; a claim of 0 is gone."""
    epoch = claim.epoch.to_bytes(8, "big")
    key = rec.NAMESPACE_CLAIM + delegator + epoch + claim.validator + bytes((claim.is_after,))
    return records.put(key, claim.amount.to_bytes(8, "big")) if claim.amount else records.remove(key)


def get_claimed(records: Records, delegator: bytes, validator: bytes, epoch: int, is_after: int) -> int:
    key = rec.NAMESPACE_CLAIM + delegator + epoch.to_bytes(8, "big") + validator + bytes((is_after,))
    value = records.get(key)
    return 0 if value is None else int.from_bytes(value, "big")


# --- counters -----------------------------------------------------------------------------------------


def get_counters(records: Records) -> Counters:
    value = records.get(rec.NAMESPACE_STAKING + rec.STAKING_COUNTERS)
    if value is None:
        raise Fault("the counters of staking are missing", field="state.records")
    return Counters(*codec.decode_flat(value, what="counters", bytes_max=64, count=3))


def put_counters(records: Records, counters: Counters) -> Records:
    value = codec.encode((counters.serial_next, counters.epoch, counters.left_units))
    return records.put(rec.NAMESPACE_STAKING + rec.STAKING_COUNTERS, value)


# --- what the kinds check alike -----------------------------------------------------------------------


def check_staking(parameters: Parameters) -> None:
    """Raises Rejected on a chain without epochs."""
    if not parameters.epoch_blocks:
        raise Rejected(
            "this chain has one everlasting epoch and no staking",
            field="kind",
            mend="use a chain whose genesis sets epoch_blocks",
            code="staking_off",
        )


def check_no_amount(tx: Transaction) -> None:
    """Raises Rejected when the envelope moves money."""
    if tx.amount:
        raise Rejected(f"{tx.amount}, this kind moves none", field="amount", mend="use 0", code="range")


def check_no_payload(tx: Transaction) -> None:
    if tx.payload:
        raise Rejected(f"{len(tx.payload)} bytes", field="payload", mend="leave it empty", code="size")


def check_own(tx: Transaction) -> None:
    """Raises Rejected unless the sender speaks of itself."""
    if tx.receiver != tx.sender:
        raise Rejected(
            "must be the sender", field="receiver", mend=f"use 0x{tx.sender.hex()}", code="receiver"
        )


def check_known(records: Records, operator: bytes) -> Stake:
    """The validator of this operator. Raises Rejected when there is none."""
    stake = find_stake(records, operator)
    if stake is None:
        raise Rejected(
            f"0x{operator.hex()} operates no validator",
            field="receiver",
            mend="name an operator's address",
            code="validator_unknown",
        )
    return stake


def check_fee(tx: Transaction, parameters: Parameters, state_bytes: int) -> None:
    """Raises Rejected unless the fee pays for so much state."""
    fee_min = parameters.fee_units_min + state_bytes * parameters.account_byte_fee_units
    if tx.fee < fee_min:
        raise Rejected(
            f"{tx.fee}, with {state_bytes} bytes of state it costs {fee_min}",
            field="fee",
            mend=f"use {fee_min}",
            code="fee",
        )
