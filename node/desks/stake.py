"""The stake desk: what the state says of validators and of an account's stake, for the API and the figures.

Invariant: reads one view only, and a bounded part of it: whoever asks, the answer stays below some hundred
kilobytes. The epoch told is the one of the next block. Leaves out: proofs (`light.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from consensus import crypto
from consensus.ledger import epochs, participation, staking
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from consensus.ledger.participation import Participation
from consensus.ledger.staking import Stake
from consensus.ledger.state import View
from consensus.parameters import WHOLE_BP, Parameters
from node.api.stake_records import (
    DelegationRecord,
    StakeRecord,
    UnbondingRecord,
    ValidatorRecord,
    ValidatorsRecord,
)
from node.metrics import NodeMetrics

OTHERS_MAX: Final = 100  # validators without a seat that are listed; any other can be asked for by address
WALK_MAX: Final = 2_000  # records looked at for them: 10 ms of the loop
PLACES_MAX: Final = 100  # delegations, and claims, of one account that are listed


class StakeDesk:
    """Of one view. `own_address`: of this node's voting key, or of its node key when it has none."""

    def __init__(self, view: View, parameters: Parameters, own_address: bytes) -> None:
        self._view = view
        self._parameters = parameters
        self._own_address = own_address
        self.epoch = epochs.compute_epoch(view.header.height + 1, parameters.epoch_blocks)
        self._now: EpochSet = epochs.get_set(view.records, self.epoch)
        self._next: EpochSet = epochs.get_next_set(view.records, self.epoch, parameters.epoch_blocks)

    def list_validators(self) -> ValidatorsRecord:
        """Who sits in this epoch by index, then who joins with the next, then others by address."""
        validators, operators = self._now.validators, self._now.operators
        joining = [operator for operator in self._next.operators if operator not in set(operators)]
        seated = {*operators, *joining}
        others = list(islice(self._walk_others(seated), OTHERS_MAX + 1))
        counted = self._get_participation()
        return ValidatorsRecord(
            self.epoch,
            self._view.header.height,
            epochs.compute_boundary(self.epoch, self._parameters.epoch_blocks),
            validators.total,
            validators.quorum,
            self._next.validators.total,
            tuple(
                self._describe(operator, counted) for operator in (*operators, *joining, *others[:OTHERS_MAX])
            ),
            len(others) > OTHERS_MAX,
        )

    def find_validator(self, operator: bytes) -> ValidatorRecord | None:
        """The validator that this account operates, with or without a seat."""
        if staking.find_stake(self._view.records, operator) is None:
            return None
        return self._describe(operator, self._get_participation())

    def find_own(self) -> ValidatorRecord | None:
        """The validator that votes with this node's key: its account's, or one with a seat now or next."""
        own = self.find_validator(self._own_address)
        if own is not None:
            return own
        for epoch_set in (self._now, self._next):
            for seat, operator in zip(epoch_set.validators.validators, epoch_set.operators, strict=True):
                if crypto.compute_address(seat.public_key) == self._own_address:
                    return self.find_validator(operator)
        return None

    def _walk_others(self, seated: set[bytes]) -> Iterator[bytes]:
        for operator, _ in islice(staking.walk_stakes(self._view.records), WALK_MAX):
            if operator not in seated:
                yield operator

    def _get_participation(self) -> Participation:
        counted = participation.get_participation(self._view.records)
        # Empty until the epoch's first block; and on a chain without epochs for ever.
        return counted if counted.signed else participation.create_participation(len(self._now.operators))

    def _describe(self, operator: bytes, counted: Participation) -> ValidatorRecord:
        stake: Stake = staking.get_stake(self._view.records, operator)
        seat = self._now.operators.index(operator) if operator in self._now.operators else None
        key = stake.voting_key if seat is None else self._now.validators.validators[seat].public_key
        return ValidatorRecord(
            index=seat,
            public_key=key,
            address=operator,
            stake=self._now.get_stake(operator),
            is_self=self._own_address in (operator, crypto.compute_address(key)),
            next_stake=self._next.get_stake(operator),
            voting_key=stake.voting_key,
            bonded=stake.tokens,
            own_bonded=stake.own_tokens,
            owed=stake.owed_units,
            commission_bp=stake.commission_bp,
            status=staking.STATUS_NAMES[stake.status],
            jailed_until=stake.jailed_until if stake.status == staking.JAILED else None,
            participation_bp=None if seat is None else counted.compute_share_bp(seat),
        )

    def update_metrics(self, metrics: NodeMetrics) -> None:
        """The running epoch, and this node's own part in it."""
        own = self.find_own()
        metrics.boundary_height.set(epochs.compute_boundary(self.epoch, self._parameters.epoch_blocks) or 0)
        metrics.validators.set(len(self._now.operators))
        metrics.stake.set(self._now.validators.total)
        metrics.validator_stake.set(0 if own is None else own.stake)
        metrics.validator_next_stake.set(0 if own is None else own.next_stake)
        metrics.validator_bonded.set(0 if own is None else own.bonded)
        share_bp = None if own is None else own.participation_bp
        metrics.validator_participation.set((share_bp or 0) / WHOLE_BP)
        for name in staking.STATUS_NAMES:
            metrics.validator_status.labels(name).set(own is not None and own.status == name)

    # --- accounts -----------------------------------------------------------------------------------

    def get_stake(self, address: bytes) -> StakeRecord:
        """What an account has at stake, where, and what is on its way back. Its own validator comes first."""
        records = self._view.records
        own = staking.find_stake(records, address)
        return StakeRecord(
            0 if own is None else own.owed_units,
            tuple(islice(self._walk_delegations(address, own), PLACES_MAX)),
            tuple(islice(self._walk_unbonding(address), PLACES_MAX)),
        )

    def _walk_delegations(self, address: bytes, own: Stake | None) -> Iterator[DelegationRecord]:
        records = self._view.records
        if own is not None and own.own_shares:
            yield DelegationRecord(address, own.own_tokens)
        prefix = rec.NAMESPACE_DELEGATION + address
        for key, value in records.walk(prefix):
            validator = key[len(prefix) : len(prefix) + crypto.ADDRESS_BYTES]
            stake = staking.get_stake(records, validator)
            shares = int.from_bytes(value, "big")
            yield DelegationRecord(validator, staking.compute_value(shares, stake.tokens, stake.shares))

    def _walk_unbonding(self, address: bytes) -> Iterator[UnbondingRecord]:
        records = self._view.records
        for claim in staking.walk_claims(records, address):
            pool = staking.find_unbonding(records, claim.validator, claim.epoch, claim.is_after)
            assert pool is not None  # a pool stands while anybody claims of it
            release_epoch = claim.epoch + self._parameters.unbonding_epochs
            yield UnbondingRecord(
                claim.validator,
                claim.epoch,
                staking.compute_value(claim.amount, pool.tokens, pool.claimed),
                release_epoch,
                pool.release_ms,
                release_epoch <= self.epoch and pool.release_ms <= self._view.header.timestamp_ms,
            )
