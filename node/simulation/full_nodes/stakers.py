"""What validators' operators and delegators of a simulated network write: they join, leave, come back.

Operators look at what is final, as anybody may: who has no seat and is to join bonds; who is to leave
unbonds all and takes it when it is due; who is jailed asks out; a villain takes its stake and runs, at times.
Each has one thing under way, which expires soon.

Invariant: as `payments.py`; the anchor and those that the cast does not name as leaving stay.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consensus.crypto import PrivateKey
from consensus.ledger.bond import sign_founding
from consensus.ledger.rotation import sign_rotation
from consensus.ledger.rules import Rules
from consensus.ledger.unbond import ALL, encode_units
from consensus.transaction import (
    KIND_BOND,
    KIND_ROTATE_KEY,
    KIND_UNBOND,
    KIND_UNJAIL,
    KIND_WITHDRAW,
    Transaction,
)
from node.simulation.full_nodes.casting import Cast
from node.simulation.full_nodes.plain_ledger import PlainLedger
from node.simulation.full_nodes.plain_stakes import JAILED, TOMBSTONED, PlainPool, PlainStakes
from node.simulation.full_nodes.signing import Signer

LIFETIME_MS: Final = 1_000  # an operator that hears nothing decides anew
ACT_SHARE: Final = 0.5  # of the times when an operator is asked whether it does what it could
LEAVE_SHARE: Final = 0.25  # soon, so that it sees its money again
ROTATE_SHARE: Final = 0.3
FLEE_SHARE: Final = 0.02  # most villains are slashed first
WITHDRAW_SHARE: Final = 0.1
COMMISSION_BP_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Operator:
    """Of node `index`; its account is that of the voting key."""

    index: int
    key: PrivateKey
    is_honest: bool


class Stakers:
    """Makes transactions; each is sound when it is made, and may lose its race."""

    def __init__(
        self,
        rules: Rules,
        cast: Cast,
        operators: Sequence[Operator],
        delegators: Sequence[PrivateKey],
        rng: random.Random,
        ledger: PlainLedger,
    ) -> None:
        self._rules = rules
        self._cast = cast
        self._operators = operators
        self._delegators = delegators
        self._rng = rng
        self._ledger = ledger
        self._signer = Signer(rules, lambda address: ledger.accounts[address].nonce_next, LIFETIME_MS)
        self._waiting: dict[bytes, Transaction] = {}

    def make(self, wall_ms: int, *, only_back: bool = False) -> list[Transaction]:
        """What operators do now. only_back: no one leaves or joins any more, but who is jailed asks out."""
        stakes = self._ledger.stakes
        if stakes is None:
            return []
        made = []
        for operator in self._operators:
            if not self._is_idle(operator.key):
                continue
            found = self._decide(operator, stakes, wall_ms, only_back=only_back)
            if found is not None:
                self._waiting[operator.key.address] = found
                made.append(found)
        if not only_back:
            made += self._collect(stakes, wall_ms)
        return made

    def _is_idle(self, key: PrivateKey) -> bool:
        """Whether what it sent last is final, or can never be: the chain's own time says so, no other clock."""
        tx, ledger = self._waiting.get(key.address), self._ledger
        return tx is None or tx.id in ledger.places or tx.expires_ms < ledger.headers[-1].timestamp_ms

    def _decide(
        self, operator: Operator, stakes: PlainStakes, wall_ms: int, *, only_back: bool
    ) -> Transaction | None:
        rng, address = self._rng, operator.key.address
        pool = stakes.pools.get(address)
        if pool is not None and pool.status == JAILED and stakes.epoch >= pool.jailed_until:
            is_rich = pool.get_worth(address) >= self._rules.parameters.stake_units_min
            return (
                self._signer.sign(operator.key, KIND_UNJAIL, wall_ms)
                if is_rich and operator.is_honest
                else None
            )
        if only_back or rng.random() >= ACT_SHARE:
            return None
        if pool is None:
            return self._join(operator, wall_ms)
        if stakes.list_ripe(address, stakes.epoch, wall_ms) or (pool.owed and rng.random() < WITHDRAW_SHARE):
            return self._signer.sign(operator.key, KIND_WITHDRAW, wall_ms)
        if not pool.parts.get(address):
            return self._return(operator, pool, wall_ms)
        is_leaving = operator.index == self._cast.leaver and rng.random() < LEAVE_SHARE
        if is_leaving or (not operator.is_honest and rng.random() < FLEE_SHARE):
            return self._signer.sign(operator.key, KIND_UNBOND, wall_ms, payload=encode_units(ALL))
        return None

    def _join(self, operator: Operator, wall_ms: int) -> Transaction:
        chain_id, key = self._rules.chain_id, operator.key
        founding = sign_founding(key, chain_id, key.address, self._rng.randrange(COMMISSION_BP_MAX))
        return self._signer.sign(key, KIND_BOND, wall_ms, amount=self._find_units(operator), payload=founding)

    def _return(self, operator: Operator, pool: PlainPool, wall_ms: int) -> Transaction | None:
        """Who has left comes again with what it had at first. Out there it tries another key, for a while.

        Its node has one key alone, so that it must be back at that one before it may get a seat.
        """
        if pool.status == TOMBSTONED or not operator.is_honest:
            return None
        is_strange = pool.key != operator.key.public_key
        if is_strange or self._rng.random() < ROTATE_SHARE:
            other = operator.key if is_strange else PrivateKey.from_seed(b"other" + operator.key.address)
            payload = sign_rotation(other, self._rules.chain_id, operator.key.address)
            return self._signer.sign(operator.key, KIND_ROTATE_KEY, wall_ms, payload=payload)
        return self._signer.sign(operator.key, KIND_BOND, wall_ms, amount=self._find_units(operator))

    def _find_units(self, operator: Operator) -> int:
        cast, unit = self._cast, self._rules.parameters.stake_units_min
        units = cast.joiner_units if operator.index in cast.joiners else cast.stakes[operator.index]
        return units * unit

    def _collect(self, stakes: PlainStakes, wall_ms: int) -> list[Transaction]:
        """Delegators take what is due."""
        return [
            self._signer.sign(key, KIND_WITHDRAW, wall_ms)
            for key in self._delegators
            if stakes.list_ripe(key.address, stakes.epoch, wall_ms) and self._rng.random() < WITHDRAW_SHARE
        ]
