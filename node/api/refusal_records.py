"""What the API is told of a node's refusals and their log; see `door.py`, whose rules hold here too."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.block import Header
from consensus.refusal import LogEntry, LogHead
from consensus.vote import Certificate


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """Leaf number `index` of this node's log: its data as hashed, and what that says."""

    index: int
    leaf: bytes
    entry: LogEntry


@dataclass(frozen=True, slots=True)
class RefusalProof:
    """A final block of this node's own whose refusal_root holds the entry; the path, lowest sibling first."""

    header: Header
    siblings: tuple[bytes, ...]
    certificate: Certificate | None
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """Why this node refused a transaction; `height` is that of the state it was judged on.

    logged: None where it was not: by policy, or above the rate. proof: None until a final block counts it.
    """

    transaction_id: bytes
    code: str
    reason: str
    score: int | None
    height: int
    clock_ms: int
    logged: LoggedRecord | None = None
    proof: RefusalProof | None = None


@dataclass(frozen=True, slots=True)
class RefusalPage:
    """A part of this node's log, and the head of all of it."""

    head: LogHead
    entries: tuple[LoggedRecord, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That this node's log with the first head begins its log with the second one."""

    first: LogHead
    second: LogHead
    siblings: tuple[bytes, ...]
