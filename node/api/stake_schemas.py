"""The schemas of stake and of what light clients are served."""

from __future__ import annotations

from typing import Final

from consensus.ledger.staking import STATUS_NAMES
from consensus.vote import VALIDATORS_MAX
from node.api.route import ADDRESS_SCHEMA, HASH_SCHEMA, KEY_SCHEMA
from node.api.schema_parts import (
    BOOL,
    BP,
    FINALITY,
    HEX,
    INT,
    TIME,
    Json,
    build_array,
    build_object,
    build_or_null,
    refer,
)

ACCOUNT_STAKE: Final[Json] = {
    "owed": {**INT, "description": "commission of its own validator, to be withdrawn"},
    "delegations": {
        **build_array(build_object({"validator": ADDRESS_SCHEMA, "units": INT})),
        "maxItems": 100,
    },
    "unbonding": {
        **build_array(
            build_object(
                {
                    "validator": ADDRESS_SCHEMA,
                    "epoch": INT,
                    "units": INT,
                    "release_epoch": INT,
                    "release_ms": TIME,
                    "ripe": BOOL,
                }
            )
        ),
        "maxItems": 100,
    },
}


def build_stake_schemas() -> Json:
    """By name."""
    return {
        "Genesis": {"type": "object", "description": "as genesis.json; its digest is block 0's parent_hash"},
        "EpochSet": {
            **build_array(build_object({"public_key": KEY_SCHEMA, "stake": INT, "operator": ADDRESS_SCHEMA})),
            "maxItems": VALIDATORS_MAX,
            "description": "by index; headers commit to keys and stakes",
        },
        "Update": build_object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                **FINALITY,
                "validators": refer("EpochSet"),
                "next_validators": refer("EpochSet"),
            },
            ("certificate_headers",),
        ),
        "HistoryProof": build_object(
            {
                "hash": HASH_SCHEMA,
                "header": refer("Header"),
                "anchor_height": INT,
                "history_proof": build_array(HASH_SCHEMA),
            }
        ),
        "RecordProof": build_object(
            {
                "key": HEX,
                "value": build_or_null(HEX),
                "record_proof": HEX,
                "block_hash": HASH_SCHEMA,
                "header": refer("Header"),
                **FINALITY,
            },
            ("certificate_headers",),
        ),
        "Validator": build_object(
            {
                "index": {**build_or_null(INT), "description": "of its seat in this epoch; null without one"},
                "public_key": KEY_SCHEMA,
                "address": {**ADDRESS_SCHEMA, "description": "of its operator"},
                "stake": {**INT, "description": "with which it votes in this epoch"},
                "share_bp": {**BP, "description": "of the stake of this epoch"},
                "self": BOOL,
                "next_stake": {**INT, "description": "with which it will vote in the next epoch"},
                "voting_key": {**KEY_SCHEMA, "description": "from the next set that is fixed"},
                "bonded": {**INT, "description": "all stake behind it, its delegators' too"},
                "own_bonded": INT,
                "owed": {**INT, "description": "commission to be withdrawn"},
                "commission_bp": BP,
                "status": {"enum": list(STATUS_NAMES)},
                "jailed_until": {
                    **build_or_null(INT),
                    "description": "the first epoch in which it may unjail",
                },
                "participation_bp": {
                    **build_or_null(BP),
                    "description": "of the blocks counted in this epoch; null: none yet, or no seat",
                },
            }
        ),
        "Validators": build_object(
            {
                "epoch": {**INT, "description": "of the next block"},
                "height": INT,
                "boundary_height": {**build_or_null(INT), "description": "the last height of the epoch"},
                "total_stake": INT,
                "quorum": INT,
                "next_total_stake": INT,
                "validators": build_array(refer("Validator")),
                "more": {**BOOL, "description": "others without a seat exist; ask for them by address"},
            }
        ),
    }
