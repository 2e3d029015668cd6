"""A door over a chain of test_light's `Source`: real blocks, sets and signatures, any height asked for.

`lies` replaces what is shown of a height, as a dishonest node would.
"""

from __future__ import annotations

from dataclasses import replace

from consensus import codec
from consensus.block import compute_leaf
from consensus.genesis import write_genesis
from consensus.ledger import epochs
from consensus.ledger.epochs import EpochSet
from consensus.ledger.proofs import prove_account
from consensus.ledger.record_proofs import prove_record
from consensus.light import FinalHeader
from consensus.merkle import prove_inclusion
from consensus.transaction import Transaction
from consensus.vote import ValidatorSet
from node.api import door, stake_records
from tests.fakes.fake_door import FakeDoor
from tests.staking_chain import OPERATORS
from tests.unit.test_light import Source


class LightDoor(FakeDoor):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.lies: dict[int, FinalHeader] = {}
        self.shown: list[int] = []

    @property
    def height(self) -> int:
        return len(self.source.chain.blocks)

    def get_status(self) -> door.StatusRecord:
        final = self.source.chain.view.header
        rules = self.source.chain.rules
        return replace(
            super().get_status(), chain_id=rules.chain_id, finalized=final, parameters=rules.parameters
        )

    def get_genesis(self) -> bytes:
        return write_genesis(self.source.chain.rules.genesis).encode()

    def get_update(self, height: int | None) -> stake_records.UpdateRecord | None:
        height = self.height if height is None else height
        if height > self.height:
            return None
        self.shown.append(height)
        header = self.source.header(height) if height else self.source.genesis
        final = self.lies.get(height) or (self.source.finalize(header) if height else None)
        header = header if final is None else final.header
        return stake_records.UpdateRecord(
            header,
            None if final is None else final.certificate,
            () if final is None else final.links,
            self._find_set(header.epoch),
            self._find_set(header.epoch + 1),
        )

    def _find_set(self, epoch: int) -> EpochSet:
        found = epochs.find_set(self.source.chain.view.records, epoch)
        if found is not None:
            return found
        validators: ValidatorSet = self.source.sets[epoch]
        return EpochSet(validators, tuple(key.address for key in OPERATORS[: len(validators)]))

    def prove_history(self, height: int, anchor_height: int) -> stake_records.HistoryProof | None:
        if not height < anchor_height <= self.height:
            return None
        header = self.source.header(height) if height else self.source.genesis
        siblings = self.source.chain.history.prove_inclusion(height, anchor_height)
        return stake_records.HistoryProof(header, anchor_height, tuple(siblings))

    def prove_record(self, key: bytes) -> stake_records.RecordProof:
        view = self.source.chain.view
        proof = prove_record(view, key)
        final = self.source.finalize(view.header)
        return stake_records.RecordProof(
            view.header, proof.value, codec.encode(proof.as_tuple()), final.certificate, ()
        )

    def get_account(self, address: bytes) -> door.AccountRecord:
        account = self.source.chain.view.get_account(address)
        balance = 0 if account is None else account.balance
        return door.AccountRecord(address, balance, 0, 0, 0, self.height)

    def prove_account(self, address: bytes) -> door.AccountProof | None:
        view = self.source.chain.view
        if view.get_account(address) is None:
            return None
        proof = codec.encode(prove_account(view, address).as_tuple())
        return door.AccountProof(view.header, proof, self.source.finalize(view.header).certificate, ())

    def get_transaction(self, transaction_id: bytes) -> door.TransactionRecord | None:
        for block in self.source.chain.blocks:
            for index, tx in enumerate(block.transactions):
                if tx.id == transaction_id:
                    height, score = block.header.height, block.scores[index]
                    return door.TransactionRecord(
                        tx, "final", height, index, block.hash, score, block.outcomes[index]
                    )
        return None

    def get_case(self, tx: Transaction) -> None:
        """Nothing is reported here."""

    def prove_transaction(self, transaction_id: bytes) -> door.TransactionProof | None:
        record = self.get_transaction(transaction_id)
        if record is None or record.height is None or record.index is None:
            return None
        block = self.source.chain.blocks[record.height - 1]
        leaves = [
            compute_leaf(tx.id, score, outcome)
            for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True)
        ]
        history = self.prove_history(record.height, self.height)
        return door.TransactionProof(
            block.header,
            record.index,
            len(leaves),
            prove_inclusion(leaves, record.index),
            self.source.finalize(block.header).certificate,
            (),
            self.height,
            () if history is None else history.siblings,
        )
