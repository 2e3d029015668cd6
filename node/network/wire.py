"""The byte form of frames: one canonical msgpack array (type, fields ...) a message.

Invariant: decode_frame(encode_frame(f)) == f, no other bytes decode to f, and a frame is a *flat* array
of at most seven fields: many ids, raws or scores travel as one byte string each. So a hostile frame
makes no more objects than its type allows, and its size is bounded by type before a byte is decoded.
Leaves out: what is inside a packed engine message, a block or a transaction; each noun checks itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, assert_never

from consensus import codec, crypto, vote
from consensus.block import BLOCK_TRANSACTIONS_MAX, HEADER_BYTES_MAX
from consensus.errors import Rejected
from consensus.genesis import CHAIN_ID_LENGTH_MAX
from consensus.ledger.scoring import OUTCOME_NAMES, SCORE_MAX
from consensus.transaction import TRANSACTION_BYTES_MAX
from node.network.frames import (
    ANNOUNCE_IDS_MAX,
    BLOCK_RAW_BYTES_MAX,
    ENGINE_MESSAGE_BYTES_MAX,
    FINAL_BLOCKS_MAX,
    FRAME_BYTES_MAX,
    HASH_BYTES,
    LINKS_MAX,
    NONCE_BYTES,
    REASON_LENGTH_MAX,
    RESPONDER,
    URL_LENGTH_MAX,
    Announce,
    BlockBody,
    BodyTransactions,
    CompactProposal,
    EngineMessage,
    FinalBlocks,
    Frame,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
    GetTransactions,
    Goodbye,
    Hello,
    Proof,
    Status,
    Transactions,
    Welcome,
)


def encode_frame(frame: Frame) -> bytes:
    """The canonical bytes of a frame, ready to be sent to any number of peers.

    ValueError for a frame that no peer would take: that is our own mistake, and better seen here.
    """
    data = codec.encode((_TYPES[type(frame)], *_pack(frame)))
    kind = _KINDS[_TYPES[type(frame)]]
    if len(data) > kind.bytes_max:
        raise ValueError(f"{type(frame).__name__} of {len(data)} bytes, at most {kind.bytes_max} are sent")
    return data


def decode_frame(data: bytes) -> Frame:
    """The frame that `data` encodes. Raises Rejected; `data` is at most FRAME_BYTES_MAX bytes by transport."""
    # An array of up to 15 and a type below 128 are one byte each, so the type is known, and with it the
    # limits, before anything is decoded.
    kind = _KINDS.get(data[1]) if len(data) >= 2 and data[0] & 0xF0 == 0x90 else None
    if kind is None:
        raise Rejected("starts with no known type", field="frame", code="encoding")
    if len(data) > kind.bytes_max:
        raise Rejected(f"{len(data)} bytes, at most {kind.bytes_max} allowed", field=kind.what, code="size")
    value = codec.decode(data, what=kind.what, bytes_max=kind.bytes_max, items_max=kind.fields + 2)
    return kind.unpack(*codec.check_fields(value, kind.fields + 1, kind.what)[1:])


def _pack(frame: Frame) -> tuple[Any, ...]:
    match frame:
        case Hello():
            return (
                frame.version,
                frame.chain_id,
                frame.genesis_hash,
                frame.role,
                frame.node_key,
                frame.nonce,
                frame.listen_url,
            )
        case Proof():
            return (frame.signature,)
        case Welcome():
            return ()
        case Goodbye():
            return (frame.code, frame.reason)
        case Status():
            return (frame.epoch, frame.head_height, frame.final_height, frame.final_view, frame.final_hash)
        case EngineMessage():
            return (frame.payload,)
        case CompactProposal():
            return (
                frame.proposal,
                b"".join(frame.ids),
                _join_numbers(frame.scores),
                frame.outcomes,
                frame.parent_certificate,
            )
        case GetBodyTransactions():
            return (frame.block_hash, _join_numbers(frame.indices))
        case BodyTransactions():
            return (frame.block_hash, _join_numbers(frame.indices), *_join(frame.raws))
        case GetBlock():
            return (frame.block_hash,)
        case BlockBody():
            return (frame.block_hash, frame.raw)
        case Announce() | GetTransactions():
            return (b"".join(frame.ids),)
        case Transactions():
            return _join(frame.raws)
        case GetFinalBlocks():
            return (frame.from_height, frame.count)
        case FinalBlocks():
            return (frame.from_height, *_join(frame.raws), frame.certificate, *_join(frame.links))
    assert_never(frame)


# --- many values in one byte string ------------------------------------------------------------------


def _join_numbers(numbers: Sequence[int]) -> bytes:
    """Two bytes each, big-endian: scores reach 10,000, and so do places in a block."""
    return struct.pack(f">{len(numbers)}H", *numbers)


def _join(items: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Their lengths, four bytes each, and their bytes."""
    return struct.pack(f">{len(items)}I", *map(len, items)), b"".join(items)


def _split_numbers(value: Any, what: str, count_max: int) -> tuple[int, ...]:
    data = codec.check_bytes(value, what, length_max=2 * count_max)
    if len(data) % 2:
        raise Rejected("is not a whole number of values", field=what, code="size")
    return struct.unpack(f">{len(data) // 2}H", data)


def _split_ids(value: Any, what: str, count_max: int) -> tuple[bytes, ...]:
    data = codec.check_bytes(value, what, length_max=HASH_BYTES * count_max)
    if len(data) % HASH_BYTES:
        raise Rejected("is not a whole number of ids", field=what, code="size")
    ids = tuple(data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES))
    if len(set(ids)) != len(ids):
        raise Rejected("an id stands there twice", field=what, code="duplicate")
    return ids


def _split(lengths: Any, joined: Any, what: str, *, count_max: int, length_max: int) -> tuple[bytes, ...]:
    packed = codec.check_bytes(lengths, f"{what}.lengths", length_max=4 * count_max)
    data = codec.check_bytes(joined, what, length_max=FRAME_BYTES_MAX)
    if len(packed) % 4:
        raise Rejected("is not a whole number of values", field=f"{what}.lengths", code="size")
    sizes = struct.unpack(f">{len(packed) // 4}I", packed)
    if sum(sizes) != len(data):
        raise Rejected(f"{len(data)} bytes, the lengths say {sum(sizes)}", field=what, code="size")
    items = []
    start = 0
    for size in sizes:
        if not 0 < size <= length_max:
            raise Rejected(f"an item of {size} bytes, 1 to {length_max} allowed", field=what, code="size")
        items.append(data[start : start + size])
        start += size
    return tuple(items)


# --- decoding, one function a type ---------------------------------------------------------------------


def _check_url(value: Any, what: str) -> str:
    return "" if value == "" else codec.check_str(value, what, length_max=URL_LENGTH_MAX)


def _unpack_hello(
    version: Any, chain_id: Any, genesis_hash: Any, role: Any, node_key: Any, nonce: Any, listen_url: Any
) -> Hello:
    return Hello(
        codec.check_int(version, "hello.version", high=65_535),
        codec.check_str(chain_id, "hello.chain_id", length_max=CHAIN_ID_LENGTH_MAX),
        codec.check_bytes(genesis_hash, "hello.genesis_hash", length=HASH_BYTES),
        codec.check_int(role, "hello.role", high=RESPONDER),
        codec.check_bytes(node_key, "hello.node_key", length=crypto.KEY_BYTES),
        codec.check_bytes(nonce, "hello.nonce", length=NONCE_BYTES),
        _check_url(listen_url, "hello.listen_url"),
    )


def _unpack_proof(signature: Any) -> Proof:
    return Proof(codec.check_bytes(signature, "proof.signature", length=crypto.SIGNATURE_BYTES))


def _unpack_goodbye(code: Any, reason: Any) -> Goodbye:
    return Goodbye(
        codec.check_str(code, "goodbye.code", length_max=32),
        codec.check_str(reason, "goodbye.reason", length_max=REASON_LENGTH_MAX),
    )


def _unpack_status(epoch: Any, head: Any, final_height: Any, final_view: Any, final_hash: Any) -> Status:
    return Status(
        codec.check_int(epoch, "status.epoch"),
        codec.check_int(head, "status.head_height"),
        codec.check_int(final_height, "status.final_height"),
        codec.check_int(final_view, "status.final_view"),
        codec.check_bytes(final_hash, "status.final_hash", length=HASH_BYTES),
    )


def _unpack_engine_message(payload: Any) -> EngineMessage:
    return EngineMessage(codec.check_bytes(payload, "engine.payload", length_max=ENGINE_MESSAGE_BYTES_MAX))


def _unpack_compact_proposal(
    proposal: Any, ids: Any, scores: Any, outcomes: Any, parent_certificate: Any
) -> CompactProposal:
    frame = CompactProposal(
        codec.check_bytes(proposal, "proposal.proposal", length_max=ENGINE_MESSAGE_BYTES_MAX),
        _split_ids(ids, "proposal.ids", BLOCK_TRANSACTIONS_MAX),
        _split_numbers(scores, "proposal.scores", BLOCK_TRANSACTIONS_MAX),
        codec.check_bytes(outcomes, "proposal.outcomes", length_max=BLOCK_TRANSACTIONS_MAX),
        codec.check_bytes(
            parent_certificate, "proposal.parent_certificate", length_max=vote.CERTIFICATE_BYTES_MAX
        ),
    )
    if not len(frame.ids) == len(frame.scores) == len(frame.outcomes):
        raise Rejected("ids, scores and outcomes differ in number", field="proposal", code="body")
    if max(frame.scores, default=0) > SCORE_MAX:
        raise Rejected(f"a score above {SCORE_MAX}", field="proposal.scores", code="range")
    if max(frame.outcomes, default=0) >= len(OUTCOME_NAMES):
        raise Rejected("unknown outcome", field="proposal.outcomes", code="range")
    return frame


def _check_indices(value: Any, what: str) -> tuple[int, ...]:
    indices = _split_numbers(value, what, BLOCK_TRANSACTIONS_MAX)
    if any(low >= high for low, high in pairwise(indices)):
        raise Rejected("must rise (each place once)", field=what, code="duplicate")
    return indices


def _unpack_get_body(block_hash: Any, indices: Any) -> GetBodyTransactions:
    return GetBodyTransactions(
        codec.check_bytes(block_hash, "get_body.block_hash", length=HASH_BYTES),
        _check_indices(indices, "get_body.indices"),
    )


def _unpack_body(block_hash: Any, indices: Any, lengths: Any, joined: Any) -> BodyTransactions:
    frame = BodyTransactions(
        codec.check_bytes(block_hash, "body.block_hash", length=HASH_BYTES),
        _check_indices(indices, "body.indices"),
        _split(
            lengths, joined, "body.raws", count_max=BLOCK_TRANSACTIONS_MAX, length_max=TRANSACTION_BYTES_MAX
        ),
    )
    if len(frame.indices) != len(frame.raws):
        raise Rejected("indices and transactions differ in number", field="body", code="body")
    return frame


def _unpack_get_block(block_hash: Any) -> GetBlock:
    return GetBlock(codec.check_bytes(block_hash, "get_block.block_hash", length=HASH_BYTES))


def _unpack_block_body(block_hash: Any, raw: Any) -> BlockBody:
    return BlockBody(
        codec.check_bytes(block_hash, "block.block_hash", length=HASH_BYTES),
        codec.check_bytes(raw, "block.raw", length_max=BLOCK_RAW_BYTES_MAX),
    )


def _unpack_announce(ids: Any) -> Announce:
    return Announce(_split_ids(ids, "announce.ids", ANNOUNCE_IDS_MAX))


def _unpack_get_transactions(ids: Any) -> GetTransactions:
    return GetTransactions(_split_ids(ids, "get_transactions.ids", ANNOUNCE_IDS_MAX))


def _unpack_transactions(lengths: Any, joined: Any) -> Transactions:
    return Transactions(
        _split(
            lengths,
            joined,
            "transactions.raws",
            count_max=BLOCK_TRANSACTIONS_MAX,
            length_max=TRANSACTION_BYTES_MAX,
        )
    )


def _unpack_get_final_blocks(from_height: Any, count: Any) -> GetFinalBlocks:
    return GetFinalBlocks(
        codec.check_int(from_height, "get_final_blocks.from_height"),
        codec.check_int(count, "get_final_blocks.count", low=1, high=FINAL_BLOCKS_MAX),
    )


def _unpack_final_blocks(
    from_height: Any, lengths: Any, joined: Any, certificate: Any, link_lengths: Any, links: Any
) -> FinalBlocks:
    frame = FinalBlocks(
        codec.check_int(from_height, "final_blocks.from_height"),
        _split(
            lengths, joined, "final_blocks.raws", count_max=FINAL_BLOCKS_MAX, length_max=BLOCK_RAW_BYTES_MAX
        ),
        codec.check_bytes(certificate, "final_blocks.certificate", length_max=vote.CERTIFICATE_BYTES_MAX),
        _split(
            link_lengths, links, "final_blocks.links", count_max=LINKS_MAX + 1, length_max=HEADER_BYTES_MAX
        ),
    )
    if bool(frame.raws) != bool(frame.certificate) or (frame.links and not frame.raws):
        raise Rejected("blocks and their certificate come together", field="final_blocks", code="body")
    return frame


@dataclass(frozen=True, slots=True)
class _Kind:
    what: str
    frame: type[Frame]
    fields: int  # besides the type
    bytes_max: int
    unpack: Callable[..., Frame]


_SMALL: Final = 1024  # a handful of hashes, keys and lines
_KINDS: Final[dict[int, _Kind]] = {
    0: _Kind("hello", Hello, 7, _SMALL, _unpack_hello),
    1: _Kind("proof", Proof, 1, _SMALL, _unpack_proof),
    2: _Kind("welcome", Welcome, 0, _SMALL, Welcome),
    3: _Kind("goodbye", Goodbye, 2, _SMALL, _unpack_goodbye),
    4: _Kind("status", Status, 5, _SMALL, _unpack_status),
    5: _Kind("engine", EngineMessage, 1, ENGINE_MESSAGE_BYTES_MAX + 16, _unpack_engine_message),
    6: _Kind("proposal", CompactProposal, 5, FRAME_BYTES_MAX, _unpack_compact_proposal),
    7: _Kind("get_body", GetBodyTransactions, 2, 2 * BLOCK_TRANSACTIONS_MAX + 64, _unpack_get_body),
    8: _Kind("body", BodyTransactions, 4, FRAME_BYTES_MAX, _unpack_body),
    9: _Kind("get_block", GetBlock, 1, _SMALL, _unpack_get_block),
    10: _Kind("block", BlockBody, 2, BLOCK_RAW_BYTES_MAX + 64, _unpack_block_body),
    11: _Kind("announce", Announce, 1, HASH_BYTES * ANNOUNCE_IDS_MAX + 16, _unpack_announce),
    12: _Kind(
        "get_transactions", GetTransactions, 1, HASH_BYTES * ANNOUNCE_IDS_MAX + 16, _unpack_get_transactions
    ),
    13: _Kind("transactions", Transactions, 2, FRAME_BYTES_MAX, _unpack_transactions),
    14: _Kind("get_final_blocks", GetFinalBlocks, 2, _SMALL, _unpack_get_final_blocks),
    15: _Kind("final_blocks", FinalBlocks, 6, FRAME_BYTES_MAX, _unpack_final_blocks),
}
_TYPES: Final = {kind.frame: number for number, kind in _KINDS.items()}
