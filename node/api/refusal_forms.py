"""Refusals and their log in JSON, both ways, and the schemas of these forms.

Reading is for answers of a node that nobody trusts (`node/client/refusals.py`): it is read or Rejected, and
what an entry says is taken from its leaf alone, whatever stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from consensus.block import Header
from consensus.errors import Rejected
from consensus.refusal import COUNT_MAX, ENTRY_BYTES_MAX, LogBeginning, RefusalEntry
from node.api import light_forms
from node.api.json_forms import form_finality, form_header, to_hex
from node.api.json_reading import Fields, get_field, read_hex, read_int
from node.api.limits import Limits
from node.api.refusal_records import ConsistencyProof, LoggedRecord, RefusalPage, RefusalRecord
from node.api.route import HASH_SCHEMA
from node.api.schema_parts import (
    FINALITY,
    HEX,
    INT,
    SCORE,
    TEXT,
    TIME,
    Json,
    build_array,
    build_object,
    build_or_null,
    refer,
)

PAGE_MAX: Final = 1_000  # entries of one answer that are read


# --- writing ------------------------------------------------------------------------------------------


def form_refusal(record: RefusalRecord) -> Json:
    proof = record.proof
    return {
        "id": to_hex(record.transaction_id),
        "code": record.code,
        "reason": record.reason,
        "score": record.score,
        "height": record.height,
        "clock_ms": record.clock_ms,
        "entry": None if record.logged is None else form_logged(record.logged),
        "proof": None
        if proof is None
        else {
            "block_hash": to_hex(proof.header.hash),
            "header": form_header(proof.header),
            "siblings": [to_hex(node) for node in proof.siblings],
            **form_finality(proof.certificate, proof.headers),
        },
    }


def form_logged(logged: LoggedRecord) -> Json:
    """The leaf, and what it says under the name of its kind."""
    entry = logged.entry
    form: Json = {"index": logged.index, "leaf": to_hex(logged.leaf)}
    if isinstance(entry, RefusalEntry):
        form["refusal"] = {
            "id": to_hex(entry.transaction_id),
            "score": entry.score,
            "modules_digest": to_hex(entry.modules_digest),
            "reasons": list(entry.reasons),
            "time_ms": entry.time_ms,
            "height": entry.height,
        }
    else:
        form["beginning"] = form_beginning(entry)
    return form


def form_beginning(entry: LogBeginning) -> Json:
    return {
        "lost_count": entry.lost.count,
        "lost_root": to_hex(entry.lost.root),
        "block_hash": to_hex(entry.block_hash),
        "height": entry.height,
        "time_ms": entry.time_ms,
    }


def form_page(page: RefusalPage) -> Json:
    return {
        "count": page.head.count,
        "root": to_hex(page.head.root),
        "refusals": [form_logged(logged) for logged in page.entries],
        "next": page.entries[-1].index + 1
        if page.entries and page.entries[-1].index + 1 < page.head.count
        else None,
    }


def form_consistency(proof: ConsistencyProof) -> Json:
    return {
        "first": proof.first.count,
        "second": proof.second.count,
        "first_root": to_hex(proof.first.root),
        "second_root": to_hex(proof.second.root),
        "siblings": [to_hex(node) for node in proof.siblings],
    }


def build_refusal_schemas(limits: Limits) -> Json:
    return {
        "Refusal": build_object(
            {
                "id": HASH_SCHEMA,
                "code": TEXT,
                "reason": TEXT,
                "score": build_or_null(SCORE),
                "height": INT,
                "clock_ms": TIME,
                "entry": {
                    **build_or_null(refer("RefusalEntry")),
                    "description": "null: refused by policy, or above the log's rate",
                },
                "proof": {
                    **build_or_null(refer("RefusalProof")),
                    "description": "null until a final block of this node's own counts the entry",
                },
            }
        ),
        "RefusalEntry": build_object(
            {
                "index": INT,
                "leaf": {
                    **HEX,
                    "description": "what is hashed as the leaf (docs/refusals.md, What a node does)",
                },
                "refusal": build_object(
                    {
                        "id": HASH_SCHEMA,
                        "score": SCORE,
                        "modules_digest": HASH_SCHEMA,
                        "reasons": build_array(TEXT),
                        "time_ms": TIME,
                        "height": INT,
                    }
                ),
                "beginning": build_object(
                    {
                        "lost_count": INT,
                        "lost_root": HASH_SCHEMA,
                        "block_hash": HASH_SCHEMA,
                        "height": INT,
                        "time_ms": TIME,
                    },
                    description="the first entry of a log that follows a lost one",
                ),
            },
            ("refusal", "beginning"),
        ),
        "RefusalProof": build_object(
            {
                "block_hash": HASH_SCHEMA,
                "header": refer("Header"),
                "siblings": build_array(HASH_SCHEMA),
                **FINALITY,
            },
            ("certificate_headers",),
        ),
        "Refusals": build_object(
            {
                "count": INT,
                "root": HASH_SCHEMA,
                "refusals": {**build_array(refer("RefusalEntry")), "maxItems": limits.page_entries_max},
                "next": build_or_null(INT),
            }
        ),
        "RefusalConsistency": build_object(
            {
                "first": INT,
                "second": INT,
                "first_root": HASH_SCHEMA,
                "second_root": HASH_SCHEMA,
                "siblings": build_array(HASH_SCHEMA),
            }
        ),
    }


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShownRefusal:
    """What a node shows for one refusal; nothing of it is believed yet."""

    index: int
    leaf: bytes
    header: Header
    siblings: tuple[bytes, ...]


def read_refusal(document: Fields) -> ShownRefusal:
    """Raises Rejected: code "not_logged" or "not_committed" where the node says so."""
    if get_field(document, "entry") is None:
        raise Rejected(
            "was refused, and is not in the node's log: by its own policy, or above the log's rate",
            field="entry",
            code="not_logged",
            mend="there is no proof of it",
        )
    index, leaf = read_logged(document["entry"])
    if get_field(document, "proof") is None:
        raise Rejected(
            "is in the node's log, and no final block of this node counts it yet",
            field="proof",
            code="not_committed",
            mend="wait for its next block; a node that does not validate proposes none",
        )
    shown = light_forms.read_object(document["proof"], "proof")
    return ShownRefusal(
        index,
        leaf,
        light_forms.read_header(get_field(shown, "header")),
        light_forms.read_siblings(get_field(shown, "siblings"), "siblings"),
    )


def read_logged(value: Any) -> tuple[int, bytes]:
    """(index, leaf)."""
    fields = light_forms.read_object(value, "entry")
    leaf = read_hex(get_field(fields, "leaf"), "leaf")
    if len(leaf) > ENTRY_BYTES_MAX:
        raise Rejected(f"{len(leaf)} bytes, at most {ENTRY_BYTES_MAX} allowed", field="leaf", code="size")
    return read_int(fields, "index", COUNT_MAX), leaf


def read_page(document: Fields) -> list[tuple[int, bytes]]:
    items = light_forms.read_list(get_field(document, "refusals"), "refusals", PAGE_MAX)
    return [read_logged(item) for item in items]


def read_consistency(document: Fields) -> tuple[bytes, ...]:
    return light_forms.read_siblings(
        get_field(document, "siblings"), "siblings", 2 * light_forms.SIBLINGS_MAX
    )
