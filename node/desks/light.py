"""The light desk: what somebody needs who trusts no node: final headers with their sets, and proofs.

The state forgets a set with the evidence that could speak of it. Where epochs are short a header is trusted
for longer than that, so sets that became final are kept on a shelf (`store/set_shelf.py`), over restarts too,
and those of the first two epochs stand in genesis. Invariant: reads the final view, the store and the shelf, and tells
no set but the one that a header names. Leaves out: what the proofs prove (`consensus/light.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from consensus import codec, genesis, merkle
from consensus.block import Header
from consensus.ledger import epochs
from consensus.ledger.epochs import EpochSet
from consensus.ledger.record_proofs import prove_record
from consensus.ledger.rules import Rules
from consensus.vote import Certificate
from node.api.stake_records import HistoryProof, RecordProof, UpdateRecord
from node.blocks.chain import Chain
from node.store.set_shelf import SetShelf
from node.store.store import Store

Finality = tuple[Certificate | None, tuple[Header, ...]]


class LightDesk:
    """get_finality: what makes the block of a height final. get_history: a tree over hashes 0 .. n - 1."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: Store,
        shelf: SetShelf,
        get_finality: Callable[[int], Finality],
        get_history: Callable[[int], merkle.HashTree],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._get_finality = get_finality
        self._get_history = get_history
        self._shelf = shelf
        # Those that the state still knows: the shelf may be new, or have lost its end in a crash.
        oldest = max(0, chain.epoch - rules.parameters.unbonding_epochs)
        for epoch in range(oldest, chain.epoch + 1):
            self.remember(epoch)

    @cached_property
    def genesis_json(self) -> bytes:
        """The genesis file, as its digest was computed from."""
        return genesis.write_genesis(self._rules.genesis).encode()

    def get_update(self, height: int | None) -> UpdateRecord | None:
        """The final header of this height (None: the last) and the two sets that it commits to.

        None above the last final block, and when its sets are forgotten.
        """
        final_height = self._chain.finalized.height
        height = final_height if height is None else height
        header = self._store.get_header(height) if height <= final_height else None
        if header is None:
            return None
        now, following = self._find_set(header.epoch), self._find_set(header.epoch + 1)
        if now is None or following is None:
            return None
        told = now.validators.digest, following.validators.digest
        if told != (header.validators_digest, header.next_validators_digest):
            return None  # the shelf is of another home
        certificate, links = self._get_finality(height)
        return UpdateRecord(header, certificate, links, now, following)

    def remember(self, epoch: int) -> None:
        """Call when a block of this epoch became final: its set and the next one's are kept."""
        if not self._rules.parameters.epoch_blocks:
            return
        for wanted in (epoch, epoch + 1):
            found = None if wanted in self._shelf else self._chain.final_view.find_set(wanted)
            if found is not None:
                self._shelf.add(wanted, found)

    def _find_set(self, epoch: int) -> EpochSet | None:
        if epoch <= 1 or not self._rules.parameters.epoch_blocks:
            return epochs.create_genesis_set(self._rules.validators)
        return self._chain.final_view.find_set(epoch) or self._shelf.get(epoch)

    def prove_history(self, height: int, anchor_height: int) -> HistoryProof | None:
        """That the block of this height is below the final one of anchor_height; None unless both are."""
        if not height < anchor_height <= self._chain.finalized.height:
            return None
        header = self._store.get_header(height)
        assert header is not None  # final blocks are stored
        tree = self._get_history(anchor_height)
        return HistoryProof(header, anchor_height, tuple(tree.prove_inclusion(height, anchor_height)))

    def prove_record(self, key: bytes) -> RecordProof:
        """That the last final state holds a record with this key, or none."""
        view = self._chain.final_view
        proof = prove_record(view, key)
        certificate, links = self._get_finality(view.header.height)
        return RecordProof(view.header, proof.value, codec.encode(proof.as_tuple()), certificate, links)
