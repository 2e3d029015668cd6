"""The JSON Schemas of the OpenAPI document: what `json_forms` writes and `transaction_reading` takes.

Kept beside the code by a test that compares the fields of every form with its schema.
Source: OpenAPI 3.1 (schemas are JSON Schema 2020-12).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from consensus.parameters import (
    CLOCK_WALL,
    CLOCK_WORKLOAD,
    COMBINATION_WEIGHTED,
    COMBINATION_WORST,
    LEADER_ONION,
    LEADER_ROUND_ROBIN,
    Parameters,
)
from consensus.transaction import PAYLOAD_BYTES_MAX
from ml.policy import Decision
from node.api.json_forms import HEADER_ROOTS
from node.api.kind_forms import KINDS_BY_NAME, build_own_schemas
from node.api.limits import Limits
from node.api.model_schemas import build_model_schemas
from node.api.refusal_forms import build_refusal_schemas
from node.api.report_forms import build_report_schemas
from node.api.route import ADDRESS_SCHEMA, HASH_SCHEMA, KEY_SCHEMA, SIGNATURE_SCHEMA
from node.api.schema_parts import (
    BOOL,
    FINALITY,
    HEX,
    INT,
    OUTCOME,
    SCORE,
    SIGNED,
    TEXT,
    TIME,
    Json,
    build_array,
    build_object,
    build_or_null,
    refer,
)
from node.api.stake_schemas import ACCOUNT_STAKE, build_stake_schemas
from node.policies.attendant import CALL_OUTCOMES
from node.policies.plan import REFUSE, SKIP

_OWN, _HOLDERS = build_own_schemas()
_TRANSACTION: Final[Json] = {
    "id": HASH_SCHEMA,
    "kind": {"enum": list(KINDS_BY_NAME)},
    "sender": ADDRESS_SCHEMA,
    "receiver": ADDRESS_SCHEMA,
    "amount": INT,
    "fee": INT,
    "nonce": INT,
    "timestamp_ms": TIME,
    "expires_ms": TIME,
    "public_key": KEY_SCHEMA,
    "signature": SIGNATURE_SCHEMA,
    "payload": {"type": "string", "pattern": f"^0x([0-9a-f]{{2}}){{0,{PAYLOAD_BYTES_MAX}}}$"},
    **_OWN,
}
_SUBMITTED: Final[Json] = {**_TRANSACTION, "chain_id": TEXT}
_PARAMETER_NAMES: Final[Json] = {
    "clock": {"enum": [CLOCK_WALL, CLOCK_WORKLOAD]},
    "combination": {"enum": [COMBINATION_WORST, COMBINATION_WEIGHTED]},
    "leader_election": {"enum": [LEADER_ROUND_ROBIN, LEADER_ONION]},
    "reporting": TEXT,
}


def build_schemas(limits: Limits) -> Json:
    """All named schemas. `limits` sets the length of a batch and of pages."""
    page = {"maxItems": limits.page_entries_max}
    return {
        "Transaction": build_object(_TRANSACTION, ("payload", *_OWN), dependentSchemas=_HOLDERS),
        "SubmittedTransaction": build_object(
            _SUBMITTED,
            ("id", "sender", "payload", "chain_id", *_OWN),
            additionalProperties=False,
            dependentSchemas=_HOLDERS,
            description="A kind's own fields and its payload say the same; either may be left out.",
        ),
        "Submission": {
            "oneOf": [
                refer("SubmittedTransaction"),
                {
                    **build_array(refer("SubmittedTransaction")),
                    "minItems": 1,
                    "maxItems": limits.batch_transactions_max,
                },
            ]
        },
        "Draft": build_object(
            _SUBMITTED, tuple(_SUBMITTED.keys() - {"receiver", "amount"}), additionalProperties=False
        ),
        "Receipt": build_object(
            {
                "id": build_or_null(HASH_SCHEMA),
                "outcome": {"enum": ["accepted", "refused", "rejected"]},
                "code": build_or_null(TEXT),
                "reason": build_or_null(TEXT),
                "score": build_or_null(SCORE),
                "retry_ms": build_or_null(INT),
            }
        ),
        "Receipts": {"oneOf": [refer("Receipt"), build_array(refer("Receipt"))]},
        "TransactionRecord": build_object(
            {
                "id": HASH_SCHEMA,
                "status": {"enum": ["pending", "final", "refused", "expired"]},
                "height": build_or_null(INT),
                "index": build_or_null(INT),
                "block_hash": build_or_null(HASH_SCHEMA),
                "score": build_or_null(SCORE),
                "outcome": build_or_null(OUTCOME),
                "reasons": build_array(TEXT),
                "transaction": refer("Transaction"),
                "report": {**build_or_null(refer("Case")), "description": "what was reported about it"},
                "proof": build_or_null(refer("TransactionProof")),
            },
            ("report", "proof"),
        ),
        "TransactionProof": build_object(
            {
                "block_hash": HASH_SCHEMA,
                "header": refer("Header"),
                "index": INT,
                "tree_size": INT,
                "siblings": build_array(HASH_SCHEMA),
                "anchor_height": INT,
                "history_proof": build_array(HASH_SCHEMA),
                **FINALITY,
            },
            ("certificate_headers",),
        ),
        "Verdict": build_object(
            {
                "id": HASH_SCHEMA,
                "score": SCORE,
                "outcome": OUTCOME,
                "height": INT,
                "modules": build_array(refer("Explanation")),
            }
        ),
        "Explanation": build_object(
            {
                "name": TEXT,
                "score": SCORE,
                "outcome": OUTCOME,
                "base": SIGNED,
                "margin": SIGNED,
                "contributions": build_array(
                    build_object({"feature": TEXT, "value": SIGNED, "contribution": SIGNED, "words": TEXT})
                ),
                "counterfactuals": {
                    **build_or_null(
                        build_array(
                            build_object(
                                {
                                    "what": {"enum": ["amount", "time_ms"]},
                                    "value": INT,
                                    "score": SCORE,
                                    "words": TEXT,
                                }
                            )
                        )
                    ),
                    "description": "Nearest changes with which this module would accept a transaction that is "
                    "flagged or refused; null where nobody looked: the node is too busy, or the refusal too old.",
                },
            },
            description="base + the sum of the contributions = margin, exactly",
        ),
        "Header": build_object(
            {
                **dict.fromkeys(("epoch", "view", "height", "parent_view"), INT),
                "parent_hash": HASH_SCHEMA,
                "proposer": KEY_SCHEMA,
                "timestamp_ms": TIME,
                "transaction_count": INT,
                **dict.fromkeys(HEADER_ROOTS, HASH_SCHEMA),
                "reveal": {"type": "string", "pattern": "^0x([0-9a-f]{64})?$"},
                "refusal_count": INT,
                "refusal_root": HASH_SCHEMA,
            }
        ),
        "Certificate": build_object(
            {
                "kind": {"enum": ["notarize", "nullify", "finalize"]},
                "epoch": INT,
                "view": INT,
                "block_hash": {"type": "string", "pattern": "^0x([0-9a-f]{64})?$"},
                "signatures": build_array(build_object({"signer": INT, "signature": SIGNATURE_SCHEMA})),
            }
        ),
        "Block": build_object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                "final": BOOL,
                "transactions": build_array(
                    {"allOf": [refer("Transaction"), build_object({"score": SCORE, "outcome": OUTCOME})]}
                ),
                "parent_certificate": build_or_null(refer("Certificate")),
                **FINALITY,
            },
            ("transactions", "certificate_headers"),
        ),
        "Blocks": build_object(
            {"blocks": {**build_array(refer("Block")), **page}, "next": build_or_null(INT)}
        ),
        "Account": build_object(
            {
                "address": ADDRESS_SCHEMA,
                "balance": INT,
                "nonce": INT,
                "nonce_pending": {**INT, "description": "above those that wait in this node's mempool too"},
                "nonce_window": {"type": "string", "pattern": "^0x[0-9a-f]{16}$"},
                "stake": {**INT, "description": "all that it has bonded"},
                **ACCOUNT_STAKE,
                "height": INT,
                "modules": build_array(
                    build_object(
                        {
                            "name": TEXT,
                            "row": HEX,
                            "values": {"type": "object", "additionalProperties": SIGNED},
                        }
                    )
                ),
                "proof": build_or_null(refer("AccountProof")),
            },
            ("proof",),
        ),
        "AccountProof": build_object(
            {"block_hash": HASH_SCHEMA, "header": refer("Header"), "state_proof": HEX, **FINALITY},
            ("certificate_headers",),
        ),
        "History": build_object(
            {
                "transactions": {**build_array(refer("TransactionRecord")), **page},
                "before": build_or_null(TEXT),
            }
        ),
        **build_model_schemas(),
        "Status": build_object(
            {
                "chain_id": TEXT,
                "genesis_hash": HASH_SCHEMA,
                "node": build_object({"name": TEXT, "address": ADDRESS_SCHEMA, "version": TEXT}),
                "head": build_object({"height": INT, "hash": HASH_SCHEMA}),
                "finalized": build_object(
                    {"height": INT, "hash": HASH_SCHEMA, "state_root": HASH_SCHEMA, "timestamp_ms": TIME}
                ),
                "clock_ms": TIME,
                "view": INT,
                "epoch": INT,
                "peers": INT,
                "syncing": BOOL,
                "mempool": build_object({"transactions": INT, "bytes": INT}),
                "model": build_or_null(refer("Model")),
                "policies": build_array(
                    build_object(
                        {
                            "name": TEXT,
                            "deadline_ms": INT,
                            "on_failure": {"enum": [SKIP, REFUSE]},
                            "stuck": BOOL,
                            "transactions": build_object({d.name.lower(): INT for d in Decision}),
                            "calls": build_object(dict.fromkeys(CALL_OUTCOMES, INT)),
                        }
                    )
                ),
                "parameters": build_object(
                    {entry.name: _PARAMETER_NAMES.get(entry.name, INT) for entry in fields(Parameters)}
                ),
            }
        ),
        **build_stake_schemas(),
        **build_report_schemas(),
        "Peers": build_object(
            {
                "peers": build_array(
                    build_object(
                        {
                            "name": TEXT,
                            "node_key": KEY_SCHEMA,
                            "endpoint": TEXT,
                            "direction": {"enum": ["inbound", "outbound"]},
                            "connected": BOOL,
                            "height": build_or_null(INT),
                        }
                    )
                )
            }
        ),
        "Mempool": build_object(
            {
                "transactions": INT,
                "bytes": INT,
                "entries": {
                    **build_array(
                        {"allOf": [refer("Transaction"), build_object({"score": build_or_null(SCORE)})]}
                    ),
                    **page,
                },
            }
        ),
        **build_refusal_schemas(limits),
        "Health": build_object({"live": BOOL, "ready": BOOL}),
        "Problem": build_object(
            {
                "type": TEXT,
                "title": TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": TEXT,
                "code": {**TEXT, "description": "stable, for machines"},
                "field": TEXT,
                "mend": TEXT,
            },
            ("field", "mend"),
            description="RFC 9457",
        ),
    }
