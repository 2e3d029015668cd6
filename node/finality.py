"""Finality: commits what a finalization makes final, in order, once every body is here.

Block and certificate are durable before the state moves and before anyone hears of it
(consensus.md, Journal); the state may lag behind the store and is re-executed at start.

Invariant: final blocks form one chain whose height rises by one. Leaves out: fetching (the judge's),
and catching up from far (`catch_up.py`), which hands its blocks in here too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from consensus.block import Block, Header
from consensus.vote import Certificate
from node.chain import Chain
from node.judge import Judge

log = logging.getLogger("assay.finality")


class FinalStore(Protocol):
    def put_final(self, certificate: Certificate, blocks: Sequence[Block]) -> None: ...

    def sync(self) -> None: ...


class Finality:
    """Holds the newest finalization whose blocks are not all here yet."""

    def __init__(
        self,
        chain: Chain,
        store: FinalStore,
        judge: Judge,
        on_final: Callable[[tuple[Block, ...]], None],
    ) -> None:
        self._chain = chain
        self._store = store
        self._judge = judge
        self._on_final = on_final
        self._waiting: Certificate | None = None
        self.is_paused = False  # while catching up applies a batch: two writers must not interleave

    def finalize(self, certificate: Certificate) -> None:
        """A block became final. Commits at once, or fetches what is missing and commits then."""
        if certificate.subject.view <= self._chain.finalized.view:
            return
        if self._waiting is None or certificate.subject.view > self._waiting.subject.view:
            self._waiting = certificate
        self.retry()

    def retry(self) -> None:
        """Call when the chain has grown: what waited may be complete now."""
        certificate = self._waiting
        if certificate is None or self.is_paused:
            return
        if certificate.subject.view <= self._chain.finalized.view:
            self._waiting = None
            return
        block_hash = certificate.subject.block_hash
        branch = self._chain.get_branch(block_hash)
        if not branch:
            self._judge.fetch(block_hash, view=certificate.subject.view)
            return
        self._waiting = None
        self.commit(tuple(entry.block for entry in branch), certificate)

    def commit(self, branch: tuple[Block, ...], certificate: Certificate) -> None:
        """Make a branch of valid blocks final: store, sync, swap the state, tell. Raises Fault."""
        self._store.put_final(certificate, branch)
        self._store.sync()
        self.commit_stored(branch)

    def commit_stored(self, branch: tuple[Block, ...]) -> None:
        """The same, for blocks whose finality is durable already."""
        self._chain.finalize(branch[-1].hash)
        header: Header = branch[-1].header
        self._judge.on_finalized(header)
        self._on_final(branch)
        log.debug("final", extra={"height": header.height, "view": header.view})
