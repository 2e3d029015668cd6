"""Publish model: an artifact comes to the chain, chunk by chunk in any order.

Every payload says the whole manifest: module name, digest, hash and size of the artifact; then the chunk's
number and its bytes. The chunk that completes it must make up the hash, or is refused; then the module is
made of it, once on every node, and must compute the digest that was announced.

An artifact of which nothing sound comes is *final and marked unsound*, not refused: whoever makes all
nodes load things pays for it. Invariant: what is marked sound loads on every node that runs this chain's
code, and its rows fit the room. Leaves out: who decides that it judges (approval.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from consensus import codec, crypto
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import models, staking
from consensus.ledger.kind import UsualKind
from consensus.ledger.models import ARTIFACT_BYTES_MAX, CHUNK_BYTES, Manifest, Model, Publication
from consensus.ledger.scoring import ValidationModule, get_rows_key
from consensus.ledger.seating import compute_slot_bytes
from consensus.transaction import KIND_PUBLISH_MODEL, PAYLOAD_BYTES_MAX, Transaction

if TYPE_CHECKING:
    from consensus.ledger.shelf import ModuleShelf
    from consensus.ledger.work import Work

NAME_LENGTH_MAX: Final = 64  # as in genesis
MODELS_MADE_MAX: Final = 4  # in a block: every node loads each while it judges, 10 to 50 ms
_PAYLOADS_KEPT: Final = 512  # a payload is read by mempool, proposer and judge; two of the largest artifacts


@dataclass(frozen=True, slots=True)
class Chunk:
    """A payload: what the artifact is, and one piece of it."""

    manifest: Manifest
    index: int
    data: bytes


def encode_chunk(chunk: Chunk) -> bytes:
    manifest = chunk.manifest
    return codec.encode(
        (
            manifest.name,
            manifest.digest,
            manifest.artifact_hash,
            manifest.artifact_bytes,
            chunk.index,
            chunk.data,
        )
    )


@lru_cache(maxsize=_PAYLOADS_KEPT)
def decode_chunk(payload: bytes) -> Chunk:
    """Raises Rejected."""
    fields: tuple[Any, ...] = codec.decode_flat(payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, count=6)
    name, digest, artifact_hash, artifact_bytes, index, data = fields
    manifest = Manifest(
        codec.check_str(name, "payload.name", length_max=NAME_LENGTH_MAX),
        codec.check_bytes(digest, "payload.digest", length=crypto.HASH_BYTES),
        codec.check_bytes(artifact_hash, "payload.artifact_hash", length=crypto.HASH_BYTES),
        codec.check_int(artifact_bytes, "payload.artifact_bytes", low=1, high=ARTIFACT_BYTES_MAX),
    )
    codec.check_int(index, "payload.index", high=manifest.chunks - 1)
    data = codec.check_bytes(data, "payload.chunk", length=manifest.get_chunk_bytes(index))
    return Chunk(manifest, index, data)


def cut_artifact(name: str, digest: bytes, artifact: bytes) -> Iterator[bytes]:
    """The payloads that publish an artifact, in order. Raises Rejected when it is too large, or empty."""
    codec.check_int(len(artifact), "artifact_bytes", low=1, high=ARTIFACT_BYTES_MAX)
    manifest = Manifest(name, digest, sha256(artifact).digest(), len(artifact))
    for index in range(manifest.chunks):
        data = artifact[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        yield encode_chunk(Chunk(manifest, index, data))


def compute_fee_min(payload: bytes, fee_units_min: int, artifact_byte_fee_units: int) -> int:
    """What publishing this chunk costs at least, by these parameters of the chain."""
    return fee_units_min + len(payload) * artifact_byte_fee_units


@dataclass(frozen=True, slots=True)
class PublishModelKind(UsualKind):
    """By anybody, to itself, without an amount; the fee pays for the bytes."""

    number: int = KIND_PUBLISH_MODEL
    name: str = "publish_model"

    def check_form(self, tx: Transaction) -> None:
        decode_chunk(tx.payload)
        staking.check_own(tx)
        staking.check_no_amount(tx)

    def check(self, tx: Transaction, work: Work) -> None:
        chunk = decode_chunk(tx.payload)
        manifest = chunk.manifest
        if manifest.name not in work.shelf.names:
            raise Rejected(
                f'"{manifest.name}" is no module of this chain',
                field="payload.name",
                mend=f"use one of: {', '.join(work.shelf.names) or '(none)'}",
                code="model_name",
            )
        parameters = work.parameters
        fee_min = compute_fee_min(tx.payload, parameters.fee_units_min, parameters.artifact_byte_fee_units)
        if tx.fee < fee_min:
            raise Rejected(
                f"{tx.fee}, with {len(tx.payload)} bytes of an artifact it costs {fee_min}",
                field="fee",
                mend=f"use {fee_min}",
                code="fee",
            )
        if models.find_model(work.records, manifest.digest) is not None:
            raise Rejected("is known on this chain", field="payload.digest", code="model_known")
        publication_id = models.compute_publication_id(manifest, tx.sender)
        if models.has_chunk(work.records, publication_id, chunk.index):
            raise Rejected(f"chunk {chunk.index} is here", field="payload.index", code="chunk_twice")
        found = models.find_publication(work.records, publication_id)
        if (0 if found is None else found.had) + 1 == manifest.chunks:
            if work.models_made >= MODELS_MADE_MAX:
                raise NotYet(
                    f"{work.models_made} models became whole in this block",
                    field="payload.index",
                    mend="wait for the next block",
                    code="models_made",
                )
            _check_hash(work, publication_id, chunk)

    def apply(self, tx: Transaction, work: Work) -> None:
        chunk = decode_chunk(tx.payload)
        manifest = chunk.manifest
        publication_id = models.compute_publication_id(manifest, tx.sender)
        found = models.find_publication(work.records, publication_id)
        if found is None:
            found = Publication(manifest, tx.sender, 0, work.height, 0)
        expires_ms = work.compute_time_ms(tx) + work.parameters.publication_ms
        found = replace(found, had=found.had + 1, expires_ms=expires_ms)
        records = models.put_chunk(work.records, publication_id, chunk.index, chunk.data)
        if found.is_whole:
            work.models_made += 1
            model = _find_sound(work, publication_id, chunk)
            if model is None:
                found = replace(found, is_unsound=True)
            else:
                records = models.put_model(records, manifest.digest, model)
        work.records = models.put_publication(records, publication_id, found)

    def close(self, work: Work) -> None:
        work.records = models.forget_expired(work.records, work.timestamp_ms)


PUBLISH_MODEL: Final = PublishModelKind()


def _read_with(work: Work, publication_id: bytes, chunk: Chunk) -> bytes:
    """The artifact with its last chunk. Raises Fault unless it is what the manifest says."""
    records = models.put_chunk(work.records, publication_id, chunk.index, chunk.data)
    return models.read_artifact(records, publication_id, chunk.manifest)


def _check_hash(work: Work, publication_id: bytes, chunk: Chunk) -> None:
    try:
        _read_with(work, publication_id, chunk)
    except Fault:
        raise Rejected(
            "with it the chunks do not make up artifact_hash",
            field="payload.chunk",
            mend="publish the artifact anew, all chunks from one file",
            code="artifact_hash",
        ) from None


def _find_sound(work: Work, publication_id: bytes, chunk: Chunk) -> Model | None:
    """The model of a whole artifact; None when it does not load, is another, or does not fit."""
    manifest = chunk.manifest
    try:
        module = make_sound(
            work.shelf, manifest, _read_with(work, publication_id, chunk), work.module_room_bytes
        )
    except Rejected:
        return None
    return Model(manifest.name, get_rows_key(module), module.row_bytes, publication_id, work.height, 0)


def make_sound(shelf: ModuleShelf, manifest: Manifest, artifact: bytes, room_bytes: int) -> ValidationModule:
    """The artifact's module. Raises Rejected unless it has the digest, and its rows fit the room."""
    module = shelf.make(manifest.name, artifact)
    if module.digest != manifest.digest:
        raise Rejected(
            f"computes digest 0x{module.digest.hex()}, announced was 0x{manifest.digest.hex()}",
            field="model",
            mend="publish it under the digest that it has",
            code="model",
        )
    need = compute_slot_bytes(module.row_bytes)
    if need > room_bytes:
        raise Rejected(
            f"needs {need} bytes of every account's row, this chain has room for {room_bytes}",
            field="model",
            mend="train one that keeps less",
            code="model",
        )
    return module
