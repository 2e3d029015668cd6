"""Snapshot: a whole state as bytes, and back. What checkpoints keep and late joiners load.

    magic | head length (4) | head | account rows by slot | records | SHA-256 of all before (32)

head is canonical: (genesis digest, header, account count, row bytes, history size, peaks, record count).
A record: key length (2) | value length (4) | key | value, in order of the keys. Integers big-endian.

Invariant: one state, one dump. `load_state` recomputes every hash and root and compares: a dump that
loads is the state of its header, whoever wrote it; whether that header is final is the caller's question.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

import numpy as np

from consensus import codec, merkle
from consensus.block import HASH_BYTES, HEADER_BYTES_MAX, decode_header
from consensus.errors import Fault, Rejected
from consensus.ledger import records as rec
from consensus.ledger import tree
from consensus.ledger.records import Records
from consensus.ledger.rules import Rules
from consensus.ledger.state import State

MAGIC: Final = b"assay/snapshot/1\n"
CHUNK_BYTES: Final = 1 << 20  # one write each; what a dump costs in memory
HEAD_BYTES_MAX: Final = HEADER_BYTES_MAX + 63 * 34 + 128  # a header, the peaks of 2^63 blocks, numbers
RECORDS_MAX: Final = 1 << 32
_HEAD_LENGTH: Final = struct.Struct(">I")
_RECORD: Final = struct.Struct(">HI")


def dump_state(state: State) -> Iterator[bytes]:
    """The dump in chunks of about a megabyte. Raises Fault when the state is committed to meanwhile."""
    digest = sha256()
    for chunk in _write(state):
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def _write(state: State) -> Iterator[bytes]:
    header, records, history = state.header, state.records, state.history
    count, row_bytes = state.account_count, state.row_bytes
    genesis_digest = records.get(rec.NAMESPACE_PARAMETER + rec.PARAMETER_GENESIS)
    entries = sum(1 for _ in records.walk())
    head = codec.encode((genesis_digest, header.raw, count, row_bytes, history.size, history.peaks, entries))
    yield MAGIC + _HEAD_LENGTH.pack(len(head)) + head
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, count, step):
        if state.header is not header:
            raise Fault("changed while it was dumped", field="state", mend="dump between two commits")
        yield state.rows[start : min(start + step, count)].tobytes()
    pending = bytearray()
    for key, value in records.walk():
        pending += _RECORD.pack(len(key), len(value)) + key + value
        if len(pending) >= CHUNK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def load_state(rules: Rules, data: bytes | bytearray | memoryview) -> State:
    """The state that a dump holds. Raises Rejected naming what does not match."""
    source = _Source(data)
    if len(data) < len(MAGIC) + _HEAD_LENGTH.size + HASH_BYTES or source.take(len(MAGIC), "magic") != MAGIC:
        raise Rejected("is not a snapshot of this version", field="snapshot", mend="fetch or write another")
    if sha256(source.body).digest() != source.checksum:
        raise _differ("checksum")
    (length,) = _HEAD_LENGTH.unpack(source.take(_HEAD_LENGTH.size, "head"))
    head = codec.decode(
        source.take(length, "head"), what="snapshot.head", bytes_max=HEAD_BYTES_MAX, items_max=80
    )
    genesis_digest, header_raw, count, row_bytes, history_size, peaks, entries = codec.check_fields(
        head, 7, "snapshot.head"
    )
    if genesis_digest != rules.genesis.digest:
        raise Rejected("is of another chain", field="snapshot.genesis", code="chain")
    if row_bytes != rules.row_bytes:
        raise Rejected(
            f"{row_bytes} bytes, this chain's modules need {rules.row_bytes}", field="snapshot.row_bytes"
        )
    header = decode_header(codec.check_bytes(header_raw, "snapshot.header", length_max=HEADER_BYTES_MAX))
    codec.check_int(count, "snapshot.account_count", low=1, high=tree.SLOTS_MAX)
    codec.check_int(entries, "snapshot.record_count", high=RECORDS_MAX)
    history = _read_history(history_size, peaks)
    rows = np.frombuffer(source.look(count * row_bytes, "accounts"), dtype=np.uint8).reshape(count, row_bytes)
    records = _read_records(source, entries)
    source.check_end()
    if records.get(rec.NAMESPACE_PARAMETER + rec.PARAMETER_GENESIS) != rules.genesis.digest:
        raise _differ("genesis")
    if (history.size, history.root) != (header.height, header.history_root):
        raise _differ("history_root")
    state = State(row_bytes)
    try:
        root = state.fill(rows, records, history)
    except Fault as fault:
        raise Rejected(fault.problem, field="snapshot.accounts") from None
    if root != header.state_root:
        raise Rejected(
            f"the header says 0x{header.state_root.hex()}, recomputed 0x{root.hex()}",
            field="snapshot.state_root",
            code="state_root",
        )
    state.header = header
    return state


class _Source:
    """Reads a dump from front to back; everything it hands out lies before the checksum."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        whole = memoryview(data)
        self.body = whole[: max(0, len(whole) - HASH_BYTES)]
        self.checksum = bytes(whole[len(self.body) :])
        self._at = 0

    def take(self, length: int, what: str) -> bytes:
        return bytes(self.look(length, what))

    def look(self, length: int, what: str) -> memoryview:
        """The same without a copy."""
        if self._at + length > len(self.body):
            raise Rejected("ends too early", field=f"snapshot.{what}", mend="fetch or write another")
        self._at += length
        return self.body[self._at - length : self._at]

    def check_end(self) -> None:
        if self._at != len(self.body):
            raise Rejected(f"{len(self.body) - self._at} bytes too many", field="snapshot")


def _differ(what: str) -> Rejected:
    return Rejected("does not match the contents", field=f"snapshot.{what}", mend="fetch or write another")


def _read_history(size: Any, peaks: Any) -> merkle.CompactRange:
    codec.check_int(size, "snapshot.history_size")
    if type(peaks) is not tuple:
        raise Rejected("must be an array", field="snapshot.history", code="encoding")
    for peak in peaks:
        codec.check_bytes(peak, "snapshot.history", length=HASH_BYTES)
    try:
        return merkle.CompactRange(size, peaks)
    except ValueError as error:
        raise Rejected(str(error), field="snapshot.history") from None


def _read_records(source: _Source, entries: int) -> Records:
    records, last = Records(), b""
    for _ in range(entries):
        key_length, value_length = _RECORD.unpack(source.take(_RECORD.size, "records"))
        key = source.take(key_length, "records")
        value = source.take(value_length, "records")
        if key <= last:
            raise Rejected("keys do not rise", field="snapshot.records", code="encoding")
        last = key
        try:
            records = records.put(key, value)
        except Fault as fault:
            raise Rejected(fault.problem, field="snapshot.records") from None
    return records
