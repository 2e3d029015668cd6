"""The JSON Schemas of the OpenAPI document: what `json_forms` writes and `transaction_reading` takes.

Kept beside the code by a test that compares the fields of every form with its schema.
Source: OpenAPI 3.1 (schemas are JSON Schema 2020-12).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from consensus import codec
from consensus.genesis import (
    CLOCK_WALL,
    CLOCK_WORKLOAD,
    LEADER_ONION,
    LEADER_ROUND_ROBIN,
    WHOLE_BP,
    Parameters,
)
from consensus.ledger.scoring import OUTCOME_NAMES, SCORE_MAX
from consensus.ledger.staking import STATUS_NAMES
from consensus.transaction import PAYLOAD_BYTES_MAX
from consensus.vote import VALIDATORS_MAX
from node.api.kind_forms import KINDS_BY_NAME, build_own_schemas
from node.api.limits import Limits
from node.api.route import ADDRESS_SCHEMA, HASH_SCHEMA, KEY_SCHEMA, SIGNATURE_SCHEMA

Json = dict[str, Any]

_INT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": codec.MONEY_MAX}
_SIGNED: Final[Json] = {"type": "integer"}
_TIME: Final[Json] = {"type": "integer", "minimum": 0, "maximum": codec.TIME_MS_MAX}
_SCORE: Final[Json] = {"type": "integer", "minimum": 0, "maximum": SCORE_MAX}
_BP: Final[Json] = {"type": "integer", "minimum": 0, "maximum": WHOLE_BP}
_OUTCOME: Final[Json] = {"enum": list(OUTCOME_NAMES)}
_TEXT: Final[Json] = {"type": "string"}
_BOOL: Final[Json] = {"type": "boolean"}
_HEX: Final[Json] = {"type": "string", "pattern": "^0x([0-9a-f]{2})*$"}


def refer(name: str) -> Json:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(properties: Json, optional: tuple[str, ...] = (), **more: Any) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


_OWN, _HOLDERS = build_own_schemas()
_TRANSACTION: Final[Json] = {
    "id": HASH_SCHEMA,
    "kind": {"enum": list(KINDS_BY_NAME)},
    "sender": ADDRESS_SCHEMA,
    "receiver": ADDRESS_SCHEMA,
    "amount": _INT,
    "fee": _INT,
    "nonce": _INT,
    "timestamp_ms": _TIME,
    "expires_ms": _TIME,
    "public_key": KEY_SCHEMA,
    "signature": SIGNATURE_SCHEMA,
    "payload": {"type": "string", "pattern": f"^0x([0-9a-f]{{2}}){{0,{PAYLOAD_BYTES_MAX}}}$"},
    **_OWN,
}
_SUBMITTED: Final[Json] = {**_TRANSACTION, "chain_id": _TEXT}
_PARAMETER_NAMES: Final[Json] = {
    "clock": {"enum": [CLOCK_WALL, CLOCK_WORKLOAD]},
    "leader_election": {"enum": [LEADER_ROUND_ROBIN, LEADER_ONION]},
}
_FINALITY: Final[Json] = {
    "certificate": _or_null(refer("Certificate")),
    "certificate_headers": _array(_object({"hash": HASH_SCHEMA, "header": refer("Header")})),
}


def build_schemas(limits: Limits) -> Json:
    """All named schemas. `limits` sets the length of a batch and of pages."""
    page = {"maxItems": limits.page_entries_max}
    return {
        "Transaction": _object(_TRANSACTION, ("payload", *_OWN), dependentSchemas=_HOLDERS),
        "SubmittedTransaction": _object(
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
                    **_array(refer("SubmittedTransaction")),
                    "minItems": 1,
                    "maxItems": limits.batch_transactions_max,
                },
            ]
        },
        "Draft": _object(
            _SUBMITTED, tuple(_SUBMITTED.keys() - {"receiver", "amount"}), additionalProperties=False
        ),
        "Receipt": _object(
            {
                "id": _or_null(HASH_SCHEMA),
                "outcome": {"enum": ["accepted", "refused", "rejected"]},
                "code": _or_null(_TEXT),
                "reason": _or_null(_TEXT),
                "score": _or_null(_SCORE),
                "retry_ms": _or_null(_INT),
            }
        ),
        "Receipts": {"oneOf": [refer("Receipt"), _array(refer("Receipt"))]},
        "TransactionRecord": _object(
            {
                "id": HASH_SCHEMA,
                "status": {"enum": ["pending", "final", "refused", "expired"]},
                "height": _or_null(_INT),
                "index": _or_null(_INT),
                "block_hash": _or_null(HASH_SCHEMA),
                "score": _or_null(_SCORE),
                "outcome": _or_null(_OUTCOME),
                "reasons": _array(_TEXT),
                "transaction": refer("Transaction"),
                "proof": _or_null(refer("TransactionProof")),
            },
            ("proof",),
        ),
        "TransactionProof": _object(
            {
                "block_hash": HASH_SCHEMA,
                "header": refer("Header"),
                "index": _INT,
                "tree_size": _INT,
                "siblings": _array(HASH_SCHEMA),
                "anchor_height": _INT,
                "history_proof": _array(HASH_SCHEMA),
                **_FINALITY,
            },
            ("certificate_headers",),
        ),
        "Verdict": _object(
            {
                "id": HASH_SCHEMA,
                "score": _SCORE,
                "outcome": _OUTCOME,
                "height": _INT,
                "modules": _array(refer("Explanation")),
            }
        ),
        "Explanation": _object(
            {
                "name": _TEXT,
                "score": _SCORE,
                "outcome": _OUTCOME,
                "base": _SIGNED,
                "margin": _SIGNED,
                "contributions": _array(
                    _object({"feature": _TEXT, "value": _SIGNED, "contribution": _SIGNED, "words": _TEXT})
                ),
            },
            description="base + the sum of the contributions = margin, exactly",
        ),
        "Header": _object(
            {
                **dict.fromkeys(("epoch", "view", "height", "parent_view"), _INT),
                "parent_hash": HASH_SCHEMA,
                "proposer": KEY_SCHEMA,
                "timestamp_ms": _TIME,
                "transaction_count": _INT,
                **dict.fromkeys(
                    (
                        "transactions_root",
                        "state_root",
                        "history_root",
                        "modules_digest",
                        "validators_digest",
                        "next_validators_digest",
                        "certificate_digest",
                    ),
                    HASH_SCHEMA,
                ),
                "reveal": {"type": "string", "pattern": "^0x([0-9a-f]{64})?$"},
            }
        ),
        "Certificate": _object(
            {
                "kind": {"enum": ["notarize", "nullify", "finalize"]},
                "epoch": _INT,
                "view": _INT,
                "block_hash": {"type": "string", "pattern": "^0x([0-9a-f]{64})?$"},
                "signatures": _array(_object({"signer": _INT, "signature": SIGNATURE_SCHEMA})),
            }
        ),
        "Block": _object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                "final": _BOOL,
                "transactions": _array(
                    {"allOf": [refer("Transaction"), _object({"score": _SCORE, "outcome": _OUTCOME})]}
                ),
                "parent_certificate": _or_null(refer("Certificate")),
                **_FINALITY,
            },
            ("transactions", "certificate_headers"),
        ),
        "Blocks": _object({"blocks": {**_array(refer("Block")), **page}, "next": _or_null(_INT)}),
        "Account": _object(
            {
                "address": ADDRESS_SCHEMA,
                "balance": _INT,
                "nonce": _INT,
                "nonce_pending": {**_INT, "description": "above those that wait in this node's mempool too"},
                "nonce_window": {"type": "string", "pattern": "^0x[0-9a-f]{16}$"},
                "stake": {**_INT, "description": "all that it has bonded"},
                "owed": {**_INT, "description": "commission of its own validator, to be withdrawn"},
                "delegations": {
                    **_array(_object({"validator": ADDRESS_SCHEMA, "units": _INT})),
                    "maxItems": 100,
                },
                "unbonding": {
                    **_array(
                        _object(
                            {
                                "validator": ADDRESS_SCHEMA,
                                "epoch": _INT,
                                "units": _INT,
                                "release_epoch": _INT,
                                "release_ms": _TIME,
                                "ripe": _BOOL,
                            }
                        )
                    ),
                    "maxItems": 100,
                },
                "height": _INT,
                "modules": _array(
                    _object(
                        {
                            "name": _TEXT,
                            "row": _HEX,
                            "values": {"type": "object", "additionalProperties": _SIGNED},
                        }
                    )
                ),
                "proof": _or_null(refer("AccountProof")),
            },
            ("proof",),
        ),
        "AccountProof": _object(
            {"block_hash": HASH_SCHEMA, "header": refer("Header"), "state_proof": _HEX, **_FINALITY},
            ("certificate_headers",),
        ),
        "History": _object(
            {"transactions": {**_array(refer("TransactionRecord")), **page}, "before": _or_null(_TEXT)}
        ),
        "Model": _object(
            {"name": _TEXT, "digest": HASH_SCHEMA, "flag_score_min": _INT, "refuse_score_min": _INT}
        ),
        "Models": _object({"models": _array(refer("Model"))}),
        "Status": _object(
            {
                "chain_id": _TEXT,
                "genesis_hash": HASH_SCHEMA,
                "node": _object({"name": _TEXT, "address": ADDRESS_SCHEMA, "version": _TEXT}),
                "head": _object({"height": _INT, "hash": HASH_SCHEMA}),
                "finalized": _object(
                    {"height": _INT, "hash": HASH_SCHEMA, "state_root": HASH_SCHEMA, "timestamp_ms": _TIME}
                ),
                "clock_ms": _TIME,
                "view": _INT,
                "epoch": _INT,
                "peers": _INT,
                "syncing": _BOOL,
                "mempool": _object({"transactions": _INT, "bytes": _INT}),
                "model": _or_null(refer("Model")),
                "parameters": _object(
                    {entry.name: _PARAMETER_NAMES.get(entry.name, _INT) for entry in fields(Parameters)}
                ),
            }
        ),
        "Genesis": {"type": "object", "description": "as genesis.json; its digest is block 0's parent_hash"},
        "EpochSet": {
            **_array(_object({"public_key": KEY_SCHEMA, "stake": _INT, "operator": ADDRESS_SCHEMA})),
            "maxItems": VALIDATORS_MAX,
            "description": "by index; headers commit to keys and stakes",
        },
        "Update": _object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                **_FINALITY,
                "validators": refer("EpochSet"),
                "next_validators": refer("EpochSet"),
            },
            ("certificate_headers",),
        ),
        "HistoryProof": _object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                "anchor_height": _INT,
                "history_proof": _array(HASH_SCHEMA),
            }
        ),
        "RecordProof": _object(
            {
                "key": _HEX,
                "value": _or_null(_HEX),
                "record_proof": _HEX,
                "block_hash": HASH_SCHEMA,
                "header": refer("Header"),
                **_FINALITY,
            },
            ("certificate_headers",),
        ),
        "Validator": _object(
            {
                "index": {**_or_null(_INT), "description": "of its seat in this epoch; null without one"},
                "public_key": KEY_SCHEMA,
                "address": {**ADDRESS_SCHEMA, "description": "of its operator"},
                "stake": {**_INT, "description": "with which it votes in this epoch"},
                "share_bp": {**_BP, "description": "of the stake of this epoch"},
                "self": _BOOL,
                "next_stake": {**_INT, "description": "with which it will vote in the next epoch"},
                "voting_key": {**KEY_SCHEMA, "description": "from the next set that is fixed"},
                "bonded": {**_INT, "description": "all stake behind it, its delegators' too"},
                "own_bonded": _INT,
                "owed": {**_INT, "description": "commission to be withdrawn"},
                "commission_bp": _BP,
                "status": {"enum": list(STATUS_NAMES)},
                "jailed_until": {**_or_null(_INT), "description": "the first epoch in which it may unjail"},
                "participation_bp": {
                    **_or_null(_BP),
                    "description": "of the blocks counted in this epoch; null: none yet, or no seat",
                },
            }
        ),
        "Validators": _object(
            {
                "epoch": {**_INT, "description": "of the next block"},
                "height": _INT,
                "boundary_height": {**_or_null(_INT), "description": "the last height of the epoch"},
                "total_stake": _INT,
                "quorum": _INT,
                "next_total_stake": _INT,
                "validators": _array(refer("Validator")),
                "more": {**_BOOL, "description": "others without a seat exist; ask for them by address"},
            }
        ),
        "Peers": _object(
            {
                "peers": _array(
                    _object(
                        {
                            "name": _TEXT,
                            "node_key": KEY_SCHEMA,
                            "endpoint": _TEXT,
                            "direction": {"enum": ["inbound", "outbound"]},
                            "connected": _BOOL,
                            "height": _or_null(_INT),
                        }
                    )
                )
            }
        ),
        "Mempool": _object(
            {
                "transactions": _INT,
                "bytes": _INT,
                "entries": {
                    **_array({"allOf": [refer("Transaction"), _object({"score": _or_null(_SCORE)})]}),
                    **page,
                },
            }
        ),
        "Refusal": _object(
            {
                "id": HASH_SCHEMA,
                "code": _TEXT,
                "reason": _TEXT,
                "score": _or_null(_SCORE),
                "height": _INT,
                "clock_ms": _TIME,
            }
        ),
        "Health": _object({"live": _BOOL, "ready": _BOOL}),
        "Problem": _object(
            {
                "type": _TEXT,
                "title": _TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": _TEXT,
                "code": {**_TEXT, "description": "stable, for machines"},
                "field": _TEXT,
                "mend": _TEXT,
            },
            ("field", "mend"),
            description="RFC 9457",
        ),
    }
