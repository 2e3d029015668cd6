"""Shadows: published models that do not judge yet score along on this node, outside consensus.

Before a final block is committed, what its modules were shown is taken from the parent's state; the rest
happens in a thread of its own. A shadow whose rows are those of a seat reads them from the state; another
keeps its own in memory, from when it began here, and begins anew after a restart or a gap.

Invariant: nothing waits for a shadow and nothing asks it: one that fails is dropped, blocks that come
faster than it scores are left out, and the log says so. Leaves out: what the log tells (`shadow_log.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from consensus.block import Block
from consensus.ledger import columns, epochs, models, motion
from consensus.ledger.judging import Seat
from consensus.ledger.report import decode_payload
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import (
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    ValidationModule,
    get_rows_key,
)
from consensus.ledger.state import ROW_FIXED_BYTES, Rows, View
from consensus.ledger.work import Work
from consensus.transaction import KIND_REPORT
from node.duties.shadow_log import (
    BLOCK,
    REPORT,
    START,
    TRANSFER,
    Entries,
    ShadowLog,
    make_entries,
    read_subject,
)
from node.modules import THRESHOLDS_DEFAULT

log = logging.getLogger("assay.shadows")

WAITING_MAX: Final = 64  # blocks taken and not yet scored: some seconds of a busy chain, a few megabytes
OWN_ACCOUNTS_MAX: Final = 200_000  # of one shadow with rows of its own: 50 MB
OWN_MEMOS_MAX: Final = 200_000  # of one such shadow: 25 MB


@dataclass(frozen=True, slots=True)
class Shown:
    """A final block as its parent left it. places: of the scored transfers."""

    block: Block
    work: Work
    places: tuple[int, ...]
    addresses: tuple[bytes, ...]  # by local index


@dataclass(slots=True)
class Shadow:
    """A model that scores along. place: of a seat whose rows it shares; None: it keeps its own."""

    digest: bytes
    module: ValidationModule
    thresholds: Thresholds
    log: ShadowLog
    own_rows: dict[bytes, bytes]
    own_memos: dict[bytes, int] = field(default_factory=dict)  # what it noted of a report, by case
    last_height: int = 0  # of the last block it scored without a gap
    is_failed: bool = False


class Shadows:
    """One node's. `count_max`: how many models score along, the newest ones; 0: none."""

    def __init__(self, rules: Rules, folder: Path, count_max: int, executor: Executor | None = None) -> None:
        self._rules = rules
        self._folder = folder
        self._count_max = count_max
        self._executor = executor
        self._is_own = executor is None
        self._shadows: dict[bytes, Shadow] = {}
        self._failed: set[bytes] = set()
        self._waiting: list[Future[None]] = []

    def list_digests(self) -> tuple[bytes, ...]:
        """The models that score along now."""
        return tuple(self._shadows)

    def get_log(self, digest: bytes) -> ShadowLog:
        return ShadowLog(self._folder, digest)

    def before_final(self, view: View, block: Block) -> None:
        """`block` is about to be committed on `view`, its parent's."""
        if not self._count_max:
            return
        try:
            self._choose(view)
            if self._shadows:
                self._take(view, block)
        except Exception:  # a model's own code may do anything; the node goes on without it
            log.exception("shadows are off until the next start")
            self._count_max = 0

    def close(self) -> None:
        """What is under way is finished, nothing new begun."""
        self._count_max = 0
        if self._executor is not None and self._is_own:
            self._executor.shutdown(cancel_futures=True)

    # --- which models -----------------------------------------------------------------------------------

    def _choose(self, view: View) -> None:
        records = view.records
        seated = {seat.digest for seat in motion.get_seating(records).seats}
        found = [
            (model.height, digest)
            for digest, model in models.walk_models(records)
            if digest not in seated and model.publication and digest not in self._failed
        ]
        wanted = [digest for _, digest in sorted(found, reverse=True)[: self._count_max]]
        for digest in [digest for digest in self._shadows if digest not in wanted]:
            del self._shadows[digest]
        for digest in wanted:
            if digest not in self._shadows:
                module = self._rules.find_module(view, digest)
                limits = getattr(module, "thresholds", THRESHOLDS_DEFAULT)
                self._shadows[digest] = Shadow(digest, module, limits, self.get_log(digest), {})

    # --- one block --------------------------------------------------------------------------------------

    def _take(self, view: View, block: Block) -> None:
        self._waiting = [future for future in self._waiting if not future.done()]
        if len(self._waiting) >= WAITING_MAX:
            return  # the gap shows in the heights
        rules, header = self._rules, block.header
        work = Work(
            view,
            rules.parameters,
            header.timestamp_ms,
            block.transactions,
            chain_id=rules.chain_id,
            proposer=epochs.get_set(view.records, header.epoch).get_operator(header.proposer) or bytes(20),
            shelf=rules.shelf,
        )
        places = tuple(place for place, tx in enumerate(block.transactions) if rules.is_scored(tx))
        shown = Shown(block, work, places, tuple(work.index))
        seats: dict[bytes, Seat] = {}
        seating = motion.get_seating(view.records)
        for entry, seat in zip(seating.seats, rules.find_panel(view).seats, strict=True):
            seats.setdefault(entry.rows_key, seat)
        rows: dict[bytes, Rows | None] = {}
        for shadow in self._shadows.values():
            shared = seats.get(get_rows_key(shadow.module))
            rows[shadow.digest] = None if shared is None else shared.read_rows(work.rows[:, ROW_FIXED_BYTES:])
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="shadows")
        self._waiting.append(self._executor.submit(self._score, shown, tuple(self._shadows.values()), rows))

    def _score(self, shown: Shown, shadows: Sequence[Shadow], rows: dict[bytes, Rows | None]) -> None:
        """In the thread. The work is this block's own; the view behind it is not read any more."""
        work, block = shown.work, shown.block
        for tx in block.transactions:
            work.apply(tx)
        scored = [block.transactions[place] for place in shown.places]
        transfers = columns.build_transfer_columns(scored, work.index)
        reports = columns.build_report_columns(work.reports)
        for shadow in shadows:
            if shadow.is_failed:
                continue
            try:
                self._score_one(shadow, shown, transfers, reports, rows[shadow.digest])
            except Exception:
                log.exception("a shadow failed and is dropped", extra={"digest": shadow.digest.hex()})
                shadow.is_failed = True
                self._failed.add(shadow.digest)

    def _score_one(
        self,
        shadow: Shadow,
        shown: Shown,
        transfers: TransferColumns,
        reports: ReportColumns,
        shared: Rows | None,
    ) -> None:
        height, block = shown.block.header.height, shown.block
        has_gap = shadow.last_height != height - 1
        parts: list[Entries] = []
        if shared is None:
            is_full = len(shadow.own_rows) > OWN_ACCOUNTS_MAX or len(shadow.own_memos) > OWN_MEMOS_MAX
            if has_gap or is_full:
                shadow.own_rows.clear()
                shadow.own_memos.clear()
                parts.append(make_entries(START, [height]))
        elif shadow.last_height == 0 and shadow.log.find_last_height() == 0:
            parts.append(make_entries(START, [height]))  # its rows have been whole since long
        blank = bytes(shadow.module.row_bytes)
        if shared is None:
            stored = b"".join(shadow.own_rows.get(address, blank) for address in shown.addresses)
            rows = np.frombuffer(stored, dtype=np.uint8).reshape(len(shown.addresses), len(blank))
            noted = [
                shadow.own_memos.pop(row.case, 0) if row.is_withdrawn else 0 for row in shown.work.reports
            ]
            reports = replace(reports, memo=np.array(noted, dtype=np.uint8))
        else:
            rows = shared
        with np.errstate(all="ignore"):
            verdicts, written = shadow.module.evaluate(
                transfers, reports, ModuleView(rows, shadow.thresholds)
            )
        if shared is None:
            touched = {int(i) for column in (transfers, reports) for i in (*column.sender, *column.receiver)}
            for index in touched:
                shadow.own_rows[shown.addresses[index]] = written[index].tobytes()
            if verdicts.memo is not None:
                memos = zip(shown.work.reports, verdicts.memo.tolist(), strict=True)
                shadow.own_memos |= {row.case: memo for row, memo in memos if memo and not row.is_withdrawn}
        entries = make_entries(
            TRANSFER, [read_subject(block.transactions[place].id) for place in shown.places]
        )
        entries["chain_score"] = [block.scores[place] for place in shown.places]
        entries["chain_outcome"] = [block.outcomes[place] for place in shown.places]
        entries["shadow_score"] = verdicts.score
        entries["shadow_outcome"] = verdicts.outcome
        reported = [
            read_subject(decode_payload(tx.payload).reported.id)
            for tx in block.transactions
            if tx.kind == KIND_REPORT
        ]
        parts += [entries, make_entries(REPORT, reported), make_entries(BLOCK, [height])]
        shadow.log.append(parts)
        shadow.last_height = height
