"""What light clients are served, in JSON, both ways: headers, certificates, sets and proofs.

Reading is for answers of a node that nobody trusts. Invariant: whatever it answers is read or Rejected;
whether it is true is for `consensus/light.py`. Leaves out: forms that no light client reads (`json_forms`).
"""

from __future__ import annotations

from typing import Any, Final

from consensus import codec, crypto, light, vote
from consensus.block import Header
from consensus.errors import Rejected
from consensus.ledger.epochs import EpochSet
from consensus.ledger.proofs import AccountProof
from consensus.ledger.record_proofs import RecordProof
from consensus.ledger.scoring import OUTCOME_NAMES
from consensus.light import FinalHeader
from consensus.vote import Certificate, Subject, Validator, ValidatorSet
from node.api import stake_records
from node.api.json_forms import HEADER_ROOTS, Json, form_finality, form_header, to_hex
from node.api.json_reading import Fields, get_field, read_bytes, read_hex, read_int

SIBLINGS_MAX: Final = 64  # of an RFC 6962 path: 2^64 leaves
PROOF_BYTES_MAX: Final = 262_144  # a record of 128 kB and the branches above it
_NUMBERS: Final = ("epoch", "view", "height", "parent_view")
_HASHES: Final = ("parent_hash", *HEADER_ROOTS, "refusal_root")


# --- writing ------------------------------------------------------------------------------------------


def form_update(record: stake_records.UpdateRecord) -> Json:
    return {
        "hash": to_hex(record.header.hash),
        "header": form_header(record.header),
        **form_finality(record.certificate, record.headers),
        "validators": form_set(record.validators),
        "next_validators": form_set(record.next_validators),
    }


def form_final(final: FinalHeader) -> Json:
    return {
        "hash": to_hex(final.header.hash),
        "header": form_header(final.header),
        **form_finality(final.certificate, final.links),
    }


def form_set(epoch_set: EpochSet) -> list[Json]:
    """By index; a header commits to keys and stakes, not to the operators."""
    pairs = zip(epoch_set.validators.validators, epoch_set.operators, strict=True)
    return [
        {"public_key": to_hex(v.public_key), "stake": v.stake, "operator": to_hex(operator)}
        for v, operator in pairs
    ]


def form_history_proof(proof: stake_records.HistoryProof) -> Json:
    return {
        "hash": to_hex(proof.header.hash),
        "header": form_header(proof.header),
        "anchor_height": proof.anchor_height,
        "history_proof": [to_hex(node) for node in proof.siblings],
    }


def form_record_proof(key: bytes, proof: stake_records.RecordProof) -> Json:
    return {
        "key": to_hex(key),
        "value": None if proof.value is None else to_hex(proof.value),
        "record_proof": to_hex(proof.proof),
        "block_hash": to_hex(proof.header.hash),
        "header": form_header(proof.header),
        **form_finality(proof.certificate, proof.headers),
    }


# --- reading ------------------------------------------------------------------------------------------


def read_object(value: Any, name: str) -> Fields:
    if type(value) is not dict:
        raise Rejected("must be an object", field=name, code="type")
    return value


def read_list(value: Any, name: str, count_max: int) -> list[Any]:
    if type(value) is not list or len(value) > count_max:
        raise Rejected(f"must be a list of at most {count_max}", field=name, code="type")
    return value


def read_header(value: Any) -> Header:
    fields = read_object(value, "header")
    values: dict[str, Any] = {name: read_int(fields, name) for name in _NUMBERS}
    values |= {name: read_bytes(fields, name, crypto.HASH_BYTES) for name in _HASHES}
    return Header(
        **values,
        proposer=read_bytes(fields, "proposer", crypto.KEY_BYTES),
        timestamp_ms=read_int(fields, "timestamp_ms", codec.TIME_MS_MAX),
        transaction_count=read_int(fields, "transaction_count"),
        reveal=read_hex(get_field(fields, "reveal"), "reveal"),
        refusal_count=read_int(fields, "refusal_count"),
    )


def read_certificate(value: Any) -> Certificate:
    fields = read_object(value, "certificate")
    kind = get_field(fields, "kind")
    if kind not in vote.KIND_NAMES:
        raise Rejected("is no kind of vote", field="certificate.kind", code="type")
    block_hash = read_hex(get_field(fields, "block_hash"), "certificate.block_hash")
    subject = Subject(
        read_int(fields, "epoch"), vote.KIND_NAMES.index(kind), read_int(fields, "view"), block_hash
    )
    entries = read_list(get_field(fields, "signatures"), "certificate.signatures", vote.VALIDATORS_MAX)
    signatures = [
        (read_int(entry, "signer"), read_bytes(entry, "signature", crypto.SIGNATURE_BYTES))
        for entry in (read_object(item, "certificate.signatures") for item in entries)
    ]
    return Certificate(subject, tuple(signatures))


def read_final(fields: Fields) -> FinalHeader:
    """What `form_finality` wrote beside a header. Raises Rejected when the node shows no certificate."""
    header = read_header(get_field(fields, "header"))
    certificate = get_field(fields, "certificate")
    if certificate is None:
        raise Rejected(
            f"the node shows none for block {header.height}",
            field="certificate",
            code="certificate",
            mend="ask another node",
        )
    links = read_list(fields.get("certificate_headers", []), "certificate_headers", light.LINKS_MAX)
    return FinalHeader(
        header,
        read_certificate(certificate),
        tuple(read_header(get_field(read_object(link, "certificate_headers"), "header")) for link in links),
    )


def read_set(value: Any, name: str) -> EpochSet:
    entries = [read_object(item, name) for item in read_list(value, name, vote.VALIDATORS_MAX)]
    validators = tuple(
        Validator(read_bytes(entry, "public_key", crypto.KEY_BYTES), read_int(entry, "stake"))
        for entry in entries
    )
    operators = tuple(read_bytes(entry, "operator", crypto.ADDRESS_BYTES) for entry in entries)
    return EpochSet(ValidatorSet(validators), operators)


def read_siblings(value: Any, name: str, count_max: int = SIBLINGS_MAX) -> tuple[bytes, ...]:
    return tuple(read_hex(item, name, crypto.HASH_BYTES) for item in read_list(value, name, count_max))


def read_account_proof(value: Any) -> tuple[Header, AccountProof]:
    fields = read_object(value, "proof")
    raw = read_hex(get_field(fields, "state_proof"), "proof.state_proof")
    proof = AccountProof.from_tuple(codec.decode(raw, what="proof", bytes_max=PROOF_BYTES_MAX))
    return read_header(get_field(fields, "header")), proof


def read_record_proof(fields: Fields) -> tuple[Header, RecordProof]:
    raw = read_hex(get_field(fields, "record_proof"), "record_proof")
    proof = RecordProof.from_tuple(codec.decode(raw, what="proof", bytes_max=PROOF_BYTES_MAX))
    return read_header(get_field(fields, "header")), proof


def read_outcome(fields: Fields) -> int:
    name = get_field(fields, "outcome")
    if name not in OUTCOME_NAMES:
        raise Rejected("is no outcome", field="outcome", code="type")
    return OUTCOME_NAMES.index(name)
