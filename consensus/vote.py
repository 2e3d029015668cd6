"""Vote, Certificate, ValidatorSet and Evidence: what validators sign, and what a quorum of it proves.

These nouns lie below both the ledger (a block carries its parent's certificate) and the engine in
`consensus/bft/`. A validator is named by its index in the epoch's frozen set.

Invariant: a certificate names one subject and holds the signatures of distinct validators, in rising
order of index; two valid certificates for one subject may differ, so nothing may be derived from
their bytes (consensus.md, The idea). Quorum q = floor(2W/3) + 1, in integers.
Source: Chan and Pass, Simplex Consensus (ePrint 2023/463); weighted as in TON's Simplex (2026).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Protocol

from consensus import codec, crypto
from consensus.errors import Rejected

VOTE_TAG: Final = b"assay/vote/1"
VALIDATORS_MAX: Final = 1024  # a certificate stays under 70 kB
STAKE_MAX: Final = codec.MONEY_MAX  # stake is money

NOTARIZE: Final = 0
NULLIFY: Final = 1
FINALIZE: Final = 2
KIND_NAMES: Final = ("notarize", "nullify", "finalize")

NO_BLOCK: Final = b""  # the block hash of a nullify vote


@dataclass(frozen=True, slots=True)
class Validator:
    """One who stakes and votes: the voting key (33 bytes) and the stake (smallest units, > 0)."""

    public_key: bytes
    stake: int


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The validators of one epoch, in the order of their index. Raises Rejected when it cannot be one."""

    validators: tuple[Validator, ...]
    total: int = field(init=False)  # W
    quorum: int = field(init=False)  # q = floor(2W/3) + 1
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.validators) <= VALIDATORS_MAX:
            raise Rejected(f"must be 1 to {VALIDATORS_MAX}", field="validators", mend="name at least one")
        for validator in self.validators:
            if not crypto.is_valid_public_key(validator.public_key):
                raise Rejected("is not a secp256k1 key of 33 bytes", field="validators.public_key")
            codec.check_int(validator.stake, "validators.stake", low=1, high=STAKE_MAX)
        if len({validator.public_key for validator in self.validators}) != len(self.validators):
            raise Rejected("a key is listed twice", field="validators.public_key")
        total = sum(validator.stake for validator in self.validators)
        if total > STAKE_MAX:
            raise Rejected(f"add up to more than {STAKE_MAX}", field="validators.stake")
        pairs = tuple((validator.public_key, validator.stake) for validator in self.validators)
        put = object.__setattr__
        put(self, "total", total)
        put(self, "quorum", 2 * total // 3 + 1)
        put(self, "digest", crypto.hash_bytes(codec.encode(pairs)))

    def __len__(self) -> int:
        return len(self.validators)

    def get_index(self, public_key: bytes) -> int | None:
        """The index of the validator that votes with this key, or None."""
        for index, validator in enumerate(self.validators):
            if validator.public_key == public_key:
                return index
        return None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a vote is about. `block_hash` is 32 bytes, or NO_BLOCK for nullify."""

    epoch: int
    kind: int
    view: int
    block_hash: bytes

    def compute_digest(self, chain_id: str) -> bytes:
        """The 32 bytes to sign: domain tag, chain id, epoch, kind, view and block hash."""
        body = codec.encode((self.epoch, self.kind, self.view, self.block_hash))
        return crypto.tagged_digest(VOTE_TAG, chain_id, body)


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's signature (64 bytes) on a subject; `signer` is its index in the epoch's set."""

    subject: Subject
    signer: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A quorum's signatures on one subject: (signer, signature) pairs in rising order of signer."""

    subject: Subject
    signatures: tuple[tuple[int, bytes], ...]

    @property
    def signers(self) -> tuple[int, ...]:
        return tuple(signer for signer, _ in self.signatures)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two votes of one validator that no honest one casts together: proof from the set alone."""

    first: Vote
    second: Vote


class Verifier(Protocol):
    """Checks a signature. Injected, so that simulated runs need not pay for ECDSA."""

    def __call__(self, public_key: bytes, digest: bytes, signature: bytes) -> bool: ...


def is_conflict(first: Vote, second: Vote) -> bool:
    """Whether two votes of one signer break the protocol (consensus.md, Liars).

    Two notarizes or two finalizes for different blocks, or nullify with finalize, in one view.
    Notarize with nullify is legal.
    """
    a, b = first.subject, second.subject
    if first.signer != second.signer or (a.epoch, a.view) != (b.epoch, b.view):
        return False
    if a.kind == b.kind:
        return a.kind != NULLIFY and a.block_hash != b.block_hash
    return {a.kind, b.kind} == {NULLIFY, FINALIZE}


def check_vote(vote: Vote, validators: ValidatorSet, chain_id: str, verify: Verifier) -> None:
    """Raises Rejected unless the vote is a known validator's own signature."""
    if not 0 <= vote.signer < len(validators):
        raise Rejected(f"{vote.signer} is not in the validator set", field="vote.signer", code="signer")
    key = validators.validators[vote.signer].public_key
    if not verify(key, vote.subject.compute_digest(chain_id), vote.signature):
        raise Rejected("does not verify", field="vote.signature", code="signature")


def check_certificate(
    certificate: Certificate, validators: ValidatorSet, chain_id: str, verify: Verifier
) -> None:
    """Raises Rejected unless distinct validators with stake >= quorum signed the subject."""
    signers = certificate.signers
    if any(low >= high for low, high in pairwise(signers)):
        raise Rejected("must rise (each signer once)", field="certificate.signers", code="signer")
    if not signers or signers[0] < 0 or signers[-1] >= len(validators):
        raise Rejected("are not all in the validator set", field="certificate.signers", code="signer")
    stake = sum(validators.validators[signer].stake for signer in signers)
    if stake < validators.quorum:
        raise Rejected(
            f"hold stake {stake}, a quorum is {validators.quorum}", field="certificate.signers", code="quorum"
        )
    digest = certificate.subject.compute_digest(chain_id)
    for signer, signature in certificate.signatures:
        if not verify(validators.validators[signer].public_key, digest, signature):
            raise Rejected(
                f"of signer {signer} does not verify", field="certificate.signature", code="signature"
            )


def check_evidence(evidence: Evidence, validators: ValidatorSet, chain_id: str, verify: Verifier) -> None:
    """Raises Rejected unless both votes are genuine and contradict each other."""
    if not is_conflict(evidence.first, evidence.second):
        raise Rejected("the two votes do not conflict", field="evidence", code="evidence")
    check_vote(evidence.first, validators, chain_id, verify)
    check_vote(evidence.second, validators, chain_id, verify)


# --- canonical form ---------------------------------------------------------------------------


def _pack_subject(subject: Subject) -> tuple[Any, ...]:
    return (subject.epoch, subject.kind, subject.view, subject.block_hash)


def _unpack_subject(value: Any, what: str) -> Subject:
    epoch, kind, view, block_hash = codec.check_fields(value, 4, what)
    kind = codec.check_int(kind, f"{what}.kind", high=FINALIZE)
    length = 0 if kind == NULLIFY else 32
    return Subject(
        codec.check_int(epoch, f"{what}.epoch"),
        kind,
        codec.check_int(view, f"{what}.view", low=1),
        codec.check_bytes(block_hash, f"{what}.block_hash", length=length),
    )


def pack_vote(vote: Vote) -> tuple[Any, ...]:
    return (_pack_subject(vote.subject), vote.signer, vote.signature)


def unpack_vote(value: Any) -> Vote:
    subject, signer, signature = codec.check_fields(value, 3, "vote")
    return Vote(
        _unpack_subject(subject, "vote"),
        codec.check_int(signer, "vote.signer", high=VALIDATORS_MAX - 1),
        codec.check_bytes(signature, "vote.signature", length=crypto.SIGNATURE_BYTES),
    )


def pack_certificate(certificate: Certificate) -> tuple[Any, ...]:
    return (_pack_subject(certificate.subject), certificate.signatures)


def unpack_certificate(value: Any) -> Certificate:
    subject, signatures = codec.check_fields(value, 2, "certificate")
    if type(signatures) is not tuple or len(signatures) > VALIDATORS_MAX:
        raise Rejected("must be an array of signatures", field="certificate.signatures", code="encoding")
    pairs = []
    for pair in signatures:
        signer, signature = codec.check_fields(pair, 2, "certificate.signatures")
        pairs.append(
            (
                codec.check_int(signer, "certificate.signer", high=VALIDATORS_MAX - 1),
                codec.check_bytes(signature, "certificate.signature", length=crypto.SIGNATURE_BYTES),
            )
        )
    return Certificate(_unpack_subject(subject, "certificate"), tuple(pairs))


def encode_certificate(certificate: Certificate) -> bytes:
    return codec.encode(pack_certificate(certificate))


CERTIFICATE_BYTES_MAX: Final = 128 + VALIDATORS_MAX * (crypto.SIGNATURE_BYTES + 8)


def decode_certificate(data: bytes) -> Certificate:
    items_max = 16 + 3 * VALIDATORS_MAX
    return unpack_certificate(
        codec.decode(data, what="certificate", bytes_max=CERTIFICATE_BYTES_MAX, items_max=items_max)
    )
