"""Stake in plain Python: who has how much behind whom, who sits, what was earned, burned and may be taken out.

Written from the protocol's pages and not from `consensus/ledger/`: one object for each validator, one for
what left it in an epoch, dictionaries of who holds what. Its sets are those by which the plain ledger
checks certificates and proposers.

Invariant: each step raises Violation at the first broken rule, whose name its complaint begins with; money
moves between pots and is never made but as `issued`, nor lost but as `burned`.
Source: docs/staking.md, docs/ledger.md. Leaves out: the cap on churn and more candidates than seats (a
simulated chain has neither: `chain.py`), fees and balances (`plain_ledger.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from consensus import codec, crypto, vote
from consensus.block import Header
from consensus.codec import MONEY_MAX
from consensus.genesis import Genesis
from consensus.parameters import WHOLE_BP
from consensus.transaction import (
    KIND_BOND,
    KIND_COMMIT,
    KIND_EVIDENCE,
    KIND_ROTATE_KEY,
    KIND_UNBOND,
    KIND_UNJAIL,
    KIND_WITHDRAW,
    PAYLOAD_BYTES_MAX,
    Transaction,
)
from consensus.vote import Certificate, Subject, Validator, Verifier
from node.simulation.checkers import Violation

BONDED: Final = "bonded"
JAILED: Final = "jailed"
TOMBSTONED: Final = "tombstoned"
GENESIS_COMMISSION_BP: Final = 1_000  # docs/staking.md: of validators named in genesis
CLAIMS_PAID_MAX: Final = 32  # by one withdrawal
KEY_TAG: Final = b"assay/voting-key/1"
STAKING_KINDS: Final = (
    KIND_BOND,
    KIND_UNBOND,
    KIND_WITHDRAW,
    KIND_UNJAIL,
    KIND_ROTATE_KEY,
    KIND_EVIDENCE,
    KIND_COMMIT,
)


@dataclass(slots=True)
class PlainPool:
    """One validator. parts: who owns how many of the shares. serial: how many came before it."""

    serial: int
    key: bytes
    commission_bp: int
    tokens: int = 0
    parts: dict[bytes, int] = field(default_factory=dict)
    status: str = BONDED
    jailed_until: int = 0
    owed: int = 0

    @property
    def shares(self) -> int:
        return sum(self.parts.values())

    def get_worth(self, owner: bytes) -> int:
        """What an owner's shares are worth, in units."""
        shares = self.shares
        return self.parts.get(owner, 0) * self.tokens // shares if shares else 0


@dataclass(slots=True)
class PlainExit:
    """What left one validator in one epoch: who may claim which part of it, from when."""

    tokens: int = 0
    release_ms: int = 0
    claims: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlainSeat:
    """One index of an epoch's set."""

    operator: bytes
    validator: Validator


class PlainStakes:
    """Of one chain from genesis on. slashed: operators in the order in which they were."""

    def __init__(self, genesis: Genesis, verify: Verifier) -> None:
        self.parameters = genesis.parameters
        self.pools: dict[bytes, PlainPool] = {}  # by operator
        self.exits: dict[tuple[int, bytes, bool], PlainExit] = {}  # by epoch, operator, after its slashing
        self.sets: dict[int, list[PlainSeat]] = {}
        self.slashed: list[bytes] = []
        self.issued = self.burned = 0
        self.paid_out = 0  # by withdrawals, in all
        self.jailings = 0
        self._chain_id = genesis.chain_id
        self._verify = verify
        self._keys: dict[bytes, bytes] = {}  # voting key -> operator, for ever
        self._epoch = 0
        self._parent_ms = genesis.timestamp_ms
        self._earned: dict[bytes, int] = {}  # by operator, in the running epoch
        self._signed: dict[bytes, int] = {}
        self._counted = 0
        for serial, member in enumerate(genesis.validators.validators):
            operator = crypto.compute_address(member.public_key)
            parts = {operator: member.stake}
            pool = PlainPool(serial, member.public_key, GENESIS_COMMISSION_BP, member.stake, parts)
            self.pools[operator] = pool
            self._keys[member.public_key] = operator
        self.sets[0] = self.sets[1] = self._elect()
        self._genesis_units = sum(balance for _, balance in genesis.accounts) + genesis.validators.total

    # --- what there is --------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the last block."""
        return self._epoch

    @property
    def supply(self) -> int:
        return self._genesis_units + self.issued - self.burned

    def count_money(self) -> int:
        """All that is in nobody's balance."""
        bonded = sum(pool.tokens + pool.owed for pool in self.pools.values())
        return bonded + sum(out.tokens for out in self.exits.values()) + sum(self._earned.values())

    def count_bonded(self, owner: bytes) -> int:
        """What this account has at stake, with all validators."""
        return sum(pool.get_worth(owner) for pool in self.pools.values())

    def is_candidate(self, operator: bytes) -> bool:
        """Whether its validator stands for election."""
        pool = self.pools.get(operator)
        return (
            pool is not None
            and pool.status == BONDED
            and pool.get_worth(operator) >= self.parameters.stake_units_min
        )

    def list_members(self, epoch: int) -> list[Validator]:
        """Raises Violation when nobody can know them yet."""
        seats = self.sets.get(epoch)
        if seats is None:
            raise Violation(f"epochs: nobody can tell who validates in epoch {epoch}")
        return [seat.validator for seat in seats]

    def list_ripe(self, owner: bytes, epoch: int, now_ms: int) -> list[tuple[int, bytes, bool]]:
        """The exits of which it may take its part now."""
        mine = sorted(place for place, out in self.exits.items() if owner in out.claims)
        ripe = [
            place for place in mine[:CLAIMS_PAID_MAX] if place[0] + self.parameters.unbonding_epochs <= epoch
        ]
        return [place for place in ripe if self.exits[place].release_ms <= now_ms]

    # --- transactions ---------------------------------------------------------------------------------

    def apply(self, tx: Transaction, header: Header) -> int:
        """What the transaction pays out to its sender. Raises Violation."""
        self._epoch = header.epoch
        acts = {
            KIND_BOND: self._bond,
            KIND_UNBOND: self._unbond,
            KIND_WITHDRAW: self._withdraw,
            KIND_UNJAIL: self._unjail,
            KIND_ROTATE_KEY: self._rotate,
            KIND_EVIDENCE: self._accuse,
            KIND_COMMIT: self._commit,
        }
        if tx.kind != KIND_BOND and tx.amount:
            raise self._refuse(tx, header, f"moves {tx.amount} units")
        return acts[tx.kind](tx, header)

    def _commit(self, tx: Transaction, header: Header) -> int:
        if tx.sender not in self.pools:
            raise self._refuse(tx, header, "commits to an onion that is no validator's")
        return 0

    def _refuse(self, tx: Transaction, header: Header, why: str) -> Violation:
        return Violation(f"stakes: 0x{tx.id.hex()} of kind {tx.kind} in block {header.height} {why}")

    def _bond(self, tx: Transaction, header: Header) -> int:
        pool = self.pools.get(tx.receiver)
        if tx.payload:
            key, proof, commission_bp = _decode(tx, 3)
            if tx.receiver != tx.sender or pool is not None:
                raise self._refuse(tx, header, "founds what is there, or another's")
            if tx.amount < self.parameters.stake_units_min or commission_bp > WHOLE_BP:
                raise self._refuse(tx, header, "founds a validator with too little")
            self._take_key(tx, header, key, proof)
            serial = len(self.pools)
            self.pools[tx.sender] = PlainPool(serial, key, commission_bp, tx.amount, {tx.sender: tx.amount})
            return 0
        if pool is None or pool.status == TOMBSTONED:
            raise self._refuse(tx, header, "is for no validator that could take it")
        if tx.amount < self.parameters.delegation_units_min:
            raise self._refuse(tx, header, f"bonds {tx.amount}")
        shares = pool.shares
        minted = tx.amount * shares // pool.tokens if shares else tx.amount
        pool.tokens += tx.amount
        pool.parts[tx.sender] = pool.parts.get(tx.sender, 0) + minted
        return 0

    def _take_key(self, tx: Transaction, header: Header, key: bytes, proof: bytes) -> None:
        digest = crypto.tagged_digest(KEY_TAG, self._chain_id, tx.sender)
        if self._keys.setdefault(key, tx.sender) != tx.sender or not self._verify(key, digest, proof):
            raise self._refuse(tx, header, "takes a voting key that is not its own")

    def _unbond(self, tx: Transaction, header: Header) -> int:
        (units,) = _decode(tx, 1)
        pool = self.pools.get(tx.receiver)
        held = 0 if pool is None else pool.parts.get(tx.sender, 0)
        if pool is None or not held:
            raise self._refuse(tx, header, "unbonds where it has nothing")
        worth, shares = pool.get_worth(tx.sender), pool.shares
        if units > worth:
            raise self._refuse(tx, header, f"unbonds {units} of {worth}")
        units = units or worth
        gone = held if units == worth else -(-units * shares // pool.tokens)
        units = worth if gone == held else units
        pool.tokens -= units
        pool.parts[tx.sender] = held - gone
        if held == gone:
            del pool.parts[tx.sender]
        elif pool.get_worth(tx.sender) < self.parameters.delegation_units_min:
            raise self._refuse(tx, header, "leaves less than may stay")
        if units:
            place = (header.epoch, tx.receiver, pool.status == TOMBSTONED)
            out = self.exits.setdefault(place, PlainExit())
            out.tokens += units
            told_ms = max(
                self._parent_ms, tx.timestamp_ms
            )  # the block's time may still rise while it is built
            out.release_ms = max(out.release_ms, told_ms + self.parameters.unbonding_ms)
            out.claims[tx.sender] = out.claims.get(tx.sender, 0) + units
        return 0

    def _withdraw(self, tx: Transaction, header: Header) -> int:
        own, paid = self.pools.get(tx.sender), 0
        if tx.receiver != tx.sender or tx.payload:
            raise self._refuse(tx, header, "withdraws for another")
        if own is not None:
            paid, own.owed = own.owed, 0
        for place in self.list_ripe(tx.sender, header.epoch, self._parent_ms):
            out = self.exits[place]
            units = out.claims[tx.sender] * out.tokens // sum(out.claims.values())
            out.tokens -= units
            paid += units
            del out.claims[tx.sender]
            if not out.claims:
                del self.exits[place]
        if not paid:
            raise self._refuse(tx, header, "withdraws what is not due")
        self.paid_out += paid
        return paid

    def _unjail(self, tx: Transaction, header: Header) -> int:
        pool = self.pools.get(tx.sender)
        if tx.receiver != tx.sender or pool is None or pool.status != JAILED:
            raise self._refuse(tx, header, "unjails who is not jailed")
        is_rich = pool.get_worth(tx.sender) >= self.parameters.stake_units_min
        if header.epoch < pool.jailed_until or not is_rich:
            raise self._refuse(tx, header, f"unjails who is jailed until epoch {pool.jailed_until}")
        pool.status, pool.jailed_until = BONDED, 0
        return 0

    def _rotate(self, tx: Transaction, header: Header) -> int:
        pool = self.pools.get(tx.sender)
        key, proof = _decode(tx, 2)
        if tx.receiver != tx.sender or pool is None or pool.status == TOMBSTONED or pool.key == key:
            raise self._refuse(tx, header, "rotates a key that is not there")
        self._take_key(tx, header, key, proof)
        pool.key = key
        return 0

    def _accuse(self, tx: Transaction, header: Header) -> int:
        epoch, view, signer, first, second = codec.decode(
            tx.payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX
        )
        if not header.epoch - self.parameters.evidence_epochs <= epoch <= header.epoch:
            raise self._refuse(tx, header, f"speaks of epoch {epoch}, this is {header.epoch}")
        seats = self.sets[epoch]
        if signer >= len(seats) or seats[signer].operator != tx.receiver:
            raise self._refuse(tx, header, "accuses somebody else")
        for kind, block_hash, signature in (first, second):
            digest = Subject(epoch, kind, view, block_hash).compute_digest(self._chain_id)
            if not self._verify(seats[signer].validator.public_key, digest, signature):
                raise self._refuse(tx, header, "holds a vote that the accused never cast")
        kinds = {first[0], second[0]}
        is_lie = first[1] != second[1] if len(kinds) == 1 else vote.NOTARIZE not in kinds
        pool = self.pools[tx.receiver]
        if not is_lie or pool.status == TOMBSTONED:
            raise self._refuse(tx, header, "punishes for nothing, or twice")
        pool.tokens = self._slash(pool.tokens)
        pool.status, pool.jailed_until = TOMBSTONED, 0
        for (left_epoch, operator, is_after), out in self.exits.items():
            # Who left two epochs before the lie had no vote in it any more.
            if operator == tx.receiver and not is_after and left_epoch >= epoch - 1:
                out.tokens = self._slash(out.tokens)
        self.slashed.append(tx.receiver)
        return 0

    def _slash(self, tokens: int) -> int:
        kept = tokens * (WHOLE_BP - self.parameters.slash_bp) // WHOLE_BP
        self.burned += tokens - kept
        return kept

    # --- the end of a block ---------------------------------------------------------------------------

    def close_block(self, header: Header, certificate: Certificate | None, fees: int) -> None:
        """Fees and new money to those who signed; at an epoch's end jail, and the set of the next but one."""
        self._epoch = header.epoch
        seats = self.sets[header.epoch]
        proposer = next(seat.operator for seat in seats if seat.validator.public_key == header.proposer)
        if certificate is None:
            self._earn(proposer, fees)
        else:
            self._reward(seats, proposer, [seats[signer] for signer in certificate.signers], fees)
        if header.height % self.parameters.epoch_blocks == 0:
            self._close_epoch(header.epoch)
        self._parent_ms = header.timestamp_ms

    def _reward(self, seats: list[PlainSeat], proposer: bytes, signers: list[PlainSeat], fees: int) -> None:
        parameters, total = self.parameters, sum(seat.validator.stake for seat in seats)
        reward = fees + min(parameters.reward_units, MONEY_MAX - self.supply)
        paid = reward * sum(seat.validator.stake for seat in signers) // total
        rest = reward - reward * parameters.proposer_bp // WHOLE_BP
        left = paid
        for seat in signers:
            share = rest * seat.validator.stake // total
            self._earn(seat.operator, share)
            left -= share
        self._earn(proposer, left)
        self.issued += max(0, paid - fees)
        self.burned += max(0, fees - paid)
        self._counted += 1
        for operator in {proposer, *(seat.operator for seat in signers)}:
            self._signed[operator] = self._signed.get(operator, 0) + 1

    def _earn(self, operator: bytes, units: int) -> None:
        self._earned[operator] = self._earned.get(operator, 0) + units

    def _close_epoch(self, epoch: int) -> None:
        for seat in self.sets[epoch]:
            pool, earned = self.pools[seat.operator], self._earned.get(seat.operator, 0)
            if pool.status == TOMBSTONED:
                self.burned += earned
                continue
            commission = earned * pool.commission_bp // WHOLE_BP if pool.parts else earned
            pool.owed += commission
            pool.tokens += earned - commission
            share_bp = self._signed.get(seat.operator, 0) * WHOLE_BP // max(1, self._counted)
            is_absent = self._counted > 0 and share_bp < self.parameters.participation_bp_min
            if is_absent and pool.status == BONDED:
                pool.status, pool.jailed_until = JAILED, epoch + 1 + self.parameters.jail_epochs
                self.jailings += 1
        self._earned, self._signed, self._counted = {}, {}, 0
        self.sets[epoch + 2] = self._elect() or self.sets[epoch + 1]

    def _elect(self) -> list[PlainSeat]:
        """Without a cap, and with a seat for everybody: each candidate, by seniority, with all that it has."""
        found = sorted(
            (pool.serial, operator) for operator, pool in self.pools.items() if self.is_candidate(operator)
        )
        pools = [(operator, self.pools[operator]) for _, operator in found]
        return [PlainSeat(operator, Validator(pool.key, pool.tokens)) for operator, pool in pools]


def _decode(tx: Transaction, count: int) -> tuple[Any, ...]:
    value = codec.decode(tx.payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX)
    return codec.check_fields(value, count, "payload")
