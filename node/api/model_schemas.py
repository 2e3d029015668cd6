"""The schemas of models: the own fields of their kinds, and what /v1/models answers."""

from __future__ import annotations

from typing import Any, Final, get_args

from consensus.codec import MONEY_MAX
from consensus.genesis import WEIGHT_MAX
from consensus.ledger.models import ARTIFACT_BYTES_MAX, CHUNK_BYTES
from consensus.ledger.publication import NAME_LENGTH_MAX
from consensus.ledger.scoring import OUTCOME_NAMES, REFUSE_NEVER
from consensus.ledger.seating import Outcome
from node.api.model_records import PublicationStatus

Json = dict[str, Any]

LISTED_MAX: Final = 100  # of publications, motions and eras, each: a page of some tens of kilobytes

_INT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": MONEY_MAX}
_HASH: Final[Json] = {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}
_ADDRESS: Final[Json] = {"type": "string", "pattern": "^0x[0-9a-f]{40}$"}
_NAME: Final[Json] = {"type": "string", "maxLength": NAME_LENGTH_MAX}
_SCORE: Final[Json] = {"type": "integer", "minimum": 0, "maximum": REFUSE_NEVER}
_WEIGHT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": WEIGHT_MAX}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: Json, optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items, "maxItems": LISTED_MAX}


CHUNK_SCHEMA: Final[Json] = {
    **_object(
        {
            "name": _NAME,
            "digest": _HASH,
            "artifact_hash": {**_HASH, "description": "SHA-256 of the whole artifact"},
            "artifact_bytes": {"type": "integer", "minimum": 1, "maximum": ARTIFACT_BYTES_MAX},
            "index": _INT,
            "chunk": {"type": "string", "pattern": f"^0x([0-9a-f]{{2}}){{1,{CHUNK_BYTES}}}$"},
        }
    ),
    "description": f"a piece of a model's artifact; all but the last have {CHUNK_BYTES} bytes",
}
_CHANGE: Final[Json] = {
    "height": {**_INT, "description": "from this block on"},
    "change": {"enum": ["seat", "retire"]},
    "digest": _HASH,
    "flag_score_min": _SCORE,
    "refuse_score_min": _SCORE,
    "weight": {**_WEIGHT, "description": "0: it watches"},
    "in_place_of": {**_or_null(_HASH), "description": "null: beside all others"},
}
_OF_A_SEAT: Final = ("flag_score_min", "refuse_score_min", "weight", "in_place_of")
MOTION_SCHEMA: Final[Json] = {
    **_object(_CHANGE, _OF_A_SEAT),
    "description": "what is approved; to retire a model only height, change and digest",
}


_QUALITY: Final[Json] = {
    **_object({"average_precision": {"type": "string"}, "roc_auc": {"type": "string"}}),
    "description": "reported transfers taken for frauds, all others for clean",
}


def _counts() -> Json:
    return _object(dict.fromkeys(OUTCOME_NAMES, _INT))


def build_model_schemas() -> Json:
    """By name."""
    refer: Json = {"$ref": "#/components/schemas/Model"}
    motion: Json = {"$ref": "#/components/schemas/Motion"}
    return {
        "Model": _object(
            {
                "name": _NAME,
                "digest": _HASH,
                "flag_score_min": _SCORE,
                "refuse_score_min": _SCORE,
                "weight": {**_WEIGHT, "description": "0: it watches, and what it says does not count"},
                "row_bytes": {**_INT, "description": "kept of every account"},
                "since": {**_INT, "description": "the height from which it sits there"},
            }
        ),
        "Motion": _object(
            {
                **_CHANGE,
                "motion": _HASH,
                "approvers": {"type": "array", "items": _ADDRESS},
                "approved_stake": _INT,
                "total_stake": _INT,
                "decided_height": _or_null(_INT),
                "outcome": _or_null({"enum": [outcome.name.lower() for outcome in Outcome]}),
            },
            _OF_A_SEAT,
        ),
        "Publication": _object(
            {
                "name": _NAME,
                "digest": _HASH,
                "artifact_hash": _or_null(_HASH),
                "artifact_bytes": _INT,
                "publisher": _or_null(_ADDRESS),
                "chunks": _INT,
                "chunks_here": _INT,
                "status": {"enum": list(get_args(PublicationStatus))},
                "height": _INT,
                "since": _or_null(_INT),
                "expires_ms": _or_null(_INT),
            }
        ),
        "Era": _object(
            {
                "height": _INT,
                "modules_digest": _HASH,
                "models": _list(refer),
                "decisions": _list(motion),
            }
        ),
        "Comparison": _object(
            {
                "digest": _HASH,
                "running": {"type": "boolean", "description": "whether it scores along now"},
                "first_height": _INT,
                "last_height": _INT,
                "transfers": _INT,
                "agreeing": _INT,
                "outcomes": {
                    **_object({name: _counts() for name in OUTCOME_NAMES}),
                    "description": "by the chain's outcome, then by the model's",
                },
                "mean_difference": {
                    "type": "string",
                    "description": "of the scores, the model's less the chain's",
                },
                "reported": {**_INT, "description": "of the transfers, since"},
                "chain": _or_null(_QUALITY),
                "shadow": _or_null(_QUALITY),
            }
        ),
        "Models": _object(
            {
                "height": _INT,
                "room_bytes": {**_INT, "description": "of every account's row, for models"},
                "room_used_bytes": {**_INT, "description": "given away, be it to former models"},
                "models": _list(refer),
                "published": _list({"$ref": "#/components/schemas/Publication"}),
                "motions": _list(motion),
                "history": _list({"$ref": "#/components/schemas/Era"}),
            }
        ),
    }
