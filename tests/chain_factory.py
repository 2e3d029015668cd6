"""Small real chains for tests: real keys, signatures, certificates and blocks, built by the ledger itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from consensus.block import Block, Header
from consensus.crypto import PrivateKey
from consensus.genesis import Genesis, write_genesis
from consensus.ledger.rules import Rules
from consensus.ledger.state import State
from consensus.parameters import CLOCK_WORKLOAD, Parameters
from consensus.transaction import Transaction, sign_transaction
from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject, Validator, ValidatorSet

LIFETIME_MS = 60_000
BALANCE = 1_000_000


def make_keys(kind: str, count: int) -> tuple[PrivateKey, ...]:
    return tuple(PrivateKey.from_seed(f"{kind}/{index}".encode()) for index in range(count))


class ChainFactory:
    """A chain that grows by `grow`; `blocks[h - 1]` and `finalizations[h - 1]` are those of height h."""

    def __init__(
        self,
        chain_id: str = "test-chain",
        *,
        validators: int = 4,
        accounts: int = 6,
        genesis: Genesis | None = None,
    ) -> None:
        self.validator_keys = make_keys("validator", validators)
        self.keys = make_keys("account", accounts)
        self.rules = Rules(genesis or self._make_genesis(chain_id))
        self.state: State = self.rules.create_genesis_state()
        self.blocks: list[Block] = []
        self.finalizations: list[Certificate] = []
        self._nonces = [0] * accounts

    def _make_genesis(self, chain_id: str) -> Genesis:
        return Genesis(
            chain_id=chain_id,
            timestamp_ms=1_000_000,
            parameters=Parameters(clock=CLOCK_WORKLOAD),
            validators=ValidatorSet(tuple(Validator(key.public_key, 100) for key in self.validator_keys)),
            accounts=tuple((key.address, BALANCE) for key in self.keys),
            reporters=(self.keys[0].address,),
            modules=(),
        )

    @property
    def head(self) -> Header:
        return self.state.header

    def transfer(self, sender: int, receiver: int, amount: int = 5) -> Transaction:
        """A signed transfer between accounts by number, with the sender's next nonce."""
        nonce, self._nonces[sender] = self._nonces[sender], self._nonces[sender] + 1
        now_ms = self.head.timestamp_ms + 10
        return sign_transaction(
            self.keys[sender],
            self.rules.chain_id,
            nonce=nonce,
            receiver=self.keys[receiver].address,
            amount=amount,
            fee=1,
            timestamp_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )

    def certify(self, header: Header, kind: int = NOTARIZE, *, first: int = 0) -> Certificate:
        """A quorum's signatures on a block, from the validator `first` on."""
        subject = Subject(header.epoch, kind, header.view, header.hash)
        digest = subject.compute_digest(self.rules.chain_id)
        quorum = 2 * len(self.validator_keys) // 3 + 1
        signers = sorted((first + index) % len(self.validator_keys) for index in range(quorum))
        return Certificate(
            subject, tuple((index, self.validator_keys[index].sign(digest)) for index in signers)
        )

    def build(self, transactions: tuple[Transaction, ...] = (), *, skipped_views: int = 0) -> Block:
        """A valid block on the head; the chain does not grow by it."""
        parent = self.head
        view = parent.view + 1 + skipped_views
        built = self.rules.build_block(
            self.state.view(),
            transactions,
            epoch=0,
            view_number=view,
            proposer_key=self.validator_keys[view % len(self.validator_keys)].public_key,
            now_ms=parent.timestamp_ms + 10,
            certificate=self.certify(parent) if parent.height else None,
        )
        assert not built.rejected, built.rejected
        return built.block

    def append(self, block: Block) -> Block:
        """Make a block on the head the new head, and final."""
        self.state.commit(self.rules.check_block(self.state.view(), block, None))
        self.blocks.append(block)
        self.finalizations.append(self.certify(block.header, FINALIZE))
        return block

    def grow(self, count: int, transactions: int = 2) -> list[Block]:
        """`count` blocks of so many transfers each."""
        accounts = len(self.keys)
        grown = []
        for _ in range(count):
            senders = [(len(self.blocks) + index) % accounts for index in range(transactions)]
            batch = tuple(self.transfer(sender, (sender + 1) % accounts) for sender in senders)
            grown.append(self.append(self.build(batch)))
        return grown

    def write_home(self, home: Path) -> Path:
        """A home folder with this chain's genesis, as the store and the audit want it."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "genesis.json").write_text(write_genesis(self.rules.genesis))
        return home


def forge(block: Block, **changes: Any) -> Block:
    """The block with other header fields."""
    return replace(block, header=replace(block.header, **changes))
