"""One replay from connecting to the report: fund, feed rows in order, report frauds, compare nodes.

Rows are fed as fast as the network takes them, within bounds: so many in flight, a sender's nonce window,
--rate, the chain clock's longest jump, and the reports that are due (see `fraud_reports`).
Invariant: the workload was read whole before anything is sent; submitted = final + refused + failed in
every report, an interrupted one included. Leaves out: files and terminals (the commands').
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from consensus import crypto
from consensus.errors import Fault, Rejected
from consensus.transaction import Transaction
from ml.dataset import Trace
from node.clock import Clock
from node.replay.agreement import WAIT_MS_MAX as AGREE_MS
from node.replay.agreement import compare_nodes
from node.replay.delivery import Delivery, Failed, Fate, Parcel, Place, Refused
from node.replay.feeder import Feeder
from node.replay.follower import Follower
from node.replay.fraud_reports import FraudReports
from node.replay.funding import PACE_MS, Funder, Funding, Plan, plan_funding, read_holdings
from node.replay.gaps import Gaps
from node.replay.network import FinalBlock, NetworkClient, NodeAway, NodeStatus
from node.replay.outcomes import FAILED, FINAL, REFUSED, Outcomes
from node.replay.schedule import Schedule, build_facts, build_schedule, set_times
from node.replay.settings import ReplayOptions, Snapshot, Watch
from node.replay.signer import Signer
from node.replay.summary import build_report

CONNECT_MS_MAX: Final = 10_000
SETTLE_AFTER_STOP_MS: Final = 3_000  # what is in flight at Ctrl-C mostly becomes final within this
AGREE_AFTER_STOP_MS: Final = 3_000

Json = dict[str, Any]


class Replay:
    """Call `run` once. `stop` may be set at any time: no further row is submitted then."""

    def __init__(
        self,
        network: NetworkClient,
        trace: Trace,
        funder_keys: Sequence[crypto.PrivateKey],
        options: ReplayOptions,
        clock: Clock,
        watch: Watch | None = None,
        reporters: frozenset[bytes] | None = None,
        issuers: frozenset[bytes] = frozenset(),
    ) -> None:
        """`reporters`: addresses that may report, as far as known (None: all of the keys are tried).

        issuers: addresses whose payments are not judged; they fund, if they are among the keys.
        """
        self._network = network
        self._trace = trace
        self._keys = funder_keys
        self._options = options
        self._clock = clock
        self._watch = watch
        self._reporters = reporters
        self._issuers = issuers
        self._delivery = Delivery(network, clock)
        self._follower = Follower(network, clock, self._take_block)
        self._reports: FraudReports | None = None
        self._phase = "connecting"
        self._funding: Funding | None = None
        self._funding_total = 0
        self._funding_seconds = 0.0
        self._began_ms = -1
        self._ended_ms = -1
        self._gaps = Gaps(self._delivery)
        self.outcomes = Outcomes(len(trace), trace.fraud)
        self.stop = asyncio.Event()

    async def run(self) -> Json:
        """The report. Raises Rejected (nothing was submitted) or Fault."""
        status = await self._connect()
        facts = build_facts(status.chain_id, status.parameters)
        schedule = build_schedule(self._trace, facts, self._options.seed)
        try:
            return await self._play(schedule, status)
        finally:
            await self._delivery.close()
            await self._follower.close()

    async def _play(self, schedule: Schedule, status: NodeStatus) -> Json:
        senders = [schedule.addresses[sender] for sender in schedule.needs]
        holdings = await read_holdings(self._network, [*senders, *(key.address for key in self._keys)])
        chain_id = schedule.facts.chain_id
        signers = {
            sender: Signer(schedule.keys[sender], chain_id, holding.nonce)
            for sender, holding in zip(schedule.needs, holdings, strict=False)
        }
        accounts = [
            Funder(Signer(key, chain_id, holding.nonce), holding.balance)
            for key, holding in zip(self._keys, holdings[len(senders) :], strict=True)
        ]
        issuers = [account for account in accounts if account.signer.key.address in self._issuers]
        funders = issuers or accounts
        plan = plan_funding(schedule, holdings[: len(senders)], funders)
        await self._follower.start()
        self._delivery.start()
        self._funding = Funding(schedule, self._delivery, funders, pace_ms=0 if issuers else PACE_MS)
        await self._fund(self._funding, plan, status)
        schedule = set_times(schedule, self._follower.clock_ms)
        reporters = [
            account.signer
            for account in accounts
            if self._reporters is None or account.signer.key.address in self._reporters
        ]
        reports = FraudReports(
            schedule,
            self.outcomes,
            self._delivery,
            reporters,
            self._follower.prove_block,
            self._options.label_delay_ms,
            self._clock.now_ms,
        )
        self._reports = reports
        self._enter("replaying")
        feeder = Feeder(
            schedule,
            signers,
            self._delivery,
            self._follower,
            reports,
            self._funding,
            self._options,
            self._clock,
            self.stop,
            self._check,
        )
        self._began_ms = self._clock.monotonic_ms()
        await feeder.run(self._make_parcel)
        self._enter("settling")
        await self._settle(reports)
        self._ended_ms = self._clock.monotonic_ms()
        self._delivery.abandon("not settled when the replay was interrupted")
        self._enter("comparing")
        return await self._report(reports)

    # --- before ---------------------------------------------------------------------------------------

    async def _connect(self) -> NodeStatus:
        """The status of the node that is furthest. Raises Rejected when none answers or chains differ."""
        self._show()
        deadline_ms = self._clock.monotonic_ms() + CONNECT_MS_MAX
        while True:
            statuses = [await self._ask_status(node) for node in range(len(self._network.names))]
            found = [status for status in statuses if status is not None]
            if found:
                break
            if self._clock.monotonic_ms() > deadline_ms or self.stop.is_set():
                raise Rejected(
                    "no node answers", field=", ".join(self._network.names), mend="start the network first"
                )
            await asyncio.sleep(0.5)
        if len({(status.chain_id, status.genesis_hash) for status in found}) > 1:
            raise Rejected("the nodes are of different chains", field="--api", mend="name nodes of one chain")
        return max(found, key=lambda status: (status.final_height, status.clock_ms))

    async def _ask_status(self, node: int) -> NodeStatus | None:
        try:
            return await self._network.get_status(node)
        except NodeAway:
            return None

    async def _fund(self, funding: Funding, plan: Plan, status: NodeStatus) -> None:
        self._funding_total = sum(map(len, plan))
        if not self._funding_total:
            return
        self._enter("funding")
        began_ms = self._clock.monotonic_ms()
        work = asyncio.create_task(funding.run(plan, status.clock_ms, self._clock.now_ms))
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, stopping):
                task.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)
        self._funding_seconds = (self._clock.monotonic_ms() - began_ms) / 1000

    # --- the measured part ----------------------------------------------------------------------------

    async def _settle(self, reports: FraudReports) -> None:
        """Until everything is settled; after a stop only for a short while."""
        deadline_ms = -1
        while self._delivery.in_flight or reports.open_count:
            if self.stop.is_set():
                now_ms = self._clock.monotonic_ms()
                if deadline_ms < 0:
                    deadline_ms = now_ms + SETTLE_AFTER_STOP_MS
                if now_ms > deadline_ms or not self._delivery.in_flight:
                    return
            else:
                self._check()
            await self._delivery.wait_change()
            reports.pump()
            self._show()

    def _check(self) -> None:
        """Raises what a task died of, or a Fault when nothing becomes final for too long."""
        self._follower.check_alive()
        if self._clock.monotonic_ms() - self._follower.moved_ms > self._options.patience_ms:
            raise Fault(
                f"nothing became final for {self._options.patience_ms // 1000} s",
                field="replay",
                mend="look at the nodes; the same replay can be started again",
            )

    # --- what happens to rows -------------------------------------------------------------------------

    def _take_block(self, block: FinalBlock) -> None:
        self._delivery.take_block(block)
        if self._reports is not None:
            self._reports.pump()
        self._show()

    def _on_fate(self, parcel: Parcel, fate: Fate) -> None:
        row, outcomes = parcel.row, self.outcomes
        match fate:
            case Place():
                outcomes.set_final(
                    row, fate.score, fate.outcome, self._clock.monotonic_ms() - parcel.first_ms
                )
                if outcomes.fraud is not None and outcomes.fraud[row] and self._reports is not None:
                    self._reports.note_final(row, fate)
            case Refused():
                outcomes.set_refused(row, fate.score, parcel.tx.raw)
            case Failed():
                outcomes.set_failed(row, fate.reason)

    def _make_parcel(self, tx: Transaction, signer: Signer, row: int) -> Parcel:
        self.outcomes.open(row)
        return Parcel(tx, signer, self._on_fate, self._gaps.close, row)

    # --- after ----------------------------------------------------------------------------------------

    async def _report(self, reports: FraudReports) -> Json:
        stopped = self.stop.is_set()
        wait_ms = AGREE_AFTER_STOP_MS if stopped else AGREE_MS
        agreement = await compare_nodes(self._network, self._clock, self._follower.height, wait_ms)
        seconds = max(0, self._ended_ms - self._began_ms) / 1000 if self._began_ms >= 0 else 0.0
        report = build_report(self.outcomes, seconds, agreement)
        counts = self._delivery.counts
        report["interrupted"] = stopped
        report["rows"] = len(self._trace)
        report["failures"] = dict(self.outcomes.failures.most_common())
        report["funding"] = {
            "transactions": 0 if self._funding is None else self._funding.count,
            "seconds": round(self._funding_seconds, 3),
        }
        report["reports"] = {
            "posted": reports.posted,
            "final": reports.final,
            "failed": reports.failures.total(),
            "not_due": reports.not_due,
            "reasons": {reason: count for reason, count in reports.failures.items() if count},
        }
        report["retries"] = {
            "requests": counts.requests,
            "node_failures": counts.node_failures,
            "backpressure": counts.backpressure,
            "resubmitted": counts.resubmitted,
            "nonce_gaps_filled": self._gaps.filled,
            "codes": dict(counts.codes),
        }
        return report

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._show()

    def _show(self) -> None:
        if self._watch is None:
            return
        now_ms = self._clock.monotonic_ms() if self._ended_ms < 0 else self._ended_ms
        counts = self.outcomes.counts
        self._watch(
            Snapshot(
                phase=self._phase,
                rows=len(self._trace),
                submitted=self.outcomes.submitted,
                final=counts[FINAL],
                refused=counts[REFUSED],
                flagged=self.outcomes.flagged,
                failed=counts[FAILED],
                frauds_caught=self.outcomes.frauds_caught,
                reports_final=0 if self._reports is None else self._reports.final,
                height=self._follower.height,
                seconds=0.0 if self._began_ms < 0 else (now_ms - self._began_ms) / 1000,
                done=0 if self._funding is None else self._funding.count,
                total=self._funding_total,
            )
        )
