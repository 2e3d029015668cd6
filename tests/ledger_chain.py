"""A chain in memory for the ledger's tests: real addresses, unsigned transactions, a module of ten lines.

The ledger checks no signatures, so these carry zeros and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consensus.block import Block, compute_transactions_root
from consensus.crypto import PrivateKey
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger import report
from consensus.ledger.building import Built
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import (
    SCORE_MAX,
    Explanation,
    ModuleLoader,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from consensus.ledger.state import Delta, View
from consensus.merkle import HashTree, hash_leaf
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD, Parameters
from consensus.transaction import KIND_REPORT, KIND_TRANSFER, Transaction
from consensus.vote import NOTARIZE, Certificate, Subject, Validator, ValidatorSet

KEYS = tuple(PrivateKey.from_seed(f"account/{number}".encode()) for number in range(6))
STRANGERS = tuple(PrivateKey.from_seed(f"stranger/{number}".encode()) for number in range(4))
VALIDATORS = tuple(PrivateKey.from_seed(f"validator/{number}".encode()) for number in range(2))
BALANCE = 1_000_000
START_MS = 1_700_000_000_000
NO_SIGNATURE = bytes(64)


class CountingModule:
    """score = amount // 10 + 100 for every earlier transfer of the sender; counts sends and reports.

    A report counts once, a repeated one not at all; its memo is what it counted.
    """

    name = "counting"
    digest = b"c" * 32
    row_bytes = 4

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        rows = view.rows.copy()
        counts = rows.view(">u2").astype(np.int64)
        score = np.zeros(len(transactions), dtype=np.int64)
        for place, (sender, amount) in enumerate(zip(transactions.sender, transactions.amount, strict=True)):
            score[place] = min(SCORE_MAX, amount // 10 + 100 * counts[sender, 0])
            counts[sender, 0] += 1
        memo = np.zeros(len(reports), dtype=np.uint8)
        for place, receiver in enumerate(reports.receiver):
            if reports.is_withdrawn[place]:
                counts[receiver, 1] -= reports.memo[place]
            else:
                memo[place] = not reports.is_repeated[place]
                counts[receiver, 1] += memo[place]
        written = np.ascontiguousarray(counts.astype(">u2")).view(np.uint8)
        return replace(Verdicts.from_scores(score, view.thresholds), memo=memo), written

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        verdicts, _ = self.evaluate(transactions, report_none(), view)
        score = int(verdicts.score[index])
        return Explanation(score, int(verdicts.outcome[index]), 0, score, ())


def report_none() -> ReportColumns:
    none = np.zeros(0, dtype=np.int64)
    return ReportColumns(none, none, none, none, none)


def make_genesis(
    *, thresholds: Thresholds | None = None, reporters: Sequence[bytes] | None = None, **parameters: object
) -> Genesis:
    """Flags from 2,000 and refuses from 5,000 unless told otherwise; no modules with thresholds (0, 0)."""
    settings = {"clock": CLOCK_WORKLOAD, **parameters}
    limits = thresholds or Thresholds(2_000, 5_000)
    entry = ModuleEntry("counting", CountingModule.digest, limits.flag_score_min, limits.refuse_score_min)
    return Genesis(
        chain_id="ledger-test",
        timestamp_ms=START_MS,
        parameters=Parameters(**settings),  # type: ignore[arg-type]
        validators=ValidatorSet(tuple(Validator(key.public_key, 500) for key in VALIDATORS)),
        accounts=tuple((key.address, BALANCE) for key in KEYS),
        reporters=tuple(reporters if reporters is not None else (KEYS[0].address, KEYS[1].address)),
        modules=(entry,),
    )


class Chain:
    """A growing chain: `view` is its tip, `state` what was committed, `blocks` all of it above genesis."""

    def __init__(
        self,
        genesis: Genesis | None = None,
        modules: tuple[object, ...] | None = None,
        load_module: ModuleLoader | None = None,
    ) -> None:
        given = (CountingModule(),) if modules is None else modules
        self.rules = Rules(genesis or make_genesis(), given, load_module)  # type: ignore[arg-type]
        self.state = self.rules.create_genesis_state()
        self.view: View = self.state.view()
        self.blocks: list[Block] = []
        self.deltas: list[Delta] = []
        self.history = HashTree([hash_leaf(self.view.header.hash)])
        self.nonces: dict[bytes, int] = {}
        self.proposer_key = VALIDATORS[0].public_key

    @property
    def now_ms(self) -> int:
        return self.view.header.timestamp_ms

    def transfer(
        self, sender: PrivateKey = KEYS[0], receiver: PrivateKey | bytes = KEYS[1], **fields: int
    ) -> Transaction:
        """Amount 5, fee 1 and the sender's next nonce unless told otherwise; valid now."""
        address = receiver if isinstance(receiver, bytes) else receiver.address
        return self.make(KIND_TRANSFER, sender, address, b"", **fields)

    def make(
        self, kind: int, sender: PrivateKey, receiver: bytes, payload: bytes, **fields: int
    ) -> Transaction:
        timestamp_ms = fields.get("timestamp_ms", self.now_ms)
        nonce = fields.get("nonce", self.nonces.get(sender.address, 0))
        self.nonces[sender.address] = max(nonce + 1, self.nonces.get(sender.address, 0))
        return Transaction(
            kind,
            sender.public_key,
            nonce,
            receiver,
            fields.get("amount", 5 if kind == KIND_TRANSFER else 0),
            fields.get("fee", 1),
            timestamp_ms,
            fields.get("expires_ms", timestamp_ms + 60_000),
            payload,
            NO_SIGNATURE,
        )

    def report(self, height: int, index: int, sender: PrivateKey = KEYS[1], **fields: int) -> Transaction:
        """A report of that transaction, anchored in the tip."""
        block = self.blocks[height - 1]
        anchor = self.view.header.height
        proof = self.history.prove_inclusion(height, anchor)
        payload = report.build_report_payload(block, index, anchor, proof)
        return self.make(KIND_REPORT, sender, block.transactions[index].receiver, payload, **fields)

    def build(self, *candidates: Transaction, now_ms: int | None = None, view: View | None = None) -> Built:
        """A block after the tip (or after `view`), built and not added."""
        parent = view or self.view
        return self.rules.build_block(
            parent,
            candidates,
            epoch=0,
            view_number=parent.header.view + 1,
            proposer_key=self.proposer_key,
            now_ms=self.now_ms if now_ms is None else now_ms,
            certificate=make_certificate(parent),
        )

    def check(self, block: Block, now_ms: int | None = None) -> Delta:
        return self.rules.check_block(self.view, block, now_ms)

    def grow(self, *candidates: Transaction, now_ms: int | None = None, commit: bool = True) -> Built:
        """Builds, checks, adds and commits a block; all candidates must be in it."""
        built = self.build(*candidates, now_ms=now_ms)
        assert not built.rejected, built.rejected
        assert (built.refused, built.deferred) == ((), ())
        self.add(built.block, commit=commit)
        return built

    def add(self, block: Block, *, commit: bool = True) -> None:
        delta = self.check(block)
        if commit:
            self.state.commit(delta)
            self.view = self.state.view()
        else:
            self.view = self.view.extend(delta)
        self.blocks.append(block)
        self.deltas.append(delta)
        self.history.append(hash_leaf(block.hash))

    def balance(self, key: PrivateKey) -> int:
        account = self.view.get_account(key.address)
        return 0 if account is None else account.balance


def make_wall_chain(**parameters: object) -> Chain:
    return Chain(make_genesis(clock=CLOCK_WALL, **parameters))


def make_certificate(parent: View) -> Certificate | None:
    """About the parent, with no signatures: the ledger checks none."""
    header = parent.header
    if header.height == 0:
        return None
    return Certificate(Subject(header.epoch, NOTARIZE, header.view, header.hash), ((0, NO_SIGNATURE),))


def alter(block: Block, **fields: object) -> Block:
    """The block with other header fields."""
    return replace(block, header=replace(block.header, **fields))  # type: ignore[arg-type]


def alter_body(
    block: Block,
    *,
    transactions: Sequence[Transaction] | None = None,
    scores: Sequence[int] | None = None,
    outcomes: bytes | None = None,
) -> Block:
    """The block with another body, and a header whose count and transactions root fit it."""
    new = replace(
        block,
        transactions=tuple(block.transactions if transactions is None else transactions),
        scores=tuple(block.scores if scores is None else scores),
        outcomes=block.outcomes if outcomes is None else outcomes,
    )
    root = compute_transactions_root(new.transactions, new.scores, new.outcomes)
    return alter(new, transactions_root=root, transaction_count=len(new.transactions))
