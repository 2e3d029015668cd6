"""Models and motions in JSON: the own fields of their kinds of transaction, both ways, and what /v1/models tells.

Invariant: what is read back makes the bytes that were formed. Leaves out: schemas (`model_schemas.py`).
"""

from __future__ import annotations

from typing import Any, Final

from consensus import crypto
from consensus.codec import check_str
from consensus.errors import Rejected
from consensus.ledger import motion, publication
from consensus.ledger.models import ARTIFACT_BYTES_MAX, CHUNK_BYTES, Manifest
from consensus.ledger.motion import Motion, RetireModel, SeatModel
from consensus.ledger.publication import NAME_LENGTH_MAX, Chunk
from consensus.ledger.scoring import OUTCOME_NAMES, Thresholds
from node.api.json_reading import Fields, get_field, read_bytes, read_hex, read_int
from node.api.model_records import (
    ComparisonRecord,
    EraRecord,
    ModelRecord,
    ModelsRecord,
    MotionRecord,
    PublishedRecord,
)

Json = dict[str, Any]

SEAT: Final = "seat"
RETIRE: Final = "retire"
CHUNK_FIELDS: Final = ("name", "digest", "artifact_hash", "artifact_bytes", "index", "chunk")
SEAT_FIELDS: Final = ("digest", "flag_score_min", "refuse_score_min", "weight", "in_place_of")
MOTION_FIELDS: Final = ("height", "change", *SEAT_FIELDS)


# --- the kinds' own fields ---------------------------------------------------------------------------


def form_chunk(payload: bytes) -> Json:
    chunk = publication.decode_chunk(payload)
    manifest = chunk.manifest
    return {
        "name": manifest.name,
        "digest": _hex(manifest.digest),
        "artifact_hash": _hex(manifest.artifact_hash),
        "artifact_bytes": manifest.artifact_bytes,
        "index": chunk.index,
        "chunk": _hex(chunk.data),
    }


def read_chunk(value: Any) -> bytes:
    """The payload of a chunk in JSON. Raises Rejected."""
    fields = _check_object(value, "model_chunk", CHUNK_FIELDS)
    data = read_hex(get_field(fields, "chunk"), "model_chunk.chunk")
    if len(data) > CHUNK_BYTES:
        raise Rejected(
            f"{len(data)} bytes, at most {CHUNK_BYTES} allowed", field="model_chunk.chunk", code="size"
        )
    manifest = Manifest(
        check_str(get_field(fields, "name"), "model_chunk.name", length_max=NAME_LENGTH_MAX),
        read_bytes(fields, "digest", crypto.HASH_BYTES),
        read_bytes(fields, "artifact_hash", crypto.HASH_BYTES),
        read_int(fields, "artifact_bytes", ARTIFACT_BYTES_MAX),
    )
    payload = publication.encode_chunk(Chunk(manifest, read_int(fields, "index"), data))
    publication.decode_chunk(payload)
    return payload


def form_motion(subject: Motion) -> Json:
    change = subject.change
    if isinstance(change, RetireModel):
        return {"height": subject.height, "change": RETIRE, "digest": _hex(change.digest)}
    return {
        "height": subject.height,
        "change": SEAT,
        "digest": _hex(change.digest),
        "flag_score_min": change.thresholds.flag_score_min,
        "refuse_score_min": change.thresholds.refuse_score_min,
        "weight": change.weight,
        "in_place_of": _hex(change.in_place_of) if change.in_place_of else None,
    }


def read_motion(value: Any) -> bytes:
    """The payload of an approval of the motion in JSON. Raises Rejected."""
    fields = _check_object(value, "motion", MOTION_FIELDS)
    digest = read_bytes(fields, "digest", crypto.HASH_BYTES)
    match get_field(fields, "change"):
        case "retire":
            _check_object(value, "motion", ("height", "change", "digest"))
            change: motion.Change = RetireModel(digest)
        case "seat":
            place = get_field(fields, "in_place_of")
            change = SeatModel(
                digest,
                Thresholds(read_int(fields, "flag_score_min"), read_int(fields, "refuse_score_min")),
                read_int(fields, "weight"),
                b"" if place is None else read_bytes(fields, "in_place_of", crypto.HASH_BYTES),
            )
        case _:
            raise Rejected("is no change", field="motion.change", mend=f'use "{SEAT}" or "{RETIRE}"')
    payload = motion.encode_motion(Motion(read_int(fields, "height"), change))
    motion.decode_motion(payload)
    return payload


def _check_object(value: Any, name: str, names: tuple[str, ...]) -> Fields:
    if type(value) is not dict or not value.keys() <= set(names):
        raise Rejected(
            "must be an object", field=name, code="type", mend=f"give it {', '.join(names)} and nothing else"
        )
    return value


# --- /v1/models --------------------------------------------------------------------------------------


def form_model(model: ModelRecord) -> Json:
    return {
        "name": model.name,
        "digest": _hex(model.digest),
        "flag_score_min": model.flag_score_min,
        "refuse_score_min": model.refuse_score_min,
        "weight": model.weight,
        "row_bytes": model.row_bytes,
        "since": model.since,
    }


def form_models(record: ModelsRecord) -> Json:
    return {
        "height": record.height,
        "room_bytes": record.room_bytes,
        "room_used_bytes": record.room_used_bytes,
        "models": [form_model(model) for model in record.models],
        "published": [form_published(entry) for entry in record.published],
        "motions": [form_motion_record(entry) for entry in record.motions],
        "history": [form_era(entry) for entry in record.history],
    }


def form_published(record: PublishedRecord) -> Json:
    return {
        "name": record.name,
        "digest": _hex(record.digest),
        "artifact_hash": None if record.artifact_hash is None else _hex(record.artifact_hash),
        "artifact_bytes": record.artifact_bytes,
        "publisher": None if record.publisher is None else _hex(record.publisher),
        "chunks": record.chunks,
        "chunks_here": record.chunks_here,
        "status": record.status,
        "height": record.height,
        "since": record.since,
        "expires_ms": record.expires_ms,
    }


def form_motion_record(record: MotionRecord) -> Json:
    return {
        **form_motion(record.motion),
        "motion": _hex(motion.compute_motion_digest(record.motion)),
        "approvers": [_hex(approver) for approver in record.tally.approvers],
        "approved_stake": record.tally.approved_units,
        "total_stake": record.tally.total_units,
        "decided_height": record.tally.decided_height or None,
        "outcome": None if record.outcome is None else record.outcome.name.lower(),
    }


def form_era(record: EraRecord) -> Json:
    return {
        "height": record.height,
        "modules_digest": _hex(record.modules_digest),
        "models": [form_model(model) for model in record.models],
        "decisions": [form_motion_record(entry) for entry in record.steps],
    }


def form_comparison(record: ComparisonRecord) -> Json:
    """Shares and figures of quality as text: no floats in JSON."""

    def form_quality(quality: tuple[float, float] | None) -> Json | None:
        if quality is None:
            return None
        return {"average_precision": f"{quality[0]:.4f}", "roc_auc": f"{quality[1]:.4f}"}

    return {
        "digest": _hex(record.digest),
        "running": record.is_running,
        "first_height": record.first_height,
        "last_height": record.last_height,
        "transfers": record.transfers,
        "agreeing": record.agreeing,
        "outcomes": {
            chain: dict(zip(OUTCOME_NAMES, row, strict=True))
            for chain, row in zip(OUTCOME_NAMES, record.outcomes, strict=True)
        },
        "mean_difference": f"{record.mean_difference:.1f}",
        "reported": record.reported,
        "chain": form_quality(record.chain_quality),
        "shadow": form_quality(record.shadow_quality),
    }


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
