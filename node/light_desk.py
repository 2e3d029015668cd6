"""The light desk: what somebody needs who trusts no node: final headers with their sets, and proofs.

The state forgets a set with the evidence that could speak of it. Where epochs are short a header is trusted
for longer than that, so the sets that became final while this node ran are remembered, and those of the first
two epochs stand in genesis. Invariant: reads the final view and the store, and remembers SETS_MAX sets. Leaves out: what the proofs prove (`consensus/light.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final

from consensus import codec, genesis, merkle
from consensus.block import Header
from consensus.ledger import epochs
from consensus.ledger.epochs import EpochSet
from consensus.ledger.record_proofs import prove_record
from consensus.ledger.rules import Rules
from consensus.vote import Certificate
from node.api.stake_records import HistoryProof, RecordProof, UpdateRecord
from node.chain import Chain
from node.store.store import Store

Finality = tuple[Certificate | None, tuple[Header, ...]]

SETS_MAX: Final = 1_024  # epochs; sets that do not change from one to the next are one object


class LightDesk:
    """get_finality: what makes the block of a height final. get_history: a tree over hashes 0 .. n - 1."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: Store,
        get_finality: Callable[[int], Finality],
        get_history: Callable[[int], merkle.HashTree],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._get_finality = get_finality
        self._get_history = get_history
        self._sets: dict[int, EpochSet] = {}  # by epoch, rising

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
        sets = self._find_set(header.epoch), self._find_set(header.epoch + 1)
        if sets[0] is None or sets[1] is None:
            return None
        certificate, links = self._get_finality(height)
        return UpdateRecord(header, certificate, links, sets[0], sets[1])

    def remember(self, epoch: int) -> None:
        """Call when a block of this epoch became final: its set and the next one's are kept in memory."""
        view = self._chain.final_view
        for wanted in (epoch, epoch + 1):
            found = None if wanted in self._sets else view.find_set(wanted)
            if found is not None:
                last = self._sets.get(wanted - 1)
                self._sets[wanted] = last if last is not None and last == found else found
        while len(self._sets) > SETS_MAX:
            del self._sets[next(iter(self._sets))]

    def _find_set(self, epoch: int) -> EpochSet | None:
        if epoch <= 1 or not self._rules.parameters.epoch_blocks:
            return epochs.create_genesis_set(self._rules.validators)
        return self._chain.final_view.find_set(epoch) or self._sets.get(epoch)

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
