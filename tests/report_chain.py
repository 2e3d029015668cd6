"""A chain in memory for the tests of reports: two listed reporters, three validators with money, an open door.

Block 1 holds three transfers: VICTIM to SHOP (twice) and FRIEND to SHOP. Everything is counted by
tests/ledger_chain.py's module: the receiver's reports stand in its row.
"""

from __future__ import annotations

from dataclasses import replace

from consensus.crypto import PrivateKey
from consensus.errors import NotYet, Rejected
from consensus.ledger import cases, dispute, reporters
from consensus.ledger.cases import Case, Filing
from consensus.ledger.reporters import Reporter
from consensus.ledger.supply import compute_money
from consensus.parameters import DAY_MS
from consensus.transaction import (
    KIND_DISPUTE_REPORT,
    KIND_LEAVE_REPORTER,
    KIND_RECLAIM_DEPOSIT,
    KIND_REGISTER_REPORTER,
    KIND_VOTE_REPORT,
    KIND_WITHDRAW_REPORT,
    Transaction,
)
from consensus.vote import Validator, ValidatorSet
from tests.ledger_chain import BALANCE, KEYS, Chain, make_genesis

ANN, BEN, VICTIM, SHOP, FRIEND, CLERK = KEYS  # ANN and BEN are listed reporters
JURY = tuple(PrivateKey.from_seed(f"jury/{number}".encode()) for number in range(3))
WEIGHTS = (400, 350, 250)
BOND, DEPOSIT = 5_000, 700
CONTEST_MS, VOTE_MS = 10 * DAY_MS, 2 * DAY_MS


class ReportChain(Chain):
    """`parameters` change those of the chain."""

    def __init__(self, **parameters: object) -> None:
        settings: dict[str, object] = {
            "reporting": "listed+registered",
            "report_bond_units": BOND,
            "dispute_deposit_units": DEPOSIT,
            "report_contest_ms": CONTEST_MS,
            "dispute_vote_ms": VOTE_MS,
            "report_pair_ms": 0,
            **parameters,
        }
        is_listed = "listed" in str(settings["reporting"])
        genesis = make_genesis(reporters=None if is_listed else (), **settings)
        validators = [Validator(key.public_key, weight) for key, weight in zip(JURY, WEIGHTS, strict=True)]
        super().__init__(
            replace(
                genesis,
                validators=ValidatorSet(tuple(validators)),
                accounts=(*genesis.accounts, *((key.address, BALANCE) for key in JURY)),
            )
        )
        self.proposer_key = JURY[0].public_key
        self.grow(self.transfer(VICTIM, SHOP), self.transfer(VICTIM, SHOP), self.transfer(FRIEND, SHOP))
        self.grow()

    # --- what stands ----------------------------------------------------------------------------------

    def transfer_of(self, index: int = 0) -> Transaction:
        return self.blocks[0].transactions[index]

    def key_of(self, index: int = 0) -> bytes:
        return cases.get_key(self.transfer_of(index), self.rules.parameters)

    def case(self, index: int = 0) -> Case:
        found = cases.read_case(self.view.records, self.key_of(index))
        assert found is not None
        return found

    def filings(self, index: int = 0) -> list[Filing]:
        return list(cases.walk_filings(self.view.records, self.key_of(index)))

    def reporter(self, key: PrivateKey) -> Reporter | None:
        return reporters.find_reporter(self.view.records, key.address)

    def count(self) -> int:
        """Reports that the module holds against the shop."""
        return int.from_bytes(self.view.get_module_rows(SHOP.address)[3:5], "big")

    def check_money(self) -> None:
        assert compute_money(self.state).total == self.view.supply

    # --- transactions ---------------------------------------------------------------------------------

    def file(self, sender: PrivateKey = ANN, index: int = 0, **fields: int) -> Transaction:
        return self.report(1, index, sender, **fields)

    def take_back(self, sender: PrivateKey = ANN, index: int = 0, **fields: int) -> Transaction:
        return self._about(KIND_WITHDRAW_REPORT, sender, index, **fields)

    def dispute(self, sender: PrivateKey = SHOP, index: int = 0, **fields: int) -> Transaction:
        fields.setdefault("amount", DEPOSIT)
        return self._about(KIND_DISPUTE_REPORT, sender, index, **fields)

    def vote(self, number: int, verdict: int, index: int = 0, **fields: int) -> Transaction:
        reported = self.transfer_of(index)
        payload = dispute.encode_vote(reported, verdict)
        return self.make(KIND_VOTE_REPORT, JURY[number], reported.receiver, payload, **fields)

    def reclaim(self, sender: PrivateKey = SHOP, index: int = 0, **fields: int) -> Transaction:
        return self._about(KIND_RECLAIM_DEPOSIT, sender, index, **fields)

    def register(self, sender: PrivateKey = CLERK, amount: int = BOND, **fields: int) -> Transaction:
        return self.make(KIND_REGISTER_REPORTER, sender, sender.address, b"", amount=amount, **fields)

    def leave(self, sender: PrivateKey = CLERK, **fields: int) -> Transaction:
        return self.make(KIND_LEAVE_REPORTER, sender, sender.address, b"", **fields)

    def _about(self, kind: int, sender: PrivateKey, index: int, **fields: int) -> Transaction:
        reported = self.transfer_of(index)
        return self.make(kind, sender, reported.receiver, cases.encode_about(reported), **fields)

    # --- time -----------------------------------------------------------------------------------------

    def wait(self, span_ms: int) -> None:
        """An empty transfer moves the chain's clock."""
        while span_ms > 0:
            step_ms = min(span_ms, 30 * DAY_MS)
            self.grow(self.transfer(FRIEND, ANN, amount=0, timestamp_ms=self.now_ms + step_ms))
            span_ms -= step_ms

    def refuse(self, tx: Transaction) -> Rejected | NotYet:
        built = self.build(tx)
        assert [found for found, _ in built.rejected] == [tx]
        return built.rejected[0][1]

    def code(self, tx: Transaction) -> str:
        """Why it is refused now."""
        error = self.refuse(tx)
        assert error.field
        return error.code
