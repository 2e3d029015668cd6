"""A chain in memory with epochs, for the tests of stake: validators by number, real voting keys, no signatures.

Everybody who is not `absent` signs every block; who proposes goes round.
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.bft.evidence import encode_evidence
from consensus.crypto import PrivateKey
from consensus.errors import NotYet, Rejected
from consensus.genesis import Genesis
from consensus.ledger import bond, epochs, rotation, staking, unbond
from consensus.ledger.building import Built
from consensus.ledger.epochs import EpochSet
from consensus.ledger.staking import Stake
from consensus.ledger.state import View
from consensus.ledger.supply import compute_money
from consensus.parameters import CLOCK_WALL, Parameters
from consensus.transaction import (
    KIND_BOND,
    KIND_EVIDENCE,
    KIND_ROTATE_KEY,
    KIND_UNBOND,
    KIND_UNJAIL,
    KIND_WITHDRAW,
    Transaction,
)
from consensus.vote import NOTARIZE, Certificate, Evidence, Subject, Validator, ValidatorSet, Vote
from tests.ledger_chain import BALANCE, NO_SIGNATURE, START_MS, Chain

OPERATORS = tuple(PrivateKey.from_seed(f"operator/{number}".encode()) for number in range(8))
PEOPLE = tuple(PrivateKey.from_seed(f"delegator/{number}".encode()) for number in range(4))
STAKE = 1_000
BLOCK_MS = 100
SETTINGS = {
    "clock": CLOCK_WALL,
    "epoch_blocks": 3,
    "stake_units_min": 100,
    "delegation_units_min": 10,
    "unbonding_epochs": 4,
    "unbonding_ms": 500,
    "churn_bp_max": 500,
    "reward_units": 40,
}


def make_staking_genesis(stakes: Sequence[int] = (STAKE,) * 4, **parameters: object) -> Genesis:
    """The first operators validate, each voting with the key of its account."""
    people = [(key.address, BALANCE) for key in (*OPERATORS, *PEOPLE)]
    validators = tuple(
        Validator(key.public_key, stake) for key, stake in zip(OPERATORS, stakes, strict=False)
    )
    return Genesis(
        chain_id="staking-test",
        timestamp_ms=START_MS,
        parameters=Parameters(**{**SETTINGS, **parameters}),  # type: ignore[arg-type]
        validators=ValidatorSet(validators),
        accounts=tuple(people),
        reporters=(),
        modules=(),
    )


def make_voting_key(number: int, generation: int = 1) -> PrivateKey:
    return PrivateKey.from_seed(f"voting/{number}/{generation}".encode())


class StakingChain(Chain):
    """`absent`: operators (by number) who sign and propose nothing."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        super().__init__(genesis or make_staking_genesis(), ())
        self.absent: set[int] = set()

    # --- what stands ---------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the next block."""
        return epochs.compute_epoch(self.view.header.height + 1, self.rules.parameters.epoch_blocks)

    def stake(self, number: int) -> Stake:
        return staking.get_stake(self.view.records, OPERATORS[number].address)

    def set_of(self, epoch: int) -> EpochSet:
        return epochs.get_set(self.view.records, epoch)

    def weights(self, epoch: int) -> dict[int, int]:
        """Operator's number -> the stake it votes with."""
        found = self.set_of(epoch)
        numbers = {key.address: number for number, key in enumerate(OPERATORS)}
        return {
            numbers[operator]: validator.stake
            for operator, validator in zip(found.operators, found.validators.validators, strict=True)
        }

    def check_money(self) -> None:
        money = compute_money(self.state)
        assert money.total == self.view.supply, money

    # --- transactions --------------------------------------------------------------------------

    def make(
        self, kind: int, sender: PrivateKey, receiver: bytes, payload: bytes, **fields: int
    ) -> Transaction:
        """At the lowest fee unless told otherwise."""
        fields.setdefault("fee", self.rules.parameters.fee_units_min)
        return super().make(kind, sender, receiver, payload, **fields)

    def found(
        self, number: int, amount: int = STAKE, *, commission_bp: int = 0, **fields: int
    ) -> Transaction:
        """Operator `number` founds a validator with a voting key of its own."""
        key = OPERATORS[number]
        payload = bond.sign_founding(make_voting_key(number), self.rules.chain_id, key.address, commission_bp)
        return self.make(KIND_BOND, key, key.address, payload, amount=amount, **fields)

    def bond(self, sender: PrivateKey, number: int, amount: int, **fields: int) -> Transaction:
        return self.make(KIND_BOND, sender, OPERATORS[number].address, b"", amount=amount, **fields)

    def unbond(self, sender: PrivateKey, number: int, units: int = unbond.ALL, **fields: int) -> Transaction:
        return self.make(KIND_UNBOND, sender, OPERATORS[number].address, unbond.encode_units(units), **fields)

    def withdraw(self, sender: PrivateKey, **fields: int) -> Transaction:
        return self.make(KIND_WITHDRAW, sender, sender.address, b"", **fields)

    def unjail(self, number: int) -> Transaction:
        return self.make(KIND_UNJAIL, OPERATORS[number], OPERATORS[number].address, b"")

    def rotate(self, number: int, key: PrivateKey) -> Transaction:
        address = OPERATORS[number].address
        payload = rotation.sign_rotation(key, self.rules.chain_id, address)
        return self.make(KIND_ROTATE_KEY, OPERATORS[number], address, payload)

    def accuse(self, number: int, evidence: Evidence, sender: PrivateKey = PEOPLE[0]) -> Transaction:
        return self.make(KIND_EVIDENCE, sender, OPERATORS[number].address, encode_evidence(evidence))

    def lie(self, number: int, epoch: int, view: int = 1, key: PrivateKey | None = None) -> Evidence:
        """Two notarize votes that operator `number` signs in one view of `epoch`."""
        index = self.set_of(epoch).operators.index(OPERATORS[number].address)
        votes = []
        for block_hash in (b"a" * 32, b"b" * 32):
            subject = Subject(epoch, NOTARIZE, view, block_hash)
            digest = subject.compute_digest(self.rules.chain_id)
            votes.append(Vote(subject, index, (key or OPERATORS[number]).sign(digest)))
        return Evidence(*votes)

    # --- blocks --------------------------------------------------------------------------------

    def certify(self, view: View, epoch: int) -> Certificate | None:
        """What a block of `epoch` after `view` carries."""
        header = view.header
        if header.height == 0 or header.epoch != epoch:
            return None
        signers = tuple(
            (index, NO_SIGNATURE)
            for index, operator in enumerate(self.set_of(epoch).operators)
            if operator not in self._list_absent()
        )
        return Certificate(Subject(epoch, NOTARIZE, header.view, header.hash), signers)

    def _list_absent(self) -> set[bytes]:
        return {OPERATORS[number].address for number in self.absent}

    def build(
        self,
        *candidates: Transaction,
        now_ms: int | None = None,
        view: View | None = None,
        epoch: int | None = None,
    ) -> Built:
        """A block after the tip; of its own epoch past the boundary (a tail) when `epoch` says so."""
        parent = view or self.view
        if epoch is None:
            epoch = epochs.compute_epoch(parent.header.height + 1, self.rules.parameters.epoch_blocks)
        found = self.set_of(epoch)
        present = [
            index for index, operator in enumerate(found.operators) if operator not in self._list_absent()
        ]
        proposer = found.validators.validators[present[parent.header.height % len(present)]]
        return self.rules.build_block(
            parent,
            candidates,
            epoch=epoch,
            view_number=parent.header.view + 1 if epoch == parent.header.epoch else 1,
            proposer_key=proposer.public_key,
            now_ms=self.now_ms + BLOCK_MS if now_ms is None else now_ms,
            certificate=self.certify(parent, epoch),
        )

    def refuse(self, tx: Transaction) -> Rejected | NotYet:
        """Why the next block cannot hold `tx`; nothing is changed by trying, and admission says the same."""
        root, records = self.view.root, self.view.records
        built = self.build(tx)
        assert [found.id for found, _ in built.rejected] == [tx.id]
        assert (self.view.root, self.view.records) == (root, records)
        error = built.rejected[0][1]
        told = self.rules.find_inadmissible((tx,), self.view, self.now_ms + BLOCK_MS)[0]
        assert told is not None
        assert (type(told), told.code) == (type(error), error.code)
        return error

    def reach(self, epoch: int, *candidates: Transaction) -> None:
        """Grows until the next block is the first of `epoch`; the candidates go into the first block."""
        while self.epoch < epoch:
            self.grow(*candidates)
            candidates = ()
        assert not candidates
