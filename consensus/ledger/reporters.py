"""Reporters: who may say that a transfer was fraud, and what a registered one has at stake.

The chain's parameter `reporting` names the ways in: listed in genesis, operating a validator of the running
epoch, or registered with a bond. A reporter whose report was found false is struck off for good.

Invariant: a bond leaves the balance wholly and lies in the reporter's record until it is paid back or
burned; `supply.compute_money` counts it. A record: namespace | address -> (status, bond, release time).
Leaves out: what was reported (cases.py), and when a report is false (dispute.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from consensus import codec
from consensus.errors import Rejected
from consensus.ledger import epochs, supply
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.parameters import REPORTING_LISTED, REPORTING_REGISTERED, REPORTING_VALIDATORS

if TYPE_CHECKING:
    from consensus.ledger.work import Work

LISTED: Final = 0  # by genesis
REGISTERED: Final = 1
STRUCK: Final = 2  # reported falsely
STATUS_NAMES: Final = ("listed", "registered", "struck off")
REPORTER_BYTES: Final = 96  # of records, as `account_byte_fee_units` charges for them
_RECORD_BYTES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Reporter:
    """bond_units: held for it. release_ms: after this the bond may leave; 0 when it does not want to."""

    status: int
    bond_units: int = 0
    release_ms: int = 0


def find_reporter(records: Records, address: bytes) -> Reporter | None:
    value = records.get(rec.NAMESPACE_REPORTER + address)
    return None if value is None else _decode(value)


def put_reporter(records: Records, address: bytes, reporter: Reporter) -> Records:
    value = codec.encode((reporter.status, reporter.bond_units, reporter.release_ms))
    return records.put(rec.NAMESPACE_REPORTER + address, value)


def remove_reporter(records: Records, address: bytes) -> Records:
    return records.remove(rec.NAMESPACE_REPORTER + address)


def walk_reporters(records: Records) -> Iterator[tuple[bytes, Reporter]]:
    """All on record by address. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(rec.NAMESPACE_REPORTER):
        yield key[1:], _decode(value)


def _decode(value: bytes) -> Reporter:
    return Reporter(*codec.decode_flat(value, what="reporter", bytes_max=_RECORD_BYTES_MAX, count=3))


def check_reporter(work: Work, address: bytes) -> None:
    """Raises Rejected unless this account may report now."""
    ways = work.parameters.reporting.split("+")
    reporter = find_reporter(work.records, address)
    if reporter is not None:
        if reporter.status == STRUCK:
            raise Rejected(
                f"0x{address.hex()} reported falsely and is struck off",
                field="sender",
                mend="use another reporter's key",
                code="report_struck",
            )
        if reporter.status == LISTED and REPORTING_LISTED in ways:
            return
        if reporter.status == REGISTERED and REPORTING_REGISTERED in ways:
            if reporter.release_ms:
                raise Rejected(
                    f"0x{address.hex()} is leaving and reports no more",
                    field="sender",
                    mend="register again when the bond is back",
                    code="report_leaving",
                )
            return
    if REPORTING_VALIDATORS in ways and epochs.get_set(work.records, work.epoch).get_stake(address):
        return
    mend = "use a reporter's key"
    if REPORTING_REGISTERED in ways:
        mend = f"register with a bond of {work.parameters.report_bond_units}, or {mend}"
    raise Rejected(f"0x{address.hex()} may not report", field="sender", mend=mend, code="report_sender")


def strike(records: Records, address: bytes) -> Records:
    """Burns the reporter's bond, and takes no report of it any more, whichever way it came in."""
    reporter = find_reporter(records, address) or Reporter(LISTED)
    records = put_reporter(records, address, replace(reporter, status=STRUCK, bond_units=0, release_ms=0))
    return supply.burn(records, reporter.bond_units)
