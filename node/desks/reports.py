"""The report desk: what the state says of reported transfers, their disputes, and who may report.

Invariant: reads one view only, and a bounded part of it, whoever asks. Leaves out: proofs of records
(`light.py` proves any), and what became of the reported payments themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from consensus.ledger import cases, dispute, epochs, reporters
from consensus.ledger.cases import Case
from consensus.ledger.reporters import STATUS_NAMES, Reporter
from consensus.ledger.state import View
from consensus.parameters import REPORTING_LISTED, REPORTING_REGISTERED, REPORTING_VALIDATORS, Parameters
from consensus.transaction import KIND_TRANSFER, Transaction
from node.api.report_records import (
    CaseRecord,
    CasesPage,
    DisputeRecord,
    FilingRecord,
    ReporterRecord,
    ReportersRecord,
)

FILINGS_MAX: Final = 100  # of one transfer that are listed: all that can stand, and some taken back
REPORTERS_MAX: Final = 1_000  # that are listed; any other can be asked for by address


class ReportDesk:
    """Of one view."""

    def __init__(self, view: View, parameters: Parameters) -> None:
        self._records = view.records
        self._parameters = parameters
        self._epoch = epochs.compute_epoch(view.header.height + 1, parameters.epoch_blocks)
        self._ways = parameters.reporting.split("+")

    def find_case(self, tx: Transaction) -> CaseRecord | None:
        """What is on record about this transaction; None when it was not reported."""
        if tx.kind != KIND_TRANSFER:
            return None
        key = cases.get_key(tx, self._parameters)
        case = cases.read_case(self._records, key)
        return None if case is None else self._describe(key, case)

    def list_cases(self, after: bytes, limit: int, *, is_disputed: bool) -> CasesPage:
        """In the order in which they will be forgotten, above the place `after` (36 bytes, or none)."""
        found = list(islice(self._walk(after, is_disputed=is_disputed), limit + 1))
        page = tuple(self._describe(key, case) for key, case in found[:limit])
        return CasesPage(page, found[limit - 1][0][1:] if len(found) > limit else None)

    def _walk(self, after: bytes, *, is_disputed: bool) -> Iterator[tuple[bytes, Case]]:
        namespace = dispute.NAMESPACE if is_disputed else cases.NAMESPACE
        for key, _ in self._records.walk(namespace, namespace + after if after else b""):
            case_key = cases.NAMESPACE + key[1:]
            case = cases.read_case(self._records, case_key)
            if case is not None:
                yield case_key, case

    def _describe(self, key: bytes, case: Case) -> CaseRecord:
        filings = islice(cases.walk_filings(self._records, key), FILINGS_MAX)
        return CaseRecord(
            key[5:],
            case.sender,
            case.receiver,
            case.score,
            case.standing,
            case.told_height or None,
            cases.FINDING_NAMES[case.finding],
            tuple(
                FilingRecord(f.reporter, f.filed_ms, f.height, f.status == cases.WITHDRAWN) for f in filings
            ),
            self._describe_dispute(key),
        )

    def _describe_dispute(self, key: bytes) -> DisputeRecord | None:
        found = dispute.find_dispute(self._records, key)
        if found is None:
            return None
        tally = dispute.compute_tally(self._records, key, found, self._epoch)
        return DisputeRecord(
            found.disputer,
            found.opened_ms,
            found.opened_ms + self._parameters.dispute_vote_ms,
            found.deposit_units,
            tally.fraud_units,
            tally.false_units,
            tally.total_units,
        )

    def find_reporter(self, address: bytes) -> ReporterRecord | None:
        """None: it may not report, and never could."""
        found = reporters.find_reporter(self._records, address)
        if found is not None:
            return self._describe_reporter(address, found)
        seated = epochs.get_set(self._records, self._epoch).get_stake(address)
        if seated and REPORTING_VALIDATORS in self._ways:
            return ReporterRecord(address, "validator", may_report=True)
        return None

    def list_reporters(self) -> ReportersRecord:
        known = list(islice(reporters.walk_reporters(self._records), REPORTERS_MAX + 1))
        entries = [self._describe_reporter(address, found) for address, found in known[:REPORTERS_MAX]]
        if REPORTING_VALIDATORS in self._ways:
            listed = {address for address, _ in known}
            operators = epochs.get_set(self._records, self._epoch).operators
            entries += [
                ReporterRecord(address, "validator", may_report=True)
                for address in operators
                if address not in listed
            ]
        return ReportersRecord(self._parameters.reporting, tuple(entries), len(known) > REPORTERS_MAX)

    def _describe_reporter(self, address: bytes, found: Reporter) -> ReporterRecord:
        way = REPORTING_LISTED if found.status == reporters.LISTED else REPORTING_REGISTERED
        is_seated = bool(epochs.get_set(self._records, self._epoch).get_stake(address))
        may_report = found.status != reporters.STRUCK and (
            (way in self._ways and not found.release_ms) or (is_seated and REPORTING_VALIDATORS in self._ways)
        )
        return ReporterRecord(
            address, STATUS_NAMES[found.status], may_report, found.bond_units, found.release_ms or None
        )
