"""What each kind of transaction has of its own in JSON, beside the envelope: its name, fields, both ways.

A payload is canonical bytes that only its kind reads. In JSON its contents stand as fields by name; who
sends may give those fields, the payload in hex, or both, which must then agree.

Invariant: `read_payload` makes of what `form_own` wrote the same bytes. One table: a new kind is added here
and its schema follows. Leaves out: the envelope (`transaction_reading`), and whether the ledger takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from consensus import crypto, vote
from consensus.bft.evidence import decode_evidence, encode_evidence
from consensus.codec import MONEY_MAX
from consensus.errors import Rejected
from consensus.ledger import beacon, bond, cases, dispute, report, rotation, unbond
from consensus.ledger.kinds import KINDS
from consensus.ledger.motion import decode_motion
from consensus.parameters import WHOLE_BP
from consensus.transaction import (
    KIND_APPROVE_MOTION,
    KIND_BOND,
    KIND_COMMIT,
    KIND_DISPUTE_REPORT,
    KIND_EVIDENCE,
    KIND_PUBLISH_MODEL,
    KIND_RECLAIM_DEPOSIT,
    KIND_REPORT,
    KIND_ROTATE_KEY,
    KIND_UNBOND,
    KIND_VOTE_REPORT,
    KIND_WITHDRAW_REPORT,
    PAYLOAD_BYTES_MAX,
)
from consensus.vote import Evidence, Subject, Vote
from node.api import model_forms
from node.api.json_reading import Fields, get_field, read_bytes, read_hex, read_int
from node.api.model_schemas import CHUNK_SCHEMA, MOTION_SCHEMA

Json = dict[str, Any]

_HASH: Final[Json] = {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}
_KEY: Final[Json] = {"type": "string", "pattern": "^0x[0-9a-f]{66}$"}
_SIGNATURE: Final[Json] = {"type": "string", "pattern": "^0x[0-9a-f]{128}$"}
_INT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": MONEY_MAX}
_VOTE: Final[Json] = {
    "type": "object",
    "properties": {
        "kind": {"enum": list(vote.KIND_NAMES)},
        "block_hash": {"type": "string", "pattern": "^0x([0-9a-f]{64})?$"},
        "signature": _SIGNATURE,
    },
    "required": ["kind", "block_hash", "signature"],
}
_EVIDENCE: Final[Json] = {
    "type": "object",
    "properties": {
        "epoch": _INT,
        "view": _INT,
        "signer": _INT,
        "votes": {"type": "array", "items": _VOTE, "minItems": 2, "maxItems": 2},
    },
    "required": ["epoch", "view", "signer", "votes"],
}


@dataclass(frozen=True, slots=True)
class KindForm:
    """name: of the kind, in JSON. schemas: of its own fields.

    form: what a payload says. build: the payload of the fields, where they say all of it.
    is_whole: the fields cannot be left out when there is no payload.
    """

    name: str
    schemas: Mapping[str, Json] = field(default_factory=dict)
    form: Callable[[bytes], Json] = lambda _: {}
    build: Callable[[Fields], bytes] | None = None
    is_whole: bool = True


# --- the kinds ----------------------------------------------------------------------------------------


def _form_report(payload: bytes) -> Json:
    return {"reported": "0x" + report.decode_payload(payload).reported.id.hex()}


def _form_about(payload: bytes) -> Json:
    return {"reported": "0x" + cases.decode_about(payload).id.hex()}


def _form_vote(payload: bytes) -> Json:
    reported, verdict = dispute.decode_vote(payload)
    return {"reported": "0x" + reported.id.hex(), "verdict": dispute.VERDICT_NAMES[verdict]}


def _form_bond(payload: bytes) -> Json:
    if not payload:
        return {}
    founding = bond.decode_founding(payload)
    return {
        "voting_key": "0x" + founding.voting_key.hex(),
        "voting_key_proof": "0x" + founding.proof.hex(),
        "commission_bp": founding.commission_bp,
    }


def _build_bond(fields: Fields) -> bytes:
    key, proof = _read_voting_key(fields)
    return bond.encode_founding(bond.Founding(key, proof, read_int(fields, "commission_bp", WHOLE_BP)))


def _form_rotation(payload: bytes) -> Json:
    key, proof = rotation.decode_rotation(payload)
    return {"voting_key": "0x" + key.hex(), "voting_key_proof": "0x" + proof.hex()}


def _build_rotation(fields: Fields) -> bytes:
    return rotation.encode_rotation(*_read_voting_key(fields))


def _read_voting_key(fields: Fields) -> tuple[bytes, bytes]:
    return (
        read_bytes(fields, "voting_key", crypto.KEY_BYTES),
        read_bytes(fields, "voting_key_proof", crypto.SIGNATURE_BYTES),
    )


def form_evidence(evidence: Evidence) -> Json:
    """Two votes of one validator, in the order of their bytes; what they share is said once."""
    ordered = decode_evidence(encode_evidence(evidence))
    subject = ordered.first.subject
    return {
        "epoch": subject.epoch,
        "view": subject.view,
        "signer": ordered.first.signer,
        "votes": [
            {
                "kind": vote.KIND_NAMES[cast.subject.kind],
                "block_hash": "0x" + cast.subject.block_hash.hex(),
                "signature": "0x" + cast.signature.hex(),
            }
            for cast in (ordered.first, ordered.second)
        ],
    }


def read_evidence(value: Any) -> bytes:
    """The payload of evidence in JSON. Raises Rejected; the signatures are not checked."""
    shared = _check_object(value, "evidence", frozenset(("epoch", "view", "signer", "votes")))
    numbers = [read_int(shared, name) for name in ("epoch", "view", "signer")]
    votes = get_field(shared, "votes")
    if type(votes) is not list or len(votes) != 2:
        raise Rejected("must be a list of two", field="evidence.votes", code="type")
    return encode_evidence(Evidence(*(_read_vote(cast, *numbers) for cast in votes)))


def _read_vote(value: Any, epoch: int, view: int, signer: int) -> Vote:
    fields = _check_object(value, "evidence.votes", frozenset(("kind", "block_hash", "signature")))
    name = get_field(fields, "kind")
    if name not in vote.KIND_NAMES:
        raise Rejected(
            "is no kind of vote", field="evidence.votes", mend=f"use one of: {', '.join(vote.KIND_NAMES)}"
        )
    kind = vote.KIND_NAMES.index(name)
    block_hash = read_bytes(fields, "block_hash", 0 if kind == vote.NULLIFY else crypto.HASH_BYTES)
    signature = read_bytes(fields, "signature", crypto.SIGNATURE_BYTES)
    return Vote(Subject(epoch, kind, view, block_hash), signer, signature)


def _check_object(value: Any, name: str, names: frozenset[str]) -> Fields:
    if type(value) is not dict or not value.keys() <= names:
        words = ", ".join(sorted(names))
        raise Rejected("must be an object", field=name, code="type", mend=f"give it {words} and nothing else")
    return value


_ABOUT: Final[Json] = {
    "reported": {**_HASH, "description": "the id of the transaction that the payload reports, or is about"}
}
_FORMS: Final[dict[int, KindForm]] = {
    KIND_REPORT: KindForm(
        "fraud_report",
        _ABOUT,
        _form_report,
        is_whole=False,
    ),
    KIND_WITHDRAW_REPORT: KindForm("withdraw_report", _ABOUT, _form_about, is_whole=False),
    KIND_DISPUTE_REPORT: KindForm("dispute_report", _ABOUT, _form_about, is_whole=False),
    KIND_RECLAIM_DEPOSIT: KindForm("reclaim_deposit", _ABOUT, _form_about, is_whole=False),
    KIND_VOTE_REPORT: KindForm(
        "vote_report",
        {**_ABOUT, "verdict": {"enum": list(dispute.VERDICT_NAMES)}},
        _form_vote,
        is_whole=False,
    ),
    KIND_BOND: KindForm(
        "bond",
        {
            "voting_key": {**_KEY, "description": "founds a validator of the sender's that votes with it"},
            "voting_key_proof": {**_SIGNATURE, "description": "of the operator's address, by the voting key"},
            "commission_bp": {"type": "integer", "minimum": 0, "maximum": WHOLE_BP},
        },
        _form_bond,
        _build_bond,
        is_whole=False,
    ),
    KIND_UNBOND: KindForm(
        "unbond",
        {"units": {**_INT, "description": "what leaves the receiver's validator; 0 for all"}},
        lambda payload: {"units": unbond.decode_units(payload)},
        lambda fields: unbond.encode_units(read_int(fields, "units")),
    ),
    KIND_ROTATE_KEY: KindForm(
        "rotate_key",
        {"voting_key": _KEY, "voting_key_proof": _SIGNATURE},
        _form_rotation,
        _build_rotation,
    ),
    KIND_EVIDENCE: KindForm(
        "evidence",
        {"evidence": {**_EVIDENCE, "description": "two votes that contradict each other"}},
        lambda payload: {"evidence": form_evidence(decode_evidence(payload))},
        lambda fields: read_evidence(get_field(fields, "evidence")),
    ),
    KIND_COMMIT: KindForm(
        "commit",
        {"layer": {**_HASH, "description": "the outermost layer of the sender's onion"}},
        lambda payload: {"layer": "0x" + beacon.decode_tip(payload).hex()},
        lambda fields: beacon.encode_tip(read_bytes(fields, "layer", crypto.HASH_BYTES)),
    ),
}

_FORMS[KIND_PUBLISH_MODEL] = KindForm(
    "publish_model",
    {"model_chunk": CHUNK_SCHEMA},
    lambda payload: {"model_chunk": model_forms.form_chunk(payload)},
    lambda fields: model_forms.read_chunk(get_field(fields, "model_chunk")),
)
_FORMS[KIND_APPROVE_MOTION] = KindForm(
    "approve_motion",
    {"motion": MOTION_SCHEMA},
    lambda payload: {"motion": model_forms.form_motion(decode_motion(payload))},
    lambda fields: model_forms.read_motion(get_field(fields, "motion")),
)

# Every kind of the ledger has a name in JSON; those that are not above have no fields of their own.
FORM_BY_KIND: Final = {kind.number: _FORMS.get(kind.number, KindForm(kind.name)) for kind in KINDS}
KIND_NAMES: Final = {number: form.name for number, form in FORM_BY_KIND.items()}
KINDS_BY_NAME: Final = {name: number for number, name in KIND_NAMES.items()}


# --- both ways ----------------------------------------------------------------------------------------


def form_own(kind: int, payload: bytes) -> Json:
    """The kind's own fields. The payload's form was checked."""
    form = FORM_BY_KIND.get(kind)
    return {} if form is None else form.form(payload)


def read_payload(kind: int, fields: Fields) -> bytes:
    """The payload that the fields say: in hex, by name, or both. Raises Rejected."""
    form = FORM_BY_KIND[kind]
    for name in sorted(OWN_FIELDS & fields.keys() - form.schemas.keys()):
        holders = ", ".join(other.name for other in FORM_BY_KIND.values() if name in other.schemas)
        raise Rejected(
            f"is not a field of this kind, only of: {holders}",
            field=name,
            code="unknown_field",
            mend="remove it",
        )
    given = {name: fields[name] for name in form.schemas if name in fields}
    if "payload" not in fields and form.build is not None:
        return form.build(fields) if given or form.is_whole else b""
    payload = b"" if "payload" not in fields else _read_payload(fields)
    if given:
        _check_agreement(form, payload, given)
    return payload


def _read_payload(fields: Fields) -> bytes:
    payload = read_hex(get_field(fields, "payload"), "payload")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Rejected(
            f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} allowed", field="payload", code="size"
        )
    return payload


def _check_agreement(form: KindForm, payload: bytes, given: Json) -> None:
    said = form.form(payload)
    for name, value in given.items():
        is_same = name in said and type(value) is type(said[name]) and value == said[name]
        if not is_same:
            raise Rejected(
                "is not what the payload says", field=name, code=f"{name}_mismatch", mend="leave it out"
            )


# --- schemas ------------------------------------------------------------------------------------------


def build_own_schemas() -> tuple[Json, Json]:
    """Schemas of all kinds' own fields by name; and for each name the kinds that may have it, to be required."""
    properties: Json = {}
    holders: Json = {}
    for name in sorted(OWN_FIELDS):
        forms = [form for form in FORM_BY_KIND.values() if name in form.schemas]
        properties[name] = forms[0].schemas[name]
        holders[name] = {"properties": {"kind": {"enum": [form.name for form in forms]}}}
    return properties, holders


OWN_FIELDS: Final = frozenset(name for form in FORM_BY_KIND.values() for name in form.schemas)
