"""Chains made without a network: blocks of a bench's transactions, certified, stored as a node stores them.

One process builds and signs what four validators would: the ledger's own builder, real certificates of
a quorum. Such a chain lies in the homes of a local network that has never voted, which then goes on with
it. Invariant: what is stored passes the audit. Leaves out: signatures of transactions being checked here;
that is what is measured later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from consensus.block import Block, Header
from consensus.crypto import PrivateKey
from consensus.errors import Fault
from consensus.ledger.rules import Rules
from consensus.ledger.state import State
from consensus.transaction import Transaction, decode_transaction
from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject
from node import config
from node.modules import make_rules
from node.store.store import Store

STEP_MS: Final = 1  # between blocks, at the least


def load_rules(home: Path) -> Rules:
    genesis = config.read_genesis(home)
    return make_rules(genesis, home)


class ChainMaker:
    """Grows a chain from genesis. `validator_keys` in the order of the homes."""

    def __init__(self, rules: Rules, validator_keys: Sequence[PrivateKey]) -> None:
        self.rules = rules
        self.state: State = rules.create_genesis_state()
        self._by_index = {rules.validators.get_index(key.public_key): key for key in validator_keys}
        self._notarization: Certificate | None = None

    def grow(self, transactions: Sequence[Transaction]) -> tuple[Block, Certificate]:
        """The next block, which holds all of these, and its finalization. Raises Fault."""
        parent = self.state.header
        view = parent.view + 1
        proposer = self.rules.validators.validators[view % len(self._by_index)]
        built = self.rules.build_block(
            self.state.view(),
            transactions,
            epoch=0,
            view_number=view,
            proposer_key=proposer.public_key,
            now_ms=parent.timestamp_ms + STEP_MS,
            certificate=self._notarization,
        )
        if len(built.block.transactions) != len(transactions):
            raise Fault(f"block {parent.height + 1} does not take all its transactions", field="chain")
        self.state.commit(built.delta)
        self._notarization = self._certify(built.block.header, NOTARIZE)
        return built.block, self._certify(built.block.header, FINALIZE)

    def _certify(self, header: Header, kind: int) -> Certificate:
        """A quorum's signatures on a block, in turn."""
        subject = Subject(header.epoch, kind, header.view, header.hash)
        digest = subject.compute_digest(self.rules.chain_id)
        count = len(self._by_index)
        signers = sorted((header.view + step) % count for step in range(2 * count // 3 + 1))
        return Certificate(subject, tuple((index, self._by_index[index].sign(digest)) for index in signers))


def store_chain(
    homes: Sequence[Path], raws: Sequence[bytes], per_block: int, into: Sequence[Path] | None = None
) -> int:
    """The same chain in every home (or in those of `into` alone), `per_block` transactions a block; its height."""
    rules = load_rules(homes[0])
    maker = ChainMaker(rules, [config.read_key(home / "validator.key") for home in homes])
    blocks = list(_grow_all(maker, raws, per_block))
    for home in homes if into is None else into:
        store = Store.open(home, rules)
        try:
            store.recover()
            for block, finalization in blocks:
                store.put_final(finalization, (block,))
            store.sync()
        finally:
            store.close()
    return len(blocks)


def _grow_all(
    maker: ChainMaker, raws: Sequence[bytes], per_block: int
) -> Iterator[tuple[Block, Certificate]]:
    transactions = list(map(decode_transaction, raws))
    for start in range(0, len(transactions), per_block):
        yield maker.grow(transactions[start : start + per_block])
