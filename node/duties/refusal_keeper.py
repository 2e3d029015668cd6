"""The keeper of refusals: logs each one, commits to the log in this node's blocks, and answers for it later.

Before a block carries a head, the log is durable up to it, and it begins with the log of this node's last
block on that branch. When it does not (a disk was lost, a damaged end cut off), a new log is begun whose
first leaf names that block: a gap is told, in public and for good, and never papered over.

Invariant: of one proposer's final blocks each head extends the one before, or its log's first leaf tells
why not. One entry a transaction and set of modules. Bounded: LOGGED_PER_SECOND and a burst; what is above is counted.
Leaves out: refusals by policy or for backing off, and what was left out without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from consensus.block import Header
from consensus.errors import Fault
from consensus.parameters import CLOCK_WORKLOAD, Parameters
from consensus.refusal import EMPTY_LOG, LogBeginning, LogHead, RefusalEntry, get_head, trim_reasons
from node.blocks.chain import Chain
from node.clock import Clock
from node.mempool.refusals import Refusal
from node.metrics import NodeMetrics
from node.store.refusal_log import Logged, RefusalLog, Searched

log = logging.getLogger("assay.refusals")

# A refusal costs its sender nothing, and an entry stays for good, some 600 bytes: what strangers can make a
# disk grow by is 100 MB a day. The burst holds all of a replay's month, as the memory of refusals does.
LOGGED_PER_SECOND: Final = 2
LOGGED_BURST: Final = 20_000
MARK_BLOCKS: Final = 1_000  # headers read again after a start at most: a tenth of a second


class Headers(Protocol):
    """As `node.store.store.Store` has them."""

    @property
    def finalized_height(self) -> int: ...

    def get_header(self, height: int) -> Header | None: ...


@dataclass(frozen=True, slots=True)
class Commitment:
    """Where an entry can be proven: a final block of this node's own, and the path to its root."""

    header: Header
    siblings: tuple[bytes, ...]


class RefusalKeeper:
    """One node's. own_key: of its validator, b"" without one. A Fault of the disk goes to `on_fault`, or is raised."""

    def __init__(
        self,
        refusal_log: RefusalLog,
        chain: Chain,
        headers: Headers,
        parameters: Parameters,
        clock: Clock,
        metrics: NodeMetrics,
        own_key: bytes,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.log = refusal_log
        self._chain = chain
        self._headers = headers
        self._is_workload = parameters.clock == CLOCK_WORKLOAD
        self._clock = clock
        self._metrics = metrics
        self.own_key = own_key
        self._on_fault = on_fault
        self._tokens = LOGGED_BURST * 1_000  # in thousandths
        self._refilled_ms = clock.monotonic_ms()
        self.unlogged = 0  # refusals above the rate, since the start
        self._is_behind = False
        self._own = self._find_own()
        if refusal_log.cut_bytes:
            log.warning("the refusal log had a torn end", extra={"bytes": refusal_log.cut_bytes})

    # --- what was refused -----------------------------------------------------------------------

    def note(self, refusal: Refusal) -> None:
        """Log it, unless these modules refused it before or too many were logged lately."""
        try:
            if self._find(refusal.transaction.id, refusal.modules_digest) is not None:
                return
            if not self._take_token():
                self._count_unlogged()
                return
            entry = RefusalEntry(
                refusal.transaction.id,
                refusal.score,
                refusal.modules_digest,
                trim_reasons(refusal.reasons),
                self._get_clock_ms(),
                refusal.height,
            )
            self.log.append(entry, refusal.transaction)
            self._metrics.refusals_logged.inc()
        except Fault as fault:
            self._on_fault(fault)

    def _find(self, transaction_id: bytes, modules_digest: bytes) -> Logged | None:
        for logged in self.log.find(transaction_id):
            if isinstance(logged.entry, RefusalEntry) and logged.entry.modules_digest == modules_digest:
                return logged
        return None

    def _take_token(self) -> bool:
        now_ms = self._clock.monotonic_ms()
        gained = LOGGED_PER_SECOND * max(0, now_ms - self._refilled_ms)
        self._tokens = min(LOGGED_BURST * 1_000, self._tokens + gained)
        self._refilled_ms = now_ms
        if self._tokens < 1_000:
            return False
        self._tokens -= 1_000
        self._is_behind = False
        return True

    def _count_unlogged(self) -> None:
        self.unlogged += 1
        self._metrics.refusals_unlogged.inc()
        if not self._is_behind:
            self._is_behind = True
            log.warning("more is refused than is logged", extra={"per_second": LOGGED_PER_SECOND})

    def _get_clock_ms(self) -> int:
        chain_ms = self._chain.finalized.timestamp_ms
        return chain_ms if self._is_workload else max(chain_ms, self._clock.now_ms())

    # --- what blocks commit to ------------------------------------------------------------------

    def commit(self, parent_hash: bytes) -> LogHead:
        """The head for a block of this node's on that parent, durable. Raises Fault."""
        branch = (entry.block.header for entry in reversed(self._chain.get_branch(parent_hash)))
        last = next((header for header in branch if self._is_own(header)), self._own)
        if last is not None and not self._follows(last):
            self._begin_anew(last)
        self.log.sync()
        return self.log.get_head() if len(self.log) else EMPTY_LOG

    def on_final(self, header: Header) -> None:
        """A block became final: perhaps one of this node's own."""
        if self._is_own(header):
            self._own = header
        if header.height >= self.log.searched.height + MARK_BLOCKS:
            self._mark(header.height)

    def sync(self) -> None:
        """Make what was logged durable. Called now and then. Raises Fault."""
        self.log.sync()

    def close(self) -> None:
        """Make durable what can be. What cannot was promised to nobody: no block commits to it."""
        try:
            if self.log.searched.height < self._headers.finalized_height:
                self._mark(self._headers.finalized_height)
            self.log.sync()
        except Fault as fault:
            log.warning("the last refusals may be lost", extra={"reason": str(fault)})
        self.log.close()

    def abandon(self) -> None:
        """Close without another write: this node has failed."""
        self.log.close()

    def _is_own(self, header: Header) -> bool:
        return bool(self.own_key) and header.proposer == self.own_key

    def _follows(self, last: Header) -> bool:
        """Whether this log begins with that block's, or says in its first leaf that that one was lost."""
        if self.log.holds(get_head(last)):
            return True
        first = self.log.get(0).entry if len(self.log) else None
        return isinstance(first, LogBeginning) and first.block_hash == last.hash

    def _begin_anew(self, last: Header) -> None:
        lost = get_head(last)
        log.critical(
            "the refusal log is not the one that this node's blocks commit to: a new one says so",
            extra={"height": last.height, "committed": lost.count, "found": len(self.log)},
        )
        self.log = self.log.begin_anew(LogBeginning(lost, last.hash, last.height, self._get_clock_ms()))

    def _find_own(self) -> Header | None:
        """This node's newest final block; few headers are read, for the log remembers how far that was searched."""
        if not self.own_key:
            return None
        searched, final_height = self.log.searched, self._headers.finalized_height
        if searched.height > final_height:  # the chain was lost, and the log was not
            searched = Searched()
        for height in range(final_height, searched.height, -1):
            header = self._headers.get_header(height)
            if header is not None and self._is_own(header):
                return header
        return self._headers.get_header(searched.own_height) if searched.own_height else None

    def _mark(self, height: int) -> None:
        self.log.mark(Searched(height, 0 if self._own is None else self._own.height))

    # --- questions ------------------------------------------------------------------------------

    def get(self, transaction_id: bytes) -> Logged | None:
        """The newest entry about a transaction."""
        found = self.log.find(transaction_id)
        return found[-1] if found else None

    def list(self, first: int, limit: int) -> tuple[Logged, ...]:
        """Entries number first .. first + limit - 1, as far as there are."""
        return tuple(self.log.get(index) for index in range(first, min(first + limit, len(self.log))))

    def prove(self, index: int) -> Commitment | None:
        """In this node's newest final block; None while no final block counts this entry."""
        own = self._own
        if own is None or own.refusal_count <= index or not self.log.holds(get_head(own)):
            return None
        return Commitment(own, self.log.prove_inclusion(index, own.refusal_count))
