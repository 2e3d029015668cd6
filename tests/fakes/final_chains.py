"""Made-up final chains: real keys and bytes, and whatever else a test wants them to say; nodes that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consensus.block import Block, Header, compute_certificate_digest, compute_transactions_root
from consensus.crypto import PrivateKey
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger.report import build_report_payload
from consensus.ledger.rules import Rules
from consensus.merkle import HashTree, hash_leaf
from consensus.parameters import CLOCK_WALL, Parameters
from consensus.transaction import KIND_REPORT, Transaction, sign_transaction
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Subject, Validator, ValidatorSet
from node.blocks.chain import Chain
from node.simulation.full_nodes.plain_ledger import compute_root
from tests.chain_factory import make_keys
from tests.ledger_chain import CountingModule

START_MS = 1_000_000
BALANCE = 10_000
BYTE_FEE = 1
VALIDATORS = make_keys("validator", 4)
ACCOUNTS = make_keys("account", 4)
STRANGER = PrivateKey.from_seed(b"stranger")


def make_rules(clock: str = CLOCK_WALL, **parameters: int) -> Rules:
    entry = ModuleEntry("counting", CountingModule.digest, 2_000, 5_000)
    genesis = Genesis(
        chain_id="checked",
        timestamp_ms=START_MS,
        parameters=Parameters(
            clock=clock,
            block_transactions_max=parameters.get("block_transactions_max", 8),
            report_window_ms=parameters.get("report_window_ms", 5_000),
            account_byte_fee_units=BYTE_FEE,
            clock_drift_ms_max=100,
            timestamp_age_ms_max=1_000,
        ),
        validators=ValidatorSet(tuple(Validator(key.public_key, 100) for key in VALIDATORS)),
        accounts=tuple((key.address, BALANCE) for key in ACCOUNTS),
        reporters=(ACCOUNTS[0].address,),
        modules=(entry,),
    )
    return Rules(genesis, (CountingModule(),))


class History:
    """A chain that says of itself whatever it is told to; `blocks` and `headers` are what it has so far."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or make_rules()
        self.state = self.rules.create_genesis_state()
        self.headers = [self.state.header]
        self.blocks: list[Block] = []

    @property
    def now_ms(self) -> int:
        return self.headers[-1].timestamp_ms

    def pay(self, sender: int | PrivateKey = 0, nonce: int = 0, **fields: object) -> Transaction:
        key = ACCOUNTS[sender] if isinstance(sender, int) else sender
        known: dict[str, object] = {
            "receiver": ACCOUNTS[1].address,
            "amount": 10,
            "fee": 1,
            "timestamp_ms": self.now_ms,
            "expires_ms": self.now_ms + 500,
        }
        return sign_transaction(key, "checked", nonce=nonce, **(known | fields))  # type: ignore[arg-type]

    def report(self, height: int, index: int = 0, sender: int = 0, nonce: int = 50) -> Transaction:
        block = self.blocks[height - 1]
        anchor = len(self.blocks)
        tree = HashTree([hash_leaf(header.hash) for header in self.headers[:anchor]])
        payload = build_report_payload(block, index, anchor, tree.prove_inclusion(height, anchor))
        receiver = block.transactions[index].receiver
        return self.pay(sender, nonce, kind=KIND_REPORT, receiver=receiver, amount=0, payload=payload)

    def certify(
        self, header: Header, kind: int = NOTARIZE, signers: Sequence[int] = (0, 1, 2)
    ) -> Certificate:
        subject = Subject(0, kind, header.view, header.hash if kind != NULLIFY else b"")
        digest = subject.compute_digest("checked")
        return Certificate(subject, tuple((i, VALIDATORS[i].sign(digest)) for i in signers))

    def craft(
        self,
        *transactions: Transaction,
        scores: Sequence[int] | None = None,
        outcomes: bytes | None = None,
        certificate: Certificate | None = None,
        **fields: object,
    ) -> Block:
        """The next block; what is not given is as it should be, but for scores (0) and the state root."""
        parent = self.headers[-1]
        scores = tuple(scores if scores is not None else (0,) * len(transactions))
        outcomes = bytes(len(transactions)) if outcomes is None else outcomes
        if certificate is None and parent.height > 0:
            certificate = self.certify(parent)
        header = Header(
            epoch=0,
            view=parent.view + 1,
            height=parent.height + 1,
            parent_view=parent.view,
            parent_hash=parent.hash,
            proposer=VALIDATORS[0].public_key,
            timestamp_ms=max([parent.timestamp_ms + 10, *(tx.timestamp_ms for tx in transactions)]),
            transaction_count=len(transactions),
            transactions_root=compute_transactions_root(transactions, scores, outcomes),
            state_root=bytes(32),
            history_root=compute_root([header.hash for header in self.headers]),
            modules_digest=self.headers[0].modules_digest,
            validators_digest=self.rules.validators.digest,
            next_validators_digest=self.rules.validators.digest,
            certificate_digest=compute_certificate_digest(certificate),
        )
        return Block(replace(header, **fields), transactions, scores, outcomes, certificate)  # type: ignore[arg-type]

    def append(self, block: Block) -> Block:
        """Take a crafted block as it is; no state follows it."""
        self.blocks.append(block)
        self.headers.append(block.header)
        return block

    def build(self, *transactions: Transaction) -> Block:
        """The next block as the ledger makes it."""
        parent = self.headers[-1]
        built = self.rules.build_block(
            self.state.view(),
            transactions,
            epoch=0,
            view_number=parent.view + 1,
            proposer_key=VALIDATORS[0].public_key,
            now_ms=parent.timestamp_ms + 10,
            certificate=self.certify(parent) if parent.height else None,
        )
        assert not built.rejected, built.rejected
        return built.block

    def grow(self, *transactions: Transaction) -> Block:
        block = self.build(*transactions)
        self.state.commit(self.rules.check_block(self.state.view(), block, None))
        return self.append(block)


class Shelf:
    """A store of final blocks in lists."""

    def __init__(self, rules: Rules) -> None:
        self.headers: list[Header] = [rules.create_genesis_state().header]
        self.bodies: list[Block] = []
        self.certificate: tuple[Certificate, int] | None = None
        self.places: dict[bytes, tuple[int, int]] = {}

    def get_header(self, height: int) -> Header | None:
        return self.headers[height] if height < len(self.headers) else None

    def get_block_at(self, height: int) -> Block | None:
        return self.bodies[height - 1] if height <= len(self.bodies) else None

    def get_certificate(self, height: int) -> tuple[Certificate, int] | None:
        del height
        return self.certificate

    def get_links(self, height: int) -> tuple[Header, ...]:
        certified = height if self.certificate is None else self.certificate[1]
        headers = (self.get_header(above) for above in range(height + 1, certified + 1))
        return tuple(header for header in headers if header is not None)

    def find_transaction(self, transaction_id: bytes) -> tuple[int, int] | None:
        return self.places.get(transaction_id)


class Node:
    """As much of a node as is looked at: a chain that executes what it is given, and a store."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.state = history.rules.create_genesis_state()
        self.chain = Chain(self.state)
        self.store = Shelf(history.rules)

    def take(self, block: Block) -> None:
        """Execute and store; what a node's own ledger refuses, it stores all the same."""
        delta = self.history.rules.check_block(self.chain.final_view, block, None)
        self.chain.add(block, delta)
        self.chain.finalize(block.hash)
        self.keep(block)

    def keep(self, block: Block) -> None:
        self.store.headers.append(block.header)
        self.store.bodies.append(block)
        height = block.header.height
        self.store.certificate = self.history.certify(block.header, FINALIZE), height
        self.store.places |= {tx.id: (height, index) for index, tx in enumerate(block.transactions)}

    def believe(self, block: Block) -> None:
        """Take a wrong block as final, as a node with another ledger would."""
        self.state.header = block.header
        self.chain = Chain(self.state)
        self.keep(block)
