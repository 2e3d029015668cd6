"""What a node comes up with: its store, its journal and its refusal log, opened in one order, and what they hold.

The store first, for it locks the home; then the journal, whose votes bind; all are closed again when
anything fails. Invariant: a damaged end of the block file is cut off only if the journal shows that
this node vouched for nothing in it (`Store.open`). Leaves out: what a home says (`node_files.py`).
"""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from consensus.bft.contract import Proposal
from consensus.bft.restore import Record
from consensus.block import Block
from consensus.errors import Fault
from consensus.ledger import epochs
from consensus.ledger.rules import Rules
from consensus.ledger.state import State
from consensus.vote import NULLIFY, Certificate
from node.engine.journal import Journal, JournalStatus, read_journal
from node.store.disk import Disk, RealDisk
from node.store.index_buffer import OpenIndex
from node.store.refusal_log import RefusalLog
from node.store.store import Store

JOURNAL_NAME: Final = "journal"
MARK_NAME: Final = "validator.voted"  # beside the key: it has voted, so its journal must be there


@dataclass(frozen=True, slots=True)
class Recovery:
    """Open: close `refusal_log`, `journal`, then `store`.

    state: after the last final block. unfinal: durable blocks above it, oldest first; this node vouched for
    them, so they are judged again, not fetched. records: the journal's of the epoch of the next block and later ones.
    """

    store: Store
    journal: Journal
    journal_status: JournalStatus
    refusal_log: RefusalLog
    state: State
    unfinal: tuple[Block, ...]
    records: tuple[Record, ...]


def recover(
    home: Path,
    rules: Rules,
    *,
    disk: Disk | None = None,
    executor: Executor | None = None,
    open_index: OpenIndex,
) -> Recovery:
    """Raises Rejected when another process has the home or it is of another chain, Fault when it is damaged."""
    with ExitStack() as undo:
        store = Store.open(
            home,
            rules,
            disk=disk,
            executor=executor,
            open_index=open_index,
            list_vouched=partial(_list_vouched, home, disk or RealDisk()),
        )
        undo.callback(store.close)
        recovered = store.recover()
        epoch = epochs.compute_epoch(store.finalized_height + 1, rules.parameters.epoch_blocks)
        journal, records, status = Journal.open(
            home / JOURNAL_NAME, mark_path=home / MARK_NAME, epoch=epoch, disk=disk
        )
        undo.callback(journal.close)
        refusal_log = RefusalLog.open(disk or RealDisk(), home, rules.genesis.digest)
        undo.pop_all()
    return Recovery(store, journal, status, refusal_log, recovered.state, recovered.unfinal, records)


def _list_vouched(home: Path, disk: Disk) -> list[tuple[int, int, bytes]] | None:
    """(epoch, view, hash) of every block that the journal shows a vote or a proposal of ours for; None: it is unfit."""
    if disk.read_file(home / JOURNAL_NAME) is None:
        return [] if disk.read_file(home / MARK_NAME) is None else None
    try:
        records = list(read_journal(home / JOURNAL_NAME, disk=disk))
    except Fault:
        return None
    own = [record for record in records if not isinstance(record, Certificate)]
    subjects = [(record.vote if isinstance(record, Proposal) else record).subject for record in own]
    return [
        (subject.epoch, subject.view, subject.block_hash) for subject in subjects if subject.kind != NULLIFY
    ]
