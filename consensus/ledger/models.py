"""Models in the state: publications (artifacts that came in chunks) and what may be given a seat.

A publication is named by a digest of what it says and of who says it, so that nobody can occupy
another's. When its last chunk is here the artifact is loaded: a sound one becomes a model, found by its
digest. Genesis's modules are models from the start, without an artifact.

Invariant: a model's record stands for an artifact that is here, whole, and computes its digest. What was
approved stays for ever; what was not is forgotten when its time is over, one publication a block.
Leaves out: the transactions (publication.py, approval.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from typing import Final

from consensus import codec, crypto
from consensus.errors import Fault
from consensus.ledger import records as rec
from consensus.ledger.records import Records
from consensus.ledger.seating import Candidate

PUBLICATION_TAG: Final = b"assay/publication/1"
CHUNK_BYTES: Final = 3_840  # all but the last chunk have so many: a payload holds 4,096 with its names
ARTIFACT_BYTES_MAX: Final = 1_000_000  # every node keeps it, and every snapshot carries it
CHUNKS_MAX: Final = -(-ARTIFACT_BYTES_MAX // CHUNK_BYTES)
_RECORD_BYTES_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a publisher says of its artifact. name: of the module that reads it; digest: that module's."""

    name: str
    digest: bytes
    artifact_hash: bytes
    artifact_bytes: int

    @property
    def chunks(self) -> int:
        return -(-self.artifact_bytes // CHUNK_BYTES)

    def get_chunk_bytes(self, index: int) -> int:
        """The size that the chunk of this number must have."""
        return min(CHUNK_BYTES, self.artifact_bytes - index * CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Publication:
    """had: chunks that came. height: of the first one's block. expires_ms: 0 for what stays.

    is_unsound: it is whole, and nothing sound comes of it.
    """

    manifest: Manifest
    publisher: bytes
    had: int
    height: int
    expires_ms: int
    is_unsound: bool = False

    @property
    def is_whole(self) -> bool:
        return self.had == self.manifest.chunks


@dataclass(frozen=True, slots=True)
class Model:
    """What may be given a seat. publication: empty for a module of genesis.

    height: of the block that completed it. since: the first height it judged or watched at; 0 if it never did.
    """

    name: str
    rows_key: bytes
    row_bytes: int
    publication: bytes
    height: int
    since: int

    def as_candidate(self, digest: bytes) -> Candidate:
        return Candidate(self.name, digest, self.rows_key, self.row_bytes)


# --- publications ---------------------------------------------------------------------------------------


def compute_publication_id(manifest: Manifest, publisher: bytes) -> bytes:
    """32 bytes."""
    fields = (manifest.name, manifest.digest, manifest.artifact_hash, manifest.artifact_bytes, publisher)
    return crypto.hash_bytes(PUBLICATION_TAG + codec.encode(fields))


def find_publication(records: Records, publication_id: bytes) -> Publication | None:
    value = records.get(rec.NAMESPACE_PUBLICATION + publication_id)
    return None if value is None else _decode_publication(value)


def put_publication(records: Records, publication_id: bytes, publication: Publication) -> Records:
    """Writes the record and moves the time at which it is forgotten."""
    old = find_publication(records, publication_id)
    old_expires_ms = 0 if old is None else old.expires_ms
    if old_expires_ms != publication.expires_ms:
        if old_expires_ms:
            records = records.remove(_get_expiry_key(publication_id, old_expires_ms))
        if publication.expires_ms:
            records = records.put(_get_expiry_key(publication_id, publication.expires_ms), b"\x01")
    manifest = publication.manifest
    value = codec.encode(
        (
            manifest.name,
            manifest.digest,
            manifest.artifact_hash,
            manifest.artifact_bytes,
            publication.publisher,
            publication.had,
            publication.height,
            publication.expires_ms,
            publication.is_unsound,
        )
    )
    return records.put(rec.NAMESPACE_PUBLICATION + publication_id, value)


def walk_publications(records: Records) -> Iterator[tuple[bytes, Publication]]:
    """All by id. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(rec.NAMESPACE_PUBLICATION):
        yield key[1:], _decode_publication(value)


def has_chunk(records: Records, publication_id: bytes, index: int) -> bool:
    return records.get(_get_chunk_key(publication_id, index)) is not None


def put_chunk(records: Records, publication_id: bytes, index: int, chunk: bytes) -> Records:
    return records.put(_get_chunk_key(publication_id, index), chunk)


def read_artifact(records: Records, publication_id: bytes, manifest: Manifest) -> bytes:
    """All chunks, one after another. Raises Fault unless they are what the manifest says."""
    chunks = [records.get(_get_chunk_key(publication_id, index)) for index in range(manifest.chunks)]
    artifact = b"".join(chunk for chunk in chunks if chunk is not None)
    if sha256(artifact).digest() != manifest.artifact_hash:
        raise Fault(f"the artifact of 0x{manifest.digest.hex()} is not whole", field="state.records")
    return artifact


def keep_model(records: Records, digest: bytes, since: int = 0) -> Records:
    """It was approved: it stays. since: the height from which it judges, if it does for the first time."""
    model = find_model(records, digest)
    if model is None:
        return records
    if model.publication:
        publication = find_publication(records, model.publication)
        assert publication is not None  # a model's record never outlives it
        records = put_publication(records, model.publication, replace(publication, expires_ms=0))
    if since and not model.since:
        records = put_model(records, digest, replace(model, since=since))
    return records


def forget_expired(records: Records, now_ms: int) -> Records:
    """Removes the publication that is longest over its time: at most CHUNKS_MAX + 3 records, some 5 ms."""
    for key, _ in tuple(islice(records.walk(rec.NAMESPACE_EXPIRY), 1)):
        if int.from_bytes(key[1:9], "big") >= now_ms:
            break
        publication_id = key[9:]
        publication = find_publication(records, publication_id)
        assert publication is not None  # the two are written together
        manifest = publication.manifest
        for index in range(manifest.chunks):
            records = records.remove(_get_chunk_key(publication_id, index))
        model = find_model(records, manifest.digest)
        if model is not None and model.publication == publication_id:
            records = records.remove(rec.NAMESPACE_MODEL + manifest.digest)
        records = records.remove(rec.NAMESPACE_PUBLICATION + publication_id).remove(key)
    return records


def _get_chunk_key(publication_id: bytes, index: int) -> bytes:
    return rec.NAMESPACE_ARTIFACT + publication_id + index.to_bytes(2, "big")


def _get_expiry_key(publication_id: bytes, expires_ms: int) -> bytes:
    return rec.NAMESPACE_EXPIRY + expires_ms.to_bytes(8, "big") + publication_id


def _decode_publication(value: bytes) -> Publication:
    fields = codec.decode_flat(value, what="publication", bytes_max=_RECORD_BYTES_MAX, count=9)
    return Publication(Manifest(*fields[:4]), *fields[4:])


# --- models ---------------------------------------------------------------------------------------------


def find_model(records: Records, digest: bytes) -> Model | None:
    """The model of this digest, or None."""
    value = records.get(rec.NAMESPACE_MODEL + digest)
    return None if value is None else _decode_model(value)


def put_model(records: Records, digest: bytes, model: Model) -> Records:
    value = codec.encode(
        (model.name, model.rows_key, model.row_bytes, model.publication, model.height, model.since)
    )
    return records.put(rec.NAMESPACE_MODEL + digest, value)


def walk_models(records: Records) -> Iterator[tuple[bytes, Model]]:
    """(digest, model) of all. For reading, not for blocks: it is unbounded."""
    for key, value in records.walk(rec.NAMESPACE_MODEL):
        yield key[1:], _decode_model(value)


def _decode_model(value: bytes) -> Model:
    return Model(*codec.decode_flat(value, what="model", bytes_max=_RECORD_BYTES_MAX, count=6))
