"""The audit: reads a home as a stranger would, executes the chain again, believes nothing.

Every record checksum, header link, signature, certificate (with its epoch's set), score, outcome and root;
every checkpoint, bit by bit against the re-executed state; every place in the index. It reads only, takes no
lock, and works beside a running node: what was not there when it began is not looked at, and a record that is
being written is no damage.

Invariant: `ok` only if all of it holds up to the last final block; otherwise the lowest height at which
something does not, and what. Leaves out: the journal (the node checks it at start).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus import vote
from consensus.block import GENESIS_VIEW, Block, Header, decode_block
from consensus.errors import AssayError, Rejected
from consensus.ledger.rules import Rules
from consensus.ledger.snapshot import dump_state
from consensus.ledger.state import State, View
from consensus.secp256k1 import Signed
from consensus.transaction import compute_signing_digest
from node.audit_workers import Answers, IndexProblem, Workers
from node.clock import Clock, SystemClock
from node.config import read_genesis
from node.modules import make_rules
from node.store.block_file import BODY, FINAL, BlockFile, Damage, Record
from node.store.checkpoint import CheckpointFolder, CheckpointName, compute_digest
from node.store.disk import RealDisk
from node.store.index_reader import IndexReader
from node.store.opening import check_identity
from node.store.positions import Positions, decode_mark, locate_damage, read_header
from node.store.store import BLOCKS_NAME

BATCHES_MAX: Final = 16  # blocks whose signatures are on their way: keeps every worker busy, bounds memory
WORKERS_MAX: Final = 8  # one process executes; more than that many cannot be kept busy by it
WORKERS_FROM_TRANSACTIONS: Final = 20_000  # below that, starting a process costs more than it saves

Progress = Callable[[int, int], None]  # blocks done, in all


@dataclass(frozen=True, slots=True)
class AuditReport:
    """`blocks` and `transactions`: the final ones that hold. `problem`: what differs at first_bad_height."""

    blocks: int
    transactions: int
    ok: bool
    first_bad_height: int | None
    problem: str | None
    seconds: float


class _Findings:
    """The lowest height at which something does not hold, and the first thing found there."""

    def __init__(self) -> None:
        self.height: int | None = None
        self.problem: str | None = None

    def add(self, height: int, problem: object) -> None:
        if self.height is None or height < self.height:
            self.height, self.problem = height, str(problem)

    def is_reached(self, height: int) -> bool:
        """Whether nothing at `height` or above can be the first."""
        return self.height is not None and height >= self.height


def audit_home(
    home: Path, progress: Progress | None = None, *, processes: int | None = None, clock: Clock | None = None
) -> AuditReport:
    """Audit the chain in `home`. `processes` check signatures beside this one (default: one a core; 0: none).

    Raises Rejected when `home` is no home, Fault when it cannot be read.
    """
    clock = clock or SystemClock()
    started_ms = clock.monotonic_ms()
    genesis = read_genesis(home)
    rules = make_rules(genesis, home)
    findings = _Findings()
    blocks = transactions = 0
    # Before the block file: a running node writes checkpoints and index after the blocks they are of.
    checkpoints = CheckpointFolder(RealDisk(), home / "checkpoints")
    names = checkpoints.list_names()
    indexed = _read_last_indexed(home, findings)
    if (home / BLOCKS_NAME).exists():
        file = BlockFile.open(RealDisk(), home / BLOCKS_NAME, read_only=True)
        try:
            state = rules.create_genesis_state()
            positions, transaction_count = _read_file(file, rules, home, state.header, findings)
            is_isolated = processes != 0
            if processes is None:
                processes = min(os.cpu_count() or 1, WORKERS_MAX)
            if transaction_count < WORKERS_FROM_TRANSACTIONS:
                processes = 0
            with Workers(processes, is_isolated=is_isolated and indexed > 0) as workers:
                offsets = [
                    positions.get_offset(height) or 0 for height in range(1, positions.final_height + 1)
                ]
                index_check = workers.start_index_check(home, genesis.digest, offsets[:indexed])
                execution = _Execution(rules, file, positions, findings, workers)
                blocks, transactions = execution.run(state, checkpoints, names, progress)
                if indexed and findings.height is None:
                    _take_index_answer(index_check, findings)
            _check_beyond(names, indexed, positions.final_height, findings)
        finally:
            file.close()
    elif names or indexed:
        findings.add(1, f"{BLOCKS_NAME} is missing")
    seconds = (clock.monotonic_ms() - started_ms) / 1000
    return AuditReport(
        blocks, transactions, findings.height is None, findings.height, findings.problem, seconds
    )


def _read_file(
    file: BlockFile, rules: Rules, home: Path, genesis: Header, findings: _Findings
) -> tuple[Positions, int]:
    """Where everything lies, as far as it holds, and how many transactions there are in all bodies."""
    positions = Positions(genesis.hash)
    transactions = 0
    is_broken = False  # then a later mark says nothing new: it lacks what was damaged
    for item in file.scan():
        if isinstance(item, Damage):
            findings.add(
                locate_damage(item, positions), f"{item.problem} (byte {item.offset} of {BLOCKS_NAME})"
            )
            is_broken = True
        elif isinstance(item, Record):
            try:
                transactions += _take(item, positions, rules, home)
            except Rejected as problem:
                if not is_broken:
                    findings.add(positions.final_height + 1 if item.height else 0, problem)
                is_broken = True
    for place in positions.bodies.values():
        try:
            block = decode_block(file.read(place.offset).payload)  # not final: that the body is the header's
            if block.hash != place.block_hash:
                raise Rejected("changed while it was read", field="header")
        except AssayError as problem:
            findings.add(place.height, problem)
    return positions, transactions


def _take(record: Record, positions: Positions, rules: Rules, home: Path) -> int:
    """Note one record; the number of its transactions. Raises Rejected when it is not what it should be."""
    if record.offset == 0:
        check_identity(record.payload, rules, home)
    elif record.type == BODY:
        header = read_header(record.payload)
        if header.height != record.height:
            raise Rejected(f"holds block {header.height}", field=f"record of block {record.height}")
        positions.add_body(header, record.offset)
        return header.transaction_count
    elif record.type == FINAL:
        positions.add_mark(decode_mark(record.payload).block_hash, record.offset)
        if positions.final_height != record.height:
            raise Rejected(f"marks block {positions.final_height}", field=f"record of block {record.height}")
    else:
        raise Rejected("stands in the middle of the file", field="identity record")
    return 0


@dataclass(slots=True)
class _Batch:
    """Signatures of one block on their way: `labels` name each, in the order of the answers."""

    height: int
    transactions: int
    labels: list[str]
    answers: Answers


class _Execution:
    """Executes the final chain again from genesis, signatures beside it."""

    def __init__(
        self, rules: Rules, file: BlockFile, positions: Positions, findings: _Findings, workers: Workers
    ) -> None:
        self._rules = rules
        self._file = file
        self._positions = positions
        self._findings = findings
        self._workers = workers
        self._batches: deque[_Batch] = deque()
        self._blocks = 0
        self._transactions = 0

    def run(
        self,
        state: State,
        checkpoints: CheckpointFolder,
        names: Sequence[CheckpointName],
        progress: Progress | None,
    ) -> tuple[int, int]:
        """Blocks and transactions that hold. `state` is genesis; what does not hold goes to the findings."""
        total = self._positions.final_height
        for height in range(1, total + 1):
            if self._findings.is_reached(height):
                break
            try:
                block = self._read_block(height)
                self._start_signatures(block, state.view())
                state.commit(self._rules.check_block(state.view(), block, None))
                for name in names:
                    if name.height == height:
                        _check_checkpoint(checkpoints, name, state)
            except AssayError as problem:
                self._findings.add(height, problem)
                break
            if len(self._batches) > BATCHES_MAX:
                self._settle()
            if progress is not None:
                progress(height, total)
        while self._batches:
            self._settle()
        return self._blocks, self._transactions

    def _read_block(self, height: int) -> Block:
        offset = self._positions.get_offset(height)
        assert offset is not None, "heights up to the final one have offsets"
        return decode_block(self._file.read(offset).payload)

    def _start_signatures(self, block: Block, view: View) -> None:
        """Checks the form of links and certificates now, and every signature soon. view: below the block."""
        header, parent = block.header, view.header
        is_first = parent.height == 0 or header.epoch != parent.epoch
        parent_view = GENESIS_VIEW if is_first else parent.view
        if (header.height, header.parent_hash, header.parent_view) != (
            parent.height + 1,
            parent.hash,
            parent_view,
        ):
            raise Rejected("does not link to the block below", field="header")
        found_set, chain_id = view.find_set(header.epoch), self._rules.chain_id
        if found_set is None:
            raise Rejected(f"{header.epoch} is neither its parent's nor the next", field="header.epoch")
        validators = found_set.validators
        items: list[Signed] = [
            (tx.public_key, compute_signing_digest(tx, chain_id), tx.signature) for tx in block.transactions
        ]
        labels = [f"signature of transaction {index}" for index in range(len(items))]
        certificate = block.parent_certificate
        if certificate is None:
            if not is_first:
                raise Rejected("is missing", field="parent certificate")
        else:
            self._check_subject(certificate, parent, "parent certificate", (vote.NOTARIZE, vote.FINALIZE))
            self._collect(certificate, validators, "parent certificate", items, labels)
        found = self._positions.get_mark(header.height)
        if found is not None and found[0] == header.height:
            mark = decode_mark(self._file.read(found[1]).payload)
            certified = mark.links[-1] if mark.links else header
            self._check_subject(mark.certificate, certified, "finalization", (vote.FINALIZE,))
            self._collect(mark.certificate, validators, "finalization", items, labels)
        self._batches.append(
            _Batch(header.height, len(block.transactions), labels, self._workers.verify(items))
        )

    def _check_subject(
        self, certificate: vote.Certificate, header: Header, what: str, kinds: tuple[int, ...]
    ) -> None:
        subject = certificate.subject
        if subject.kind not in kinds or (subject.epoch, subject.view, subject.block_hash) != (
            header.epoch,
            header.view,
            header.hash,
        ):
            raise Rejected(f"is not for block {header.height}", field=what)

    def _collect(
        self,
        certificate: vote.Certificate,
        validators: vote.ValidatorSet,
        what: str,
        items: list[Signed],
        labels: list[str],
    ) -> None:
        """Checks signers and quorum now; the signatures themselves join the batch."""

        def note(public_key: bytes, digest: bytes, signature: bytes) -> bool:
            items.append((public_key, digest, signature))
            labels.append(f"signature {len(labels)} ({what})")
            return True

        try:
            vote.check_certificate(certificate, validators, self._rules.chain_id, note)
        except Rejected as problem:
            raise Rejected(problem.problem, field=f"{what}: {problem.field}") from None

    def _settle(self) -> None:
        batch = self._batches.popleft()
        answers = batch.answers()
        if not all(answers):
            self._findings.add(batch.height, f"{batch.labels[answers.index(False)]} does not verify")
        if not self._findings.is_reached(batch.height):
            self._blocks += 1
            self._transactions += batch.transactions


def _check_checkpoint(folder: CheckpointFolder, name: CheckpointName, state: State) -> None:
    """Raises Rejected unless the file holds exactly this state; a file that is gone was pruned."""
    checkpoint = folder.read(name)
    if checkpoint is None:
        return
    if name.block_hash != state.header.hash:
        raise Rejected("is of another block", field=f"checkpoint {name.height}")
    if checkpoint.digest != compute_digest(name, dump_state(state)):
        raise Rejected("is not the state that the blocks lead to", field=f"checkpoint {name.height}")


def _check_beyond(
    names: Sequence[CheckpointName], indexed: int, final_height: int, findings: _Findings
) -> None:
    """What was derived from blocks that the file does not have (any more)."""
    top = max([indexed, *(name.height for name in names)])
    if top > final_height:
        findings.add(final_height + 1, f"is missing: {BLOCKS_NAME} ends before block {top}, which was final")


def _read_last_indexed(home: Path, findings: _Findings) -> int:
    if not (home / "index" / "data.mdb").exists():
        return 0  # never made, or deleted to be rebuilt
    try:
        reader = IndexReader(home / "index")
    except Rejected as problem:
        findings.add(1, problem)
        return 0
    reader.close()
    return reader.last_height


def _take_index_answer(answer: Callable[[], IndexProblem | None], findings: _Findings) -> None:
    try:
        found = answer()
    except Rejected as problem:
        findings.add(1, problem)
        return
    if found is not None:
        findings.add(*found)
