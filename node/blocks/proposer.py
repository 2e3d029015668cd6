"""The proposer: builds a block on a given parent when it is this validator's turn.

Invariant: what it builds, every honest judge accepts (`Rules.build_block` is the same code), and the
body is durable before the engine hears of it. Candidates that turn out invalid or refused leave the
mempool with their reason; deferred ones stay. How many are taken, the block budget says: a block that
takes too long loses its view. Leaves out: when it is whose turn; that is the engine's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from consensus.bft.contract import BlockBuilt, BlockRef, Build, Event
from consensus.block import Block, Header
from consensus.errors import NotYet, Rejected
from consensus.ledger import epochs
from consensus.ledger.building import Built
from consensus.ledger.rules import Rules
from consensus.ledger.state import View
from consensus.refusal import EMPTY_LOG, LogHead
from consensus.transaction import Transaction
from node.blocks.budget import BlockBudget
from node.blocks.chain import Chain
from node.blocks.judge import BlockStore
from node.clock import Clock
from node.mempool.mempool import Mempool
from node.mempool.refusals import Judged

log = logging.getLogger("assay.proposer")

UNFINAL_BLOCKS_MAX: Final = (
    16  # a view walks one delta per unfinal block; past this leaders propose empty ones
)
ROUNDS_MAX: Final = 4  # each costs a build; after so many, what is left can wait for the next block


class Proposer:
    """Answers Build. `on_built` is told of each block, and of what was refused while building it.

    get_public_key: with which this validator votes in the current epoch. find_reveal: for the beacon, of a block of
    an epoch on a view. commit_refusals: the durable head of this node's refusal log, for a block on that parent.
    """

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        store: BlockStore,
        mempool: Mempool,
        clock: Clock,
        budget: BlockBudget,
        get_public_key: Callable[[], bytes],
        find_reveal: Callable[[View, int], bytes],
        read_block: Callable[[bytes], BlockRef],
        post: Callable[[Event], None],
        on_built: Callable[[Built, list[Judged]], None],
        get_withheld: Callable[[], AbstractSet[bytes]] = frozenset,
        commit_refusals: Callable[[bytes], LogHead] = lambda _: EMPTY_LOG,
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._store = store
        self._mempool = mempool
        self._clock = clock
        self._budget = budget
        self._get_public_key = get_public_key
        self._find_reveal = find_reveal
        self._read_block = read_block
        self._post = post
        self._on_built = on_built
        self._get_withheld = get_withheld  # by this node's own policy
        self._commit_refusals = commit_refusals
        self._last: Header | None = None  # of the last block built here
        self.is_waiting = False  # a build was declined for want of transactions: WorkWaiting wakes it

    def build(self, build: Build) -> None:
        """Build now, or remember that there was nothing to build with."""
        self._note_if_lost(build)
        for _ in range(ROUNDS_MAX):
            if not self._build_once(build):
                return
        self.is_waiting = True

    def _build_once(self, build: Build) -> bool:
        """Whether to try again: there was nothing to propose but what cannot be now."""
        self.is_waiting = False
        started_ms = self._clock.monotonic_ms()
        parent = build.parent.hash
        view = self._chain.get_view(parent)
        if view is None:
            self._post(BlockBuilt(build.view, None, b""))
            return False
        branch = self._chain.get_branch(parent)
        candidates: list[Transaction] = []
        # Past its epoch's boundary a block is a tail and takes no transactions: it stays empty, and comes in time.
        is_tail = epochs.is_tail_place(view.header, build.parent.epoch, self._chain.epoch_blocks)
        if len(branch) < UNFINAL_BLOCKS_MAX and not is_tail:
            included = {tx.id for entry in branch for tx in entry.block.transactions} | self._get_withheld()
            parameters = self._rules.genesis.parameters
            count_max = self._budget.get_count_max(parameters.block_transactions_max)
            candidates = self._mempool.select(view, parameters.block_bytes_max, count_max, included)
        if not candidates and not build.is_empty_allowed:
            self.is_waiting = True
            return False
        try:
            built = self._rules.build_block(
                view,
                candidates,
                epoch=build.parent.epoch,
                view_number=build.view,
                proposer_key=self._get_public_key(),
                now_ms=self._clock.now_ms(),
                certificate=build.certificate,
                reveal=self._find_reveal(view, build.parent.epoch),
                refusals=EMPTY_LOG if is_tail else self._commit_refusals(parent),
            )
        except (Rejected, NotYet) as reason:
            log.error("cannot build", extra={"view": build.view, "reason": str(reason)})
            self._post(BlockBuilt(build.view, None, b""))
            return False
        self._on_built(built, _list_judged(built, candidates, view))
        if not built.block.transactions and not build.is_empty_allowed:
            self.is_waiting = True
            return bool(built.refused or built.rejected)  # gone, or resting: what stood behind them is next
        self._publish(build.view, built)
        self._budget.note_built(len(candidates), self._clock.monotonic_ms() - started_ms)
        return False

    def _note_if_lost(self, build: Build) -> None:
        """Whether the last block built here is no ancestor of this one: its view was nullified."""
        last, self._last = self._last, None
        if last is None or build.view <= last.view:
            return
        if last.height <= self._chain.finalized.height:
            is_kept = self._store.get_header(last.height) == last
        else:
            is_kept = any(
                entry.block.hash == last.hash for entry in self._chain.get_branch(build.parent.hash)
            )
        if not is_kept:
            self._budget.note_lost(last.transaction_count)

    def _publish(self, view_number: int, built: Built) -> None:
        block: Block = built.block
        header: Header = block.header
        self._store.put_block(block)
        self._store.sync()
        self._chain.add(block, built.delta)
        self._last = header
        self._post(BlockBuilt(view_number, self._read_block(header.raw), header.raw))


def _list_judged(built: Built, candidates: list[Transaction], view: View) -> list[Judged]:
    """What was refused while building, each with the candidates that it was judged after."""
    rejected = {tx.id for tx, _ in built.rejected}
    judged = [tx for tx in candidates if tx.id not in rejected]
    places = {tx.id: place for place, tx in enumerate(judged)}
    return [Judged(tx, score, view, judged[: places[tx.id]]) for tx, score in built.refused]
