"""Supply: how much money there is, kept in the state, and where all of it lies.

    genesis + issued - burned == balances + stakes + what is leaving + what is owed + rewards under way
                              + reporters' bonds + disputes' deposits

Invariant: the left side is a record that every issue and every slashing moves; `compute_money` adds up
the right side, for tests and audits (it reads the whole state). The supply never exceeds MONEY_MAX.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from consensus.codec import MONEY_MAX
from consensus.errors import Fault
from consensus.ledger import participation, staking
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.ledger.state import State

_KEY = rec.NAMESPACE_PARAMETER + rec.PARAMETER_SUPPLY


@dataclass(frozen=True, slots=True)
class Supply:
    """Units since genesis."""

    genesis: int
    issued: int = 0
    burned: int = 0

    @property
    def total(self) -> int:
        return self.genesis + self.issued - self.burned

    @property
    def issuable(self) -> int:
        """What may still be issued."""
        return MONEY_MAX - self.total


@dataclass(frozen=True, slots=True)
class Money:
    """Where all units lie. owed: commission to be withdrawn; underway: rewards of the running epoch;
    held: bonds of reporters and deposits of disputes."""

    balances: int
    bonded: int
    unbonding: int
    owed: int
    underway: int
    held: int = 0

    @property
    def total(self) -> int:
        return self.balances + self.bonded + self.unbonding + self.owed + self.underway + self.held


def get_supply(records: Records) -> Supply:
    value = records.get(_KEY)
    if value is None:
        raise Fault("the supply is missing", field="state.records")
    return Supply(*(int.from_bytes(value[at : at + 8], "big") for at in (0, 8, 16)))


def put_supply(records: Records, supply: Supply) -> Records:
    numbers = (supply.genesis, supply.issued, supply.burned)
    return records.put(_KEY, b"".join(number.to_bytes(8, "big") for number in numbers))


def burn(records: Records, units: int) -> Records:
    """Money that was taken from somebody is gone."""
    if not units:
        return records
    supply = get_supply(records)
    return put_supply(records, replace(supply, burned=supply.burned + units))


def compute_money(state: State) -> Money:
    """Adds up the whole state, account by account and record by record."""
    records = state.records
    balances = np.ascontiguousarray(state.rows[:, 20:28]).view(">u8")
    stakes = [stake for _, stake in staking.walk_stakes(records)]
    return Money(
        sum(balances[:, 0].tolist()),
        sum(stake.tokens for stake in stakes),
        sum(unbonding.tokens for unbonding in staking.walk_unbonding(records)),
        sum(stake.owed_units for stake in stakes),
        participation.get_participation(records).reward_units,
        _count_held(records),
    )


def _count_held(records: Records) -> int:
    from consensus.ledger import dispute, reporters

    bonds = sum(reporter.bond_units for _, reporter in reporters.walk_reporters(records))
    return bonds + sum(entry.deposit_units for _, entry in dispute.walk_disputes(records))
