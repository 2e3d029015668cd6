"""The log of a node's refusals: its leaves, its heads in blocks, and what two heads say of each other.

Each node keeps an RFC 6962 log of what it refused (`node/store/refusal_log.py`). A block carries the size
and root of its proposer's log, its head, free for the proposer to choose. Whoever holds a final header can so be shown
that a refusal is in that log, and that a later log contains an earlier one.

Invariant: an empty log has the empty root, and no other has; an entry has one byte form.
Source: RFC 6962 section 2.1; what a lost log does: decision 52. Leaves out: what was never logged. A
proposer that merely omits a transaction leaves no trace here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never

from consensus import codec, crypto, merkle
from consensus.errors import Rejected
from consensus.ledger import scoring

if TYPE_CHECKING:
    from consensus.block import Header

BEGINNING: Final = 0
REFUSAL: Final = 1
COUNT_MAX: Final = codec.MONEY_MAX  # sizes travel in JSON, too
REASONS_MAX: Final = 8  # the largest contributions; a forest of twenty features rarely has more that count
REASON_CHARS_MAX: Final = 120  # "amount is 5.1 times the sender's mean" and room for long numbers
ENTRY_BYTES_MAX: Final = 1_200  # eight reasons of 120 characters, and 110 bytes of all else


@dataclass(frozen=True, slots=True)
class LogHead:
    """How many leaves a log has, and their RFC 6962 root (32 bytes)."""

    count: int = 0
    root: bytes = merkle.EMPTY_ROOT


EMPTY_LOG: Final = LogHead()


@dataclass(frozen=True, slots=True)
class RefusalEntry:
    """One refusal. score: 0..10000; modules_digest: of the modules that judged, as headers have it.

    reasons: printable ASCII, what weighed most first. time_ms: the chain's clock at the refusal;
    height: of the block on whose state it was judged.
    """

    transaction_id: bytes
    score: int
    modules_digest: bytes
    reasons: tuple[str, ...]
    time_ms: int
    height: int


@dataclass(frozen=True, slots=True)
class LogBeginning:
    """The first leaf of a log that follows a lost one: the last head that its proposer's blocks commit to.

    block_hash, height: of the block that carries `lost`. Saying so is all that a node can do for what it lost.
    """

    lost: LogHead
    block_hash: bytes
    height: int
    time_ms: int


LogEntry = RefusalEntry | LogBeginning


def get_head(header: Header) -> LogHead:
    """What a block commits to of its proposer's log."""
    return LogHead(header.refusal_count, header.refusal_root)


def check_head(head: LogHead) -> None:
    """Raises Rejected unless some log could have this head: the empty root is the empty log's alone."""
    if (head.count == 0) != (head.root == merkle.EMPTY_ROOT):
        raise Rejected(
            f"0x{head.root.hex()} is no root of {head.count} refusals",
            field="header.refusal_root",
            mend="commit to the log as it is",
            code="refusals",
        )


# --- leaves -------------------------------------------------------------------------------------------


def encode_entry(entry: LogEntry) -> bytes:
    """The data of a leaf. Raises Rejected for one that `decode_entry` would not take."""
    match entry:
        case RefusalEntry():
            fields: tuple[Any, ...] = (
                REFUSAL,
                entry.transaction_id,
                entry.score,
                entry.modules_digest,
                entry.reasons,
                entry.time_ms,
                entry.height,
            )
        case LogBeginning():
            lost = entry.lost
            fields = (BEGINNING, lost.count, lost.root, entry.block_hash, entry.height, entry.time_ms)
        case _:
            assert_never(entry)
    _read_entry(fields)
    return codec.encode(fields)


def decode_entry(data: bytes) -> LogEntry:
    """The entry that a leaf's data encodes. Raises Rejected."""
    return _read_entry(
        codec.decode(data, what="refusal", bytes_max=ENTRY_BYTES_MAX, items_max=REASONS_MAX + 10)
    )


def _read_entry(value: Any) -> LogEntry:
    kind = value[0] if type(value) is tuple and value else None
    if kind == BEGINNING and type(kind) is int:
        _, count, root, block_hash, height, time_ms = codec.check_fields(value, 6, "refusal")
        return LogBeginning(
            LogHead(
                codec.check_int(count, "refusal.count", low=1, high=COUNT_MAX),
                codec.check_bytes(root, "refusal.root", length=merkle.HASH_BYTES),
            ),
            codec.check_bytes(block_hash, "refusal.block_hash", length=crypto.HASH_BYTES),
            codec.check_int(height, "refusal.height", low=1, high=codec.TIME_MS_MAX),
            codec.check_int(time_ms, "refusal.time_ms", high=codec.TIME_MS_MAX),
        )
    if kind != REFUSAL or type(kind) is not int:
        raise Rejected("is no kind of entry", field="refusal", code="encoding")
    _, transaction_id, score, digest, reasons, time_ms, height = codec.check_fields(value, 7, "refusal")
    if type(reasons) is not tuple or len(reasons) > REASONS_MAX:
        raise Rejected(f"must be an array of at most {REASONS_MAX}", field="refusal.reasons", code="size")
    return RefusalEntry(
        codec.check_bytes(transaction_id, "refusal.id", length=crypto.HASH_BYTES),
        codec.check_int(score, "refusal.score", high=scoring.SCORE_MAX),
        codec.check_bytes(digest, "refusal.modules_digest", length=crypto.HASH_BYTES),
        tuple(codec.check_str(word, "refusal.reasons", length_max=REASON_CHARS_MAX) for word in reasons),
        codec.check_int(time_ms, "refusal.time_ms", high=codec.TIME_MS_MAX),
        codec.check_int(height, "refusal.height", high=codec.TIME_MS_MAX),
    )


def trim_reasons(words: Sequence[str]) -> tuple[str, ...]:
    """As many as an entry takes, each printable ASCII and cut to length; empty ones are left out."""
    plain = (
        "".join(char if char.isascii() and char.isprintable() else "?" for char in text) for text in words
    )
    return tuple(text[:REASON_CHARS_MAX] for text in plain if text)[:REASONS_MAX]


# --- what a head shows --------------------------------------------------------------------------------


def verify_entry(head: LogHead, leaf: bytes, index: int, siblings: Sequence[bytes]) -> bool:
    """Whether the log with this head holds `leaf`, an entry's data, at `index`."""
    return merkle.verify_inclusion(merkle.hash_leaf(leaf), index, head.count, siblings, head.root)


def verify_extension(earlier: LogHead, later: LogHead, proof: Sequence[bytes]) -> bool:
    """Whether the later log begins with the earlier one. The empty log is the beginning of every log."""
    if earlier.count == 0:
        return not proof and earlier == EMPTY_LOG
    return merkle.verify_consistency(earlier.count, later.count, earlier.root, later.root, proof)


def judge_leaves(
    earlier: Header, later: Header, leaves: Sequence[bytes]
) -> Literal["extends", "lost", "rewritten"]:
    """What became of a log between two blocks of one proposer, by all leaves that the later head counts.

    "lost": it was begun anew and says so, naming the earlier block's head, in its first leaf. "rewritten": it
    says nothing, and the two headers are the proof. Raises Rejected when these are not the later log's leaves.
    """
    old, new = get_head(earlier), get_head(later)
    hashes = [merkle.hash_leaf(leaf) for leaf in leaves]
    if LogHead(len(hashes), merkle.compute_root_of_hashes(hashes)) != new:
        raise Rejected(
            f"are not the {new.count} that block {later.height} commits to",
            field="refusals",
            mend="ask again, or another holder of this log",
            code="hidden",
        )
    if LogHead(old.count, merkle.compute_root_of_hashes(hashes[: old.count])) == old:
        return "extends"
    first = decode_entry(leaves[0]) if leaves else None
    told = isinstance(first, LogBeginning) and (first.lost, first.block_hash) == (old, earlier.hash)
    return "lost" if told else "rewritten"
