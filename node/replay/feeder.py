"""Feeds the rows of a workload into the network, in order and as fast as it takes them.

A row waits for: room in flight, its sender's nonce window, --rate, the reports that are due, and on a
workload's clock for the chain to come near enough: a block's time may jump only so far, and a row's score
should know what went before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from consensus.transaction import Transaction
from node.clock import Clock
from node.replay.delivery import Delivery, Parcel
from node.replay.follower import Follower
from node.replay.fraud_reports import FraudReports
from node.replay.funding import Funding
from node.replay.schedule import Schedule
from node.replay.settings import ReplayOptions
from node.replay.signer import Signer

SIGN_SLICE: Final = 64  # signatures between two turns of the loop: 2 ms
WAIT_MS: Final = 200
# How far rows run ahead of the oldest unsettled one, whichever is farther. Nodes judge on the last final state, and
# blocks take rows in another order than ours: in a sparse workload thousands of rows would be judged
# without the weeks before them.
SPAN_MS: Final = 12 * 3_600_000
SPAN_ROWS: Final = 400  # so that a sparse workload, too, fills blocks

MakeParcel = Callable[[Transaction, Signer, int], Parcel]


class Feeder:
    """`run` ends when all rows are handed over, or `stop` is set. `check` raises when it is no use any more."""

    def __init__(
        self,
        schedule: Schedule,
        signers: Mapping[int, Signer],
        delivery: Delivery,
        follower: Follower,
        reports: FraudReports,
        funding: Funding,
        options: ReplayOptions,
        clock: Clock,
        stop: asyncio.Event,
        check: Callable[[], None],
    ) -> None:
        self._schedule = schedule
        self._facts = schedule.facts
        self._signers = signers
        self._delivery = delivery
        self._follower = follower
        self._reports = reports
        self._funding = funding
        self._options = options
        self._clock = clock
        self._stop = stop
        self._check = check
        self._began_ms = 0

    async def run(self, make_parcel: MakeParcel) -> None:
        """`make_parcel(transaction, signer, row)` is called for each row just before it is posted."""
        schedule, facts, trace = self._schedule, self._facts, self._schedule.trace
        columns = (trace.sender, trace.receiver, trace.amount, schedule.time_ms)
        self._began_ms = self._clock.monotonic_ms()
        for row, (sender, receiver, amount, time_ms) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            signer = self._signers[sender]
            self._reports.advance(row, time_ms)
            while not self._stop.is_set() and not self._may_post(row, time_ms, signer):
                await self._wait(row, time_ms)
            if row % SIGN_SLICE == 0:
                await asyncio.sleep(0)
            if self._stop.is_set():
                return
            stamp_ms = time_ms if facts.is_workload_clock else self._clock.now_ms()
            tx = signer.sign(
                receiver=schedule.addresses[receiver],
                amount=amount,
                fee=facts.fee,
                timestamp_ms=stamp_ms,
                expires_ms=stamp_ms + facts.lifetime_ms,
            )
            self._delivery.post(make_parcel(tx, signer, row))

    def _may_post(self, row: int, time_ms: int, signer: Signer) -> bool:
        options, facts = self._options, self._facts
        if self._delivery.in_flight >= options.in_flight_max or not signer.has_room:
            return False
        if not self._reports.allows(row, time_ms):
            return False
        if options.rate_max and row * 1000 > (self._clock.monotonic_ms() - self._began_ms) * options.rate_max:
            return False
        if not facts.is_workload_clock:
            return True
        if time_ms - self._follower.clock_ms > facts.jump_ms_max:
            return False
        oldest = self._delivery.get_oldest()
        return oldest is None or time_ms - oldest.tx.timestamp_ms <= SPAN_MS or row - oldest.row <= SPAN_ROWS

    async def _wait(self, row: int, time_ms: int) -> None:
        self._check()
        facts = self._facts
        is_far = facts.is_workload_clock and time_ms - self._follower.clock_ms > facts.jump_ms_max
        if is_far and not self._delivery.in_flight:
            # The rows before this one were refused, so nothing moved the chain's clock towards it.
            await self._funding.advance_clock(self._follower.clock_ms + facts.jump_ms_max)
            return
        timeout_ms = WAIT_MS
        if self._options.rate_max:
            due_ms = self._began_ms + row * 1000 // self._options.rate_max
            timeout_ms = min(max(1, due_ms - self._clock.monotonic_ms() + 1), WAIT_MS)
        await self._delivery.wait_change(timeout_ms)
        self._reports.pump()
