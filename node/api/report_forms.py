"""How reported transfers and reporters look in JSON, and their schemas."""

from __future__ import annotations

from typing import Any, Final

from consensus.ledger.cases import FINDING_NAMES
from consensus.ledger.reporters import STATUS_NAMES
from node.api.report_records import CaseRecord, DisputeRecord, ReporterRecord
from node.api.route import ADDRESS_SCHEMA, HASH_SCHEMA
from node.api.schema_parts import (
    BOOL,
    INT,
    TEXT,
    TIME,
    Json,
    build_array,
    build_object,
    build_or_null,
    refer,
)

CASES_PAGE_MAX: Final = 100  # with a hundred filings each some 2 MB at worst


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def form_case(record: CaseRecord) -> dict[str, Any]:
    return {
        "id": _hex(record.id),
        "sender": _hex(record.sender),
        "receiver": _hex(record.receiver),
        "score": record.score,
        "standing": record.standing,
        "told_height": record.told_height,
        "finding": record.finding,
        "filings": [
            {
                "reporter": _hex(filing.reporter),
                "filed_ms": filing.filed_ms,
                "height": filing.height,
                "withdrawn": filing.is_withdrawn,
            }
            for filing in record.filings
        ],
        "dispute": None if record.dispute is None else _form_dispute(record.dispute),
    }


def _form_dispute(record: DisputeRecord) -> dict[str, Any]:
    return {
        "disputer": _hex(record.disputer),
        "opened_ms": record.opened_ms,
        "ends_ms": record.ends_ms,
        "deposit": record.deposit_units,
        "votes": {
            "fraud": record.fraud_units,
            "false": record.false_units,
            "total_stake": record.total_units,
        },
    }


def form_reporter(record: ReporterRecord) -> dict[str, Any]:
    return {
        "address": _hex(record.address),
        "status": record.status,
        "may_report": record.may_report,
        "bond": record.bond_units,
        "release_ms": record.release_ms,
    }


def build_report_schemas() -> Json:
    """By name."""
    return {
        "Case": build_object(
            {
                "id": HASH_SCHEMA,
                "sender": ADDRESS_SCHEMA,
                "receiver": ADDRESS_SCHEMA,
                "score": INT,
                "standing": {**INT, "description": "reports of it that stand"},
                "told_height": {
                    **build_or_null(INT),
                    "description": "the block since which the modules know of it",
                },
                "finding": {"enum": list(FINDING_NAMES)},
                "filings": {
                    **build_array(
                        build_object(
                            {"reporter": ADDRESS_SCHEMA, "filed_ms": TIME, "height": INT, "withdrawn": BOOL}
                        )
                    ),
                    "maxItems": 100,
                },
                "dispute": build_or_null(refer("Dispute")),
            }
        ),
        "Dispute": build_object(
            {
                "disputer": ADDRESS_SCHEMA,
                "opened_ms": TIME,
                "ends_ms": TIME,
                "deposit": INT,
                "votes": build_object({"fraud": INT, "false": INT, "total_stake": INT}),
            }
        ),
        "Cases": build_object(
            {
                "reports": {**build_array(refer("Case")), "maxItems": CASES_PAGE_MAX},
                "after": {**build_or_null(TEXT), "description": "the parameter that asks for the next page"},
            }
        ),
        "Reporter": build_object(
            {
                "address": ADDRESS_SCHEMA,
                "status": {"enum": [*STATUS_NAMES, "validator"]},
                "may_report": BOOL,
                "bond": INT,
                "release_ms": {**build_or_null(TIME), "description": "after this a leaver's bond is out"},
            }
        ),
        "Reporters": build_object(
            {"reporting": TEXT, "reporters": build_array(refer("Reporter")), "cut": BOOL}
        ),
    }
