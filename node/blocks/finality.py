"""Finality: commits what a finalization makes final, in order, once every body is here.

Block and certificate are durable before the state moves and before anyone hears of it
(consensus.md, What must survive a crash); the state may lag behind the store and is re-executed at start. A final tail makes
its epoch's boundary block final and nothing else: its header only links the certificate to that.

Invariant: final blocks form one chain whose height rises by one. Leaves out: fetching (the judge's),
and catching up from far (`catch_up.py`), which hands its blocks in here too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from consensus.block import Block, Header
from consensus.ledger.state import View
from consensus.vote import Certificate
from node.blocks.chain import Chain, ValidBlock
from node.blocks.judge import Judge

log = logging.getLogger("assay.finality")

WAITING_MAX: Final = 64  # finalizations; as many heights ahead as the judge fetches blocks for


class FinalStore(Protocol):
    def put_final(
        self, certificate: Certificate, blocks: Sequence[Block], links: Sequence[Header] = ()
    ) -> None: ...

    def sync(self) -> None: ...


class Finality:
    """Holds the newest finalizations whose blocks are not all here yet.

    Not the very newest alone: with each block a little later than the finalization after it, nothing would be
    committed but by catching up.
    """

    def __init__(
        self,
        chain: Chain,
        store: FinalStore,
        judge: Judge,
        on_final: Callable[[tuple[Block, ...]], None],
        before_final: Callable[[View, Block], None] | None = None,
    ) -> None:
        """before_final: told of each block, with its parent's view, before the state moves on."""
        self._chain = chain
        self._store = store
        self._judge = judge
        self._on_final = on_final
        self._before_final = before_final
        self._waiting: dict[tuple[int, int], Certificate] = {}  # by epoch and view
        self._is_paused = False

    def finalize(self, certificate: Certificate) -> None:
        """A block became final. Commits at once, or fetches what is missing and commits then."""
        subject = certificate.subject
        if self._chain.is_past(subject.epoch, subject.view):
            return
        self._waiting[subject.epoch, subject.view] = certificate
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[min(self._waiting)]
        self.retry()

    def pause(self) -> None:
        """Catching up takes over: two writers must not interleave, nor any block be judged twice."""
        self._is_paused = True
        self._judge.pause()

    def resume(self) -> None:
        """Catching up is done for now; what waited goes on."""
        self._is_paused = False
        self._judge.resume()
        self.retry()

    def retry(self) -> None:
        """Call when the chain has grown: what waited may be complete now."""
        if self._is_paused:
            return
        for place in sorted(self._waiting, reverse=True):
            if self._chain.is_past(*place):
                del self._waiting[place]
            elif branch := self._chain.get_branch(self._waiting[place].subject.block_hash):
                self._commit(self._waiting.pop(place), branch)
                break  # what is older is past now
        if self._waiting:
            newest = self._waiting[max(self._waiting)].subject
            self._judge.fetch(newest.block_hash, epoch=newest.epoch, view=newest.view)

    def _commit(self, certificate: Certificate, branch: Sequence[ValidBlock]) -> None:
        final = tuple(entry.block for entry in branch if not entry.delta.is_tail)
        tails = [entry.block.header for entry in branch if entry.delta.is_tail]
        self._store.put_final(certificate, final, tails[-1:])  # it names the boundary block: decision 45
        self._store.sync()
        self.commit_stored(final)

    def commit_stored(self, branch: tuple[Block, ...]) -> None:
        """The same, for blocks whose finality is durable already."""
        if self._before_final is not None:
            for block in branch:
                view = self._chain.get_view(block.header.parent_hash)
                assert view is not None  # the branch hangs together
                self._before_final(view, block)
        self._chain.finalize(branch[-1].hash)
        header: Header = branch[-1].header
        self._judge.on_finalized(header)
        self._on_final(branch)
        log.debug("final", extra={"height": header.height, "view": header.view})
