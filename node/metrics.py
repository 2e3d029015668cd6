"""The node's figures for Prometheus: names `assay_…`, base units, one registry per node.

The runtime sets and counts; the API serves them as text. A registry of its own lets several nodes live
in one process (tests, the deterministic world) and keeps the library's process-wide default out.
Source: Prometheus, "Metric and label naming". Invariant: label values come from closed sets, never
from a stranger's input.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from consensus.ledger.staking import STATUS_NAMES

# A second line per counter with the time it was made, which nobody here asks for; a setting of the library.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# From a block on an idle loopback network to a view that had to be skipped several times.
_FINALIZATION_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

# The node counts all of these, whatever way they came, but "rejected": that is the API's, so that a peer's
# nonsense does not read like a client's.
OUTCOMES: Final = ("accepted", "refused", "rejected", "final", "flagged", "expired")


class NodeMetrics:
    """Every figure of one node as an attribute; `render` is what /metrics answers."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=True)
        self.registry = registry
        self.node = Info("assay_node", "Name, version and chain of this node", registry=registry)
        self.block_height = Gauge(
            "assay_block_height", "Height of the highest valid block", registry=registry
        )
        self.finalized_height = Gauge(
            "assay_finalized_height", "Height of the last final block", registry=registry
        )
        self.view = Gauge("assay_view", "Current view of the engine", registry=registry)
        self.views_nullified = Counter(
            "assay_views_nullified", "Views that ended without a block", registry=registry
        )
        self.epoch = Gauge("assay_epoch", "Current epoch", registry=registry)
        self.boundary_height = Gauge(
            "assay_epoch_boundary_height",
            "Last height of the running epoch; 0 when it has none",
            registry=registry,
        )
        self.validators = Gauge("assay_validators", "Validators of the running epoch", registry=registry)
        self.stake = Gauge("assay_stake_units", "Stake of the running epoch's validators", registry=registry)
        self.validator_stake = Gauge(
            "assay_validator_stake_units",
            "Stake with which this node's validator votes now",
            registry=registry,
        )
        self.validator_next_stake = Gauge(
            "assay_validator_next_stake_units", "The same in the next epoch", registry=registry
        )
        self.validator_bonded = Gauge(
            "assay_validator_bonded_units", "All stake behind this node's validator", registry=registry
        )
        self.validator_participation = Gauge(
            "assay_validator_participation_ratio",
            "Part of the running epoch's counted blocks that this node's validator signed; 0 before any",
            registry=registry,
        )
        self.validator_status = Gauge(
            "assay_validator_status",
            "1 for what this node's validator is: bonded, jailed or tombstoned; all 0 without one",
            ("status",),
            registry=registry,
        )
        for status in STATUS_NAMES:
            self.validator_status.labels(status)
        self.refusals_logged = Counter(
            "assay_refusals_logged", "Refusals entered into this node's log", registry=registry
        )
        self.refusals_unlogged = Counter(
            "assay_refusals_unlogged", "Refusals left out of the log, above its rate", registry=registry
        )
        self.peers = Gauge("assay_peers", "Connected peers", registry=registry)
        self.syncing = Gauge("assay_syncing", "1 while the node is catching up", registry=registry)
        self.mempool_transactions = Gauge(
            "assay_mempool_transactions", "Transactions waiting", registry=registry
        )
        self.mempool_bytes = Gauge("assay_mempool_bytes", "Bytes of transactions waiting", registry=registry)
        self.transactions = Counter(
            "assay_transactions",
            "Transactions by what became of them: accepted, refused, rejected at the door; final, flagged, expired",
            ("outcome",),
            registry=registry,
        )
        for outcome in OUTCOMES:
            self.transactions.labels(outcome)  # shown as 0 before the first
        self.finalization_seconds = Histogram(
            "assay_finalization_seconds",
            "From a block's proposal as this node saw it to its finality",
            buckets=_FINALIZATION_BUCKETS,
            registry=registry,
        )
        self.evidence = Counter(
            "assay_evidence", "Proofs of contradicting votes that this node holds", registry=registry
        )
        self.http_requests = Counter(
            "assay_http_requests", "HTTP requests by route and status", ("route", "status"), registry=registry
        )
        self.http_request_seconds = Histogram(
            "assay_http_request_seconds", "Time to answer", buckets=_REQUEST_BUCKETS, registry=registry
        )
        self.event_streams = Gauge("assay_event_streams", "Open event streams", registry=registry)

    def count_transactions(self, outcome: str, count: int = 1) -> None:
        """Count transactions under one of OUTCOMES."""
        self.transactions.labels(outcome).inc(count)

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)
