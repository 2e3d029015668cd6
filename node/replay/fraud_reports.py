"""Labels go on chain as fraud reports when their delay is over, and only then.

A label of 1 falls due when the workload's clock (the time of the rows submitted so far) is past the row's
time plus the delay. If the row is final by then it is reported: a transaction of kind 1, signed by an
account that may report, with the proofs that the ledger asks for. Rows that were refused are not.

Rows wait for reports, lest quality depend on how fast a machine reports: none runs ahead of an
unconfirmed due report by more than HOLD_MS of the workload and HOLD_ROWS rows, nor past the time until
which the ledger takes it. Models take effect of reports by the block (a thousand rows in training), so
within that the order makes no difference.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from consensus import merkle
from consensus.block import compute_leaf
from consensus.ledger import report
from consensus.transaction import KIND_REPORT, decode_transaction
from node.replay.delivery import Delivery, Fate, Parcel, Place
from node.replay.network import FinalBlock
from node.replay.outcomes import FAILED, FINAL, REFUSED, Outcomes
from node.replay.schedule import Schedule
from node.replay.signer import Signer

HOLD_MS: Final = 6 * 3_600_000  # a quarter of an accounting day, the finest time a label is known to
HOLD_ROWS: Final = 1_000  # the block of rows that training lets reports take effect by


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A final fraud, ready to be reported but for the history proof."""

    raw: bytes
    score: int
    outcome: int
    index: int
    block: FinalBlock
    inclusion_proof: tuple[bytes, ...]


class FraudReports:
    """`advance` as rows are submitted, `note_final` as frauds become final; `allows` says whether to wait."""

    def __init__(
        self,
        schedule: Schedule,
        outcomes: Outcomes,
        delivery: Delivery,
        reporters: Sequence[Signer],
        prove_block: Callable[[int], tuple[int, tuple[bytes, ...]]],
        delay_ms: int,
        get_wall_ms: Callable[[], int],
    ) -> None:
        trace = schedule.trace
        fraud = np.zeros(len(trace), dtype=np.uint8) if trace.fraud is None else trace.fraud
        rows = np.flatnonzero(fraud) if reporters else np.zeros(0, dtype=np.int64)
        self._due = deque(zip((schedule.time_ms[rows] + delay_ms).tolist(), rows.tolist(), strict=True))
        self._schedule = schedule
        self._outcomes = outcomes
        self._delivery = delivery
        self._reporters = deque(reporters)
        self._prove_block = prove_block
        self._exhibits: dict[int, Exhibit] = {}  # final frauds by row, until reported
        self._waiting: dict[
            int, tuple[int, int]
        ] = {}  # due, unconfirmed: row -> (due time, row when it fell due)
        self._to_post: deque[int] = deque()
        self._delay_ms = delay_ms
        self._get_wall_ms = get_wall_ms
        self._at = (-1, -1)  # the row that comes next, and its time
        self._submitted_ms = -1  # the time of the row before it
        self._posted_rows: set[int] = set()
        self._trees: tuple[FinalBlock, merkle.HashTree] | None = None
        self.posted = 0
        self.final = 0
        self.failures: Counter[str] = Counter()

    @property
    def open_count(self) -> int:
        """Due and neither final nor failed."""
        return len(self._waiting)

    @property
    def not_due(self) -> int:
        """Labels whose delay is not over."""
        return len(self._due)

    def allows(self, row: int, time_ms: int) -> bool:
        """Whether a row may be submitted, or has to wait for reports that are due."""
        if not self._waiting:
            return True
        due_ms, due_row = next(iter(self._waiting.values()))
        facts = self._schedule.facts
        if facts.is_workload_clock and self._delay_ms <= facts.report_window_ms:
            last_ms = due_ms - self._delay_ms + facts.report_window_ms
            if time_ms > last_ms:
                return False  # it would move the chain's clock past the last moment for the report
        return time_ms <= due_ms + HOLD_MS or row <= due_row + HOLD_ROWS

    def advance(self, row: int, time_ms: int) -> None:
        """`row` comes next. Labels that are due by its time are reported; then `allows` says if it has to wait."""
        self._submitted_ms = self._at[1]
        self._at = (row, time_ms)
        while self._due and self._due[0][0] <= time_ms and self._due[0][1] < row:
            due_ms, due_row = self._due.popleft()
            self._waiting[due_row] = (due_ms, row)
            if self._outcomes.state[due_row] == FINAL:
                self._to_post.append(due_row)
        if self._waiting:
            self.pump()

    def note_final(self, row: int, place: Place) -> None:
        """A row that is fraud by its label became final."""
        block = place.block
        if self._trees is None or self._trees[0] is not block:
            leaves = map(compute_leaf, block.ids, block.scores, block.outcomes)
            self._trees = (block, merkle.HashTree(map(merkle.hash_leaf, leaves)))
        proof = self._trees[1].prove_inclusion(place.index)
        self._exhibits[row] = Exhibit(
            block.raws[place.index], place.score, place.outcome, place.index, _strip(block), proof
        )
        due_ms = int(self._schedule.time_ms[row]) + self._delay_ms
        if due_ms <= self._at[1] and row not in self._posted_rows:
            self._waiting.setdefault(row, (due_ms, self._at[0]))  # it was refused before, and became final
        if row in self._waiting:
            self._to_post.append(row)

    def pump(self) -> None:
        """Post what is due and provable; forget what will never be final."""
        for row in [row for row in self._waiting if self._outcomes.state[row] in (REFUSED, FAILED)]:
            del self._waiting[row]
        while self._to_post:
            row = self._to_post[0]
            exhibit = self._exhibits[row]
            signer = next((signer for signer in self._reporters if signer.has_room), None)
            anchor_height, history_proof = self._prove_if_anchored(exhibit.block.header.height)
            if signer is None or anchor_height < 0:
                return
            self._to_post.popleft()
            self._reporters.rotate(-1)
            self._post(row, exhibit, signer, anchor_height, history_proof)

    def _get_time_ms(self, row: int) -> int:
        if not self._schedule.facts.is_workload_clock:
            return self._get_wall_ms()
        return max(
            self._waiting[row][0], self._submitted_ms
        )  # it moves the chain's clock no further than rows do

    def _prove_if_anchored(self, height: int) -> tuple[int, tuple[bytes, ...]]:
        try:
            return self._prove_block(height)
        except IndexError:
            return -1, ()  # its block is the last final one: the next one's history holds it

    def _post(
        self,
        row: int,
        exhibit: Exhibit,
        signer: Signer,
        anchor_height: int,
        history_proof: tuple[bytes, ...],
    ) -> None:
        reported = decode_transaction(exhibit.raw)
        payload = report.encode_payload(
            report.ReportPayload(
                reported,
                exhibit.score,
                exhibit.outcome,
                exhibit.index,
                exhibit.block.header,
                exhibit.inclusion_proof,
                anchor_height,
                history_proof,
            )
        )
        facts = self._schedule.facts
        time_ms = self._get_time_ms(row)
        tx = signer.sign(
            kind=KIND_REPORT,
            receiver=reported.receiver,
            amount=0,
            fee=facts.report_fee,
            timestamp_ms=time_ms,
            expires_ms=time_ms + facts.lifetime_ms,
            payload=payload,
        )

        given_up: list[str] = []

        def on_fate(_: Parcel, fate: Fate) -> None:
            self._waiting.pop(row, None)
            if isinstance(fate, Place):
                self.final += 1
                self.failures.subtract(given_up)  # too early
            else:
                given_up.append(fate.reason)
                self.failures[fate.reason] += 1

        self.posted += 1
        self._posted_rows.add(row)
        del self._exhibits[row]
        self._delivery.post(Parcel(tx, signer, on_fate), is_urgent=True)


def _strip(block: FinalBlock) -> FinalBlock:
    """Only the header is needed until the report is due, a week of the workload later."""
    return FinalBlock(block.header, (), (), (), b"")
