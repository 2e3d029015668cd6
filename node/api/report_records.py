"""What the door tells of reports: frozen records, as `door.py` has them for the rest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilingRecord:
    """One reporter's report of a transfer: its own time, and the block it stands in."""

    reporter: bytes
    filed_ms: int
    height: int
    is_withdrawn: bool


@dataclass(frozen=True, slots=True)
class DisputeRecord:
    """Validators vote until ends_ms; after that the disputer may reclaim the deposit. Units: stake of this epoch."""

    disputer: bytes
    opened_ms: int
    ends_ms: int
    deposit_units: int
    fraud_units: int
    false_units: int
    total_units: int


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """A reported transfer after the last final block.

    told_height: the block since which the modules know of it; None: they do not. finding: one of
    cases.FINDING_NAMES. filings: a hundred at most, those that stand first.
    """

    id: bytes
    sender: bytes
    receiver: bytes
    score: int
    standing: int
    told_height: int | None
    finding: str
    filings: tuple[FilingRecord, ...]
    dispute: DisputeRecord | None


@dataclass(frozen=True, slots=True)
class CasesPage:
    """`after`: where the next page goes on; None: there is none."""

    cases: tuple[CaseRecord, ...]
    after: bytes | None


@dataclass(frozen=True, slots=True)
class ReporterRecord:
    """Who may report, or no longer. status: one of reporters.STATUS_NAMES, or "validator"."""

    address: bytes
    status: str
    may_report: bool
    bond_units: int = 0
    release_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ReportersRecord:
    """Of the chain: its parameter, and a thousand at most who are on record by address, then validators."""

    reporting: str
    reporters: tuple[ReporterRecord, ...]
    is_cut: bool
