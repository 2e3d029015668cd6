"""Evidence as bytes: a self-contained proof that a validator lied, for anybody who has the validator set.

One array: epoch, view, signer, then (kind, block hash, signature) of both votes in rising order. What the
two votes must share is written once, so that it cannot differ.

Invariant: decode(encode(x)) is x with its votes in order, and no other bytes decode to it.
`vote.check_evidence` checks the signatures and that the votes contradict each other.
Source: consensus.md, Liars. Leaves out: punishment, and that ECDSA lets a signer give two proofs of
one offence; `compute_offence` names the offence itself.
"""

from __future__ import annotations

from typing import Any, Final

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.vote import FINALIZE, NULLIFY, VALIDATORS_MAX, Evidence, Subject, Vote, is_conflict

EVIDENCE_BYTES_MAX: Final = 512  # two hashes, two signatures and a few integers: about 220
HASH_BYTES: Final = 32


def encode_evidence(evidence: Evidence) -> bytes:
    """The canonical bytes. Raises Rejected if the votes do not contradict each other."""
    _check_conflict(evidence)
    first, second = sorted((evidence.first, evidence.second), key=_order)
    subject = first.subject
    return codec.encode((subject.epoch, subject.view, first.signer, _pack(first), _pack(second)))


def decode_evidence(data: bytes) -> Evidence:
    """The evidence that `data` encodes. Raises Rejected; signatures are not checked here."""
    value = codec.decode(data, what="evidence", bytes_max=EVIDENCE_BYTES_MAX)
    epoch, view, signer, first, second = codec.check_fields(value, 5, "evidence")
    codec.check_int(epoch, "evidence.epoch")
    codec.check_int(view, "evidence.view", low=1)
    codec.check_int(signer, "evidence.signer", high=VALIDATORS_MAX - 1)
    evidence = Evidence(_unpack(first, epoch, view, signer), _unpack(second, epoch, view, signer))
    if _order(evidence.first) >= _order(evidence.second):
        raise Rejected(
            "the votes must stand in rising order of kind and hash", field="evidence", code="encoding"
        )
    _check_conflict(evidence)
    return evidence


def compute_offence(evidence: Evidence) -> tuple[int, int, int]:
    """(epoch, view, signer): one lie, however many proofs of it there are."""
    subject = evidence.first.subject
    return (subject.epoch, subject.view, evidence.first.signer)


def _check_conflict(evidence: Evidence) -> None:
    if not is_conflict(evidence.first, evidence.second):
        raise Rejected("the two votes do not conflict", field="evidence", code="evidence")


def _order(vote: Vote) -> tuple[int, bytes]:
    return (vote.subject.kind, vote.subject.block_hash)


def _pack(vote: Vote) -> tuple[int, bytes, bytes]:
    return (vote.subject.kind, vote.subject.block_hash, vote.signature)


def _unpack(value: Any, epoch: int, view: int, signer: int) -> Vote:
    kind, block_hash, signature = codec.check_fields(value, 3, "evidence.vote")
    codec.check_int(kind, "evidence.vote.kind", high=FINALIZE)
    codec.check_bytes(block_hash, "evidence.vote.block_hash", length=0 if kind == NULLIFY else HASH_BYTES)
    codec.check_bytes(signature, "evidence.vote.signature", length=crypto.SIGNATURE_BYTES)
    return Vote(Subject(epoch, kind, view, block_hash), signer, signature)
