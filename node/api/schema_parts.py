"""What JSON Schemas of the API are made of: numbers, texts, lists, and what makes a block final."""

from __future__ import annotations

from typing import Any, Final

from consensus import codec
from consensus.ledger.scoring import OUTCOME_NAMES, SCORE_MAX
from consensus.parameters import WHOLE_BP
from node.api.route import HASH_SCHEMA

Json = dict[str, Any]

INT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": codec.MONEY_MAX}
SIGNED: Final[Json] = {"type": "integer"}
TIME: Final[Json] = {"type": "integer", "minimum": 0, "maximum": codec.TIME_MS_MAX}
SCORE: Final[Json] = {"type": "integer", "minimum": 0, "maximum": SCORE_MAX}
BP: Final[Json] = {"type": "integer", "minimum": 0, "maximum": WHOLE_BP}
OUTCOME: Final[Json] = {"enum": list(OUTCOME_NAMES)}
TEXT: Final[Json] = {"type": "string"}
BOOL: Final[Json] = {"type": "boolean"}
HEX: Final[Json] = {"type": "string", "pattern": "^0x([0-9a-f]{2})*$"}


def refer(name: str) -> Json:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def build_or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def build_array(items: Json) -> Json:
    return {"type": "array", "items": items}


def build_object(properties: Json, optional: tuple[str, ...] = (), **more: Any) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


FINALITY: Final[Json] = {
    "certificate": build_or_null(refer("Certificate")),
    "certificate_headers": build_array(build_object({"hash": HASH_SCHEMA, "header": refer("Header")})),
}
